//! The client's side of a short connection: frames that cost next to nothing to make.
//!
//! Each is a template, built once, into which a client's address, port, numbers and timestamps are
//! written; the checksums are the template's plus what was written. What that costs is measured
//! apart and subtracted, see [`super::life`].

use fourwave_wire::{
    Addr, Endpoint, Flags, FourTuple, FrameHead, Link, Mac, Options, Sum, Timestamps, build,
};

/// The server's address and port.
pub(super) const SERVER: [u8; 4] = [10, 0, 0, 1];
pub(super) const PORT: u16 = 80;
pub(super) const SERVER_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
pub(super) const CLIENT_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
/// Bytes of a request, and of a reply.
pub(super) const PAYLOAD: usize = 64;
/// Room for the largest frame: all headers, the timestamps and the payload.
const SLOT: usize = LINK_LEN + IP_LEN + TCP_LEN + TIMES_LEN + PAYLOAD;

const LINK_LEN: usize = 14;
const IP_LEN: usize = 20;
const TCP_LEN: usize = 20;
const TIMES_LEN: usize = 12;
/// Where things are in a frame.
const IP_SUM: usize = LINK_LEN + 10;
const SOURCE: usize = LINK_LEN + 12;
const SOURCE_PORT: usize = LINK_LEN + IP_LEN;
const DESTINATION_PORT: usize = SOURCE_PORT + 2;
const SEQ: usize = SOURCE_PORT + 4;
const ACK: usize = SOURCE_PORT + 8;
pub(super) const FLAGS: usize = SOURCE_PORT + 13;
const TCP_SUM: usize = SOURCE_PORT + 16;
const OPTIONS: usize = SOURCE_PORT + TCP_LEN;
/// The values of the timestamps option: after MSS and SACK-permitted in a SYN, else after two NOPs.
const SYN_TIMES: usize = OPTIONS + 8;
const TIMES: usize = OPTIONS + 4;

/// Ports that one client address uses.
const PORTS: u32 = 50_000;

/// One client connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Client {
    addr: u32,
    port: u16,
    seq: u32,
    ack: u32,
    /// The server's newest timestamp.
    echo: u32,
}

impl Client {
    /// The client of this number; addresses are used up one after the other.
    pub(super) fn new(number: u32) -> Client {
        Client {
            addr: u32::from_be_bytes([10, 1, 0, 0]) + number / PORTS,
            // At most 51,023.
            port: 1024 + (number % PORTS) as u16,
            seq: 1_000_000,
            ack: 0,
            echo: 0,
        }
    }

    /// The same client, later: its numbers go on above those that were used.
    pub(super) fn later(self) -> Client {
        Client { seq: self.seq.wrapping_add(1 << 20), ..self }
    }

    /// Takes a frame of the server's that carries `payload` bytes. A push is no matter: smoltcp
    /// leaves it out beside a FIN.
    pub(super) fn take(&mut self, frame: &[u8], flags: Flags, payload: u32) {
        let found = Flags(frame[FLAGS] & !Flags::PSH.0);
        assert_eq!(found, flags, "another frame was expected");
        let syn = flags.contains(Flags::SYN);
        let ends = syn || flags.contains(Flags::FIN);
        self.ack = number(frame, SEQ).wrapping_add(payload).wrapping_add(u32::from(ends));
        // Where the option is in a SYN-ACK is each stack's own choice: zero is as good an echo.
        self.echo = if syn { 0 } else { number(frame, TIMES) };
    }

    /// Whether a frame of the server's is for this client, acknowledges all that it sent, and has
    /// the checksums that it should.
    pub(super) fn knows(&self, frame: &[u8]) -> bool {
        let (ip, segment) = frame[LINK_LEN..].split_at(IP_LEN);
        let pseudo = Sum::new().add_bytes(&ip[12..]).add_u16(6).add_u16(segment.len() as u16);
        let intact = Sum::new().add_bytes(ip).is_valid() && pseudo.add_bytes(segment).is_valid();
        intact
            && frame[DESTINATION_PORT..][..2] == self.port.to_be_bytes()
            && number(frame, ACK) == self.seq
    }
}

/// The big-endian number at `at`.
fn number(frame: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]])
}

/// The frames that a client sends.
pub(super) struct Templates {
    syn: Template,
    ack: Template,
    request: Template,
    fin: Template,
    reset: Template,
}

struct Template {
    bytes: [u8; SLOT],
    len: usize,
    times: usize,
    ip_sum: u32,
    tcp_sum: u32,
    /// Sequence numbers that it takes.
    takes: u32,
}

/// Frames on their way to the server.
pub(super) struct Inbox {
    slots: Vec<([u8; SLOT], usize)>,
    used: usize,
}

impl Inbox {
    pub(super) fn new(slots: usize) -> Inbox {
        Inbox { slots: vec![([0; SLOT], 0); slots], used: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.used = 0;
    }

    pub(super) fn frames(&self) -> impl Iterator<Item = &[u8]> {
        self.slots[..self.used].iter().map(|(bytes, len)| &bytes[..*len])
    }
}

impl Templates {
    pub(super) fn new() -> Templates {
        let times = Some(Timestamps::default());
        let data = Options { timestamps: times, ..Options::default() };
        let syn = Options {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: times,
            ..Options::default()
        };
        Templates {
            syn: Template::new(Flags::SYN, syn, 0, SYN_TIMES),
            ack: Template::new(Flags::ACK, data, 0, TIMES),
            request: Template::new(Flags::ACK | Flags::PSH, data, PAYLOAD, TIMES),
            fin: Template::new(Flags::ACK | Flags::FIN, data, 0, TIMES),
            reset: Template::new(Flags::RST, data, 0, TIMES),
        }
    }

    pub(super) fn syn(&self, client: &mut Client, millis: u32, inbox: &mut Inbox) {
        self.syn.write(client, millis, inbox);
    }

    pub(super) fn ack(&self, client: &mut Client, millis: u32, inbox: &mut Inbox) {
        self.ack.write(client, millis, inbox);
    }

    pub(super) fn request(&self, client: &mut Client, millis: u32, inbox: &mut Inbox) {
        self.request.write(client, millis, inbox);
    }

    pub(super) fn fin(&self, client: &mut Client, millis: u32, inbox: &mut Inbox) {
        self.fin.write(client, millis, inbox);
    }

    pub(super) fn reset(&self, client: &mut Client, millis: u32, inbox: &mut Inbox) {
        self.reset.write(client, millis, inbox);
    }
}

impl Template {
    fn new(flags: Flags, options: Options, payload: usize, times: usize) -> Template {
        let end = |addr, port| Endpoint { addr: Addr::from_v4(addr), port };
        let head = FrameHead {
            link: Link::new(SERVER_MAC, CLIENT_MAC),
            tuple: FourTuple { local: end([0; 4], 0), remote: end(SERVER, PORT) },
            ttl: 64,
            flags,
            window: 502,
            options,
            ..FrameHead::default()
        };
        let mut bytes = [0; SLOT];
        let fill = |out: &mut [u8]| out.fill(b'q');
        let len = build(&mut bytes, &head, payload, fill).expect("a slot takes every template");
        // What lies in the checksum fields is the complement of the sum without what is patched.
        let sum_at = |at| u32::from(!u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        let (ip_sum, tcp_sum) = (sum_at(IP_SUM), sum_at(TCP_SUM));
        let takes = payload as u32 + u32::from(flags.intersects(Flags::SYN | Flags::FIN));
        Template { bytes, len, times, ip_sum, tcp_sum, takes }
    }

    #[inline]
    fn write(&self, client: &mut Client, millis: u32, inbox: &mut Inbox) {
        let (out, len) = &mut inbox.slots[inbox.used];
        inbox.used += 1;
        *out = self.bytes;
        *len = self.len;
        let mut put = |at: usize, value: u32| {
            out[at..at + 4].copy_from_slice(&value.to_be_bytes());
            (value >> 16) + (value & 0xffff)
        };
        let addr = put(SOURCE, client.addr);
        let numbers = put(SEQ, client.seq)
            + put(ACK, client.ack)
            + put(self.times, millis)
            + put(self.times + 4, client.echo);
        out[SOURCE_PORT..SOURCE_PORT + 2].copy_from_slice(&client.port.to_be_bytes());
        let tcp_sum = folded(self.tcp_sum + addr + numbers + u32::from(client.port));
        out[TCP_SUM..TCP_SUM + 2].copy_from_slice(&(!tcp_sum).to_be_bytes());
        out[IP_SUM..IP_SUM + 2].copy_from_slice(&(!folded(self.ip_sum + addr)).to_be_bytes());
        client.seq = client.seq.wrapping_add(self.takes);
    }
}

fn folded(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    // The second fold leaves 16 bits.
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use fourwave_wire::{ChecksumPolicy, Inbound, parse};

    #[test]
    fn patched_frames_are_what_they_should_be() {
        let templates = Templates::new();
        let mut inbox = Inbox::new(4);
        let mut client = Client::new(PORTS * 3 + 7);
        client.ack = 0xfff0_1234;
        client.echo = 0x89ab_cdef;
        templates.syn(&mut client, 77, &mut inbox);
        templates.ack(&mut client, u32::MAX, &mut inbox);
        templates.request(&mut client, 79, &mut inbox);
        templates.fin(&mut client, 80, &mut inbox);
        let mut seen = Vec::new();
        for frame in inbox.frames() {
            let Ok(Inbound::Tcp(frame)) = parse(frame, ChecksumPolicy::Verify) else {
                panic!("refused");
            };
            assert_eq!(frame.tuple.remote.to_string(), "10.1.0.3:1031");
            let times = frame.segment.options.timestamps.unwrap();
            assert_eq!((frame.segment.ack, times.echo), (0xfff0_1234, 0x89ab_cdef));
            seen.push((frame.segment.seq, frame.segment.payload.len(), times.value));
        }
        let first = 1_000_000;
        let after = first + 1 + PAYLOAD as u32;
        assert_eq!(
            seen,
            [(first, 0, 77), (first + 1, 0, u32::MAX), (first + 1, PAYLOAD, 79), (after, 0, 80)]
        );
    }
}
