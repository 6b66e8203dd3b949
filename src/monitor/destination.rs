//! Where a monitor publishes, as a URL says it.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::auth::WITHOUT_TLS;
use crate::listeners::WITHOUT_ZEROMQ;
use crate::sample::line::Precision;

/// What a path segment keeps as it is (RFC 3986, 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where to publish, and in which form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A receiver's API: the URL that host and epoch are appended to, without a slash at its end.
    Api(String),
    /// Line protocol over HTTP, to a receiver or anything else that takes it.
    Lines {
        /// The whole URL.
        url: String,
        /// The unit of times that its query asks for.
        precision: Precision,
    },
    /// Line protocol in datagrams.
    Udp {
        /// Host and port.
        authority: String,
    },
    /// Line protocol in messages of ZeroMQ.
    Zmq {
        /// Host and port.
        authority: String,
    },
}

impl Destination {
    /// Reads a publish URL. Over HTTP a path that ends in `/write` is line protocol; any other is the prefix of the
    /// API, and no path means `/api/perf`.
    ///
    /// # Errors
    /// A sentence that names the URL.
    pub fn parse(given: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("{given:?}: {why}"));
        let Some((scheme, rest)) = given.split_once("://") else {
            return wrong("not a URL such as http://receiver:8080");
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        match format!("http://{authority}/").parse::<ureq::http::Uri>() {
            Ok(uri) if uri.host().is_none_or(str::is_empty) => return wrong("names no host"),
            Ok(uri) if uri.port().is_none() && authority.rsplit(']').next().is_some_and(|end| end.contains(':')) => {
                return wrong("the port is not a number up to 65535");
            }
            Ok(uri) if ["udp", "zmq"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) => {
                if uri.port_u16().is_none_or(|port| port == 0) {
                    return wrong("has no port");
                }
                if authority.contains('@') {
                    return wrong("has a user, whom this scheme does not know");
                }
            }
            Ok(_) => {}
            Err(error) => return wrong(&error.to_string()),
        }
        let authority = authority.to_owned();
        match scheme.to_ascii_lowercase().as_str() {
            "https" if !cfg!(feature = "tls") => wrong(WITHOUT_TLS),
            scheme @ ("http" | "https") => Self::parse_http(scheme, &authority, path).or_else(|why| wrong(&why)),
            "udp" | "zmq" if !matches!(path, "" | "/") => wrong("has a path, which means nothing to this scheme"),
            "udp" => Ok(Self::Udp { authority }),
            "zmq" if cfg!(feature = "zeromq") => Ok(Self::Zmq { authority }),
            "zmq" => wrong(WITHOUT_ZEROMQ),
            _ => wrong("the scheme is not http, https, udp or zmq"),
        }
    }

    fn parse_http(scheme: &str, authority: &str, target: &str) -> Result<Self, String> {
        if target.contains('#') {
            return Err("has a fragment, which is not sent".to_owned());
        }
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let path = path.trim_end_matches('/');
        let destination = if path.ends_with("/write") {
            let query = query.unwrap_or_default();
            let precision = query.split('&').find_map(|pair| pair.strip_prefix("precision="));
            let precision = match Precision::parse(precision.unwrap_or_default())? {
                // What InfluxDB and its kin take where no unit is named.
                Precision::ByMagnitude => Precision::Nanoseconds,
                Precision::Minutes | Precision::Hours => {
                    return Err("precision: m and h are too coarse for samples".to_owned());
                }
                named => named,
            };
            let mark = if query.is_empty() { "" } else { "?" };
            Self::Lines { url: format!("{scheme}://{authority}{path}{mark}{query}"), precision }
        } else if query.is_some() {
            return Err("has a query, which the path of the API cannot have".to_owned());
        } else {
            Self::Api(format!("{scheme}://{authority}{}", if path.is_empty() { "/api/perf" } else { path }))
        };
        let (Self::Api(url) | Self::Lines { url, .. }) = &destination else { return Ok(destination) };
        match url.parse::<ureq::http::Uri>() {
            Ok(_) => Ok(destination),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Where the receiver at an https URL gives tokens, if its path tells.
    pub(super) fn token_url(&self) -> Option<String> {
        let (Self::Api(url) | Self::Lines { url, .. }) = self else { return None };
        let path = url.split_once('?').map_or(url.as_str(), |(path, _)| path);
        let before = path.strip_suffix("/api/perf").or(path.strip_suffix("/write"))?;
        before.starts_with("https://").then(|| format!("{before}/api/token"))
    }

    /// Where a sample of `host` and `epoch` goes.
    pub(super) fn url_of(&self, host: &str, epoch: u64) -> String {
        match self {
            Self::Api(prefix) => format!("{prefix}/{}/{epoch}", segment(host)),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api(url) | Self::Lines { url, .. } => f.write_str(&without_password(url)),
            Self::Udp { authority } => write!(f, "udp://{authority}"),
            Self::Zmq { authority } => write!(f, "zmq://{authority}"),
        }
    }
}

/// A URL with its passwords taken out, that of its user and that of InfluxDB's `p=`: the log has it for every sample.
pub(super) fn without_password(url: &str) -> String {
    let hidden = |pair: &str| if pair.starts_with("p=") { "p=***".to_owned() } else { pair.to_owned() };
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let url = match authority.rsplit_once('@').and_then(|(user, host)| Some((user.split_once(':')?.0, host))) {
        Some((user, host)) => format!("{scheme}://{user}:***@{host}{path}"),
        None => url.to_owned(),
    };
    url.split_once('?').map_or(url.clone(), |(path, query)| {
        format!("{path}?{}", query.split('&').map(hidden).collect::<Vec<_>>().join("&"))
    })
}

/// Where a receiver gives tokens, from the URL that `--token-from` has of it.
pub(super) fn token_url_of(given: &str) -> Result<String, String> {
    let url = Destination::parse(given).ok().and_then(|destination| destination.token_url());
    url.ok_or_else(|| format!("option --token-from: {given:?} is not the URL of an https receiver"))
}

/// A host name as a segment of a path.
#[must_use]
pub fn segment(host: &str) -> String {
    utf8_percent_encode(host, SEGMENT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "tls")]
    #[test]
    fn tokens_are_given_beside_what_takes_samples() {
        let token_url = |url: &str| Destination::parse(url).unwrap().token_url();
        assert_eq!(token_url("https://r:8443").as_deref(), Some("https://r:8443/api/token"));
        assert_eq!(token_url("https://r/lizm/api/perf/").as_deref(), Some("https://r/lizm/api/token"));
        assert_eq!(token_url("https://r/lizm/write?db=a").as_deref(), Some("https://r/lizm/api/token"));
        for without in ["http://r", "https://r/elsewhere", "udp://r:8089"] {
            assert_eq!(token_url(without), None, "{without}");
        }
        assert!(token_url_of("http://r").is_err() && token_url_of("nonsense").is_err());
    }

    #[test]
    fn what_is_shown_of_a_url_has_no_password() {
        for (url, shown) in [
            ("http://me:secret@r:8080/api/perf/h/7", "http://me:***@r:8080/api/perf/h/7"),
            ("https://me:s:e@r/write?u=me&p=secret&db=a@b:c", "https://me:***@r/write?u=me&p=***&db=a@b:c"),
            ("http://me:secret@[::1]?p=", "http://me:***@[::1]?p=***"),
            ("http://me@r/a:b@c", "http://me@r/a:b@c"),
            ("udp://r:8089", "udp://r:8089"),
        ] {
            assert_eq!(without_password(url), shown);
        }
        let given = Destination::parse("http://me:secret@r:8080").unwrap();
        assert_eq!(given.to_string(), "http://me:***@r:8080/api/perf");
        assert_eq!(given.url_of("h", 7), "http://me:secret@r:8080/api/perf/h/7");
    }

    #[test]
    fn a_url_says_where_and_in_which_form() {
        let url = |url: &str| Destination::parse(url).map(|destination| destination.url_of("jar vis/1", 7));
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
            "http://r:port",
            "udp://r",
            "udp://r:8089/write",
            "udp://:8089",
        ] {
            assert!(url(bad).unwrap_err().contains(&format!("{bad:?}")), "{bad:?}");
        }
        assert_eq!(url("zmq://r:5557").is_ok(), cfg!(feature = "zeromq"));
        assert_eq!(url("https://r").is_ok(), cfg!(feature = "tls"));
    }
}
