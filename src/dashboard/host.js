// One host: its state, a tile for each number that people ask for first, and a chart for each family of labels.

/** Labels from which on they can be filtered. */
const LABELS_TO_FILTER = 8;
/** Families that have a name, in the order in which they are shown: the stems of their labels, how they are drawn, and
    the stem of who used most of it. A mirrored one has two stems, and a chart for each suffix such as `:eth0`. */
const FAMILIES = [
  { title: "CPU", stems: ["cpu"], kind: "line", top: "top-cpu" },
  { title: "CPU by kind", stems: ["cpu-user", "cpu-system", "cpu-iowait", "cpu-steal"], kind: "stack" },
  { title: "Memory and swap", stems: ["mem", "swap"], kind: "line", top: "top-mem" },
  { title: "File systems", stems: ["disk", "inodes"], kind: "line" },
  { title: "Network in and out", stems: ["net-in", "net-out"], kind: "mirror" },
  { title: "Disk reads and writes", stems: ["disk-read", "disk-write"], kind: "mirror" },
  { title: "Load", stems: ["load1", "load5", "load15", "load-per-core"], kind: "line" },
  { title: "Pressure", stems: ["pressure-cpu", "pressure-mem", "pressure-io", "pressure-cpu-full", "pressure-mem-full", "pressure-io-full"], kind: "line" },
  { title: "Temperature", stems: ["temp"], kind: "line" },
];
/** Tiles: a title, and the first of some labels that the host has. */
const TILES = [["CPU", ["cpu"]], ["Memory", ["mem"]], ["Disk", ["disk"]], ["Load", ["load1"]], ["Network in", ["net-in"]], ["Network out", ["net-out"]]];

const cards = new Map();
let cursor = null;
/** What was told last of the host that is shown, and when. */
let told = null, toldAt = 0;

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
  const { title, kind, top } = FAMILIES[place];
  const isApart = kind !== "line" && suffix !== "";
  return { key: title + (isApart ? suffix : ""), title: title + (isApart ? visible(` ${suffix.slice(1)}`) : ""), kind, top, place };
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
  const node = copyOf("card");
  node.querySelector("h2").textContent = family.title;
  return { node, chart: new Chart(node, family, pointAll), family };
}

/** The labels that a host's summaries are of. */
function labelsOf(summaries) {
  return [...new Set(Object.keys(summaries).map(key => key.slice(key.indexOf(":", "summary:".length) + 1)))];
}

/** Spans without any report within a range, up to the newest report: intervals that no label has a sample in. */
function awaySpans(range, gapSec, newest) {
  const starts = startsOf([...range.averages.values()]);
  const spans = [];
  starts.forEach((start, i) => {
    const next = starts[i + 1];
    if (next !== undefined && next - start - range.interval > gapSec) spans.push([start + range.interval, next]);
  });
  if (starts.length && range.now - newest > Math.max(gapSec, 2 * range.interval)) spans.push([starts.at(-1) + range.interval, range.end]);
  return spans;
}

function drawTiles(summaries, labels, now) {
  const tiles = TILES.flatMap(([title, choices]) => {
    const label = choices.find(choice => labels.includes(choice));
    const averages = summaries[`summary:by-minute:${label}`]?.averages ?? [];
    if (!averages.length) return [];
    const age = now - averages.at(-1)["end-sec"];
    const node = copyOf("tile");
    const total = averages.reduce((sum, average) => sum + average["num-samples"], 0);
    const mean = averages.reduce((sum, average) => sum + meanOf(average) * average["num-samples"], 0) / total;
    const peak = averages.reduce((best, average) => average.max > best.max ? average : best);
    const [name, newest, rest] = node.querySelectorAll("dt, dd");
    name.textContent = title;
    newest.textContent = numberOf(label, meanOf(averages.at(-1)), true);
    rest.textContent = age >= 120 ? `as of ${duration(age)} ago`
      : `average ${numberOf(label, mean, true)}\npeak ${numberOf(label, peak.max, true)} at ${clock(peak["start-sec"])}`;
    const values = Array(60).fill(null), first = averages.at(-1)["start-sec"] - 59 * 60;
    for (const average of averages) values[(average["start-sec"] - first) / 60] = meanOf(average);
    const { line, area } = sparkPaths(values, isPercent(label) ? 100 : 0);
    node.querySelector(".line").setAttribute("d", line);
    node.querySelector(".area").setAttribute("d", area);
    return [node];
  });
  $("tiles").replaceChildren(...tiles);
}

/** The head of a host; while the receiver is away its age goes on, and its state is not known. */
function drawFacts(entry, summaries = {}) {
  [told, toldAt] = [{ entry, summaries }, performance.now()];
  drawHead(entry, summaries);
}

function drawHead(entry, summaries) {
  const pill = make("span", { className: `pill ${entry.state}` });
  pill.append(make("i", { className: `dot ${entry.state}` }), entry.state);
  const skew = entry["clock-skew-sec"], up = summaries["summary:by-minute:uptime"]?.averages.at(-1);
  const first = Math.min(...Object.values(summaries).filter(summary => summary["timeslice-size-sec"] === 60).map(summary => summary.averages[0]?.["start-sec"] ?? Infinity));
  const isNew = !Object.values(summaries).some(({ averages }) => averages[0]?.["end-sec"] <= first);
  const facts = [
    `last report ${ago(entry["age-sec"])}`,
    entry["interval-sec"] && `every ${duration(entry["interval-sec"])}`,
    Math.abs(skew) >= 5 && `clock ${duration(Math.abs(skew))} ${skew > 0 ? "ahead" : "behind"}`,
    up && `up for ${numberOf("uptime", up.max)}`,
    entry.labels && count(entry.labels.length, "label", "labels"),
    ...Object.entries(entry.tags ?? {}).map(([key, value]) => visible(`${key}=${value}`)),
    past.summaries["kept-from"] && view.range !== "hour" && `kept since ${date(past.summaries["kept-from"])}`,
    isNew && Number.isFinite(first) && `collecting since ${clock(first)}`,
  ];
  const json = make("a", { href: `api/perf/${encodeURIComponent(entry.host)}`, textContent: "JSON" });
  $("host-facts").replaceChildren(pill, ...facts.filter(Boolean).map(fact => make("span", { textContent: fact })), json);
}

/** Shows the head of a host before its charts have come. */
function openHost(host) {
  cards.clear();
  cursor = null;
  told = null;
  for (const id of ["cards", "tiles", "host-facts"]) $(id).replaceChildren();
  listTexts($("constants"), []);
  for (const id of ["label-filter", "ranges", "forget", "host-blank", "host-alerts", "host-past"]) $(id).hidden = true;
  $("skeleton").hidden = false;
  $("label-filter").value = "";
  setText($("host-title"), visible(host));
  const known = rows.get(host)?.entry;
  if (known) drawFacts(known);
}

function drawHost(answer) {
  const [entry] = answer.hosts;
  const summaries = entry?.summaries ?? {};
  const now = entry ? entry["last-epoch"] + entry["age-sec"] : 0;
  const range = rangeShown(summaries, now);
  const labels = [...new Set([...labelsOf(summaries), ...range.averages.keys()])];
  $("skeleton").hidden = true;
  if (entry) drawFacts(entry, summaries);
  else {
    told = null;
    $("host-facts").replaceChildren();
  }
  drawHostBlank(entry, labels);
  drawAlerts(view.host);
  drawTiles(summaries, labels, now);
  drawCharts(entry, range, labels);
  for (const button of $("ranges").children) setAttribute(button, "aria-pressed", button.dataset.range === view.range);
  $("ranges").hidden = labels.length === 0;
  $("forget").hidden = !entry;
  $("label-filter").hidden = labels.length < LABELS_TO_FILTER;
  filterCards();
}

function drawCharts(entry, range, labels) {
  const gapSec = 2 * (entry?.["interval-sec"] ?? 0);
  const away = awaySpans(range, gapSec, entry?.["last-epoch"] ?? 0);
  const averagesOf = label => range.averages.get(label) ?? [];
  const isConstant = label => averagesOf(label).length > 1 && averagesOf(label).every(average => average.min === average.max && average.min === averagesOf(label)[0].min);
  const isTop = label => FAMILIES.some(({ stems, top }) => top === stemOf(label) && labels.includes(stems[0]));
  const all = familiesOf(labels.filter(label => !isTop(label)));
  const seriesOf = labels => labels.map(label => ({ label, name: visible(label), averages: averagesOf(label) }));
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
    card.chart.alerts = [...alertsOf(view.host), ...pastAlerts(view.host)].filter(alert => family.labels.includes(alert.series));
    card.chart.top = seriesOf(labels.filter(label => family.top && stemOf(label) === family.top));
    card.chart.show(seriesOf(family.labels), range, gapSec, away);
  });
  listTexts($("constants"), constants.map(label =>
    [`${visible(label)} `, make("b", { textContent: numberOf(label, averagesOf(label)[0].min) }), " all the time"]));
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
  for (const item of $("constants").children) item.hidden = !isLike(item.textContent);
}
