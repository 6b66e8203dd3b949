"use strict";
// Names, times and nodes as people read them. Text that others have chosen reaches the page through `visible`, and as
// text: the policy of the page forbids markup.

const $ = id => document.getElementById(id);

const UNSEEN = /[\p{Cc}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\ufff9-\ufffb]/gu;
/** Most characters of a text that others have chosen. */
const TEXT_CHARS_MAX = 2000;

/** A name or an error as it may be shown: U+FFFD for what turns the direction of writing or cannot be seen, as in `sanitize.rs`. */
const visible = text => String(text).slice(0, TEXT_CHARS_MAX).replace(UNSEEN, "\ufffd");

/** Changes a text only where it differs, so that a refresh touches little and selections stay. */
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A node with properties; and a copy of a template of the page. */
const make = (name, properties) => Object.assign(document.createElement(name), properties);
const copyOf = template => $(`${template}-template`).content.firstElementChild.cloneNode(true);

/** Makes a list of items, each texts and nodes; it is replaced only where it says something else, so that a focus in it stays. */
function listTexts(list, items) {
  const nodes = items.map(parts => {
    const item = make("li");
    item.append(...parts);
    return item;
  });
  const text = nodes.map(node => node.textContent).join("\n");
  if (list.dataset.text === text) return;
  list.dataset.text = text;
  list.replaceChildren(...nodes);
}

function setAttribute(node, name, value) {
  if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

function setClass(node, name) {
  if (node.className !== name) node.className = name;
}

const plainNumber = new Intl.NumberFormat(undefined, { maximumFractionDigits: 2 });

// Times are the receiver's, seconds since the Unix epoch, shown in the reader's zone.
const clockFormat = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const secondFormat = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dateFormat = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
/** Days of summaries are those of UTC. */
const utcFormat = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" });
const clock = sec => clockFormat.format(sec * 1000);
const clockWithSeconds = sec => secondFormat.format(sec * 1000);
const date = sec => dateFormat.format(sec * 1000);
const utcDate = sec => utcFormat.format(sec * 1000);

/** A length of time in its largest unit. */
function duration(sec) {
  if (sec < 120) return `${Math.round(sec)} s`;
  if (sec < 7200) return `${Math.floor(sec / 60)} min`;
  return sec < 172800 ? `${Math.floor(sec / 3600)} h` : `${Math.floor(sec / 86400)} d`;
}

const secondsSince = msec => Math.round((performance.now() - msec) / 1000);

const ago = sec => (sec === 0 ? "now" : `${duration(sec)} ago`);

const count = (n, one, many) => `${plainNumber.format(n)} ${n === 1 ? one : many}`;

const nameOrder = new Intl.Collator(undefined, { numeric: true });
