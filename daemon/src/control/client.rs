//! One client of the control socket, from its first packet to its last.

use super::packets::{Packets, Peer};
use super::refusal::{Denied, Refusal};
use super::registry::{Client, no_group};
use super::{Control, capture, query, stats};
use fourwave_protocol::control::{BindOptions, MAX_MESSAGE, Reply, Request, decode, encode};
use rustix::io::Errno;
use std::io;
use std::iter;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

/// Bytes of a refusal's text that are sent.
const DETAIL_BYTES: usize = 2048;
/// How long a client that is turned away may take to ask for something. In tests of those that do not,
/// for good.
const FIRST_PACKET: Duration = Duration::from_secs(if cfg!(test) { 600 } else { 1 });

/// How often a bind without `SO_REUSEADDR` looks whether a port is free, and the time between, in
/// which a connection's last segments may come. Each time every worker is asked.
const BIND_LOOKS: u32 = 5;
const BIND_PAUSE: Duration = Duration::from_millis(20);

/// A reply and the descriptors that go with it.
pub(super) struct Answer {
    reply: Reply,
    descriptors: Vec<OwnedFd>,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Answer {
        Answer { reply, descriptors: Vec::new() }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Answer {
        let Refusal { errno, mut detail, denied: _ } = refusal;
        detail.truncate(detail.floor_char_boundary(DETAIL_BYTES));
        Reply::Error { errno: errno.raw_os_error(), detail }.into()
    }
}

/// One process of a client, or a tool.
pub(super) struct Session {
    control: Rc<Control>,
    peer: Peer,
    client: Option<Client>,
    evict: Rc<Notify>,
}

impl Session {
    /// Somebody has connected.
    pub(super) fn new(control: Rc<Control>, peer: Peer) -> Session {
        Session { control, peer, client: None, evict: Rc::default() }
    }

    /// Serves a client until it goes or is evicted. Whatever it had is then given back.
    pub(super) async fn serve(mut self, packets: Packets) {
        if let Err(error) = self.run(&packets).await {
            tracing::debug!(pid = self.peer.pid, %error, "a client's connection has broken");
        }
        // Closed first: a client that is being removed gets no more answers.
        drop(packets);
        if let Some((group, process)) = self.client {
            let keeper = self.control.registry.borrow_mut().remove_process(group, process);
            self.control.remove_later(keeper);
        }
    }
}

/// Tells a client that there is no room for it.
pub(super) async fn turn_away(packets: Packets) {
    let refusal =
        Refusal::new(Errno::MFILE, "fourwaved has as many clients as clients.max_clients");
    // Closing a socket with an unread packet resets it, and the client would not see our answer.
    let mut buffer = Box::new([0; MAX_MESSAGE]);
    let first = tokio::time::timeout(FIRST_PACKET, packets.receive(&mut buffer)).await;
    if let Ok(Ok(Some(_))) = first {
        // It may be gone already.
        let _ = send(&packets, refusal.into()).await;
    }
}

impl Session {
    async fn run(&mut self, packets: &Packets) -> io::Result<()> {
        let mut buffer = Box::new([0; MAX_MESSAGE]);
        loop {
            let evict = Rc::clone(&self.evict);
            let work = async {
                let Some(packet) = packets.receive(&mut buffer).await? else { return Ok(false) };
                self.note_sender(packets);
                let Ok(request) = decode::<Request>(packet) else {
                    self.control.denials.count(Denied::NoMessage);
                    let refusal = Refusal::new(Errno::PROTO, "this is no message of fourwave's");
                    send(packets, refusal.into()).await?;
                    return Ok(false);
                };
                // One client cannot fill the workers' queues faster than they empty them.
                self.control.room().await;
                if let Request::Capture { version, filter, snaplen } = &request {
                    let (version, snaplen) = (*version, *snaplen);
                    let (control, peer) = (&self.control, self.peer);
                    capture::serve(control, packets, peer, version, filter, snaplen).await?;
                    return Ok(true);
                }
                if let Request::Query { version, query } = request {
                    query::answer(&self.control, packets, self.peer, version, query).await?;
                    return Ok(true);
                }
                for answer in self.answer(request).await {
                    send(packets, answer).await?;
                }
                Ok::<bool, io::Error>(true)
            };
            tokio::select! {
                biased;
                () = evict.notified() => return Ok(()),
                goes_on = work => {
                    if !goes_on? {
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn answer(&mut self, request: Request) -> Vec<Answer> {
        let text = match request {
            Request::Stats => self.control.stats(),
            Request::Settings => self.control.settings.clone(),
            other => {
                let answer = self.try_answer(other).await;
                return vec![answer.unwrap_or_else(|refusal| self.refuse(refusal))];
            }
        };
        stats::pieces(&text).map(Answer::from).collect()
    }

    /// A refusal as it is sent; counted if it is for a rule or a limit.
    fn refuse(&self, refusal: Refusal) -> Answer {
        let Peer { pid, uid } = self.peer;
        tracing::debug!(pid, uid, reason = refusal.detail, "a client is refused something");
        refusal.denied.into_iter().for_each(|denied| self.control.denials.count(denied));
        refusal.into()
    }

    async fn try_answer(&mut self, request: Request) -> Result<Answer, Refusal> {
        let control = Rc::clone(&self.control);
        let registry = || control.registry.borrow_mut();
        Ok(match request {
            Request::Hello { version, name } => {
                if self.client.is_some() {
                    return Err(Refusal::new(Errno::ISCONN, "this client has said hello already"));
                }
                let admitted = registry().hello(self.peer, version, &name)?;
                let process = admitted.process;
                self.client = Some((admitted.group, process));
                self.evict = admitted.evict;
                let reply = Reply::Welcome { params: admitted.params, process };
                Answer { reply, descriptors: vec![admitted.memory] }
            }
            Request::Fork => self.fork().await?,
            Request::Arrived => {
                self.client()?;
                Reply::Done.into()
            }
            Request::AttachLane => {
                let (lane, descriptors) = registry().attach_lane(self.client()?)?;
                Answer { reply: Reply::Attached { lane }, descriptors }
            }
            Request::DetachLane { lane } => {
                registry().detach_lane(self.client()?, lane)?;
                Reply::Done.into()
            }
            Request::Bind { address, options } => {
                let (listener, address) = self.bind(address, options).await?;
                Reply::Bound { listener, address }.into()
            }
            Request::Listen { listener, backlog } => {
                let answer = registry().listen(self.client()?, listener, backlog)?;
                self.wait_for(answer).await?;
                Reply::Done.into()
            }
            Request::DeferAccept { listener, seconds } => {
                registry().defer_accept(self.client()?, listener, seconds)?;
                Reply::Done.into()
            }
            Request::SetOption { listener, option, value } => {
                let told = registry().set_option(self.client()?, listener, option, value)?;
                // So that whatever begins after our answer begins with it; closed, never sent.
                let _ = told.await;
                Reply::Done.into()
            }
            Request::Options { listener } => {
                let values = registry().options(self.client()?, listener)?;
                Reply::Options { values }.into()
            }
            Request::CloseListener { listener } => {
                let (told, gone) = oneshot::channel();
                let keeper = registry().close_listener(self.client()?, listener, told)?;
                control.remove_later(keeper);
                // So that nothing that begins after our answer finds it still there.
                let _ = gone.await;
                Reply::Done.into()
            }
            // Answered before.
            Request::Stats
            | Request::Settings
            | Request::Query { .. }
            | Request::Capture { .. } => Reply::Done.into(),
        })
    }

    /// Binds. Without `SO_REUSEADDR` what is left of a former listener is in the way: the workers
    /// get a moment to say that there is nothing.
    async fn bind(
        &self,
        address: SocketAddr,
        options: BindOptions,
    ) -> Result<(u32, SocketAddr), Refusal> {
        let mut looks = if options.reuse_address { 1 } else { BIND_LOOKS };
        loop {
            looks -= 1;
            let bound = self.control.registry.borrow_mut().bind(self.client()?, address, options);
            match bound {
                Err(refusal) if refusal.errno == Errno::ADDRINUSE && looks > 0 => {
                    tokio::time::sleep(BIND_PAUSE).await;
                    let looked = self.control.registry.borrow_mut().look_for_idle_ports();
                    // Closed, never sent.
                    let _ = looked.await;
                }
                bound => return bound,
            }
        }
    }

    /// Waits until every worker listens, so that a connection attempt after our answer meets
    /// none that does not.
    async fn wait_for(&self, answer: Option<super::listeners::Answer>) -> Result<(), Refusal> {
        let Some(answer) = answer else { return Ok(()) };
        match answer.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(errno)) => {
                Err(Refusal::new(errno, "a worker has no room for another listener (limits)"))
            }
            Err(_gone) => Err(Refusal::new(Errno::NETDOWN, "the listener has been closed")),
        }
    }

    /// Makes another process of the group, and begins to serve it.
    async fn fork(&mut self) -> Result<Answer, Refusal> {
        let (group, parent) = self.client()?;
        if !self.control.has_room(self.peer.uid) {
            let detail = "fourwaved has as many clients as clients.max_clients";
            return Err(Refusal::denied(Denied::MaxClients, Errno::AGAIN, detail));
        }
        let (ours, theirs) = Packets::pair().map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::NFILE);
            Refusal::new(errno, format!("fourwaved cannot make a socket pair: {error}"))
        })?;
        let forked = self.control.registry.borrow_mut().fork(group, parent)?;
        let process = forked.process;
        let session = Session {
            control: Rc::clone(&self.control),
            peer: self.peer,
            client: Some((group, process)),
            evict: forked.evict,
        };
        // From here on the other end's being closed is the end of the new process, be it that this
        // very client is cut off.
        self.control.serve(session, ours);
        let lane = self.control.registry.borrow_mut().attach_first_lane((group, process));
        forked.known.await.map_err(|_gone| no_group())?;
        let (lane, doorbells) = lane.unzip();
        let descriptors = iter::once(theirs).chain(doorbells.into_iter().flatten()).collect();
        Ok(Answer { reply: Reply::Forked { process, lane }, descriptors })
    }

    /// Remembers who has sent the last packet, where the kernel tells.
    fn note_sender(&mut self, packets: &Packets) {
        if let Some(peer) = packets.sender().filter(|&peer| peer != self.peer)
            && let Some((group, process)) = self.client
        {
            self.peer = peer;
            self.control.registry.borrow_mut().identify(group, process, peer);
        }
    }

    fn client(&self) -> Result<Client, Refusal> {
        self.client.ok_or_else(|| Refusal::new(Errno::INVAL, "a client says hello first"))
    }
}

pub(super) async fn send(packets: &Packets, answer: Answer) -> io::Result<()> {
    let mut buffer = Box::new([0; MAX_MESSAGE]);
    let packet = encode(&answer.reply, &mut buffer).map_err(io::Error::other)?;
    let descriptors: Vec<BorrowedFd<'_>> = answer.descriptors.iter().map(AsFd::as_fd).collect();
    packets.send(packet, &descriptors).await
}
