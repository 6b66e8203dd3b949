//! Whose turn it is on a connection: one request at a time is at the desk, and none after a connection has ended.
//!
//! tiny_http hands over pipelined requests before the earlier ones are answered, and a thread that answers out of turn
//! waits inside it without a limit. It cannot end a connection either: requests that follow one whose end is uncertain,
//! or whose answer was given up, are let go here, unanswered and without effect.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::HashMap;
use tiny_http::Request;

use super::cookie::Cookies;
use super::desk::Unread;
use crate::api::Api;

/// Requests that may wait on one connection. What comes beyond is let go, and with it the connection.
const WAITING_MAX: usize = 16_384;
/// How long after its last answer a connection that has ended is remembered: what was on its way has come by then, and a
/// client that heeds the answer has closed. Not longer, since the client's next connection may come from the same port,
/// and be let go as well where the kernel does not tell the two apart. On its own loopback Linux gives a port that was
/// not reset to another connection after a second.
const ENDED_KEPT: Duration = Duration::from_millis(900);
/// Most ended connections that are remembered; past it, the one that ended first is forgotten.
const ENDED_MAX: usize = 4096;

/// The connections that have something at the desk, or have ended.
pub(super) struct Turns {
    api: Arc<Api>,
    cookies: Cookies,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    busy: HashMap<SocketAddr, VecDeque<Request>>,
    ended: Ended,
}

impl Turns {
    /// Those of the door at an address.
    pub(super) fn new(api: Arc<Api>, server: SocketAddr) -> Self {
        Self { api, cookies: Cookies::new(server), state: Mutex::default() }
    }

    /// Gives a request back that may come to the desk now. Otherwise another one of its connection is there, and it
    /// waits; or the connection has ended, or ends because too many wait, and it is let go.
    pub(super) fn begin(&self, client: SocketAddr, request: Request) -> Option<Request> {
        let mut state = self.lock();
        if let Some(end) = state.ended.recent(client) {
            drop(state);
            if end.may_be_of(self.cookies.of(client)) {
                self.let_go(request);
                return None;
            }
            state = self.lock();
        }
        match state.busy.get_mut(&client) {
            None => {
                state.busy.insert(client, VecDeque::new());
                Some(request)
            }
            Some(waiting) if waiting.len() < WAITING_MAX => {
                waiting.push_back(request);
                None
            }
            Some(waiting) => {
                let waiting = std::mem::take(waiting);
                drop(state);
                // It has no last answer: whatever comes would be taken for the answers to those that are let go.
                self.remember(client);
                waiting.into_iter().chain([request]).for_each(|request| self.let_go(request));
                None
            }
        }
    }

    /// The next request of a connection whose turn is done, if there is one, and how many wait after it.
    pub(super) fn next(&self, client: SocketAddr) -> Option<(Request, usize)> {
        let mut state = self.lock();
        let next = state.busy.get_mut(&client).and_then(|waiting| Some((waiting.pop_front()?, waiting.len())));
        if next.is_none() {
            state.busy.remove(&client);
        }
        next
    }

    /// Ends a connection with the turn that it has: those that wait are let go, and what else comes on it while
    /// `last_answer` is given, and soon after.
    ///
    /// The connection has ended before the client has its answer, since with that it may have another from the same port.
    pub(super) fn end(&self, client: SocketAddr, last_answer: impl FnOnce()) {
        let end = self.remember(client);
        let waiting = self.lock().busy.remove(&client);
        waiting.into_iter().flatten().for_each(|request| self.let_go(request));
        last_answer();
        self.lock().ended.was_answered(client, end);
    }

    fn remember(&self, client: SocketAddr) -> u64 {
        let cookie = self.cookies.of(client);
        self.lock().ended.remember(client, cookie)
    }

    /// Drops a request without an answer, and without its body being read. Where tiny_http would read that first, it is
    /// parked.
    fn let_go(&self, request: Request) {
        match Unread::of(&request) {
            Unread::Nothing => drop(request.into_writer()),
            Unread::Bytes(_) | Unread::Chunks => {
                self.api.stats().parked.add(1);
                std::mem::forget(request);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connections that have ended, by the ports of their clients.
#[derive(Default)]
struct Ended {
    ends: HashMap<SocketAddr, End>,
    /// In the order in which they ended, with those that another one of the same port has replaced.
    order: VecDeque<(SocketAddr, u64)>,
    /// The number of the next one.
    next: u64,
}

/// The end of a connection.
#[derive(Clone, Copy)]
struct End {
    number: u64,
    /// Which connection it is, where that is known.
    cookie: Option<u64>,
    /// When the last answer had been given; none while it is.
    answered: Option<Instant>,
}

impl Ended {
    /// The end of the last connection of a port that ended, unless it was a while ago.
    fn recent(&self, client: SocketAddr) -> Option<End> {
        self.ends.get(&client).copied().filter(|end| end.is_recent())
    }

    /// Remembers that a connection ends, and gives the number of its end.
    fn remember(&mut self, client: SocketAddr, cookie: Option<u64>) -> u64 {
        while let Some((first, number)) = self.order.front() {
            let held = self.ends.get(first).filter(|end| end.number == *number);
            if held.is_some_and(End::is_recent) && self.order.len() < ENDED_MAX {
                break;
            }
            if held.is_some() {
                self.ends.remove(first);
            }
            self.order.pop_front();
        }
        let number = self.next;
        self.next += 1;
        self.order.push_back((client, number));
        self.ends.insert(client, End { number, cookie, answered: None });
        number
    }

    fn was_answered(&mut self, client: SocketAddr, number: u64) {
        if let Some(end) = self.ends.get_mut(&client).filter(|end| end.number == number) {
            end.answered = Some(Instant::now());
        }
    }
}

impl End {
    fn is_recent(&self) -> bool {
        self.answered.is_none_or(|at| at.elapsed() < ENDED_KEPT)
    }

    /// Whether a request may be of the connection that has ended, where its port has the connection of a cookie now.
    fn may_be_of(self, now: Option<u64>) -> bool {
        self.cookie.zip(now).is_none_or(|(ended, now)| ended == now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn an_end_is_recent_until_a_while_after_its_last_answer() {
        let mut end = End { number: 0, cookie: None, answered: None };
        assert!(end.is_recent());
        end.answered = Some(Instant::now());
        assert!(end.is_recent());
        end.answered = Instant::now().checked_sub(ENDED_KEPT);
        assert!(!end.is_recent());
    }

    #[test]
    fn a_connection_is_another_only_where_both_are_known() {
        let end = |cookie| End { number: 0, cookie, answered: None };
        assert!(!end(Some(1)).may_be_of(Some(2)));
        assert!(end(Some(1)).may_be_of(Some(1)));
        assert!(end(Some(1)).may_be_of(None) && end(None).may_be_of(Some(1)) && end(None).may_be_of(None));
    }

    #[test]
    fn the_newest_end_of_a_port_is_kept_and_the_oldest_of_too_many_is_not() {
        let mut ended = Ended::default();
        let first = ended.remember(client(1), Some(1));
        let again = ended.remember(client(1), Some(2));
        ended.was_answered(client(1), first);
        assert!(ended.recent(client(1)).is_some_and(|end| end.cookie == Some(2) && end.answered.is_none()));
        for port in 2..ENDED_MAX as u16 {
            ended.remember(client(port), None);
        }
        assert!(ended.recent(client(1)).is_some());
        ended.remember(client(10_000), None);
        ended.remember(client(10_001), None);
        assert!(ended.recent(client(1)).is_none() && ended.recent(client(2)).is_some());
        assert!(ended.order.len() <= ENDED_MAX && ended.ends.len() <= ENDED_MAX);
        ended.was_answered(client(1), again);
        assert!(ended.recent(client(1)).is_none());
    }
}
