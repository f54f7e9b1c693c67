use std::time::Duration;

use super::server::Server;
use super::{asked, connected, connections, futures};
use crate::postgres::PostgresStoreOptions;
use crate::postgres::connect::FailureKind;

fn with_limit(limit: Duration) -> PostgresStoreOptions {
    PostgresStoreOptions {
        statement_timeout: limit,
        ..PostgresStoreOptions::default()
    }
}

#[test]
fn what_takes_too_long_is_cancelled() {
    let server = Server::start();
    let folder = server.folder().to_str().unwrap().replace('/', "%2F");
    for url in [server.url(), server.url_at(&folder)] {
        let pool = connections(&url, &with_limit(Duration::from_millis(50)));
        let session = futures(pool.get()).unwrap();
        let pid = asked(&session, "SELECT pg_backend_pid()::text");
        let sleep = session.query("SELECT pg_sleep(600)", &[]);
        let failure = futures(pool.with_timeout(&session, sleep)).unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Timeout, "{failure}");
        assert!(failure.to_string().contains("57014"), "{failure}");
        // A late cancel request must not hit the next statement.
        drop(session);
        let session = futures(pool.get()).unwrap();
        assert_ne!(asked(&session, "SELECT pg_backend_pid()::text"), pid);
    }
}

#[test]
fn what_is_quick_enough_is_not_touched() {
    let server = Server::start();
    for limit in [Duration::ZERO, Duration::from_secs(60)] {
        let pool = connections(&server.url(), &with_limit(limit));
        let session = futures(pool.get()).unwrap();
        let rows = futures(pool.with_timeout(&session, session.query("SELECT 1", &[]))).unwrap();
        assert_eq!(rows.len(), 1);
    }
}

#[test]
fn a_server_that_does_not_answer_leaves_the_outcome_open() {
    let server = Server::start();
    let pool = connections(&server.url(), &with_limit(Duration::from_millis(1)));
    let session = futures(pool.get()).unwrap();
    let pid = asked(&session, "SELECT pg_backend_pid()::text");
    let stopped = std::process::Command::new("kill")
        .args(["-STOP", &pid])
        .status();
    assert!(stopped.unwrap().success());
    let failure = futures(pool.with_timeout(&session, session.query("SELECT 1", &[])));
    let failure = failure.unwrap_err();
    let freed = std::process::Command::new("kill")
        .args(["-CONT", &pid])
        .status();
    assert!(freed.unwrap().success());
    assert_eq!(failure.kind(), FailureKind::Lost, "{failure}");
    assert!(failure.leaves_outcome_open());
    drop(session);
    let session = connected(&server.url());
    assert_ne!(asked(&session, "SELECT pg_backend_pid()::text"), pid);
}
