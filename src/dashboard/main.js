// What is looked at, and when it is asked for: the address after `#`, one request a refresh, and what is said while
// the receiver is away.

/** Between an answer and the next question. */
const REFRESH_MSEC = 5000;
/** Longest wait for an answer. */
const ANSWER_MSEC_MAX = 15000;

const view = { host: null, range: "hour", filter: "", sort: "problems", isReversed: false, columns: COLUMNS_DEFAULT, group: "" };
/** The request on its way, the wait for the next, and when the receiver answered last, by its clock. */
let asking = null, waiting = 0, answered = "";
let isPaused = false;
let listScroll = 0;

/** Reads the address. One that a person has mistyped shows the list. */
function readAddress() {
  const address = new URLSearchParams(location.hash.slice(1));
  view.host = address.get("host") || null;
  view.range = Object.hasOwn(RANGES, address.get("range")) ? address.get("range") : "hour";
  if (view.host !== null) return;
  view.filter = address.get("filter") ?? "";
  view.sort = [...$("sort").options].some(option => option.value === address.get("sort")) ? address.get("sort") : "problems";
  view.isReversed = address.has("reversed");
  view.columns = address.get("columns")?.split(",").filter(name => Object.hasOwn(COLUMNS, name)) ?? COLUMNS_DEFAULT;
  view.group = address.get("group") ?? "";
}

/** The list's address, so that what is filtered and sorted can be linked too. */
function listAddress() {
  const address = new URLSearchParams();
  if (view.filter) address.set("filter", view.filter);
  if (view.sort !== "problems") address.set("sort", view.sort);
  if (view.isReversed) address.set("reversed", "");
  if (!isSame(view.columns, COLUMNS_DEFAULT)) address.set("columns", view.columns);
  if (view.group) address.set("group", view.group);
  return `#${address}`;
}

function choose(change) {
  Object.assign(view, change);
  history.replaceState(null, "", listAddress());
  fitColumns();
  arrange();
}

/** Shows a host over another range. */
function chooseRange(range) {
  view.range = range;
  const address = new URLSearchParams({ host: view.host, ...(range !== "hour" && { range }) });
  history.replaceState(null, "", `#${address}`);
  refresh();
}

/** Sorts by a column; by the one that it is sorted by, the other way round. */
function sortBy(sort) {
  choose({ sort, isReversed: sort === view.sort && !view.isReversed });
}

/** Goes where the address says. */
function go() {
  const before = view.host;
  if (before === null) listScroll = scrollY;
  readAddress();
  $("list").hidden = view.host !== null;
  $("host").hidden = view.host === null;
  if (view.host === null) {
    fitColumns();
    arrange();
    if (before !== null) {
      scrollTo(0, listScroll);
      rows.get(before)?.slot?.link.focus({ preventScroll: true });
    }
  } else if (view.host !== before) {
    $("back").href = listAddress();
    openHost(view.host);
    scrollTo(0, 0);
    if (before !== null || isListed) $("host-title").focus({ preventScroll: true });
  }
  nameTab();
  refresh();
}

function nameTab() {
  const what = view.host === null ? (isListed ? countStates() : "") : visible(view.host);
  document.title = what ? `${what} · lizm` : "lizm";
}

/** Asks the receiver for JSON. */
async function get(path, signal) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", signal });
  } catch {
    throw new Error(signal.aborted ? `The receiver has not answered within ${ANSWER_MSEC_MAX / 1000} seconds` : "The receiver cannot be reached");
  }
  if (!response.ok) {
    const said = await response.json().then(answer => answer.error, () => null);
    throw new Error(said ? `The receiver answers ${response.status}, ${visible(said)}` : `The receiver cannot be reached: what stands before it answers ${response.status}`);
  }
  const answer = await response.json().catch(() => {
    throw new Error("The answer of the receiver was cut short");
  });
  return { answer, date: response.headers.get("Date") };
}

/** Asks for what is looked at: one request, and where rules are judged what fires. */
async function ask(signal) {
  const what = view.host === null ? listQuery() : `host=${encodeURIComponent(view.host)}`;
  const found = await get(`api/hosts?${what}`, signal);
  if (!Array.isArray(found.answer?.hosts)) throw new Error("What answers here is not a receiver");
  await askAlerts(found.answer.firing, signal);
  if (view.host !== null) await askPast(found.answer.firing, signal);
  return found;
}

async function refresh() {
  clearTimeout(waiting);
  asking?.abort();
  const mine = asking = new AbortController();
  const deadline = setTimeout(() => mine.abort(), ANSWER_MSEC_MAX);
  const { answer, date, trouble } = await ask(mine.signal).catch(error => ({ trouble: error.message }));
  clearTimeout(deadline);
  // Another has been sent since, for what is looked at now.
  if (mine !== asking) return;
  asking = null;
  scheduleNext();
  if (trouble) {
    isHourKnown = false;
    return tellLife(trouble);
  }
  answered = clockWithSeconds((Date.parse(date) || Date.now()) / 1000);
  tellLife("");
  $("open").hidden = !answer.open;
  if (view.host !== null) drawHost(answer);
  else {
    const isFirst = !isListed;
    drawList(answer);
    if (isFirst && answer.hosts.length) refresh();
  }
  nameTab();
}

/** The next refresh waits for a page that is looked at. */
function scheduleNext() {
  clearTimeout(waiting);
  if (!isPaused && !document.hidden) waiting = setTimeout(refresh, REFRESH_MSEC);
}

/** Says how fresh the picture is, and what is wrong if something is. */
function tellLife(trouble) {
  const life = trouble ? "is-away" : isPaused ? "" : "is-live";
  setClass($("live"), `live ${life}`);
  setText($("live-text"), trouble ? `Away${answered && `, as of ${answered}`}` : isPaused ? `Paused at ${answered}` : `Live, ${answered}`);
  document.body.classList.toggle("is-old", Boolean(trouble));
  if (trouble) drawUnknown();
  const picture = answered ? `What you see is as of ${answered}.` : "There is nothing to show yet.";
  const next = isPaused ? "" : ` It is asked again every ${REFRESH_MSEC / 1000} seconds.`;
  setText($("notice"), trouble ? `${trouble}. ${picture}${next}` : "");
}

function pause() {
  isPaused = !isPaused;
  setText($("pause"), isPaused ? "Resume" : "Pause");
  if (!isPaused) return refresh();
  scheduleNext();
  if (!$("notice").textContent) tellLife("");
}

addEventListener("hashchange", go);
document.addEventListener("visibilitychange", () => (document.hidden || isPaused ? scheduleNext() : refresh()));
$("pause").addEventListener("click", pause);
$("filter").addEventListener("input", event => choose({ filter: event.target.value }));
$("sort").addEventListener("change", event => choose({ sort: event.target.value, isReversed: false }));
$("forget").addEventListener("click", askToForget);
$("forget-no").addEventListener("click", () => $("forget-dialog").close());
$("forget-yes").addEventListener("click", forget);
$("forget-token").addEventListener("keydown", event => event.key === "Enter" && forget());
// A token is kept nowhere.
$("forget-dialog").addEventListener("close", () => { $("forget-token").value = ""; });
$("label-filter").addEventListener("input", filterCards);
$("strip").addEventListener("click", event => event.target.title && choose({ filter: event.target.title }));
for (const button of $("ranges").children) button.addEventListener("click", () => chooseRange(button.dataset.range));
for (const chip of $("chips").children) chip.addEventListener("click", () => choose({ filter: chip.dataset.filter }));
$("group").addEventListener("change", event => choose({ group: event.target.value }));
addEventListener("resize", () => rows.size && view.host === null && fitColumns());
for (const head of document.querySelectorAll("th[data-sort]")) head.firstElementChild.addEventListener("click", () => sortBy(head.dataset.sort));
$("list-blank").querySelector("button").addEventListener("click", () => choose({ filter: "" }));
makeColumnChoices();
setText($("zone"), `Times are the receiver’s, in the zone ${Intl.DateTimeFormat().resolvedOptions().timeZone}.`);
go();
