//! The wall clock, read here and nowhere else: what takes a time has it as an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time since the Unix epoch by this machine's clock; nothing before 1970.
#[must_use]
pub fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Seconds since the Unix epoch by this machine's clock; 0 before 1970.
#[must_use]
pub fn unix_now_sec() -> u64 {
    unix_now().as_secs()
}
