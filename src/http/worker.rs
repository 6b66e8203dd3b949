//! The loop: one thread, the readiness of its clients' sockets by epoll, and a turn for each that is ready. It never waits
//! for anything else.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use super::client::{Client, Turn};
use super::connection::{Buffers, Now};
use super::readiness::{Event, Poller, Ready};
use super::shared::Shared;
use crate::stats::Heartbeat;

/// How often deadlines are looked at, and how often while the server closes.
const SWEEP_EVERY: Duration = Duration::from_millis(500);
const SWEEP_EVERY_CLOSING: Duration = Duration::from_millis(20);
/// How often samples are looked at that are being stored: a disk that stalls wakes nobody.
const STORED_EVERY: Duration = Duration::from_millis(50);
/// How long a closing server lets idle clients send another request, whose answer says that it is the last. A client that
/// sends one just when the connection is closed cannot know whether it was taken: nginx answers such a POST by 502.
const CLOSING_IDLE_MAX: Duration = Duration::from_secs(1);

/// What other threads give to a loop.
pub(super) struct Inbox {
    pub(super) poller: Poller,
    pub(super) heartbeat: Heartbeat,
    parcels: Mutex<Vec<Parcel>>,
}

pub(super) enum Parcel {
    New(Box<Client>),
    /// The client of a slot, and what it is to be given next.
    Back(usize, Box<Client>, Turn),
    /// The client of a slot is no more.
    Lost(usize),
}

impl Inbox {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { poller: Poller::new()?, heartbeat: Heartbeat::default(), parcels: Mutex::default() })
    }

    pub(super) fn put(&self, parcel: Parcel) {
        let mut parcels = self.parcels();
        parcels.push(parcel);
        if parcels.len() == 1 {
            self.poller.wake();
        }
    }

    fn parcels(&self) -> MutexGuard<'_, Vec<Parcel>> {
        self.parcels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Inbox {
    fn wake(self: Arc<Self>) {
        self.poller.wake();
    }
}

/// A client that is with another thread. Dropping this tells its loop what became of it.
struct Absent {
    inbox: Arc<Inbox>,
    slot: usize,
    /// Nothing where a panic has ended the client's turn, or no thread began it.
    result: Option<(Box<Client>, Turn)>,
}

impl Absent {
    fn give_back(&mut self, client: Box<Client>, turn: Turn) {
        self.result = Some((client, turn));
    }
}

impl Drop for Absent {
    fn drop(&mut self) {
        let parcel =
            self.result.take().map_or(Parcel::Lost(self.slot), |(client, turn)| Parcel::Back(self.slot, client, turn));
        self.inbox.put(parcel);
    }
}

/// Where a client is.
enum Slot {
    Free,
    Here(Box<Client>),
    /// With a thread that may wait, or among those whose samples are being stored; and what its socket has become ready for
    /// meanwhile.
    Away(Option<Ready>),
}

/// One loop.
pub(super) struct Worker {
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Slots of clients that get another turn without their sockets becoming ready.
    again: Vec<usize>,
    /// Clients whose samples are being stored, which happens in their order, with their slots.
    storing: VecDeque<(usize, Box<Client>)>,
    /// Ends the wait of this loop.
    waker: Waker,
    buffers: Buffers,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, inbox: Arc<Inbox>) -> Self {
        let (slots, free, again, storing) = (Vec::new(), Vec::new(), Vec::new(), VecDeque::new());
        let waker = Waker::from(inbox.clone());
        Self { shared, inbox, slots, free, again, storing, waker, buffers: Buffers::default() }
    }

    /// Serves clients until the server closes and all of them have been answered.
    pub(super) fn run(&mut self) {
        let (mut events, mut swept, mut closing_since) = (Vec::new(), Instant::now(), None);
        loop {
            let sweep_every = if closing_since.is_some() { SWEEP_EVERY_CLOSING } else { SWEEP_EVERY };
            let wait = match (self.again.is_empty(), self.storing.is_empty()) {
                (false, _) => Duration::ZERO,
                (true, true) => sweep_every,
                (true, false) => STORED_EVERY.min(sweep_every),
            };
            if let Err(error) = self.inbox.poller.wait(&mut events, wait) {
                log::error!("The sockets of clients cannot be waited for: {error}");
                return;
            }
            self.inbox.heartbeat.record();
            let now = Now::of_clocks(&self.shared.api);
            self.take_stored(now);
            for slot in std::mem::take(&mut self.again) {
                self.turn(slot, now, Ready::default());
            }
            for event in events.drain(..) {
                match event {
                    Event::Woken => {
                        let parcels = std::mem::take(&mut *self.inbox.parcels());
                        parcels.into_iter().for_each(|parcel| self.unpack(parcel, now));
                    }
                    Event::Ready { key, ready } => self.turn(key, now, ready),
                }
            }
            if self.shared.is_draining() {
                closing_since.get_or_insert(now.instant);
                if self.free.len() == self.slots.len() && self.inbox.parcels().is_empty() {
                    return;
                }
            }
            if now.instant.duration_since(swept) >= sweep_every {
                swept = now.instant;
                let closes_idle = closing_since.is_some_and(|since| swept.duration_since(since) >= CLOSING_IDLE_MAX);
                self.sweep(now, closes_idle);
            }
        }
    }

    fn unpack(&mut self, parcel: Parcel, now: Now) {
        match parcel {
            Parcel::New(client) => {
                let slot = self.free.pop().unwrap_or_else(|| {
                    self.slots.push(Slot::Free);
                    self.slots.len() - 1
                });
                match self.inbox.poller.add(client.stream().socket(), slot) {
                    Ok(()) => self.slots[slot] = Slot::Here(client),
                    Err(error) => {
                        log::warn!("A connection cannot be waited for: {error}");
                        self.free.push(slot);
                    }
                }
            }
            Parcel::Back(slot, client, turn) => match (turn, self.put_back(slot, client)) {
                (Turn::Wait, Some(missed)) => self.turn(slot, now, missed),
                (turn, _) => self.give(slot, turn),
            },
            Parcel::Lost(slot) => self.close(slot),
        }
    }

    /// Puts a client back in its slot, and tells what its socket has become ready for meanwhile.
    fn put_back(&mut self, slot: usize, mut client: Box<Client>) -> Option<Ready> {
        let missed = if let Slot::Away(missed) = self.slots[slot] { missed } else { None };
        client.ready.add(missed.unwrap_or_default());
        self.slots[slot] = Slot::Here(client);
        missed
    }

    /// Gives a turn to each client whose sample is stored.
    fn take_stored(&mut self, now: Now) {
        let stored = self.storing.iter().take_while(|(_, client)| client.is_stored(now)).count();
        for (slot, client) in self.storing.drain(..stored).collect::<Vec<_>>() {
            self.put_back(slot, client);
            self.turn(slot, now, Ready::default());
        }
    }

    /// Gives a client a turn.
    fn turn(&mut self, slot: usize, now: Now, ready: Ready) {
        let turn = match &mut self.slots[slot] {
            Slot::Free => return,
            Slot::Away(missed) => {
                missed.get_or_insert_default().add(ready);
                return;
            }
            Slot::Here(client) => {
                client.ready.add(ready);
                let (shared, buffers, waker) = (&self.shared, &mut self.buffers, Some(&self.waker));
                // A panic costs this connection alone.
                catch_unwind(AssertUnwindSafe(|| client.proceed(shared, buffers, now, waker))).unwrap_or(Turn::Close)
            }
        };
        self.give(slot, turn);
    }

    fn give(&mut self, slot: usize, turn: Turn) {
        match turn {
            Turn::Wait => {}
            Turn::Again => self.again.push(slot),
            Turn::Stored => {
                let client = self.take_away(slot);
                self.storing.extend(client.map(|client| (slot, client)));
            }
            Turn::Store | Turn::Read => self.hand_over(slot, turn),
            Turn::Close => self.close(slot),
        }
    }

    fn take_away(&mut self, slot: usize) -> Option<Box<Client>> {
        match std::mem::replace(&mut self.slots[slot], Slot::Away(None)) {
            Slot::Here(client) => Some(client),
            Slot::Free | Slot::Away(_) => None,
        }
    }

    fn close(&mut self, slot: usize) {
        // Its socket leaves the epoll with it.
        self.slots[slot] = Slot::Free;
        self.free.push(slot);
    }

    /// Has a client go on with a thread that may wait.
    fn hand_over(&mut self, slot: usize, turn: Turn) {
        let Some(mut client) = self.take_away(slot) else { return };
        let mut absent = Absent { inbox: self.inbox.clone(), slot, result: None };
        let shared = self.shared.clone();
        let job = move || {
            let turn = client.proceed(&shared, &mut Buffers::default(), Now::of_clocks(&shared.api), None);
            absent.give_back(client, turn);
        };
        let pool = if turn == Turn::Read { &self.shared.read_pool } else { &self.shared.store_pool };
        if let Err(error) = pool.run(job) {
            log::warn!("No thread to answer a request with: {error}");
        }
    }

    /// Looks at the deadlines of all clients.
    fn sweep(&mut self, now: Now, closes_idle: bool) {
        for slot in 0..self.slots.len() {
            let Slot::Here(client) = &mut self.slots[slot] else { continue };
            let turn = if closes_idle && client.is_idle() {
                Turn::Close
            } else if client.deadline() <= now.instant {
                client.expire(&self.shared, &mut self.buffers, now, &self.waker)
            } else {
                continue;
            };
            self.give(slot, turn);
        }
    }
}
