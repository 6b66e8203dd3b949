//! Limits on connections, in all and from one address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Options;

/// The bits of an IPv6 address that one customer has at least for itself, and so one client.
const IPV6_CLIENT_PREFIX: u128 = !0 << 64;

/// The connections that there are.
pub(super) struct ConnectionLimits {
    options: Options,
    /// IPv4 as IPv4.
    trusted_proxies: Vec<IpAddr>,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    all: usize,
    /// Addresses with connections, but for those of proxies.
    by_address: HashMap<IpAddr, usize>,
}

/// One admitted connection. Dropping it makes room for another.
pub(super) struct ConnectionGuard {
    limits: Arc<ConnectionLimits>,
    /// IPv4 as IPv4.
    pub(super) address: IpAddr,
    /// The client that it counts for, unless it is of a trusted proxy.
    client: Option<IpAddr>,
}

impl ConnectionLimits {
    pub(super) fn new(options: Options, trusted_proxies: &[IpAddr]) -> Arc<Self> {
        Arc::new(Self { options, trusted_proxies: trusted_proxies.to_vec(), counts: Mutex::default() })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a connection from `address`.
    ///
    /// # Errors
    /// The sentence for the log where there is none.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<ConnectionGuard, String> {
        let address = address.to_canonical();
        let client = Some(client(address)).filter(|_| !self.trusted_proxies.contains(&address));
        let Options { connections_max: max, connections_per_address_max: per_address_max } = self.options;
        let mut counts = self.counts();
        if counts.all >= max {
            return Err(format!("there are {max} already, the limit by --max-connections"));
        }
        if let Some(client) = client {
            let of_client = counts.by_address.entry(client).or_default();
            if *of_client >= per_address_max {
                return Err(format!(
                    "{address} has {per_address_max} already, the limit by --max-connections-per-address"
                ));
            }
            *of_client += 1;
        }
        counts.all += 1;
        Ok(ConnectionGuard { limits: self.clone(), address, client })
    }
}

/// What counts as one client.
fn client(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & IPV6_CLIENT_PREFIX).into(),
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let mut counts = self.limits.counts();
        counts.all -= 1;
        if let Some(client) = self.client
            && let Entry::Occupied(mut of_client) = counts.by_address.entry(client)
        {
            *of_client.get_mut() -= 1;
            if *of_client.get() == 0 {
                of_client.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_gets_its_share_and_a_trusted_proxy_more() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let options = Options { connections_max: 6, connections_per_address_max: 2 };
        let limits = ConnectionLimits::new(options, &[ip("10.0.0.9")]);
        let take = |text| limits.admit(ip(text));
        let held = [take("10.0.0.1").unwrap(), take("::ffff:10.0.0.1").unwrap()];
        let refused = take("10.0.0.1").err().unwrap();
        assert_eq!(refused, "10.0.0.1 has 2 already, the limit by --max-connections-per-address");
        let others = [take("2001:db8::1").unwrap(), take("2001:db8::2").unwrap()];
        assert!(take("2001:db8::3").is_err());
        let next_network = take("2001:db8:0:1::3").unwrap();
        drop((held, others, next_network));
        assert!(limits.counts().by_address.is_empty());
        let proxied: Vec<ConnectionGuard> = (0..6).map(|_| take("::ffff:10.0.0.9").unwrap()).collect();
        assert!(limits.counts().by_address.is_empty());
        assert_eq!(take("10.0.0.2").err().unwrap(), "there are 6 already, the limit by --max-connections");
        drop(proxied);
        assert_eq!(limits.counts().all, 0);
    }
}
