//! The lanes of a group: which are in use, and which workers still have a hand on them.

use super::Mask;
use fourwave_protocol::Segment;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    Free,
    Attached,
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

    /// Takes a lane, the first that is free.
    pub(super) fn attach(&mut self) -> Option<u16> {
        let index = self.0.iter().position(|lane| *lane == Lane::Free)?;
        self.0[index] = Lane::Attached;
        u16::try_from(index).ok()
    }

    /// Begins to give a lane back; `false` if it is not attached.
    pub(super) fn detach(&mut self, lane: u16) -> bool {
        match self.0.get_mut(usize::from(lane)) {
            Some(state @ Lane::Attached) => {
                *state = Lane::Detaching(Mask::default());
                true
            }
            Some(Lane::Free | Lane::Detaching(_) | Lane::Broken) | None => false,
        }
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
        assert_eq!((lanes.attach(), lanes.attach(), lanes.attach()), (Some(0), Some(1), None));
        assert!(lanes.detach(0));
        for wrong in [0, 2, u16::MAX] {
            assert!(!lanes.detach(wrong), "{wrong}");
        }
        lanes.removed(0, 1, 2, &segment);
        lanes.removed(0, 1, 2, &segment);
        lanes.removed(1, 0, 2, &segment);
        assert_eq!(lanes.attach(), None);
        segment.lane_sleeper(0).prepare();
        lanes.removed(0, 0, 2, &segment);
        assert_eq!(lanes.attach(), Some(0));
        assert!(!segment.lane_sleeper(0).is_sleeping());
    }
}
