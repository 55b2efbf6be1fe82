//! The hierarchical timer wheel: 1 ms ticks, intrusive by index, O(1) to arm, cancel and expire.
//!
//! Three levels: 65,536 slots of 1 tick, 256 of 65.5 s and 256 of 4.66 h. The first level is wide
//! so that nearly every timer of a TCP stack, TIME_WAIT's 60 s above all, goes straight into the
//! slot it expires from. A timer further away moves down at most twice; the wheel moves a whole slot
//! at the tick where it begins.
//!
//! Deadlines are kept as the low 32 bits of the tick. A timer further ahead than 2^31 ticks
//! (24.8 days) is brought forward to that; who arms such a one looks at its own clock when it fires.

use crate::arena::NIL;
use crate::bits::Bits;

/// Nanoseconds in a tick.
pub const TICK_NANOS: u64 = 1_000_000;
/// Identifiers of timers lie below this; above it the wheel numbers its slots.
pub const ID_LIMIT: u32 = 1 << 31;

const NEAR_SLOTS: u32 = 1 << 16;
const FAR_SLOTS: u32 = 1 << 8;
const MIDDLE_SHIFT: u32 = 16;
const FAR_SHIFT: u32 = 24;
const MIDDLE_BASE: u32 = NEAR_SLOTS;
const FAR_BASE: u32 = MIDDLE_BASE + FAR_SLOTS;
const DUE: u32 = FAR_BASE + FAR_SLOTS;
const LONGEST: u64 = (1 << 31) - 1;

/// A timer's place in the wheel, a field of the record it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Timer {
    deadline: u32,
    prev: u32,
    next: u32,
}

impl Timer {
    /// A timer that is not armed.
    pub const IDLE: Timer = Timer { deadline: 0, prev: NIL, next: NIL };

    /// Whether the timer is in a wheel.
    pub fn is_armed(&self) -> bool {
        self.prev != NIL
    }

    /// What [`Timer::set_spare_link`] left here.
    pub(crate) fn spare_link(&self) -> u32 {
        self.next
    }

    /// Keeps a number of its record's, while the timer is not armed.
    pub(crate) fn set_spare_link(&mut self, link: u32) {
        debug_assert!(!self.is_armed());
        self.next = link;
    }

    /// The low 32 bits of the tick it fires at; meaningful while armed.
    pub fn deadline(&self) -> u32 {
        self.deadline
    }
}

/// Where the wheel finds the timers.
pub trait Timers {
    /// The timer with this identifier (below [`ID_LIMIT`]).
    fn timer(&mut self, id: u32) -> &mut Timer;
}

/// The wheel. It owns no timers, only the heads of its slots.
pub struct Wheel {
    slots: Box<[u32]>,
    near: Bits,
    middle: Bits,
    far: Bits,
    /// Every tick up to this one has been handled.
    now: u64,
    /// No slot has anything to do before this tick (it may have nothing then either).
    next: u64,
    armed: usize,
}

impl Default for Wheel {
    fn default() -> Self {
        Self::new()
    }
}

impl Wheel {
    /// An empty wheel that stands at tick 0.
    pub fn new() -> Self {
        Wheel {
            slots: vec![NIL; DUE as usize + 1].into_boxed_slice(),
            near: Bits::new(NEAR_SLOTS),
            middle: Bits::new(FAR_SLOTS),
            far: Bits::new(FAR_SLOTS),
            now: 0,
            next: u64::MAX,
            armed: 0,
        }
    }

    /// Number of armed timers.
    pub fn armed(&self) -> usize {
        self.armed
    }

    /// The tick the wheel stands at.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// A tick before which no timer is due; `None` when none is armed. It can be early: where a
    /// timer was that has been cancelled, or moves down a level; [`Wheel::expire`] then finds out.
    #[inline]
    pub fn next(&self) -> Option<u64> {
        (self.armed > 0).then(|| self.next.max(self.now))
    }

    /// Arms the timer for `tick`, or moves it there. A tick that has passed is due at once.
    pub fn arm(&mut self, timers: &mut impl Timers, id: u32, tick: u64) {
        debug_assert!(id < ID_LIMIT);
        if timers.timer(id).is_armed() {
            self.unlink(timers, id);
        } else {
            self.armed += 1;
        }
        let tick = tick.min(self.now + LONGEST);
        let (slot, event) = self.place(tick);
        self.link(timers, slot, id, tick as u32);
        self.next = self.next.min(event);
    }

    /// Disarms the timer; nothing happens when it was not armed.
    pub fn cancel(&mut self, timers: &mut impl Timers, id: u32) {
        if timers.timer(id).is_armed() {
            self.unlink(timers, id);
            self.armed -= 1;
        }
    }

    /// Takes out one timer that is due at tick `now`; to be called until `None`, after which the
    /// wheel stands at `now`. Timers may be armed and cancelled between calls.
    pub fn expire(&mut self, timers: &mut impl Timers, now: u64) -> Option<u32> {
        loop {
            let due = self.slots[DUE as usize];
            if due != NIL {
                self.unlink(timers, due);
                self.armed -= 1;
                return Some(due);
            }
            if self.next > now {
                self.now = self.now.max(now);
                return None;
            }
            match self.next_event() {
                Some(tick) if tick <= now => self.step(timers, tick),
                later => {
                    self.next = later.unwrap_or(u64::MAX);
                    self.now = self.now.max(now);
                    return None;
                }
            }
        }
    }

    /// Slot for a deadline, and the tick at which that slot needs attention.
    #[inline]
    fn place(&self, tick: u64) -> (u32, u64) {
        if tick <= self.now {
            return (DUE, self.now);
        }
        let ahead = tick - self.now;
        if ahead < u64::from(NEAR_SLOTS) {
            return (tick as u32 % NEAR_SLOTS, tick);
        }
        if ahead < 1 << FAR_SHIFT {
            let slot = (tick >> MIDDLE_SHIFT) as u32 % FAR_SLOTS;
            return (MIDDLE_BASE + slot, tick >> MIDDLE_SHIFT << MIDDLE_SHIFT);
        }
        let slot = (tick >> FAR_SHIFT) as u32 % FAR_SLOTS;
        (FAR_BASE + slot, tick >> FAR_SHIFT << FAR_SHIFT)
    }

    /// The first tick after `now` at which a slot is to be emptied.
    fn next_event(&self) -> Option<u64> {
        let near = self.near.next_after(self.now as u32 % NEAR_SLOTS);
        let near = near.map(|distance| self.now + u64::from(distance));
        let level = |bits: &Bits, shift: u32| {
            let at = self.now >> shift;
            let distance = bits.next_after(at as u32 % FAR_SLOTS)?;
            Some((at + u64::from(distance)) << shift)
        };
        let middle = level(&self.middle, MIDDLE_SHIFT);
        let far = level(&self.far, FAR_SHIFT);
        [near, middle, far].into_iter().flatten().min()
    }

    /// Moves to `tick`, which no event precedes: what is due there goes on the due list, and slots
    /// of the upper levels that begin there move down.
    fn step(&mut self, timers: &mut impl Timers, tick: u64) {
        self.now = tick;
        let slot = tick as u32 % NEAR_SLOTS;
        let first = std::mem::replace(&mut self.slots[slot as usize], NIL);
        if first != NIL {
            self.near.clear(slot);
            timers.timer(first).prev = ID_LIMIT | DUE;
            self.slots[DUE as usize] = first;
        }
        if tick.is_multiple_of(1 << FAR_SHIFT) {
            self.scatter(timers, FAR_BASE + (tick >> FAR_SHIFT) as u32 % FAR_SLOTS);
        }
        if tick.is_multiple_of(1 << MIDDLE_SHIFT) {
            self.scatter(timers, MIDDLE_BASE + (tick >> MIDDLE_SHIFT) as u32 % FAR_SLOTS);
        }
    }

    fn scatter(&mut self, timers: &mut impl Timers, slot: u32) {
        let mut id = std::mem::replace(&mut self.slots[slot as usize], NIL);
        self.mark(slot, false);
        while id != NIL {
            let timer = *timers.timer(id);
            let ahead = timer.deadline.wrapping_sub(self.now as u32);
            let (lower, _) = self.place(self.now + u64::from(ahead));
            self.link(timers, lower, id, timer.deadline);
            id = timer.next;
        }
    }

    #[inline]
    fn link(&mut self, timers: &mut impl Timers, slot: u32, id: u32, deadline: u32) {
        let head = std::mem::replace(&mut self.slots[slot as usize], id);
        if head == NIL {
            self.mark(slot, true);
        } else {
            timers.timer(head).prev = id;
        }
        *timers.timer(id) = Timer { deadline, prev: ID_LIMIT | slot, next: head };
    }

    fn unlink(&mut self, timers: &mut impl Timers, id: u32) {
        let timer = timers.timer(id);
        let Timer { prev, next, .. } = *timer;
        *timer = Timer::IDLE;
        if prev < ID_LIMIT {
            timers.timer(prev).next = next;
        } else {
            let slot = prev & !ID_LIMIT;
            self.slots[slot as usize] = next;
            if next == NIL {
                self.mark(slot, false);
            }
        }
        if next != NIL {
            timers.timer(next).prev = prev;
        }
    }

    /// Notes whether `slot` holds anything.
    fn mark(&mut self, slot: u32, occupied: bool) {
        let (bits, slot) = match slot {
            0..MIDDLE_BASE => (&mut self.near, slot),
            MIDDLE_BASE..FAR_BASE => (&mut self.middle, slot - MIDDLE_BASE),
            FAR_BASE..DUE => (&mut self.far, slot - FAR_BASE),
            DUE.. => return,
        };
        if occupied {
            bits.set(slot);
        } else {
            bits.clear(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl Timers for Vec<Timer> {
        fn timer(&mut self, id: u32) -> &mut Timer {
            &mut self[id as usize]
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Arm(u32, u64),
        Cancel(u32),
        Advance(u64),
    }

    fn ahead() -> impl Strategy<Value = u64> {
        prop_oneof![
            0u64..4,
            0u64..300,
            0u64..70_000,
            65_000u64..67_000,
            0u64..20_000_000,
            0..LONGEST
        ]
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0u32..24, ahead()).prop_map(|(id, ahead)| Op::Arm(id, ahead)),
            1 => (0u32..24).prop_map(Op::Cancel),
            2 => ahead().prop_map(Op::Advance),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn expires_what_a_sorted_map_expires(
            start in prop_oneof![Just(0u64), Just(u64::from(u32::MAX) - 5), 0..1u64 << 40],
            ops in prop::collection::vec(op(), 1..120),
        ) {
            let mut timers = vec![Timer::IDLE; 24];
            let mut wheel = Wheel::new();
            prop_assert_eq!(wheel.expire(&mut timers, start), None);
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let mut now = start;
            for op in ops {
                match op {
                    Op::Arm(id, ahead) => {
                        wheel.arm(&mut timers, id, now + ahead);
                        model.insert(id, now + ahead);
                    }
                    Op::Cancel(id) => {
                        wheel.cancel(&mut timers, id);
                        model.remove(&id);
                    }
                    Op::Advance(ahead) => {
                        now += ahead;
                        let mut fired = Vec::new();
                        while let Some(id) = wheel.expire(&mut timers, now) {
                            fired.push(id);
                        }
                        fired.sort_unstable();
                        let due: Vec<u32> =
                            model.iter().filter(|&(_, &at)| at <= now).map(|(&id, _)| id).collect();
                        model.retain(|_, at| *at > now);
                        prop_assert_eq!(fired, due);
                    }
                }
                prop_assert_eq!(wheel.armed(), model.len());
                // Never later than the first deadline, so that a sleeper is woken in time.
                match (wheel.next(), model.values().min()) {
                    (Some(next), Some(&first)) => prop_assert!(next <= first.max(now)),
                    (None, None) => {}
                    (next, first) => prop_assert!(false, "{:?} but first is {:?}", next, first),
                }
                for (id, timer) in timers.iter().enumerate() {
                    prop_assert_eq!(timer.is_armed(), model.contains_key(&(id as u32)));
                }
            }
        }
    }

    #[test]
    fn arming_and_cancelling_while_expiring_is_allowed() {
        let mut timers = vec![Timer::IDLE; 4];
        let mut wheel = Wheel::new();
        for id in 0..4 {
            wheel.arm(&mut timers, id, 10);
        }
        let first = wheel.expire(&mut timers, 10).unwrap();
        let other = (first + 1) % 4;
        wheel.cancel(&mut timers, other);
        wheel.arm(&mut timers, first, 11);
        let mut rest = Vec::new();
        while let Some(id) = wheel.expire(&mut timers, 10) {
            rest.push(id);
        }
        assert_eq!(rest.len(), 2);
        assert!(!rest.contains(&other) && !rest.contains(&first));
        assert_eq!(wheel.expire(&mut timers, 11), Some(first));
        assert_eq!((wheel.armed(), wheel.next()), (0, None));
    }
}
