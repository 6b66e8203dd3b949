//! Whose turn it is on a connection: one request at a time is at the desk, and none after a connection has ended.
//!
//! tiny_http hands over pipelined requests before the earlier ones are answered, and a thread that answers out of turn
//! waits inside it without a limit. It cannot end a connection either: requests that follow one whose end is uncertain,
//! or whose answer was given up, are let go here, unanswered and without effect.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::HashMap;
use tiny_http::Request;

use super::cookie::Cookies;

/// Requests that may wait on one connection. What comes beyond is let go, and with it the connection.
const WAITING_MAX: usize = 16_384;
/// How long after its last answer a connection that has ended is remembered where the kernel does not tell it from the
/// next one of its port: what was on its way has mostly come by then, and a client that heeds the answer has closed. Not
/// longer, since the next one is let go as well. On its own loopback Linux gives a port that was not reset to another
/// connection after a second.
const ENDED_KEPT: Duration = Duration::from_millis(900);
/// Most ended connections that are remembered beside those whose last answers are still given; past it, the one that was
/// answered first is forgotten.
const ENDED_MAX: usize = 4096;

/// The connections that have something at the desk, or have ended.
pub(super) struct Turns {
    cookies: Cookies,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    busy: HashMap<SocketAddr, VecDeque<Request>>,
    ended: Ended,
}

/// A request that is the first of its connection, and holds the connection's turn.
pub(super) struct Turn {
    pub(super) client: SocketAddr,
    pub(super) request: Request,
}

/// What becomes of a request.
pub(super) enum Begun {
    /// It may come to the desk now.
    Turn(Turn),
    /// Another one of its connection is there, or the last answer to one, and it is seen to when that is done.
    Waits,
    /// Its connection has ended, or ends because too many wait, which are let go with it.
    LetGo(Vec<Request>),
}

impl Turns {
    /// Those of the door at an address.
    pub(super) fn new(server: SocketAddr) -> Self {
        Self { cookies: Cookies::new(server), state: Mutex::default() }
    }

    /// Gives a request its place on its connection.
    ///
    /// One that is still under way from a connection that was reset counts as one of the next connection from its port, if
    /// that is there: nothing tells the two apart.
    pub(super) fn begin(&self, client: SocketAddr, request: Request) -> Begun {
        let mut another = None;
        let mut state = loop {
            let state = self.lock();
            let Some(end) = state.ended.last(client).filter(|end| another != Some(end.number)) else { break state };
            drop(state);
            match end.cookie.zip(self.cookies.of(client)) {
                Some((ended, now)) if ended != now => self.lock().ended.forget(client, end.number),
                // Where it is known it may be gone, and what it sent before is still to come.
                None if end.cookie.is_none() && !end.is_recent => {}
                _ => return self.lock().ended.hold(client, end.number, request),
            }
            another = Some(end.number);
        };
        match state.busy.get_mut(&client) {
            None => {
                state.busy.insert(client, VecDeque::new());
                Begun::Turn(Turn { client, request })
            }
            Some(waiting) if waiting.len() < WAITING_MAX => {
                waiting.push_back(request);
                Begun::Waits
            }
            Some(waiting) => {
                let mut let_go = Vec::from(std::mem::take(waiting));
                let_go.push(request);
                drop(state);
                let cookie = self.cookies.of(client);
                let ended = &mut self.lock().ended;
                let number = ended.remember(client, cookie, let_go);
                Begun::LetGo(ended.was_answered(client, number))
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

    /// Ends a connection with the turn that it has, and gives those back that are to be let go: all that waited, and what
    /// has come while `last_answer` was given.
    ///
    /// The connection has ended before the client has its answer, since with that it may have another from the same port.
    /// What follows is held until then, within bounds: tiny_http writes answers of its own where those before them are
    /// let go.
    #[must_use]
    pub(super) fn end(&self, client: SocketAddr, last_answer: impl FnOnce()) -> Vec<Request> {
        let cookie = self.cookies.of(client);
        let number = {
            let mut state = self.lock();
            let waiting = state.busy.remove(&client).unwrap_or_default();
            state.ended.remember(client, cookie, waiting.into())
        };
        last_answer();
        self.lock().ended.was_answered(client, number)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connections that have ended, by the ports of their clients.
#[derive(Default)]
struct Ended {
    ends: HashMap<SocketAddr, End>,
    /// Those that have had their last answers, in that order, with some that are forgotten.
    order: VecDeque<(SocketAddr, u64)>,
    /// The number of the next one.
    next: u64,
}

/// What is remembered of the last connection of a port that has ended.
struct Last {
    number: u64,
    cookie: Option<u64>,
    /// Whether it tells something where a cookie is not known.
    is_recent: bool,
}

/// The end of a connection.
struct End {
    number: u64,
    /// Which connection it is, where that is known.
    cookie: Option<u64>,
    stage: Stage,
}

enum Stage {
    /// Its last answer is given, behind which these wait to be let go.
    Answering(Vec<Request>),
    Answered(Instant),
}

impl Ended {
    /// The last connection of a port that has ended, as long as that tells something.
    fn last(&self, client: SocketAddr) -> Option<Last> {
        let end = self.ends.get(&client).filter(|end| end.is_kept())?;
        Some(Last { number: end.number, cookie: end.cookie, is_recent: end.is_recent() })
    }

    /// Remembers that a connection ends, behind whose last answer requests wait, and gives the number of its end.
    fn remember(&mut self, client: SocketAddr, cookie: Option<u64>, mut waiting: Vec<Request>) -> u64 {
        let number = self.next;
        self.next += 1;
        if let Some(Stage::Answering(more)) = self.ends.remove(&client).map(|end| end.stage) {
            waiting.extend(more);
        }
        self.ends.insert(client, End { number, cookie, stage: Stage::Answering(waiting) });
        number
    }

    /// Has a request of an ended connection wait for the last answer, or let go.
    fn hold(&mut self, client: SocketAddr, number: u64, request: Request) -> Begun {
        match self.ends.get_mut(&client).filter(|end| end.number == number).map(|end| &mut end.stage) {
            Some(Stage::Answering(waiting)) if waiting.len() < WAITING_MAX => {
                waiting.push(request);
                Begun::Waits
            }
            _ => Begun::LetGo(vec![request]),
        }
    }

    /// Gives those back that have waited for the last answer.
    fn was_answered(&mut self, client: SocketAddr, number: u64) -> Vec<Request> {
        let Some(end) = self.ends.get_mut(&client).filter(|end| end.number == number) else { return Vec::new() };
        let stage = std::mem::replace(&mut end.stage, Stage::Answered(Instant::now()));
        while let Some((first, number)) = self.order.front() {
            let held = self.ends.get(first).filter(|end| end.number == *number);
            if held.is_some_and(End::is_kept) && self.order.len() < ENDED_MAX {
                break;
            }
            if held.is_some() {
                self.ends.remove(first);
            }
            self.order.pop_front();
        }
        self.order.push_back((client, number));
        match stage {
            Stage::Answering(waiting) => waiting,
            Stage::Answered(_) => Vec::new(),
        }
    }

    /// Forgets a connection that was answered: another has its port.
    fn forget(&mut self, client: SocketAddr, number: u64) {
        let is_it = |end: &End| end.number == number && matches!(end.stage, Stage::Answered(_));
        if self.ends.get(&client).is_some_and(is_it) {
            self.ends.remove(&client);
        }
    }
}

impl End {
    /// Whether it may still tell whose a request is.
    fn is_kept(&self) -> bool {
        self.cookie.is_some() || self.is_recent()
    }

    fn is_recent(&self) -> bool {
        match self.stage {
            Stage::Answering(_) => true,
            Stage::Answered(at) => at.elapsed() < ENDED_KEPT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn end(ended: &mut Ended, port: u16, cookie: Option<u64>) {
        let number = ended.remember(client(port), cookie, Vec::new());
        assert!(ended.was_answered(client(port), number).is_empty());
    }

    #[test]
    fn an_end_is_kept_for_a_while_after_its_last_answer_and_longer_where_its_cookie_is_known() {
        let mut end = End { number: 0, cookie: None, stage: Stage::Answering(Vec::new()) };
        assert!(end.is_kept() && end.is_recent());
        end.stage = Stage::Answered(Instant::now());
        assert!(end.is_kept() && end.is_recent());
        end.stage = Stage::Answered(Instant::now().checked_sub(ENDED_KEPT).unwrap());
        assert!(!end.is_kept());
        end.cookie = Some(1);
        assert!(end.is_kept() && !end.is_recent());
    }

    #[test]
    fn what_is_remembered_is_the_newest_end_of_a_port() {
        let mut ended = Ended::default();
        let first = ended.remember(client(1), Some(1), Vec::new());
        end(&mut ended, 1, Some(2));
        assert!(ended.was_answered(client(1), first).is_empty());
        assert_eq!(ended.last(client(1)).unwrap().cookie, Some(2));
        ended.forget(client(1), first);
        assert!(ended.last(client(1)).is_some());
        ended.forget(client(1), first + 1);
        assert!(ended.last(client(1)).is_none());
    }

    #[test]
    fn of_too_many_that_were_answered_the_first_is_forgotten() {
        let mut ended = Ended::default();
        let answering = ended.remember(client(1), Some(1), Vec::new());
        let ports = 2..=ENDED_MAX as u16 + 1;
        ports.clone().for_each(|port| end(&mut ended, port, Some(u64::from(port))));
        assert!(ports.clone().all(|port| ended.last(client(port)).is_some()));
        end(&mut ended, 10_000, None);
        assert!(ended.last(client(2)).is_none() && ended.last(client(3)).is_some());
        assert!(ended.last(client(1)).is_some());
        ended.was_answered(client(1), answering);
        assert_eq!((ended.order.len(), ended.ends.len()), (ENDED_MAX, ENDED_MAX));
    }
}
