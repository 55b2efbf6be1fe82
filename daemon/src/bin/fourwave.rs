//! `fourwave`: looks at a running daemon.

use clap::{Parser, Subcommand};
use fourwave_protocol::control::{MAX_MESSAGE, Malformed, Reply, Request, decode, encode};
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Looks at a running fourwaved.
#[derive(Debug, Parser)]
#[command(name = "fourwave", version)]
struct Options {
    /// Folder of the daemon's control socket, its `runtime_dir` [default: the socket that
    /// `FOURWAVE_SOCKET` names, else in /run/fourwave]
    #[arg(long, value_name = "FOLDER", global = true)]
    runtime_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints all counters as `name value` lines, over all workers
    Stats,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no fourwaved answers at {0}: {1} (is it running? --runtime-dir names another one)")]
    Connect(PathBuf, io::Error),
    #[error("talking to fourwaved: {0}")]
    Talk(#[from] io::Error),
    #[error("fourwaved is of another release: {0}")]
    Malformed(#[from] Malformed),
    #[error("fourwaved refuses: {0}")]
    Refused(String),
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        // Whoever reads our output has seen enough.
        Err(Failure::Talk(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fourwave: {error}");
            ExitCode::FAILURE
        }
        Ok(()) => ExitCode::SUCCESS,
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let socket = connect(&socket_path(options.runtime_dir.as_deref()))?;
    match options.command {
        Command::Stats => print_text(&socket, &Request::Stats),
    }
}

/// Where the daemon listens: as asked for, or where programs on this machine find it.
fn socket_path(runtime_dir: Option<&Path>) -> PathBuf {
    match (runtime_dir, std::env::var_os("FOURWAVE_SOCKET")) {
        (Some(folder), _) => folder.join("control.sock"),
        (None, Some(path)) => path.into(),
        (None, None) => "/run/fourwave/control.sock".into(),
    }
}

fn connect(path: &Path) -> Result<OwnedFd, Failure> {
    let connect = || -> io::Result<OwnedFd> {
        let (family, flags) = (AddressFamily::UNIX, SocketFlags::CLOEXEC);
        let socket = rustix::net::socket_with(family, SocketType::SEQPACKET, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(socket)
    };
    connect().map_err(|error| Failure::Connect(path.to_owned(), error))
}

/// Sends a request that is answered by text, and prints it as it comes.
fn print_text(socket: &OwnedFd, request: &Request) -> Result<(), Failure> {
    let mut buffer = [0; MAX_MESSAGE];
    let packet = encode(request, &mut buffer)?;
    rustix::net::send(socket, packet, SendFlags::NOSIGNAL).map_err(io::Error::from)?;
    let mut out = io::stdout().lock();
    loop {
        let received = rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty());
        let (_, length) = received.map_err(io::Error::from)?;
        if length == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match decode(&buffer[..length])? {
            Reply::Text { text, more } => {
                out.write_all(text.as_bytes())?;
                if !more {
                    return Ok(out.flush()?);
                }
            }
            Reply::Error { detail, .. } => return Err(Failure::Refused(detail)),
            Reply::Welcome { .. } | Reply::Attached { .. } | Reply::Bound { .. } | Reply::Done => {
                return Err(Failure::Refused("it gave an answer to something else".to_owned()));
            }
        }
    }
}
