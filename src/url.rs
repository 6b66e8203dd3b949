//! URLs: percent-encoding, and a type that cannot be printed with its password.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What a path segment and a query value keep as they are (RFC 3986, 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Parameters of a query whose values are secrets: `p` is the password of InfluxDB 1.x.
const SECRET_PARAMETERS: [&str; 7] = ["p", "password", "token", "access_token", "auth", "key", "api_key"];
/// What stands in the place of a secret.
const HIDDEN: &str = "***";

/// Percent-encodes a text as one path segment or one query value.
#[must_use]
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// Percent-decodes a text, once.
///
/// # Errors
/// The end of a sentence that begins with what the text is.
pub fn decode(text: &str) -> Result<Cow<'_, str>, String> {
    let is_escape = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|b| b.is_ascii_hexdigit());
    if !text.split('%').skip(1).all(is_escape) {
        return Err("has a '%' that two hexadecimal digits do not follow".to_owned());
    }
    percent_decode_str(text).decode_utf8().map_err(|_| "is not UTF-8 once decoded".to_owned())
}

/// A text that may be a URL, with what may be a secret in it hidden: for errors about a URL that cannot be read.
#[must_use]
pub fn redact(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, _)| text.split_at(scheme.len() + 3));
    // A password that is not encoded may have any character in it: hide all up to the last `@`.
    let rest = rest.rsplit_once('@').map_or_else(|| rest.to_owned(), |(_, host)| format!("{HIDDEN}@{host}"));
    let (path, query) = rest.split_once('?').map_or((&*rest, None), |(path, query)| (path, Some(query)));
    format!("{scheme}{path}{}", shown_query(query))
}

/// The query as it may be shown, with its question mark.
fn shown_query(query: Option<&str>) -> String {
    let is_secret = |name: &str| {
        let name = percent_decode_str(name).decode_utf8_lossy().to_lowercase();
        SECRET_PARAMETERS.contains(&&*name)
    };
    let shown = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if is_secret(name) => format!("{name}={HIDDEN}"),
        _ => pair.to_owned(),
    };
    query.map_or(String::new(), |query| format!("?{}", query.split('&').map(shown).collect::<Vec<_>>().join("&")))
}

/// A user and a password, decoded.
#[derive(Clone, PartialEq, Eq)]
struct Login {
    user: String,
    password: Option<String>,
}

/// A URL: scheme, user and password, host and port, path, query. `Display` and `Debug` hide the password, and the values
/// of query parameters such as `p` and `token`; of a user without a password they hide the user, who may be a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    login: Option<Login>,
    authority: String,
    path: String,
    query: Option<String>,
}

impl Url {
    /// Reads a URL. The scheme becomes lower case; a path may be absent; a fragment is refused.
    ///
    /// # Errors
    /// A sentence that begins with the URL, without its secrets.
    pub fn parse(given: &str) -> Result<Self, String> {
        Self::read(given).map_err(|why| format!("{:?}: {why}", redact(given)))
    }

    fn read(given: &str) -> Result<Self, String> {
        let (scheme, rest) = given.split_once("://").ok_or("not a URL such as http://receiver:8080")?;
        let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (login, authority) = authority.rsplit_once('@').map_or((None, authority), |(l, a)| (Some(l), a));
        let login = login.map(Login::read).transpose()?;
        if login.is_none() && target.contains('@') && !is_authority(authority) {
            return Err("the password has a '/', '?' or '#', which a URL has as %2F, %3F or %23".to_owned());
        }
        if authority.starts_with('[') && authority.contains('%') {
            return Err(
                "an address with a zone (the part after '%') cannot be used; name an address that needs none, \
                        or a host name"
                    .to_owned(),
            );
        }
        if authority.is_empty() || authority.starts_with(':') || authority.starts_with("[]") {
            return Err("names no host".to_owned());
        }
        if !is_authority(authority) {
            return Err("the port is not a number up to 65535".to_owned());
        }
        if target.contains('#') {
            return Err("has a fragment, which is not sent".to_owned());
        }
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let url = Self {
            scheme: scheme.to_ascii_lowercase(),
            login,
            authority: authority.to_owned(),
            path: path.to_owned(),
            query: query.map(str::to_owned),
        };
        let target = format!("http://{authority}{target}");
        target.parse::<ureq::http::Uri>().map(|_| url).map_err(|error| error.to_string())
    }

    /// Reads the URL of an HTTP server: its scheme is http or https, and it has no query.
    ///
    /// # Errors
    /// A sentence that begins with the URL, without its secrets.
    pub fn parse_http(given: &str) -> Result<Self, String> {
        let url = Self::parse(given)?;
        match (url.scheme(), url.query()) {
            ("http" | "https", None) => Ok(url),
            ("http" | "https", Some(_)) => Err(format!("{:?}: has a query, which cannot be used here", redact(given))),
            _ => Err(format!("{:?}: does not begin with http:// or https://", redact(given))),
        }
    }

    /// The scheme, in lower case.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Host and port, without the user.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The port, where the URL has one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        port_of(&self.authority)?.parse().ok()
    }

    /// Whether it has a user.
    #[must_use]
    pub fn has_user(&self) -> bool {
        self.login.is_some()
    }

    /// The path as it stands, which is empty or begins with a slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The query as it stands, without its question mark.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// The same server with another path and query, both already encoded.
    #[must_use]
    pub fn with_target(&self, path: impl Into<String>, query: Option<&str>) -> Self {
        Self { path: path.into(), query: query.map(str::to_owned), ..self.clone() }
    }

    /// The same with another scheme.
    #[must_use]
    pub fn with_scheme(&self, scheme: &str) -> Self {
        Self { scheme: scheme.to_owned(), ..self.clone() }
    }

    /// What an HTTP client is given to request: the whole URL without user and password, its query with all secrets.
    #[must_use]
    pub fn to_request(&self) -> String {
        let Self { scheme, authority, path, query, .. } = self;
        let mark = if query.is_some() { "?" } else { "" };
        format!("{scheme}://{authority}{path}{mark}{}", query.as_deref().unwrap_or_default())
    }

    /// The header `Authorization` for the user and the password, if there are any.
    #[must_use]
    pub fn authorization(&self) -> Option<String> {
        let Login { user, password } = self.login.as_ref()?;
        let password = password.as_deref().unwrap_or_default();
        Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))))
    }
}

impl Login {
    fn read(text: &str) -> Result<Self, String> {
        let (user, password) = text.split_once(':').map_or((text, None), |(user, password)| (user, Some(password)));
        let decoded = |field: &str, text: &str| match decode(text) {
            Ok(text) if text.contains(char::is_control) => Err(format!("the {field} has a control character")),
            Ok(text) => Ok(text.into_owned()),
            Err(why) => Err(format!("the {field} {why}")),
        };
        let (user, password) = (decoded("user", user)?, password.map(|text| decoded("password", text)).transpose()?);
        if user.contains(':') {
            return Err("the user has a ':', which HTTP cannot send".to_owned());
        }
        Ok(Self { user, password })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        match &self.login {
            Some(Login { user, password: Some(_) }) => write!(f, "{}:{HIDDEN}@", encode(user))?,
            Some(_) => write!(f, "{HIDDEN}@")?,
            None => {}
        }
        write!(f, "{}{}{}", self.authority, self.path, shown_query(self.query()))
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text of the port of an authority, behind the host or the brackets of an address.
fn port_of(authority: &str) -> Option<&str> {
    authority.rsplit(']').next()?.split_once(':').map(|(_, port)| port)
}

/// Whether what follows the host, if anything, is a port.
fn is_authority(authority: &str) -> bool {
    port_of(authority).is_none_or(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_secrets() {
        for (given, shown) in [
            ("http://me:secret@r:8080/api/perf/h/7", "http://me:***@r:8080/api/perf/h/7"),
            ("https://me:s:e@r/write?u=me&p=secret&db=a@b:c", "https://me:***@r/write?u=me&p=***&db=a@b:c"),
            ("http://r/write?%70=secret&Token=secret", "http://r/write?%70=***&Token=***"),
            ("http://me:secret@[::1]?p=", "http://me:***@[::1]?p=***"),
            ("http://secret@r/a:b@c", "http://***@r/a:b@c"),
            ("udp://r:8089", "udp://r:8089"),
        ] {
            let url = Url::parse(given).unwrap();
            assert_eq!((url.to_string(), format!("{url:?}")), (shown.to_owned(), shown.to_owned()));
        }
    }

    #[test]
    fn an_error_shows_no_secret_however_wrong_the_url_is() {
        for given in [
            "http://me:secret@",
            "http://me:secret@r:port",
            "http://me:sec/secret@r",
            "http://me:sec#secret@r?x",
            "http://me:%zz-secret@r",
            "http://me:@secret@r x",
            "me:secret@r:8080",
            "ftp:/me:secret@r",
            "http://r:x/write?p=secret",
            "http://r/#?token=secret",
            "http://me%3Asecret:@r",
        ] {
            let said = Url::parse(given).unwrap_err();
            assert!(!said.contains("secret"), "{said}");
        }
        assert!(Url::parse("http://me:a/b@r").unwrap_err().contains("%2F"));
    }

    #[test]
    fn the_client_is_given_the_decoded_password() {
        let url = Url::parse("HTTP://m%40e:p%3A%20%C3%BC@r:80/write?p=secret").unwrap();
        assert_eq!(url.to_request(), "http://r:80/write?p=secret");
        let expected = BASE64_STANDARD.encode("m@e:p: ü");
        assert_eq!(url.authorization(), Some(format!("Basic {expected}")));
        assert_eq!(Url::parse("http://r").unwrap().authorization(), None);
        assert_eq!(url.with_target("/health", None).to_string(), "http://m%40e:***@r:80/health");
    }

    #[test]
    fn wrong_urls_are_refused_by_a_sentence() {
        for (given, part) in [
            ("r:8080", "not a URL such as"),
            ("http://", "names no host"),
            ("http://:80", "names no host"),
            ("http://[]:80", "names no host"),
            ("http://r]:80", "invalid"),
            ("http://r:70000", "the port is not a number"),
            ("http://[::1]:x", "the port is not a number"),
            ("http://[fe80::1%25eth0]:8080", "zone"),
            ("udp://[fe80::1%eth0]:8080", "zone"),
            ("http://r/a#b", "fragment"),
            ("http://r/a b", "invalid"),
            ("http://r x", "invalid"),
        ] {
            let said = Url::parse(given).unwrap_err();
            assert!(said.starts_with(&format!("{given:?}: ")) && said.contains(part), "{given}: {said}");
        }
        assert!(Url::parse_http("udp://r:1").unwrap_err().contains("http:// or https://"));
        assert!(Url::parse_http("http://r?a=b").unwrap_err().contains("query"));
        let url = Url::parse_http("https://[::1]:8443/lizm").unwrap();
        assert_eq!(
            (url.scheme(), url.authority(), url.port(), url.path()),
            ("https", "[::1]:8443", Some(8443), "/lizm")
        );
    }

    #[test]
    fn texts_are_encoded_and_decoded_as_one_segment() {
        assert_eq!(encode("jar vis/1.ü"), "jar%20vis%2F1.%C3%BC");
        assert_eq!(decode("jar%20vis%2f1.%C3%BC").as_deref(), Ok("jar vis/1.ü"));
        assert!(decode("50%").unwrap_err().contains('%') && decode("%fF").unwrap_err().contains("UTF-8"));
    }
}
