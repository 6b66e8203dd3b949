//! `lizm check`: asks a receiver whether it is well, for containers and cron.

use std::path::PathBuf;
use std::time::Duration;

use lizm::auth;
use serde_json::Value;

/// Longest time for the whole of one request: the default of a container's health check is half a minute.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Hosts asked for at once while looking for one.
const PAGE: usize = 1000;
/// Most bytes of one answer: a page of hosts with all their labels.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// What `lizm check` is told on its command line.
#[derive(Debug)]
pub(crate) struct CheckOptions {
    pub(crate) url: String,
    /// A host that must be up.
    pub(crate) host: Option<String>,
    /// Authorities of the receiver's certificate.
    pub(crate) ca: Option<PathBuf>,
    /// The password that the list of hosts may need.
    pub(crate) password_file: Option<PathBuf>,
}

/// Succeeds when the receiver is healthy and, where one is asked for, the host is up there.
pub(crate) fn check(question: &CheckOptions) -> Result<(), String> {
    let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).timeout_global(Some(TIMEOUT));
    let config = auth::with_tls(config, question.ca.as_deref(), None)?;
    let agent = ureq::Agent::from(config.build());
    let url = question.url.trim_end_matches('/');
    if get(&agent, &format!("{url}/health"), None)?["status"] != "ok" {
        return Err(format!("{url}/health: not the answer of a receiver; the URL is the one before /api"));
    }
    let Some(host) = &question.host else {
        log::info!("{url} is well");
        return Ok(());
    };
    let password = question.password_file.as_deref().map(auth::basic).transpose()?;
    let state = state_of(&agent, url, host, password.as_deref())?;
    if state == "up" {
        log::info!("{host} is up");
        return Ok(());
    }
    Err(format!("{host} is {state}"))
}

fn state_of(agent: &ureq::Agent, url: &str, host: &str, password: Option<&str>) -> Result<String, String> {
    let mut after = String::new();
    loop {
        let page = get(agent, &format!("{url}/api/hosts?limit={PAGE}{after}"), password)?;
        let hosts = page["hosts"].as_array().ok_or_else(|| format!("{url}/api/hosts: not a list of hosts"))?;
        if let Some(found) = hosts.iter().find(|entry| entry["host"] == host) {
            return Ok(found["state"].as_str().unwrap_or("in no state").to_owned());
        }
        match hosts.last().and_then(|last| last["host"].as_str()) {
            Some(last) if hosts.len() == PAGE => {
                after = format!("&after={}", lizm::url::encode(last));
            }
            _ => return Ok("not known there".to_owned()),
        }
    }
}

/// Asks for JSON, with a header `Authorization` where there is a password.
fn get(agent: &ureq::Agent, url: &str, password: Option<&str>) -> Result<Value, String> {
    let mut request = agent.get(url);
    if let Some(password) = password {
        request = request.header("Authorization", password);
    }
    let mut response = request.call().map_err(|error| format!("{url}: {error}"))?;
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
    let body = body.map_err(|error| format!("{url}: {error}"))?;
    if status != 200 {
        return Err(format!("{url}: HTTP {status}: {}", body.trim()));
    }
    serde_json::from_str(&body).map_err(|error| format!("{url}: the answer is not JSON: {error}"))
}
