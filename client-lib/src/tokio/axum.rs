//! `axum::serve` takes our listener.

use super::{TcpListener, TcpStream};
use ::axum::serve::Listener;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// After an error that is not one connection's: it may take a while to go.
const PAUSE: Duration = Duration::from_secs(1);

/// For `axum::serve(listener, app)`. What cannot be accepted is logged with `tracing` and tried
/// again after a second, as axum does with tokio's listener; while the daemon is gone, that is
/// once a second.
///
/// `ListenerExt::tap_io` sets options of each stream, and makes the peer's address known to
/// handlers as `ConnectInfo<SocketAddr>`.
impl Listener for TcpListener {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match TcpListener::accept(self).await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    tracing::error!("accept: {error}");
                    ::tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::local_addr(self)
    }
}
