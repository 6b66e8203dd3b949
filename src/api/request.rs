//! A request as routes see it: its request line, the headers that mean something here, and where it came from.

use std::net::IpAddr;

use crate::auth::{Identity, LastToken};
use crate::sample::{self, IdempotencyKey, OwnedKey, TAGS_HEADER, Tags};

/// Longest request line and header lines together, in bytes: the longest host and label, escaped, fit several times.
pub const HEAD_BYTES_MAX: usize = 8 << 10;

/// The request line and the headers that routes look at. Of a header that is given twice the first counts.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestHead<'a> {
    /// The method, as sent.
    pub method: &'a str,
    /// The request target, as sent: path and query.
    pub target: &'a str,
    /// How the request came.
    pub transport: ClientTransport<'a>,
    /// The address at the other end of the connection, where the server knows it.
    pub peer: Option<IpAddr>,
    /// The header `Accept-Encoding`.
    pub accept_encoding: Option<&'a str>,
    /// The header `Accept`.
    pub accept: Option<&'a str>,
    /// The header `Authorization`.
    pub authorization: Option<&'a str>,
    /// The header `Content-Encoding`.
    pub content_encoding: Option<&'a str>,
    /// The header `Host`.
    pub host: Option<&'a str>,
    /// The header `Idempotency-Key`.
    pub idempotency_key: Option<&'a str>,
    /// The header `If-None-Match`.
    pub if_none_match: Option<&'a str>,
    /// The header `Lizm-Tags`.
    pub tags: Option<&'a str>,
    /// The header `Origin`, which browsers send.
    pub origin: Option<&'a str>,
    /// The header `Sec-Fetch-Site`, which browsers send.
    pub sec_fetch_site: Option<&'a str>,
    /// The header `User-Agent`.
    pub user_agent: Option<&'a str>,
    /// The last header `X-Forwarded-For`, to which the last proxy has added the address of its client.
    pub forwarded_for: Option<&'a str>,
    /// The last token of the connection, where the server keeps it.
    pub last_token: Option<&'a LastToken>,
}

impl<'a> RequestHead<'a> {
    /// The head of a request, with what matters of its `headers`, pairs of name and value.
    pub fn new(
        method: &'a str,
        target: &'a str,
        transport: ClientTransport<'a>,
        peer: Option<IpAddr>,
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let mut head = Self { method, target, transport, peer, ..Self::default() };
        for (name, value) in headers {
            if name.eq_ignore_ascii_case("X-Forwarded-For") {
                head.forwarded_for = Some(value);
            }
            let known = [
                ("Accept-Encoding", &mut head.accept_encoding),
                ("Accept", &mut head.accept),
                ("Authorization", &mut head.authorization),
                ("Content-Encoding", &mut head.content_encoding),
                ("Host", &mut head.host),
                ("Idempotency-Key", &mut head.idempotency_key),
                ("If-None-Match", &mut head.if_none_match),
                (TAGS_HEADER, &mut head.tags),
                ("Origin", &mut head.origin),
                ("Sec-Fetch-Site", &mut head.sec_fetch_site),
                ("User-Agent", &mut head.user_agent),
            ];
            if let Some((_, field)) = known.into_iter().find(|(known, _)| name.eq_ignore_ascii_case(known)) {
                field.get_or_insert(value);
            }
        }
        head
    }

    /// The address of the client: the one that the peer has added, where the peer is one of `trusted_proxies`.
    pub(super) fn client(&self, trusted_proxies: &[IpAddr]) -> Option<IpAddr> {
        let peer = self.peer?.to_canonical();
        let forwarded_for = self.forwarded_for.filter(|_| trusted_proxies.contains(&peer));
        let last = forwarded_for.and_then(|addresses| addresses.rsplit(',').next());
        last.and_then(|address| address.trim().parse().ok()).or(Some(peer))
    }

    /// The key that marks a retry, if there is one, with the address of the client.
    ///
    /// # Errors
    /// A sentence that names the header and its grammar.
    pub(super) fn key(&self, address: Option<IpAddr>) -> Result<Option<OwnedKey>, String> {
        let owned = |key: IdempotencyKey<'_>| OwnedKey::from(IdempotencyKey { address, ..key });
        self.idempotency_key.map(|text| sample::parse_key(text).map(owned)).transpose()
    }

    /// The tags of the host, if there is their header.
    ///
    /// # Errors
    /// A sentence that names the header, the tag and the limit.
    pub(super) fn host_tags(&self) -> Result<Option<Tags>, String> {
        self.tags.map(Tags::from_header).transpose().map_err(|why| format!("header {TAGS_HEADER}: {why}"))
    }
}

/// How a request came, and who is on the other side.
#[derive(Debug, Clone, Copy, Default)]
pub enum ClientTransport<'a> {
    /// Plain HTTP: anybody.
    #[default]
    Plain,
    /// HTTPS: the owner of a certificate that was verified, or anybody.
    Tls(Option<&'a Identity>),
}

/// Which part of the API a receiver serves. Receivers that share a store may be two services, each scaled alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// All of it.
    #[default]
    All,
    /// What changes the store: it takes samples, and deletes hosts.
    Intake,
    /// What reads the store.
    Summaries,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_has_the_first_of_each_header_it_knows() {
        let headers = [("HOST", "a"), ("accept", "*/*"), ("host", "b"), ("authorization", ""), ("Origin", "null")];
        let head = RequestHead::new("GET", "/", ClientTransport::Plain, None, headers);
        assert_eq!((head.host, head.authorization, head.origin), (Some("a"), Some(""), Some("null")));
        assert_eq!((head.user_agent, head.idempotency_key), (None, None));
    }

    #[test]
    fn a_trusted_proxy_names_the_client_and_nobody_else_does() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let head = |peer, headers: &[(&'static str, &'static str)]| {
            RequestHead::new("GET", "/", ClientTransport::Plain, Some(ip(peer)), headers.iter().copied())
        };
        let headers = [("x-forwarded-for", "1.1.1.1"), ("X-Forwarded-For", "2.2.2.2, 3.3.3.3")];
        let proxies = [ip("10.0.0.1")];
        assert_eq!(head("10.0.0.1", &headers).client(&proxies), Some(ip("3.3.3.3")));
        assert_eq!(head("::ffff:10.0.0.1", &headers).client(&proxies), Some(ip("3.3.3.3")));
        assert_eq!(head("10.0.0.2", &headers).client(&proxies), Some(ip("10.0.0.2")));
        assert_eq!(head("10.0.0.1", &[("X-Forwarded-For", "unknown")]).client(&proxies), Some(ip("10.0.0.1")));
        assert_eq!(head("10.0.0.1", &[]).client(&proxies), Some(ip("10.0.0.1")));
    }
}
