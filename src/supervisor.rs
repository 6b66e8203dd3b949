//! Threads that handle input from outside: a panic costs the input that caused it, and not the thread.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Pause before a thread is run again after a panic, which may recur.
const PANICKED_PAUSE: Duration = Duration::from_millis(100);

/// Starts a thread that calls `run`, again and again while it ends by a panic. The panic hook logs each.
///
/// # Errors
/// When the system has no thread left.
pub(crate) fn spawn_supervised(name: &str, mut run: impl FnMut() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        while catch_unwind(AssertUnwindSafe(&mut run)).is_err() {
            thread::sleep(PANICKED_PAUSE);
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_thread_is_run_again_after_a_panic_until_it_returns() {
        let (sender, received) = mpsc::channel();
        let mut turn = 0;
        let run = move || {
            turn += 1;
            sender.send(turn).unwrap();
            assert_eq!(turn, 3, "not yet");
        };
        spawn_supervised("lasting", run).unwrap().join().unwrap();
        assert_eq!(received.iter().collect::<Vec<u32>>(), [1, 2, 3]);
    }
}
