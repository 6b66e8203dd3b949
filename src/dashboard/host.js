// One host: its state, and a card for each label with a chart by minute and one by hour.

/** The two summaries there are: their name in a key, what they are called here, and their lengths in seconds. */
const WINDOWS = [
  { name: "by-minute", title: "last hour by minute", interval: 60, span: 3600 },
  { name: "by-hour", title: "last day by hour", interval: 3600, span: 86400 },
];
/** Labels from which on they can be filtered. */
const LABELS_TO_FILTER = 8;

const cards = new Map();

function makeCard(label) {
  const node = $("card-template").content.firstElementChild.cloneNode(true);
  if (isPercent(label)) node.classList.add(label);
  node.querySelector("h2").textContent = visible(label);
  const figures = node.querySelectorAll("figure");
  const charts = WINDOWS.map((window, i) => new Chart(figures[i], visible(label), window.title));
  return { label, node, charts, now: node.querySelector(".now") };
}

/** The labels that a host's summaries are of: cpu and mem first, the others by name. */
function labelsOf(summaries) {
  const labels = new Set();
  for (const key in summaries) labels.add(key.slice(key.indexOf(":", "summary:".length) + 1));
  const first = label => (isPercent(label) ? 0 : 1);
  return [...labels].sort((a, b) => first(a) - first(b) || nameOrder.compare(a, b));
}

function drawCard(card, summaries, now) {
  WINDOWS.forEach((window, i) => {
    const summary = summaries[`summary:${window.name}:${card.label}`];
    const end = summary?.end ?? now;
    const start = summary?.start ?? Math.floor((now - window.span) / window.interval) * window.interval;
    card.charts[i].show(summary?.averages ?? [], start, end, window.interval);
  });
  const newest = summaries[`summary:by-minute:${card.label}`]?.averages.at(-1);
  setText(card.now, newest ? numberOf(card.label, newest.avg) : "");
}

function drawFacts(entry) {
  const pill = document.createElement("span");
  pill.className = `pill ${entry.state}`;
  const dot = document.createElement("i");
  dot.className = `dot ${entry.state}`;
  pill.append(dot, entry.state);
  const skew = entry["clock-skew-sec"];
  const facts = [
    `last report ${ago(entry["age-sec"])}`,
    entry["interval-sec"] && `every ${duration(entry["interval-sec"])}`,
    Math.abs(skew) >= 5 && `clock ${duration(Math.abs(skew))} ${skew > 0 ? "ahead" : "behind"}`,
    count(entry.labels.length, "label", "labels"),
  ];
  $("host-facts").replaceChildren(pill, ...facts.filter(Boolean).map(fact => Object.assign(document.createElement("span"), { textContent: fact })));
}

/** Shows the head of a host before its charts have come. */
function openHost(host) {
  cards.clear();
  $("cards").replaceChildren();
  $("host-blank").hidden = true;
  $("label-filter").value = "";
  $("label-filter").hidden = true;
  setText($("host-title"), visible(host));
  const known = rows.get(host)?.entry;
  if (known) drawFacts(known);
  else $("host-facts").replaceChildren();
}

function drawHost(answer) {
  const [entry] = answer.hosts;
  const labels = entry ? labelsOf(entry.summaries) : [];
  if (entry) drawFacts(entry);
  else $("host-facts").replaceChildren();
  drawHostBlank(entry, labels);
  for (const [label, card] of cards) {
    if (labels.includes(label)) continue;
    card.node.remove();
    cards.delete(label);
  }
  labels.forEach((label, i) => {
    if (!cards.has(label)) cards.set(label, makeCard(label));
    const card = cards.get(label);
    if ($("cards").children[i] !== card.node) $("cards").insertBefore(card.node, $("cards").children[i] ?? null);
    drawCard(card, entry.summaries, entry["last-epoch"] + entry["age-sec"]);
  });
  $("label-filter").hidden = labels.length < LABELS_TO_FILTER;
  filterCards();
}

function drawHostBlank(entry, labels) {
  const blank = $("host-blank");
  blank.hidden = labels.length > 0;
  const [title, sentence] = blank.children;
  setText(title, entry ? "No samples of the last day" : "This host is not known here");
  setText(sentence, entry
    ? "What it reported has left every summary."
    : "It has not reported for a day, or it was removed. It is shown as soon as it reports.");
}

function filterCards() {
  const text = $("label-filter").value.trim().toLowerCase();
  for (const card of cards.values()) card.node.hidden = !card.label.toLowerCase().includes(text);
}
