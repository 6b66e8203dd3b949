// Numbers with the units of their labels. `src/units.rs` has the same table for the terminal; a test holds both together.

/** Patterns of the stem of a label, the part before a colon or a comma, and units. The first that matches counts. */
const UNITS = [
  ["*-read", "B/s"], ["*-write", "B/s"], ["net-*", "B/s"], ["*-free", "B"],
  ["cpu*", "%"], ["mem", "%"], ["swap", "%"], ["disk", "%"], ["inodes", "%"], ["pressure*", "%"],
  ["temp*", "°C"], ["gpu-temp", "°C"], ["gpu*", "%"], ["*-cpu", "%"], ["*-mem", "B"],
  ["*-net-in", "B/s"], ["*-net-out", "B/s"], ["zfs-arc", "B"], ["uptime", "time"],
  ["*_seconds", "s"], ["*_bytes", "B"], ["*_percent", "%"], ["*_total", ""],
];
const PREFIXES = ["", "k", "M", "G", "T", "P", "E"];

const stemOf = label => label.split(/[:,]/, 1)[0];

/** The unit of a label; empty where none is known. */
function unitOf(label) {
  const stem = stemOf(label);
  const isLike = pattern => pattern.startsWith("*") ? stem.endsWith(pattern.slice(1))
    : pattern.endsWith("*") ? stem.startsWith(pattern.slice(0, -1)) : stem === pattern;
  return UNITS.find(([pattern]) => isLike(pattern))?.[1] ?? "";
}

const isPercent = label => unitOf(label) === "%";

/** A number and its prefix of thousands, in three significant digits; fixed ones keep their zeros, as columns need it. */
function significant(value, isFixed) {
  const size = Math.abs(value);
  if (size >= 999.5e18) return [value.toExponential(2), ""];
  let power = 0;
  while (size >= 999.5 * 1000 ** power && power < PREFIXES.length - 1) power += 1;
  const scaled = value / 1000 ** power;
  const text = size > 0 && size < 0.001 ? scaled.toExponential(1) : isFixed ? scaled.toPrecision(3) : String(Number(scaled.toPrecision(3)));
  return [text, PREFIXES[power]];
}

/** A length of time in its two largest units. */
function uptime(sec) {
  const minutes = Math.floor(sec / 60), hours = Math.floor(minutes / 60), days = Math.floor(hours / 24);
  if (days > 0) return `${days} d ${hours % 24} h`;
  if (hours > 0) return `${hours} h ${minutes % 60} min`;
  return minutes > 0 ? `${minutes} min` : `${Math.floor(sec)} s`;
}

/** A value beside an axis: a round number, with no more digits than it has. */
function tickOf(label, value) {
  return unitOf(label) === "%" ? `${Number(value.toPrecision(4))} %` : numberOf(label, value);
}

/** A value of a label as people read it. */
function numberOf(label, value, isFixed = false) {
  const unit = unitOf(label);
  if (unit === "time") return uptime(Math.max(0, value));
  if (unit === "%" && Math.abs(value) < 1e5 && (value === 0 || Math.abs(value) >= 0.05)) return `${value.toFixed(1)} %`;
  if (isFixed && unit === "" && Math.abs(value) < 1000) return value.toFixed(2);
  const [number, prefix] = significant(value, isFixed);
  const after = prefix + unit;
  return after ? `${number} ${after}` : number;
}
