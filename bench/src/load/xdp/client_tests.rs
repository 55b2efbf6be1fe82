use std::collections::BTreeMap;

use super::*;

const SIZE: usize = 64;
const MS: u64 = 1_000_000;

impl Output for Vec<Outgoing> {
    fn send(&mut self, segment: &Outgoing) {
        self.push(*segment);
    }
}

fn clients() -> Clients {
    let sources = Sources::new(vec!["10.0.0.1".parse().unwrap()], 0).unwrap();
    Clients::new(SIZE, 10_000 * MS, sources)
}

fn payload_of(clients: &Clients, request: &Outgoing) -> Vec<u8> {
    clients.pattern()[request.payload.unwrap()..][..SIZE].to_vec()
}

fn start(clients: &mut Clients, now: u64) -> Outgoing {
    let mut out = Vec::new();
    clients.start(now, now, &mut out);
    assert_eq!(out.len(), 1, "{out:?}");
    assert_eq!(out[0].flags, Flags::SYN);
    out[0]
}

fn answer(
    clients: &mut Clients,
    now: u64,
    local: &Endpoint,
    segment: &Segment<'_>,
) -> Vec<Outgoing> {
    let mut out = Vec::new();
    clients.handle(now, local, segment, &mut out);
    out
}

fn syn_ack(syn: &Outgoing) -> Segment<'static> {
    Segment {
        seq: 5000,
        ack: syn.seq.wrapping_add(1),
        flags: Flags::SYN | Flags::ACK,
        ..Segment::default()
    }
}

fn echo<'a>(request: &Outgoing, payload: &'a [u8], flags: Flags) -> Segment<'a> {
    let ack = request.seq.wrapping_add(SIZE as u32);
    Segment { seq: 5001, ack, flags: Flags::ACK | flags, payload, ..Segment::default() }
}

fn last_ack(fin: &Outgoing, seq: u32) -> Segment<'static> {
    Segment { seq, ack: fin.seq.wrapping_add(1), flags: Flags::ACK, ..Segment::default() }
}

#[test]
fn a_connection_takes_three_segments_of_ours() {
    let mut clients = clients();
    let syn = start(&mut clients, 1000 * MS);
    assert_eq!(clients.in_flight(), 1);
    let sent = answer(&mut clients, 1001 * MS, &syn.local, &syn_ack(&syn));
    let [request] = sent[..] else { panic!("{sent:?}") };
    assert_eq!((request.seq, request.ack), (syn.seq.wrapping_add(1), 5001));
    let payload = payload_of(&clients, &request);
    let sent = answer(&mut clients, 1002 * MS, &syn.local, &echo(&request, &payload, Flags::FIN));
    let [fin] = sent[..] else { panic!("{sent:?}") };
    assert_eq!((fin.flags, fin.ack), (Flags::ACK | Flags::FIN, 5002 + SIZE as u32));
    let sent = answer(&mut clients, 1003 * MS, &syn.local, &last_ack(&fin, fin.ack));
    assert!(sent.is_empty(), "{sent:?}");
    assert_eq!((clients.in_flight(), clients.report.completed), (0, 1));
    assert_eq!(clients.report.error_count(), 0);
    assert_eq!(clients.report.connect_latency.count(), 1);
}

#[test]
fn whatever_is_lost_is_sent_again() {
    let mut clients = clients();
    let syn = start(&mut clients, 0);
    let mut out = Vec::new();
    let mut pass = |clients: &mut Clients, from: u64, to: u64| {
        out.clear();
        for ms in from..=to {
            clients.handle_time(ms * MS, &mut out);
        }
        out.clone()
    };
    assert_eq!(pass(&mut clients, 1, 990), []);
    assert_eq!(pass(&mut clients, 991, 1025), [Outgoing { ..retimed(&syn, 1000) }]);
    let request = answer(&mut clients, 1100 * MS, &syn.local, &syn_ack(&syn))[0];
    let again = pass(&mut clients, 1101, 1330);
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].seq, again[0].payload), (request.seq, request.payload));
    let payload = payload_of(&clients, &request);
    let fin = answer(&mut clients, 1400 * MS, &syn.local, &echo(&request, &payload, Flags::FIN))[0];
    let again = pass(&mut clients, 1401, 1630);
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].seq, again[0].flags), (fin.seq, fin.flags));
    assert_eq!(clients.report.client_retransmits, 3);
    // It gives up in the end.
    pass(&mut clients, 1631, 11_000);
    assert_eq!(clients.report.errors, BTreeMap::from([("timeout".to_owned(), 1)]));
    assert_eq!(clients.in_flight(), 0);
}

fn retimed(segment: &Outgoing, ms: u32) -> Outgoing {
    let timestamps = segment.options.timestamps.map(|old| Timestamps { value: ms, ..old });
    Outgoing { options: Options { timestamps, ..segment.options }, ..*segment }
}

#[test]
fn a_reply_in_parts_is_acknowledged_after_a_while_and_a_gap_at_once() {
    let mut clients = clients();
    let syn = start(&mut clients, 0);
    let request = answer(&mut clients, MS, &syn.local, &syn_ack(&syn))[0];
    let payload = payload_of(&clients, &request);
    let part = Segment { payload: &payload[..10], ..echo(&request, &[], Flags::EMPTY) };
    assert!(answer(&mut clients, 2 * MS, &syn.local, &part).is_empty());
    let mut out = Vec::new();
    (3..80).for_each(|ms| clients.handle_time(ms * MS, &mut out));
    assert_eq!(out.len(), 1, "{out:?}");
    assert_eq!((out[0].flags, out[0].ack), (Flags::ACK, 5011));
    let gap = Segment { seq: 5020, payload: &payload[19..], ..part };
    let sent = answer(&mut clients, 90 * MS, &syn.local, &gap);
    assert_eq!(sent[0].ack, 5011);
    let rest = Segment { seq: 5011, payload: &payload[10..], ..echo(&request, &[], Flags::FIN) };
    let fin = answer(&mut clients, 91 * MS, &syn.local, &rest)[0];
    answer(&mut clients, 92 * MS, &syn.local, &last_ack(&fin, fin.ack));
    assert_eq!(clients.report.completed, 1);
}

#[test]
fn wrong_and_short_echoes_and_resets_are_errors() {
    let mut clients = clients();
    let mut errors = |payload: &[u8], flags| {
        let syn = start(&mut clients, 0);
        let request = answer(&mut clients, MS, &syn.local, &syn_ack(&syn))[0];
        let sent = answer(&mut clients, MS, &syn.local, &echo(&request, payload, flags));
        if let Some(fin) = sent.first() {
            answer(&mut clients, MS, &syn.local, &last_ack(fin, fin.ack));
        }
    };
    errors(&[0xee; SIZE], Flags::FIN);
    errors(&[], Flags::FIN);
    errors(&[], Flags::RST);
    let syn = start(&mut clients, 0);
    let refusal = Segment { flags: Flags::RST | Flags::ACK, ..syn_ack(&syn) };
    answer(&mut clients, MS, &syn.local, &refusal);
    let expected = ["ECONNREFUSED", "ECONNRESET", "short echo", "wrong echo"];
    assert_eq!(clients.report.errors.keys().collect::<Vec<_>>(), expected);
    assert_eq!(clients.in_flight(), 0);
}

#[test]
fn strangers_are_counted_and_blind_resets_ignored() {
    let mut clients = clients();
    let syn = start(&mut clients, 0);
    let other = Endpoint { port: 9, ..syn.local };
    answer(&mut clients, MS, &other, &syn_ack(&syn));
    assert_eq!(clients.report.stray_frames, 1);
    let blind = Segment { flags: Flags::RST, seq: 1, ..Segment::default() };
    answer(&mut clients, MS, &syn.local, &blind);
    assert_eq!(clients.in_flight(), 1);
}

#[test]
fn a_kept_connection_asks_again_and_closes_first() {
    let mut clients = clients().keep_alive(true);
    let syn = start(&mut clients, 0);
    let mut request = answer(&mut clients, 10, &syn.local, &syn_ack(&syn))[0];
    let mut next = 5001;
    for round in 0..3_u64 {
        let payload = payload_of(&clients, &request);
        let reply = Segment { seq: next, ..echo(&request, &payload, Flags::PSH) };
        next += SIZE as u32;
        let out = answer(&mut clients, 20 * (round + 1), &syn.local, &reply);
        assert_eq!(out.len(), 1, "{out:?}");
        // The next request acknowledges the reply, and has other bytes.
        assert_eq!((out[0].seq, out[0].ack), (request.seq.wrapping_add(SIZE as u32), next));
        assert_ne!(payload_of(&clients, &out[0]), payload);
        request = out[0];
    }
    assert_eq!((clients.report.reply_latency.count(), clients.in_flight()), (3, 1));
    clients.close_after_replies();
    let payload = payload_of(&clients, &request);
    let reply = Segment { seq: next, ..echo(&request, &payload, Flags::PSH) };
    let fin = answer(&mut clients, 100, &syn.local, &reply)[0];
    assert_eq!(fin.flags, Flags::FIN | Flags::ACK);
    // It is sent again until the server has closed too.
    let mut again = Vec::new();
    clients.handle_time(300 * MS, &mut again);
    assert_eq!((again.len(), again[0].seq), (1, fin.seq));
    let end = Segment {
        seq: fin.ack,
        ack: fin.seq.wrapping_add(1),
        flags: Flags::FIN | Flags::ACK,
        ..Segment::default()
    };
    let last = answer(&mut clients, 310 * MS, &syn.local, &end)[0];
    assert_eq!((last.flags, last.seq), (Flags::ACK, fin.seq.wrapping_add(1)));
    assert_eq!(last.ack, fin.ack.wrapping_add(1));
    assert_eq!((clients.report.completed, clients.in_flight()), (1, 0));
}

#[test]
fn a_connection_that_was_given_up_is_reset() {
    let mut clients = clients();
    let syn = start(&mut clients, 0);
    let mut out = Vec::new();
    // Given up before it was open: a late answer is reset.
    clients.handle_time(10_001 * MS, &mut out);
    out.clear();
    assert_eq!(clients.report.errors, BTreeMap::from([("timeout".to_owned(), 1)]));
    let out = answer(&mut clients, 10_002 * MS, &syn.local, &syn_ack(&syn));
    assert_eq!((out[0].flags, out[0].seq), (Flags::RST, syn.seq.wrapping_add(1)));
    // What is no answer to a SYN is not: it may be for a connection that has ended in order.
    let stray = Segment { flags: Flags::ACK, ..syn_ack(&syn) };
    assert!(answer(&mut clients, 10_003 * MS, &syn.local, &stray).is_empty());
}
