//! A call on a thread of its own. Calls that may hang, as those into a file system do whose server is gone, are made
//! this way: each tick asks for the answer, and goes on without it where it does not come in time.

use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a tick waits for all answers together: far longer than they take, and far shorter than an interval.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_millis(20);

/// How long a pass may take before what the last one gave is left out.
const PASS_WITHIN: Duration = Duration::from_secs(15);

/// A thread that makes one call again and again, each time it is asked to. When this is dropped, it ends after the
/// call that it is in.
pub(super) struct BackgroundCall<T> {
    questions: SyncSender<()>,
    answers: Receiver<T>,
    is_asked: bool,
    /// How many ticks in a row have gone on without the answer. From the first on they do not wait for it.
    missed: u32,
}

impl<T: Send + 'static> BackgroundCall<T> {
    /// Starts the thread, under a name.
    pub(super) fn start(name: &str, mut call: impl FnMut() -> T + Send + 'static) -> io::Result<Self> {
        let (questions, asked) = mpsc::sync_channel(1);
        let (answer, answers) = mpsc::sync_channel(1);
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || while asked.recv().is_ok() && answer.send(call()).is_ok() {})?;
        Ok(Self { questions, answers, is_asked: false, missed: 0 })
    }

    /// Starts a call, unless the one before is still under way.
    pub(super) fn ask(&mut self) {
        if self.missed > 0 && self.answers.try_recv().is_ok() {
            // The answer belongs to an earlier tick.
            (self.is_asked, self.missed) = (false, 0);
        }
        if !self.is_asked {
            self.is_asked = self.questions.try_send(()).is_ok();
        }
    }

    /// The answer, if it comes before `until`.
    pub(super) fn answer(&mut self, until: Instant) -> Option<T> {
        let wait = if self.missed > 0 { Duration::ZERO } else { until.saturating_duration_since(Instant::now()) };
        let answer = self.answers.recv_timeout(wait).ok();
        self.missed = if answer.is_none() { self.missed.saturating_add(1) } else { 0 };
        self.is_asked &= answer.is_none();
        answer
    }

    /// The answer, whichever tick asked, if it has come.
    pub(super) fn poll(&mut self) -> Option<T> {
        let answer = self.answers.try_recv().ok();
        if answer.is_some() {
            (self.is_asked, self.missed) = (false, 0);
        }
        answer
    }

    /// Whether the call hangs: it has outlasted the tick after the one that asked. A busy machine may be late once.
    pub(super) fn hangs(&self) -> bool {
        self.missed > 1
    }
}

/// A pass over much, as over all processes, which may take longer than a tick: what the last one gave holds meanwhile.
pub(super) struct BackgroundPass<T> {
    what: &'static str,
    /// Time of the tick that asks.
    at: Arc<Mutex<Duration>>,
    call: BackgroundCall<Result<Arc<T>, String>>,
    /// When the last pass began.
    asked_at: Option<Duration>,
    is_under_way: bool,
    last: Option<Result<Arc<T>, String>>,
}

impl<T: Send + Sync + 'static> BackgroundPass<T> {
    /// Starts the thread, under the name of what it passes over. The pass has the time of the tick that asks.
    pub(super) fn start(
        what: &'static str,
        mut pass: impl FnMut(Duration) -> Result<T, String> + Send + 'static,
    ) -> io::Result<Self> {
        let at = Arc::new(Mutex::new(Duration::ZERO));
        let asked_at = at.clone();
        let call = BackgroundCall::start(what, move || {
            let at = *asked_at.lock().unwrap_or_else(PoisonError::into_inner);
            pass(at).map(Arc::new)
        })?;
        Ok(Self { what, at, call, asked_at: None, is_under_way: false, last: None })
    }

    /// Starts a pass where one is due, `every` so long, and none is under way.
    pub(super) fn ask(&mut self, at: Duration, every: Duration) {
        if let Some(pass) = self.call.poll() {
            (self.last, self.is_under_way) = (Some(pass), false);
        }
        if !self.is_under_way && self.asked_at.is_none_or(|asked| at.saturating_sub(asked) >= every) {
            *self.at.lock().unwrap_or_else(PoisonError::into_inner) = at;
            self.call.ask();
            (self.asked_at, self.is_under_way) = (Some(at), true);
        }
    }

    /// What the last pass has given, if one has ended.
    pub(super) fn last(&self) -> Option<&Result<Arc<T>, String>> {
        self.last.as_ref()
    }

    /// The same with that of this tick, if it ends before `until`. It is an error when the pass takes too long.
    pub(super) fn answer(&mut self, at: Duration, until: Instant) -> Result<Option<Arc<T>>, String> {
        if self.is_under_way
            && let Some(pass) = self.call.answer(until)
        {
            (self.last, self.is_under_way) = (Some(pass), false);
        }
        if self.is_under_way && self.asked_at.is_some_and(|asked| at.saturating_sub(asked) >= PASS_WITHIN) {
            return Err(format!("the {} do not answer", self.what));
        }
        self.last.clone().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_hangs_is_made_once_and_holds_up_nobody() {
        let (release, held) = mpsc::channel::<()>();
        let mut calls = 0;
        let mut background = BackgroundCall::start("test", move || {
            calls += 1;
            if calls == 1 {
                let _ = held.recv();
            }
            calls
        })
        .unwrap();
        for is_again in [false, true, true] {
            background.ask();
            assert_eq!(background.answer(Instant::now()), None);
            assert_eq!(background.hangs(), is_again);
        }
        drop(release);
        let deadline = Instant::now() + Duration::from_secs(30);
        // The late answer to the first tick is dropped, and the call after it is answered.
        let answer = loop {
            background.ask();
            if background.missed == 0 {
                break background.answer(deadline);
            }
            assert!(Instant::now() < deadline);
            thread::yield_now();
        };
        assert_eq!(answer, Some(2));
    }

    #[test]
    fn a_pass_that_takes_long_leaves_what_the_last_one_gave_for_a_while() {
        let sec = Duration::from_secs;
        let (release, held) = mpsc::channel::<()>();
        let mut pass = BackgroundPass::start("things", move |at| {
            if at == sec(2) {
                let _ = held.recv();
            }
            if at == sec(30) { Err("broken".to_owned()) } else { Ok(at.as_secs()) }
        })
        .unwrap();
        let soon = || Instant::now() + sec(30);
        pass.ask(sec(1), Duration::ZERO);
        assert_eq!(pass.answer(sec(1), soon()), Ok(Some(Arc::new(1))));
        pass.ask(sec(2), Duration::ZERO);
        assert_eq!(pass.answer(sec(2), Instant::now()), Ok(Some(Arc::new(1))));
        pass.ask(sec(17), Duration::ZERO);
        assert_eq!(pass.answer(sec(17), Instant::now()), Err("the things do not answer".to_owned()));
        drop(release);
        while pass.is_under_way {
            pass.ask(sec(18), sec(60));
            thread::yield_now();
        }
        assert_eq!(pass.answer(sec(18), soon()), Ok(Some(Arc::new(2))), "the next is not due");
        pass.ask(sec(30), sec(28));
        assert_eq!(pass.answer(sec(30), soon()), Err("broken".to_owned()));
    }
}
