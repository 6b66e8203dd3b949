//! The loop: one thread, the readiness of its clients' sockets by epoll, and a turn for each that is ready. It never waits
//! for anything else.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use super::client::Client;
use super::connection::{Buffers, Now, Pause};
use super::readiness::{Poller, Ready};
use super::shared::Shared;
use crate::stats::Heartbeat;

/// How often deadlines are looked at, and how often while the server closes.
const SWEEP_EVERY: Duration = Duration::from_millis(500);
const SWEEP_EVERY_CLOSING: Duration = Duration::from_millis(20);
/// How often samples are looked at that are being stored: a disk that stalls wakes nobody.
const STORED_EVERY: Duration = Duration::from_millis(50);
/// Turns of other clients to one of a reader, and between two looks at which sockets are ready.
const OTHERS_TO_A_READER: usize = 8;
/// How long a closing server lets idle clients send another request, whose answer says that it is the last. A client that
/// sends one just when the connection is closed cannot know whether it was taken: nginx answers such a POST by 502.
const CLOSING_IDLE_MAX: Duration = Duration::from_secs(1);

/// What other threads give to a loop.
pub(super) struct Inbox {
    pub(super) poller: Poller,
    pub(super) heartbeat: Heartbeat,
    parcels: Mutex<Vec<Parcel>>,
    /// Whether some samples of clients of the loop have been stored.
    has_stored: AtomicBool,
}

/// A client, the slot that is kept for it, and why it does not go on where it was. A new client has no slot yet.
type Parcel = (Box<Client>, Option<usize>, Pause);

impl Inbox {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            poller: Poller::new()?,
            heartbeat: Heartbeat::default(),
            parcels: Mutex::default(),
            has_stored: AtomicBool::new(false),
        })
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
        self.has_stored.store(true, Ordering::Release);
        self.poller.wake();
    }
}

/// The place of one client, whose number is the key of its socket.
#[derive(Default)]
struct Slot {
    /// None where the slot is free, or its client is with a thread that may wait.
    client: Option<Box<Client>>,
    /// What the socket of a client that is away has become ready for.
    missed: Option<Ready>,
    /// Whether its turn comes.
    is_queued: bool,
    /// Whether it is among those whose samples are being stored.
    is_storing: bool,
}

/// One loop.
pub(super) struct Worker {
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Slots of clients whose turn comes: those whose last request was for something to read, and the others. A reader waits
    /// for a few posts, not for all that have come before, and readers leave most turns to posts.
    readers: VecDeque<usize>,
    others: VecDeque<usize>,
    /// Slots of clients whose samples are being stored.
    storing: Vec<usize>,
    /// Ends the wait of this loop.
    waker: Waker,
    buffers: Buffers,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, inbox: Arc<Inbox>) -> Self {
        let (slots, free, waker) = (Vec::new(), Vec::new(), Waker::from(inbox.clone()));
        let (readers, others, storing) = (VecDeque::new(), VecDeque::new(), Vec::new());
        Self { shared, inbox, slots, free, readers, others, storing, waker, buffers: Buffers::default() }
    }

    /// Serves clients until the server closes and all of them have been answered.
    pub(super) fn run(&mut self) {
        let (mut found, mut looked, mut swept, mut closing_since) = (Vec::new(), Instant::now(), Instant::now(), None);
        loop {
            let sweep_every = if closing_since.is_some() { SWEEP_EVERY_CLOSING } else { SWEEP_EVERY };
            let wait = match (self.readers.is_empty() && self.others.is_empty(), self.storing.is_empty()) {
                (false, _) => Duration::ZERO,
                (true, true) => sweep_every,
                (true, false) => STORED_EVERY.min(sweep_every),
            };
            if let Err(error) = self.inbox.poller.wait(&mut found, wait) {
                log::error!("The sockets of clients cannot be waited for: {error}");
                return;
            }
            self.inbox.heartbeat.record();
            found.drain(..).for_each(|(slot, ready)| self.report(slot, ready));
            let parcels = mem::take(&mut *self.inbox.parcels());
            parcels.into_iter().for_each(|parcel| self.unpack(parcel));
            let now = Now::of_clocks(&self.shared.api);
            if self.inbox.has_stored.swap(false, Ordering::AcqRel) || now.instant.duration_since(looked) >= STORED_EVERY
            {
                looked = now.instant;
                self.stored(now);
            }
            self.turns(now);
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

    /// Takes a new client, or one that was away.
    fn unpack(&mut self, (mut client, slot, pause): Parcel) {
        if let Some(slot) = slot {
            let missed = self.slots[slot].missed.take();
            client.ready.add(missed.unwrap_or_default());
            self.slots[slot].client = Some(client);
            let waits = matches!(pause, Pause::Input | Pause::Output);
            return self.give(slot, if waits && missed.is_some() { Pause::Others } else { pause });
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        match self.inbox.poller.add(client.socket(), slot) {
            Ok(()) => self.slots[slot].client = Some(client),
            Err(error) => {
                log::warn!("A connection cannot be waited for: {error}");
                self.free.push(slot);
            }
        }
    }

    /// Takes note of what a socket has become ready for. No slot is freed between the wait and this: the client that is in
    /// the slot is the one whose socket was reported.
    fn report(&mut self, slot: usize, ready: Ready) {
        let Slot { client, missed, .. } = &mut self.slots[slot];
        client.as_mut().map_or_else(|| missed.get_or_insert_default(), |client| &mut client.ready).add(ready);
        self.queue(slot);
    }

    /// Gives a client that is here a turn.
    fn queue(&mut self, slot: usize) {
        let Slot { client: Some(client), is_queued, .. } = &mut self.slots[slot] else { return };
        if !mem::replace(is_queued, true) {
            let queue = if client.is_reader() { &mut self.readers } else { &mut self.others };
            queue.push_back(slot);
        }
    }

    /// Whether the client of a slot can go on, or is not there.
    fn can_go_on(&self, slot: usize, now: Now) -> bool {
        self.slots[slot].client.as_ref().is_none_or(|client| client.can_go_on(now))
    }

    /// Gives each client a turn whose sample is not waited for any more.
    fn stored(&mut self, now: Now) {
        let storing = mem::take(&mut self.storing);
        let (stored, storing): (Vec<_>, _) = storing.into_iter().partition(|slot| self.can_go_on(*slot, now));
        self.storing = storing;
        for slot in stored {
            self.slots[slot].is_storing = false;
            self.turn(slot, now);
        }
    }

    /// Gives a reader and some of the others their turns.
    fn turns(&mut self, now: Now) {
        for turn in 0..=OTHERS_TO_A_READER {
            let queue = if turn == 0 { &mut self.readers } else { &mut self.others };
            if let Some(slot) = queue.pop_front() {
                self.slots[slot].is_queued = false;
                self.turn(slot, now);
            }
        }
    }

    /// Has a client go on, unless it waits for another thread or for its sample.
    fn turn(&mut self, slot: usize, now: Now) {
        if let Slot { client: Some(client), .. } = &mut self.slots[slot]
            && client.can_go_on(now)
        {
            let pause = client.proceed(&self.shared, &mut self.buffers, now, Some(&self.waker));
            self.give(slot, pause);
        }
    }

    /// Gives a client what it needs to go on.
    fn give(&mut self, slot: usize, pause: Pause) {
        match pause {
            Pause::Input | Pause::Output => {}
            Pause::Others => self.queue(slot),
            Pause::Sample => {
                if !mem::replace(&mut self.slots[slot].is_storing, true) {
                    self.storing.push(slot);
                }
            }
            Pause::Store | Pause::Read => self.hand_over(slot, pause == Pause::Read),
            Pause::End => self.close(slot),
        }
    }

    fn close(&mut self, slot: usize) {
        // Its socket leaves the epoll with it.
        self.slots[slot] = Slot { is_storing: self.slots[slot].is_storing, ..Slot::default() };
        self.free.push(slot);
    }

    /// Has a client go on with a thread that may wait.
    fn hand_over(&mut self, slot: usize, is_read: bool) {
        let Some(mut client) = self.slots[slot].client.take() else { return };
        let (shared, inbox) = (self.shared.clone(), self.inbox.clone());
        let job = move || {
            let pause = client.proceed(&shared, &mut Buffers::default(), Now::of_clocks(&shared.api), None);
            inbox.put((client, Some(slot), pause));
        };
        let pool = if is_read { &self.shared.read_pool } else { &self.shared.store_pool };
        if let Err(error) = pool.run(job) {
            log::warn!("No thread to answer a request with: {error}");
            self.close(slot);
        }
    }

    /// Looks at the deadlines of all clients that wait for nothing but theirs.
    fn sweep(&mut self, now: Now, closes_idle: bool) {
        for slot in 0..self.slots.len() {
            let Slot { client: Some(client), is_queued, .. } = &mut self.slots[slot] else { continue };
            let pause = if closes_idle && client.is_idle() && !*is_queued {
                Pause::End
            } else if client.deadline() <= now.instant && client.can_go_on(now) {
                client.expire(&self.shared, &mut self.buffers, now, &self.waker)
            } else {
                continue;
            };
            self.give(slot, pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    #[cfg(feature = "redis")]
    use std::thread;

    use super::super::Options;
    use super::super::stream::Stream;
    use super::*;
    use crate::api::Api;
    use crate::auth::{Authorizer, ReadAccess};
    use crate::ingest::Ingest;
    #[cfg(any(feature = "disk", feature = "redis"))]
    use crate::store::Location;
    #[cfg(feature = "redis")]
    use crate::store::RedisAddress;
    use crate::store::Store;

    const READABLE: Ready = Ready { is_readable: true, has_ended: false };

    struct Fixture {
        worker: Worker,
        listener: TcpListener,
        now: Now,
    }

    impl Fixture {
        fn new(store: Store) -> Self {
            let ingest = Ingest::new(Arc::new(store), Authorizer::allow_all(), Arc::default());
            let (api, inbox) = (Api::new(Arc::new(ingest), ReadAccess::Anyone), Arc::new(Inbox::new().unwrap()));
            let shared = Arc::new(Shared::new(&Arc::new(api), &Options::default()));
            let (now, listener) = (Now::of_clocks(&shared.api), TcpListener::bind("127.0.0.1:0").unwrap());
            Self { worker: Worker::new(shared, inbox), listener, now }
        }

        fn connect(&mut self) -> TcpStream {
            let socket = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
            let (accepted, address) = self.listener.accept().unwrap();
            accepted.set_nonblocking(true).unwrap();
            let guard = self.worker.shared.limits.admit(address.ip()).unwrap();
            let client = Client::new(Stream::plain(accepted), guard, self.now.instant);
            self.worker.unpack((Box::new(client), None, Pause::Input));
            socket
        }

        fn client(&self, slot: usize) -> &Client {
            self.worker.slots[slot].client.as_ref().unwrap()
        }

        /// Gives a client turns until something holds.
        fn turns_until(&mut self, slot: usize, holds: impl Fn(&Client) -> bool) {
            while !holds(self.client(slot)) {
                self.worker.report(slot, READABLE);
                self.worker.turns(self.now);
            }
        }
    }

    #[test]
    fn a_reader_waits_for_a_few_others_and_takes_one_turn_of_many() {
        let mut fixture = Fixture::new(Store::new(1));
        let mut sockets: Vec<TcpStream> = (0..30).map(|_| fixture.connect()).collect();
        sockets[29].write_all(b"GET /api/perf/h HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        fixture.turns_until(29, Client::is_reader);
        let Fixture { mut worker, now, .. } = fixture;
        (0..30).for_each(|slot| worker.report(slot, READABLE));
        for others_left in [21, 13] {
            worker.report(29, READABLE);
            assert_eq!(worker.readers, [29]);
            worker.turns(now);
            assert!(worker.readers.is_empty());
            assert!(worker.others.iter().copied().eq(29 - others_left..29), "{:?}", worker.others);
        }
    }

    /// Connects a client that takes no answers, and sends a sample behind another request.
    #[cfg(any(feature = "disk", feature = "redis"))]
    fn connect_stalled(fixture: &mut Fixture) -> TcpStream {
        use std::os::fd::AsFd;

        use nix::poll::{PollFd, PollFlags, poll};

        /// Longer than a receiver waits before it acknowledges.
        const ACKNOWLEDGED_MS: u16 = 300;

        let mut socket = fixture.connect();
        // What the other side has is acknowledged later, which makes room for more.
        let mut taken = fixture.client(0).socket();
        let mut is_writable = [PollFd::new(taken.as_fd(), PollFlags::POLLOUT)];
        for length in [65_536, 1] {
            while poll(&mut is_writable, ACKNOWLEDGED_MS).unwrap() > 0 || taken.write(&[0; 65_536][..length]).is_ok() {
                while taken.write(&[0; 65_536][..length]).is_ok() {}
            }
        }
        let requests = "GET /ping HTTP/1.1\r\nHost: x\r\n\r\nPOST /api/perf/h/1465001814 HTTP/1.1\r\nHost: x\r\n\
            Content-Length: 9\r\n\r\n{\"cpu\":1}";
        socket.write_all(requests.as_bytes()).unwrap();
        socket
    }

    #[cfg(feature = "disk")]
    #[test]
    fn a_sample_is_waited_for_also_while_the_answers_before_it_are_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let location = Location::Directory { path: dir.path().to_owned(), fsync_always: false };
        let mut fixture = Fixture::new(Store::open(&location, 1, 1_465_001_814).unwrap());
        let _stalled = fixture.worker.shared.api.ingest().store().stall();
        let _socket = connect_stalled(&mut fixture);
        let now = fixture.now;
        fixture.turns_until(0, |client| !client.can_go_on(now));
        assert_eq!(fixture.worker.storing, [0]);
    }

    #[cfg(feature = "redis")]
    #[test]
    fn a_sample_that_another_thread_goes_on_with_does_not_wait_until_the_answers_before_it_are_taken() {
        // It answers nobody: what the store keeps has yet to be asked for, which may wait.
        let redis = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://{}", redis.local_addr().unwrap());
        let location = Location::Redis(RedisAddress::parse(&url, None).unwrap());
        let mut fixture = Fixture::new(Store::open(&location, 1, 1_465_001_814).unwrap());
        let _socket = connect_stalled(&mut fixture);
        // Another thread has the client.
        let is_away = |fixture: &Fixture| fixture.worker.slots[0].client.is_none();
        for _ in 0..10 {
            if !is_away(&fixture) {
                fixture.worker.report(0, READABLE);
                fixture.worker.turns(fixture.now);
            }
        }
        assert!(is_away(&fixture));
        while fixture.worker.inbox.parcels().is_empty() {
            thread::yield_now();
        }
        assert_eq!(fixture.worker.shared.api.stats().refused_unavailable.get(), 1);
    }
}
