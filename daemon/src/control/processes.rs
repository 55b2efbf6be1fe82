//! The processes of a group: how they come, and what each leaves when it goes.

use super::Mask;
use super::packets::Peer;
use super::refusal::{Denied, Refusal};
use super::registry::{Registry, no_group};
use crate::messages::{GroupId, ToWorker};
use crate::port::Holder;
use crate::served::Claimant;
use fourwave_protocol::Process;
use fourwave_protocol::process::MAX_PROCESSES;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::rc::Rc;
use tokio::sync::{Notify, oneshot};

/// A process of a group.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) peer: Peer,
    /// Told when it is to be disconnected.
    pub(super) evict: Rc<Notify>,
    /// Its parent waits until every worker knows it.
    arriving: Option<(Mask, oneshot::Sender<()>)>,
    /// It is gone; these workers have nothing of it left.
    gone: Option<Mask>,
}

/// All processes of a group, those included of which something is left.
#[derive(Debug, Default)]
pub(super) struct Members {
    by_name: BTreeMap<Process, Member>,
    /// By slot: the name that was given last.
    last: BTreeMap<usize, Process>,
}

impl Members {
    /// A name for one more process; `None` when there are as many as can be.
    fn name(&mut self) -> Option<Process> {
        let used = |slot| self.by_name.keys().any(|process| process.slot() == slot);
        let slot = (0..MAX_PROCESSES).find(|&slot| !used(slot))?;
        let name = self.last.get(&slot).map_or(Process::first(slot), |last| last.next());
        self.last.insert(slot, name);
        Some(name)
    }

    /// Takes a process in. Its name, and what is told when it is to be disconnected.
    pub(super) fn add(&mut self, peer: Peer) -> Option<(Process, Rc<Notify>)> {
        let name = self.name()?;
        let evict = Rc::new(Notify::new());
        let member = Member { peer, evict: Rc::clone(&evict), arriving: None, gone: None };
        self.by_name.insert(name, member);
        Some((name, evict))
    }

    /// Those that are there.
    pub(super) fn live(&self) -> impl Iterator<Item = (Process, &Member)> {
        let live = self.by_name.iter().filter(|(_, member)| member.gone.is_none());
        live.map(|(&name, member)| (name, member))
    }

    /// A process that is there.
    pub(super) fn get(&mut self, process: Process) -> Option<&mut Member> {
        self.by_name.get_mut(&process).filter(|member| member.gone.is_none())
    }
}

/// What a parent gets for its fork.
#[derive(Debug)]
pub(super) struct Forked {
    pub(super) process: Process,
    /// Told when the new process is to be disconnected.
    pub(super) evict: Rc<Notify>,
    /// Comes when every worker knows the new process.
    pub(super) known: oneshot::Receiver<()>,
}

impl Registry {
    /// A process of a group is about to fork.
    pub(super) fn fork(&mut self, group: GroupId, parent: Process) -> Result<Forked, Refusal> {
        let record = self.groups.get_mut(&group).ok_or_else(no_group)?;
        let peer = record.members.get(parent).ok_or_else(no_group)?.peer;
        let Some((process, evict)) = record.members.add(peer) else {
            let detail = format!("this program has {MAX_PROCESSES} processes already");
            return Err(Refusal::denied(Denied::Processes, Errno::AGAIN, detail));
        };
        let (told, known) = oneshot::channel();
        if let Some(member) = record.members.get(process) {
            member.arriving = Some((Mask::default(), told));
        }
        record.listeners.share(parent, process);
        let connections = record.segment.layout().params().connections;
        self.outboxes.broadcast(|_| {
            let child = Box::new(Holder::new(process, connections));
            ToWorker::Fork { group, parent, child }
        });
        Ok(Forked { process, evict, known })
    }

    /// A worker knows a new process.
    pub(super) fn forked(&mut self, group: GroupId, process: Process, worker: u32) {
        let workers = self.workers;
        let record = self.groups.get_mut(&group);
        let Some(member) = record.and_then(|record| record.members.get(process)) else { return };
        if let Some((mask, _)) = &mut member.arriving {
            mask.add(worker);
            if mask.has_all(workers)
                && let Some((_, told)) = member.arriving.take()
            {
                // The parent may be gone.
                let _ = told.send(());
            }
        }
    }

    /// A process says who it is; its words are checked by the kernel.
    pub(super) fn identify(&mut self, group: GroupId, process: Process, peer: Peer) {
        let record = self.groups.get_mut(&group);
        if let Some(member) = record.and_then(|record| record.members.get(process)) {
            member.peer = peer;
        }
    }

    /// A process is gone, or must go. With the last one the group is [removed](Self::remove);
    /// what only this one held ends. The group that keeps its listeners, if one does, is to be
    /// removed after `accept_grace`.
    pub(super) fn remove_process(&mut self, group: GroupId, process: Process) -> Option<GroupId> {
        let record = self.groups.get_mut(&group)?;
        let member = record.members.get(process)?;
        let peer = member.peer;
        member.gone = Some(Mask::default());
        member.arriving = None;
        if record.members.live().next().is_none() {
            return self.remove(group);
        }
        tracing::debug!(group = group.0, pid = peer.pid, "a process of a client is gone");
        let lanes = record.lanes.detach_all(process);
        let mine = record.listeners.let_go_all(process);
        let former =
            mine.iter().filter_map(|&index| Some((index, record.listeners.former(index)?)));
        let former = former.collect();
        for lane in lanes {
            self.outboxes.broadcast(|_| ToWorker::RemoveLane { group, lane });
        }
        self.outboxes.broadcast(|_| ToWorker::RemoveProcess { group, process });
        let keeper = self.keep(group, former);
        for listener in mine {
            self.ports.leave(Claimant { group, listener });
            let Some(record) = self.groups.get_mut(&group) else { break };
            if let Ok(step) = record.listeners.close(listener, None) {
                self.take(step, group, listener, keeper);
            }
        }
        keeper
    }

    /// A worker has nothing of a process left.
    pub(super) fn process_removed(&mut self, group: GroupId, process: Process, worker: u32) {
        let workers = self.workers;
        let Some(record) = self.groups.get_mut(&group) else { return };
        let members = &mut record.members.by_name;
        if let Some(Member { gone: Some(mask), .. }) = members.get_mut(&process) {
            mask.add(worker);
            if mask.has_all(workers) {
                members.remove(&process);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_not_used_again() {
        let mut members = Members::default();
        let peer = Peer { pid: 1, uid: 0 };
        let (first, _) = members.add(peer).unwrap();
        assert_eq!(first, Process::FIRST);
        let (second, _) = members.add(peer).unwrap();
        assert_eq!(second, Process::first(1));
        members.by_name.remove(&second);
        assert_eq!(members.add(peer).unwrap().0, second.next());
        for _ in 2..MAX_PROCESSES {
            members.add(peer).unwrap();
        }
        assert!(members.add(peer).is_none());
    }
}
