//! TLS as the URL and the options want it.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::crypto::{KeyProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::certificate::public_key;
use super::parameters::{Parameters, RootCertificates, SslMode, TlsVersion};
use super::verifier::{Proof, Roots, ServerVerifier};
use crate::contract::EventStoreError;
use crate::postgres::TlsOptions;

/// What direct negotiation needs, and every other one allows.
const PROTOCOL: &[u8] = b"postgresql";

const OLD: &[&SupportedProtocolVersion] = &[&TLS12];
const NEW: &[&SupportedProtocolVersion] = &[&TLS13];
const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// How connections are encrypted, and what the server has to prove. Has no `Debug`, as it may hold a
/// private key.
#[derive(Clone)]
pub(super) struct TlsSettings {
    proof: Proof,
    roots: Option<Source>,
    /// The client's certificate and its key.
    identity: Option<(Pem, Pem)>,
    server_name: Option<String>,
    sends_name: bool,
    versions: &'static [&'static SupportedProtocolVersion],
}

#[derive(Clone)]
enum Source {
    System,
    Pem(Pem),
}

/// PEM text, and how messages call it.
#[derive(Clone)]
struct Pem {
    name: &'static str,
    text: PemText,
}

#[derive(Clone)]
enum PemText {
    Given(Arc<[u8]>),
    File(PathBuf),
}

impl TlsSettings {
    /// The mode, as strong as the certificates that are given make it, and the rest.
    pub(super) fn new(
        parameters: &Parameters,
        options: &TlsOptions,
    ) -> Result<(SslMode, Self), String> {
        let given = options
            .ca
            .as_deref()
            .map(|ca| Pem::given("options.tls.ca", ca));
        let roots = match (given, &parameters.ssl_root) {
            (Some(given), _) => Some(Source::Pem(given)),
            (None, Some(RootCertificates::System)) => Some(Source::System),
            (None, Some(RootCertificates::File(path))) => {
                Some(Source::Pem(Pem::file("sslrootcert", path)))
            }
            (None, None) => None,
        };
        let (mode, roots) = decide(parameters, roots, options.ca.is_some())?;
        let proof = match (mode, &roots) {
            (SslMode::VerifyFull, _) => Proof::ChainAndName,
            (_, Some(_)) => Proof::Chain,
            (_, None) => Proof::Nothing,
        };
        let settings = Self {
            proof,
            roots,
            identity: identity(parameters, options)?,
            server_name: options.server_name.clone(),
            sends_name: parameters.sends_name.unwrap_or(true),
            versions: versions(parameters)?,
        };
        Ok((mode, settings))
    }

    /// For connections that are not encrypted: files that are not needed are not read.
    pub(super) fn without_certificates(self) -> Self {
        Self {
            proof: Proof::Nothing,
            roots: None,
            identity: None,
            ..self
        }
    }

    /// Reads the certificates, each time anew, as they are replaced before they expire.
    pub(super) fn connector(&self) -> Result<Connector, EventStoreError> {
        let provider = Arc::new(ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let keys = provider.key_provider;
        let roots = match &self.roots {
            Some(Source::System) => system_roots()?,
            Some(Source::Pem(pem)) => Roots::new(pem.certificates()?, pem.name)?,
            None => Roots::none(),
        };
        let verifier = ServerVerifier::new(self.proof, roots, algorithms);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions)
            .map_err(|error| invalid("the TLS versions", &error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let shown = SingleCertAndKey::from(certified(certificate, key, keys)?);
                builder.with_client_cert_resolver(Arc::new(shown))
            }
        };
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.enable_sni = self.sends_name;
        Ok(Connector {
            rustls: MakeRustlsConnect::new(config),
            server_name: self.server_name.clone(),
        })
    }
}

/// libpq's rules: a root certificate makes `require` as strong as `verify-ca`, and the system's
/// certificates, which sign for anybody, are worth something only if the name is compared.
fn decide(
    parameters: &Parameters,
    roots: Option<Source>,
    roots_are_an_option: bool,
) -> Result<(SslMode, Option<Source>), String> {
    let is_system = matches!(roots, Some(Source::System));
    let default = if is_system || roots_are_an_option {
        SslMode::VerifyFull
    } else {
        SslMode::Prefer
    };
    let mode = parameters.ssl_mode.unwrap_or(default);
    if is_system && mode != SslMode::VerifyFull {
        return Err("sslmode: sslrootcert=system needs verify-full".to_owned());
    }
    if parameters.ssl_direct == Some(true)
        && matches!(mode, SslMode::Disable | SslMode::Allow | SslMode::Prefer)
    {
        return Err("sslmode: sslnegotiation=direct needs at least require".to_owned());
    }
    match (mode, roots) {
        (SslMode::VerifyCa, None) => {
            Err("sslmode: verify-ca needs sslrootcert, or options.tls.ca".to_owned())
        }
        (SslMode::VerifyFull, None) => Ok((mode, Some(Source::System))),
        (SslMode::Require, Some(roots)) => Ok((SslMode::VerifyCa, Some(roots))),
        (mode, roots) => Ok((mode, roots)),
    }
}

fn identity(parameters: &Parameters, options: &TlsOptions) -> Result<Option<(Pem, Pem)>, String> {
    if let (Some(certificate), Some(key)) = (&options.cert, &options.key) {
        let certificate = Pem::given("options.tls.cert", certificate);
        return Ok(Some((certificate, Pem::given("options.tls.key", key))));
    }
    match (&parameters.ssl_certificate, &parameters.ssl_key) {
        _ if parameters.sends_certificate == Some(false) => Ok(None),
        (Some(certificate), Some(key)) => {
            let certificate = Pem::file("sslcert", certificate);
            Ok(Some((certificate, Pem::file("sslkey", key))))
        }
        (Some(_), None) => Err("sslkey: the client certificate needs its key".to_owned()),
        (None, Some(_)) => Err("sslcert: the key needs its certificate".to_owned()),
        (None, None) => Ok(None),
    }
}

/// What a client shows, by rustls' own hands: it is for the server to judge, which takes certificates
/// of version 1 too, as rustls does not.
fn certified(
    certificate: &Pem,
    key: &Pem,
    keys: &dyn KeyProvider,
) -> Result<CertifiedKey, EventStoreError> {
    let certificates = certificate.certificates()?;
    let loaded = keys.load_private_key(key.private_key()?);
    let loaded = loaded.map_err(|error| key.invalid(&format!("the key can't be used: {error}")))?;
    let Some(shown) = certificates.first().and_then(|own| public_key(own).ok()) else {
        return Err(certificate.invalid("the certificate can't be understood"));
    };
    // A key that does not tell its public half can't be compared; then the server finds out.
    if loaded.public_key().is_some_and(|own| *own != *shown) {
        return Err(key.invalid("it is not the certificate's key"));
    }
    Ok(CertifiedKey::new(certificates, loaded))
}

fn versions(
    parameters: &Parameters,
) -> Result<&'static [&'static SupportedProtocolVersion], String> {
    match (parameters.oldest_tls, parameters.newest_tls) {
        (Some(TlsVersion::V1_3), Some(TlsVersion::V1_2)) => {
            Err("ssl_min_protocol_version: it is above ssl_max_protocol_version".to_owned())
        }
        (Some(TlsVersion::V1_3), _) => Ok(NEW),
        (_, Some(TlsVersion::V1_2)) => Ok(OLD),
        _ => Ok(BOTH),
    }
}

fn system_roots() -> Result<Roots, EventStoreError> {
    static ROOTS: OnceLock<Roots> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(roots.clone());
    }
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let error = found.errors.first().map(ToString::to_string);
        return Err(EventStoreError::BackendFailure(format!(
            "the operating system has no trusted certificates{}; name some by sslrootcert or \
             options.tls.ca",
            error.map(|error| format!(" ({error})")).unwrap_or_default()
        )));
    }
    // One that can't be understood can't be what the server's chain ends in.
    Ok(ROOTS.get_or_init(|| Roots::of_system(found.certs)).clone())
}

impl Pem {
    fn given(name: &'static str, text: &[u8]) -> Self {
        let text = PemText::Given(text.into());
        Self { name, text }
    }

    fn file(name: &'static str, path: &Path) -> Self {
        let text = PemText::File(path.to_owned());
        Self { name, text }
    }

    fn read(&self) -> Result<Arc<[u8]>, EventStoreError> {
        match &self.text {
            PemText::Given(text) => Ok(text.clone()),
            PemText::File(path) => match std::fs::read(path) {
                Ok(text) => Ok(text.into()),
                Err(error) => Err(self.invalid(&format!("{}: {error}", path.display()))),
            },
        }
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, EventStoreError> {
        let text = self.read()?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        match certificates {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            _ => Err(self.invalid("it has no certificate in PEM")),
        }
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, EventStoreError> {
        let text = self.read()?;
        PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
            if text.windows(9).any(|word| word == b"ENCRYPTED") {
                self.invalid("encrypted keys are not supported")
            } else {
                self.invalid("it has no private key in PEM")
            }
        })
    }

    fn invalid(&self, wrong: &str) -> EventStoreError {
        invalid(self.name, wrong)
    }
}

fn invalid(what: &str, wrong: &str) -> EventStoreError {
    let prefix = if what.starts_with("ssl") { "url: " } else { "" };
    EventStoreError::InvalidOptions(format!("{prefix}{what}: {wrong}"))
}

/// Encrypts connections.
#[derive(Clone)]
pub(super) struct Connector {
    rustls: MakeRustlsConnect,
    server_name: Option<String>,
}

impl<S> MakeTlsConnect<S> for Connector
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = <MakeRustlsConnect as MakeTlsConnect<S>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<S>>::TlsConnect;
    type Error = Infallible;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Infallible> {
        let name = self.server_name.as_deref().unwrap_or(host);
        <MakeRustlsConnect as MakeTlsConnect<S>>::make_tls_connect(&mut self.rustls, name)
    }
}
