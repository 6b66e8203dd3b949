// The keyboard, with the keys of `lizm watch`. The list is one tab stop: the row that is moved to takes the focus.

/** What each key does, besides those that move. */
const KEYS = {
  "/": () => (view.host === null ? $("filter") : $("label-filter")).focus(),
  s: () => sortNext(),
  S: () => view.host === null && choose({ isReversed: !view.isReversed }),
  g: () => view.host === null && groupNext(),
  r: () => view.host !== null && chooseRange(nextOf(Object.keys(RANGES), view.range)),
  p: () => pause(),
  "!": () => view.host === null && choose({ filter: view.filter === "is:problem" ? "" : "is:problem" }),
  "?": () => $("keys").showModal(),
};

const nextOf = (all, one) => all[(all.indexOf(one) + 1) % all.length];

function sortNext() {
  if (view.host === null) choose({ sort: nextOf([...$("sort").options].map(option => option.value), view.sort), isReversed: false });
}

/** What can be moved to in the list, from the top, links of hosts and heads of groups; and the one that Tab leads to. */
let stops = [], tabStop = null;

/** Moves the focus in the list by some rows. */
function moveFocus(by) {
  const now = stops.indexOf(document.activeElement);
  const next = now < 0 ? stops.indexOf(tabStop) : Math.min(stops.length - 1, Math.max(0, now + by));
  stops[Math.max(0, next)]?.focus();
}

/** Makes one of the list's links the tab stop: the one that has the focus, or had it last. */
function keepTabStop() {
  const stop = [document.activeElement, tabStop].find(node => stops.includes(node)) ?? stops[0];
  tabStop?.setAttribute("tabindex", -1);
  stop?.setAttribute("tabindex", 0);
  tabStop = stop;
}

function press(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
  const isTyping = event.target.matches("input, select, textarea");
  if (event.key === "Escape") return goBack(event, isTyping);
  if (isTyping || event.target.closest(".plot")) return;
  const isInList = $("rows").contains(event.target);
  const moves = { j: 1, k: -1, ...(isInList && { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity }) };
  if (Object.hasOwn(moves, event.key) && view.host === null) moveFocus(moves[event.key]);
  else if (Object.hasOwn(KEYS, event.key)) KEYS[event.key]();
  else return;
  event.preventDefault();
}

/** Esc: out of a filter, which it clears; out of a host to the list. */
function goBack(event, isTyping) {
  if (isTyping && event.target.type === "search") {
    event.target.value = "";
    event.target.dispatchEvent(new Event("input"));
    event.target.blur();
  } else if (view.host !== null && !isTyping && cursor === null) {
    location.hash = $("back").getAttribute("href");
  }
}

document.addEventListener("keydown", press);
$("rows").addEventListener("focusin", keepTabStop);
$("keys-close").addEventListener("click", () => $("keys").close());
$("skip").addEventListener("click", event => {
  event.preventDefault();
  if (view.host === null && stops.length) moveFocus(0);
  else $(view.host === null ? "filter" : "host-title").focus();
});
