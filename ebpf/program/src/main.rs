//! The XDP program: asks [`classify`] about each frame, counts the verdict and acts on it.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

use core::arch::asm;

use aya_ebpf::{
    bindings::{
        BPF_F_MMAPABLE, BPF_F_NO_PREALLOC,
        xdp_action::{XDP_DROP, XDP_PASS},
    },
    macros::{map, xdp},
    maps::{Array, HashMap, PerCpuArray, XskMap},
    programs::XdpContext,
};
use fourwave_ebpf_common::{Action, Admission, Config, Frame, PortKey, Ports, Verdict, classify};

// The sizes of XSKS, ADMISSION and PORTS are those of a small machine; the daemon sets them when it loads
// the object.
#[map]
static XSKS: XskMap = XskMap::with_max_entries(64, 0);

// Entries are allocated as they come, so that the map can be sized for the worst case.
#[map]
static PORTS: HashMap<PortKey, u32> = HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);

#[map]
static CONFIG: Array<Config> = Array::with_max_entries(1, 0);

#[map]
static STATS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Verdict::COUNT, 0);

#[map]
static ADMISSION: Array<Admission> = Array::with_max_entries(64, BPF_F_MMAPABLE);

/// The entry point; its name is how the daemon and `bpftool prog` know it.
#[xdp]
pub fn fourwave(ctx: XdpContext) -> u32 {
    let config = CONFIG.get(0).copied().unwrap_or_default();
    let verdict = classify(&Packet(&ctx), &ServedPorts, config);
    let (verdict, action) = match verdict.action() {
        Action::Pass => (verdict, XDP_PASS),
        Action::Drop => (verdict, XDP_DROP),
        Action::Steer if verdict == Verdict::SteerSyn && !is_admitted(ctx.rx_queue_index()) => {
            (Verdict::DropSyn, XDP_DROP)
        }
        // XDP_DROP when no socket is bound to this queue: the kernel would answer with a reset.
        Action::Steer => match XSKS.redirect(ctx.rx_queue_index(), u64::from(XDP_DROP)) {
            Ok(redirect) => (verdict, redirect),
            Err(_) => (Verdict::DropNoSocket, XDP_DROP),
        },
    };
    count(verdict);
    action
}

/// Whether the queue's worker has room for one more SYN, which is counted then.
#[inline(always)]
fn is_admitted(queue: u32) -> bool {
    let Some(admission) = ADMISSION.get_ptr_mut(queue) else { return true };
    // SAFETY: the pointer is that of the queue's entry in the map. Its numbers are aligned and are
    // read in one piece; as the program is compiled, for old kernels too, the target has no other
    // atomic load, and as atomic addition only this one. They say nothing about other memory.
    unsafe {
        let steered = &raw mut (*admission).steered;
        let limit = (&raw const (*admission).limit).read_volatile();
        if !Admission::has_room(steered.read_volatile(), limit) {
            return false;
        }
        asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) steered, in(reg) 1u64, options(nostack));
    }
    true
}

#[inline(always)]
fn count(verdict: Verdict) {
    if let Some(counter) = STATS.get_ptr_mut(verdict.index()) {
        // SAFETY: a non-null pointer into this CPU's copy of the array, which nothing else
        // writes: an XDP program is not interrupted by itself on its CPU.
        unsafe { *counter += 1 };
    }
}

/// The frame between `data` and `data_end`.
struct Packet<'a>(&'a XdpContext);

/// Offsets above it are refused, so that the verifier knows a bound for every read. More than
/// Ethernet, two tags, IPv6 and eight extension headers of full length can take.
const MAX_OFFSET: usize = 20_000;

impl Frame for Packet<'_> {
    #[inline(always)]
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        if at > MAX_OFFSET {
            return None;
        }
        let start = self.0.data() + at;
        if opaque(start + N) > self.0.data_end() {
            return None;
        }
        // SAFETY: start..start + N lies within the frame, as just checked; any bytes are a
        // valid `[u8; N]`, whose alignment is 1.
        Some(unsafe { *(start as *const [u8; N]) })
    }
}

/// The same number, but the compiler cannot know: it would turn `start + 1 > end` into
/// `start >= end`, from which the verifier learns nothing about `start`.
#[inline(always)]
fn opaque(mut number: usize) -> usize {
    // SAFETY: no instruction at all; the operand only has to be in a register.
    unsafe { asm!("/* {0} */", inout(reg) number, options(pure, nomem, nostack, preserves_flags)) };
    number
}

/// The map `PORTS`.
struct ServedPorts;

impl Ports for ServedPorts {
    #[inline(always)]
    fn contains(&self, key: &PortKey) -> bool {
        PORTS.get_ptr(key).is_some()
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// No helper that we call asks for a GPL-compatible licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 18] = *b"MIT OR Apache-2.0\0";
