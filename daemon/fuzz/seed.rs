//! Writes a first corpus for the target that is its first argument into the folder that is its
//! second: frames that fourwave builds, option lists of every kind, and random choices.

use std::path::Path;
use std::{env, fs, io};

use fourwave_wire::{
    Addr, Endpoint, Flags, FourTuple, FrameHead, Link, Mac, Options, SackBlock, Tag, Timestamps,
    build,
};

fn main() -> io::Result<()> {
    let mut arguments = env::args_os().skip(1);
    let target = arguments.next().ok_or(io::ErrorKind::InvalidInput)?;
    let folder = arguments.next().ok_or(io::ErrorKind::InvalidInput)?;
    let samples = match target.to_str() {
        Some("frame") => frames(),
        Some("options") => options().iter().map(|options| bytes_of(*options)).collect(),
        Some("connection" | "port" | "shard") => choices(),
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    for (number, sample) in samples.iter().enumerate() {
        fs::write(Path::new(&folder).join(format!("seed-{number}")), sample)?;
    }
    Ok(())
}

fn options() -> Vec<Options> {
    let timestamps = Some(Timestamps { value: 1, echo: 2 });
    let mut sack = Options { timestamps, ..Options::default() };
    sack.sack.push(SackBlock { left: 5, right: 9 });
    let syn = Options {
        mss: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps,
        ..Options::default()
    };
    vec![Options::default(), Options { timestamps, ..Options::default() }, sack, syn]
}

fn frames() -> Vec<Vec<u8>> {
    let v4 = |last| Endpoint { addr: Addr::from_v4([10, 0, 0, last]), port: 80 };
    let v6 = |last| {
        let mut bytes = [0xfd; 16];
        bytes[15] = last;
        Endpoint { addr: Addr(bytes), port: 80 }
    };
    let mut frames = Vec::new();
    for options in options() {
        for (local, remote) in [(v4(1), v4(2)), (v6(1), v6(2))] {
            for vlan_count in 0..3 {
                let tag = Tag { protocol: 0x8100, control: 7 };
                let link = Link::new(Mac([2; 6]), Mac([4; 6]));
                let link = Link { vlan: [tag; 2], vlan_count, ..link };
                let tuple = FourTuple { local, remote };
                frames.push(frame(&FrameHead { link, tuple, options, ..FrameHead::default() }));
            }
        }
    }
    frames
}

fn frame(head: &FrameHead) -> Vec<u8> {
    let mut out = vec![0; 200];
    let head = FrameHead { ttl: 64, flags: Flags::ACK, ..*head };
    let len = build(&mut out, &head, 3, |room| room.copy_from_slice(b"abc")).expect("it fits");
    out.truncate(len);
    out
}

/// The options of a frame, alone.
fn bytes_of(options: Options) -> Vec<u8> {
    let end = |last| Endpoint { addr: Addr::from_v4([10, 0, 0, last]), port: 80 };
    let tuple = FourTuple { local: end(1), remote: end(2) };
    let whole = frame(&FrameHead { tuple, options, ..FrameHead::default() });
    whole[14 + 20 + 20..whole.len() - 3].to_vec()
}

fn choices() -> Vec<Vec<u8>> {
    let mut state = 1u64;
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..40).map(|_| (0..800).map(|_| byte()).collect()).collect()
}
