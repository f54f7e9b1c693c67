use std::collections::HashSet;

use super::server::{ENCODED, Server};
use super::{asked, connected, refused};
use crate::postgres::connect::FailureKind;

const PORT: &str = "SELECT current_setting('port')";

fn url(ports: &[u16], parameters: &str) -> String {
    let hosts: Vec<_> = ports
        .iter()
        .map(|port| format!("127.0.0.1:{port}"))
        .collect();
    format!(
        "postgres://postgres:{ENCODED}@{}/postgres{parameters}",
        hosts.join(",")
    )
}

#[test]
fn dead_servers_and_those_that_refuse_writes_are_passed_over() {
    let mut dead = Server::start();
    dead.stop();
    let (dead, mut other, writable) = (dead.port, Server::start(), Server::start());
    other.restart(&["default_transaction_read_only=on"]);
    let (read_only, writable) = (other.port, writable.port);
    let reached =
        |ports: &[u16], parameters: &str| asked(&connected(&url(ports, parameters)), PORT);

    assert_eq!(
        reached(&[dead, read_only, writable], ""),
        writable.to_string()
    );
    let any = "?target_session_attrs=any";
    assert_eq!(
        reached(&[dead, read_only, writable], any),
        read_only.to_string()
    );
    // A single host is taken as it is.
    assert_eq!(reached(&[read_only], ""), read_only.to_string());

    for parameters in ["", "?target_session_attrs=primary"] {
        let failure = refused(&url(&[read_only, dead], parameters));
        assert_eq!(failure.kind(), FailureKind::Unavailable);
        let text = failure.to_string();
        assert!(
            text.contains(&format!(
                "{read_only}/postgres as postgres: the server refuses"
            )),
            "{text}"
        );
        assert!(
            text.contains(&format!("{dead}/postgres as postgres: nobody listens")),
            "{text}"
        );
    }

    let balanced = "?load_balance_hosts=random";
    let reached: HashSet<_> = (0..64)
        .map(|_| {
            asked(
                &connected(&url(
                    &[writable, read_only],
                    &format!("{balanced}&{}", &any[1..]),
                )),
                PORT,
            )
        })
        .collect();
    assert_eq!(reached.len(), 2, "both are used");
}

#[test]
fn a_wrong_password_ends_the_search() {
    let (one, other) = (Server::start(), Server::start());
    let url = url(&[one.port, other.port], "").replace(ENCODED, "hunter2");
    let text = refused(&url).to_string();
    assert!(text.contains(&one.port.to_string()), "{text}");
    assert!(!text.contains(&other.port.to_string()), "{text}");
}

#[test]
fn a_silent_server_leaves_time_for_the_next() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::start();
    let ports = [silent.local_addr().unwrap().port(), server.port];
    let session = connected(&url(&ports, "?connect_timeout=1"));
    assert_eq!(asked(&session, PORT), server.port.to_string());
}
