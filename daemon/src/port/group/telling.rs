//! Events for who waits on a connection or a listener of a group.

use super::{Group, block};
use crate::port::conn::Life;
use crate::port::lane::Lane;
use crate::port::notify::{READ, WRITE};
use crate::port::{AppId, Evict};
use core::sync::atomic::Ordering;
use fourwave_protocol::accept::MAX_LANES;
use fourwave_protocol::command::Event;
use fourwave_protocol::{Handle, Segment};

impl Group {
    /// Posts the event that a changed connection's client waits for. `false`: the ring is full,
    /// to be tried again.
    pub(in crate::port) fn tell_connection(
        &mut self,
        app: AppId,
        lanes: &mut Vec<(u32, u16)>,
    ) -> bool {
        let handle = self.handle(app.conn);
        let block = block(&self.segment, self.worker, app.conn);
        let conn = &mut self.conns[app.conn as usize];
        let wanted = [(READ, &block.client.wake_reader), (WRITE, &block.client.wake_writer)];
        let mut told = true;
        if matches!(conn.life, Life::Open | Life::Ended) && self.evicted.is_none() {
            for (direction, (bit, word)) in wanted.into_iter().enumerate() {
                // Relaxed: ordered by the fence in Notices::deliver() and the client's own.
                let Some(lane) = word.load(Ordering::Relaxed).checked_sub(1) else { continue };
                if conn.pending.changed & bit == 0 {
                    continue;
                }
                let Some(Some(target)) = self.lanes.get_mut(usize::from(lane)) else { continue };
                let last = &mut conn.pending.last;
                match tell(target, &self.segment, (handle, direction), lane, last) {
                    Ok(Told::Posted { first }) if first => lanes.push((app.group, lane)),
                    Ok(Told::Posted { .. } | Told::Pending) => {}
                    Ok(Told::Full) => told = false,
                    Err(why) => self.evicted = Some(why),
                }
            }
        }
        if told {
            conn.pending.changed = 0;
            conn.pending.listed = false;
        }
        told
    }

    /// Wakes as many of the lanes waiting on a listener as connections were pushed.
    pub(in crate::port) fn tell_listener(
        &mut self,
        slot: u32,
        index: u32,
        lanes: &mut Vec<(u32, u16)>,
    ) {
        let Some(listener) = &mut self.listeners[index as usize] else { return };
        let waiters = self.segment.listener(index);
        let mut left = std::mem::take(&mut listener.pushed);
        // Lanes that are gone are passed over. A hostile client may set their bits again and again.
        for _ in 0..left as usize + MAX_LANES {
            if left == 0 {
                break;
            }
            let Some(lane) = waiters.take_waiter(listener.last_woken) else { break };
            listener.last_woken = lane;
            let Some(Some(target)) = self.lanes.get_mut(usize::from(lane)) else { continue };
            left -= 1;
            let first = !target.touched;
            match target.post(&self.segment, Event::Acceptable { listener: index }) {
                Ok(Some(_)) if first => lanes.push((slot, lane)),
                // A full ring is not empty: the lane will look at all it waits for.
                Ok(_) => {}
                Err(why) => self.evicted = Some(why),
            }
        }
    }

    /// Rings a lane's doorbell if it sleeps.
    pub(in crate::port) fn wake_lane(&mut self, lane: u16) {
        if let Some(Some(lane)) = self.lanes.get_mut(usize::from(lane)) {
            lane.wake(&self.segment);
        }
    }
}

enum Told {
    Posted { first: bool },
    Pending,
    Full,
}

fn tell(
    target: &mut Lane,
    segment: &Segment,
    (handle, direction): (Handle, usize),
    lane: u16,
    last: &mut [Option<(u16, u64)>; 2],
) -> Result<Told, Evict> {
    // One for the other direction says all there is to say, too.
    for &(to, ordinal) in last.iter().flatten() {
        if to == lane && !target.taken(segment, ordinal)? {
            return Ok(Told::Pending);
        }
    }
    let first = !target.touched;
    Ok(match target.post(segment, Event::Ready { handle })? {
        Some(ordinal) => {
            last[direction] = Some((lane, ordinal));
            Told::Posted { first }
        }
        None => Told::Full,
    })
}
