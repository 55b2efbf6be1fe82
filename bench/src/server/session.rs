//! One connection of the echo server, without knowing whose sockets it runs on.

use std::io::{self, Read, Write};

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More bytes, or the end of the stream.
    Read,
    /// Room to send.
    Write,
    /// Nothing: close it.
    Done,
}

/// Progress of one connection.
#[derive(Debug, Default)]
pub(super) struct Session {
    echoed: usize,
    /// Read but not yet taken by the socket. Empty, without memory of its own, nearly always.
    pending: Vec<u8>,
}

impl Session {
    /// Goes as far as the socket lets it. `scratch` is shared by all sessions of a thread.
    ///
    /// # Errors
    /// What the socket says, other than that it would block.
    pub(super) fn drive(
        &mut self,
        stream: &mut (impl Read + Write),
        size: usize,
        scratch: &mut [u8],
    ) -> io::Result<Step> {
        loop {
            while !self.pending.is_empty() {
                match retry(|| stream.write(&self.pending))? {
                    Some(sent) => {
                        self.pending.drain(..sent);
                        self.echoed += sent;
                    }
                    None => return Ok(Step::Write),
                }
            }
            if size > 0 && self.echoed >= size {
                return Ok(Step::Done);
            }
            let read = match retry(|| stream.read(scratch))? {
                Some(0) => return Ok(Step::Done),
                Some(read) => read,
                None => return Ok(Step::Read),
            };
            let sent = retry(|| stream.write(&scratch[..read]))?.unwrap_or(0);
            self.echoed += sent;
            self.pending.extend_from_slice(&scratch[sent..read]);
        }
    }
}

/// `None` when the call would block; interrupted calls are made again.
fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        match call() {
            Ok(count) => return Ok(Some(count)),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return Ok(None),
                io::ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// A socket with a script: what each read gives, how much each write takes.
    #[derive(Default)]
    struct Script {
        reads: VecDeque<io::Result<Vec<u8>>>,
        takes: VecDeque<usize>,
        written: Vec<u8>,
    }

    impl Read for Script {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let bytes = self.reads.pop_front().unwrap_or(Err(io::ErrorKind::WouldBlock.into()))?;
            out[..bytes.len()].copy_from_slice(&bytes);
            Ok(bytes.len())
        }
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = self.takes.pop_front().unwrap_or(usize::MAX).min(bytes.len());
            if room == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.written.extend_from_slice(&bytes[..room]);
            Ok(room)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn reads(parts: &[&[u8]]) -> Script {
        Script { reads: parts.iter().map(|part| Ok(part.to_vec())).collect(), ..Script::default() }
    }

    #[test]
    fn closes_after_size_bytes_however_they_are_cut() {
        let mut script = reads(&[b"ab", b"cd"]);
        let step = Session::default().drive(&mut script, 4, &mut [0; 64]).unwrap();
        assert_eq!((step, script.written.as_slice()), (Step::Done, b"abcd".as_slice()));
    }

    #[test]
    fn waits_for_the_rest_and_ends_with_the_stream() {
        let mut script = reads(&[b"ab"]);
        let mut session = Session::default();
        assert_eq!(session.drive(&mut script, 4, &mut [0; 64]).unwrap(), Step::Read);
        script.reads.push_back(Ok(Vec::new()));
        assert_eq!(session.drive(&mut script, 4, &mut [0; 64]).unwrap(), Step::Done);
        assert_eq!(script.written, b"ab");
    }

    #[test]
    fn a_full_socket_loses_nothing() {
        let mut script = reads(&[b"abcdef"]);
        script.takes = [2, 0, 1, 0].into();
        let mut session = Session::default();
        assert_eq!(session.drive(&mut script, 6, &mut [0; 64]).unwrap(), Step::Write);
        assert_eq!(session.drive(&mut script, 6, &mut [0; 64]).unwrap(), Step::Write);
        assert_eq!(session.drive(&mut script, 6, &mut [0; 64]).unwrap(), Step::Done);
        assert_eq!(script.written, b"abcdef");
    }

    #[test]
    fn size_zero_goes_on_until_the_peer_ends() {
        let mut script = reads(&[&[1; 64], &[2; 64], b""]);
        let step = Session::default().drive(&mut script, 0, &mut [0; 64]).unwrap();
        assert_eq!((step, script.written.len()), (Step::Done, 128));
    }
}
