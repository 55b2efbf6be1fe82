//! The listeners of a group and the steps of their lives.

use super::Mask;
use crate::port::settings;
use fourwave_protocol::Process;
use fourwave_protocol::control::BindOptions;
use fourwave_protocol::option::ConnOption;
use fourwave_protocol::query::{Socket, SocketKind, SocketState};
use fourwave_stack::ListenerShared;
use fourwave_tcp::Settings;
use rustix::io::Errno;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Control's answer to `listen`, once every worker has given its own.
pub(super) type Answer = oneshot::Receiver<Result<(), Errno>>;

/// A bound socket of a client, perhaps listening.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) address: SocketAddr,
    pub(super) v6_only: bool,
    pub(super) reuse_port: bool,
    /// Processes that hold it; none of a kept one.
    holders: Vec<Process>,
    /// `TCP_DEFER_ACCEPT`, seconds.
    defer_accept: u32,
    /// What its connections begin with.
    pub(super) settings: Settings,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Bound,
    /// Waits for every worker's answer.
    Opening {
        shared: Arc<ListenerShared>,
        answered: Mask,
        error: Option<Errno>,
        reply: oneshot::Sender<Result<(), Errno>>,
    },
    Listening(Arc<ListenerShared>),
    /// Waits for every worker to let go of it; then it is gone, or bound as before.
    Closing {
        answered: Mask,
        keep: bool,
        /// Dropped when it is gone, for who waits for that.
        _told: Option<oneshot::Sender<()>>,
    },
}

/// What is to be done after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    /// Tell the workers to let go.
    Unlisten,
    /// Nothing is left of it.
    Gone,
}

/// All listeners of a segment, by index.
#[derive(Debug)]
pub(super) struct Listeners(Vec<Option<Listener>>);

impl Listeners {
    pub(super) fn new(count: u32) -> Listeners {
        Listeners((0..count).map(|_| None).collect())
    }

    /// An index that is not in use.
    pub(super) fn free(&self) -> Option<u32> {
        self.0.iter().position(Option::is_none).map(|index| index as u32)
    }

    /// Enters a bound listener of a process at a free index.
    pub(super) fn insert(
        &mut self,
        index: u32,
        process: Process,
        address: SocketAddr,
        options: BindOptions,
    ) {
        self.0[index as usize] = Some(Listener {
            address,
            v6_only: options.v6_only,
            reuse_port: options.reuse_port,
            holders: vec![process],
            defer_accept: 0,
            settings: Settings::default(),
            phase: Phase::Bound,
        });
    }

    /// Enters a listener that another group had, and its workers will hand over.
    pub(super) fn keep(&mut self, index: u32, former: Former) {
        let Former { address, v6_only, shared } = former;
        let phase = Phase::Listening(shared);
        self.0[index as usize] = Some(Listener {
            address,
            v6_only,
            reuse_port: false,
            holders: Vec::new(),
            defer_accept: 0,
            settings: Settings::default(),
            phase,
        });
    }

    /// Whether a process holds a listener.
    pub(super) fn is_held(&self, index: u32, process: Process) -> bool {
        let listener = self.0.get(index as usize).and_then(Option::as_ref);
        listener.is_some_and(|listener| listener.holders.contains(&process))
    }

    /// A fork holds what its parent holds.
    pub(super) fn share(&mut self, parent: Process, child: Process) {
        for listener in self.0.iter_mut().flatten() {
            if listener.holders.contains(&parent) {
                listener.holders.push(child);
            }
        }
    }

    /// A process gives a listener up; whether nobody holds it any more.
    pub(super) fn let_go(&mut self, index: u32, process: Process) -> bool {
        let Some(listener) = self.get(index) else { return false };
        let before = listener.holders.len();
        listener.holders.retain(|&holder| holder != process);
        listener.holders.is_empty() && before > 0
    }

    /// A process is gone; the listeners that nobody holds any more.
    pub(super) fn let_go_all(&mut self, process: Process) -> Vec<u32> {
        self.indices().filter(|&index| self.let_go(index, process)).collect()
    }

    /// What others can go on with if this listener ends now; `None` if it does not listen.
    pub(super) fn former(&self, index: u32) -> Option<Former> {
        let Listener { address, v6_only, phase, .. } = self.0.get(index as usize)?.as_ref()?;
        let Phase::Listening(shared) = phase else { return None };
        Some(Former { address: *address, v6_only: *v6_only, shared: Arc::clone(shared) })
    }

    /// Forgets a listener that is another group's now.
    pub(super) fn forget(&mut self, index: u32) {
        self.0[index as usize] = None;
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// Whether a listener has yet to listen.
    pub(super) fn is_bound(&self, index: u32) -> bool {
        let listener = self.0.get(index as usize).and_then(Option::as_ref);
        listener.is_some_and(|listener| matches!(listener.phase, Phase::Bound))
    }

    /// Where a bound listener is, and whether it covers IPv4.
    pub(super) fn address(&self, index: u32) -> Option<(SocketAddr, bool)> {
        let listener = self.0.get(index as usize)?.as_ref()?;
        Some((listener.address, listener.v6_only))
    }

    /// `TCP_DEFER_ACCEPT`, from now on.
    ///
    /// # Errors
    /// `EINVAL` if there is no such listener, or it is being closed.
    pub(super) fn defer_accept(&mut self, index: u32, seconds: u32) -> Result<(), Errno> {
        let listener = self.get(index).ok_or(Errno::INVAL)?;
        match &listener.phase {
            Phase::Bound => {}
            Phase::Listening(shared) | Phase::Opening { shared, .. } => {
                shared.set_defer_accept(seconds);
            }
            Phase::Closing { .. } => return Err(Errno::INVAL),
        }
        listener.defer_accept = seconds;
        Ok(())
    }

    fn get(&mut self, index: u32) -> Option<&mut Listener> {
        self.0.get_mut(index as usize)?.as_mut()
    }

    /// Makes a choice for what a listener accepts from now on; all choices.
    ///
    /// # Errors
    /// `EINVAL` if there is no such listener.
    pub(super) fn choose(
        &mut self,
        index: u32,
        option: ConnOption,
        value: u32,
    ) -> Result<Settings, Errno> {
        let listener = self.get(index).ok_or(Errno::INVAL)?;
        settings::set(&mut listener.settings, option, value);
        Ok(listener.settings)
    }

    /// What was chosen for a listener.
    ///
    /// # Errors
    /// `EINVAL` if there is no such listener.
    pub(super) fn settings(&mut self, index: u32) -> Result<Settings, Errno> {
        self.get(index).map(|listener| listener.settings).ok_or(Errno::INVAL)
    }

    /// Indices in use.
    pub(super) fn indices(&self) -> impl Iterator<Item = u32> + use<> {
        let used = self.0.iter().enumerate().filter(|(_, listener)| listener.is_some());
        used.map(|(index, _)| index as u32).collect::<Vec<_>>().into_iter()
    }

    /// Those that listen, for people.
    /// With the processes that hold each.
    pub(super) fn listening(&self, kept: bool) -> impl Iterator<Item = (Socket, &[Process])> {
        self.0.iter().flatten().filter_map(move |listener| {
            let Phase::Listening(shared) = &listener.phase else { return None };
            let socket = Socket {
                state: SocketState::Listen,
                receive_queue: shared.accept_len(),
                send_queue: shared.backlog(),
                local: listener.address,
                peer: None,
                owner: None,
                timer: None,
                waiting_ms: None,
                worker: None,
                kind: SocketKind::Listener {
                    syn_queue: shared.syn_len(),
                    v6_only: listener.v6_only,
                    kept,
                },
            };
            Some((socket, &listener.holders[..]))
        })
    }

    /// `listen`: a listener that listens already gets another backlog. One that does not yet is
    /// returned with what the workers share, to be told about: the `former` listener's, whose
    /// queues it goes on with, if there is one.
    ///
    /// # Errors
    /// `EINVAL` if there is no such listener, or it is being closed.
    pub(super) fn listen(
        &mut self,
        index: u32,
        backlog: u32,
        former: Option<Arc<ListenerShared>>,
    ) -> Result<Opening<'_>, Errno> {
        let listener = self.get(index).ok_or(Errno::INVAL)?;
        match &listener.phase {
            Phase::Listening(shared) | Phase::Opening { shared, .. } => {
                shared.set_backlog(backlog);
                Ok(Opening::Already)
            }
            Phase::Closing { .. } => Err(Errno::INVAL),
            Phase::Bound => {
                let shared = former.unwrap_or_else(|| ListenerShared::new(backlog));
                shared.set_backlog(backlog);
                shared.set_reuse_port(listener.reuse_port);
                shared.set_defer_accept(listener.defer_accept);
                let (reply, answer) = oneshot::channel();
                listener.phase = Phase::Opening {
                    shared: Arc::clone(&shared),
                    answered: Mask::default(),
                    error: None,
                    reply,
                };
                Ok(Opening::New { listener, shared, answer })
            }
        }
    }

    /// A worker's answer to a listener that was opened.
    pub(super) fn answered(
        &mut self,
        index: u32,
        worker: u32,
        workers: u32,
        refusal: Option<i32>,
    ) -> Step {
        let Some(listener) = self.get(index) else { return Step::Nothing };
        let Phase::Opening { answered, error, .. } = &mut listener.phase else {
            return Step::Nothing;
        };
        answered.add(worker);
        *error = error.or(refusal.map(Errno::from_raw_os_error));
        if !answered.has_all(workers) {
            return Step::Nothing;
        }
        let opened = std::mem::replace(&mut listener.phase, Phase::Bound);
        let Phase::Opening { shared, error, reply, .. } = opened else { return Step::Nothing };
        // The client may be gone: then its group is being removed, and nobody waits.
        let _ = reply.send(error.map_or(Ok(()), Err));
        match error {
            None => {
                listener.phase = Phase::Listening(shared);
                Step::Nothing
            }
            Some(_) => {
                listener.phase =
                    Phase::Closing { answered: Mask::default(), keep: true, _told: None };
                Step::Unlisten
            }
        }
    }

    /// Begins to close a listener; `told` is dropped when it is gone.
    ///
    /// # Errors
    /// `EINVAL` if there is no such listener, or it is being closed.
    pub(super) fn close(
        &mut self,
        index: u32,
        told: Option<oneshot::Sender<()>>,
    ) -> Result<Step, Errno> {
        let listener = self.get(index).ok_or(Errno::INVAL)?;
        match &mut listener.phase {
            Phase::Bound => {
                self.0[index as usize] = None;
                Ok(Step::Gone)
            }
            Phase::Opening { .. } | Phase::Listening(_) => {
                listener.phase =
                    Phase::Closing { answered: Mask::default(), keep: false, _told: told };
                Ok(Step::Unlisten)
            }
            Phase::Closing { keep: keep @ true, _told: old, .. } => {
                (*keep, *old) = (false, told);
                Ok(Step::Nothing)
            }
            Phase::Closing { keep: false, .. } => Err(Errno::INVAL),
        }
    }

    /// A worker has let go of a listener.
    pub(super) fn unlistened(&mut self, index: u32, worker: u32, workers: u32) -> Step {
        let Some(listener) = self.get(index) else { return Step::Nothing };
        let Phase::Closing { answered, keep, .. } = &mut listener.phase else {
            return Step::Nothing;
        };
        answered.add(worker);
        match (answered.has_all(workers), *keep) {
            (false, _) => Step::Nothing,
            (true, true) => {
                listener.phase = Phase::Bound;
                Step::Nothing
            }
            (true, false) => {
                self.0[index as usize] = None;
                Step::Gone
            }
        }
    }
}

/// A listener that ends, for those who go on with it.
#[derive(Debug)]
pub(super) struct Former {
    pub(super) address: SocketAddr,
    pub(super) v6_only: bool,
    pub(super) shared: Arc<ListenerShared>,
}

/// What `listen` does.
#[derive(Debug)]
pub(super) enum Opening<'a> {
    /// It listens already.
    Already,
    /// The workers are to be told, and will answer.
    New { listener: &'a Listener, shared: Arc<ListenerShared>, answer: Answer },
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKERS: u32 = 2;

    fn bound() -> Listeners {
        let mut listeners = Listeners::new(2);
        assert_eq!(listeners.free(), Some(0));
        let address = "10.0.0.1:80".parse().unwrap();
        listeners.insert(0, Process::FIRST, address, BindOptions::default());
        listeners
    }

    fn open(listeners: &mut Listeners) -> Answer {
        match listeners.listen(0, 5, None).unwrap() {
            Opening::New { answer, .. } => answer,
            Opening::Already => panic!("it was not listening"),
        }
    }

    #[test]
    fn listen_is_answered_after_the_last_worker() {
        let mut listeners = bound();
        let mut answer = open(&mut listeners);
        assert_eq!(listeners.answered(0, 1, WORKERS, None), Step::Nothing);
        assert!(answer.try_recv().is_err());
        assert_eq!(listeners.answered(0, 0, WORKERS, None), Step::Nothing);
        assert_eq!(answer.try_recv(), Ok(Ok(())));
        assert!(matches!(listeners.listen(0, 7, None), Ok(Opening::Already)));
    }

    #[test]
    fn one_refusal_takes_all_back() {
        let mut listeners = bound();
        let mut answer = open(&mut listeners);
        let refusal = Some(Errno::NOBUFS.raw_os_error());
        assert_eq!(listeners.answered(0, 0, WORKERS, refusal), Step::Nothing);
        assert_eq!(listeners.answered(0, 1, WORKERS, None), Step::Unlisten);
        assert_eq!(answer.try_recv(), Ok(Err(Errno::NOBUFS)));
        assert_eq!(listeners.listen(0, 5, None).unwrap_err(), Errno::INVAL);
        assert_eq!(listeners.unlistened(0, 0, WORKERS), Step::Nothing);
        assert_eq!(listeners.unlistened(0, 1, WORKERS), Step::Nothing);
        // Bound as before: it may be tried again.
        open(&mut listeners);
    }

    #[test]
    fn a_listener_is_gone_after_the_last_worker() {
        let mut listeners = bound();
        open(&mut listeners);
        assert_eq!(listeners.close(0, None), Ok(Step::Unlisten));
        assert_eq!(listeners.close(0, None), Err(Errno::INVAL));
        assert_eq!(listeners.unlistened(0, 1, WORKERS), Step::Nothing);
        assert_eq!(listeners.free(), Some(1), "its accept rings are still in use");
        assert_eq!(listeners.unlistened(0, 0, WORKERS), Step::Gone);
        assert_eq!(listeners.free(), Some(0));
        assert_eq!(listeners.close(0, None), Err(Errno::INVAL));
        assert_eq!(bound().close(0, None), Ok(Step::Gone));
    }

    #[test]
    fn the_last_holder_ends_it() {
        let (parent, child) = (Process::FIRST, Process::first(1));
        let mut listeners = bound();
        listeners.share(parent, child);
        assert!(listeners.is_held(0, parent) && listeners.is_held(0, child));
        assert!(!listeners.let_go(0, Process::first(2)), "it never had it");
        assert!(!listeners.let_go(0, parent) && !listeners.let_go(0, parent));
        assert!(!listeners.is_held(0, parent));
        assert_eq!(listeners.let_go_all(child), [0]);
        assert_eq!(listeners.let_go_all(child), [0; 0]);
    }

    #[test]
    fn strange_indices_and_late_answers_do_nothing() {
        let mut listeners = bound();
        for index in [1, 2, u32::MAX] {
            assert_eq!(listeners.listen(index, 5, None).unwrap_err(), Errno::INVAL);
            assert_eq!(listeners.close(index, None), Err(Errno::INVAL));
            assert_eq!(listeners.answered(index, 0, 1, None), Step::Nothing);
            assert_eq!(listeners.unlistened(index, 0, 1), Step::Nothing);
        }
        assert_eq!(listeners.answered(0, 0, 1, None), Step::Nothing);
        assert_eq!(listeners.unlistened(0, 0, 1), Step::Nothing);
        assert_eq!(listeners.indices().collect::<Vec<_>>(), [0]);
    }
}
