//! Wrong passwords by address, so that nobody guesses the right one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

/// Wrong passwords that an address may send before it has to wait.
const GUESSES_MAX: u32 = 10;
/// Seconds after which one of them is forgiven: an address has a guess in this time, in the long run.
pub(super) const GUESS_EVERY_SEC: u64 = 5;
/// Most addresses that are remembered. One more displaces the one that guessed longest ago.
const ADDRESSES_MAX: usize = 4096;

/// The addresses that have sent wrong passwords.
#[derive(Default)]
pub(super) struct GuessLimiter(Mutex<HashMap<IpAddr, Guesses>>);

/// The wrong passwords of an address that are not forgiven yet.
struct Guesses {
    count: u32,
    /// When they were counted, in seconds since the Unix epoch.
    at: u64,
}

impl Guesses {
    fn left(&self, now: u64) -> u32 {
        let forgiven = now.abs_diff(self.at) / GUESS_EVERY_SEC;
        self.count.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
    }
}

impl GuessLimiter {
    /// Counts a guess of `client` before it is looked at. Returns whether it may be looked at.
    pub(super) fn begin(&self, client: IpAddr, now: u64) -> bool {
        let client = network(client);
        let mut addresses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = addresses.get(&client).map_or(0, |guesses| guesses.left(now));
        if count >= GUESSES_MAX {
            return false;
        }
        if count == 0 && addresses.len() >= ADDRESSES_MAX && !addresses.contains_key(&client) {
            addresses.retain(|_, guesses| guesses.left(now) > 0);
            let oldest = addresses.iter().min_by_key(|(_, guesses)| guesses.at).map(|(address, _)| *address);
            oldest.filter(|_| addresses.len() >= ADDRESSES_MAX).map(|oldest| addresses.remove(&oldest));
        }
        addresses.insert(client, Guesses { count: count + 1, at: now });
        true
    }

    /// Takes a guess back that was right.
    pub(super) fn forgive(&self, client: IpAddr) {
        let client = network(client);
        let mut addresses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(guesses) = addresses.get_mut(&client) {
            guesses.count = guesses.count.saturating_sub(1);
            if guesses.count == 0 {
                addresses.remove(&client);
            }
        }
    }
}

/// What counts as one address: of IPv6 the network, since a client may have all addresses of one.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_440_000;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_that_guesses_has_to_wait_and_others_do_not() {
        let limiter = GuessLimiter::default();
        for guess in 0..10 {
            assert!(limiter.begin(address(&format!("2001:db8::{guess}")), NOW), "{guess}");
        }
        assert!(!limiter.begin(address("2001:db8::ffff"), NOW), "one network is one client");
        assert!(!limiter.begin(address("2001:db8::ffff"), NOW + 4));
        assert!(limiter.begin(address("2001:db8:0:1::1"), NOW) && limiter.begin(address("192.0.2.1"), NOW));
        assert!(limiter.begin(address("2001:db8::ffff"), NOW + 5), "one is forgiven");
        assert!(!limiter.begin(address("2001:db8::ffff"), NOW + 6));
    }

    #[test]
    fn who_knows_the_password_never_waits() {
        let limiter = GuessLimiter::default();
        for request in 0..100 {
            assert!(limiter.begin(address("::ffff:192.0.2.1"), NOW), "{request}");
            limiter.forgive(address("192.0.2.1"));
        }
        assert!(limiter.0.lock().unwrap().is_empty());
    }

    #[test]
    fn so_many_addresses_are_remembered_and_no_more() {
        let limiter = GuessLimiter::default();
        for number in 0..2 * ADDRESSES_MAX as u32 {
            assert!(limiter.begin(IpAddr::V4(number.into()), NOW + u64::from(number / 1000)));
        }
        assert_eq!(limiter.0.lock().unwrap().len(), ADDRESSES_MAX);
    }
}
