//! A thread for what may hang, as a call to a file system does whose server is gone: it is asked on every tick, and
//! the tick goes on without it where it does not answer.

use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

/// How long a tick waits for answers, all together: far longer than they take, and far shorter than an interval.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_millis(20);

/// A thread that reads one thing, one call at a time. It ends when this is dropped, once its call returns.
pub(super) struct BackgroundCall<T> {
    asks: SyncSender<()>,
    answers: Receiver<T>,
    is_asked: bool,
    /// The call has outlasted a tick; the next ones do not wait for it.
    is_late: bool,
}

impl<T: Send + 'static> BackgroundCall<T> {
    pub(super) fn start(name: &str, mut read: impl FnMut() -> T + Send + 'static) -> io::Result<Self> {
        let (asks, asked) = mpsc::sync_channel(1);
        let (answer, answers) = mpsc::sync_channel(1);
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || while asked.recv().is_ok() && answer.send(read()).is_ok() {})?;
        Ok(Self { asks, answers, is_asked: false, is_late: false })
    }

    /// Asks, unless the call before has not returned.
    pub(super) fn ask(&mut self) {
        if self.is_late && self.answers.try_recv().is_ok() {
            // What it says is of an earlier tick.
            (self.is_asked, self.is_late) = (false, false);
        }
        if !self.is_asked {
            self.is_asked = self.asks.try_send(()).is_ok();
        }
    }

    /// The answer, if it comes before `until`.
    pub(super) fn answer(&mut self, until: Instant) -> Option<T> {
        let wait = if self.is_late { Duration::ZERO } else { until.saturating_duration_since(Instant::now()) };
        let answer = self.answers.recv_timeout(wait).ok();
        self.is_late = answer.is_none();
        self.is_asked &= self.is_late;
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_hangs_is_made_once_and_holds_nobody() {
        let (release, held) = mpsc::channel::<()>();
        let mut calls = 0;
        let mut aside = BackgroundCall::start("test", move || {
            calls += 1;
            if calls == 1 {
                let _ = held.recv();
            }
            calls
        })
        .unwrap();
        for _ in 0..3 {
            aside.ask();
            assert_eq!(aside.answer(Instant::now()), None);
        }
        drop(release);
        let patience = Instant::now() + Duration::from_secs(30);
        // The answer to the first tick is not taken for one of a later tick; the one after it is.
        let answer = loop {
            aside.ask();
            if !aside.is_late {
                break aside.answer(patience);
            }
            assert!(Instant::now() < patience);
            thread::yield_now();
        };
        assert_eq!(answer, Some(2));
    }
}
