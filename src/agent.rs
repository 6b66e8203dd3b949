//! HTTP clients of `monitor`, `check` and `watch`: how an agent of ureq is made, and what its errors mean to a person.

mod transport;

use std::path::Path;
use std::time::{Duration, SystemTime};

use ureq::config::ConfigBuilder;
use ureq::typestate::AgentScope;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::{Agent, Error, Timeout};

use crate::auth;

/// Makes an agent with the timeouts of `config`. It trusts the authorities in the file `ca`, or those of the web without
/// one, and shows the certificate of `identity`, a chain and its key. Every status is an answer and no error; the
/// environment's proxy, which is for the web, is not used.
///
/// # Errors
/// When a file cannot be used, or the key is not the certificate's; the sentence names the files.
pub fn new(
    config: ConfigBuilder<AgentScope>,
    ca: Option<&Path>,
    identity: Option<(&Path, &Path)>,
) -> Result<Agent, String> {
    let config = config.http_status_as_error(false).proxy(None);
    let config = config.user_agent(concat!("lizm/", env!("CARGO_PKG_VERSION")));
    let config = auth::with_tls(config, ca, identity)?.build();
    Ok(Agent::with_parts(config, transport::connector(), DefaultResolver::default()))
}

/// What went wrong with a request, and what to do about it, as the end of a sentence.
#[must_use]
pub fn explain(agent: &Agent, error: &Error) -> String {
    let limits = agent.config().timeouts();
    let within = |limit: Option<Duration>| {
        limit.or(limits.global).map_or(String::new(), |limit| format!(" in {} s", limit.as_secs_f32()))
    };
    match error {
        Error::Timeout(Timeout::Resolve) => format!("the host name was not resolved{}", within(limits.resolve)),
        Error::Timeout(Timeout::Connect) => format!("no connection{}", within(limits.connect)),
        Error::Timeout(_) => format!("no answer{}", within(None)),
        Error::HostNotFound => "the host name is not known".to_owned(),
        // ureq's own sentence has the URL with all that is secret in it.
        Error::BadUri(_) => "the URL cannot be requested".to_owned(),
        Error::Protocol(error) => format!("the answer is not HTTP: {error}"),
        Error::Other(error) => error.to_string(),
        Error::Io(error) => {
            explain_tls(error.get_ref().and_then(|inner| inner.downcast_ref())).unwrap_or_else(|| error.to_string())
        }
        #[cfg(feature = "tls")]
        Error::Rustls(error) => explain_tls(Some(error)).unwrap_or_else(|| error.to_string()),
        error => error.to_string(),
    }
}

/// What is wrong with the TLS of a server.
#[cfg(feature = "tls")]
fn explain_tls(error: Option<&rustls::Error>) -> Option<String> {
    use rustls::{AlertDescription, CertificateError, Error};
    Some(match error? {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the server's certificate is not trusted (UnknownIssuer): name its authority by --ca".to_owned()
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "the server's certificate is for other names than the URL's host".to_owned(),
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "the server's certificate has expired, or this machine's clock is ahead".to_owned()
        }
        Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "the server's certificate is not valid yet, or this machine's clock is behind".to_owned()
        }
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the server wants a certificate: give one by --cert and --key".to_owned()
        }
        error => format!("TLS failed: {error}"),
    })
}

#[cfg(not(feature = "tls"))]
fn explain_tls(_: Option<&std::convert::Infallible>) -> Option<String> {
    None
}

/// Reads `Retry-After`: seconds, or a date (RFC 9110, 10.2.3).
#[must_use]
pub fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    match value.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(value.trim()).ok()?.duration_since(now).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;
    use std::time::UNIX_EPOCH;

    use super::*;

    /// What comes of a GET from a server that reads something, and answers with `bytes`.
    fn get(scheme: &str, bytes: &'static [u8]) -> Result<(u16, String), String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 1000];
            assert!(stream.read(&mut head).unwrap() > 0);
            // In small pieces, as a slow network brings it.
            for piece in bytes.chunks(7) {
                let _ = stream.write_all(piece).and_then(|()| stream.flush());
            }
            // Until the client has had enough.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let agent = new(Agent::config_builder().timeout_global(Some(Duration::from_millis(1500))), None, None).unwrap();
        let answer = agent.get(url).call().map_err(|error| explain(&agent, &error));
        let answer = answer.map(|mut answer| (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap()));
        drop(agent);
        server.join().unwrap();
        answer
    }

    #[test]
    fn interim_answers_with_fields_are_passed_over() {
        for interim in ["", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 100 Continue\r\nDate: x\r\nServer: y\r\n\r\n"] {
            let answer = format!("{interim}{interim}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            assert_eq!(get("http", answer.leak().as_bytes()), Ok((200, "ok".to_owned())), "{interim}");
        }
        // Two hundred of them are no answer.
        let many = "HTTP/1.1 102 Processing\r\nA: b\r\n\r\n".repeat(200);
        assert!(get("http", many.leak().as_bytes()).unwrap_err().contains("interim"));
        // A body may begin like a head.
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 25\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
        assert_eq!(get("http", answer).unwrap().1, "HTTP/1.1 100 Continue\r\n\r\n");
    }

    #[test]
    fn a_port_that_speaks_otherwise_is_named() {
        // An alert of TLS 1.2: unexpected message.
        assert_eq!(get("http", b"\x15\x03\x03\0\x02\x02\x0a").unwrap_err(), "this port speaks TLS: use https://");
        assert!(get("http", b"SSH-2.0-OpenSSH_9.6\r\n").unwrap_err().starts_with("the answer is not HTTP"));
        assert_eq!(get("http", b"").unwrap_err(), "no answer in 1.5 s");
    }

    #[cfg(feature = "tls")]
    #[test]
    fn a_port_without_tls_is_named() {
        let bad_request = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(get("https", bad_request).unwrap_err(), "this port does not speak TLS: use http://");
        // Nothing at all is what a plain server that waits for the end of a line answers.
        assert!(get("https", b"").unwrap_err().contains("use http://"));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = UNIX_EPOCH + Duration::from_secs(1_465_001_814);
        let wait = |value| parse_retry_after(value, now).map(|wait| wait.as_secs());
        assert_eq!((wait("0"), wait(" 17 "), wait("86400")), (Some(0), Some(17), Some(86_400)));
        let later = httpdate::fmt_http_date(now + Duration::from_secs(20));
        assert_eq!((wait(&later), wait("Sat, 01 Jan 2000 00:00:00 GMT"), wait("soon")), (Some(20), Some(0), None));
    }
}
