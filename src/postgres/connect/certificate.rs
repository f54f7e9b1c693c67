//! What certificates say that rustls does not look at.
//!
//! PostgreSQL's manual makes certificates by hand: of version 1, with a common name and no other, or
//! signed by themselves. libpq takes them, and so does a store.

use std::time::Duration;

use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName, SignatureVerificationAlgorithm, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error};
use x509_cert::certificate::Version;
use x509_cert::der::asn1::{PrintableStringRef, TeletexStringRef, Utf8StringRef};
use x509_cert::der::oid::db::rfc4519::COMMON_NAME;
use x509_cert::der::{Any, Decode, Encode};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, SubjectAltName};
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_cert::{Certificate, TbsCertificate};

/// A certificate that is understood, and not trusted thereby.
pub(super) struct Known(Certificate);

impl Known {
    pub(super) fn new(certificate: &CertificateDer<'_>) -> Result<Self, Error> {
        let known = Certificate::from_der(certificate);
        known
            .map(Self)
            .map_err(|_| CertificateError::BadEncoding.into())
    }

    fn content(&self) -> &TbsCertificate {
        &self.0.tbs_certificate
    }

    pub(super) fn is_of_version_1(&self) -> bool {
        self.content().version == Version::V1
    }

    /// The public key, with its algorithm, in DER.
    pub(super) fn public_key(&self) -> Result<Vec<u8>, Error> {
        let key = self.content().subject_public_key_info.to_der();
        key.map_err(|_| CertificateError::BadEncoding.into())
    }

    pub(super) fn verify_validity(&self, now: UnixTime) -> Result<(), Error> {
        let now = Duration::from_secs(now.as_secs());
        let validity = &self.content().validity;
        if now < validity.not_before.to_unix_duration() {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > validity.not_after.to_unix_duration() {
            return Err(CertificateError::Expired.into());
        }
        Ok(())
    }

    /// Whether one of the roots, and nobody between, signed this certificate.
    pub(super) fn verify_issuer(
        &self,
        roots: &[CertificateDer<'_>],
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> Result<(), Error> {
        let roots = roots.iter().filter_map(|root| Known::new(root).ok());
        let mut issuers = roots
            .filter(|root| root.is_authority() && root.content().subject == self.content().issuer);
        let signed = issuers.any(|issuer| self.is_signed_by(&issuer, algorithms) == Some(true));
        if signed {
            Ok(())
        } else {
            Err(CertificateError::UnknownIssuer.into())
        }
    }

    fn is_authority(&self) -> bool {
        let constraints = self.content().get::<BasicConstraints>();
        matches!(
            constraints,
            Ok(Some((_, BasicConstraints { ca: true, .. })))
        )
    }

    fn is_signed_by(
        &self,
        issuer: &Known,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> Option<bool> {
        let algorithm = identifier(&self.0.signature_algorithm)?;
        let signature = self.0.signature.as_bytes()?;
        let message = self.content().to_der().ok()?;
        let fitting = algorithms
            .iter()
            .copied()
            .filter(|fitting| *fitting.signature_alg_id() == *algorithm);
        issuer.has_signed(&message, signature, fitting)
    }

    /// Whether this certificate's key signed a message by one of the algorithms.
    pub(super) fn has_signed<'a>(
        &self,
        message: &[u8],
        signature: &[u8],
        algorithms: impl IntoIterator<Item = &'a dyn SignatureVerificationAlgorithm>,
    ) -> Option<bool> {
        let key = &self.content().subject_public_key_info;
        let algorithm = identifier(&key.algorithm)?;
        let key = key.subject_public_key.as_bytes()?;
        let mut fitting = algorithms
            .into_iter()
            .filter(|fitting| *fitting.public_key_alg_id() == *algorithm);
        Some(fitting.any(|fitting| fitting.verify_signature(key, message, signature).is_ok()))
    }

    /// `true` if they can't be read, too: then the common name must not stand in for them.
    fn has_alternative_names(&self) -> bool {
        match self.content().get::<SubjectAltName>() {
            Ok(None) => false,
            Ok(Some((_, SubjectAltName(names)))) => names
                .iter()
                .any(|name| matches!(name, GeneralName::DnsName(_) | GeneralName::IpAddress(_))),
            Err(_) => true,
        }
    }

    fn common_name(&self) -> Option<String> {
        let subject = &self.content().subject;
        let mut names = subject.0.iter().flat_map(|part| part.0.iter());
        let name = names.find(|attribute| attribute.oid == COMMON_NAME)?;
        text(&name.value)
    }
}

/// The public key, with its algorithm, in DER: of whatever certificate is understood by anybody here.
pub(super) fn public_key(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, Error> {
    let known = Known::new(certificate).and_then(|known| known.public_key());
    known.or_else(|_| {
        let parsed = ParsedCertificate::try_from(certificate)?;
        Ok(parsed.subject_public_key_info().to_vec())
    })
}

/// The alternative names count, as everywhere. A certificate that has none of them is taken by its
/// common name.
pub(super) fn verify_name(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
) -> Result<(), Error> {
    let verified = ParsedCertificate::try_from(certificate)
        .and_then(|parsed| verify_server_name(&parsed, name));
    let Err(error) = verified else {
        return Ok(());
    };
    let known = Known::new(certificate)?;
    match known
        .common_name()
        .filter(|_| !known.has_alternative_names())
    {
        Some(common) if is_named(&common, name) => Ok(()),
        Some(_) => Err(CertificateError::NotValidForName.into()),
        None => Err(error),
    }
}

/// A leading `*.` stands for one label.
fn is_named(common: &str, name: &ServerName<'_>) -> bool {
    let expected = name.to_str();
    let parent = expected.split_once('.').map(|(_, parent)| parent);
    let is_parent = |(common, parent): (&str, &str)| common.eq_ignore_ascii_case(parent);
    common.eq_ignore_ascii_case(&expected)
        || matches!(name, ServerName::DnsName(_))
            && common.strip_prefix("*.").zip(parent).is_some_and(is_parent)
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

/// An algorithm as rustls compares it: without the header of its sequence.
fn identifier(algorithm: &AlgorithmIdentifierOwned) -> Option<Vec<u8>> {
    let der = algorithm.to_der().ok()?;
    Some(Any::from_der(&der).ok()?.value().to_vec())
}
