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

/// Requests that may wait on one connection. What comes beyond is let go, and with it the connection.
const WAITING_MAX: usize = 16_384;
/// How long a connection that has ended is remembered: what was on its way when its last answer left has come by then,
/// and a client that heeds the answer has closed it. Not longer, since the next connection of a client may come from the
/// same port, and would be let go as well: after a second at the earliest, where Linux has clients on its own loopback.
const ENDED_KEPT: Duration = Duration::from_millis(900);
/// Most ended connections that are remembered; past it, the one that ended first is forgotten.
const ENDED_MAX: usize = 4096;

/// The connections that have something at the desk, or have ended.
pub(super) struct Turns(Mutex<State>);

struct State {
    busy: HashMap<SocketAddr, VecDeque<Request>>,
    ended: HashMap<SocketAddr, Instant>,
    /// In the order they ended.
    ended_order: VecDeque<SocketAddr>,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State { busy: HashMap::new(), ended: HashMap::new(), ended_order: VecDeque::new() }))
    }

    /// Gives a request back that may come to the desk now. Another one of its connection is there otherwise, and it
    /// waits; or the connection has ended, and it is let go.
    pub(super) fn begin(&self, client: SocketAddr, request: Request) -> Option<Request> {
        let mut state = self.lock();
        match state.ended.get(&client).map(Instant::elapsed) {
            Some(since) if since < ENDED_KEPT => {
                drop(state);
                let_go(request);
                return None;
            }
            // Another connection from the same port.
            Some(_) => drop(state.ended.remove(&client)),
            None => {}
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
            Some(_) => {
                state.end(client);
                // Its turn never comes: it must not be dropped, which would wait for it.
                std::mem::forget(request);
                None
            }
        }
    }

    /// The next request of a connection whose turn is done, if there is one, and how many wait after it. Where the
    /// connection has ended with it, those that wait are let go.
    pub(super) fn next(&self, client: SocketAddr, has_ended: bool) -> Option<(Request, usize)> {
        let mut state = self.lock();
        if has_ended {
            state.end(client);
        }
        if state.ended.contains_key(&client) {
            let waiting = state.busy.remove(&client);
            drop(state);
            waiting.into_iter().flatten().for_each(let_go);
            return None;
        }
        let next = state.busy.get_mut(&client).and_then(|waiting| Some((waiting.pop_front()?, waiting.len())));
        if next.is_none() {
            state.busy.remove(&client);
        }
        next
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn end(&mut self, client: SocketAddr) {
        while self.ended_order.len() >= ENDED_MAX
            || self
                .ended_order
                .front()
                .is_some_and(|first| self.ended.get(first).is_none_or(|at| at.elapsed() >= ENDED_KEPT))
        {
            if let Some(first) = self.ended_order.pop_front() {
                self.ended.remove(&first);
            }
        }
        if self.ended.insert(client, Instant::now()).is_none() {
            self.ended_order.push_back(client);
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
