// The list of all hosts: a row each, made once and then changed in place, so that focus, selection and scrolling stay
// where they are while numbers move.

const SPARKS = ["cpu", "mem"];
/** Height of a sparkline's box, with room for half a line's width at both ends; two units a minute across. */
const SPARK_HEIGHT = 30, SPARK_TOP = 2, SPARK_BOTTOM = 28, SPARK_STEP = 2;
/** A load from which on its number stands out, in percent. */
const LOAD_HIGH = 90;
const STATE_ORDER = { down: 0, late: 1, up: 2 };

const rows = new Map();
/** Whether an answer has come: until then there is nothing to say about hosts. */
let isListed = false;

function makeRow(host) {
  const node = $("row-template").content.firstElementChild.cloneNode(true);
  const link = node.querySelector("a");
  link.textContent = link.title = visible(host);
  link.href = `#${new URLSearchParams({ host })}`;
  const loads = {};
  for (const label of SPARKS) {
    const cell = node.querySelector(`.${label}`);
    loads[label] = { value: cell.querySelector(".value"), line: cell.querySelector(".line"), area: cell.querySelector(".area"), drawn: [], latest: null };
  }
  return {
    host, node, link, loads, rank: 0, entry: null, lower: host.toLowerCase(),
    dot: node.querySelector(".dot"), state: node.querySelector(".state span"), age: node.querySelector(".age"), note: node.querySelector("small"),
  };
}

/** The line of a series and the area under it, gaps left as gaps. A minute on its own is a dash. */
function sparkPaths(values) {
  let top = 100;
  for (const value of values) if (value > top) top = value;
  let line = "", area = "", first = -1, last = -1;
  for (let i = 0; i <= values.length; i++) {
    const value = values[i] ?? null;
    const x = i * SPARK_STEP;
    if (value !== null) {
      const y = Math.round((SPARK_BOTTOM - Math.max(value, 0) / top * (SPARK_BOTTOM - SPARK_TOP)) * 10) / 10;
      if (last < 0) first = x;
      line += last < 0 ? `M${x} ${y}` : `L${x} ${y}`;
      area += last < 0 ? `M${x} ${SPARK_HEIGHT}V${y}` : `L${x} ${y}`;
      last = x;
    } else if (last >= 0) {
      if (first === last) line += "h1";
      area += `L${last} ${SPARK_HEIGHT}Z`;
      last = -1;
    }
  }
  return { line, area };
}

const isSame = (a, b) => a.length === b.length && a.every((value, i) => value === b[i]);

function drawLoad(load, values) {
  // A host without the label has no line, and a dash for its number.
  values ??= [];
  load.latest = values.findLast(value => value !== null) ?? null;
  setText(load.value, load.latest === null ? "–" : load.latest.toFixed(1));
  setClass(load.value, load.latest === null ? "value none" : load.latest >= LOAD_HIGH ? "value high" : "value");
  if (isSame(load.drawn, values)) return;
  const { line, area } = sparkPaths(values);
  load.line.setAttribute("d", line);
  load.area.setAttribute("d", area);
  load.drawn = values;
}

function drawRow(row, entry) {
  row.entry = entry;
  setClass(row.node, `row is-${entry.state}`);
  setClass(row.dot, `dot ${entry.state}`);
  setText(row.state, entry.state);
  setText(row.age, ago(entry["age-sec"]));
  const shows = SPARKS.some(label => entry.series[label]);
  setText(row.note, shows ? "" : entry.labels.slice(0, 4).map(visible).join(", ") + (entry.labels.length > 4 ? ", …" : ""));
  for (const label of SPARKS) drawLoad(row.loads[label], entry.series[label]);
}

/** Takes an answer over into the rows. */
function drawList(answer) {
  isListed = true;
  let hasChanged = answer.hosts.length !== rows.size;
  const listed = new Set();
  for (const entry of answer.hosts) {
    listed.add(entry.host);
    let row = rows.get(entry.host);
    if (!row) {
      row = makeRow(entry.host);
      rows.set(entry.host, row);
      hasChanged = true;
    }
    drawRow(row, entry);
  }
  if (hasChanged) {
    for (const [host, row] of rows) {
      if (listed.has(host)) continue;
      row.node.remove();
      rows.delete(host);
    }
    const byName = [...rows.values()].sort((a, b) => nameOrder.compare(a.host, b.host));
    byName.forEach((row, rank) => { row.rank = rank; });
  }
  arrange();
}

/** The hosts that are to be seen, in their order: one that is down has no load to be sorted by. */
function chosen() {
  const text = view.filter.trim().toLowerCase();
  const isShown = row => (!view.show || row.entry.state === view.show) && row.lower.includes(text);
  const load = row => (row.entry.state === "down" ? null : row.loads[view.sort].latest) ?? -Infinity;
  const higher = (a, b) => (a === b ? 0 : a > b ? -1 : 1);
  const orders = {
    name: () => 0,
    cpu: (a, b) => higher(load(a), load(b)),
    mem: (a, b) => higher(load(a), load(b)),
    age: (a, b) => a.entry["age-sec"] - b.entry["age-sec"],
    state: (a, b) => STATE_ORDER[a.entry.state] - STATE_ORDER[b.entry.state],
  };
  const turn = view.isReversed ? -1 : 1;
  return [...rows.values()].filter(isShown).sort((a, b) => turn * (orders[view.sort](a, b) || a.rank - b.rank));
}

/** Filters and sorts the rows, and moves those that are not in their place. */
function arrange() {
  const shown = chosen();
  const isShown = new Set(shown);
  const focused = document.activeElement;
  for (const row of rows.values()) if (!isShown.has(row)) row.node.remove();
  let place = $("rows").firstElementChild;
  for (const row of shown) {
    if (row.node === place) place = place.nextElementSibling;
    else $("rows").insertBefore(row.node, place);
  }
  // A node that is moved loses the focus.
  if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
  drawBar(shown.length);
}

function drawBar(shown) {
  const states = { "": rows.size, up: 0, late: 0, down: 0 };
  for (const row of rows.values()) states[row.entry.state] += 1;
  for (const chip of $("chips").children) {
    setText(chip.querySelector("b"), plainNumber.format(states[chip.dataset.show]));
    setAttribute(chip, "aria-pressed", view.show === chip.dataset.show);
  }
  for (const head of document.querySelectorAll("th[data-sort]")) {
    const isDescending = SPARKS.includes(view.sort) !== view.isReversed;
    if (head.dataset.sort === view.sort) setAttribute(head, "aria-sort", isDescending ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
  if ($("sort").value !== view.sort) $("sort").value = view.sort;
  if ($("filter").value !== view.filter) $("filter").value = view.filter;
  $("table").hidden = shown === 0;
  for (const id of ["chips", "filter", "sort-label"]) $(id).hidden = rows.size === 0;
  drawListBlank(shown);
  setText($("list-status"), view.filter || view.show ? `${shown} of ${count(rows.size, "host", "hosts")} shown` : "");
}

/** What is said where no host is seen: none has come, or none matches. */
function drawListBlank(shown) {
  const blank = $("list-blank");
  blank.hidden = shown > 0 || !isListed;
  if (blank.hidden) return;
  const [title, sentence, command, button] = blank.children;
  const isEmpty = rows.size === 0;
  const wanted = [view.show && `is ${view.show}`, view.filter && `has “${visible(view.filter)}” in its name`].filter(Boolean);
  setText(title, isEmpty ? "No host has reported yet" : "No host matches");
  setText(sentence, isEmpty
    ? "Start a monitor on any machine; it appears here by itself."
    : `None of ${count(rows.size, "host", "hosts")} ${wanted.join(" and ")}.`);
  setText(command, `lizm monitor --host NAME --publish ${new URL("api/perf", document.baseURI)}`);
  command.hidden = !isEmpty;
  button.hidden = isEmpty;
}

function countStates() {
  let down = 0;
  for (const row of rows.values()) down += row.entry.state === "down";
  return count(rows.size, "host", "hosts") + (down ? `, ${down} down` : "");
}
