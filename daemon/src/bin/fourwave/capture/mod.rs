//! `fourwave capture`: frames in both directions, with what became of them.

mod file;
mod filter;
mod text;

use crate::daemon::{Daemon, Failure};
use file::File;
use fourwave_protocol::VERSION;
use fourwave_protocol::capture::{CaptureCount, CapturedFrame, FrameVerdict};
use fourwave_protocol::control::{MAX_MESSAGE, Reply, Request};
use fourwave_stack::Reason;
use fourwaved::explain::explain;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

/// Shows the frames that fourwaved receives and sends, and what became of each. Root may, and the
/// user that fourwaved runs as. Ends on Ctrl-C.
///
/// Frames that the tool is too slow for are left out, and counted at the end; fourwaved does not
/// wait for it. Frames that the XDP program drops are not seen, see xdp_drop_ in `fourwave stats`.
#[derive(Debug, clap::Args)]
#[command(after_help = filter::GRAMMAR)]
pub(crate) struct Arguments {
    /// Write a pcapng file, for Wireshark and tcpdump, instead of lines; - is stdout
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// End after so many frames
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
    /// End after this time, such as 10s or 5min
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Bytes to keep of each frame, 64 to 4096
    #[arg(short, long, value_name = "BYTES", default_value_t = 4096,
          value_parser = clap::value_parser!(u32).range(64..=4096))]
    snaplen: u32,
    /// Which frames, see below; all if there is none
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
}

/// Captures until there is enough.
pub(crate) fn run(
    arguments: &Arguments,
    connect: impl FnOnce() -> Result<Daemon, Failure>,
) -> Result<ExitCode, Failure> {
    let text = arguments.filter.join(" ");
    let filter = filter::parse(&text).map_err(Failure::Usage)?;
    let mut daemon = connect()?;
    daemon.ask(&Request::Capture { version: VERSION, filter, snaplen: arguments.snaplen })?;
    let queues = match daemon.reply()? {
        Reply::Capturing { queues } => queues,
        other => return Err(Failure::unexpected(&other)),
    };
    let sink = match &arguments.write {
        Some(path) => Sink::File(File::create(path, &queues, &text, arguments.snaplen)?),
        None => Sink::Lines(io::BufWriter::new(io::stdout())),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::Talk)?;
    let mut capture =
        Capture { sink, left: arguments.count.unwrap_or(u64::MAX), written: 0, counts: Vec::new() };
    eprintln!("capturing from {}; Ctrl-C ends it", queues.join(", "));
    let ended = runtime.block_on(capture.follow(daemon, arguments.duration));
    // What there is so far is kept whatever happened.
    capture.finish()?;
    ended.map(|()| ExitCode::SUCCESS)
}

enum Sink {
    Lines(io::BufWriter<io::Stdout>),
    File(File),
}

struct Capture {
    sink: Sink,
    /// Frames still wanted.
    left: u64,
    written: u64,
    counts: Vec<CaptureCount>,
}

impl Capture {
    async fn follow(&mut self, daemon: Daemon, span: Option<Duration>) -> Result<(), Failure> {
        let socket = asynchronous(daemon.into_socket()).map_err(Failure::Talk)?;
        let listen = |kind| signal(kind).map_err(Failure::Talk);
        let (mut interrupt, mut terminate) =
            (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        // A year is for ever here.
        let end = Instant::now() + span.unwrap_or(Duration::from_secs(365 * 24 * 3600));
        let mut buffer = Box::new([0; MAX_MESSAGE]);
        let mut stopping = false;
        loop {
            let enough = tokio::select! {
                _ = interrupt.recv(), if !stopping => true,
                _ = terminate.recv(), if !stopping => true,
                () = tokio::time::sleep_until(end), if !stopping => true,
                received = socket.recv(&mut buffer[..]) => match read(received, &buffer)? {
                    Reply::Captured { frames, counts, more } => {
                        self.take(&frames, counts)?;
                        if !more {
                            return Ok(());
                        }
                        self.left == 0
                    }
                    other => return Err(Failure::unexpected(&other)),
                },
            };
            if enough && !stopping {
                // The daemon then sends what it still has, and says that it was all.
                stopping = true;
                socket.shutdown(Shutdown::Write).map_err(Failure::Talk)?;
            }
        }
    }

    fn take(&mut self, frames: &[CapturedFrame], counts: Vec<CaptureCount>) -> Result<(), Failure> {
        for frame in frames {
            if self.left == 0 {
                break;
            }
            self.left -= 1;
            self.written += 1;
            match &mut self.sink {
                Sink::Lines(out) => {
                    writeln!(out, "{}", text::line(frame)).map_err(Failure::Output)?;
                }
                Sink::File(file) => file.write(frame, &comment(frame))?,
            }
        }
        self.counts = counts;
        match &mut self.sink {
            Sink::Lines(out) => out.flush().map_err(Failure::Output),
            Sink::File(file) => file.flush(),
        }
    }

    /// The statistics, to the file and to whoever looks.
    fn finish(&mut self) -> Result<(), Failure> {
        if let Sink::File(file) = &mut self.sink {
            file.finish(&self.counts)?;
        }
        let missed: u64 = self.counts.iter().map(|count| count.missed).sum();
        eprintln!(
            "{} frames captured, {missed} missed because this tool was too slow",
            self.written
        );
        Ok(())
    }
}

/// For tokio, which has no sockets of packets in sequence but reads them as it does datagrams.
fn asynchronous(socket: OwnedFd) -> io::Result<tokio::net::UnixDatagram> {
    let socket = std::os::unix::net::UnixDatagram::from(socket);
    socket.set_nonblocking(true)?;
    tokio::net::UnixDatagram::from_std(socket)
}

fn read(received: io::Result<usize>, buffer: &[u8; MAX_MESSAGE]) -> Result<Reply, Failure> {
    Daemon::read(&buffer[..received.map_err(Failure::Talk)?])
}

/// What became of a frame, as its comment in the file says.
fn comment(frame: &CapturedFrame) -> String {
    let (handed_to, dropped) = match &frame.verdict {
        FrameVerdict::Sent => return "tx".to_owned(),
        FrameVerdict::Received { handed_to, dropped } => (handed_to, dropped),
    };
    let mut text = "rx: ".to_owned();
    if let Some(worker) = handed_to {
        text += &format!("handed to worker {worker}: ");
    }
    match dropped {
        None => text += "accepted",
        Some(reason) => {
            text += &format!("dropped: {reason}");
            let known = Reason::find(reason).map(Reason::counter);
            if let Some(why) = known.and_then(|(counter, member)| explain(counter, member)) {
                text += &format!(" ({why})");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_say_what_became_of_a_frame() {
        let comment_of = comment;
        let comment = |verdict| {
            comment_of(&CapturedFrame { at: 0, worker: 0, verdict, length: 0, bytes: vec![] })
        };
        let received = |handed_to, dropped: Option<&str>| {
            comment(FrameVerdict::Received { handed_to, dropped: dropped.map(str::to_owned) })
        };
        assert_eq!(comment(FrameVerdict::Sent), "tx");
        assert_eq!(received(None, None), "rx: accepted");
        assert_eq!(received(Some(1), None), "rx: handed to worker 1: accepted");
        assert_eq!(
            received(None, Some("out_of_window")),
            "rx: dropped: out_of_window (Outside the receive window.)"
        );
        assert_eq!(received(None, Some("news")), "rx: dropped: news");
    }
}
