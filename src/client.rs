//! A small HTTP client of one receiver, for `lizm check`, `lizm export`, `lizm watch` and `lizm forget`.

use std::fmt::Write;
use std::io::{self, BufReader, Read};
use std::path::PathBuf;
use std::time::Duration;

use flate2::read::GzDecoder;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::response::Parts;
use ureq::http::{Response, StatusCode};
use ureq::{Body, RequestBuilder};

use crate::url::Url;
use crate::{agent, auth};

/// Longest time for a whole request, from the lookup of the name to the end of the answer.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// Most bytes of one answer: a page of 1,000 hosts with all their labels is shorter.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Most bytes of an answer that reports an error.
const ERROR_BYTES_MAX: u64 = 64 << 10;

/// Which receiver to ask, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The receiver, such as `http://localhost:8080`; its API may be below a path.
    pub url: Url,
    /// The authorities of the receiver's certificate, as PEM.
    pub ca: Option<PathBuf>,
    /// The file of the password that reading may need.
    pub password_file: Option<PathBuf>,
}

/// A client of one receiver.
pub struct Client {
    agent: ureq::Agent,
    url: Url,
    /// The header `Authorization`, where there is a password.
    authorization: Option<String>,
}

/// What a receiver answers where it cannot do what it is asked for.
#[derive(Deserialize)]
struct ErrorAnswer {
    /// `/health` has a `reason`.
    #[serde(alias = "reason")]
    error: String,
}

/// Why there is no answer, as the end of a sentence.
enum Failure {
    /// It was refused for who asks.
    Unauthorized(String),
    Other(String),
}

impl Client {
    /// A client of the receiver that the options name. Nothing is sent yet.
    ///
    /// # Errors
    /// When a file of the options cannot be used; the sentence names it.
    pub fn new(options: &Options) -> Result<Self, String> {
        let config = ureq::Agent::config_builder().timeout_global(Some(REQUEST_WITHIN));
        let agent = agent::new(config, options.ca.as_deref(), None)?;
        let password = options.password_file.as_deref().map(auth::basic).transpose()?;
        Ok(Self { agent, url: options.url.clone(), authorization: password.or_else(|| options.url.authorization()) })
    }

    /// Asks for the JSON at a path of the receiver, within five seconds.
    ///
    /// # Errors
    /// Why there is none: a sentence that begins with the URL, without its secrets.
    pub fn get<T: DeserializeOwned>(&self, path: &str, query: Option<&str>) -> Result<T, String> {
        self.read(path, query, |head, body| self.parse(head, body))
    }

    /// Asks for the text at a path of the receiver, within five seconds. The text comes with the query of the next page,
    /// if there is one.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn get_page(&self, path: &str, query: &str) -> Result<(String, Option<String>), String> {
        self.read(path, Some(query), |head, body| {
            let next = head.headers.get("Link").and_then(|link| link.to_str().ok());
            let next = next.and_then(|link| Some(link.strip_prefix("<?")?.split_once('>')?.0.to_owned()));
            let text = io::read_to_string(reader(head, body, ANSWER_BYTES_MAX));
            text.map(|text| (text, next)).map_err(|error| Failure::Other(agent::explain(&self.agent, &error.into())))
        })
    }

    fn read<T>(
        &self,
        path: &str,
        query: Option<&str>,
        read: impl FnOnce(&Parts, Body) -> Result<T, Failure>,
    ) -> Result<T, String> {
        let path = format!("{}{path}", self.url.path().trim_end_matches('/'));
        let request = self.agent.get(self.url.with_target(path.clone(), query).to_request());
        let request = request.header("Accept-Encoding", "gzip");
        let request = with_authorization(request, self.authorization.as_deref());
        let answer = self.answer(request.call()).and_then(|(head, body)| read(&head, body));
        let answer = answer.map_err(|why| match why {
            Failure::Unauthorized(_) if self.authorization.is_none() => {
                "a password is needed to read here; --password-file names the file that has it".to_owned()
            }
            Failure::Unauthorized(_) => "the password is not the one that reading needs here".to_owned(),
            Failure::Other(why) => why,
        });
        answer.map_err(|why| format!("{}: {why}", self.url.with_target(path, None)))
    }

    /// Reads the JSON of an answer.
    fn parse<T: DeserializeOwned>(&self, head: &Parts, body: Body) -> Result<T, Failure> {
        let body = reader(head, body, ANSWER_BYTES_MAX);
        serde_json::from_reader(BufReader::new(body)).map_err(|error| {
            Failure::Other(match error.is_io() {
                true => agent::explain(&self.agent, &io::Error::from(error).into()),
                false => format!("not the answer of a receiver: {error}"),
            })
        })
    }

    /// Removes what is at a path of the receiver, with a token where one is needed, and gives what it answers.
    ///
    /// # Errors
    /// Why it was not removed: a sentence that begins with the URL, without its secrets.
    pub fn delete<T: DeserializeOwned>(&self, path: &str, token: Option<&str>) -> Result<T, String> {
        self.change(path, token, |url, authorization| {
            let request = self.agent.delete(url);
            with_authorization(request, authorization).call()
        })
    }

    /// Posts JSON to a path of the receiver, with a token where one is needed, and gives what it answers.
    ///
    /// # Errors
    /// Why it was not taken: a sentence that begins with the URL, without its secrets.
    pub fn post<T: DeserializeOwned>(&self, path: &str, token: Option<&str>, body: &str) -> Result<T, String> {
        self.change(path, token, |url, authorization| {
            let request = self.agent.post(url).header("Content-Type", "application/json");
            with_authorization(request, authorization).send(body)
        })
    }

    fn change<T: DeserializeOwned>(
        &self,
        path: &str,
        token: Option<&str>,
        send: impl FnOnce(String, Option<&str>) -> Result<Response<Body>, ureq::Error>,
    ) -> Result<T, String> {
        let path = format!("{}{path}", self.url.path().trim_end_matches('/'));
        let url = self.url.with_target(path, None);
        let token = token.map(|token| format!("Bearer {token}"));
        let authorization = token.as_deref().or(self.authorization.as_deref());
        let answer = self.answer(send(url.to_request(), authorization));
        let answer = answer.and_then(|(head, body)| self.parse(&head, body)).map_err(|why| match why {
            Failure::Unauthorized(_) if token.is_none() => {
                "a token is needed here; --token-file names the file that has it".to_owned()
            }
            Failure::Unauthorized(why) | Failure::Other(why) => why,
        });
        answer.map_err(|why| format!("{url}: {why}"))
    }

    /// Takes an answer apart that has status 200.
    fn answer(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<(Parts, Body), Failure> {
        let explain = |error: &ureq::Error| Failure::Other(agent::explain(&self.agent, error));
        let (head, body) = answer.map_err(|error| explain(&error))?.into_parts();
        match head.status {
            StatusCode::OK => Ok((head, body)),
            status => {
                let body = reader(&head, body, ERROR_BYTES_MAX);
                let mut why = format!("HTTP {status}");
                if let Ok(answer) = serde_json::from_reader::<_, ErrorAnswer>(BufReader::new(body)) {
                    let _ = write!(why, ": {}", answer.error);
                }
                Err(if status == StatusCode::UNAUTHORIZED { Failure::Unauthorized(why) } else { Failure::Other(why) })
            }
        }
    }
}

fn with_authorization<B>(request: RequestBuilder<B>, authorization: Option<&str>) -> RequestBuilder<B> {
    match authorization {
        Some(authorization) => request.header("Authorization", authorization),
        None => request,
    }
}

/// Reads a body, decompressed where it is gzip, up to `bytes_max` bytes.
fn reader(head: &Parts, body: Body, bytes_max: u64) -> impl Read {
    let is_gzip =
        head.headers.get("Content-Encoding").is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"gzip"));
    let body = body.into_with_config().limit(bytes_max).reader();
    let body: Box<dyn Read> = if is_gzip { Box::new(GzDecoder::new(body)) } else { Box::new(body) };
    body.take(bytes_max)
}
