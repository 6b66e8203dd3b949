// What fires by the receiver's rules, and how it is silenced.

/** How long a click silences an alert. */
const SILENCE_FOR = "2h";

/** Alerts that fire, by host. */
let alertsByHost = new Map();

/** Asks what fires, where the list of hosts says that something does. Where that is not answered the last one stays. */
async function askAlerts(firing, signal) {
  const answer = firing ? await fetch("api/alerts", { cache: "no-store", signal }).then(response => response.json()).catch(() => null) : { alerts: [] };
  if (!Array.isArray(answer?.alerts)) return;
  alertsByHost = Map.groupBy(answer.alerts.filter(alert => alert.state === "firing"), alert => alert.host);
}

const alertsOf = host => alertsByHost.get(host) ?? [];

/** An alert as a sentence without its host. */
function alertText({ name, series, value, comparison, threshold, text, "fired-at": firedAt }) {
  const number = value => numberOf(series ?? "", value);
  const bound = typeof threshold === "number" ? ` (${visible(comparison)} ${number(threshold)})` : "";
  const what = [series && visible(series), typeof value === "number" && number(value) + bound, text && visible(text)].filter(Boolean).join(" ");
  return `${visible(name)}${what && `: ${what}`}${firedAt ? `, since ${clock(firedAt)}` : ""}`;
}

/** Lists what fires on a host, each with a button that silences it. */
function drawAlerts(host) {
  const alerts = alertsOf(host), list = $("host-alerts");
  list.hidden = alerts.length === 0;
  const text = alerts.map(alertText).join("\n");
  if (list.dataset.text === text) return;
  list.dataset.text = text;
  list.replaceChildren(...alerts.map(alert => {
    const item = document.createElement("li");
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: `Silence for ${SILENCE_FOR}` });
    button.addEventListener("click", () => askToSilence(alert));
    item.append(alertText(alert), button);
    return item;
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
