use std::time::Duration;

use super::certificates::{Authority, Identity, self_signed};
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
    let files = [
        ("server.crt", identity.certificate.as_str()),
        ("server.key", &identity.key),
        ("ca.crt", &authority.certificate),
    ];
    let settings = [
        "ssl=on",
        "ssl_cert_file={}/server.crt",
        "ssl_key_file={}/server.key",
        "ssl_ca_file={}/ca.crt",
    ];
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
    let at = |parameters: &str| url(&server, "certified", "localhost", parameters);

    assert_eq!(
        asked(&connected(&at(&own)), "SELECT current_user::text"),
        "certified"
    );
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
