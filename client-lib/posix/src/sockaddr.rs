//! `struct sockaddr` and back.

use crate::error::{Errno, Result};
use std::mem::{offset_of, size_of};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Room for an address of any family of the kernel's.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Storage {
    /// Aligned as `struct sockaddr_storage`.
    bytes: [u64; 16],
    length: libc::socklen_t,
}

impl Default for Storage {
    fn default() -> Storage {
        Storage { bytes: [0; 16], length: size_of::<[u64; 16]>() as libc::socklen_t }
    }
}

impl Storage {
    /// Where a call writes address and length.
    pub(crate) fn parts(&mut self) -> (*mut u64, *mut libc::socklen_t) {
        (self.bytes.as_mut_ptr(), &raw mut self.length)
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        let bytes: Vec<u8> = self.bytes.iter().flat_map(|word| word.to_ne_bytes()).collect();
        read(&bytes[..bytes.len().min(self.length as usize)]).ok()
    }
}

/// The family that bytes of a `struct sockaddr` name, if they are enough for one.
pub fn family(bytes: &[u8]) -> Option<i32> {
    bytes.first_chunk().map(|family| i32::from(libc::sa_family_t::from_ne_bytes(*family)))
}

/// An Internet address out of the bytes of a `struct sockaddr_in` or `sockaddr_in6`.
///
/// # Errors
/// `EINVAL` when there are too few bytes, `EAFNOSUPPORT` for another family.
pub fn read(bytes: &[u8]) -> Result<SocketAddr> {
    fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
        let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
        field.copied().ok_or(Errno::INVAL)
    }
    match family(bytes).ok_or(Errno::INVAL)? {
        libc::AF_INET => {
            let port = field(bytes, offset_of!(libc::sockaddr_in, sin_port))?;
            let ip: [u8; 4] = field(bytes, offset_of!(libc::sockaddr_in, sin_addr))?;
            let port = u16::from_be_bytes(port);
            Ok(SocketAddrV4::new(Ipv4Addr::from(ip), port).into())
        }
        libc::AF_INET6 => {
            let port = field(bytes, offset_of!(libc::sockaddr_in6, sin6_port))?;
            let flow = field(bytes, offset_of!(libc::sockaddr_in6, sin6_flowinfo))?;
            let ip: [u8; 16] = field(bytes, offset_of!(libc::sockaddr_in6, sin6_addr))?;
            // RFC 2133 has no scope; Linux takes such addresses too.
            let scope = field(bytes, offset_of!(libc::sockaddr_in6, sin6_scope_id));
            let (port, scope) = (u16::from_be_bytes(port), scope.unwrap_or_default());
            let (flow, scope) = (u32::from_ne_bytes(flow), u32::from_ne_bytes(scope));
            Ok(SocketAddrV6::new(Ipv6Addr::from(ip), port, flow, scope).into())
        }
        _ => Err(Errno::AFNOSUPPORT),
    }
}

/// The bytes of the `struct sockaddr_in` or `sockaddr_in6` of an address.
pub fn bytes(address: SocketAddr) -> Vec<u8> {
    let put = |out: &mut Vec<u8>, at: usize, bytes: &[u8]| {
        out[at..at + bytes.len()].copy_from_slice(bytes);
    };
    let port = address.port().to_be_bytes();
    match address {
        SocketAddr::V4(address) => {
            let mut out = vec![0; size_of::<libc::sockaddr_in>()];
            put(&mut out, 0, &(libc::AF_INET as libc::sa_family_t).to_ne_bytes());
            put(&mut out, offset_of!(libc::sockaddr_in, sin_port), &port);
            put(&mut out, offset_of!(libc::sockaddr_in, sin_addr), &address.ip().octets());
            out
        }
        SocketAddr::V6(address) => {
            let mut out = vec![0; size_of::<libc::sockaddr_in6>()];
            put(&mut out, 0, &(libc::AF_INET6 as libc::sa_family_t).to_ne_bytes());
            put(&mut out, offset_of!(libc::sockaddr_in6, sin6_port), &port);
            let flow = address.flowinfo().to_ne_bytes();
            put(&mut out, offset_of!(libc::sockaddr_in6, sin6_flowinfo), &flow);
            put(&mut out, offset_of!(libc::sockaddr_in6, sin6_addr), &address.ip().octets());
            let scope = address.scope_id().to_ne_bytes();
            put(&mut out, offset_of!(libc::sockaddr_in6, sin6_scope_id), &scope);
            out
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for text in ["10.0.0.1:80", "[fd00::1]:8080", "[::ffff:10.0.0.1]:0"] {
            let address: SocketAddr = text.parse().unwrap();
            let bytes = bytes(address);
            assert_eq!(read(&bytes), Ok(address));
            assert_eq!(read(&bytes[..7]), Err(Errno::INVAL));
        }
        assert_eq!(family(&bytes("[::]:1".parse().unwrap())), Some(libc::AF_INET6));
        assert_eq!(read(&[1, 0, b'/', b'x']), Err(Errno::AFNOSUPPORT));
        assert_eq!((read(&[]), family(&[2])), (Err(Errno::INVAL), None));
    }
}
