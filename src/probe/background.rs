//! A call on a thread of its own. Calls that may hang, as those into a file system do whose server is gone, are made
//! this way: each tick asks for the answer, and goes on without it where it does not come in time.

use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

/// How long a tick waits for all answers together: far longer than they take, and far shorter than an interval.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_millis(20);

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
}
