//! `lizm forget`: removes a host from a receiver, as DELETE does.

use std::path::PathBuf;

use lizm::client::{self, Client};
use lizm::{auth, url};
use serde::de::IgnoredAny;

/// The options of `lizm forget`.
#[derive(Debug)]
pub(crate) struct ForgetOptions {
    pub(crate) receiver: client::Options,
    pub(crate) host: String,
    /// The file of an operator's token, or of one for the host.
    pub(crate) token_file: Option<PathBuf>,
}

/// Removes the host that the options name, and says so.
///
/// # Errors
/// Why it was not removed.
pub(crate) fn forget(options: &ForgetOptions) -> Result<String, String> {
    let token = options.token_file.as_deref().map(auth::read_token).transpose()?;
    let path = format!("/api/perf/{}", url::encode(&options.host));
    let _: IgnoredAny = Client::new(&options.receiver)?.delete(&path, token.as_deref())?;
    Ok(format!("{} is forgotten; it comes back if it still reports", options.host))
}
