//! Sockets for programs on tokio: [`TcpListener`] and [`TcpStream`] as in `tokio::net`.
//!
//! ```no_run
//! use fourwave::tokio::TcpListener;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # async fn serve() -> std::io::Result<()> {
//! let listener = TcpListener::bind("0.0.0.0:7777").await?;
//! loop {
//!     let (mut stream, _) = listener.accept().await?;
//!     tokio::spawn(async move {
//!         let mut request = [0; 1024];
//!         let count = stream.read(&mut request).await?;
//!         stream.write_all(&request[..count]).await
//!     });
//! }
//! # }
//! ```
//!
//! All sockets of one tokio runtime share one [`Poller`](crate::Poller), whose descriptor is in
//! tokio's own reactor, and one small task that passes readiness on: no thread besides tokio's,
//! none per connection, and nothing that polls while there is nothing to do.
//!
//! Every method is cancellation-safe as tokio's are: a future that is dropped has taken nothing.
//! `bind` and the first step of `connect` exchange a message with the daemon, which takes
//! microseconds and is not waited for asynchronously.

#[cfg(feature = "axum")]
mod axum;
mod listener;
mod reactor;
mod ready;
mod split;
mod stream;

pub use listener::TcpListener;
pub use split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
pub use stream::TcpStream;

pub use ::tokio::net::ToSocketAddrs;
