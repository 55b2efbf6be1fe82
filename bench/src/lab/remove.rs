//! Taking a lab down: its own, another process's, or what a crashed one left.

use std::fs;
use std::io;
use std::time::Duration;

use super::config::LabConfig;
use super::error::LabError;
use super::netns::Netns;
use super::process;
use super::programs;
use super::state::{self, State};
use super::{Side, link};

/// How long a program may take to end in an orderly way. The daemon's `drain_timeout` fits in.
const GRACE: Duration = Duration::from_secs(10);

/// Removes lab `name` with everything in it. Returns whether there was something.
///
/// Should its notes be lost, the namespaces `NAME-srv` and `NAME-cli` are removed.
///
/// # Errors
/// [`LabError::InUse`] when a living process owns it; otherwise the first thing that could not be
/// removed, while the rest is removed all the same.
pub fn down(name: &str) -> Result<bool, LabError> {
    let _lock = state::lock()?;
    let by_name = || State::new(LabConfig::named(name).persistent());
    let state = State::load(name)?.unwrap_or_else(by_name);
    if let Some(owner) = state.owner.filter(process::ProcessRef::is_alive) {
        return Err(LabError::InUse { name: name.to_owned(), pid: owner.pid });
    }
    let config = &state.config;
    let was_there = state::folder(name).exists() || config.namespaces().any(Netns::exists);
    remove(&state)?;
    Ok(was_there)
}

/// Removes every lab whose owner has gone without removing it. Returns their names.
///
/// # Errors
/// The first thing that could not be removed.
pub fn remove_orphans() -> Result<Vec<String>, LabError> {
    let _lock = state::lock()?;
    let mut removed = Vec::new();
    for name in state::names()? {
        if let Some(state) = State::load(&name)?.filter(State::is_orphan) {
            remove(&state)?;
            removed.push(name);
        }
    }
    Ok(removed)
}

/// Removes what `state` describes, as far as it exists; goes on after a failure and returns the
/// first. The caller holds the lock.
pub(super) fn remove(state: &State) -> Result<(), LabError> {
    let mut first_error = None;
    let mut note = |result: Result<(), LabError>| {
        if let Err(error) = result {
            first_error.get_or_insert(error);
        }
    };
    // Newest first: servers before the daemon that they talk to.
    for recorded in state.processes.iter().rev() {
        note(recorded.process.stop(GRACE).map_err(|source| LabError::Stop {
            role: recorded.role.clone(),
            pid: recorded.process.pid,
            source,
        }));
    }
    for instance in &state.instances {
        note(programs::release(instance, namespace_of(&state.config, instance.side)));
    }
    let LabConfig { server, client, middle, .. } = &state.config;
    let ends =
        [server, client].map(|node| (&node.namespace, std::slice::from_ref(&node.interface)));
    let middle = middle.iter().map(|middle| (&middle.namespace, middle.interfaces.as_slice()));
    for (namespace, interfaces) in ends.into_iter().chain(middle) {
        match Netns::open(namespace) {
            Ok(netns) => {
                note(stop_inside(&netns));
                for interface in interfaces {
                    note(link::delete(&netns, interface));
                }
                note(Netns::delete(namespace).map_err(LabError::Namespace));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => note(Err(LabError::Namespace(error))),
        }
    }
    let folder = state::folder(&state.config.name);
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            note(Err(LabError::file(folder)(error)));
        }
        Ok(()) | Err(_) => {}
    }
    first_error.map_or(Ok(()), Err)
}

fn namespace_of(config: &LabConfig, side: Side) -> &str {
    match side {
        Side::Server => &config.server.namespace,
        Side::Client => &config.client.namespace,
    }
}

/// Ends whatever still runs in a namespace that goes.
fn stop_inside(netns: &Netns) -> Result<(), LabError> {
    let inode = netns.inode().map_err(LabError::Namespace)?;
    for process in process::inside(inode).map_err(LabError::file("/proc"))? {
        process.stop(GRACE).map_err(|source| LabError::Stop {
            role: format!("a program in {}", netns.name()),
            pid: process.pid,
            source,
        })?;
    }
    Ok(())
}
