//! The dashboard: one page, built in, and the headers that isolate it.
//!
//! Its parts are in `src/dashboard/`. The page fetches the JSON of the API by relative URLs and nothing else, so that it
//! works under any path of a proxy. Its script and its style are inline, and the policy names both by their hashes: a
//! browser runs nothing else, whatever a host or a label is called.

use std::io::Write;
use std::sync::LazyLock;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::gzip::VARY;
use super::reply::Reply;

/// The script, in the order in which its parts build on each other.
macro_rules! script {
    () => {
        concat!(
            include_str!("../dashboard/text.js"),
            include_str!("../dashboard/units.js"),
            include_str!("../dashboard/alerts.js"),
            include_str!("../dashboard/columns.js"),
            include_str!("../dashboard/groups.js"),
            include_str!("../dashboard/list.js"),
            include_str!("../dashboard/chart.js"),
            include_str!("../dashboard/ranges.js"),
            include_str!("../dashboard/host.js"),
            include_str!("../dashboard/keys.js"),
            include_str!("../dashboard/main.js"),
        )
    };
}

macro_rules! style {
    () => {
        include_str!("../dashboard/style.css")
    };
}

/// The page as it is sent: without comments and indents, which are a quarter of it once it is compressed, and without
/// spaces that mean nothing.
static PAGE: LazyLock<String> = LazyLock::new(|| {
    let (head, body) = (strip(include_str!("../dashboard/head.html")), strip(include_str!("../dashboard/body.html")));
    let body = body.replace(">\n<", "><");
    let (style, script) = (tighten(&strip(style!()), &STYLE_SPACES), tighten(&strip(script!()), &SCRIPT_SPACES));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n{head}<style>{style}</style>\n</head>\n<body>\n{body}\
         <script>{script}</script>\n</body>\n</html>\n"
    )
});

/// Markup and script are blocks of their own, which makes it smaller: each has its own frequencies of characters.
static COMPRESSED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let (markup, script) = PAGE.as_bytes().split_at(PAGE.find("<script>").unwrap_or_default());
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let written = encoder.write_all(markup).and_then(|()| encoder.flush()).and_then(|()| encoder.write_all(script));
    written.and_then(|()| encoder.finish()).unwrap_or_default()
});

/// Leaves out indents, empty lines and comments that stand on lines of their own. No text of the page has several lines.
fn strip(source: &str) -> String {
    let (mut stripped, mut is_comment) = (String::with_capacity(source.len()), false);
    for line in source.lines().map(str::trim) {
        is_comment = is_comment || line.starts_with("/*");
        if !is_comment && !line.is_empty() && !line.starts_with("//") {
            stripped += line;
            stripped += "\n";
        }
        is_comment = is_comment && !line.ends_with("*/");
    }
    stripped
}

/// Spaces that mean nothing in code, and operators that need none around them.
const STYLE_SPACES: [&str; 6] = [": ", "; ", ", ", " { ", " }", " {"];
const SCRIPT_SPACES: [&str; 11] = [": ", "; ", ", ", "{ ", " }", " {", "if (", "for (", " =>", "=> ", " ?"];
const OPERATORS: [&str; 19] = [
    " === ", " !== ", " => ", " && ", " || ", " ?? ", " += ", " -= ", " <= ", " >= ", " ? ", " : ", " < ", " > ",
    " = ", " + ", " - ", " * ", " / ",
];

fn squeeze(text: &str, spaces: &[&str]) -> String {
    spaces.iter().fold(text.to_owned(), |text, spaced| text.replace(spaced, &spaced.replace(' ', "")))
}

/// Leaves out spaces in code, which is what is in no string, and of a template what is between its braces.
fn tighten(source: &str, spaces: &[&str]) -> String {
    let (mut tightened, mut code) = (String::with_capacity(source.len()), String::new());
    // What ends the parts that a character is in.
    let mut ends: Vec<char> = Vec::new();
    for character in source.chars() {
        let end = ends.last().copied().unwrap_or('}');
        let is_code = end == '}';
        let is_opened = if is_code {
            "\"`{".contains(character)
        } else {
            end == '`' && tightened.ends_with('$') && character == '{'
        };
        if character == end {
            ends.pop();
        } else if is_opened {
            ends.push(if character == '{' { '}' } else { character });
        }
        if is_code {
            code.push(character);
        } else {
            tightened.push(character);
        }
        if is_code && ends.last().is_some_and(|end| *end != '}') {
            tightened += &squeeze(&squeeze(&std::mem::take(&mut code), &OPERATORS), spaces);
        }
    }
    tightened += &squeeze(&squeeze(&code, &OPERATORS), spaces);
    // No comment stands behind code, and no text goes over the end of a line.
    let ends = [(";\n", ";"), ("{\n", "{"), (",\n", ","), ("}\n}", "}}"), (";}", "}")];
    ends.iter().fold(tightened, |text, (before, after)| text.replace(before, after))
}

/// What the browser may do. The hashes are those of the script and the style in the page; a test compares them.
const POLICY: &str = "default-src 'none'; \
    script-src 'sha256-8dhPpbjbjnSLxG1cMT9t+Kc1/zM0lWSvlZht6D5Tr/w='; \
    style-src 'sha256-VGdVqnXHqkY9zxRPv5F8wKfjsPz9Pd5dgJKopzfrCZ4='; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

/// The entity tag of the page: a browser that has this page need not fetch it again. It is weak, for it is that of both
/// forms, compressed and not.
const ETAG: &str = "W/\"6uW64Uv+tgpPHve+\"";

const HEADERS: [(&str, &str); 7] = [
    ("Content-Type", "text/html; charset=utf-8"),
    ("Content-Security-Policy", POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    // The browser asks at every load, so that after an upgrade nobody sees the page of the version before.
    ("Cache-Control", "no-cache"),
    ("ETag", ETAG),
    VARY,
];

/// Whether a browser has the page already, by its `If-None-Match`.
pub(super) fn is_cached(if_none_match: &str) -> bool {
    if_none_match.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == &ETAG[2..])
}

/// The page, or a 304 where the browser has it.
pub(super) fn reply(is_cached: bool, takes_gzip: bool) -> Reply {
    let reply = match (is_cached, takes_gzip) {
        (true, _) => Reply::new(304, Vec::new()),
        (false, true) => Reply::new(200, COMPRESSED.clone()).with("Content-Encoding", "gzip"),
        (false, false) => Reply::new(200, PAGE.as_bytes().to_vec()),
    };
    HEADERS.into_iter().fold(reply, |reply, (name, value)| reply.with(name, value))
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use sha2::{Digest, Sha256};

    use super::*;

    /// Most bytes of the page as it is sent to a browser.
    const COMPRESSED_BYTES_MAX: usize = 25_000;

    fn hash(text: &str) -> String {
        BASE64_STANDARD.encode(Sha256::digest(text))
    }

    /// What is sent between two tags of the page.
    fn between(begin: &str, end: &str) -> &'static str {
        PAGE.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).unwrap().0
    }

    #[test]
    fn the_policy_and_the_tag_are_those_of_the_page() {
        let script = format!("script-src 'sha256-{}'", hash(between("<script>", "</script>")));
        let style = format!("style-src 'sha256-{}'", hash(between("<style>", "</style>")));
        let tag = format!("W/\"{}\"", &hash(&PAGE)[..16]);
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
    fn the_page_is_small_and_has_no_comments() {
        assert!(COMPRESSED.len() <= COMPRESSED_BYTES_MAX, "{} bytes", COMPRESSED.len());
        assert!(!PAGE.contains("/*") && !PAGE.lines().any(|line| line.starts_with("//") || line.starts_with(' ')));
        assert_eq!(strip("a {\n  /* b\n  c */\n  d // e\n\n}\n"), "a {\nd // e\n}\n");
        let source = "if (a === b) { c = \"d, e = \"; }\nf = `g, ${h ? `, ${{ i, j }}` : \", \"} = `, k;";
        assert_eq!(tighten(source, &SCRIPT_SPACES), "if(a===b){c=\"d, e = \"}\nf=`g, ${h?`, ${{i,j}}`:\", \"} = `,k;");
    }

    #[test]
    fn a_browser_that_has_the_page_is_answered_304() {
        for tags in [ETAG, "*", &ETAG[2..], &format!("\"other\", {ETAG}")] {
            assert!(is_cached(tags), "{tags}");
        }
        assert!(!is_cached("\"other\"") && !is_cached(""));
        let (new, cached) = (reply(false, false), reply(true, true));
        assert_eq!((new.status, new.body.len()), (200, PAGE.len()));
        assert_eq!((cached.status, cached.body.len(), cached.headers), (304, 0, new.headers));
    }
}
