//! The tokens that a monitor shows: given by a receiver for this host's certificate, or read from a file.
//!
//! A thread keeps the token that a receiver gives. It asks for another at two thirds of its life, by a clock that
//! nobody sets, and when a receiver refuses the one there is.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::publisher::{ANSWER_BYTES_MAX, Http};
use crate::reload::Reloaded;
use crate::supervisor::spawn_supervised;
use crate::url::Url;

/// Longest token that is read from a file: a head has no room for more.
const TOKEN_BYTES_MAX: usize = 4096;
/// Wait before a receiver is asked again that did not give a token, doubled up to the longest.
const ASK_AGAIN_FIRST: Duration = Duration::from_secs(1);
const ASK_AGAIN_LONGEST: Duration = Duration::from_secs(30);
/// Shortest time between two tokens, whatever refuses the first.
const RENEW_EVERY_MIN: Duration = Duration::from_secs(1);
/// Longest life that is believed of a token: it is renewed before.
const LIFE_MAX: Duration = Duration::from_secs(86_400);
/// How soon one is asked again that has said that none is needed.
const NONE_NEEDED_FOR: Duration = Duration::from_secs(300);

/// Where the token for a destination comes from.
pub(super) enum Token {
    /// None is shown.
    None,
    /// From a file.
    File(Reloaded<Arc<str>>),
    /// From a receiver, by a thread.
    Given(Arc<TokenRefresher>),
}

impl Token {
    /// The token in a file.
    pub(super) fn in_file(file: &Path) -> Result<Self, String> {
        let path = file.to_owned();
        let read = move || {
            let wrong = |why: &str| format!("token file {}: {why}", path.display());
            let text = fs::read_to_string(&path).map_err(|error| wrong(&error.to_string()))?;
            let token = text.trim();
            if token.is_empty() || token.len() > TOKEN_BYTES_MAX || !token.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(wrong(&format!(
                    "is not a token, a word of 1 to {TOKEN_BYTES_MAX} letters, digits and signs"
                )));
            }
            Ok(Arc::from(token))
        };
        Reloaded::new(vec![file.to_owned()], read).map(Self::File)
    }

    /// The token that the receiver at `url` gives, which is asked by `http`.
    pub(super) fn given_by(url: Url, http: Http) -> std::io::Result<Self> {
        let kept = Arc::new(TokenRefresher { url, state: Mutex::default(), changed: Condvar::new() });
        let keeper = kept.clone();
        spawn_supervised("token", move || keeper.keep(&http))?;
        Ok(Self::Given(kept))
    }

    /// The token to show, if one is needed. Waits up to `wait` for the first one.
    pub(super) fn current(&self, wait: Duration) -> Result<Option<Arc<str>>, String> {
        match self {
            Self::None => Ok(None),
            Self::File(file) => Ok(Some(Arc::clone(&file.current()))),
            Self::Given(kept) => kept.current(wait),
        }
    }

    /// Has another asked for, since a receiver has refused `token`.
    pub(super) fn refused(&self, token: Option<&Arc<str>>) {
        if let Self::Given(kept) = self {
            kept.refused(token);
        }
    }
}

/// A token that a thread keeps.
pub(super) struct TokenRefresher {
    url: Url,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// What the latest answer was; nothing before the first.
    latest: Option<Result<Option<Arc<str>>, String>>,
    /// When the token that was given last is of no use any more.
    good_until: Option<Instant>,
    renew: bool,
}

/// What a receiver gives.
#[derive(Deserialize)]
struct TokenResponse {
    access_token: String,
    expires_in: u64,
}

impl TokenRefresher {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self, wait: Duration) -> Result<Option<Arc<str>>, String> {
        let state = self.lock();
        let waited = self.changed.wait_timeout_while(state, wait, |state| state.latest.is_none());
        let state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.latest.clone().unwrap_or_else(|| Err(format!("no token from {} yet", self.url)))
    }

    fn refused(&self, token: Option<&Arc<str>>) {
        let mut state = self.lock();
        // Another may have come since.
        if matches!(&state.latest, Some(Ok(latest)) if latest.as_ref() == token) {
            state.renew = true;
            self.changed.notify_all();
        }
    }

    fn keep(&self, http: &Http) {
        let mut ask_again = ASK_AGAIN_FIRST;
        loop {
            let asked_at = Instant::now();
            let answer = self.ask(http);
            let mut state = self.lock();
            let wait = match answer {
                Ok(Some(TokenResponse { access_token, expires_in })) => {
                    let life = Duration::from_secs(expires_in).min(LIFE_MAX);
                    state.latest = Some(Ok(Some(access_token.into())));
                    state.good_until = Some(asked_at + life);
                    ask_again = ASK_AGAIN_FIRST;
                    life * 2 / 3
                }
                Ok(None) => {
                    (state.latest, state.good_until) = (Some(Ok(None)), None);
                    NONE_NEEDED_FOR
                }
                Err(details) => {
                    log::warn!("No token from {}, details: {details}", self.url);
                    // One that is still good is shown until it is not.
                    if state.good_until.is_none_or(|until| Instant::now() >= until) {
                        state.latest = Some(Err(format!("no token from {}: {details}", self.url)));
                    }
                    let wait = ask_again;
                    ask_again = (ask_again * 2).min(ASK_AGAIN_LONGEST);
                    wait
                }
            };
            state.renew = false;
            self.changed.notify_all();
            let waited = self.changed.wait_timeout_while(state, wait.max(RENEW_EVERY_MIN), |state| !state.renew);
            let was_refused = waited.unwrap_or_else(PoisonError::into_inner).0.renew;
            if was_refused {
                thread::sleep(RENEW_EVERY_MIN.saturating_sub(asked_at.elapsed()));
            }
        }
    }

    /// Asks for a token; `None` where none is needed.
    fn ask(&self, http: &Http) -> Result<Option<TokenResponse>, String> {
        let mut request = http.current().post(self.url.to_request());
        if let Some(authorization) = self.url.authorization() {
            request = request.header("Authorization", authorization);
        }
        let mut response = request.send_empty().map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let answer = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        let answer = answer.map_err(|error| format!("HTTP {status}, and its body: {error}"))?;
        match status {
            200 => serde_json::from_str(&answer).map(Some).map_err(|error| format!("the answer is no token: {error}")),
            404 => Ok(None),
            _ => Err(format!("HTTP {status}{}", super::publisher::said(&answer))),
        }
    }
}
