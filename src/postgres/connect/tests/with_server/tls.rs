use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, ServerConnection};

use super::certificates::{Authority, Identity, rsa_key, self_signed};
use super::server::{ENCODED, Server};
use super::{asked, connect, connected, connections, futures, refused};
use crate::contract::EventStoreError;
use crate::postgres::connect::FailureKind;
use crate::postgres::{PostgresStoreOptions, TlsOptions};

const ENCRYPTED: &str = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
const VERSION: &str = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

/// `plain` must not encrypt, `secure` has to, and `certified` needs a certificate.
const RULES: &str = "\
local all all scram-sha-256
hostssl all plain all reject
hostnossl all secure all reject
hostssl all certified all cert
host all all all scram-sha-256
";

/// Starts a server that has a certificate, and trusts clients' certificates of an authority.
fn start(identity: &Identity, authority: &Authority) -> Server {
    start_with(identity, authority, &[])
}

fn start_with(identity: &Identity, authority: &Authority, more: &[&str]) -> Server {
    let files = [
        ("server.crt", identity.certificate.as_str()),
        ("server.key", &identity.key),
        ("ca.crt", &authority.certificate),
    ];
    let mut settings = vec![
        "ssl=on",
        "ssl_cert_file={}/server.crt",
        "ssl_key_file={}/server.key",
        "ssl_ca_file={}/ca.crt",
    ];
    settings.extend(more);
    let server = Server::start_with(RULES, &settings, &files);
    let session = connected(&server.url());
    for user in ["plain", "secure", "certified"] {
        let create = format!("CREATE USER {user} PASSWORD '{user}'");
        futures(session.batch_execute(&create)).unwrap();
    }
    server
}

/// A file beside the server's own, as a URL has its path.
fn file(server: &Server, name: &str, text: &str) -> String {
    let path = server.folder().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn url(server: &Server, user: &str, host: &str, parameters: &str) -> String {
    format!(
        "postgres://{user}:{user}@{host}:{}/postgres?{parameters}",
        server.port
    )
}

fn encrypted(url: &str) -> bool {
    asked(&connected(url), ENCRYPTED) == "true"
}

#[track_caller]
fn assert_rejected(url: &str, parts: &[&str]) {
    let failure = refused(url);
    let text = failure.to_string();
    assert_eq!(failure.kind(), FailureKind::Rejected, "{text}");
    for part in parts {
        assert!(text.contains(part), "{url}: {text}");
    }
}

#[test]
fn the_mode_decides_whether_to_encrypt() {
    let authority = Authority::new();
    let server = start(
        &authority.identity("db", &["elsewhere.example"]),
        &authority,
    );
    let mode = |user: &str, mode: &str| url(&server, user, "127.0.0.1", &format!("sslmode={mode}"));
    let postgres = |parameters: &str| format!("{}?{parameters}", server.url());

    assert!(encrypted(&server.url()));
    assert!(!encrypted(&postgres("sslmode=disable")));
    assert!(!encrypted(&postgres("sslmode=allow")));
    assert!(encrypted(&postgres("sslmode=prefer")));
    assert!(encrypted(&postgres("sslmode=require")));
    assert!(encrypted(&postgres("ssl=true")));

    // The server's rules decide where the mode leaves it open.
    assert!(encrypted(&mode("secure", "allow")));
    assert!(!encrypted(&mode("plain", "prefer")));
    assert_rejected(
        &mode("secure", "disable"),
        &["the server does not let the user in", "28000"],
    );
    assert_rejected(
        &mode("plain", "require"),
        &["the server does not let the user in", "28000"],
    );

    // A wrong password is not sent again unencrypted.
    let wrong = postgres("sslmode=prefer").replace(ENCODED, "hunter2");
    assert_rejected(&wrong, &["the password is wrong"]);
    assert_eq!(
        server
            .log()
            .matches("password authentication failed")
            .count(),
        1
    );

    assert_eq!(
        asked(&connected(&postgres("sslmode=require")), VERSION),
        "TLSv1.3"
    );
    let old = postgres("sslmode=require&ssl_max_protocol_version=TLSv1.2");
    assert_eq!(asked(&connected(&old), VERSION), "TLSv1.2");

    // Direct negotiation came with PostgreSQL 17.
    let number = asked(
        &connected(&server.url()),
        "SELECT current_setting('server_version_num')",
    );
    let direct = connect(
        &postgres("sslmode=require&sslnegotiation=direct"),
        &PostgresStoreOptions::default(),
    );
    assert_eq!(
        direct.is_ok(),
        number.parse::<u32>().unwrap() >= 170_000,
        "{direct:?}"
    );
}

#[test]
fn the_authority_and_the_name_are_verified() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let names = ["elsewhere.example", "localhost", "::1"];
    let server = start(&authority.identity("127.0.0.1", &names), &authority);
    let good = file(&server, "good.pem", &authority.certificate);
    let wrong = file(&server, "wrong.pem", &stranger.certificate);
    let both = file(
        &server,
        "both.pem",
        &format!("{}\n{}", stranger.certificate, authority.certificate),
    );
    let at = |host: &str, mode: &str, root: &str| {
        format!("{}?sslmode={mode}&sslrootcert={root}", server.url_at(host))
    };
    let another_name = ["TLS failed: the server's certificate is for another name"];
    let unknown = ["TLS failed: no trusted certificate signed the server's"];

    for host in ["localhost", "[::1]"] {
        assert!(encrypted(&at(host, "verify-full", &good)));
        assert!(encrypted(&at(host, "verify-full", &both)));
    }
    // It has alternative names, so its common name does not count.
    assert_rejected(&at("127.0.0.1", "verify-full", &good), &another_name);
    assert!(encrypted(&at("127.0.0.1", "verify-ca", &good)));
    assert!(encrypted(&at("127.0.0.1", "require", &good)));

    assert_rejected(&at("localhost", "verify-full", &wrong), &unknown);
    assert_rejected(&at("localhost", "verify-ca", &wrong), &unknown);
    assert_rejected(&at("localhost", "require", &wrong), &unknown);
    // As libpq does: what is only preferred is given up.
    assert!(!encrypted(&at("localhost", "prefer", &wrong)));

    assert_rejected(&at("localhost", "verify-full", "system"), &["TLS failed"]);
    assert_rejected(
        &format!("{}?sslmode=verify-full", server.url()),
        &["TLS failed"],
    );
}

#[test]
fn the_options_replace_the_files() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = start(&authority.identity("db", &["db.example"]), &authority);
    let client = authority.identity("certified", &[]);
    let tls = |ca: &Authority, name: Option<&str>| PostgresStoreOptions {
        tls: TlsOptions {
            ca: Some(ca.certificate.clone().into_bytes()),
            cert: Some(client.certificate.clone().into_bytes()),
            key: Some(client.key.clone().into_bytes()),
            server_name: name.map(str::to_owned),
        },
        ..PostgresStoreOptions::default()
    };
    let plain = url(&server, "certified", "127.0.0.1", "");

    let failure = connect(&plain, &tls(&authority, None)).unwrap_err();
    assert!(
        failure.to_string().contains("is for another name"),
        "{failure}"
    );
    let failure = connect(&plain, &tls(&stranger, Some("db.example"))).unwrap_err();
    assert!(
        failure.to_string().contains("no trusted certificate"),
        "{failure}"
    );
    let session = connect(&plain, &tls(&authority, Some("db.example"))).unwrap();
    assert_eq!(asked(&session, ENCRYPTED), "true");
    assert_eq!(asked(&session, "SELECT current_user::text"), "certified");
}

#[test]
fn a_client_certificate_lets_in() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = start(&authority.identity("localhost", &[]), &authority);
    let files = |name: &str, identity: &Identity| {
        let certificate = file(&server, &format!("{name}.crt"), &identity.certificate);
        let key = file(&server, &format!("{name}.key"), &identity.key);
        format!("sslmode=require&sslcert={certificate}&sslkey={key}")
    };
    let own = files("own", &authority.identity("certified", &[]));
    let others = files("others", &authority.identity("other", &[]));
    let strangers = files("strangers", &stranger.identity("certified", &[]));
    let old = files("old", &authority.old_identity("certified"));
    let rsa = files("rsa", &authority.old_identity_of("certified", &rsa_key()));
    let at = |parameters: &str| url(&server, "certified", "localhost", parameters);

    for parameters in [own.as_str(), &old, &rsa] {
        for newest in ["TLSv1.3", "TLSv1.2"] {
            let parameters = format!("{parameters}&ssl_max_protocol_version={newest}");
            let session = connected(&at(&parameters));
            assert_eq!(asked(&session, "SELECT current_user::text"), "certified");
            assert_eq!(asked(&session, VERSION), newest);
        }
    }
    assert_rejected(
        &at("sslmode=require"),
        &["valid client certificate", "28000"],
    );
    let hidden = format!("{own}&sslcertmode=disable");
    assert_rejected(&at(&hidden), &["valid client certificate", "28000"]);
    assert_rejected(
        &at(&others),
        &["certificate authentication failed", "28000"],
    );
    assert_rejected(&at(&strangers), &["TLS failed: received fatal alert"]);
}

#[test]
fn channel_binding_needs_tls_and_gets_it() {
    let authority = Authority::new();
    for identity in [
        authority.identity("localhost", &[]),
        authority.old_identity("localhost"),
    ] {
        let server = start(&identity, &authority);
        let with =
            |parameters: &str| format!("{}?channel_binding=require&{parameters}", server.url());
        assert!(encrypted(&with("sslmode=require")));
        assert!(encrypted(&with("")));
        assert_rejected(
            &with("sslmode=disable"),
            &["server did not use channel binding"],
        );
    }
}

#[test]
fn certificates_of_the_manual_are_taken() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let verified = |server: &Server, host: &str, root: &str| {
        let root = file(server, "root.pem", root);
        let url = format!(
            "{}?sslmode=verify-full&sslrootcert={root}",
            server.url_at(host)
        );
        connect(&url, &PostgresStoreOptions::default())
            .map(|session| asked(&session, ENCRYPTED))
            .map_err(|failure| failure.to_string())
    };
    let fails = |server: &Server, host: &str, root: &str, why: &str| {
        let error = verified(server, host, root).unwrap_err();
        assert!(error.contains(why), "{error}");
    };
    let yes = Ok("true".to_owned());
    let root = &authority.certificate;

    // With a common name only.
    let server = start(&authority.identity("LocalHost", &[]), &authority);
    assert_eq!(verified(&server, "localhost", root), yes);
    fails(&server, "127.0.0.1", root, "is for another name");

    // Of version 1.
    let old = authority.old_identity("localhost");
    let server = start(&old, &authority);
    assert_eq!(verified(&server, "localhost", root), yes);
    assert_eq!(verified(&server, "localhost", &old.certificate), yes);
    fails(&server, "127.0.0.1", root, "is for another name");
    // The stranger has the authority's name, and another key.
    fails(
        &server,
        "localhost",
        &stranger.certificate,
        "no trusted certificate",
    );
    let server = start(&stranger.old_identity("localhost"), &authority);
    fails(&server, "localhost", root, "no trusted certificate");

    // Its own issuer, and an authority.
    let own = self_signed("localhost", 4000);
    let server = start(&own, &authority);
    assert_eq!(verified(&server, "localhost", &own.certificate), yes);
    fails(
        &server,
        "127.0.0.1",
        &own.certificate,
        "is for another name",
    );
    fails(&server, "localhost", root, "TLS failed");
    let expired = self_signed("localhost", 2001);
    let server = start(&expired, &authority);
    fails(&server, "localhost", &expired.certificate, "has expired");
}

/// Also by servers that speak nothing newer.
#[test]
fn certificates_of_version_1_are_taken_by_tls_1_2() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    for key in [KeyPair::generate().unwrap(), rsa_key()] {
        let identity = authority.old_identity_of("localhost", &key);
        let server = start_with(&identity, &authority, &["ssl_max_protocol_version=TLSv1.2"]);
        let good = file(&server, "good.pem", &authority.certificate);
        let wrong = file(&server, "wrong.pem", &stranger.certificate);
        for parameters in [
            String::new(),
            "sslmode=prefer".to_owned(),
            "sslmode=require".to_owned(),
            "sslmode=require&channel_binding=require".to_owned(),
            format!("sslmode=verify-ca&sslrootcert={good}"),
            format!("sslmode=verify-full&sslrootcert={good}"),
        ] {
            let url = format!("{}?{parameters}", server.url_at("localhost"));
            assert_eq!(asked(&connected(&url), VERSION), "TLSv1.2", "{parameters}");
        }
        let url = server.url_at("localhost");
        assert_rejected(
            &format!("{url}?sslmode=verify-ca&sslrootcert={wrong}"),
            &["TLS failed: no trusted certificate signed the server's"],
        );
    }
}

/// A certificate is public: who shows one without having its key is nobody.
#[test]
fn a_certificate_without_its_key_proves_nothing() {
    let authority = Authority::new();
    let roots = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(roots.path(), &authority.certificate).unwrap();
    let of = |kind| KeyPair::generate_for(kind).unwrap();
    let other = KeyPair::generate().unwrap();
    let old = |key: &KeyPair| authority.old_identity_of("localhost", key);
    for (identity, other) in [
        (authority.identity("localhost", &[]), &other),
        (authority.old_identity("localhost"), &other),
        (authority.old_identity("localhost"), &rsa_key()),
        (old(&of(&PKCS_ECDSA_P384_SHA384)), &other),
        (old(&of(&PKCS_ED25519)), &of(&PKCS_ED25519)),
        (old(&rsa_key()), &other),
    ] {
        let other_key = other.serialize_pem();
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            for (key, is_own) in [(&identity.key, true), (&other_key, false)] {
                let (port, handshake) = speak_tls(&identity.certificate, key, version);
                let mode = format!(
                    "sslmode=verify-ca&sslrootcert={}",
                    roots.path().to_str().unwrap()
                );
                let text =
                    refused(&format!("postgres://u:p@127.0.0.1:{port}/d?{mode}")).to_string();
                assert_eq!(text.contains("TLS failed"), !is_own, "{version:?}: {text}");
                assert_eq!(handshake.join().unwrap(), is_own, "{version:?}: {text}");
            }
        }
    }
}

/// Shows a certificate to one client, and hangs up. Tells whether the client took it.
fn speak_tls(
    certificate: &str,
    key: &str,
    version: &'static rustls::SupportedProtocolVersion,
) -> (u16, std::thread::JoinHandle<bool>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let key = provider.key_provider.load_private_key(key).unwrap();
    let shown = SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key));
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(shown));
    let mut tls = ServerConnection::new(Arc::new(config)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let handshake = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut request = [0; 8];
        socket.read_exact(&mut request).unwrap();
        socket.write_all(b"S").unwrap();
        while tls.is_handshaking() {
            if tls.complete_io(&mut socket).is_err() {
                return false;
            }
        }
        true
    });
    (port, handshake)
}

#[test]
fn files_that_can_not_be_read_are_named() {
    let authority = Authority::new();
    let identity = authority.identity("localhost", &[]);
    let server = start(&identity, &authority);
    let certificate = file(&server, "own.crt", &identity.certificate);
    let empty = file(&server, "empty", "");
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let encrypted = file(&server, "encrypted", encrypted);
    let key = file(&server, "own.key", &identity.key);
    let other_key = file(
        &server,
        "other.key",
        &authority.identity("localhost", &[]).key,
    );
    let old = file(
        &server,
        "old.crt",
        &authority.old_identity("localhost").certificate,
    );
    let pem = |kind: &str| format!("-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n");
    let no_certificate = file(&server, "no.crt", &pem("CERTIFICATE"));
    let no_key = file(&server, "no.key", &pem("PRIVATE KEY"));
    for (parameters, expected) in [
        (
            "sslrootcert=/nowhere/ca.pem".to_owned(),
            "url: sslrootcert: /nowhere/ca.pem: ",
        ),
        (
            format!("sslrootcert={empty}"),
            "url: sslrootcert: it has no certificate",
        ),
        (
            format!("sslcert={empty}&sslkey={empty}"),
            "url: sslcert: it has no certificate",
        ),
        (
            format!("sslcert={certificate}&sslkey={empty}"),
            "url: sslkey: it has no private key",
        ),
        (
            format!("sslcert={certificate}&sslkey={encrypted}"),
            "url: sslkey: encrypted keys",
        ),
        (
            format!("sslcert={no_certificate}&sslkey={key}"),
            "url: sslcert: the certificate can't be understood",
        ),
        (
            format!("sslcert={certificate}&sslkey={no_key}"),
            "url: sslkey: the key can't be used",
        ),
        (
            format!("sslcert={certificate}&sslkey={other_key}"),
            "url: sslkey: it is not the certificate's key",
        ),
        (
            format!("sslcert={old}&sslkey={key}"),
            "url: sslkey: it is not the certificate's key",
        ),
    ] {
        let failure = refused(&format!("{}?{parameters}", server.url()));
        assert_eq!(failure.kind(), FailureKind::Rejected);
        let error = EventStoreError::from(failure);
        assert_eq!(error.code(), "InvalidOptions");
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}

#[test]
fn files_that_are_not_needed_are_not_read() {
    let server = Server::start();
    let folder = server.folder().to_str().unwrap().replace('/', "%2F");
    let files = "sslrootcert=/nowhere&sslcert=/nowhere&sslkey=/nowhere";
    assert!(!encrypted(&format!(
        "{}?sslmode=disable&{files}",
        server.url()
    )));
    assert!(!encrypted(&format!(
        "{}?sslmode=verify-full&{files}",
        server.url_at(&folder)
    )));
}

#[test]
fn a_statement_is_cancelled_over_tls() {
    let authority = Authority::new();
    let server = start(&authority.identity("localhost", &[]), &authority);
    let root = file(&server, "root.pem", &authority.certificate);
    let url = format!(
        "{}?sslmode=verify-full&sslrootcert={root}",
        server.url_at("localhost")
    );
    let options = PostgresStoreOptions {
        statement_timeout: Duration::from_millis(50),
        ..PostgresStoreOptions::default()
    };
    let pool = connections(&url, &options);
    let session = futures(pool.get()).unwrap();
    let sleep = session.query("SELECT pg_sleep(600)", &[]);
    let failure = futures(pool.with_timeout(&session, sleep)).unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Timeout, "{failure}");
}
