//! The extents of a send stream, in the order of its pages.
//!
//! A private list through the pool's records: it takes as many extents as the stream needs, and
//! costs a short connection nothing. It grows at the end as the client writes and shrinks at the
//! front as the peer acknowledges.

use super::Evict;
use super::extents::ExtentPool;
use core::cell::Cell;
use fourwave_protocol::{ExtentId, Segment};

/// Where a page's extent is known to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Spot {
    page: u64,
    extent: ExtentId,
}

/// Consecutive pages, each with its extent.
#[derive(Debug, Clone, Default)]
pub(super) struct Chain {
    ends: Option<(Spot, Spot)>,
    /// Where the last searches ended. New data and what is sent again are each looked up in rising
    /// order, so that two places make a search one step long. One below the first page is stale.
    recent: [Cell<Option<Spot>>; 2],
}

impl Chain {
    /// The last page and its extent.
    pub(super) fn last(&self) -> Option<(u64, ExtentId)> {
        self.ends.map(|(_, last)| (last.page, last.extent))
    }

    /// Extents held.
    pub(super) fn len(&self) -> u32 {
        // As many as the group has at the most.
        self.ends.map_or(0, |(first, last)| (last.page - first.page + 1) as u32)
    }

    /// Takes over what a client says it filled: extents for the pages `first..=end`, the last one
    /// being `named`, each one's link naming the one before. Calls `claimed` with the lane that each
    /// had been granted to.
    ///
    /// The pages follow those that are here.
    pub(super) fn claim(
        &mut self,
        segment: &Segment,
        pool: &mut ExtentPool,
        (first, end): (u64, u64),
        mut named: Option<ExtentId>,
        mut claimed: impl FnMut(u16),
    ) -> Result<(), Evict> {
        assert!(first <= end && self.last().is_none_or(|(last, _)| last + 1 == first));
        let mut next = None;
        for page in (first..=end).rev() {
            let taken = named.ok_or(Evict::SendExtent).and_then(|extent| {
                claimed(pool.claim_for_send(extent, next)?);
                Ok(extent)
            });
            let extent = match taken {
                Ok(extent) => extent,
                Err(why) => {
                    release_all(pool, next);
                    return Err(why);
                }
            };
            next = Some(extent);
            if page > first {
                // Loaded once; claiming it checks it. Relaxed: ordered by the command ring.
                let link = segment.link(extent).load(core::sync::atomic::Ordering::Relaxed);
                named = ExtentId::from_raw(link);
            } else {
                self.append(pool, Spot { page: first, extent }, end);
            }
        }
        Ok(())
    }

    /// Links the pages from `first` to `end` behind the last one.
    fn append(&mut self, pool: &mut ExtentPool, first: Spot, end: u64) {
        let mut last = first;
        while let Some(extent) = pool.next(last.extent) {
            last = Spot { page: last.page + 1, extent };
        }
        assert_eq!(last.page, end);
        match &mut self.ends {
            Some((_, old)) => {
                pool.set_next(old.extent, first.extent);
                *old = last;
            }
            None => self.ends = Some((first, last)),
        }
    }

    /// The extent of `page`.
    ///
    /// # Panics
    /// If there is none: only what was written is asked for.
    pub(super) fn find(&self, pool: &ExtentPool, page: u64) -> ExtentId {
        let (first, last) = self.ends.expect("written bytes have an extent");
        assert!((first.page..=last.page).contains(&page), "written bytes have an extent");
        if page == first.page {
            return first.extent;
        }
        // From the nearest place before it; this search is noted where that one was.
        let [a, b] = &self.recent;
        let usable = |spot: &Spot| (first.page..=page).contains(&spot.page);
        let known = [a, b].into_iter().filter_map(|note| Some((note.get().filter(usable)?, note)));
        let (mut spot, note) = known
            .max_by_key(|(spot, _)| spot.page)
            .unwrap_or((first, if a.get() <= b.get() { a } else { b }));
        while spot.page < page {
            let extent = pool.next(spot.extent).expect("the page lies before the last");
            spot = Spot { page: spot.page + 1, extent };
        }
        note.set(Some(spot));
        spot.extent
    }

    /// Releases the pages before `page`.
    pub(super) fn release_before(&mut self, pool: &mut ExtentPool, page: u64) {
        while let Some((first, last)) = self.ends
            && first.page < page
        {
            self.ends =
                pool.next(first.extent).map(|extent| (Spot { page: first.page + 1, extent }, last));
            pool.release(first.extent);
        }
    }

    /// Releases all.
    pub(super) fn clear(&mut self, pool: &mut ExtentPool) {
        release_all(pool, self.ends.take().map(|(first, _)| first.extent));
        // The last page may come again, with another extent.
        self.recent = Default::default();
    }
}

/// Releases an extent and all that follow it.
fn release_all(pool: &mut ExtentPool, mut first: Option<ExtentId>) {
    while let Some(extent) = first {
        first = pool.next(extent);
        pool.release(extent);
    }
}
