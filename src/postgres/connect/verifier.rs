//! Whether a server's certificate proves what the URL asks for.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::asn1::{PrintableStringRef, TeletexStringRef, Utf8StringRef};
use x509_cert::der::oid::db::rfc4519::COMMON_NAME;
use x509_cert::der::{Any, Decode, Encode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

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
            if added.is_err() && Certificate::from_der(certificate).is_err() {
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
            return verify_validity(&understand(certificate)?, now);
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
            verify_name(end_entity, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    /// By the key alone, as certificates of version 1, which PostgreSQL's own manual makes, are
    /// refused else. It is verified in any mode: channel binding relies on it.
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = Certificate::from_der(certificate)
            .and_then(|known| known.tbs_certificate.subject_public_key_info.to_der());
        match key {
            Ok(key) => verify_tls13_signature_with_raw_key(
                message,
                &SubjectPublicKeyInfoDer::from(key),
                signed,
                &self.algorithms,
            ),
            Err(_) => verify_tls13_signature(message, certificate, signed, &self.algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn understand(certificate: &CertificateDer<'_>) -> Result<Certificate, Error> {
    Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding.into())
}

fn verify_validity(certificate: &Certificate, now: UnixTime) -> Result<(), Error> {
    let now = Duration::from_secs(now.as_secs());
    let validity = &certificate.tbs_certificate.validity;
    if now < validity.not_before.to_unix_duration() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > validity.not_after.to_unix_duration() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// The alternative names count, as everywhere. As in libpq, a certificate that has none of them is
/// taken by its common name, which is all that PostgreSQL's manual gives to a certificate.
fn verify_name(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> Result<(), Error> {
    let verified = ParsedCertificate::try_from(certificate)
        .and_then(|parsed| verify_server_name(&parsed, name));
    if verified.is_err() {
        let known = understand(certificate)?;
        let expected = name.to_str();
        if !has_alternative_names(&known)
            && common_name(&known).is_some_and(|common| matches(&common, &expected, name))
        {
            return Ok(());
        }
    }
    verified
}

/// `true` if they can't be read, too: then the common name must not stand in for them.
fn has_alternative_names(certificate: &Certificate) -> bool {
    match certificate.tbs_certificate.get::<SubjectAltName>() {
        Ok(None) => false,
        Ok(Some((_, SubjectAltName(names)))) => names
            .iter()
            .any(|name| matches!(name, GeneralName::DnsName(_) | GeneralName::IpAddress(_))),
        Err(_) => true,
    }
}

fn common_name(certificate: &Certificate) -> Option<String> {
    let subject = &certificate.tbs_certificate.subject;
    let mut names = subject.0.iter().flat_map(|part| part.0.iter());
    let name = names.find(|attribute| attribute.oid == COMMON_NAME)?;
    text(&name.value)
}

fn text(value: &Any) -> Option<String> {
    let utf8 = value.decode_as::<Utf8StringRef>();
    utf8.map(|text| text.as_str().to_owned())
        .or_else(|_| {
            let printable = value.decode_as::<PrintableStringRef>();
            printable.map(|text| text.as_str().to_owned())
        })
        .or_else(|_| {
            let teletex = value.decode_as::<TeletexStringRef>();
            teletex.map(|text| text.as_str().to_owned())
        })
        .ok()
}

/// A leading `*.` stands for one label.
fn matches(pattern: &str, expected: &str, name: &ServerName<'_>) -> bool {
    if pattern.eq_ignore_ascii_case(expected) {
        return true;
    }
    let parent = expected.split_once('.').map(|(_, parent)| parent);
    matches!(name, ServerName::DnsName(_))
        && pattern
            .strip_prefix("*.")
            .zip(parent)
            .is_some_and(|(pattern, parent)| pattern.eq_ignore_ascii_case(parent))
}
