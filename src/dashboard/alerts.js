// What fires by the receiver's rules, and how it is silenced.

/** How long a click silences an alert. */
const SILENCE_FOR = "2h";

/** Alerts that fire, by host. */
let alertsByHost = new Map();

/** Asks what fires, where the list of hosts says that something does, and on a host what is silenced too. */
async function askAlerts(firing, signal) {
  const isAsked = firing || view.host !== null && firing !== undefined;
  const { alerts } = isAsked ? (await get("api/alerts", signal)).answer : { alerts: [] };
  alertsByHost = Map.groupBy(alerts.filter(alert => alert.state !== "pending"), alert => alert.host);
}

const alertsOf = (host, state = "firing") => (alertsByHost.get(host) ?? []).filter(alert => alert.state === state);

/** What has fired on a host and is over, the newest first. */
function pastAlerts(host) {
  return past.history.filter(alert => alert.host === host && alert.state === "resolved");
}

/** An alert as a sentence without its host. */
function alertText({ name, series, value, comparison, threshold, text, "fired-at": firedAt, "resolved-at": resolvedAt }) {
  const number = value => numberOf(series ?? "", value);
  const bound = typeof threshold === "number" && `(${visible(comparison)} ${number(threshold)})`;
  const what = [series && visible(series), typeof value === "number" && number(value), bound, text && visible(text)].filter(Boolean).join(" ");
  const when = resolvedAt ? `, ${date(firedAt)} ${clock(firedAt)}, for ${duration(resolvedAt - firedAt)}` : firedAt ? `, since ${clock(firedAt)}` : "";
  return `${visible(name)}${what && `: ${what}`}${when}`;
}

/** Lists what fires on a host, each with a button that silences it; what is silenced; and what is over. */
function drawAlerts(host) {
  const alerts = [...alertsOf(host), ...alertsOf(host, "suppressed")], over = pastAlerts(host);
  $("host-past").hidden = over.length === 0;
  setText($("host-past").firstElementChild, `${count(over.length, "alert", "alerts")} in the past`);
  listTexts($("host-past").lastElementChild, over.map(alert => [alertText(alert)]));
  $("host-alerts").hidden = alerts.length === 0;
  listTexts($("host-alerts"), alerts.map(alert => {
    if (alert.state === "suppressed") return [`${alertText(alert)}, silenced`];
    const button = make("button", { type: "button", textContent: `Silence for ${SILENCE_FOR}` });
    button.addEventListener("click", () => askToSilence(alert));
    return [alertText(alert), button];
  }));
}

function askToSilence({ name, host }) {
  const body = JSON.stringify({ alerts: name, on: host, for: SILENCE_FOR });
  askToChange({
    title: `Silence ${visible(name)} on ${visible(host)}?`,
    sentence: `It is judged on, and told to nobody for ${SILENCE_FOR}.`,
    verb: "Silence",
    request: options => fetch("api/silences", { method: "POST", body, ...options }),
    done: refresh,
  });
}
