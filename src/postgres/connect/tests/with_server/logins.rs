use super::server::{ENCODED, PASSWORD, Server};
use super::{asked, connect, connected, connections, futures, refused};
use crate::contract::EventStoreError;
use crate::postgres::PostgresStoreOptions;
use crate::postgres::connect::FailureKind;

const WHO: &str = "SELECT current_user::text || ' on ' || current_database()";

#[test]
fn a_password_lets_in_at_each_kind_of_address() {
    let server = Server::start();
    let folder = server.folder().to_str().unwrap();
    let port = server.port;
    for url in [
        server.url(),
        server.url_at("localhost"),
        server.url_at("[::1]"),
        server.url_at(&folder.replace('/', "%2F")),
        format!("postgres://postgres:{ENCODED}@/postgres?host={folder}&port={port}"),
        format!("postgres://postgres:{ENCODED}@nowhere.invalid:{port}/postgres?hostaddr=127.0.0.1"),
        format!("host=127.0.0.1 port={port} user=postgres password='{PASSWORD}' dbname=postgres"),
        // The socket has no TLS, and needs none.
        format!("postgres://postgres:{ENCODED}@:{port}/postgres?host={folder}&sslmode=require"),
    ] {
        assert_eq!(
            asked(&connected(&url), WHO),
            "postgres on postgres",
            "{url}"
        );
    }
}

#[test]
fn a_session_has_the_settings_of_the_server_alone() {
    let server = Server::start();
    let session = connected(&server.url());
    let setting = |name: &str| asked(&session, &format!("SELECT current_setting('{name}')"));
    assert_eq!(setting("application_name"), "factstr");
    assert_eq!(setting("client_encoding"), "UTF8");
    // A pooler would refuse a startup packet that carries more.
    let ours = "SELECT coalesce(string_agg(name, ',' ORDER BY name), '') FROM pg_settings \
                WHERE source = 'client'";
    assert_eq!(asked(&session, ours), "application_name,client_encoding");

    let url = server.url() + "?options=-c%20geqo%3Doff&application_name=app";
    let session = connected(&url);
    let setting = |name: &str| asked(&session, &format!("SELECT current_setting('{name}')"));
    assert_eq!(setting("geqo"), "off");
    assert_eq!(setting("application_name"), "app");
}

#[test]
fn refusals_are_told_in_sentences_without_the_password() {
    let mut server = Server::start();
    let port = server.port;
    let told = |url: &str, kind: FailureKind, parts: &[&str]| {
        let failure = refused(url);
        let text = failure.to_string();
        assert_eq!(failure.kind(), kind, "{text}");
        for part in parts {
            assert!(text.contains(part), "{text}");
        }
        let debug = format!("{failure:?}");
        assert!(
            !debug.contains("hunter2") && !debug.contains(PASSWORD),
            "{debug}"
        );
        assert_eq!(EventStoreError::from(failure).code(), "BackendFailure");
    };
    let at = format!("127.0.0.1:{port}");
    told(
        &format!("postgres://postgres:hunter2@{at}/postgres"),
        FailureKind::Rejected,
        &[
            &format!("can't connect to {at}/postgres as postgres: the password is wrong"),
            "28P01",
        ],
    );
    told(
        &format!("postgres://stranger:hunter2@{at}/postgres"),
        FailureKind::Rejected,
        &["the password is wrong", "28P01"],
    );
    told(
        &format!("postgres://postgres@{at}/postgres"),
        FailureKind::Rejected,
        &["the server wants a password, and the URL has none"],
    );
    told(
        &format!("postgres://postgres:{ENCODED}@{at}/nothing"),
        FailureKind::Rejected,
        &["there is no such database", "3D000"],
    );
    told(
        &format!("postgres://postgres:{ENCODED}@{at}/postgres?sslmode=require"),
        FailureKind::Rejected,
        &["TLS failed: server does not support TLS"],
    );
    told(
        &format!("postgres://postgres:{ENCODED}@{at}/postgres?channel_binding=require"),
        FailureKind::Rejected,
        &["server did not use channel binding"],
    );
    told(
        &format!("postgres://u:hunter2@nowhere.invalid:{port}/postgres"),
        FailureKind::Unavailable,
        &["nowhere.invalid", "the host is unknown"],
    );
    told(
        &format!("postgres://u:hunter2@/postgres?host=/nowhere&port={port}"),
        FailureKind::Unavailable,
        &["/nowhere", "there is no such socket"],
    );
    server.stop();
    told(
        &format!("postgres://postgres:hunter2@{at}/postgres"),
        FailureKind::Unavailable,
        &["nobody listens there"],
    );
}

#[test]
fn the_rules_of_the_server_refuse_in_a_sentence() {
    let server = Server::start_with("local all all scram-sha-256\n", &[], &[]);
    let failure = refused(&server.url());
    assert_eq!(failure.kind(), FailureKind::Rejected);
    let text = failure.to_string();
    assert!(
        text.contains("the server does not let the user in"),
        "{text}"
    );
    assert!(
        text.contains("pg_hba.conf") && text.contains("28000"),
        "{text}"
    );
}

#[test]
fn a_full_server_may_have_room_soon() {
    let settings = ["max_connections=3", "superuser_reserved_connections=0"];
    let server = Server::start_with(
        "local all all scram-sha-256\nhost all all all scram-sha-256\n",
        &[&settings[..], &["max_wal_senders=0"]].concat(),
        &[],
    );
    let pool = connections(&server.url(), &PostgresStoreOptions::default());
    let mut held = Vec::new();
    let failure = loop {
        match futures(pool.get()) {
            Ok(session) => held.push(session),
            Err(failure) => break failure,
        }
    };
    assert!(!held.is_empty());
    assert_eq!(failure.kind(), FailureKind::Unavailable);
    assert!(failure.may_pass());
    let text = failure.to_string();
    assert!(
        text.contains("the server has too many connections") && text.contains("53300"),
        "{text}"
    );
}

#[test]
fn a_silent_server_is_given_up_in_time() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let options = PostgresStoreOptions {
        connect_timeout: std::time::Duration::from_millis(200),
        ..PostgresStoreOptions::default()
    };
    let url = format!("postgres://u:hunter2@127.0.0.1:{port}/db");
    let failure = connect(&url, &options).unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Unavailable);
    assert!(
        failure.to_string().ends_with("it does not answer in time"),
        "{failure}"
    );
}
