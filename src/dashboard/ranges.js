// The ranges of a host's charts, and what is asked for once a minute beside the last hour: the intervals of a longer range,
// and the transitions of alerts.

/** Ranges by their names in the address: what they are called, and how long they are. */
const RANGES = {
  hour: { title: "hour", sec: 3600 },
  day: { title: "day", sec: 86400 },
  week: { title: "week", sec: 7 * 86400 },
  "90d": { title: "90 days", sec: 90 * 86400 },
  year: { title: "year", sec: 366 * 86400 },
};
/** Intervals that a chart has room for; and the most that an answer has, for a receiver that keeps no coarser ones. */
const INTERVALS_FITTING = 400, INTERVALS_MAX = 11000;
const PAST_MSEC = 60000;

/** What was asked for, and when; its answers. */
let past = { key: "", at: 0, summaries: {}, history: [] };

/** Asks for a longer range of the host and for what has fired, where that is a minute old or other alerts fire. */
async function askPast(firing, signal) {
  const { host, range } = view, at = performance.now();
  const key = JSON.stringify([host, range, alertsByHost.get(host)?.map(({ name, series }) => [name, series])]);
  if (key === past.key && at - past.at < PAST_MSEC) return;
  const query = limit => get(`api/hosts?host=${encodeURIComponent(host)}&from=-${RANGES[range].sec / 3600}h&labels=none&limit=${limit}`, signal);
  const [ranged, told] = await Promise.all([
    range !== "hour" && query(INTERVALS_FITTING).catch(() => query(INTERVALS_MAX)),
    firing !== undefined && get("api/alerts?history=1", signal),
  ]);
  past = { key, at, summaries: ranged?.answer?.hosts[0]?.summaries ?? {}, history: told?.answer?.history ?? [] };
}

/** The range that is shown: its title, averages by label, the length of its intervals, and its begin and end. */
function rangeShown(summaries, now) {
  const { title, sec } = RANGES[view.range];
  const shown = view.range === "hour" ? summaries : past.summaries;
  const keys = Object.keys(shown).filter(key => key.startsWith(view.range === "hour" ? "summary:by-minute:" : "summary:"));
  const [, name] = (keys[0] ?? "summary:by-minute").split(":");
  const interval = shown[keys[0]]?.["timeslice-size-sec"] ?? 60;
  const averages = new Map(keys.map(key => [key.slice(`summary:${name}:`.length), shown[key].averages]));
  return {
    title: `last ${title} ${name.replace("-", " ")}`, interval, averages, now,
    start: Math.floor((now - sec) / interval) * interval, end: Math.ceil(now / interval) * interval,
  };
}
