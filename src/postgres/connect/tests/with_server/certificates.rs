//! Certificates as operators have them.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SigningKey};
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::asn1::BitString;
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{Decode, Encode, EncodePem};

/// A certificate and its key, in PEM.
pub(super) struct Identity {
    pub(super) certificate: String,
    pub(super) key: String,
}

pub(super) struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pub(super) certificate: String,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = named("root", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self {
            params,
            key,
            certificate,
        }
    }

    fn sign(&self, params: &CertificateParams, key: &KeyPair) -> rcgen::Certificate {
        let issuer = Issuer::from_params(&self.params, &self.key);
        params.signed_by(key, &issuer).unwrap()
    }

    /// A certificate for a common name, and for alternative names and addresses.
    pub(super) fn identity(&self, common: &str, alternative: &[&str]) -> Identity {
        let key = KeyPair::generate().unwrap();
        Identity {
            certificate: self.sign(&named(common, alternative), &key).pem(),
            key: key.serialize_pem(),
        }
    }

    /// As `openssl x509 -req` makes it: of version 1, which has no extensions.
    pub(super) fn old_identity(&self, common: &str) -> Identity {
        self.old_identity_of(common, &KeyPair::generate().unwrap())
    }

    /// The same for a key.
    pub(super) fn old_identity_of(&self, common: &str, key: &KeyPair) -> Identity {
        let certificate = self.sign(&named(common, &[]), key);
        let mut content = Certificate::from_der(certificate.der())
            .unwrap()
            .tbs_certificate;
        content.version = Version::V1;
        content.extensions = None;
        let signature = self.key.sign(&content.to_der().unwrap()).unwrap();
        let certificate = Certificate {
            signature_algorithm: content.signature.clone(),
            tbs_certificate: content,
            signature: BitString::from_bytes(&signature).unwrap(),
        };
        Identity {
            certificate: certificate.to_pem(LineEnding::LF).unwrap(),
            key: key.serialize_pem(),
        }
    }
}

/// A key as `openssl req` makes it by default.
pub(super) fn rsa_key() -> KeyPair {
    KeyPair::from_pem(include_str!("rsa.key")).unwrap()
}

/// As `openssl req -x509` makes it: its own issuer, and an authority.
pub(super) fn self_signed(common: &str, last_year: i32) -> Identity {
    let mut params = named(common, &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = rcgen::date_time_ymd(last_year, 1, 1);
    let key = KeyPair::generate().unwrap();
    Identity {
        certificate: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

fn named(common: &str, alternative: &[&str]) -> CertificateParams {
    let alternative: Vec<_> = alternative.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(alternative).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common);
    params
}
