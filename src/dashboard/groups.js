// Groups of the list: hosts with the same beginning of their names, or the same value of a tag.

/** Groups that are closed, by their names, and the heads of all. */
const closedGroups = new Set(), groupHeads = new Map();
/** The first word of a name, up to a digit, a dot or a dash. */
const PREFIX = /^[^\d._-]+/;

/** What the hosts can be grouped by: nothing, the name, and the keys of tags. */
function groupings() {
  const keys = new Set();
  for (const row of rows.values()) for (const key in row.entry.tags ?? {}) keys.add(key);
  return ["", "name", ...[...keys].sort(nameOrder.compare).map(key => `tag:${key}`)];
}

/** The menu of what the hosts can be grouped by. */
function drawGroupings() {
  const all = groupings();
  if (!isSame([...$("group").options].map(option => option.value), all)) {
    $("group").replaceChildren(...all.map(by => new Option(by === "" ? "nothing" : by === "name" ? "name" : visible(by), by)));
  }
  $("group").value = view.group;
}

function groupNext() {
  choose({ group: nextOf(groupings(), view.group) });
}

/** The group of a row. */
function groupOf(row) {
  if (view.group === "name") return row.host.match(PREFIX)?.[0] ?? row.host;
  const tags = row.entry.tags ?? {}, key = view.group.slice("tag:".length);
  return Object.hasOwn(tags, key) ? tags[key] : "";
}

function makeGroup(name) {
  const node = copyOf("group");
  const button = node.querySelector("button");
  button.addEventListener("click", () => {
    if (!closedGroups.delete(name)) closedGroups.add(name);
    arrange();
  });
  return { node, link: button, dot: node.querySelector(".dot"), facts: node.querySelector(".facts") };
}

/** The head of a group: its worst state, how many hosts it has, and the means of what is shown in percent. */
function drawGroup(name, members) {
  if (!groupHeads.has(name)) groupHeads.set(name, makeGroup(name));
  const head = groupHeads.get(name);
  const states = members.map(row => row.entry.state);
  const worst = Object.keys(STATE_ORDER).find(state => states.includes(state)) ?? "up";
  const problems = members.filter(row => severity(row) > 1).length;
  const means = columnsShown.filter(column => isPercent(COLUMNS[column].labels[0])).flatMap(column => {
    const values = members.filter(row => row.entry.state !== "down").map(row => row.values[column]).filter(value => value !== null);
    return values.length ? [`${COLUMNS[column].title} ${numberOf(COLUMNS[column].labels[0], values.reduce((sum, value) => sum + value, 0) / values.length)}`] : [];
  });
  setClass(head.dot, `dot ${problems && worst !== "down" ? "problem" : worst}`);
  setText(head.link, name === "" ? "no tag" : visible(name));
  setText(head.facts, [count(members.length, "host", "hosts"), worst, problems && count(problems, "problem", "problems"), ...means].filter(Boolean).join(" · "));
  setAttribute(head.link, "aria-expanded", !closedGroups.has(name));
  return head;
}

/** The rows of the list in their order, with the heads of groups before their hosts. Groups with problems come first,
    where the order does not rest. */
function grouped(shown, isResting) {
  const groups = view.group ? Map.groupBy(shown, groupOf) : new Map([["", shown]]);
  const worst = members => Math.max(...members.map(severity));
  const order = [...groups];
  if (!isResting) {
    order.sort(([a, of], [b, others]) => worst(others) - worst(of) || nameOrder.compare(a, b));
    order.flatMap(([, members]) => members).forEach((row, i) => { row.order = i + 1; });
  }
  if (!view.group) return shown;
  for (const name of groupHeads.keys()) if (!groups.has(name)) groupHeads.delete(name);
  return order.flatMap(([name, members]) => [drawGroup(name, members), ...(closedGroups.has(name) ? [] : members)]);
}
