//! Asks a server to cancel what it does for a connection.
//!
//! A request is sent on a connection of its own. tokio-postgres leaves as soon as it has written it,
//! and a pooler forgets the requests of those who left. So this one waits until the server hangs up,
//! which it does when it has passed the request on.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_postgres::CancelToken;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};

use super::tls::Connector;

/// Where a connection goes to.
#[derive(Debug, Clone)]
pub(super) enum Address {
    /// An address, and the host's name for TLS.
    Tcp(SocketAddr, String),
    #[cfg_attr(not(unix), allow(dead_code))]
    Socket(PathBuf),
}

/// Sends a request, encrypted as the connection that it is about. The error is a sentence.
pub(super) async fn request(
    token: CancelToken,
    address: Address,
    mut connector: Connector,
) -> Result<(), String> {
    let told = |error: &dyn std::error::Error| error.to_string();
    match address {
        Address::Tcp(address, host) => {
            let stream = TcpStream::connect(address)
                .await
                .map_err(|error| told(&error))?;
            let stream = Patient(stream);
            let tls =
                match MakeTlsConnect::<Patient<TcpStream>>::make_tls_connect(&mut connector, &host)
                {
                    Ok(tls) => PatientTls(tls),
                    Err(never) => match never {},
                };
            token
                .cancel_query_raw(stream, tls)
                .await
                .map_err(|error| told(&error))
        }
        #[cfg(unix)]
        Address::Socket(path) => {
            let stream = tokio::net::UnixStream::connect(path).await;
            let stream = Patient(stream.map_err(|error| told(&error))?);
            token
                .cancel_query_raw(stream, tokio_postgres::NoTls)
                .await
                .map_err(|error| told(&error))
        }
        #[cfg(not(unix))]
        Address::Socket(_) => Err("there are no Unix sockets on this system".to_owned()),
    }
}

/// A stream that is shut down when the other side has hung up.
struct Patient<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut space = [0; 64];
            let mut buffer = ReadBuf::new(&mut space);
            let read = ready!(Pin::new(&mut self.0).poll_read(context, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: TlsStream + Unpin> TlsStream for Patient<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.0.channel_binding()
    }
}

/// Makes patient streams of encrypted ones, too: theirs would say goodbye before they wait.
struct PatientTls<T>(T);

impl<S, T> TlsConnect<S> for PatientTls<T>
where
    T: TlsConnect<S>,
    T::Future: Send + 'static,
{
    type Stream = Patient<T::Stream>;
    type Error = T::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Stream, Self::Error>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        let connecting = self.0.connect(stream);
        Box::pin(async move { connecting.await.map(Patient) })
    }
}
