// One host: its state, a tile for each number that people ask for first, and a chart for each family of labels.

const RANGES = {
  hour: { name: "by-minute", title: "last hour by minute", interval: 60, span: 3600 },
  day: { name: "by-hour", title: "last day by hour", interval: 3600, span: 86400 },
};
/** Labels from which on they can be filtered. */
const LABELS_TO_FILTER = 8;
/** Families that have a name, in the order in which they are shown: the stems of their labels, and how they are drawn. A
    mirrored one has two stems, and a chart for each suffix such as `:eth0`. */
const FAMILIES = [
  { title: "CPU", stems: ["cpu"], kind: "line" },
  { title: "CPU by kind", stems: ["cpu-user", "cpu-system", "cpu-iowait", "cpu-steal"], kind: "stack" },
  { title: "Memory and swap", stems: ["mem", "swap"], kind: "line" },
  { title: "File systems", stems: ["disk"], kind: "line" },
  { title: "Network in and out", stems: ["net-in", "net-out"], kind: "mirror" },
  { title: "Disk reads and writes", stems: ["disk-read", "disk-write"], kind: "mirror" },
  { title: "Load", stems: ["load1", "load-per-core"], kind: "line" },
  { title: "Pressure", stems: ["pressure-cpu", "pressure-mem", "pressure-io"], kind: "line" },
  { title: "Temperature", stems: ["temp"], kind: "line" },
];
/** Tiles: a title, and the first of some labels that the host has. */
const TILES = [["CPU", ["cpu"]], ["Memory", ["mem"]], ["Disk", ["disk"]], ["Load", ["load1"]], ["Network in", ["net-in"]], ["Network out", ["net-out"]], ["Uptime", ["uptime"]]];

const cards = new Map();
let cursor = null;

/** All charts point at the same time. */
function pointAll(sec) {
  cursor = sec;
  for (const { chart } of cards.values()) chart.point(sec);
}

/** The family of a label: its key, title, kind and place among the others. */
function familyOf(label) {
  const stem = stemOf(label), suffix = label.slice(stem.length);
  const place = FAMILIES.findIndex(family => family.stems.includes(stem));
  if (place < 0) return { key: stem, title: visible(stem), kind: "line", place: FAMILIES.length };
  const { title, kind } = FAMILIES[place];
  const isApart = kind !== "line" && suffix !== "";
  return { key: title + (isApart ? suffix : ""), title: title + (isApart ? visible(` ${suffix.slice(1)}`) : ""), kind, place };
}

/** The families of labels, with their labels in order. */
function familiesOf(labels) {
  const families = new Map();
  for (const label of labels) {
    const found = familyOf(label);
    if (!families.has(found.key)) families.set(found.key, { ...found, label, isPercent: isPercent(label), labels: [] });
    families.get(found.key).labels.push(label);
  }
  for (const family of families.values()) {
    const stems = FAMILIES[family.place]?.stems ?? [];
    const rank = label => stems.indexOf(stemOf(label));
    family.labels.sort((a, b) => rank(a) - rank(b) || nameOrder.compare(a, b));
    // Half of a pair is no mirror.
    if (family.kind === "mirror" && family.labels.length !== 2) family.kind = "line";
  }
  return [...families.values()].sort((a, b) => a.place - b.place || nameOrder.compare(a.key, b.key));
}

function makeCard(family) {
  const node = $("card-template").content.firstElementChild.cloneNode(true);
  node.querySelector("h2").textContent = family.title;
  return { node, chart: new Chart(node, family, pointAll), family };
}

/** The labels that a host's summaries are of. */
function labelsOf(summaries) {
  return [...new Set(Object.keys(summaries).map(key => key.slice(key.indexOf(":", "summary:".length) + 1)))];
}

/** Spans without any report within a range, up to the newest report: intervals that no label has a sample in. */
function awaySpans(summaries, range, gapSec, newest) {
  const reported = new Set();
  for (const key in summaries) {
    if (!key.startsWith(`summary:${range.name}:`)) continue;
    for (const average of summaries[key].averages) reported.add(average["start-sec"]);
  }
  const starts = [...reported].sort((a, b) => a - b);
  const spans = [];
  starts.forEach((start, i) => {
    const next = starts[i + 1];
    if (next !== undefined && next - start - range.interval > gapSec) spans.push([start + range.interval, next]);
  });
  if (starts.length && range.now - newest > Math.max(gapSec, 2 * range.interval)) spans.push([starts.at(-1) + range.interval, range.end]);
  return spans;
}

function drawTiles(summaries, labels, age) {
  const tiles = TILES.flatMap(([title, choices]) => {
    const label = choices.find(choice => labels.includes(choice));
    const averages = label ? summaries[`summary:by-minute:${label}`]?.averages ?? [] : [];
    if (!averages.length) return [];
    const node = $("tile-template").content.firstElementChild.cloneNode(true);
    const total = averages.reduce((sum, average) => sum + average["num-samples"], 0);
    const mean = averages.reduce((sum, average) => sum + meanOf(average) * average["num-samples"], 0) / total;
    const peak = averages.reduce((best, average) => average.max > best.max ? average : best);
    const [name, now, rest] = node.querySelectorAll("dt, dd");
    name.textContent = title;
    now.textContent = numberOf(label, meanOf(averages.at(-1)));
    if (age >= 120) rest.textContent = `as of ${duration(age)} ago`;
    // Uptime only rises: an average of it says nothing.
    if (unitOf(label) === "time") return [node];
    if (age < 120) rest.textContent = `average ${numberOf(label, mean)}, peak ${numberOf(label, peak.max)} at ${clock(peak["start-sec"])}`;
    const values = Array(60).fill(null), first = averages.at(-1)["start-sec"] - 59 * 60;
    for (const average of averages) values[(average["start-sec"] - first) / 60] = meanOf(average);
    const { line, area } = sparkPaths(values, isPercent(label) ? 100 : 0);
    node.querySelector(".line").setAttribute("d", line);
    node.querySelector(".area").setAttribute("d", area);
    return [node];
  });
  $("tiles").replaceChildren(...tiles);
}

function drawFacts(entry, summaries = {}) {
  const pill = document.createElement("span");
  pill.className = `pill ${entry.state}`;
  const dot = document.createElement("i");
  dot.className = `dot ${entry.state}`;
  pill.append(dot, entry.state);
  const skew = entry["clock-skew-sec"];
  const first = Math.min(...Object.values(summaries).filter(summary => summary["timeslice-size-sec"] === 60).map(summary => summary.averages[0]?.["start-sec"] ?? Infinity));
  const isNew = Object.values(summaries).every(summary => summary["timeslice-size-sec"] === 60 || summary.averages.length < 2);
  const facts = [
    `last report ${ago(entry["age-sec"])}`,
    entry["interval-sec"] && `every ${duration(entry["interval-sec"])}`,
    Math.abs(skew) >= 5 && `clock ${duration(Math.abs(skew))} ${skew > 0 ? "ahead" : "behind"}`,
    entry.labels && count(entry.labels.length, "label", "labels"),
    isNew && Number.isFinite(first) && `collecting since ${clock(first)}`,
  ];
  const json = Object.assign(document.createElement("a"), { href: `api/perf/${encodeURIComponent(entry.host)}`, textContent: "JSON" });
  $("host-facts").replaceChildren(pill, ...facts.filter(Boolean).map(fact => Object.assign(document.createElement("span"), { textContent: fact })), json);
}

/** Shows the head of a host before its charts have come. */
function openHost(host) {
  cards.clear();
  cursor = null;
  $("cards").replaceChildren();
  $("tiles").replaceChildren();
  $("constants").replaceChildren();
  $("host-blank").hidden = true;
  $("host-alerts").hidden = true;
  $("label-filter").value = "";
  for (const id of ["label-filter", "ranges", "forget"]) $(id).hidden = true;
  setText($("host-title"), visible(host));
  const known = rows.get(host)?.entry;
  if (known) drawFacts(known);
  else $("host-facts").replaceChildren();
}

function drawHost(answer) {
  const [entry] = answer.hosts;
  const summaries = entry?.summaries ?? {};
  const labels = labelsOf(summaries);
  if (entry) drawFacts(entry, summaries);
  else $("host-facts").replaceChildren();
  drawHostBlank(entry, labels);
  drawAlerts(view.host);
  drawTiles(summaries, labels, entry?.["age-sec"] ?? 0);
  drawCharts(entry, summaries, labels);
  for (const button of $("ranges").children) setAttribute(button, "aria-pressed", button.dataset.range === view.range);
  $("ranges").hidden = labels.length === 0;
  $("forget").hidden = !entry;
  $("label-filter").hidden = labels.length < LABELS_TO_FILTER;
  filterCards();
}

function drawCharts(entry, summaries, labels) {
  const { name, title, interval, span } = RANGES[view.range];
  const now = entry ? entry["last-epoch"] + entry["age-sec"] : 0;
  const range = { name, title, interval, now, start: Math.floor((now - span) / interval) * interval, end: Math.ceil(now / interval) * interval };
  const learned = entry?.["interval-sec"] ?? 0;
  const gapSec = learned > interval ? 2 * learned : 0;
  const away = awaySpans(summaries, range, gapSec, entry?.["last-epoch"] ?? 0);
  const averagesOf = label => summaries[`summary:${name}:${label}`]?.averages ?? [];
  const isConstant = label => averagesOf(label).length > 1 && averagesOf(label).every(average => average.min === average.max && average.min === averagesOf(label)[0].min);
  const all = familiesOf(labels);
  const families = all.filter(family => !family.labels.every(isConstant));
  const constants = all.filter(family => family.labels.every(isConstant)).flatMap(family => family.labels);
  const keys = new Set(families.map(family => family.key));
  for (const [key, card] of cards) {
    if (keys.has(key)) continue;
    card.node.remove();
    cards.delete(key);
  }
  families.forEach((family, i) => {
    if (!cards.has(family.key)) cards.set(family.key, makeCard(family));
    const card = cards.get(family.key);
    card.family = card.chart.family = family;
    if ($("cards").children[i] !== card.node) $("cards").insertBefore(card.node, $("cards").children[i] ?? null);
    card.chart.alerts = alertsOf(view.host).filter(alert => family.labels.includes(alert.series));
    card.chart.show(family.labels.map(label => ({ label, name: visible(label), averages: averagesOf(label) })), range, gapSec, away);
  });
  const lines = constants.map(label => {
    const item = document.createElement("li");
    item.dataset.label = label;
    item.append(`${visible(label)} `, Object.assign(document.createElement("b"), { textContent: numberOf(label, averagesOf(label)[0].min) }), " all the time");
    return item;
  });
  $("constants").replaceChildren(...lines);
}

function drawHostBlank(entry, labels) {
  const blank = $("host-blank");
  blank.hidden = labels.length > 0;
  const [title, sentence] = blank.children;
  setText(title, entry ? "No samples of the last day" : "This host is not known here");
  setText(sentence, entry
    ? "What it reported has left every summary."
    : "It was removed or forgotten, or it has never reported. It is shown as soon as it reports.");
}

function askToForget() {
  const host = view.host;
  askToChange({
    title: `Forget ${visible(host)}?`,
    sentence: "All that is kept of it is removed. If it still reports, it comes back with its next sample.",
    verb: "Forget",
    request: options => fetch(`api/perf/${encodeURIComponent(host)}`, { method: "DELETE", ...options }),
    done: () => { if (view.host === host) location.hash = listAddress(); },
  });
}

/** What is asked about in the dialog: how it is requested, and what follows. */
let change = null;

/** Asks whether something is to be changed. The receiver says whether that needs a token. */
function askToChange(asked) {
  change = asked;
  setText($("forget-title"), asked.title);
  setText($("forget-sentence"), asked.sentence);
  setText($("forget-yes"), asked.verb);
  setText($("forget-trouble"), "");
  $("forget-token-label").hidden = true;
  $("forget-dialog").showModal();
}

async function forget() {
  const asked = change, token = $("forget-token").value.trim();
  $("forget-yes").disabled = true;
  const response = await asked.request({
    signal: AbortSignal.timeout(ANSWER_MSEC_MAX),
    ...(token && { headers: { Authorization: `Bearer ${token}` } }),
  }).catch(() => null);
  const said = await response?.json().catch(() => null);
  $("forget-yes").disabled = false;
  if (response?.ok) {
    $("forget-dialog").close();
    return asked.done();
  }
  const isAsked = response?.status === 401 && $("forget-token-label").hidden;
  if (response?.status === 401) $("forget-token-label").hidden = false;
  if (isAsked) $("forget-token").focus();
  else setText($("forget-trouble"), response ? `It was not done: ${visible(said?.error ?? response.status)}` : "The receiver has not answered.");
}

function filterCards() {
  const text = $("label-filter").value.trim().toLowerCase();
  const isLike = label => label.toLowerCase().includes(text);
  for (const { node, family } of cards.values()) node.hidden = !isLike(family.title) && !family.labels.some(isLike);
  for (const item of $("constants").children) item.hidden = !isLike(item.dataset.label);
}
