//! What a web page that is open in somebody's browser may do.
//!
//! Any page can make its visitor's browser send requests to loopback and to the local network, with no password where
//! none is needed. So a request that a browser sends is checked by the headers that a page cannot forge: what changes
//! the store must come from a page of this receiver, and `Host` must be a name that is this receiver's, since a page may
//! have pointed its own name at this address (DNS rebinding). Other clients send none of these headers.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::request::RequestHead;

/// Decides what a request of a browser may do.
pub(super) struct BrowserGuard {
    /// The names that `Host` may have besides addresses and `localhost`, in lower case. `None` where any name may be: a
    /// page under a name of its own has neither the password nor a token.
    names: Option<Vec<String>>,
}

/// Why a request of a browser is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BrowserError {
    /// A page of another origin tries to change the store.
    CrossSite,
    /// `Host` is not a name of this receiver.
    Host(String),
}

impl fmt::Display for BrowserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CrossSite => {
                f.write_str("header Origin: a web page of another site can neither submit nor delete here")
            }
            Self::Host(name) => write!(
                f,
                "header Host: {name:?} is not a name of this receiver; browsers may use its address, localhost, the name \
                 of its machine, and what --allow-host adds"
            ),
        }
    }
}

impl BrowserGuard {
    /// A guard that knows the name of this machine and the names `allowed`. Where reading and submitting are `protected` by
    /// a password and tokens, every name is allowed.
    pub(super) fn new(allowed: &[String], protected: bool) -> Self {
        let machine = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
        let machine = machine.to_ascii_lowercase();
        let short = machine.split('.').next().unwrap_or_default().to_owned();
        let own = [format!("{short}.local"), short, machine];
        let names = own.into_iter().chain(allowed.iter().map(|name| name.to_ascii_lowercase()));
        Self { names: (!protected).then(|| names.collect()) }
    }

    /// Checks a request, if a browser sends it.
    pub(super) fn check(&self, head: &RequestHead<'_>) -> Result<(), BrowserError> {
        let is_browser = head.origin.is_some()
            || head.sec_fetch_site.is_some()
            || head.user_agent.is_some_and(|agent| agent.contains("Mozilla"));
        if !is_browser {
            return Ok(());
        }
        if !matches!(head.method, "GET" | "HEAD") && is_cross_site(head) {
            return Err(BrowserError::CrossSite);
        }
        match head.host.map(name_of) {
            Some(name) if !self.allows(name) => Err(BrowserError::Host(name.to_owned())),
            _ => Ok(()),
        }
    }

    fn allows(&self, name: &str) -> bool {
        let Some(names) = &self.names else { return true };
        let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_address =
            address.map_or_else(|| name.parse::<Ipv4Addr>().is_ok(), |address| address.parse::<Ipv6Addr>().is_ok());
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        is_address || name == "localhost" || name.ends_with(".localhost") || names.contains(&name)
    }
}

/// Whether a page of another origin has made the browser send a request.
fn is_cross_site(head: &RequestHead<'_>) -> bool {
    match (head.sec_fetch_site, head.origin) {
        // `none`: the person has asked for it, and not a page.
        (Some(site), _) => !matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => !is_origin_of(origin, head.host.unwrap_or_default()),
        (None, None) => false,
    }
}

/// Whether `origin` is that of the pages under `host`. A proxy may have left the port out of `host`.
fn is_origin_of(origin: &str, host: &str) -> bool {
    let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
    let has_port = name_of(host).len() < host.len();
    let authority = if has_port { authority } else { name_of(authority) };
    !authority.is_empty() && authority.eq_ignore_ascii_case(host)
}

/// An authority without its port.
fn name_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(guard: &BrowserGuard, method: &str, headers: &[(&str, &str)]) -> Result<(), BrowserError> {
        guard.check(&RequestHead::new(method, "/", Default::default(), None, headers.iter().copied()))
    }

    #[test]
    fn what_a_page_of_another_origin_sends_changes_nothing() {
        let guard = BrowserGuard::new(&["lizm.example.org".to_owned()], false);
        let lizm = ("Host", "lizm.example.org");
        for (headers, expected) in [
            (&[lizm, ("Sec-Fetch-Site", "same-origin")][..], Ok(())),
            (&[lizm, ("Sec-Fetch-Site", "none")], Ok(())),
            (&[lizm, ("Sec-Fetch-Site", "same-site")], Err(BrowserError::CrossSite)),
            (
                &[lizm, ("Sec-Fetch-Site", "cross-site"), ("Origin", "http://lizm.example.org")],
                Err(BrowserError::CrossSite),
            ),
            (&[lizm, ("Origin", "https://lizm.example.org")], Ok(())),
            (&[lizm, ("Origin", "https://lizm.example.org:8443")], Ok(())),
            (&[lizm, ("Origin", "https://evil.lizm.example.org")], Err(BrowserError::CrossSite)),
            (&[lizm, ("Origin", "null")], Err(BrowserError::CrossSite)),
            (&[lizm, ("Origin", "")], Err(BrowserError::CrossSite)),
            (&[("Host", "[::1]:8080"), ("Origin", "http://[::1]:8080")], Ok(())),
            (&[("Host", "[::1]:8080"), ("Origin", "http://[::1]:3000")], Err(BrowserError::CrossSite)),
            (&[("Host", "[::1]:8080")], Ok(())),
        ] {
            for method in ["POST", "DELETE", "PUT"] {
                assert_eq!(check(&guard, method, headers), expected, "{method} {headers:?}");
            }
            assert_eq!(check(&guard, "GET", headers), Ok(()), "{headers:?}");
        }
    }

    #[test]
    fn a_browser_may_use_addresses_and_names_of_the_receiver() {
        let guard = BrowserGuard::new(&["Lizm.example.org".to_owned()], false);
        let machine = nix::unistd::gethostname().unwrap().into_string().unwrap();
        let browser = ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64)");
        for host in
            ["127.0.0.1", "192.168.1.9:8080", "[fe80::1]:8080", "localhost:8080", "a.localhost", "LIZM.example.org."]
        {
            assert_eq!(check(&guard, "GET", &[browser, ("Host", host)]), Ok(()), "{host}");
        }
        assert_eq!(check(&guard, "GET", &[browser, ("Host", &machine)]), Ok(()));
        assert_eq!(check(&guard, "GET", &[browser]), Ok(()), "a proxy of HTTP/1.0 names no host");
        for host in ["evil.example", "127.0.0.1.evil.example", "[::1", "::1", "localhost.evil.example", "", "x:y"] {
            for method in ["GET", "DELETE"] {
                let refused = check(&guard, method, &[browser, ("Host", host)]);
                assert!(matches!(refused, Err(BrowserError::Host(_))), "{method} {host}: {refused:?}");
                assert_eq!(check(&guard, method, &[("Host", host)]), Ok(()), "{host}: no browser");
            }
        }
        let protected = BrowserGuard::new(&[], true);
        assert_eq!(check(&protected, "GET", &[browser, ("Host", "evil.example")]), Ok(()));
    }
}
