//! Whether a server's certificate proves what the URL asks for.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, PeerMisbehaved, RootCertStore, SignatureScheme,
};

use super::certificate::{self, Known};
use crate::contract::EventStoreError;

/// What a server has to prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    Nothing,
    /// That a trusted root signed for it, for whatever name.
    Chain,
    ChainAndName,
}

/// The certificates that are trusted.
#[derive(Debug, Clone)]
pub(super) struct Roots {
    store: Arc<RootCertStore>,
    /// As they are: a server may show one of them itself.
    themselves: Arc<[CertificateDer<'static>]>,
}

impl Roots {
    pub(super) fn none() -> Self {
        Self::of_system(Vec::new())
    }

    pub(super) fn new(
        certificates: Vec<CertificateDer<'static>>,
        name: &str,
    ) -> Result<Self, EventStoreError> {
        let mut store = RootCertStore::empty();
        for certificate in &certificates {
            // One of version 1 can be no root, but still be the server's own.
            let added = store.add(certificate.clone());
            if added.is_err() && Known::new(certificate).is_err() {
                return Err(EventStoreError::InvalidOptions(format!(
                    "{name}: a certificate can't be understood"
                )));
            }
        }
        Ok(Self {
            store: Arc::new(store),
            themselves: certificates.into(),
        })
    }

    pub(super) fn of_system(certificates: Vec<CertificateDer<'static>>) -> Self {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(certificates);
        Self {
            store: Arc::new(store),
            themselves: Arc::new([]),
        }
    }
}

#[derive(Debug)]
pub(super) struct ServerVerifier {
    proof: Proof,
    roots: Roots,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerVerifier {
    pub(super) fn new(proof: Proof, roots: Roots, algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self {
            proof,
            roots,
            algorithms,
        }
    }

    fn verify_chain(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        // A self-signed server certificate is commonly its own root. As it may call itself an
        // authority, the chain of one would be refused.
        if self.roots.themselves.iter().any(|root| root == certificate) {
            return Known::new(certificate)?.verify_validity(now);
        }
        if let Ok(known) = Known::new(certificate)
            && known.is_of_version_1()
        {
            known.verify_validity(now)?;
            return known.verify_issuer(&self.roots.themselves, self.algorithms.all);
        }
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(certificate)?,
            &self.roots.store,
            intermediates,
            now,
            self.algorithms.all,
        )
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.proof != Proof::Nothing {
            self.verify_chain(end_entity, intermediates, now)?;
        }
        if self.proof == Proof::ChainAndName {
            certificate::verify_name(end_entity, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    /// By the key alone, see [`verify_tls13_signature`](Self::verify_tls13_signature).
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let Ok(known) = Known::new(certificate) else {
            return verify_tls12_signature(message, certificate, signed, &self.algorithms);
        };
        let schemes = self.algorithms.mapping.iter();
        let mut algorithms = schemes.filter(|(scheme, _)| *scheme == signed.scheme);
        let Some((_, algorithms)) = algorithms.next() else {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        };
        match known.has_signed(message, signed.signature(), algorithms.iter().copied()) {
            Some(true) => Ok(HandshakeSignatureValid::assertion()),
            _ => Err(CertificateError::BadSignature.into()),
        }
    }

    /// By the key alone, as certificates of version 1 are refused else. It is verified in any mode:
    /// channel binding relies on it.
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match Known::new(certificate).and_then(|known| known.public_key()) {
            Ok(key) => {
                let key = SubjectPublicKeyInfoDer::from(key);
                verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
            }
            Err(_) => verify_tls13_signature(message, certificate, signed, &self.algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
