//! The lanes of a group: which are in use, and which workers still have a hand on them.

use super::Mask;
use fourwave_protocol::{Process, Segment};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    Free,
    Attached(Process),
    /// These workers have let go of it.
    Detaching(Mask),
    /// Its rings could not be cleared: never used again.
    Broken,
}

/// All lanes of a segment.
#[derive(Debug)]
pub(super) struct Lanes(Vec<Lane>);

impl Lanes {
    pub(super) fn new(count: u32) -> Lanes {
        Lanes(vec![Lane::Free; count as usize])
    }

    /// Takes a lane for a process, the first that is free.
    pub(super) fn attach(&mut self, process: Process) -> Option<u16> {
        let index = self.0.iter().position(|lane| *lane == Lane::Free)?;
        self.0[index] = Lane::Attached(process);
        u16::try_from(index).ok()
    }

    /// Whether most of them are free.
    pub(super) fn are_many_left(&self) -> bool {
        let free = self.0.iter().filter(|lane| **lane == Lane::Free).count();
        free > self.0.len() / 2
    }

    /// Begins to give a lane of a process back; `false` if it has no such lane.
    pub(super) fn detach(&mut self, lane: u16, process: Process) -> bool {
        match self.0.get_mut(usize::from(lane)) {
            Some(state) if *state == Lane::Attached(process) => {
                *state = Lane::Detaching(Mask::default());
                true
            }
            Some(_) | None => false,
        }
    }

    /// Begins to give all lanes of a process back: which those are.
    pub(super) fn detach_all(&mut self, process: Process) -> Vec<u16> {
        (0..self.0.len() as u16).filter(|&lane| self.detach(lane, process)).collect()
    }

    /// A worker has let go of a lane. After the last one it is cleared and free.
    pub(super) fn removed(&mut self, lane: u16, worker: u32, workers: u32, segment: &Segment) {
        let Some(state) = self.0.get_mut(usize::from(lane)) else { return };
        let Lane::Detaching(mask) = state else { return };
        mask.add(worker);
        if !mask.has_all(workers) {
            return;
        }
        let cleared = (0..workers).try_for_each(|worker| segment.clear_rings(lane, worker));
        segment.lane_sleeper(lane).awake();
        (0..segment.layout().params().listeners).for_each(|at| segment.listener(at).unwait(lane));
        *state = match cleared {
            Ok(()) => Lane::Free,
            Err(error) => {
                tracing::error!(%error, lane, "a lane cannot be cleared and stays out of use");
                Lane::Broken
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fourwave_protocol::Params;

    #[test]
    fn a_lane_is_free_again_after_the_last_worker() {
        let params = Params { lanes: 2, ..Params::for_quota(2, 8, 0, 0) };
        let (segment, _fd) = Segment::create("test", params).unwrap();
        let mut lanes = Lanes::new(2);
        let one = Process::FIRST;
        let all = [(); 3].map(|()| lanes.attach(one));
        assert_eq!(all, [Some(0), Some(1), None]);
        assert!(!lanes.detach(0, Process::first(1)), "another's");
        assert!(lanes.detach(0, one));
        for wrong in [0, 2, u16::MAX] {
            assert!(!lanes.detach(wrong, one), "{wrong}");
        }
        lanes.removed(0, 1, 2, &segment);
        lanes.removed(0, 1, 2, &segment);
        lanes.removed(1, 0, 2, &segment);
        assert_eq!(lanes.attach(one), None);
        segment.lane_sleeper(0).prepare();
        segment.listener(0).wait(0);
        lanes.removed(0, 0, 2, &segment);
        assert_eq!(lanes.attach(one), Some(0));
        assert!(!segment.listener(0).is_waiting(0));
        assert_eq!(lanes.detach_all(one), [0, 1]);
        assert!(!segment.lane_sleeper(0).is_sleeping());
    }
}
