use std::sync::mpsc;
use std::time::Duration;

use tokio_postgres::AsyncMessage;

use super::server::Server;
use super::{asked, connected, connections, futures};
use crate::contract::EventStoreError;
use crate::postgres::PostgresStoreOptions;
use crate::postgres::connect::{ConnectionEvent, FailureKind, PooledClient};

const PID: &str = "SELECT pg_backend_pid()::text";

fn terminate(server: &Server, pid: &str) {
    let session = connected(&server.url());
    let kill = format!("SELECT pg_terminate_backend({pid}, 60000)::text");
    assert_eq!(asked(&session, &kill), "true");
}

#[test]
fn connections_are_used_again_and_waited_for() {
    let server = Server::start();
    let options = PostgresStoreOptions {
        max_connections: 1,
        connect_timeout: Duration::from_secs(1),
        ..PostgresStoreOptions::default()
    };
    let pool = connections(&server.url(), &options);
    let session = futures(pool.get()).unwrap();
    let pid = asked(&session, PID);

    let failure = futures(pool.get()).unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Unavailable);
    let text = failure.to_string();
    assert!(
        text.contains("became free within 1s: all 1 of the pool are in use"),
        "{text}"
    );

    let waiting = std::thread::spawn({
        let pool = pool.clone();
        move || futures(pool.get()).map(|session| asked(&session, PID))
    });
    drop(session);
    assert_eq!(waiting.join().unwrap().unwrap(), pid);

    pool.close();
    pool.close();
    let failure = futures(pool.get()).unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Closed);
    assert_eq!(EventStoreError::from(failure), EventStoreError::StoreClosed);
}

#[test]
fn a_connection_that_the_server_ended_is_replaced() {
    let server = Server::start();
    let pool = connections(&server.url(), &PostgresStoreOptions::default());
    let ended = |session: &PooledClient| {
        let failure = session.failure(&futures(session.query("SELECT 1", &[])).unwrap_err());
        assert!(
            failure.leaves_outcome_open() && failure.may_pass(),
            "{failure}"
        );
        failure
    };

    // While it lies in the pool.
    let session = futures(pool.get()).unwrap();
    let pid = asked(&session, PID);
    drop(session);
    terminate(&server, &pid);
    let session = loop {
        let session = futures(pool.get()).unwrap();
        // The news of the end may still be on its way.
        if !session.is_closed() && futures(session.query(PID, &[])).is_ok() {
            break session;
        }
    };
    let next = asked(&session, PID);
    assert_ne!(next, pid);

    // While it is held.
    terminate(&server, &next);
    ended(&session);
    drop(session);
    let session = futures(pool.get()).unwrap();
    assert_ne!(asked(&session, PID), next);
}

#[test]
fn a_statement_that_the_server_ends_leaves_its_outcome_open() {
    let server = Server::start();
    let pool = connections(&server.url(), &PostgresStoreOptions::default());
    let session = futures(pool.get()).unwrap();
    let pid = asked(&session, PID);
    let sleeping = std::thread::spawn(move || {
        let error = futures(session.query("SELECT pg_sleep(60)", &[])).unwrap_err();
        session.failure(&error)
    });
    let watching = connected(&server.url());
    let active =
        format!("SELECT coalesce(max(wait_event), '') FROM pg_stat_activity WHERE pid = {pid}");
    while asked(&watching, &active) != "PgSleep" {}
    terminate(&server, &pid);
    let failure = sleeping.join().unwrap();
    assert_eq!(failure.kind(), FailureKind::Shutdown, "{failure}");
    assert!(failure.to_string().contains("57P01"), "{failure}");
}

#[test]
fn statements_fail_by_kind() {
    let server = Server::start();
    let session = connected(&server.url());
    let failure = |statement: &str| {
        let error = futures(session.batch_execute(statement)).unwrap_err();
        let failure = session.failure(&error);
        assert!(failure.to_string().contains("127.0.0.1"), "{failure}");
        (failure.kind(), failure.code().unwrap().code().to_owned())
    };
    assert_eq!(
        failure("SELECT 1/0"),
        (FailureKind::Server, "22012".to_owned())
    );
    assert_eq!(
        failure("BEGIN READ ONLY; CREATE TABLE t ()"),
        (FailureKind::ReadOnly, "25006".to_owned())
    );
    futures(session.batch_execute("ROLLBACK")).unwrap();
    assert_eq!(
        failure("SET statement_timeout = 1; SELECT pg_sleep(60)"),
        (FailureKind::Timeout, "57014".to_owned())
    );
    // What never left the process is no lost connection.
    let error = futures(session.query("SELECT $1::text", &[&"a\0b"])).unwrap_err();
    let failure = session.failure(&error);
    assert!(!failure.leaves_outcome_open(), "{failure}: {error:?}");
}

#[test]
fn a_connection_of_its_own_tells_what_it_hears_and_that_it_ended() {
    let server = Server::start();
    let pool = connections(&server.url(), &PostgresStoreOptions::default());
    let (tell, told) = mpsc::channel();
    let (session, task) =
        futures(pool.connect_dedicated(move |event| drop(tell.send(event)))).unwrap();
    futures(session.batch_execute("LISTEN facts")).unwrap();
    let notify = "SELECT pg_notify('facts', 'new')::text";
    asked(&connected(&server.url()), notify);
    let ConnectionEvent::Message(message) = told.recv().unwrap() else {
        panic!("it ended");
    };
    let AsyncMessage::Notification(notification) = *message else {
        panic!("{message:?}");
    };
    assert_eq!(
        (notification.channel(), notification.payload()),
        ("facts", "new")
    );

    futures(session.batch_execute("DO $$ BEGIN RAISE WARNING 'careful'; END $$")).unwrap();
    let ConnectionEvent::Message(message) = told.recv().unwrap() else {
        panic!("it ended");
    };
    let AsyncMessage::Notice(notice) = *message else {
        panic!("{message:?}");
    };
    assert_eq!(notice.message(), "careful");

    let pid = {
        let rows = futures(session.query(PID, &[])).unwrap();
        rows[0].get::<_, String>(0)
    };
    terminate(&server, &pid);
    let ConnectionEvent::Ended(Some(failure)) = told.recv().unwrap() else {
        panic!("it did not end by a failure");
    };
    // What the server said is lost if something of ours was still on its way to it.
    assert!(failure.leaves_outcome_open(), "{failure}");
    assert!(told.recv().is_err(), "nothing follows");
    futures(task).unwrap();
    assert!(session.is_closed());
}

#[test]
fn a_dropped_connection_says_goodbye() {
    let server = Server::start_with(
        "local all all scram-sha-256\nhost all all all scram-sha-256\n",
        &["log_disconnections=on", "log_min_messages=debug1"],
        &[],
    );
    let pool = connections(&server.url(), &PostgresStoreOptions::default());
    let (tell, told) = mpsc::channel();
    let (session, _) =
        futures(pool.connect_dedicated(move |event| drop(tell.send(event)))).unwrap();
    drop(session);
    assert!(matches!(told.recv().unwrap(), ConnectionEvent::Ended(None)));
    drop(futures(pool.get()).unwrap());
    pool.close();
    while server.log().matches("disconnection: session time").count() < 2 {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!server.log().contains("unexpected EOF"), "{}", server.log());
}
