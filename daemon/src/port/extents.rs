//! Who holds each payload extent of a group's share at this worker.

use super::Evict;
use fourwave_protocol::ExtentId;

/// What an extent is used for. Eight bytes each; the free list runs through the free ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Free { next: u32 },
    Granted { lane: u16 },
    Sending { next: Option<ExtentId> },
    Receiving,
}

const END: u32 = u32::MAX;

/// The extents of one group at one worker.
///
/// Neither direction can take all: what an application has read it can only pass on if it may
/// write, and it can only hear of an acknowledgement's consequences if it may read. And bytes
/// beyond a gap leave room for those that fill it.
///
/// The receive windows that all connections begin with are more than there is, if all were filled:
/// what finds no extent is dropped and comes again. What a window grows beyond that is promised: so
/// many extents are kept free for it until they are taken or the promise is.
#[derive(Debug)]
pub(super) struct ExtentPool {
    /// Index in the segment of our first extent.
    base: u32,
    uses: Vec<Use>,
    free: u32,
    free_count: u32,
    receiving: u32,
    /// Granted to lanes that have not used them yet.
    granted: u32,
    /// Free extents that are kept for windows that have grown.
    promised: u32,
    /// What has been promised, taken by now or not.
    backed: u32,
    limits: Limits,
}

/// Extents that may be in use at a time.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Granted or sending.
    outgoing: u32,
    /// Granted or sending, where a lane gets one without having asked: who asks cannot go on.
    unasked: u32,
    /// Granted and not used, where a lane gets one without having asked. An application has as many
    /// lanes as threads, and most of them may never write again.
    stocked: u32,
    /// Receiving or promised, when bytes come that are next in order.
    in_order: u32,
    /// Receiving or promised, when bytes come that lie ahead.
    ahead: u32,
    /// Promised to windows that have grown.
    backed: u32,
}

impl ExtentPool {
    /// `count` free extents, the first with index `base` in the segment.
    pub(super) fn new(base: u32, count: u32) -> ExtentPool {
        let uses =
            (1..=count).map(|next| Use::Free { next: if next == count { END } else { next } });
        let most = count - count / 4;
        let limits = Limits {
            outgoing: most,
            unasked: count / 2,
            stocked: count / 4,
            in_order: most,
            ahead: count / 2,
            backed: count / 4,
        };
        ExtentPool {
            base,
            uses: uses.collect(),
            free: 0,
            free_count: count,
            receiving: 0,
            granted: 0,
            promised: 0,
            backed: 0,
            limits,
        }
    }

    /// Whether every extent is free.
    pub(super) fn is_whole(&self) -> bool {
        self.free_count as usize == self.uses.len() && self.promised == 0 && self.backed == 0
    }

    /// An extent for received bytes: the ones that are next in order, or others.
    pub(super) fn take_for_receive(&mut self, next: bool) -> Option<ExtentId> {
        let limit = if next { self.limits.in_order } else { self.limits.ahead };
        if self.receiving + self.promised >= limit || self.free_count <= self.promised {
            return None;
        }
        self.receiving += 1;
        self.take(Use::Receiving)
    }

    /// An extent for received bytes that was promised.
    pub(super) fn take_promised(&mut self) -> ExtentId {
        assert!(self.promised > 0, "an extent taken twice by one promise");
        self.promised -= 1;
        self.receiving += 1;
        self.take(Use::Receiving).expect("promised extents are free")
    }

    /// An extent that was taken by a promise, or in place of one, is promised again.
    pub(super) fn release_promised(&mut self, extent: ExtentId) {
        self.release(extent);
        self.promised += 1;
    }

    /// Most extents that may be promised to a connection which has `own` promised. Half of what
    /// the others leave: so there is always something left for one more.
    pub(super) fn share(&self, own: u32) -> u32 {
        let left = self.limits.backed - (self.backed - own);
        let room = self.limits.in_order.saturating_sub(self.receiving + self.promised);
        let free = self.free_count - self.promised;
        (left / 2).min(own + room.min(free))
    }

    /// A connection that had `old` extents promised gets `new`, as [`share`](Self::share) allows.
    /// It holds `taken` in place of promised ones.
    pub(super) fn promise(&mut self, old: u32, new: u32, taken: u32) {
        self.backed = self.backed - old + new;
        self.promised = self.promised - old.saturating_sub(taken) + new.saturating_sub(taken);
        assert!(self.promised <= self.free_count, "promised more than there is");
    }

    /// Most extents of sent bytes that a connection which has `own` may have: half of what is left
    /// besides, so that none takes all.
    pub(super) fn send_share(&self, own: u32) -> u32 {
        let room = self.limits.outgoing.saturating_sub(self.outgoing());
        own + room.min(self.free_count - self.promised) / 2
    }

    /// Granted or sending.
    fn outgoing(&self) -> u32 {
        self.uses.len() as u32 - self.free_count - self.receiving
    }

    /// How many extents a lane may be granted, of `wanted`. One that has asked, because it has none
    /// left, gets a quarter of what there is, so that something is left for the next; the last ones
    /// go one at a time, each to be used at once.
    pub(super) fn grant_share(&self, wanted: u32, asked: bool) -> u32 {
        let outgoing = self.outgoing();
        let free = self.free_count - self.promised;
        let stocked = self.limits.stocked.saturating_sub(self.granted);
        let unasked = self.limits.unasked.saturating_sub(outgoing).min(stocked).min(free);
        let room = match asked {
            true => {
                let left = self.limits.outgoing.saturating_sub(outgoing).min(free);
                unasked.max(left / 4).max(1).min(left)
            }
            false => unasked,
        };
        wanted.min(room)
    }

    /// An extent that a lane may fill with bytes to send, as [`grant_share`](Self::grant_share)
    /// allows.
    pub(super) fn grant(&mut self, lane: u16) -> Option<ExtentId> {
        if self.outgoing() >= self.limits.outgoing || self.free_count <= self.promised {
            return None;
        }
        let extent = self.take(Use::Granted { lane })?;
        self.granted += 1;
        Some(extent)
    }

    fn take(&mut self, purpose: Use) -> Option<ExtentId> {
        let index = self.free;
        match self.uses.get(index as usize) {
            Some(&Use::Free { next }) => self.free = next,
            Some(Use::Granted { .. } | Use::Sending { .. } | Use::Receiving) => {
                unreachable!("an extent in use is on the free list")
            }
            None => return None,
        }
        self.free_count -= 1;
        self.uses[index as usize] = purpose;
        Some(ExtentId::from_index(self.base + index))
    }

    /// A client says that it filled `extent`, which precedes `next`. Returns the lane that it had
    /// been granted to.
    pub(super) fn claim_for_send(
        &mut self,
        extent: ExtentId,
        next: Option<ExtentId>,
    ) -> Result<u16, Evict> {
        let index = extent.index().wrapping_sub(self.base) as usize;
        match self.uses.get(index) {
            Some(&Use::Granted { lane }) => {
                self.uses[index] = Use::Sending { next };
                self.granted -= 1;
                Ok(lane)
            }
            Some(Use::Free { .. } | Use::Sending { .. } | Use::Receiving) | None => {
                Err(Evict::SendExtent)
            }
        }
    }

    /// What follows a claimed extent.
    pub(super) fn next(&self, extent: ExtentId) -> Option<ExtentId> {
        match self.uses[(extent.index() - self.base) as usize] {
            Use::Sending { next } => next,
            Use::Free { .. } | Use::Granted { .. } | Use::Receiving => {
                unreachable!("not an extent of a send stream")
            }
        }
    }

    /// `next` follows a claimed extent.
    pub(super) fn set_next(&mut self, extent: ExtentId, next: ExtentId) {
        let index = (extent.index() - self.base) as usize;
        assert_eq!(self.uses[index], Use::Sending { next: None });
        self.uses[index] = Use::Sending { next: Some(next) };
    }

    /// An extent that we took ourselves, or claimed, is free again.
    pub(super) fn release(&mut self, extent: ExtentId) {
        let index = extent.index() - self.base;
        let slot = &mut self.uses[index as usize];
        match slot {
            Use::Free { .. } => unreachable!("extent released twice"),
            Use::Receiving => self.receiving -= 1,
            Use::Granted { .. } => self.granted -= 1,
            Use::Sending { .. } => {}
        }
        *slot = Use::Free { next: self.free };
        self.free = index;
        self.free_count += 1;
    }

    /// Takes back the `left` extents that were granted to a lane that is gone.
    ///
    /// Those that are free are used again before others are used for the first time, so that the
    /// search does not go far.
    pub(super) fn revoke(&mut self, gone: u16, mut left: u32) {
        for index in 0..self.uses.len() as u32 {
            if left == 0 {
                return;
            }
            if self.uses[index as usize] == (Use::Granted { lane: gone }) {
                self.release(ExtentId::from_index(self.base + index));
                left -= 1;
            }
        }
        assert_eq!(left, 0, "a lane counted more than it was granted");
    }

    /// Takes back what was granted to any lane.
    pub(super) fn revoke_all(&mut self) {
        for index in 0..self.uses.len() as u32 {
            if let Use::Granted { .. } = self.uses[index as usize] {
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
        assert_eq!(pool.claim_for_send(a, None), Ok(7));
        assert_eq!(pool.claim_for_send(a, None), Err(Evict::SendExtent), "claimed already");
        assert_eq!(pool.claim_for_send(b, None), Err(Evict::SendExtent), "never granted");
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
        pool.revoke_all();
        assert_eq!(count(&mut || pool.take_for_receive(true).is_some()), 8);
    }

    #[test]
    fn lanes_that_do_not_write_leave_the_rest_to_those_that_ask() {
        let mut pool = ExtentPool::new(0, 64);
        let grant = |pool: &mut ExtentPool, lane, asked| -> Vec<ExtentId> {
            (0..pool.grant_share(16, asked)).map(|_| pool.grant(lane).unwrap()).collect()
        };
        assert_eq!(grant(&mut pool, 1, false).len(), 16);
        assert_eq!(grant(&mut pool, 2, false), [], "a quarter lies there unused");
        // Of the 48 that may go out, 32 are left.
        let of_two = grant(&mut pool, 2, true);
        assert_eq!(of_two.len(), 8);
        let shares: Vec<usize> = (3..15).map(|lane| grant(&mut pool, lane, true).len()).collect();
        assert_eq!(shares, [6, 4, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1]);
        assert_eq!(grant(&mut pool, 15, true), []);
        // What comes back is for who asks.
        assert_eq!(pool.claim_for_send(of_two[0], None), Ok(2));
        pool.release(of_two[0]);
        assert_eq!(grant(&mut pool, 1, false), []);
        assert_eq!(grant(&mut pool, 15, true).len(), 1);
        pool.revoke_all();
        assert!(pool.is_whole());
        assert_eq!(grant(&mut pool, 1, false).len(), 16);
    }

    #[test]
    fn what_is_promised_is_kept_for_whom_it_was_promised_to() {
        let mut pool = ExtentPool::new(0, 64);
        // Half of a quarter; the next one gets half of the rest.
        assert_eq!(pool.share(0), 8);
        pool.promise(0, 8, 0);
        assert_eq!((pool.share(8), pool.share(0)), (8, 4));
        while pool.grant(1).is_some() {}
        while pool.take_for_receive(true).is_some() {}
        assert_eq!((pool.free_count, pool.share(0)), (8, 0));
        let mine: Vec<ExtentId> = (0..8).map(|_| pool.take_promised()).collect();
        assert_eq!(pool.free_count, 0);
        pool.release_promised(mine[0]);
        assert_eq!(pool.take_for_receive(true), None, "promised again");
        pool.promise(8, 0, 7);
        assert_eq!((pool.promised, pool.backed), (0, 0));
        assert!(pool.take_for_receive(true).is_some());
    }

    #[test]
    fn a_foreign_extent_is_refused() {
        let mut pool = ExtentPool::new(100, 2);
        for index in [0, 99, 102, u32::MAX - 1] {
            let extent = ExtentId::from_index(index);
            assert_eq!(pool.claim_for_send(extent, None), Err(Evict::SendExtent));
        }
    }

    #[test]
    fn a_gone_lane_gives_its_grants_back() {
        let mut pool = ExtentPool::new(0, 4);
        pool.grant(1).unwrap();
        pool.grant(2).unwrap();
        pool.revoke(1, 1);
        assert_eq!(pool.free_count, 3);
        pool.revoke_all();
        assert!(pool.is_whole());
    }
}
