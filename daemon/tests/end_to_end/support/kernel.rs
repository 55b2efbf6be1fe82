//! What the kernel says about its end of a connection.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;

/// `struct tcp_info`, by offset: the declaration of libc ends before the newer fields.
#[derive(Debug)]
pub struct KernelInfo([u8; 256]);

impl KernelInfo {
    /// Asks the kernel.
    pub fn of(stream: &TcpStream) -> KernelInfo {
        let mut info = [0; 256];
        let mut len = info.len() as libc::socklen_t;
        // SAFETY: `info` has room for `len` bytes, and both outlive the call.
        let result = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        KernelInfo(info)
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }

    pub fn state(&self) -> u8 {
        self.0[0]
    }

    /// Scales of the peer's windows and of its own.
    pub fn scales(&self) -> (u8, u8) {
        (self.0[6] & 0xf, self.0[6] >> 4)
    }

    pub fn snd_mss(&self) -> u32 {
        self.word(16)
    }

    /// What it knows of the path.
    pub fn pmtu(&self) -> u32 {
        self.word(60)
    }

    pub fn advmss(&self) -> u32 {
        self.word(84)
    }

    /// Bytes of ours that the peer has.
    pub fn bytes_acked(&self) -> u64 {
        u64::from_ne_bytes(self.0[120..128].try_into().expect("eight bytes"))
    }

    pub fn bytes_received(&self) -> u64 {
        u64::from_ne_bytes(self.0[128..136].try_into().expect("eight bytes"))
    }

    pub fn segs_in(&self) -> u32 {
        self.word(140)
    }

    /// The peer's window.
    pub fn snd_wnd(&self) -> u32 {
        self.word(228)
    }
}
