//! Threads that are given what comes from outside: a panic costs what they were at, and not the thread.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Pause before a thread goes on after a panic, which may come again and again.
const PANICKED_PAUSE: Duration = Duration::from_millis(100);

/// Starts a thread that runs something to its end, and anew where a panic has ended it, of which the panic's hook tells.
///
/// # Errors
/// When there is no thread to be had.
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
    fn a_thread_goes_on_after_a_panic_until_it_has_come_to_its_end() {
        let (told, said) = mpsc::channel();
        let mut turn = 0;
        let run = move || {
            turn += 1;
            told.send(turn).unwrap();
            assert_eq!(turn, 3, "not yet");
        };
        spawn_supervised("lasting", run).unwrap().join().unwrap();
        assert_eq!(said.iter().collect::<Vec<u32>>(), [1, 2, 3]);
    }
}
