//! The dashboard: one page, built in, and the headers that isolate it.
//!
//! Its parts are in `src/dashboard/`. The page fetches the JSON of the API by relative URLs and nothing else, so that it
//! works under any path of a proxy. Its script and its style are inline, and the policy names both by their hashes: a
//! browser runs nothing else, whatever a host or a label is called.

use super::reply::Reply;

/// The script, in the order in which its parts build on each other.
macro_rules! script {
    () => {
        concat!(
            include_str!("../dashboard/text.js"),
            include_str!("../dashboard/units.js"),
            include_str!("../dashboard/list.js"),
            include_str!("../dashboard/chart.js"),
            include_str!("../dashboard/host.js"),
            include_str!("../dashboard/main.js"),
        )
    };
}

macro_rules! style {
    () => {
        include_str!("../dashboard/style.css")
    };
}

const PAGE: &str = concat!(
    "<!doctype html>\n<html lang=\"en\">\n<head>\n",
    include_str!("../dashboard/head.html"),
    "<style>",
    style!(),
    "</style>\n</head>\n<body>\n",
    include_str!("../dashboard/body.html"),
    "<script>",
    script!(),
    "</script>\n</body>\n</html>\n",
);

/// What the browser may do. The hashes are those of the script and the style in the page; a test compares them.
const POLICY: &str = "default-src 'none'; \
    script-src 'sha256-WY2kzt9m/gEGUhZ6J7tSxuCk9DEOS7pfHw260JDvL68='; \
    style-src 'sha256-QwHFeq+EnBJ4Ntq5AHlSLATlpPoG/NjynSrwd4gP2Ww='; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

/// The entity tag of the page: a browser that has this page need not fetch it again.
const ETAG: &str = "\"kTqwffkPrGydMNA4\"";

const HEADERS: [(&str, &str); 6] = [
    ("Content-Type", "text/html; charset=utf-8"),
    ("Content-Security-Policy", POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    // The browser asks at every load, so that after an upgrade nobody sees the page of the version before.
    ("Cache-Control", "no-cache"),
    ("ETag", ETAG),
];

/// Whether a browser has the page already, by its `If-None-Match`. A proxy that compresses the page makes the tag weak.
pub(super) fn is_cached(if_none_match: &str) -> bool {
    if_none_match.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == ETAG)
}

/// The page, or a 304 where the browser has it.
pub(super) fn reply(is_cached: bool) -> Reply {
    let (status, body) = if is_cached { (304, "") } else { (200, PAGE) };
    HEADERS.into_iter().fold(Reply::new(status, body.into()), |reply, (name, value)| reply.with(name, value))
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use sha2::{Digest, Sha256};

    use super::*;

    fn hash(text: &str) -> String {
        BASE64_STANDARD.encode(Sha256::digest(text))
    }

    #[test]
    fn the_policy_and_the_tag_are_those_of_the_page() {
        let script = format!("script-src 'sha256-{}'", hash(script!()));
        let style = format!("style-src 'sha256-{}'", hash(style!()));
        let tag = format!("\"{}\"", &hash(PAGE)[..16]);
        let is_right = POLICY.contains(&script) && POLICY.contains(&style) && ETAG == tag;
        assert!(is_right, "the page has changed: POLICY needs {script} and {style}, ETAG {tag}");
    }

    #[test]
    fn the_page_has_no_address_in_it_and_makes_no_markup_of_text() {
        // The names of namespaces are not asked for.
        let without_names = PAGE.replace("http://www.w3.org/2000/svg", "");
        let forbidden =
            ["://", "src=\"", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", " style=\""];
        for part in forbidden {
            assert!(!without_names.contains(part), "the page has {part} in it");
        }
        assert!(!script!().contains("</script") && !style!().contains("</style"));
    }

    #[test]
    fn a_browser_that_has_the_page_is_answered_304() {
        for tags in [ETAG, "*", &format!("\"other\", W/{ETAG}")] {
            assert!(is_cached(tags), "{tags}");
        }
        assert!(!is_cached("\"other\"") && !is_cached(""));
        let (new, cached) = (reply(false), reply(true));
        assert_eq!((new.status, new.body.len()), (200, PAGE.len()));
        assert_eq!((cached.status, cached.body.len(), cached.headers), (304, 0, new.headers));
    }
}
