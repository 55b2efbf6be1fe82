//! What every frame on the link has to keep to, seen from the link alone.

use fourwave_tcp::SeqNum;
use fourwave_wire::{ChecksumPolicy, Flags, Inbound, Segment, TcpFrame, parse};

use crate::draw::LINK_MTU;

/// RFC 9293 §3.7.1, MUST-15: what a host takes that does not say.
const DEFAULT_MSS: [u16; 2] = [536, 1220];
/// What options take in a SYN-ACK's answer without any.
const IP_AND_TCP: [u16; 2] = [40, 60];
/// The least that an engine sends in, whatever the peer asks for.
const MIN_MSS: u16 = 48;

/// Both directions of one four-tuple.
struct Flow {
    /// Whether IPv6, the port of host 0, the port of host 1.
    key: (bool, u16, u16),
    ends: [End; 2],
}

/// What one host sends on a flow, and what it was told.
#[derive(Clone, Copy)]
struct End {
    /// Tells one SYN from the next; 0: none yet.
    epoch: u32,
    iss: SeqNum,
    scale: Option<u8>,
    mss: Option<u16>,
    has_timestamps: bool,
    /// One past the highest sent, and the highest that arrived.
    sent: SeqNum,
    delivered: SeqNum,
    /// The highest acknowledgement and right edge that arrived from the peer.
    acked: SeqNum,
    edge: Option<SeqNum>,
    /// The peer's epoch that its own acknowledgements belong to, the last of them, and the highest
    /// edge that it told.
    linked: u32,
    told: SeqNum,
    told_edge: SeqNum,
    /// The last timestamp that was sent, and the newest that arrived.
    timestamp: Option<u32>,
    newest: u32,
}

/// What the link remembers of a frame on its way.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    flow: u32,
    from: u8,
    epoch: u32,
    seq: SeqNum,
    end: SeqNum,
    flags: Flags,
    ack: SeqNum,
    window: u32,
    /// 0 without one.
    timestamp: u32,
    is_empty: bool,
}

impl Seen {
    fn edge(&self) -> SeqNum {
        self.ack.plus(self.window)
    }

    /// Neither data nor SYN nor FIN.
    pub(crate) fn is_empty(&self) -> bool {
        self.is_empty
    }
}

/// All flows of a link.
#[derive(Default)]
pub(crate) struct Watch {
    flows: Vec<Flow>,
    epochs: u32,
    last: usize,
    /// Segments with data or control bits that take a sequence number, and others.
    pub(crate) segments: u64,
}

impl Watch {
    /// A host sends `frame`. Panics when it should not.
    pub(crate) fn sent(&mut self, from: usize, frame: &[u8]) -> Seen {
        let tcp = match parse(frame, ChecksumPolicy::Verify) {
            Ok(Inbound::Tcp(tcp)) => tcp,
            other => panic!("host {from} sends what is no segment: {other:?}"),
        };
        self.segments += 1;
        let flow = self.flow(from, &tcp);
        let segment = &tcp.segment;
        assert!(segment.urgent == 0 && !segment.flags.contains(Flags::URG), "urgent data");
        assert!(frame.len() <= usize::from(LINK_MTU) + 14, "larger than the MTU");
        let v6 = usize::from(!tcp.tuple.is_v4());
        // RFC 3168 §6.1.1, §6.1.4 and §6.1.5: only data that is new may be marked.
        let may_be_marked = tcp.tos & 3 != 0;
        let is_control = segment.flags.intersects(Flags::SYN | Flags::RST);
        assert!(!may_be_marked || !(is_control || segment.payload.is_empty()), "marked: no data");
        let is_new = segment.seq == self.flows[flow].ends[from].sent.0;
        assert!(!may_be_marked || is_new, "a repetition that could be marked");
        if segment.flags.contains(Flags::RST) {
            assert!(segment.payload.is_empty(), "a RST with data");
        } else if segment.flags.contains(Flags::SYN) {
            self.start(flow, from, segment);
            self.flows[flow].acknowledges(from, segment);
        } else {
            self.flows[flow].sends(from, segment, v6);
        }
        let is_syn = segment.flags.contains(Flags::SYN);
        let scale = if is_syn { 0 } else { self.flows[flow].scale(from) };
        Seen {
            flow: flow as u32,
            from: from as u8,
            epoch: self.flows[flow].ends[from].epoch,
            seq: SeqNum(segment.seq),
            end: SeqNum(segment.seq).plus(segment.sequence_len()),
            flags: segment.flags,
            ack: SeqNum(segment.ack),
            window: u32::from(segment.window) << scale,
            timestamp: segment.options.timestamps.map_or(0, |times| times.value),
            is_empty: segment.sequence_len() == 0,
        }
    }

    /// A frame arrives intact.
    pub(crate) fn delivered(&mut self, seen: &Seen) {
        let flow = &mut self.flows[seen.flow as usize];
        let from = usize::from(seen.from);
        let [sender, receiver] = flow.pair(from);
        if seen.flags.contains(Flags::RST) {
            return;
        }
        // What comes late may lie before the receiver's window or have an older timestamp than its
        // last (PAWS), and is then ignored as a whole.
        let is_last = sender.epoch == seen.epoch;
        let is_newest = seen.timestamp.wrapping_sub(sender.newest) as i32 >= 0;
        if is_newest {
            sender.newest = seen.timestamp;
        }
        let in_time = is_last
            && is_newest
            && !seen.end.before(sender.delivered)
            && !seen.seq.after(receiver.told_edge);
        if is_last && seen.end.after(sender.delivered) {
            sender.delivered = seen.end;
        }
        let is_meant = seen.flags.contains(Flags::ACK) && receiver.has_sent(seen.ack);
        if !is_meant {
            return;
        }
        if in_time && seen.ack.after(receiver.acked) {
            receiver.acked = seen.ack;
        }
        let edge = seen.edge();
        if receiver.edge.is_none_or(|known| edge.after(known)) {
            receiver.edge = Some(edge);
        }
    }

    /// The host that `seen` arrived at has opened a connection by the SYN cookie in it: where it
    /// was before does not count any more, and this can be an old cookie.
    pub(crate) fn reopened(&mut self, seen: &Seen) {
        let flow = &mut self.flows[seen.flow as usize];
        let [_, end] = flow.pair(usize::from(seen.from));
        let iss = SeqNum(seen.ack.0.wrapping_sub(1));
        if iss != end.iss {
            self.epochs += 1;
            (end.epoch, end.iss) = (self.epochs, iss);
            end.delivered = seen.ack;
        }
        end.sent = seen.ack;
        (end.acked, end.edge) = (seen.ack, Some(seen.edge()));
        (end.linked, end.timestamp) = (0, None);
    }

    fn flow(&mut self, from: usize, frame: &TcpFrame<'_>) -> usize {
        let (mine, other) = (frame.tuple.remote.port, frame.tuple.local.port);
        let v6 = !frame.tuple.is_v4();
        let key = if from == 0 { (v6, mine, other) } else { (v6, other, mine) };
        if self.flows.get(self.last).is_some_and(|flow| flow.key == key) {
            return self.last;
        }
        let known = self.flows.iter().position(|flow| flow.key == key);
        self.last = known.unwrap_or_else(|| {
            self.flows.push(Flow { key, ends: [End::new(); 2] });
            self.flows.len() - 1
        });
        self.last
    }

    /// A SYN: the first, one again, or one of another connection.
    fn start(&mut self, flow: usize, from: usize, segment: &Segment<'_>) {
        assert!(segment.payload.is_empty() && !segment.flags.contains(Flags::FIN));
        let flow = &mut self.flows[flow];
        let end = &mut flow.ends[from];
        if end.epoch != 0 && end.iss == SeqNum(segment.seq) {
            return;
        }
        self.epochs += 1;
        let next = SeqNum(segment.seq).plus(1);
        *end = End {
            epoch: self.epochs,
            iss: SeqNum(segment.seq),
            scale: segment.options.window_scale,
            mss: segment.options.mss,
            has_timestamps: segment.options.timestamps.is_some(),
            sent: next,
            newest: segment.options.timestamps.map_or(0, |times| times.value),
            delivered: SeqNum(segment.seq),
            acked: SeqNum(segment.seq),
            ..End::new()
        };
    }
}

impl Flow {
    fn pair(&mut self, from: usize) -> [&mut End; 2] {
        let [a, b] = &mut self.ends;
        if from == 0 { [a, b] } else { [b, a] }
    }

    /// By how much `from`'s windows are scaled.
    fn scale(&self, from: usize) -> u8 {
        let both = self.ends[0].scale.and(self.ends[1].scale);
        both.and(self.ends[from].scale).unwrap_or(0)
    }

    /// A segment of a connection whose SYN was sent.
    fn sends(&mut self, from: usize, segment: &Segment<'_>, v6: usize) {
        let seq = SeqNum(segment.seq);
        let peer_mss = self.ends[1 - from].mss.unwrap_or(DEFAULT_MSS[v6]).max(MIN_MSS);
        let end = &mut self.ends[from];
        assert!(end.epoch != 0, "a segment without a SYN before it");
        assert!(!seq.after(end.sent), "{seq:?} leaves a hole after {:?}", end.sent);
        let len = segment.sequence_len();
        if len > 0 {
            let last = seq.plus(len);
            let edge = end.edge.expect("data without a window");
            assert!(!last.after(edge), "{last:?} lies beyond the window's end {edge:?}");
            assert!(!seq.before(end.acked), "{seq:?} again, acknowledged up to {:?}", end.acked);
            let options = segment.options.wire_len();
            let size = segment.payload.len() + options;
            let limit = usize::from(peer_mss.min(LINK_MTU - IP_AND_TCP[v6]));
            assert!(size <= limit, "{size} bytes with options, the peer takes {limit}");
            if last.after(end.sent) {
                end.sent = last;
            }
        }
        self.acknowledges(from, segment);
        self.checks_timestamp(from, segment);
    }

    /// Acknowledgements, windows and SACK blocks tell the truth and never go back.
    fn acknowledges(&mut self, from: usize, segment: &Segment<'_>) {
        if !segment.flags.contains(Flags::ACK) {
            return;
        }
        let scale = if segment.flags.contains(Flags::SYN) { 0 } else { self.scale(from) };
        let [end, peer] = self.pair(from);
        let ack = SeqNum(segment.ack);
        let edge = ack.plus(u32::from(segment.window) << scale);
        if end.linked != peer.epoch {
            // It may still speak of an earlier connection.
            if peer.epoch != 0 && peer.has_sent(ack) {
                (end.linked, end.told, end.told_edge) = (peer.epoch, ack, edge);
            }
            return;
        }
        let is_syn = segment.flags.contains(Flags::SYN);
        if is_syn && ack.before(end.told) {
            // It answers an old duplicate of the SYN: the connection is over, and nothing is known
            // of it here.
            end.linked = 0;
            return;
        }
        assert!(!ack.after(peer.delivered), "acknowledges {ack:?}, got {:?}", peer.delivered);
        assert!(!ack.before(end.told), "acknowledges {ack:?} after {:?}", end.told);
        // A scaled window is rounded down, and a SYN's is small. RFC 9293 §3.8.6, SHLD-14: no other
        // shrinks.
        let least = SeqNum(end.told_edge.0.wrapping_sub((1 << scale) - 1));
        assert!(
            is_syn || !edge.before(least),
            "the window shrinks from {:?} to {edge:?}",
            end.told_edge
        );
        end.told = ack;
        if edge.after(end.told_edge) {
            end.told_edge = edge;
        }
        for (index, block) in segment.options.sack.as_slice().iter().enumerate() {
            let (left, right) = (SeqNum(block.left), SeqNum(block.right));
            assert!(left.before(right), "an empty SACK block");
            assert!(!right.after(peer.delivered), "a SACK block for what never came");
            // RFC 2883: only the first may report a duplicate.
            assert!(index == 0 || left.after(ack), "a SACK block below the acknowledgement");
        }
    }

    /// RFC 7323 §3.2: in every segment once agreed, and never running back.
    fn checks_timestamp(&mut self, from: usize, segment: &Segment<'_>) {
        let agreed = self.ends[0].has_timestamps && self.ends[1].has_timestamps;
        let end = &mut self.ends[from];
        let Some(times) = segment.options.timestamps else {
            assert!(!agreed || end.linked == 0, "a segment without its timestamp");
            return;
        };
        let last = end.timestamp.unwrap_or(times.value);
        assert!(times.value.wrapping_sub(last) as i32 >= 0, "timestamps run back");
        end.timestamp = Some(times.value);
    }
}

impl End {
    fn new() -> End {
        let none = SeqNum(0);
        End {
            epoch: 0,
            iss: none,
            scale: None,
            mss: None,
            has_timestamps: false,
            sent: none,
            delivered: none,
            acked: none,
            edge: None,
            linked: 0,
            told: none,
            told_edge: none,
            timestamp: None,
            newest: 0,
        }
    }

    /// Whether `ack` acknowledges something that was sent.
    fn has_sent(&self, ack: SeqNum) -> bool {
        ack.after(self.iss) && !ack.after(self.sent)
    }
}
