//! Answers each connection with what it sends first, then closes: one thread, blocking.
//!
//! `FOURWAVE_SOCKET=/run/fourwave/control.sock cargo run --example echo -- 0.0.0.0:7777`

use fourwave::TcpListener;
use std::io::{self, Read, Write};

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "0.0.0.0:7777".to_owned());
    let listener = TcpListener::bind(&address)?;
    eprintln!("listening on {}", listener.local_addr()?);
    let mut buffer = [0; 16 * 1024];
    loop {
        let (mut stream, peer) = listener.accept()?;
        let answered =
            stream.read(&mut buffer).and_then(|count| stream.write_all(&buffer[..count]));
        if let Err(error) = answered {
            eprintln!("{peer}: {error}");
        }
    }
}
