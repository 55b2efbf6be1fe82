//! Who holds each payload extent of a group's share at this worker.

use super::Evict;
use fourwave_protocol::ExtentId;

/// What an extent is used for. Eight bytes each; the free list runs through the free ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Free { next: u32 },
    Granted { lane: u16 },
    Sending,
    Receiving,
}

const END: u32 = u32::MAX;

/// The extents of one group at one worker.
///
/// Neither direction can take all: what an application has read it can only pass on if it may
/// write, and it can only hear of an acknowledgement's consequences if it may read. And bytes
/// beyond a gap leave room for those that fill it.
#[derive(Debug)]
pub(super) struct ExtentPool {
    /// Index in the segment of our first extent.
    base: u32,
    uses: Vec<Use>,
    free: u32,
    free_count: u32,
    receiving: u32,
    limits: Limits,
}

/// Extents that may be in use at a time.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Granted or sending.
    outgoing: u32,
    /// Receiving, when bytes come that are next in order.
    in_order: u32,
    /// Receiving, when bytes come that lie ahead.
    ahead: u32,
}

impl ExtentPool {
    /// `count` free extents, the first with index `base` in the segment.
    pub(super) fn new(base: u32, count: u32) -> ExtentPool {
        let uses =
            (1..=count).map(|next| Use::Free { next: if next == count { END } else { next } });
        let most = count - count / 4;
        let limits = Limits { outgoing: most, in_order: most, ahead: count / 2 };
        ExtentPool { base, uses: uses.collect(), free: 0, free_count: count, receiving: 0, limits }
    }

    /// Whether every extent is free.
    pub(super) fn is_whole(&self) -> bool {
        self.free_count as usize == self.uses.len()
    }

    /// An extent for received bytes: the ones that are next in order, or others.
    pub(super) fn take_for_receive(&mut self, next: bool) -> Option<ExtentId> {
        let limit = if next { self.limits.in_order } else { self.limits.ahead };
        if self.receiving >= limit {
            return None;
        }
        let extent = self.take(Use::Receiving)?;
        self.receiving += 1;
        Some(extent)
    }

    /// An extent that a lane may fill with bytes to send.
    pub(super) fn grant(&mut self, lane: u16) -> Option<ExtentId> {
        let outgoing = self.uses.len() as u32 - self.free_count - self.receiving;
        if outgoing >= self.limits.outgoing {
            return None;
        }
        self.take(Use::Granted { lane })
    }

    fn take(&mut self, purpose: Use) -> Option<ExtentId> {
        let index = self.free;
        match self.uses.get(index as usize) {
            Some(&Use::Free { next }) => self.free = next,
            Some(Use::Granted { .. } | Use::Sending | Use::Receiving) => {
                unreachable!("an extent in use is on the free list")
            }
            None => return None,
        }
        self.free_count -= 1;
        self.uses[index as usize] = purpose;
        Some(ExtentId::from_index(self.base + index))
    }

    /// A client says that it filled `extent`. Returns the lane that it had been granted to.
    pub(super) fn claim_for_send(&mut self, extent: ExtentId) -> Result<u16, Evict> {
        let index = extent.index().wrapping_sub(self.base) as usize;
        match self.uses.get(index) {
            Some(&Use::Granted { lane }) => {
                self.uses[index] = Use::Sending;
                Ok(lane)
            }
            Some(Use::Free { .. } | Use::Sending | Use::Receiving) | None => Err(Evict::SendExtent),
        }
    }

    /// An extent that we took ourselves, or claimed, is free again.
    pub(super) fn release(&mut self, extent: ExtentId) {
        let index = extent.index() - self.base;
        let slot = &mut self.uses[index as usize];
        match slot {
            Use::Free { .. } => unreachable!("extent released twice"),
            Use::Receiving => self.receiving -= 1,
            Use::Granted { .. } | Use::Sending => {}
        }
        *slot = Use::Free { next: self.free };
        self.free = index;
        self.free_count += 1;
    }

    /// Takes back what was granted to a lane that is gone, or to all lanes.
    pub(super) fn revoke(&mut self, gone: Option<u16>) {
        for index in 0..self.uses.len() as u32 {
            if let Use::Granted { lane } = self.uses[index as usize]
                && gone.is_none_or(|gone| gone == lane)
            {
                self.release(ExtentId::from_index(self.base + index));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extent_goes_round() {
        let mut pool = ExtentPool::new(100, 2);
        let a = pool.grant(7).unwrap();
        let b = pool.take_for_receive(true).unwrap();
        assert_eq!(pool.grant(7), None);
        assert_eq!(pool.claim_for_send(a), Ok(7));
        assert_eq!(pool.claim_for_send(a), Err(Evict::SendExtent), "claimed already");
        assert_eq!(pool.claim_for_send(b), Err(Evict::SendExtent), "never granted");
        pool.release(a);
        pool.release(b);
        assert!(pool.is_whole());
    }

    #[test]
    fn each_use_leaves_room_for_the_others() {
        let count = |take: &mut dyn FnMut() -> bool| {
            std::iter::repeat_with(take).take_while(|&t| t).count()
        };
        let mut pool = ExtentPool::new(0, 16);
        assert_eq!(count(&mut || pool.take_for_receive(false).is_some()), 8);
        assert_eq!(count(&mut || pool.take_for_receive(true).is_some()), 4);
        assert_eq!(count(&mut || pool.grant(1).is_some()), 4);
        let mut pool = ExtentPool::new(0, 16);
        assert_eq!(count(&mut || pool.grant(1).is_some()), 12);
        assert_eq!(count(&mut || pool.take_for_receive(false).is_some()), 4);
        pool.revoke(None);
        assert_eq!(count(&mut || pool.take_for_receive(true).is_some()), 8);
    }

    #[test]
    fn a_foreign_extent_is_refused() {
        let mut pool = ExtentPool::new(100, 2);
        for index in [0, 99, 102, u32::MAX - 1] {
            let extent = ExtentId::from_index(index);
            assert_eq!(pool.claim_for_send(extent), Err(Evict::SendExtent));
        }
    }

    #[test]
    fn a_gone_lane_gives_its_grants_back() {
        let mut pool = ExtentPool::new(0, 4);
        pool.grant(1).unwrap();
        pool.grant(2).unwrap();
        pool.revoke(Some(1));
        assert_eq!(pool.free_count, 3);
        pool.revoke(None);
        assert!(pool.is_whole());
    }
}
