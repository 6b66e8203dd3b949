//! Whose turn it is on a connection: one request at a time is at the desk, and none after a connection has ended.
//!
//! tiny_http hands over pipelined requests before the earlier ones are answered, and a thread that answers out of turn
//! waits inside it without a limit. It cannot end a connection either: requests that follow one whose end is uncertain,
//! or whose answer was given up, are let go here, unanswered and without effect.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::{HashMap, HashMapExt};
use tiny_http::Request;

use super::cookie;

/// Requests that may wait on one connection. What comes beyond is let go, and with it the connection.
const WAITING_MAX: usize = 16_384;
/// How long what comes from the port of a connection that has ended is taken for that connection's, where the kernel
/// does not tell whose it is: what was on its way when the last answer left has come by then, and a client that heeds
/// the answer has closed. Linux gives a port to the next connection after a second, unless the last one was reset.
const ENDED_KEPT: Duration = Duration::from_millis(900);
/// Most ended connections that are remembered; past it, the one that ended first is forgotten.
const ENDED_MAX: usize = 4096;

/// The connections that have something at the desk, or have ended.
pub(super) struct Turns {
    /// Where the door listens.
    server: SocketAddr,
    state: Mutex<State>,
}

struct State {
    busy: HashMap<SocketAddr, VecDeque<Request>>,
    ended: HashMap<SocketAddr, Ended>,
    /// In the order they ended, with those that have been forgotten.
    ended_order: VecDeque<(SocketAddr, Instant)>,
}

/// A connection that has ended: which one it was, unless it was gone already, and when.
#[derive(Clone, Copy)]
struct Ended {
    cookie: Option<u64>,
    at: Instant,
}

impl Turns {
    /// Those of the door at an address.
    pub(super) fn new(server: SocketAddr) -> Self {
        let state = State { busy: HashMap::new(), ended: HashMap::new(), ended_order: VecDeque::new() };
        Self { server, state: Mutex::new(state) }
    }

    /// Gives a request back that may come to the desk now. Another one of its connection is there otherwise, and it
    /// waits; or the connection has ended, and it is let go.
    pub(super) fn begin(&self, client: SocketAddr, request: Request) -> Option<Request> {
        let mut state = self.lock();
        if let Some(ended) = state.ended.get(&client) {
            if ended.is_of(cookie::of(self.server, client)) {
                drop(state);
                let_go(request);
                return None;
            }
            // Another connection from the same port.
            state.ended.remove(&client);
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
                state.end(client, cookie::of(self.server, client));
                drop(state);
                waiting.into_iter().chain([request]).for_each(let_go);
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

    /// Ends a connection with the turn that it has: those that wait are let go, and what else comes on it.
    ///
    /// Before the last answer is on its way: with it, the client may have another connection from the same port.
    pub(super) fn end(&self, client: SocketAddr) {
        let mut state = self.lock();
        state.end(client, cookie::of(self.server, client));
        let waiting = state.busy.remove(&client);
        drop(state);
        waiting.into_iter().flatten().for_each(let_go);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn end(&mut self, client: SocketAddr, cookie: Option<u64>) {
        let at = Instant::now();
        while self.ended_order.len() >= ENDED_MAX {
            let Some((first, at)) = self.ended_order.pop_front() else { break };
            // It may have ended once more since.
            if self.ended.get(&first).is_some_and(|ended| ended.at == at) {
                self.ended.remove(&first);
            }
        }
        self.ended_order.push_back((client, at));
        self.ended.insert(client, Ended { cookie, at });
    }
}

impl Ended {
    /// Whether a request is of this connection, which comes from its port, where `now` is the connection.
    fn is_of(self, now: Option<u64>) -> bool {
        match now {
            Some(now) => self.cookie == Some(now),
            None => self.at.elapsed() < ENDED_KEPT,
        }
    }
}

/// Drops a request without an answer. Its body may have to be read away, unless that would be dangerous.
fn let_go(request: Request) {
    match super::desk::Unread::of(&request) {
        super::desk::Unread::Nothing => drop(request.into_writer()),
        _ => std::mem::forget(request),
    }
}
