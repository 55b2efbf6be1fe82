//! A host whose applications write a known pattern and check every byte they get.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use fourwave_stack::{ConnId, Frame, Host, ListenerId, Path, PathError, Payload, Refused, Update};
use fourwave_tcp::{Error, Events, Nanos};
use fourwave_wire::{Addr, FourTuple, Link, Mac};

use crate::rng::Rng;

/// Which conversation a four-tuple, seen from its opener, belongs to at present.
pub(crate) type Directory = Rc<RefCell<HashMap<FourTuple, usize>>>;

/// Byte `offset` of what end `end` of a conversation writes.
pub(crate) fn pattern(conversation: usize, end: usize, offset: u64) -> u8 {
    let place = offset.wrapping_mul(0x9e37_79b9) ^ offset >> 7;
    (place >> 16) as u8 ^ conversation as u8 ^ (end as u8) << 7
}

/// One end of a conversation.
pub(crate) struct App {
    pub(crate) conversation: usize,
    pub(crate) end: usize,
    pub(crate) conn: ConnId,
    pub(crate) born: Nanos,
    /// The application holds the handle.
    pub(crate) open: bool,
    /// It may be used: accepted, or connected.
    pub(crate) usable: bool,
    pub(crate) queued: bool,
    pub(crate) closed: bool,
    pub(crate) written: u64,
    pub(crate) shut: bool,
    pub(crate) consumed: u64,
    pub(crate) next_read: Nanos,
    pub(crate) rcv_tail: u64,
    pub(crate) snd_acked: u64,
    pub(crate) eof: bool,
    pub(crate) error: Option<Error>,
    /// The application lost patience.
    pub(crate) gave_up: bool,
    /// Which bytes have arrived.
    have: Vec<bool>,
}

impl App {
    pub(crate) fn new(conversation: usize, end: usize, conn: ConnId, born: Nanos) -> App {
        App {
            conversation,
            end,
            conn,
            born,
            open: true,
            usable: false,
            queued: false,
            closed: false,
            written: 0,
            shut: false,
            consumed: 0,
            next_read: 0,
            rcv_tail: 0,
            snd_acked: 0,
            eof: false,
            error: None,
            gave_up: false,
            have: Vec::new(),
        }
    }
}

impl App {
    /// For a failure's message.
    pub(crate) fn describe(&self) -> String {
        let App { usable, queued, eof, error, written, snd_acked, rcv_tail, born, .. } = self;
        format!(
            "born {born} usable {usable} queued {queued} eof {eof} error {error:?} \
             written {written} acknowledged {snd_acked} received {rcv_tail}"
        )
    }
}

/// All applications of a host.
#[derive(Default)]
pub(crate) struct Apps(pub(crate) Vec<App>);

impl Payload for Apps {
    fn load(&self, app: u64, offset: u64, out: &mut [u8]) {
        let app = &self.0[app as usize];
        assert!(!app.closed && offset + out.len() as u64 <= app.written);
        assert!(offset >= app.snd_acked);
        for (byte, place) in out.iter_mut().zip(offset..) {
            *byte = pattern(app.conversation, app.end, place);
        }
    }
}

pub(crate) struct SimHost {
    pub(crate) side: usize,
    pub(crate) apps: Apps,
    pub(crate) out: Vec<Vec<u8>>,
    pub(crate) now: Nanos,
    /// Frames that may be sent before the room is renewed.
    pub(crate) room_left: u64,
    /// The next hop has no link address before this.
    pub(crate) resolved_at: Nanos,
    pub(crate) rng: Rng,
    room: Vec<u8>,
    directory: Directory,
}

impl SimHost {
    pub(crate) fn new(side: usize, rng: Rng, directory: Directory) -> SimHost {
        SimHost {
            side,
            apps: Apps::default(),
            out: Vec::new(),
            now: 0,
            room_left: u64::MAX,
            resolved_at: 0,
            rng,
            room: vec![0; 2048],
            directory,
        }
    }

    pub(crate) fn address(side: usize, v6: bool) -> Addr {
        let last = side as u8 + 1;
        if v6 {
            let mut bytes = [0; 16];
            (bytes[0], bytes[15]) = (0xfd, last);
            return Addr(bytes);
        }
        Addr::from_v4([10, 0, 0, last])
    }

    fn mac(side: usize) -> Mac {
        Mac([2, 0, 0, 0, 0, side as u8])
    }
}

impl Host for SimHost {
    type Payload = Apps;

    fn frame(&mut self) -> Option<Frame<'_, Apps>> {
        (self.room_left > 0).then_some(Frame { room: &mut self.room, payload: &self.apps })
    }

    fn commit(&mut self, len: usize) {
        self.room_left -= 1;
        self.out.push(self.room[..len].to_vec());
    }

    fn path(&mut self, _: Option<Addr>, peer: Addr) -> Result<Path, PathError> {
        let source = SimHost::address(self.side, !peer.is_v4());
        let mtu = 1500;
        if self.now < self.resolved_at {
            return Err(PathError::Unresolved { source, mtu });
        }
        let link = Link::new(SimHost::mac(1 - self.side), SimHost::mac(self.side));
        Ok(Path { link, source, mtu })
    }

    fn path_epoch(&self) -> u32 {
        u32::from(self.now >= self.resolved_at)
    }

    fn is_local(&self, addr: Addr) -> bool {
        addr == SimHost::address(self.side, !addr.is_v4())
    }

    fn random(&mut self) -> u64 {
        self.rng.next()
    }

    fn open(&mut self, _: ListenerId, conn: ConnId, tuple: &FourTuple) -> Result<u64, Refused> {
        if self.rng.chance(5) {
            return Err(Refused);
        }
        let conversation = self.directory.borrow()[&tuple.flipped()];
        self.apps.0.push(App::new(conversation, 1, conn, self.now));
        Ok(self.apps.0.len() as u64 - 1)
    }

    fn store(&mut self, app: u64, offset: u64, bytes: &[u8]) -> bool {
        if self.rng.chance(2) {
            return false;
        }
        let app = &mut self.apps.0[app as usize];
        assert!(!app.closed);
        let end = offset as usize + bytes.len();
        if app.have.len() < end {
            app.have.resize(end, false);
        }
        for (&byte, place) in bytes.iter().zip(offset..) {
            let expected = pattern(app.conversation, 1 - app.end, place);
            assert_eq!(byte, expected, "byte {place} of conversation {}", app.conversation);
            app.have[place as usize] = true;
        }
        true
    }

    fn update(&mut self, app: u64, update: &Update) {
        let app = &mut self.apps.0[app as usize];
        assert!(!app.closed && update.rcv_tail >= app.rcv_tail);
        assert!(update.snd_acked >= app.snd_acked && update.snd_acked <= app.written);
        let fresh = app.rcv_tail as usize..update.rcv_tail as usize;
        assert!(app.have[fresh].iter().all(|&have| have), "a byte that never came is in order");
        app.rcv_tail = update.rcv_tail;
        app.snd_acked = update.snd_acked;
        app.usable |= update.events.contains(Events::ESTABLISHED);
        app.eof |= update.events.contains(Events::PEER_FIN);
        app.error = update.error.or(app.error);
    }

    fn accept(&mut self, _: ListenerId, conn: ConnId, app: u64) {
        let app = &mut self.apps.0[app as usize];
        assert!(!app.queued && !app.closed && app.conn == conn);
        app.queued = true;
    }

    fn closed(&mut self, app: u64) {
        let app = &mut self.apps.0[app as usize];
        assert!(!app.closed);
        app.closed = true;
    }
}
