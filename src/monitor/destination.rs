//! Where a monitor publishes, as a URL says it.

use std::fmt;

use crate::features::{WITHOUT_TLS, WITHOUT_ZEROMQ};
use crate::sample::line::Precision;
use crate::url::{Url, encode, redact};

/// Where to publish, and in which form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A receiver's API: the URL that host and epoch are appended to, without a slash at its end.
    Api(Url),
    /// Line protocol over HTTP, to a receiver or anything else that takes it.
    Lines {
        /// The whole URL.
        url: Url,
        /// The unit of times that its query asks for.
        precision: Precision,
    },
    /// Line protocol in datagrams, to a host and a port.
    Udp(Url),
    /// Line protocol in messages of ZeroMQ, to a host and a port.
    Zmq(Url),
}

impl Destination {
    /// Reads a publish URL. Over HTTP a path that ends in `/write` is line protocol; any other is the prefix of the
    /// API, and no path means `/api/perf`.
    ///
    /// # Errors
    /// A sentence that names the URL, without its secrets.
    pub fn parse(given: &str) -> Result<Self, String> {
        let url = Url::parse(given)?;
        let shown = url.to_string();
        Self::of(url).map_err(|why| format!("{shown:?}: {why}"))
    }

    fn of(url: Url) -> Result<Self, String> {
        match url.scheme() {
            "https" if !cfg!(feature = "tls") => Err(WITHOUT_TLS.to_owned()),
            "http" | "https" => Self::of_http(&url),
            "udp" | "zmq" if url.port().is_none_or(|port| port == 0) => Err("has no port".to_owned()),
            "udp" | "zmq" if url.has_user() => Err("has a user, whom this scheme does not know".to_owned()),
            "udp" | "zmq" if !matches!(url.path(), "" | "/") || url.query().is_some() => {
                Err("has a path, which means nothing to this scheme".to_owned())
            }
            "udp" => Ok(Self::Udp(url.with_target("", None))),
            "zmq" if cfg!(feature = "zeromq") => Ok(Self::Zmq(url.with_target("", None))),
            "zmq" => Err(WITHOUT_ZEROMQ.to_owned()),
            _ => Err("the scheme is not http, https, udp or zmq".to_owned()),
        }
    }

    fn of_http(url: &Url) -> Result<Self, String> {
        let (path, query) = (url.path().trim_end_matches('/'), url.query().filter(|query| !query.is_empty()));
        if path.ends_with("/write") {
            let precision = query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("precision="));
            let precision = match Precision::parse(precision.unwrap_or_default())? {
                // What InfluxDB and its kin take where no unit is named.
                Precision::ByMagnitude => Precision::Nanoseconds,
                Precision::Minutes | Precision::Hours => {
                    return Err("precision: m and h are too coarse for samples".to_owned());
                }
                named => named,
            };
            Ok(Self::Lines { url: url.with_target(path, query), precision })
        } else if url.query().is_some() {
            Err("has a query, which the path of the API cannot have".to_owned())
        } else {
            Ok(Self::Api(url.with_target(if path.is_empty() { "/api/perf" } else { path }, None)))
        }
    }

    /// Where a receiver gives tokens; `None` for what is not HTTP, and for a path that is not a receiver's.
    pub(super) fn token_url(&self) -> Option<Url> {
        let (Self::Api(url) | Self::Lines { url, .. }) = self else { return None };
        let prefix = url.path().strip_suffix("/api/perf").or(url.path().strip_suffix("/write"))?;
        Some(url.with_target(format!("{prefix}/api/token"), None))
    }

    /// Where a sample of `host` and `epoch` goes.
    pub(super) fn url_of(&self, host: &str, epoch: u64) -> Url {
        match self {
            Self::Api(prefix) => prefix.with_target(format!("{}/{}/{epoch}", prefix.path(), encode(host)), None),
            Self::Lines { url, .. } | Self::Udp(url) | Self::Zmq(url) => url.clone(),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Api(url) | Self::Lines { url, .. } | Self::Udp(url) | Self::Zmq(url)) = self;
        fmt::Display::fmt(url, f)
    }
}

/// Where a receiver gives tokens: reads the URL that `--token-from` has of it.
///
/// # Errors
/// A sentence that names the option and the URL, without its secrets.
pub fn token_url(given: &str) -> Result<Url, String> {
    let url = Destination::parse(given).ok().and_then(|destination| destination.token_url());
    url.ok_or_else(|| format!("option --token-from: {:?} is not the URL of a receiver", redact(given)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "tls")]
    #[test]
    fn tokens_are_given_beside_what_takes_samples() {
        let token_url = |url: &str| Destination::parse(url).unwrap().token_url().map(|url| url.to_string());
        assert_eq!(token_url("https://r:8443").as_deref(), Some("https://r:8443/api/token"));
        assert_eq!(token_url("https://r/lizm/api/perf/").as_deref(), Some("https://r/lizm/api/token"));
        assert_eq!(token_url("https://r/lizm/write?db=a").as_deref(), Some("https://r/lizm/api/token"));
        assert_eq!(token_url("http://r").as_deref(), Some("http://r/api/token"));
        for without in ["https://r/elsewhere", "udp://r:8089"] {
            assert_eq!(token_url(without), None, "{without}");
        }
        for wrong in ["udp://r:1", "nonsense", "https://me:secret@r/elsewhere"] {
            let said = super::token_url(wrong).unwrap_err();
            assert!(said.starts_with("option --token-from: ") && !said.contains("secret"), "{said}");
        }
    }

    #[test]
    fn a_url_says_where_and_in_which_form() {
        let url = |url: &str| Destination::parse(url).map(|destination| destination.url_of("jar vis/1", 7).to_string());
        for (given, whole) in [
            ("http://r", "http://r/api/perf/jar%20vis%2F1/7"),
            ("HTTP://r:8080/", "http://r:8080/api/perf/jar%20vis%2F1/7"),
            ("http://[::1]:8080/api/perf/", "http://[::1]:8080/api/perf/jar%20vis%2F1/7"),
            ("http://r/lizm/api/perf", "http://r/lizm/api/perf/jar%20vis%2F1/7"),
            ("http://r:8428/write", "http://r:8428/write"),
            ("http://r/lizm/write/?db=hosts&precision=ms", "http://r/lizm/write?db=hosts&precision=ms"),
            ("http://r/write?db=a&u=me&p=secret", "http://r/write?db=a&u=me&p=***"),
            #[cfg(feature = "tls")]
            ("https://r:8443", "https://r:8443/api/perf/jar%20vis%2F1/7"),
            ("udp://r:8089", "udp://r:8089"),
            ("UDP://[::1]:8089/", "udp://[::1]:8089"),
        ] {
            assert_eq!(url(given).as_deref(), Ok(whole), "{given}");
        }
        let precision = |url: &str| match Destination::parse(url) {
            Ok(Destination::Lines { precision, .. }) => precision,
            other => panic!("{url}: {other:?}"),
        };
        assert_eq!(precision("http://r/write?db=a"), Precision::Nanoseconds);
        assert_eq!(precision("http://r/write?precision=s&db=a"), Precision::Seconds);
        for bad in [
            "",
            "r:8080",
            "http://",
            "http:///api",
            "ftp://r",
            "http://r/api?x=1",
            "http://r/write#a",
            "http://r/write?precision=d",
            "http://r/write?precision=h",
            "udp://r:0",
            "udp://me@r:8089",
            "http://r x",
            "udp://r:8089?x=1",
            "http://r:port",
            "udp://r",
            "udp://r:8089/write",
            "udp://:8089",
        ] {
            assert!(url(bad).unwrap_err().contains(&format!("{:?}", redact(bad))), "{bad:?}");
        }
        assert_eq!(url("zmq://r:5557").is_ok(), cfg!(feature = "zeromq"));
        assert_eq!(url("https://r").is_ok(), cfg!(feature = "tls"));
    }
}
