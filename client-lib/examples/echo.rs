//! Sends back what comes until the peer has said all: a thread per connection, blocking. But for
//! the `use`, this is a program for `std::net`.
//!
//! `FOURWAVE_SOCKET=/run/fourwave/control.sock cargo run --example echo -- 0.0.0.0:7777`

use fourwave::{TcpListener, TcpStream};
use std::{io, thread};

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "0.0.0.0:7777".to_owned());
    let listener = TcpListener::bind(address)?;
    eprintln!("listening on {}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || {
            if let Err(error) = echo(&stream) {
                eprintln!("{stream:?}: {error}");
            }
        });
    }
    Ok(())
}

fn echo(stream: &TcpStream) -> io::Result<u64> {
    let (mut reading, mut writing) = (stream, stream);
    io::copy(&mut reading, &mut writing)
}
