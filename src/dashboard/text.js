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
const dayFormat = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric" });
const clock = sec => clockFormat.format(sec * 1000);
const clockWithSeconds = sec => secondFormat.format(sec * 1000);
const day = sec => dayFormat.format(sec * 1000);

/** A length of time in its largest unit. */
function duration(sec) {
  if (sec < 120) return `${Math.round(sec)} s`;
  if (sec < 7200) return `${Math.floor(sec / 60)} min`;
  return sec < 172800 ? `${Math.floor(sec / 3600)} h` : `${Math.floor(sec / 86400)} d`;
}

const ago = sec => (sec === 0 ? "now" : `${duration(sec)} ago`);

const count = (n, one, many) => `${plainNumber.format(n)} ${n === 1 ? one : many}`;

const nameOrder = new Intl.Collator(undefined, { numeric: true });
