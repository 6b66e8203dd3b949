// The list of all hosts. What is known of a host is a row. What shows it is a slot, a line of the table: another order
// changes texts, and moves no line. A browser lays out and paints the blocks of slots that are in sight alone.

/** Labels of which the list has the last hour. */
const LISTED = ["cpu", "mem", "disk"];
/** Height of a sparkline's box, with room for half a line's width at both ends; two units a minute across. */
const SPARK_HEIGHT = 30, SPARK_TOP = 2, SPARK_BOTTOM = 28, SPARK_STEP = 2;
/** Percent from which on a number stands out, and from which on its host needs attention. */
const HIGH = 90, ATTENTION = { disk: 90, mem: 95 };
/** Hosts in the strip up to which its cells are wide: more are to fit two lines. */
const STRIP_WIDE_MAX = 250;
/** Lines of what needs attention that are shown. */
const ATTENTION_SHOWN = 8;
/** The longest time to a full disk that is worth a word, in minutes. */
const FULL_WITHIN_MIN = 48 * 60;
/** States, the worst first. */
const STATE_ORDER = { down: 0, conflict: 1, late: 2, up: 3 };

const rows = new Map();
/** The lines of the table and their blocks, from the top; those behind the last one that is needed are kept. */
const slots = [], blocks = [];
const BLOCK_SLOTS = 20;
/** Slots out of sight that are drawn at a time, and how long the page rests before, in milliseconds. */
const SLOTS_AT_ONCE = 100, REST_MSEC = 100;
let drawing = 0;
/** Whether an answer has come: until then there is nothing to say about hosts. */
let isListed = false;
/** Whether the last hour of all rows is known, and when minutes came last, in milliseconds. */
let isHourKnown = false, listedAt = 0;

/** What is asked for of all hosts: first the newest values alone, so that rows are seen soon; then an hour of minutes; and
    from then on those minutes that may have changed. */
function listQuery() {
  const latest = [...new Set(["disk:*", ...columnsWanted().flatMap(name => [...COLUMNS[name].labels, COLUMNS[name].full].filter(Boolean))])];
  if (!isListed) return `latest=${[...LISTED, ...latest.filter(label => !LISTED.includes(label))]}&labels=none`;
  const minutes = Math.floor((performance.now() - listedAt) / 60000) + 2;
  const newest = isHourKnown && minutes < 60 ? `&minutes=${minutes}&labels=none` : "";
  return `series=${LISTED}&latest=${latest.filter(label => !LISTED.includes(label))}${newest}`;
}

function makeRow(host) {
  return {
    host, name: visible(host), href: `#${new URLSearchParams({ host })}`, lower: host.toLowerCase(), slot: null,
    rank: 0, order: 0, troubles: [], entry: null, values: {}, latest: {}, minutes: {}, start: 0, labels: [],
  };
}

function makeSlot() {
  const node = copyOf("row"), find = part => node.querySelector(part);
  const slot = {
    node, link: find("a"), dot: find(".dot"), state: find(".state span"), age: find(".age"), note: find("small"), row: null, cells: {},
  };
  fitCells(slot);
  return slot;
}

/** A block for slots from `first` on. A browser that does not tell which are out of sight has all of them drawn at once. */
function makeBlock(first) {
  const block = { node: make("div", { className: "block" }), isOutOfSight: false };
  block.node.addEventListener("contentvisibilityautostatechange", ({ skipped }) => {
    block.isOutOfSight = skipped;
    if (!skipped) slots.slice(first, first + BLOCK_SLOTS).forEach(drawSlot);
  });
  $("rows").append(block.node);
  return block;
}

/** Puts rows and heads of groups into the table, each row into the next slot. */
function fillBlocks(lines) {
  for (const row of rows.values()) row.slot = null;
  for (const slot of slots) slot.row = null;
  let used = 0;
  const places = [];
  stops = lines.map(line => {
    const place = Math.floor(used / BLOCK_SLOTS);
    if (!line.node) {
      const slot = slots[used] ??= makeSlot();
      [slot.row, slot.block, line.slot] = [line, blocks[place] ??= makeBlock(used), slot];
      line = slot;
      used += 1;
    }
    (places[place] ??= []).push(line.node);
    return line.link;
  });
  blocks.forEach(({ node }, i) => {
    const nodes = places[i] ?? [];
    node.hidden = nodes.length === 0;
    if (!isSame(node.children, nodes)) node.replaceChildren(...nodes);
    node.style.setProperty("--lines", nodes.length);
  });
}

/** The line of a series and the area under it, up to at least `top`, gaps left as gaps. A minute on its own is a dash. */
function sparkPaths(values, top) {
  for (const value of values) if (value > top) top = value;
  let line = "", area = "", first = -1, last = -1;
  for (let i = 0; i <= values.length; i++) {
    const value = values[i] ?? null;
    const x = i * SPARK_STEP;
    if (value !== null) {
      const y = Math.round((SPARK_BOTTOM - Math.max(value, 0) / (top || 1) * (SPARK_BOTTOM - SPARK_TOP)) * 10) / 10;
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

const isSame = (a, b) => a.length === b.length && b.every((value, i) => value === a[i]);

/** The minutes of an answer, from `start` on, behind those that a row has: an hour. */
function takeMinutes(row, series, start) {
  if (!series) return;
  const long = Math.max(0, ...Object.values(series).map(minutes => minutes.length));
  const first = start + (long - 60) * 60;
  const known = row.minutes, passed = Math.max(0, (first - row.start) / 60);
  row.minutes = {};
  for (const label in series) {
    const before = (known[label] ?? []).slice(passed, passed + 60 - long);
    row.minutes[label] = [...before, ...Array(60 - long - before.length).fill(null), ...series[label]];
  }
  row.start = first;
}

/** The newest values of a row: those of the answer, and of the minutes of an hour. */
function takeLatest(row, latest = {}) {
  row.latest = { ...latest };
  for (const label in row.minutes) {
    const newest = row.minutes[label].findLast(value => value !== null) ?? null;
    if (newest !== null && !Object.hasOwn(row.latest, label)) row.latest[label] = newest;
  }
  for (const name in COLUMNS) row.values[name] = columnValue(name, row.latest);
}

/** Minutes until a series of minutes that rises comes to 100, by least squares; null where it does not soon. */
function minutesToFull(values) {
  const points = values.flatMap((value, i) => (value === null ? [] : [[i, value]]));
  if (points.length < 4) return null;
  const mean = place => points.reduce((sum, point) => sum + point[place], 0) / points.length;
  const [x, y] = [mean(0), mean(1)];
  const square = points.reduce((sum, point) => sum + (point[0] - x) ** 2, 0);
  const slope = points.reduce((sum, point) => sum + (point[0] - x) * (point[1] - y), 0) / square;
  const minutes = (100 - points.at(-1)[1]) / slope;
  return slope > 0.001 && minutes <= FULL_WITHIN_MIN ? Math.max(1, Math.round(minutes)) : null;
}

/** What is wrong with a host, the worst first, each as a sentence without the name. */
function troublesOf(row) {
  const { entry, latest } = row;
  const alerts = alertsOf(row.host).map(alertText);
  if (entry.state === "down") return [`down for ${duration(entry["age-sec"])}`, ...alerts];
  const troubles = [...alerts];
  const ruled = new Set(alertsOf(row.host).map(alert => alert.series));
  if (entry.state === "conflict") troubles.push("reported by two monitors at once");
  for (const label of Object.keys(latest).sort((a, b) => latest[b] - latest[a])) {
    const stem = stemOf(label);
    if (ruled.has(label) || !Object.hasOwn(ATTENTION, stem) || latest[label] < ATTENTION[stem]) continue;
    const minutes = stem === "disk" ? minutesToFull(row.minutes[label] ?? []) : null;
    const soon = minutes === null ? "" : `, full in about ${duration(minutes * 60)}`;
    troubles.push(`${label === "mem" ? "memory" : visible(label.replace(":", " "))} ${numberOf(label, latest[label])}${soon}`);
  }
  return troubles;
}

/** Lists what needs attention; nothing where nothing does. */
function drawAttention() {
  const all = [...rows.values()].flatMap(row => row.troubles.map(trouble => [row, trouble]));
  all.sort(([a], [b]) => severity(b) - severity(a) || a.rank - b.rank);
  $("attention").hidden = all.length === 0;
  const lines = all.slice(0, ATTENTION_SHOWN).map(([row, trouble]) =>
    [make("a", { href: row.href, textContent: row.name }), ` ${trouble}`]);
  if (all.length > lines.length) lines.push([`and ${all.length - lines.length} more`]);
  listTexts($("attention-list"), lines);
}

/** How bad a host is: 3 down, 2 what needs attention, 1 late, 0 well. */
function severity(row) {
  if (row.entry.state === "down") return 3;
  if (row.troubles.length) return 2;
  return row.entry.state === "up" ? 0 : 1;
}

/** The strip: a cell a host, coloured by how bad it is, in the order of names. */
function drawStrip() {
  const ordered = [...rows.values()].sort((a, b) => a.rank - b.rank);
  const strip = $("strip");
  while (strip.children.length > ordered.length) strip.lastElementChild.remove();
  while (strip.children.length < ordered.length) strip.append(make("i"));
  ordered.forEach((row, i) => {
    const cell = strip.children[i];
    setClass(cell, `severity-${severity(row)}`);
    if (cell.title !== row.name) cell.title = row.name;
  });
  const bad = ordered.filter(row => severity(row) > 1).length;
  strip.classList.toggle("many", ordered.length > STRIP_WIDE_MAX);
  setAttribute(strip, "aria-label", `${count(ordered.length, "host", "hosts")}, ${bad} of them with a problem`);
  strip.hidden = ordered.length < 2;
}

/** Draws the row of a slot. While the receiver is away ages go on, and what hosts are is not known. */
function drawSlot(slot) {
  const { row } = slot;
  if (!row) return;
  const { entry } = row, isAway = document.body.classList.contains("is-old");
  if (slot.link.getAttribute("href") !== row.href) {
    slot.link.textContent = slot.link.title = row.name;
    slot.link.href = row.href;
  }
  setClass(slot.node, isAway ? "row" : `row is-${entry.state}`);
  setClass(slot.dot, isAway ? "dot" : `dot ${entry.state}`);
  setText(slot.state, isAway ? "unknown" : entry.state);
  setText(slot.age, ago(entry["age-sec"] + (isAway ? secondsSince(listedAt) : 0)));
  const shows = columnsShown.some(name => row.values[name] !== null);
  const firing = alertsOf(row.host).map(alert => visible(alert.name)).join(", ");
  setText(slot.note, firing || shows ? firing : row.labels.slice(0, 4).map(visible).join(", ") + (row.labels.length > 4 ? ", …" : ""));
  drawCells(slot);
}

/** Draws the slots in sight. The others follow when the picture is there, a few at a time: they are read out and searched. */
function drawSlots() {
  clearTimeout(drawing);
  slots.filter(slot => !slot.block.isOutOfSight).forEach(drawSlot);
  const rest = slots.filter(slot => slot.row && slot.block.isOutOfSight);
  const drawSome = () => {
    rest.splice(0, SLOTS_AT_ONCE).forEach(drawSlot);
    drawRest();
  };
  const drawRest = () => { if (rest.length) drawing = setTimeout(drawSome, REST_MSEC); };
  drawRest();
}

/** What is said of hosts while the receiver is away. */
function drawUnknown() {
  drawSlots();
  if (told) drawHead({ ...told.entry, state: "unknown", "age-sec": told.entry["age-sec"] + secondsSince(toldAt) }, told.summaries);
}

/** Takes an answer over into the rows. */
function drawList(answer) {
  isListed = $("skeleton").hidden = true;
  const start = answer["series-start-sec"] ?? 0;
  fitColumns();
  if (start) listedAt = performance.now();
  if (answer.hosts.some(entry => entry.labels)) isHourKnown = true;
  let hasChanged = answer.hosts.length !== rows.size;
  const listed = new Set();
  for (const entry of answer.hosts) {
    listed.add(entry.host);
    let row = rows.get(entry.host);
    if (!row) {
      row = makeRow(entry.host);
      rows.set(entry.host, row);
      hasChanged = true;
      isHourKnown = false;
    }
    row.labels = entry.labels ?? row.labels;
    takeMinutes(row, entry.series, start);
    takeLatest(row, entry.latest);
    row.entry = entry;
    row.troubles = troublesOf(row);
  }
  if (hasChanged) {
    for (const host of rows.keys()) {
      if (!listed.has(host)) rows.delete(host);
    }
    const byName = [...rows.values()].sort((a, b) => nameOrder.compare(a.host, b.host));
    byName.forEach((row, rank) => { row.rank = rank; });
  }
  drawAttention();
  drawStrip();
  arrange(isInUse());
}

/** Whether the pointer or the focus is in the list, so that its order rests. */
const isInUse = () => $("rows").matches(":hover") || $("rows").contains(document.activeElement);

/** Words of a filter: what each is like, and what it wants of a row. Any other word is part of the name. */
const FILTERS = [
  [/^is:(up|late|down|conflict)$/, ([, state]) => row => row.entry.state === state],
  [/^is:problem$/, () => row => severity(row) > 1],
  [/^tag:([^=]+)(?:=(.*))?$/, ([, key, value]) => row => Object.entries(row.entry.tags ?? {}).some(([k, v]) => k.toLowerCase() === key && (value === undefined || v.toLowerCase() === value))],
  [/^([a-z]+)([<>])([\d.]+)([kmgt]?)$/, ([, name, sign, number, prefix]) => {
    const bound = Number(number) * 1000 ** " kmgt".indexOf(prefix || " ");
    return Object.hasOwn(COLUMNS, name) && (row => row.values[name] !== null && (sign === ">" ? row.values[name] > bound : row.values[name] < bound));
  }],
];

/** What a filter wants of a row: each of its words. */
function filterOf(text) {
  const wants = text.trim().toLowerCase().split(/\s+/).filter(Boolean).map(word => {
    for (const [pattern, wants] of FILTERS) {
      const match = word.match(pattern), want = match && wants(match);
      if (want) return want;
    }
    return row => row.lower.includes(word);
  });
  return row => wants.every(want => want(row));
}

/** The hosts that are to be seen, in their order: one that is down has no load to be sorted by. An order that rests is
    that of before, with what is new at its end. */
function chosen(isResting) {
  const isFound = filterOf(view.filter);
  const load = row => (row.entry.state === "down" ? null : row.values[view.sort]) ?? -Infinity;
  const higher = (a, b) => (a === b ? 0 : a > b ? -1 : 1);
  const orders = {
    problems: (a, b) => severity(b) - severity(a),
    name: () => 0,
    age: (a, b) => a.entry["age-sec"] - b.entry["age-sec"],
    state: (a, b) => STATE_ORDER[a.entry.state] - STATE_ORDER[b.entry.state],
  };
  const order = orders[view.sort] ?? ((a, b) => higher(load(a), load(b)));
  const turn = view.isReversed ? -1 : 1;
  const shown = [...rows.values()].filter(isFound);
  if (isResting) return shown.sort((a, b) => (a.order || Infinity) - (b.order || Infinity) || a.rank - b.rank);
  return shown.sort((a, b) => turn * (order(a, b) || a.rank - b.rank));
}

/** Filters, sorts and groups the rows, and shows them. */
function arrange(isResting = false) {
  const focused = document.activeElement, focusedRow = slots.find(slot => slot.link === focused)?.row;
  const shown = chosen(isResting);
  fillBlocks(grouped(shown, isResting));
  drawSlots();
  // The focus goes with its host, and a node that is moved loses it.
  const next = focusedRow ? focusedRow.slot?.link : focused;
  if (next?.isConnected && next !== document.activeElement) next.focus({ preventScroll: true });
  keepTabStop();
  drawBar(shown.length);
}

function drawBar(shown) {
  for (const chip of $("chips").children) {
    const { filter } = chip.dataset;
    setText(chip.querySelector("b"), plainNumber.format([...rows.values()].filter(filterOf(filter)).length));
    setAttribute(chip, "aria-pressed", view.filter === filter);
  }
  for (const head of document.querySelectorAll("th[data-sort]")) {
    const isDescending = Object.hasOwn(COLUMNS, view.sort) !== view.isReversed;
    if (head.dataset.sort === view.sort) setAttribute(head, "aria-sort", isDescending ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
  if ($("sort").value !== view.sort) $("sort").value = view.sort;
  if ($("filter").value !== view.filter) $("filter").value = view.filter;
  for (const choice of $("columns").querySelectorAll("input")) choice.checked = view.columns.includes(choice.value);
  drawGroupings();
  $("table").hidden = shown === 0;
  for (const id of ["chips", "filter", "choices"]) $(id).hidden = rows.size === 0;
  drawListBlank(shown);
  setText($("list-status"), view.filter ? `${shown} of ${count(rows.size, "host", "hosts")} shown` : "");
}

/** What is said where no host is seen: none has come, or none matches. */
function drawListBlank(shown) {
  const blank = $("list-blank");
  blank.hidden = shown > 0 || !isListed;
  if (blank.hidden) return;
  const [title, sentence, command, button] = blank.children;
  const isEmpty = rows.size === 0;
  setText(title, isEmpty ? "No host has reported yet" : "No host matches");
  setText(sentence, isEmpty
    ? "Start a monitor on any machine; it appears here by itself."
    : `None of ${count(rows.size, "host", "hosts")} matches “${visible(view.filter)}”.`);
  setText(command, `lizm monitor --host NAME --publish ${new URL("api/perf", document.baseURI)}`);
  command.hidden = !isEmpty;
  button.hidden = isEmpty;
}

function countStates() {
  const down = [...rows.values()].filter(filterOf("is:down")).length;
  return count(rows.size, "host", "hosts") + (down ? `, ${down} down` : "");
}
