//! What open, idle connections take of the memory.

use std::thread;

use super::Scope;
use super::bed::{Bed, Io, Placement, Server, ServerSpec, Subject};
use super::measure::{Bench, Load, Workload};
use super::report::Memory;
use crate::compare::CompareError;
use crate::load::Via;
use crate::machine;

/// The kernel's objects of a connection: socket, its inode, file and directory entry, and what
/// epoll keeps of it.
const SLABS: [&str; 7] = [
    "TCP",
    "sock_inode_cache",
    "filp",
    "eventpoll_epi",
    "eventpoll_pwq",
    "request_sock_TCP",
    "dentry",
];

/// Connections that come before those that are counted.
const WARM_UP: u64 = 500;

/// Files that a server needs besides its connections, and some more.
const OTHER_FILES: u64 = 1000;

/// Opens many connections to a server of each bed and looks how memory grows.
pub(super) fn measure(bench: &Bench<'_>, beds: [&mut Bed; 2]) -> Result<Vec<Memory>, CompareError> {
    let connections = if bench.config.scope == Scope::Quick { 1000 } else { per_keeper(20_000) };
    let mut found = Vec::new();
    for bed in beds {
        bench.progress.step(&format!("{connections} idle connections, {}", bed.subject().name()));
        let server = bed.serve(&keeper(bench, bed.subject()))?;
        // What the first connections touch is not theirs alone.
        hold(bench, bed, &server, WARM_UP)?;
        let before = bytes(bed, &server)?;
        hold(bench, bed, &server, connections)?;
        let grown = bytes(bed, &server)?.saturating_sub(before);
        bed.stop(&server)?;
        found.push(Memory {
            server: bed.subject().name(),
            connections,
            bytes_per_connection: grown as f64 / connections as f64,
            counted: match bed.subject() {
                Subject::Kernel => "slab objects of sockets, inodes, files and epoll; the process",
                Subject::Fourwave | Subject::Limit => "resident memory of daemon and process",
            },
        });
    }
    Ok(found)
}

/// As many connections as one process may hold on kernel sockets, but no more than `wanted`.
pub(super) fn per_keeper(wanted: u64) -> u64 {
    wanted.min(machine::open_files_limit().saturating_sub(OTHER_FILES).max(1))
}

/// A server that leaves closing to its clients. On kernel sockets with epoll: it holds no buffer for
/// a connection that is idle.
pub(super) fn keeper(bench: &Bench<'_>, subject: Subject) -> ServerSpec {
    let io = match subject {
        Subject::Kernel => Io::Epoll,
        Subject::Fourwave | Subject::Limit => Io::Library,
    };
    let cpus = vec![bench.config.server_cpu];
    ServerSpec { io, defer_accept: false, cpus, size: 0, listeners: 1 }
}

/// Opens connections and leaves them open.
pub(super) fn hold(
    bench: &Bench<'_>,
    bed: &mut Bed,
    server: &Server,
    connections: u64,
) -> Result<(), CompareError> {
    let load = Load {
        via: Via::Xdp,
        placement: Placement::ServerBound,
        workload: Workload::Hold { connections },
        length: bench.config.length,
        coalesce: std::time::Duration::ZERO,
    };
    let sample = bench.sample(bed, Some(server), &load)?;
    if sample.report.completed < connections {
        let reasons = format!("{:?}", sample.report.errors);
        let error = std::io::Error::other(format!("not all could be opened: {reasons}"));
        return Err(CompareError::io("idle connections")(error));
    }
    // The server accepts the last of them.
    thread::sleep(bench.config.trial);
    Ok(())
}

fn bytes(bed: &Bed, server: &Server) -> Result<u64, CompareError> {
    let mut total = 0;
    for pid in bed.processes(Some(server)) {
        total += machine::proportional_bytes_of(pid).map_err(CompareError::io("smaps_rollup"))?;
    }
    if bed.subject() == Subject::Kernel {
        total += machine::slab_bytes(&SLABS).map_err(CompareError::io("slabinfo"))?;
    }
    Ok(total)
}
