//! `/api/v1/…`: the part of Prometheus's HTTP API (<https://prometheus.io/docs/prometheus/latest/querying/api/>) that
//! Grafana calls, with its parameters in the query or in a form, and its shape of answers and errors.

mod body;
mod time;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use smol_str::SmolStr;

use super::form::{decode, decode_form, pairs};
use super::reply::Reply;
use crate::alerts::Alerts;
use crate::promql::{
    self, Budget, Error, NAME, POINTS_MAX, Selection, Selector, Steps, parse, parse_seconds, parse_selector,
};
use crate::store::Store;
use time::parse_time;

/// Where all of it is.
const PREFIX: &str = "/api/v1/";
/// The version of Prometheus that it says to be: Grafana asks for what came later only where it is there.
const VERSION: &str = "2.24.0";
/// Most series that an answer lists, unless `limit` says less.
const LISTED_MAX: usize = 10_000;
/// Most selectors of a request.
const SELECTORS_MAX: usize = 16;

/// Whether a path belongs to Prometheus's API.
pub(super) fn is_below(path: &str) -> bool {
    path.starts_with(PREFIX)
}

/// A request, as far as its head goes.
#[derive(Debug)]
pub(super) struct PrometheusQuery {
    endpoint: Endpoint,
    query: String,
}

#[derive(Debug)]
enum Endpoint {
    Query,
    QueryRange,
    Labels,
    LabelValues(String),
    Series,
    Metadata,
    Rules,
    Alerts,
    Exemplars,
    BuildInfo,
}

impl Endpoint {
    fn find(path: &str) -> Result<Option<Self>, Reply> {
        Ok(Some(match path {
            "query" => Self::Query,
            "query_range" => Self::QueryRange,
            "labels" => Self::Labels,
            "series" => Self::Series,
            "metadata" => Self::Metadata,
            "rules" => Self::Rules,
            "alerts" => Self::Alerts,
            "query_exemplars" => Self::Exemplars,
            "status/buildinfo" => Self::BuildInfo,
            _ => {
                let name = path.strip_prefix("label/").and_then(|rest| rest.strip_suffix("/values"));
                match name.filter(|name| !name.contains('/')) {
                    Some(name) => Self::LabelValues(decode("label", name)?.into_owned()),
                    None => return Ok(None),
                }
            }
        }))
    }

    fn allowed(&self) -> &'static str {
        match self {
            Self::Query | Self::QueryRange | Self::Labels | Self::Series | Self::Exemplars => "GET, HEAD, POST",
            _ => "GET, HEAD",
        }
    }
}

impl PrometheusQuery {
    /// Reads the head of a request for a path below [`PREFIX`].
    pub(super) fn parse(method: &str, path: &str, query: &str) -> Result<Self, Reply> {
        let Some(endpoint) = Endpoint::find(path.strip_prefix(PREFIX).unwrap_or(path))? else {
            return Err(Reply::error(404, "path: not among what is answered here of Prometheus's API"));
        };
        let allowed = endpoint.allowed();
        if !allowed.split(", ").any(|known| known == method) {
            let sentence = format!("method: only {allowed} are served here");
            return Err(Reply::error(405, &sentence).with("Allow", allowed));
        }
        Ok(Self { endpoint, query: query.to_owned() })
    }

    /// Answers a request with its body, at `now` in seconds since the Unix epoch.
    pub(super) fn reply(&self, body: &[u8], store: &Store, alerts: Option<&Alerts>, now: u64) -> Reply {
        let reply = Parameters::read(&self.query, body).and_then(|parameters| {
            let timeout = parameters.timeout()?;
            let budget = Budget::start(timeout);
            let selection = Selection::new(store, now);
            match &self.endpoint {
                Endpoint::Query => query(&parameters, selection, &budget, now),
                Endpoint::QueryRange => query_range(&parameters, selection, &budget),
                Endpoint::Labels => labels(&parameters, selection, &budget),
                Endpoint::LabelValues(name) => label_values(name, &parameters, selection, &budget),
                Endpoint::Series => series(&parameters, selection, &budget),
                Endpoint::Metadata => metadata(&parameters, selection, &budget),
                Endpoint::Rules => {
                    Ok(succeeded(&alerts.map_or_else(|| json!({ "groups": [] }), Alerts::prometheus_rules)))
                }
                Endpoint::Alerts => {
                    Ok(succeeded(&alerts.map_or_else(|| json!({ "alerts": [] }), Alerts::prometheus_alerts)))
                }
                Endpoint::Exemplars => Ok(succeeded(&json!([]))),
                Endpoint::BuildInfo => Ok(succeeded(&json!({
                    "version": VERSION, "revision": env!("CARGO_PKG_VERSION"), "branch": "lizm", "buildUser": "",
                    "buildDate": "", "goVersion": "", "features": {},
                }))),
            }
        });
        let reply = reply.unwrap_or_else(|error| match error {
            Error::BadData(why) => Reply::error(400, &why),
            Error::Execution(why) => Reply::prometheus_error(422, "execution", &why),
            Error::Timeout(why) => Reply::prometheus_error(503, "timeout", &why),
            Error::Store(error) => Reply::from(&error),
        });
        // A long sentence may be compressed before the server shapes it.
        reply.shaped(true)
    }
}

fn succeeded(data: &Value) -> Reply {
    Reply::json(200, &json!({ "status": "success", "data": data }))
}

/// A list, cut at `limit`, with a warning where there is more.
fn listed(data: impl ExactSizeIterator<Item = Value>, limit: usize) -> Reply {
    let mut answer = json!({ "status": "success" });
    if data.len() > limit {
        answer["warnings"] = json!(["results truncated due to limit"]);
    }
    answer["data"] = data.take(limit).collect();
    Reply::json(200, &answer)
}

fn bad(name: &str, why: &str) -> Error {
    Error::BadData(format!("invalid parameter {name:?}: {why}"))
}

/// The parameters of a request, decoded, in their order.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Those of the query, and behind them those of a form.
    fn read(query: &str, body: &[u8]) -> Result<Self, Error> {
        let form = std::str::from_utf8(body).map_err(|_| Error::BadData("body: a form is not UTF-8".to_owned()))?;
        let decoded = pairs(query).chain(pairs(form.trim_end())).map(|(name, value)| {
            let decoded = |text| decode_form("query", text).map_err(|_| bad("query", "is not percent-encoded UTF-8"));
            Ok((decoded(name)?, decoded(value)?))
        });
        decoded.collect::<Result<_, _>>().map(Self)
    }

    /// The first that is given under a name, if it is not empty.
    fn get(&self, name: &str) -> Option<&str> {
        let first = self.0.iter().find(|(known, _)| known == name);
        first.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    fn time_ms(&self, name: &str) -> Result<Option<i64>, Error> {
        let wrong = |text: &str| {
            let shown: String = text.chars().take(40).collect();
            bad(name, &format!("cannot parse {shown:?} to a valid timestamp: seconds since 1970, or RFC 3339"))
        };
        self.get(name).map(|text| parse_time(text).ok_or_else(|| wrong(text))).transpose()
    }

    fn timeout(&self) -> Result<Option<Duration>, Error> {
        let wrong = || bad("timeout", "not seconds, nor a duration such as 30s");
        let ms = self.get("timeout").map(|text| parse_seconds(text).ok_or_else(wrong)).transpose()?;
        Ok(ms.map(|ms| Duration::from_millis(ms.unsigned_abs())))
    }

    fn limit(&self) -> Result<usize, Error> {
        let Some(text) = self.get("limit") else { return Ok(LISTED_MAX) };
        let limit = text.parse::<usize>().map_err(|_| bad("limit", "not a whole number"))?;
        Ok(if limit == 0 { LISTED_MAX } else { limit.min(LISTED_MAX) })
    }

    fn selectors(&self) -> Result<Vec<Selector>, Error> {
        // The times mean nothing for what is listed, but a wrong one is a mistake.
        self.time_ms("start")?;
        self.time_ms("end")?;
        let texts: Vec<&str> =
            self.0.iter().filter(|(name, _)| name == "match[]").map(|(_, value)| value.as_str()).collect();
        if texts.len() > SELECTORS_MAX {
            return Err(bad("match[]", &format!("{} selectors, the limit is {SELECTORS_MAX}", texts.len())));
        }
        texts.into_iter().map(parse_selector).collect()
    }

    fn expr(&self) -> Result<promql::Expr, Error> {
        parse(self.get("query").ok_or_else(|| bad("query", "is missing"))?)
    }
}

fn query(parameters: &Parameters, selection: Selection<'_>, budget: &Budget, now: u64) -> Result<Reply, Error> {
    let expr = parameters.expr()?;
    let now_ms = i64::try_from(now).unwrap_or(0).saturating_mul(1000);
    let time_ms = parameters.time_ms("time")?.unwrap_or(now_ms);
    let answer = promql::instant(&expr, time_ms, selection, budget)?;
    Ok(Reply::new(200, body::of_answer(&answer, time_ms)))
}

fn query_range(parameters: &Parameters, selection: Selection<'_>, budget: &Budget) -> Result<Reply, Error> {
    let time = |name: &str| parameters.time_ms(name)?.ok_or_else(|| bad(name, "is missing"));
    let (start_ms, end_ms) = (time("start")?, time("end")?);
    let step = parameters.get("step").ok_or_else(|| bad("step", "is missing"))?;
    let step_ms = parse_seconds(step);
    let step_ms = step_ms.filter(|ms| *ms > 0);
    let step_ms = step_ms.ok_or_else(|| bad("step", "not a number of seconds above 0, nor a duration such as 15s"))?;
    if end_ms < start_ms {
        return Err(bad("end", "end timestamp must not be before start time"));
    }
    let count = u64::try_from((end_ms - start_ms) / step_ms).unwrap_or(0) + 1;
    if count > POINTS_MAX {
        return Err(Error::BadData(format!(
            "exceeded maximum resolution of {POINTS_MAX} points per timeseries. Try decreasing the query resolution \
             (?step=XX)"
        )));
    }
    let matrix = promql::range(&parameters.expr()?, Steps { start_ms, step_ms, count }, selection, budget)?;
    Ok(Reply::new(200, body::of_matrix(&matrix)))
}

fn labels(parameters: &Parameters, mut selection: Selection<'_>, budget: &Budget) -> Result<Reply, Error> {
    let selectors = parameters.selectors()?;
    let names = match selectors.is_empty() {
        true => selection.metrics(budget)?.1,
        false => {
            let mut names = BTreeSet::new();
            selection.visit(&selectors, budget, |labels| {
                names.extend(labels.iter().map(|(name, _)| SmolStr::from(name)));
                true
            })?;
            names
        }
    };
    Ok(listed(names.iter().map(|name| name.as_str().into()), parameters.limit()?))
}

fn label_values(
    name: &str,
    parameters: &Parameters,
    mut selection: Selection<'_>,
    budget: &Budget,
) -> Result<Reply, Error> {
    let (selectors, limit) = (parameters.selectors()?, parameters.limit()?);
    let mut values: BTreeSet<SmolStr> = BTreeSet::new();
    match name {
        NAME if selectors.is_empty() => values.extend(selection.metrics(budget)?.0.into_keys().map(SmolStr::from)),
        "host" if selectors.is_empty() => values.extend(selection.hosts()?),
        _ => selection.visit(&selectors, budget, |labels| {
            values.extend(Some(labels.get(name)).filter(|value| !value.is_empty()).map(SmolStr::from));
            values.len() <= limit
        })?,
    }
    Ok(listed(values.iter().map(|value| value.as_str().into()), limit))
}

fn series(parameters: &Parameters, mut selection: Selection<'_>, budget: &Budget) -> Result<Reply, Error> {
    let (selectors, limit) = (parameters.selectors()?, parameters.limit()?);
    if selectors.is_empty() {
        return Err(Error::BadData("no match[] parameter provided".to_owned()));
    }
    let mut series = BTreeSet::new();
    selection.visit(&selectors, budget, |labels| {
        series.insert(labels);
        series.len() <= limit
    })?;
    Ok(listed(series.iter().map(body::of_labels), limit))
}

fn metadata(parameters: &Parameters, mut selection: Selection<'_>, budget: &Budget) -> Result<Reply, Error> {
    let (wanted, limit) = (parameters.get("metric"), parameters.limit()?);
    let metrics = selection.metrics(budget)?.0.into_iter();
    let metrics = metrics.filter(|(name, _)| wanted.is_none_or(|wanted| wanted == name)).take(limit);
    let of = |(name, info): (String, promql::MetricInfo)| {
        (name, json!([{ "type": "gauge", "help": info.help, "unit": info.unit }]))
    };
    Ok(succeeded(&Value::Object(metrics.map(of).collect())))
}
