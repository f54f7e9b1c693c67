//! Against real servers, each test's own.

mod cancelling;
mod certificates;
mod logins;
mod pool;
mod server;
mod servers;
mod timeouts;
mod tls;

use crate::postgres::PostgresStoreOptions;
use crate::postgres::connect::{ConnectionTarget, Connections, Failure, PooledClient};

fn connections(url: &str, options: &PostgresStoreOptions) -> Connections {
    let target = ConnectionTarget::parse(url, options).expect("a URL that is understood");
    Connections::new(target, options).expect("a pool")
}

/// Connects, on an executor that is none of tokio's.
fn connect(url: &str, options: &PostgresStoreOptions) -> Result<PooledClient, Failure> {
    futures(connections(url, options).get())
}

fn connected(url: &str) -> PooledClient {
    connect(url, &PostgresStoreOptions::default()).unwrap_or_else(|failure| panic!("{failure}"))
}

fn refused(url: &str) -> Failure {
    connect(url, &PostgresStoreOptions::default()).expect_err("no connection")
}

/// The first column of the first row.
fn asked(session: &PooledClient, question: &str) -> String {
    let rows = futures(session.query(question, &[])).unwrap_or_else(|error| panic!("{error:?}"));
    rows[0].get(0)
}

/// Waits for a future, without any runtime.
fn futures<F: std::future::Future>(future: F) -> F::Output {
    use std::task::{Context, Poll, Wake, Waker};
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(std::sync::Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park();
    }
}
