//! Streams of bytes that are made and checked at both ends.

use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

/// What came, or went: how many bytes, and their SHA-256.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sum {
    pub length: u64,
    pub sha256: [u8; 32],
}

impl Sum {
    /// Tells the other end.
    pub fn tell(&self, mut stream: impl Write) -> io::Result<()> {
        stream.write_all(&[&self.length.to_le_bytes()[..], &self.sha256].concat())
    }

    /// What the other end [tells](Self::tell) before it closes.
    pub fn told(mut stream: impl Read) -> io::Result<Sum> {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        let (length, sha256) = bytes.split_first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
        let sha256 = sha256.try_into().map_err(io::Error::other)?;
        Ok(Sum { length: u64::from_le_bytes(*length), sha256 })
    }
}

impl std::fmt::Debug for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes ", self.length)?;
        self.sha256[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Bytes that do not repeat: xorshift64, so that a byte out of place changes the sum.
pub struct Pattern(u64);

impl Pattern {
    pub fn new(seed: u64) -> Pattern {
        Pattern(seed.wrapping_mul(2).wrapping_add(1))
    }

    fn word(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let word = self.word().to_ne_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// Writes `length` bytes of the pattern `seed`, in pieces of changing size.
pub fn send(mut stream: impl Write, seed: u64, length: u64) -> io::Result<Sum> {
    let (mut pattern, mut hash) = (Pattern::new(seed), Sha256::new());
    let mut buffer = vec![0; 64 * 1024];
    let mut left = length;
    while left > 0 {
        let size = 1 + pattern.word() % buffer.len() as u64;
        let piece = &mut buffer[..size.min(left) as usize];
        pattern.fill(piece);
        hash.update(&*piece);
        stream.write_all(piece)?;
        left -= piece.len() as u64;
    }
    Ok(Sum { length, sha256: hash.finalize().into() })
}

/// Reads to the end of the stream.
pub fn receive(mut stream: impl Read) -> io::Result<Sum> {
    let (mut length, mut hash) = (0, Sha256::new());
    let mut buffer = vec![0; 48 * 1024];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(Sum { length, sha256: hash.finalize().into() });
        }
        hash.update(&buffer[..count]);
        length += count as u64;
    }
}
