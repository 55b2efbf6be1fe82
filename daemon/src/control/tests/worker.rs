//! Workers that only answer.

use super::*;

/// Rows that each worker has for a tool: more than fit into queues and socket together.
pub(super) const ROWS: u32 = 20_000;

/// A worker that answers every message at once and remembers what it was told.
pub(super) struct FakeWorker {
    pub(super) index: u32,
    pub(super) bell: OwnedFd,
    pub(super) answers: RefCell<VecDeque<FromWorker>>,
    pub(super) questions: RefCell<Vec<Arc<Inquiry>>>,
    /// Rows that it still has to give.
    pub(super) rows: Cell<u32>,
    pub(super) log: Log,
    /// Messages that it takes before its queue is full.
    pub(super) room: Cell<usize>,
    /// What it has not heard of yet, while it is busy with something else.
    pub(super) unheard: RefCell<Option<Unheard>>,
}

#[derive(Default)]
pub(super) struct Unheard {
    pub(super) ports: Vec<u16>,
    pub(super) told: Vec<Arc<tokio::sync::oneshot::Sender<()>>>,
}

pub(super) type Log = Arc<Mutex<Vec<String>>>;

impl WorkerLink for FakeWorker {
    fn send(&self, message: ToWorker) -> Result<(), ToWorker> {
        if self.room.get() == 0 {
            // The next attempt finds room.
            self.room.set(1);
            return Err(message);
        }
        self.room.set(self.room.get() - 1);
        let mut text = format!("{message:?}");
        text.truncate(text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len()));
        self.log.lock().unwrap().push(format!("{}:{text}", self.index));
        let worker = self.index;
        let answer = match message {
            ToWorker::RemoveGroup { group, .. } => FromWorker::GroupRemoved { group, worker },
            ToWorker::RemoveLane { group, lane } => FromWorker::LaneRemoved { group, lane, worker },
            ToWorker::Listen { group, listener, shared, settings, former, .. } => {
                if settings != fourwave_tcp::Settings::default() {
                    let line = format!("{worker}:begins with {settings:?}");
                    self.log.lock().unwrap().push(line);
                }
                if let Some((GroupId(keeper), index)) = former {
                    let line = format!("{worker}:goes on with {index} of group {keeper}");
                    self.log.lock().unwrap().push(line);
                }
                // A backlog that no test means otherwise: this worker cannot listen.
                let fails = shared.backlog() == 13 && worker == 1;
                let error = fails.then_some(Errno::NOBUFS.raw_os_error());
                FromWorker::Listening { group, listener, worker, error }
            }
            ToWorker::Unlisten { group, listener, .. } => {
                FromWorker::Unlistened { group, listener, worker }
            }
            ToWorker::ReportIdle { port } => match self.unheard.borrow_mut().as_mut() {
                Some(unheard) => {
                    unheard.ports.push(port);
                    return Ok(());
                }
                None => FromWorker::PortIdle { port, worker },
            },
            ToWorker::Look { told } | ToWorker::Configure { told, .. } => {
                match self.unheard.borrow_mut().as_mut() {
                    Some(unheard) => {
                        unheard.told.push(told);
                        return Ok(());
                    }
                    None => FromWorker::Looked { told },
                }
            }
            ToWorker::Tap(tap) => {
                // One frame, received and refused.
                let dropped = fourwave_stack::Reason::find("not_ip");
                let fate = Fate::Received { from: None, dropped };
                if let Some(mut slot) = tap.slot(worker, fate, &[worker as u8; 100]) {
                    slot.fill(7, fate, &[worker as u8; 100]);
                    tap.pass(worker, slot);
                    tap.ring();
                }
                return Ok(());
            }
            ToWorker::Inquire(inquiry) => {
                self.questions.borrow_mut().push(inquiry);
                self.go_on();
                return Ok(());
            }
            ToWorker::Drain => FromWorker::Drained { worker },
            ToWorker::Fork { group, child, .. } => {
                FromWorker::Forked { group, process: child.process(), worker }
            }
            ToWorker::RemoveProcess { group, process } => {
                FromWorker::ProcessRemoved { group, process, worker }
            }
            ToWorker::AddGroup { group } => {
                self.log.lock().unwrap().push(format!("{worker}:group {}", group.id().0));
                return Ok(());
            }
            ToWorker::Paths(_) | ToWorker::AddLane { .. } | ToWorker::Stop => return Ok(()),
        };
        self.say(answer);
        Ok(())
    }

    fn wake(&self) {
        self.go_on();
    }

    fn receive(&self) -> Option<FromWorker> {
        self.answers.borrow_mut().pop_front()
    }

    fn notify_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    fn clear(&self) {
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }

    fn counters(&self) -> Vec<(Name, u64)> {
        vec![(("InSegs", None), 21), (("dropped", Some("late")), 1), (("dropped", Some("odd")), 2)]
    }
}

impl FakeWorker {
    /// Gives as many rows as there is room for, then the end.
    pub(super) fn go_on(&self) {
        self.questions.borrow_mut().retain(|inquiry| {
            if inquiry.is_withdrawn() {
                self.log.lock().unwrap().push(format!("{}:withdrawn", self.index));
                return false;
            }
            while self.rows.get() > 0 && inquiry.answer(self.index, Answer::Socket(row())) {
                self.rows.set(self.rows.get() - 1);
            }
            let ended = self.rows.get() == 0 && inquiry.answer(self.index, Answer::End);
            inquiry.ring();
            !ended
        });
    }

    pub(super) fn be_busy(&self) {
        self.unheard.replace(Some(Unheard::default()));
    }

    /// Until an answer is waited for, while it is busy.
    pub(super) async fn until_it_owes(&self) {
        let owes = || self.unheard.borrow().as_ref().is_some_and(|it| !it.told.is_empty());
        for _ in 0..2000 {
            if owes() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("nobody asks worker {} for anything", self.index);
    }

    pub(super) fn hear(&self) {
        let Unheard { ports, told } = self.unheard.take().unwrap_or_default();
        for port in ports {
            self.say(FromWorker::PortIdle { port, worker: self.index });
        }
        told.into_iter().for_each(|told| self.say(FromWorker::Looked { told }));
    }

    pub(super) fn say(&self, message: FromWorker) {
        self.answers.borrow_mut().push_back(message);
        rustix::io::write(&self.bell, &1u64.to_ne_bytes()).unwrap();
    }
}

pub(super) fn row() -> Row {
    let endpoint = |text: &str| fourwave_wire::Endpoint::from(text.parse::<SocketAddr>().unwrap());
    Row {
        tuple: fourwave_wire::FourTuple {
            local: endpoint("10.0.0.1:80"),
            remote: endpoint("10.0.0.2:5000"),
        },
        state: SocketState::Established,
        group: Some(GroupId(1)),
        holder: Some(Process::FIRST),
        receive_queue: 3,
        send_queue: 4,
        timer: None,
        waiting: None,
        kind: SocketKind::Held,
    }
}

/// The same worker for control and for the test.
pub(super) struct SharedWorker(pub(super) Rc<FakeWorker>);

impl WorkerLink for SharedWorker {
    fn send(&self, message: ToWorker) -> Result<(), ToWorker> {
        self.0.send(message)
    }
    fn wake(&self) {
        self.0.wake();
    }
    fn receive(&self) -> Option<FromWorker> {
        self.0.receive()
    }
    fn notify_fd(&self) -> BorrowedFd<'_> {
        self.0.notify_fd()
    }
    fn clear(&self) {
        self.0.clear();
    }
    fn counters(&self) -> Vec<(Name, u64)> {
        self.0.counters()
    }
}
