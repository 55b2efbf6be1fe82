//! What records ask of a segment.

use fourwave_tcp::SeqNum;
use fourwave_wire::Segment;

/// RFC 9293 §3.4: whether any of the segment lies in the window of `window` bytes from `next`, or it
/// is an empty one at its edge.
pub(crate) fn overlaps(segment: &Segment<'_>, next: u32, window: u32) -> bool {
    let start = SeqNum(segment.seq);
    let end = start.plus(segment.sequence_len());
    let left = SeqNum(next);
    let right = left.plus(window);
    start == left || (end.after(left) && start.before(right)) || (start == right && end == right)
}

#[cfg(test)]
mod tests {
    use fourwave_wire::Flags;

    use super::*;

    #[test]
    fn a_window_takes_what_touches_it() {
        let takes = |seq: u32, len: usize, flags, next| {
            let payload = &[0; 8][..len];
            overlaps(&Segment { seq, flags, payload, ..Segment::default() }, next, 10)
        };
        for next in [1_000_u32, 3, u32::MAX - 4] {
            let at = |offset: i32| next.wrapping_add_signed(offset);
            assert!(takes(at(0), 0, Flags::ACK, next));
            assert!(takes(at(10), 0, Flags::ACK, next), "an empty one at the right edge");
            assert!(takes(at(-1), 2, Flags::ACK, next));
            assert!(takes(at(-1), 1, Flags::FIN, next), "the FIN is the byte inside");
            assert!(!takes(at(-1), 1, Flags::ACK, next));
            assert!(!takes(at(-1), 0, Flags::ACK, next));
            assert!(takes(at(9), 8, Flags::ACK, next));
            assert!(!takes(at(10), 1, Flags::ACK, next));
            assert!(!takes(at(11), 0, Flags::ACK, next));
        }
    }
}
