//! One direction of a path: frames on their way, those that wait to be overtaken, those that are
//! still on the wire. No sockets and no clock.

use std::collections::VecDeque;

use super::Counters;
use super::fate::{Dice, Fate, Impairment};
use crate::packet::Frame;

/// A frame that waits to be overtaken waits no longer than this, nanoseconds: the last of a stream
/// has nothing behind it.
const LONGEST_HOLD: u64 = 2_000_000;

/// Most frames on the wire: more than the largest window of a connection has.
const MOST_ON_THE_WIRE: usize = 65_536;

/// Frames between two interfaces.
#[derive(Debug)]
pub(super) struct Direction {
    dice: Dice,
    delay_ns: u64,
    /// In order of departure, with the time of it.
    wire: VecDeque<(u64, Frame)>,
    held: Vec<Held>,
    /// Room for frames to come.
    spare: Vec<Frame>,
    pub(super) counters: Counters,
}

#[derive(Debug)]
struct Held {
    frame: Frame,
    overtakers: u32,
    until: u64,
}

impl Direction {
    pub(super) fn new(impairment: Impairment, seed: u64) -> Direction {
        Direction {
            dice: Dice::new(impairment, seed),
            delay_ns: impairment.delay_us * 1000,
            wire: VecDeque::new(),
            held: Vec::new(),
            spare: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// Room for one more frame.
    pub(super) fn room(&mut self) -> Frame {
        self.spare.pop().unwrap_or_default()
    }

    /// A frame has come.
    pub(super) fn take(&mut self, now: u64, frame: Frame) {
        self.counters.frames += 1;
        if self.wire.len() >= MOST_ON_THE_WIRE {
            self.counters.overruns += 1;
            self.spare.push(frame);
            return;
        }
        let fate = if is_tcp(frame.bytes()) { self.dice.next_fate() } else { Fate::Forward };
        match fate {
            Fate::Forward => self.depart(now, frame),
            Fate::Lose => {
                self.counters.lost += 1;
                self.spare.push(frame);
            }
            Fate::Duplicate => {
                self.counters.duplicated += 1;
                let mut copy = self.room();
                copy.fill(frame.bytes());
                self.depart(now, frame);
                self.depart(now, copy);
            }
            Fate::HoldFor(overtakers) => {
                self.counters.reordered += 1;
                self.held.push(Held { frame, overtakers, until: now + LONGEST_HOLD });
            }
        }
    }

    fn depart(&mut self, now: u64, frame: Frame) {
        self.wire.push_back((now + self.delay_ns, frame));
        for held in &mut self.held {
            held.overtakers = held.overtakers.saturating_sub(1);
        }
        self.release(now);
    }

    /// Lets those go that were overtaken often enough, or have waited too long.
    fn release(&mut self, now: u64) {
        while let Some(place) =
            self.held.iter().position(|held| held.overtakers == 0 || held.until <= now)
        {
            let Held { frame, .. } = self.held.remove(place);
            self.wire.push_back((now + self.delay_ns, frame));
        }
    }

    /// Frames that have arrived at `now`, oldest first.
    pub(super) fn arrived(&mut self, now: u64) -> impl Iterator<Item = &[u8]> {
        self.release(now);
        self.wire.iter().take_while(move |(due, _)| *due <= now).map(|(_, frame)| frame.bytes())
    }

    /// The oldest `count` of them were sent on.
    pub(super) fn sent(&mut self, count: usize) {
        self.spare.extend(self.wire.drain(..count).map(|(_, frame)| frame));
    }

    /// When something is to be done next, if nothing comes.
    pub(super) fn deadline(&self) -> Option<u64> {
        let wire = self.wire.front().map(|(due, _)| *due);
        self.held.iter().map(|held| held.until).chain(wire).min()
    }
}

/// Only TCP is harmed: a lost neighbour solicitation costs a second and says nothing about TCP.
fn is_tcp(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => frame.get(14 + 9) == Some(&6),
        Some([0x86, 0xdd]) => frame.get(14 + 6) == Some(&6),
        Some(_) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::FRAME_BYTES;

    fn frame(number: u8) -> Frame {
        let mut bytes = [0; 64];
        bytes[12] = 0x08;
        bytes[23] = 6;
        bytes[63] = number;
        let mut frame = Frame::new();
        frame.fill(&bytes);
        frame
    }

    /// Numbers of the frames that have arrived; they are sent on.
    fn arrivals(direction: &mut Direction, now: u64) -> Vec<u8> {
        let numbers: Vec<u8> = direction.arrived(now).map(|bytes| bytes[63]).collect();
        direction.sent(numbers.len());
        numbers
    }

    #[test]
    fn frames_arrive_in_order_and_after_the_delay() {
        let mut direction = Direction::new(Impairment { delay_us: 5, ..Impairment::default() }, 1);
        direction.take(0, frame(1));
        direction.take(1000, frame(2));
        assert_eq!(direction.deadline(), Some(5000));
        assert!(arrivals(&mut direction, 4999).is_empty());
        assert_eq!(arrivals(&mut direction, 5500), [1]);
        assert_eq!(arrivals(&mut direction, 6000), [2]);
        assert_eq!(direction.deadline(), None);
    }

    #[test]
    fn a_held_frame_is_overtaken_and_the_last_one_waits_no_longer_than_it_must() {
        let always = Impairment { reorder: 100.0, ..Impairment::default() };
        let mut direction = Direction::new(always, 1);
        direction.take(0, frame(1));
        assert!(arrivals(&mut direction, 0).is_empty());
        direction.dice = Dice::new(Impairment::default(), 1);
        for number in 2..20 {
            direction.take(0, frame(number));
        }
        let order = arrivals(&mut direction, 0);
        assert_eq!(order.len(), 19);
        let place = order.iter().position(|number| *number == 1).unwrap();
        assert!((1..=8).contains(&place), "{order:?}");

        direction.dice = Dice::new(always, 1);
        direction.take(10, frame(30));
        let until = direction.deadline().unwrap();
        assert_eq!(until, 10 + LONGEST_HOLD);
        assert_eq!(arrivals(&mut direction, until), [30]);
    }

    #[test]
    fn what_is_lost_or_doubled_is_counted_and_other_protocols_are_spared() {
        let all = Impairment { loss: 100.0, ..Impairment::default() };
        let mut direction = Direction::new(all, 1);
        direction.take(0, frame(1));
        let mut arp = Frame::new();
        arp.fill(&[[0; 12].as_slice(), &[0x08, 0x06], &[9; 50]].concat());
        direction.take(0, arp);
        assert_eq!(arrivals(&mut direction, 0), [9]);
        direction.dice = Dice::new(Impairment { duplicate: 100.0, ..Impairment::default() }, 1);
        direction.take(0, frame(4));
        assert_eq!(arrivals(&mut direction, 0), [4, 4]);
        let Counters { frames, lost, duplicated, .. } = direction.counters;
        assert_eq!((frames, lost, duplicated), (3, 1, 1));
    }

    #[test]
    fn short_frames_are_no_tcp() {
        for length in [0, 13, 14, 20, 23] {
            assert!(!is_tcp(&[0x08; FRAME_BYTES][..length]));
        }
    }
}
