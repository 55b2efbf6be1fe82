//! Which connections each process of a group holds, at one worker.
//!
//! A connection ends when the last process that holds it has closed it or is gone; FIN follows
//! then. Each process has a bit per connection, and each connection a count.

use fourwave_protocol::Process;
use fourwave_protocol::process::MAX_PROCESSES;

/// What one process holds.
#[derive(Debug)]
pub struct Holder {
    process: Process,
    bits: Box<[u64]>,
}

impl Holder {
    /// A process that holds nothing yet, in a group of `connections` connections per worker. To be
    /// made by the control thread, because it allocates.
    pub fn new(process: Process, connections: u32) -> Holder {
        Holder { process, bits: vec![0; connections.div_ceil(64) as usize].into_boxed_slice() }
    }

    /// Its name.
    pub fn process(&self) -> Process {
        self.process
    }

    fn has(&self, index: u32) -> bool {
        self.bits[index as usize / 64] & 1 << (index % 64) != 0
    }

    /// Adds a connection; `false` if it is held already.
    fn add(&mut self, index: u32) -> bool {
        let new = !self.has(index);
        self.bits[index as usize / 64] |= 1 << (index % 64);
        new
    }

    /// Takes a connection off; `false` if it is not held.
    pub(super) fn remove(&mut self, index: u32) -> bool {
        let held = self.has(index);
        self.bits[index as usize / 64] &= !(1 << (index % 64));
        held
    }

    /// The first connection at or after `from` that it holds.
    pub fn next(&self, from: u32) -> Option<u32> {
        let mut word = from as usize / 64;
        let mut bits = self.bits.get(word)? & !0 << (from % 64);
        while bits == 0 {
            word += 1;
            bits = *self.bits.get(word)?;
        }
        Some(word as u32 * 64 + bits.trailing_zeros())
    }
}

/// The processes of a group.
#[derive(Debug)]
pub(super) struct Holders(Box<[Option<Box<Holder>>]>);

impl Holders {
    pub(super) fn new() -> Holders {
        Holders((0..MAX_PROCESSES).map(|_| None).collect())
    }

    /// Takes a process in. It holds what `parent`, if there is one, holds: `each` is called for
    /// these connections.
    pub(super) fn add(
        &mut self,
        mut holder: Box<Holder>,
        parent: Option<Process>,
        mut each: impl FnMut(u32),
    ) {
        if let Some(parent) = parent.and_then(|parent| self.get(parent)) {
            holder.bits.copy_from_slice(&parent.bits);
            let mut next = 0;
            while let Some(index) = holder.next(next) {
                each(index);
                next = index + 1;
            }
        }
        let slot = holder.process.slot();
        self.0[slot] = Some(holder);
    }

    /// A process is gone: what it held until then.
    pub(super) fn remove(&mut self, process: Process) -> Option<Box<Holder>> {
        self.0[process.slot()].take_if(|holder| holder.process == process)
    }

    fn get(&self, process: Process) -> Option<&Holder> {
        self.0[process.slot()].as_deref().filter(|holder| holder.process == process)
    }

    fn get_mut(&mut self, process: Process) -> Option<&mut Holder> {
        self.0[process.slot()].as_deref_mut().filter(|holder| holder.process == process)
    }

    /// A process holds a connection from now on; `false` if it did or is gone.
    pub(super) fn hold(&mut self, process: Process, index: u32) -> bool {
        self.get_mut(process).is_some_and(|holder| holder.add(index))
    }

    /// Whether a process holds a connection.
    pub(super) fn holds(&self, process: Process, index: u32) -> bool {
        self.get(process).is_some_and(|holder| holder.has(index))
    }

    /// A process no longer holds a connection; `false` if it did not.
    pub(super) fn release(&mut self, process: Process, index: u32) -> bool {
        self.get_mut(process).is_some_and(|holder| holder.remove(index))
    }

    /// Of the processes that hold a connection, the one that was named last.
    pub(super) fn holder_of(&self, index: u32) -> Option<Process> {
        let holders = self.0.iter().flatten().filter(|holder| holder.has(index));
        holders.map(|holder| holder.process).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_holds_what_its_parent_holds() {
        let (parent, child) = (Process::FIRST, Process::first(1));
        let mut holders = Holders::new();
        holders.add(Box::new(Holder::new(parent, 200)), None, |_| panic!("nobody to copy"));
        for index in [0, 63, 64, 199] {
            assert!(holders.hold(parent, index));
            assert!(!holders.hold(parent, index), "once");
        }
        let mut copied = Vec::new();
        let new = Box::new(Holder::new(child, 200));
        holders.add(new, Some(parent), |index| copied.push(index));
        assert_eq!(copied, [0, 63, 64, 199]);
        assert!(holders.release(parent, 63) && !holders.release(parent, 63));
        assert_eq!((holders.holder_of(63), holders.holder_of(1)), (Some(child), None));
        let left = holders.remove(child).unwrap();
        assert_eq!((left.next(1), left.next(65), left.next(200)), (Some(63), Some(199), None));
        assert!(!holders.hold(child, 5), "it is gone");
    }

    #[test]
    fn a_name_is_good_for_one_process() {
        let mut holders = Holders::new();
        holders.add(Box::new(Holder::new(Process::FIRST, 1)), None, |_| ());
        let other = Process::FIRST.next();
        assert!(!holders.hold(other, 0) && holders.remove(other).is_none());
        assert!(holders.hold(Process::FIRST, 0));
    }
}
