//! Two rtnetlink requests: which XDP program an interface has, and "take it off".

use std::io;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

use crate::steering::AttachedMode;

const NLMSG_HEADER: usize = 16;
const IFINFOMSG: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;

/// The bits of an attribute's type that are its type (`NLA_TYPE_MASK`).
const NLA_TYPE_MASK: u16 = 0x3fff;

// `include/uapi/linux/if_link.h`
const IFLA_XDP_FD: u16 = 1;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_FLAGS: u16 = 3;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const IFLA_XDP_HW_PROG_ID: u16 = 7;
const XDP_FLAGS_SKB_MODE: u32 = 2;
const XDP_FLAGS_DRV_MODE: u32 = 4;
const XDP_ATTACHED_NONE: u8 = 0;

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    /// The program's id, as `bpftool prog` shows it.
    pub(crate) program: u32,
    /// `None`: offloaded to the NIC.
    pub(crate) mode: Option<AttachedMode>,
}

/// The XDP programs on the interface with this index: at most one for each mode.
pub(crate) fn attached(index: u32) -> io::Result<Vec<Attached>> {
    let reply = request(libc::RTM_GETLINK, 0, index, &[])?;
    let attributes = reply.get(NLMSG_HEADER + IFINFOMSG..).ok_or(io::ErrorKind::UnexpectedEof)?;
    let Some(xdp) = find(attributes, libc::IFLA_XDP) else {
        return Ok(Vec::new());
    };
    if find(xdp, IFLA_XDP_ATTACHED).and_then(|value| value.first()) == Some(&XDP_ATTACHED_NONE) {
        return Ok(Vec::new());
    }
    let kinds = [
        (IFLA_XDP_DRV_PROG_ID, Some(AttachedMode::Native)),
        (IFLA_XDP_SKB_PROG_ID, Some(AttachedMode::Generic)),
        (IFLA_XDP_HW_PROG_ID, None),
    ];
    let programs = kinds.into_iter().filter_map(|(attribute, mode)| {
        let id = find(xdp, attribute)?.first_chunk()?;
        Some(Attached { program: u32::from_ne_bytes(*id), mode })
    });
    Ok(programs.collect())
}

/// Takes a program off that was attached through netlink, not through a link.
///
/// `EBUSY` when it is held by a link.
pub(crate) fn detach(index: u32, mode: AttachedMode) -> io::Result<()> {
    let flags = match mode {
        AttachedMode::Native => XDP_FLAGS_DRV_MODE,
        AttachedMode::Generic => XDP_FLAGS_SKB_MODE,
    };
    let mut nested = attribute(IFLA_XDP_FD, &(-1i32).to_ne_bytes());
    nested.extend(attribute(IFLA_XDP_FLAGS, &flags.to_ne_bytes()));
    let payload = attribute(libc::IFLA_XDP | libc::NLA_F_NESTED as u16, &nested);
    request(libc::RTM_SETLINK, libc::NLM_F_ACK as u16, index, &payload)?;
    Ok(())
}

/// Sends one request about the interface `index` and returns the one message that answers it.
fn request(kind: u16, flags: u16, index: u32, payload: &[u8]) -> io::Result<Vec<u8>> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None, // NETLINK_ROUTE is 0
    )?;
    let length = (NLMSG_HEADER + IFINFOMSG + payload.len()) as u32;
    let mut message = Vec::with_capacity(length as usize);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((libc::NLM_F_REQUEST as u16 | flags).to_ne_bytes());
    message.extend([0; 8]); // sequence number and port: one request, one answer
    message.extend([0; 4]); // family, padding, device type
    message.extend(index.to_ne_bytes());
    message.extend([0; 8]); // device flags and their mask
    message.extend(payload);
    send(&socket, &message, SendFlags::empty())?;

    let mut reply = vec![0; 64 * 1024];
    let (received, _) = recv(&socket, reply.as_mut_slice(), RecvFlags::empty())?;
    reply.truncate(received);
    let kind = reply.get(4..6).and_then(|bytes| bytes.first_chunk());
    let kind = kind.map(|bytes| u16::from_ne_bytes(*bytes));
    if kind == Some(libc::NLMSG_ERROR as u16) {
        let code = reply.get(NLMSG_HEADER..).and_then(|bytes| bytes.first_chunk());
        let code = i32::from_ne_bytes(*code.ok_or(io::ErrorKind::UnexpectedEof)?);
        if code != 0 {
            return Err(io::Error::from_raw_os_error(-code));
        }
    }
    Ok(reply)
}

/// One attribute with its header and padding.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = ATTRIBUTE_HEADER + value.len();
    let mut out = Vec::with_capacity(length.next_multiple_of(4));
    out.extend((length as u16).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(length.next_multiple_of(4), 0);
    out
}

/// The value of the first attribute of this kind.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some((header, _)) = attributes.split_first_chunk::<ATTRIBUTE_HEADER>() {
        let [a, b, c, d] = *header;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let kind = u16::from_ne_bytes([c, d]) & NLA_TYPE_MASK;
        let value = attributes.get(ATTRIBUTE_HEADER..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_behind_padding_and_inside_nests() {
        let mut nested = attribute(7, &[1, 2, 3]);
        nested.extend(attribute(9, &[4]));
        let mut all = attribute(1, b"name");
        all.extend(attribute(43 | libc::NLA_F_NESTED as u16, &nested));
        let nest = find(&all, 43).expect("the nest is there");
        assert_eq!(find(nest, 9), Some(&[4][..]));
        assert_eq!(find(nest, 7), Some(&[1, 2, 3][..]));
        assert_eq!(find(nest, 8), None);
    }

    #[test]
    fn lengths_that_lie_end_the_search() {
        for length in [0u16, 3, 200] {
            let mut all = length.to_ne_bytes().to_vec();
            all.extend([5, 0, 0, 0]);
            assert_eq!(find(&all, 9), None);
        }
    }

    #[test]
    fn the_loopback_has_no_program() {
        assert_eq!(attached(1).expect("lo is index 1"), []);
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        let error = attached(0x7fff_fffe).expect_err("nobody has that many");
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
