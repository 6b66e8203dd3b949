//! The tokens that a monitor shows: given by a receiver for this host's certificate or a join token, or read from a file.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::destination::Destination;
use super::http::{self, SharedAgent};
use super::own_token::{GivenToken, OwnToken};
use super::{Credentials, JoinToken};
use crate::auth;
use crate::reload::Reloaded;
use crate::supervisor::spawn_supervised;
use crate::url::Url;

/// Wait before a receiver is asked again that did not give a token, doubled up to the longest.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(30);
/// Shortest time between two tokens, whatever refuses the first.
const RENEW_EVERY_MIN: Duration = Duration::from_secs(1);
/// Longest life that is believed of a token: it is renewed before.
const LIFE_MAX: Duration = Duration::from_secs(86_400);
/// How soon a receiver is asked again that has said that it needs no token.
const NONE_NEEDED_FOR: Duration = Duration::from_secs(300);

/// Where the token for a destination comes from.
pub(super) enum TokenSource {
    /// No token is shown.
    None,
    /// A file.
    File(Reloaded<Arc<str>>),
    /// A receiver, asked by a thread.
    Receiver(Arc<TokenRefresher>),
}

impl TokenSource {
    fn file(file: &Path) -> Result<Self, String> {
        let path = file.to_owned();
        let read = move || auth::read_token(&path).map(Arc::from);
        Reloaded::new(vec![file.to_owned()], read).map(Self::File)
    }

    fn receiver(url: Url, agent: SharedAgent, mut own: Option<OwnToken>) -> io::Result<Self> {
        let refresher = Arc::new(TokenRefresher { url, token: Mutex::default(), changed: Condvar::new() });
        let (running, answered) = (refresher.clone(), refresher);
        spawn_supervised("token", move || running.run(&agent, own.as_mut()))?;
        Ok(Self::Receiver(answered))
    }

    /// The token to show, if one is needed. Waits up to `wait` for the first answer of a receiver.
    pub(super) fn current(&self, wait: Duration) -> Result<Option<Arc<str>>, String> {
        match self {
            Self::None => Ok(None),
            Self::File(file) => Ok(Some(Arc::clone(&file.current()))),
            Self::Receiver(refresher) => refresher.current(wait),
        }
    }

    /// Has another token asked for, since a receiver has refused `token`.
    pub(super) fn refused(&self, token: Option<&Arc<str>>) {
        if let Self::Receiver(refresher) = self {
            refresher.refused(token);
        }
    }
}

/// The token sources of a monitor's destinations: one for each receiver that gives tokens, and one for the file.
pub(super) struct TokenSources<'a> {
    credentials: &'a Credentials,
    host: &'a str,
    agent: SharedAgent,
    known: HashMap<String, Arc<TokenSource>>,
}

impl<'a> TokenSources<'a> {
    pub(super) fn new(credentials: &'a Credentials, host: &'a str, agent: SharedAgent) -> Self {
        Self { credentials, host, agent, known: HashMap::new() }
    }

    /// Where the token for a destination is asked for, if a receiver gives it.
    fn url_for(&self, destination: &Destination) -> Option<Url> {
        let Credentials { certificate, token_from, join, .. } = self.credentials;
        match (token_from, destination) {
            (Some(url), _) => Some(url.clone()),
            (None, _) if certificate.is_some() => destination.token_url().filter(|url| url.scheme() == "https"),
            // Whatever else takes lines is not to see a token to join with.
            (None, Destination::Api(_)) if join.is_some() => destination.token_url(),
            _ => None,
        }
    }

    /// Checks that a host that is to join has where to.
    ///
    /// # Errors
    /// When none of the destinations gives tokens.
    pub(super) fn check(&self, destinations: &[Destination]) -> io::Result<()> {
        let joins = self.credentials.join.as_ref().is_some_and(|join| !matches!(join.token, JoinToken::None));
        if joins && destinations.iter().all(|destination| self.url_for(destination).is_none()) {
            let why = "option --join: no URL of --publish is that of a receiver over HTTP; --token-from names one";
            return Err(io::Error::other(why));
        }
        Ok(())
    }

    /// The token source of a destination.
    ///
    /// # Errors
    /// When the file cannot be used, or a thread not be started.
    pub(super) fn of(&mut self, destination: &Destination) -> io::Result<Arc<TokenSource>> {
        let Credentials { token_file, join, .. } = self.credentials;
        let url = self.url_for(destination);
        let name = url.as_ref().map(Url::to_string).or(token_file.as_ref().map(|file| file.display().to_string()));
        let name = name.unwrap_or_default();
        if let Some(source) = self.known.get(&name) {
            return Ok(source.clone());
        }
        let source = Arc::new(match (url, token_file) {
            (Some(url), None) => match join.as_ref().map(|join| OwnToken::open(join, &url, self.host)).transpose()? {
                Some(None) => TokenSource::None,
                own => TokenSource::receiver(url, self.agent.clone(), own.flatten())?,
            },
            (_, Some(file)) => TokenSource::file(file).map_err(io::Error::other)?,
            (None, None) => TokenSource::None,
        });
        self.known.insert(name, source.clone());
        Ok(source)
    }
}

/// Keeps a token that a receiver gives. Its thread asks for another at two thirds of a token's life, or at half of that of
/// the host's own, by a clock that nobody sets, and when a receiver refuses the one there is.
pub(super) struct TokenRefresher {
    url: Url,
    token: Mutex<CurrentToken>,
    changed: Condvar,
}

#[derive(Default)]
struct CurrentToken {
    /// The latest answer; nothing before the first.
    latest: Option<Result<Option<Arc<str>>, String>>,
    /// When the newest token expires.
    good_until: Option<Instant>,
    is_refused: bool,
}

impl TokenRefresher {
    fn lock(&self) -> MutexGuard<'_, CurrentToken> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self, wait: Duration) -> Result<Option<Arc<str>>, String> {
        let waited = self.changed.wait_timeout_while(self.lock(), wait, |token| token.latest.is_none());
        let token = waited.unwrap_or_else(PoisonError::into_inner).0;
        token.latest.clone().unwrap_or_else(|| Err(format!("no token from {} yet", self.url)))
    }

    fn refused(&self, token: Option<&Arc<str>>) {
        let mut current = self.lock();
        // Another may have come since.
        if matches!(&current.latest, Some(Ok(latest)) if latest.as_ref() == token) {
            current.is_refused = true;
            self.changed.notify_all();
        }
    }

    fn run(&self, agent: &SharedAgent, mut own: Option<&mut OwnToken>) {
        let mut retry = RETRY_FIRST;
        let mut kept = own.as_ref().and_then(|own| own.kept());
        loop {
            let asked_at = Instant::now();
            let answer = match (kept.take(), &mut own) {
                (Some(kept), _) => Ok(Some(kept)),
                (None, Some(own)) => own.ask(&agent.current(), &self.url),
                (None, None) => self.ask(agent),
            };
            let mut current = self.lock();
            let wait = match answer {
                Ok(Some(GivenToken { token, life, renewed_in })) => {
                    (current.latest, current.good_until) = (Some(Ok(Some(token))), Some(asked_at + life));
                    retry = RETRY_FIRST;
                    renewed_in
                }
                Ok(None) => {
                    (current.latest, current.good_until) = (Some(Ok(None)), None);
                    NONE_NEEDED_FOR
                }
                Err(details) => {
                    log::warn!("No token from {}, details: {details}", self.url);
                    // A token that is still good is shown until it expires.
                    if current.good_until.is_none_or(|until| Instant::now() >= until) {
                        current.latest = Some(Err(format!("no token from {}: {details}", self.url)));
                    }
                    let wait = retry;
                    retry = (retry * 2).min(RETRY_LONGEST);
                    wait
                }
            };
            current.is_refused = false;
            self.changed.notify_all();
            let wait = wait.max(RENEW_EVERY_MIN);
            let waited = self.changed.wait_timeout_while(current, wait, |current| !current.is_refused);
            let is_refused = waited.unwrap_or_else(PoisonError::into_inner).0.is_refused;
            if is_refused {
                thread::sleep(RENEW_EVERY_MIN.saturating_sub(asked_at.elapsed()));
            }
        }
    }

    /// Asks for a token by the certificate of the connection; `None` where none is needed.
    fn ask(&self, agent: &SharedAgent) -> Result<Option<GivenToken>, String> {
        let answer = http::post(&agent.current(), &self.url, None, &[], &[]).map_err(|error| error.details)?;
        Ok(answer.token()?.map(|(token, life)| {
            let life = life.min(LIFE_MAX);
            GivenToken { token, life, renewed_in: life * 2 / 3 }
        }))
    }
}
