//! The URL of an archive: which kind it is, and what the archive is called.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::url::{Url, decode};

/// Longest name of indices in bytes: with the month it stays far below the 255 that Elasticsearch takes.
const NAME_BYTES_MAX: usize = 100;
/// Longest file of credentials in bytes.
const CREDENTIALS_BYTES_MAX: u64 = 16 << 10;
/// The parameters of a URL that are for this program, and are not sent.
const APPEND: &str = "archive";
const AUTH_FILE: &str = "auth-file";

/// An archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// As it was given, which is shown without its secrets.
    given: Url,
    /// What is asked, with the scheme http or https.
    pub(super) url: Url,
    pub(super) kind: Kind,
    /// The file of its credentials.
    auth_file: Option<PathBuf>,
}

/// What an archive speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Line protocol, by InfluxDB's `/write`.
    Lines {
        /// Whether it keeps a second point beside the first, so that late changes are not sent.
        is_append_only: bool,
    },
    /// Elasticsearch's `_bulk`, into indices whose names begin so.
    Bulk(String),
}

impl Target {
    /// A number by which the store knows the archive: of what is shown of its URL, so that a new password changes nothing
    /// (FNV-1a).
    pub(super) fn id(&self) -> u64 {
        let byte = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        self.to_string().bytes().fold(0xcbf2_9ce4_8422_2325, byte)
    }

    /// Whether late changes are not sent.
    pub(super) fn is_append_only(&self) -> bool {
        matches!(self.kind, Kind::Lines { is_append_only: true })
    }

    /// The header `Authorization`, from the URL or the file, which is read each time: it may have changed.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(super) fn authorization(&self) -> Result<Option<String>, String> {
        match &self.auth_file {
            Some(file) => read_credentials(file).map(Some),
            None => Ok(self.url.authorization()),
        }
    }

    fn read(given: &str) -> Result<Self, String> {
        let given = Url::parse(given)?;
        let wrong = |why: &str| format!("{given}: {why}");
        let (mut sent, mut is_append_only, mut auth_file, mut has_database) = (Vec::new(), false, None, false);
        for pair in given.query().into_iter().flat_map(|query| query.split('&')).filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').unwrap_or((pair, "")) {
                (APPEND, "append") => is_append_only = true,
                (APPEND, _) => return Err(wrong("archive: append is the only value")),
                (AUTH_FILE, file) => {
                    let file = decode(file).map_err(|why| wrong(&format!("auth-file: {why}")))?;
                    auth_file = Some(PathBuf::from(&*file)).filter(|file| !file.as_os_str().is_empty());
                    auth_file.as_ref().ok_or_else(|| wrong("auth-file: names no file"))?;
                }
                ("precision", _) => return Err(wrong("precision: is set by lizm")),
                (name, value) => {
                    has_database |= matches!(name, "db" | "bucket") && !value.is_empty();
                    sent.push(pair);
                }
            }
        }
        if auth_file.is_some() && given.has_user() {
            return Err(wrong("has a user, and an auth-file"));
        }
        match given.scheme() {
            "http" | "https" if given.path().ends_with("/write") => {
                if !has_database {
                    return Err(wrong("names no database: /write?db=NAME"));
                }
                sent.push("precision=s");
                let url = given.with_target(given.path(), Some(&sent.join("&")));
                Ok(Self { url, kind: Kind::Lines { is_append_only }, auth_file, given })
            }
            "http" | "https" => Err(wrong("the path does not end with /write, which takes line protocol")),
            scheme @ ("elasticsearch" | "elasticsearchs") => {
                if is_append_only || !sent.is_empty() {
                    return Err(wrong("auth-file is the only parameter of elasticsearch"));
                }
                let (base, name) = given.path().rsplit_once('/').unwrap_or_default();
                check_name(name).map_err(wrong)?;
                let scheme = if scheme == "elasticsearch" { "http" } else { "https" };
                let url = given.with_scheme(scheme).with_target(base, None);
                Ok(Self { url, kind: Kind::Bulk(name.to_owned()), auth_file, given })
            }
            _ => Err(wrong("an archive begins with http://, https://, elasticsearch:// or elasticsearchs://")),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        Self::read(given)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.given.fmt(f)
    }
}

/// Checks what the names of indices begin with, by Elasticsearch's rules for them.
fn check_name(name: &str) -> Result<(), &'static str> {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    let begins_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    match begins_well && name.len() <= NAME_BYTES_MAX && name.bytes().all(is_allowed) {
        true => Ok(()),
        false => Err("behind the host stands the name of the indices, 1 to 100 of a-z, 0-9, '.', '_' and '-'"),
    }
}

/// Reads the first line of a file: `ApiKey …`, `Bearer …`, `Token …` or `Basic …` as HTTP sends it, or `USER:PASSWORD`.
fn read_credentials(file: &Path) -> Result<String, String> {
    let wrong = |why: &str| format!("auth-file {}: {why}", file.display());
    let about = fs::metadata(file).map_err(|error| wrong(&error.to_string()))?;
    if about.len() > CREDENTIALS_BYTES_MAX {
        return Err(wrong(&format!("longer than {CREDENTIALS_BYTES_MAX} bytes, the limit")));
    }
    let text = fs::read_to_string(file).map_err(|error| wrong(&error.to_string()))?;
    let line = text.lines().next().unwrap_or_default().trim();
    if !line.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err(wrong("the first line has something else than printable ASCII"));
    }
    match line.split_once(' ') {
        Some(("ApiKey" | "Bearer" | "Token" | "Basic", secret)) if !secret.trim().is_empty() => Ok(line.to_owned()),
        _ if line.contains(':') => Ok(format!("Basic {}", BASE64_STANDARD.encode(line))),
        _ => Err(wrong(
            "the first line is ApiKey, Bearer, Token or Basic with what HTTP sends behind it, or USER:PASSWORD",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(given: &str) -> Target {
        given.parse().unwrap()
    }

    #[test]
    fn the_url_says_what_an_archive_speaks() {
        let influx = target("http://me:secret@influx:8086/write?db=x&rp=year");
        assert_eq!(influx.url.to_request(), "http://influx:8086/write?db=x&rp=year&precision=s");
        assert_eq!(influx.kind, Kind::Lines { is_append_only: false });
        assert_eq!(influx.authorization(), Ok(Some("Basic bWU6c2VjcmV0".to_owned())));
        let vm = target("https://vm:8428/write?db=x&archive=append");
        assert_eq!((vm.url.to_request(), vm.is_append_only()), ("https://vm:8428/write?db=x&precision=s".into(), true));
        let elastic = target("elasticsearchs://es:9200/path/lizm-1");
        assert_eq!(elastic.url.to_request(), "https://es:9200/path");
        assert_eq!(elastic.kind, Kind::Bulk("lizm-1".to_owned()));
    }

    #[test]
    fn a_new_password_changes_no_name_and_no_secret_is_shown() {
        let (old, new) = (target("http://me:old@r/write?db=x&p=a"), target("http://me:new@r/write?db=x&p=b"));
        assert_eq!((old.id(), old.to_string()), (new.id(), "http://me:***@r/write?db=x&p=***".to_owned()));
        assert_ne!(old.id(), target("http://me:old@r/write?db=y&p=a").id());
        for given in [
            "http://me:secret@r/write",
            "http://me:secret@r/writ?db=x",
            "http://me:secret@r/write?db=x&precision=ms",
            "http://me:secret@r/write?db=x&archive=never",
            "http://me:secret@r/write?db=x&auth-file=/f",
            "http://r/write?db=x&auth-file=",
            "elasticsearch://me:secret@r/",
            "elasticsearch://me:secret@r/Upper",
            "elasticsearch://me:secret@r/-x",
            "elasticsearch://me:secret@r/x?token=secret",
            "riak://me:secret@r/x",
            "me:secret@r",
        ] {
            let why = given.parse::<Target>().unwrap_err();
            assert!(!why.contains("secret"), "{why}");
        }
    }

    #[test]
    fn credentials_are_the_first_line_of_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("auth");
        let read = |text: &str| {
            fs::write(&file, text).unwrap();
            target(&format!("elasticsearch://es/x?auth-file={}", file.display())).authorization()
        };
        assert_eq!(read("ApiKey abc==\nmore"), Ok(Some("ApiKey abc==".to_owned())));
        assert_eq!(read("me:se:cret\n"), Ok(Some("Basic bWU6c2U6Y3JldA==".to_owned())));
        for wrong in ["", "secret", "ApiKey ", "ApiKey a\u{1}", "x secret"] {
            let why = read(wrong).unwrap_err();
            assert!(why.starts_with("auth-file ") && !why.contains("secret"), "{why}");
        }
    }
}
