use std::io::Read;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::server::Server;
use crate::postgres::PostgresStoreOptions;
use crate::postgres::connect::ConnectionTarget;
use crate::postgres::connect::cancel::{Address, request};
use crate::postgres::connect::dial::dial;
use crate::runtime::CONNECTIONS;

/// PgBouncer passes a request on when it has a connection for it, and only if the sender is still
/// there.
#[test]
fn a_request_waits_until_the_server_hangs_up() {
    let server = Server::start();
    // The connection is not encrypted, so the request is 16 bytes.
    let url = server.url() + "?sslmode=disable";
    let target = ConnectionTarget::parse(&url, &PostgresStoreOptions::default()).unwrap();
    let runtime = CONNECTIONS.handle().unwrap();
    let dialled = runtime.block_on(dial(&target));
    let dialled = dialled.unwrap_or_else(|failure| panic!("{failure}"));
    let token = dialled.client.cancel_token();
    let connector = target.tls.connector().unwrap();

    let pooler = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::Tcp(pooler.local_addr().unwrap(), "localhost".to_owned());
    let hung_up = Arc::new(AtomicBool::new(false));
    let hangs_up = hung_up.clone();
    let pooling = std::thread::spawn(move || {
        let (mut stream, _) = pooler.accept().unwrap();
        stream.read_exact(&mut [0; 16]).unwrap();
        hangs_up.store(true, Ordering::SeqCst);
    });
    runtime
        .block_on(request(token, address, connector))
        .unwrap();
    assert!(hung_up.load(Ordering::SeqCst));
    pooling.join().unwrap();
}
