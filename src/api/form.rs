//! Names and values in queries, forms and paths.

use std::borrow::Cow;

use super::reply::Reply;
use crate::url;

/// The names and values of a query or a form, as they stand.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Decodes a value of a query or a form, in which a plus sign is a space.
pub(super) fn decode_form(field: &str, value: &str) -> Result<String, Reply> {
    decode(field, &value.replace('+', " ")).map(Cow::into_owned)
}

/// Decodes a list of a query, with commas between its items. An escaped comma is part of an item.
pub(super) fn decode_list(field: &str, value: &str) -> Result<Vec<String>, Reply> {
    value.split(',').map(|item| decode_form(field, item)).collect()
}

/// Percent-decodes a part of the target, once.
pub(super) fn decode<'a>(field: &str, text: &'a str) -> Result<Cow<'a, str>, Reply> {
    url::decode(text).map_err(|why| Reply::error(400, &format!("{field}: {why}")))
}
