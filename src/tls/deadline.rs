//! Time limits of a connection, on whatever is read and written for it.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Line;

/// When what is going on must be done, and how long nothing may happen until then.
#[derive(Clone)]
pub(super) struct Deadline(Rc<Cell<(Instant, Duration)>>);

impl Default for Deadline {
    fn default() -> Self {
        Self(Rc::new(Cell::new((Instant::now(), Duration::ZERO))))
    }
}

impl Deadline {
    /// Allows `within` from now.
    pub(super) fn set(&self, within: Duration) {
        self.set_with_silence(within, within);
    }

    /// Allows `within` from now, if something happens every `silence`.
    pub(super) fn set_with_silence(&self, within: Duration, silence: Duration) {
        self.0.set((Instant::now() + within, silence));
    }

    /// How long the next step may take.
    fn left(&self) -> io::Result<Duration> {
        let (until, silence) = self.0.get();
        let left = until.saturating_duration_since(Instant::now()).min(silence);
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

/// A connection whose reads and writes fail with `TimedOut` past a deadline.
pub(super) struct Timed {
    line: Arc<Line>,
    deadline: Deadline,
}

impl Timed {
    pub(super) fn new(line: Arc<Line>, deadline: Deadline) -> Self {
        Self { line, deadline }
    }
}

/// The kernel says `WouldBlock` when a time is over that it was set.
fn timed_out<T>(result: io::Result<T>) -> io::Result<T> {
    result
        .map_err(|error| if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error })
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.line.stream.set_read_timeout(Some(self.deadline.left()?))?;
        timed_out((&self.line.stream).read(buffer))
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.stream.set_write_timeout(Some(self.deadline.left()?))?;
        timed_out((&self.line.stream).write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
