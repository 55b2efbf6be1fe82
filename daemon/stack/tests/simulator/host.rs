//! A host of applications in memory.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use fourwave_stack::{ConnId, Host, ListenerId, Path, PathError, Payload, Refused, Update};
use fourwave_tcp::Nanos;
use fourwave_wire::{Addr, FourTuple, Link, Mac};

use crate::app::{App, STRANGER};
use crate::draw::LINK_MTU;
use crate::frame::Frame;
use crate::rng::Rng;

/// Which conversation a four-tuple, seen from its opener, belongs to at present.
pub(crate) type Directory = Rc<RefCell<HashMap<FourTuple, Vec<usize>>>>;

/// All applications of a host.
#[derive(Default)]
pub(crate) struct Apps(pub(crate) Vec<App>);

impl Payload for Apps {
    fn load(&self, app: u64, offset: u64, out: &mut [u8]) {
        self.0[app as usize].load(offset, out);
    }
}

pub(crate) struct SimHost {
    side: usize,
    pub(crate) apps: Apps,
    /// Those that are not over, by number.
    pub(crate) living: Vec<usize>,
    pub(crate) out: Vec<Frame>,
    pub(crate) spare: Vec<Frame>,
    pub(crate) now: Nanos,
    /// Frames that may be sent before the room is renewed.
    pub(crate) room_left: u64,
    /// The next hop has no link address before this.
    pub(crate) resolved_at: Nanos,
    /// The most that a connection may make the host hold.
    pub(crate) window: u64,
    /// SYN cookies are in use.
    pub(crate) sends_cookies: bool,
    pub(crate) rng: Rng,
    room: Frame,
    directory: Directory,
}

impl SimHost {
    pub(crate) fn new(side: usize, window: u32, rng: Rng, directory: Directory) -> SimHost {
        SimHost {
            side,
            apps: Apps::default(),
            living: Vec::new(),
            out: Vec::new(),
            spare: Vec::new(),
            now: 0,
            room_left: u64::MAX,
            resolved_at: 0,
            window: u64::from(window),
            sends_cookies: false,
            rng,
            room: Frame::new(None),
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

    pub(crate) fn mac(side: usize) -> Mac {
        Mac([2, 0, 0, 0, 0, side as u8])
    }

    /// A new application; its number is known before its connection is.
    pub(crate) fn add(&mut self, mut app: App) -> u64 {
        app.window = self.window;
        self.living.push(self.apps.0.len());
        self.apps.0.push(app);
        self.apps.0.len() as u64 - 1
    }

    /// Applications whose connections are gone and which have nothing left to do.
    pub(crate) fn forget_the_dead(&mut self) {
        let apps = &self.apps.0;
        self.living.retain(|&index| apps[index].open || !apps[index].closed);
    }
}

impl Host for SimHost {
    type Payload = Apps;

    fn frame(&mut self) -> Option<fourwave_stack::Frame<'_, Apps>> {
        let room = self.room.room();
        (self.room_left > 0).then_some(fourwave_stack::Frame { room, payload: &self.apps })
    }

    fn commit(&mut self, len: usize) {
        self.room_left -= 1;
        self.room.set_len(len);
        let next = self.spare.pop().unwrap_or_else(|| Frame::new(None));
        self.out.push(std::mem::replace(&mut self.room, next));
    }

    fn path(&mut self, _: Option<Addr>, peer: Addr) -> Result<Path, PathError> {
        let source = SimHost::address(self.side, !peer.is_v4());
        let mtu = LINK_MTU;
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
        let mut known = self.directory.borrow().get(&tuple.flipped()).cloned().unwrap_or_default();
        let last = known.pop().unwrap_or(STRANGER);
        let mut app = App::new(last, 1, conn, self.now);
        app.earlier = known;
        app.may_be_ghost = self.sends_cookies;
        Ok(self.add(app))
    }

    fn store(&mut self, app: u64, offset: u64, bytes: &[u8]) -> bool {
        if self.rng.chance(2) {
            return false;
        }
        self.apps.0[app as usize].store(offset, bytes);
        true
    }

    fn update(&mut self, app: u64, update: &Update) {
        self.apps.0[app as usize].update(update);
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
