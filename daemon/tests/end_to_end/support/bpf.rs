//! Small BPF programs without a compiler: one that loses frames, and somebody else's XDP program.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use fourwave_bench::lab::Node;

/// A program on an interface, until this is dropped.
#[derive(Debug)]
pub struct Attached {
    _link: OwnedFd,
}

/// `bpf(2)` commands, program types and attach types (`linux/bpf.h`).
const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
const SCHED_CLS: u32 = 3;
const XDP: u32 = 6;
const AT_XDP: u32 = 37;
const AT_TCX_INGRESS: u32 = 46;
const AT_TCX_EGRESS: u32 = 47;

/// Loses one in `one_in` frames, at random, of those that come to the node's interface and of
/// those that leave it.
pub fn lose_frames(node: &Node, one_in: u32) -> io::Result<[Attached; 2]> {
    const GET_PRANDOM_U32: i32 = 7;
    const NEXT: i32 = -1;
    const DROP: i32 = 2;
    let program = load(
        SCHED_CLS,
        0,
        "fwe_lossy",
        &[
            instruction(0x85, 0, GET_PRANDOM_U32), // r0 = random()
            instruction(0x97, 0, one_in as i32),   // r0 %= one_in
            instruction(0x15, 2, 0),               // if r0 == 0 skip 2
            instruction(0xb7, 0, NEXT),            // r0 = TCX_NEXT
            instruction(0x95, 0, 0),               // return r0
            instruction(0xb7, 0, DROP),            // r0 = TCX_DROP
            instruction(0x95, 0, 0),               // return r0
        ],
    )?;
    Ok([attach(node, &program, AT_TCX_INGRESS)?, attach(node, &program, AT_TCX_EGRESS)?])
}

/// An XDP program that is not ours and lets everything pass, called `name`.
pub fn stranger(node: &Node, name: &str) -> io::Result<Attached> {
    const PASS: i32 = 2;
    let program = [instruction(0xb7, 0, PASS), instruction(0x95, 0, 0)];
    attach(node, &load(XDP, AT_XDP, name, &program)?, AT_XDP)
}

/// An instruction that has register 0 as its destination and no source.
fn instruction(code: u8, offset: i16, immediate: i32) -> u64 {
    u64::from(code) | u64::from(offset as u16) << 16 | u64::from(immediate as u32) << 32
}

/// The part of `union bpf_attr` for `BPF_PROG_LOAD` up to what we set.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// The same for `BPF_LINK_CREATE`, with room for what follows by attach type: all zero.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    by_type: [u64; 4],
}

fn load(prog_type: u32, attach_type: u32, name: &str, program: &[u64]) -> io::Result<OwnedFd> {
    let mut prog_name = [0; 16];
    prog_name[..name.len()].copy_from_slice(name.as_bytes());
    let attributes = ProgLoad {
        prog_type,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name,
        prog_ifindex: 0,
        expected_attach_type: attach_type,
    };
    bpf(PROG_LOAD, &attributes)
}

fn attach(node: &Node, program: &OwnedFd, attach_type: u32) -> io::Result<Attached> {
    let linked = node.run(|| {
        // The index is looked up in the namespace of the calling thread.
        let any = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::DGRAM,
            None,
        )?;
        let target_ifindex = rustix::net::netdevice::name_to_index(&any, node.interface())?;
        let prog_fd = program.as_raw_fd() as u32;
        let attributes =
            LinkCreate { prog_fd, target_ifindex, attach_type, flags: 0, by_type: [0; 4] };
        bpf(LINK_CREATE, &attributes)
    });
    let link = linked.map_err(io::Error::other)??;
    Ok(Attached { _link: link })
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: `attributes` is a prefix of `union bpf_attr` of the size given, which the kernel
    // only reads; the pointers in it lead to memory that outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes as *const T, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both commands return a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}
