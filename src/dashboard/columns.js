// The columns of the list: what each shows of a host, which are chosen, and which of those have room.

/** A column: its title, the labels of which the greatest value counts, how it is drawn, and its least width in pixels; and
    the label of which 1 fills its meter, where the value is no percentage. */
const COLUMNS = {
  cpu: { title: "CPU", labels: ["cpu"], kind: "history", width: 150 },
  mem: { title: "Memory", labels: ["mem"], kind: "history", width: 150 },
  disk: { title: "Disk", labels: ["disk", "disk:*"], kind: "meter", width: 120 },
  load: { title: "Load", labels: ["load1"], kind: "meter", width: 120, full: "load-per-core" },
  in: { title: "Net in", labels: ["net-in"], kind: "number", width: 88 },
  out: { title: "Net out", labels: ["net-out"], kind: "number", width: 88 },
  temp: { title: "Temperature", labels: ["temp", "temp:*"], kind: "number", width: 88 },
  uptime: { title: "Uptime", labels: ["uptime"], kind: "number", width: 92 },
};
const COLUMNS_DEFAULT = ["cpu", "mem", "disk", "load", "in", "out"];
/** Pixels that the other columns take, and those between two; columns that a phone shows. */
const ROW_PIXELS = 84 + 150 + 96 + 4 * 16, GAP_PIXELS = 16, PHONE_COLUMNS = 3;

/** The columns that the rows have now. */
let columnsShown = [];

/** The value of a column for what is known of a host's labels: the greatest; null where there is none. */
function columnValue(column, latest) {
  let greatest = null;
  for (const label in latest) {
    const isOne = COLUMNS[column].labels.some(wanted => wanted.endsWith("*") ? label.startsWith(wanted.slice(0, -1)) : label === wanted);
    if (isOne && (greatest === null || latest[label] > greatest)) greatest = latest[label];
  }
  return greatest;
}

/** The columns whose values are needed: those that are chosen, sorted by or filtered by. */
function columnsWanted() {
  return Object.keys(COLUMNS).filter(name => view.columns.includes(name) || view.sort === name || view.filter.includes(name));
}

/** Those chosen that have room; a narrow window leaves the last ones out. */
function columnsFitting() {
  if (matchMedia("(max-width: 680px)").matches) return view.columns.slice(0, PHONE_COLUMNS);
  let room = $("list").clientWidth - ROW_PIXELS;
  return view.columns.filter(name => (room -= COLUMNS[name].width + GAP_PIXELS) >= 0);
}

function makeCell(name) {
  const { title, kind } = COLUMNS[name];
  const node = copyOf("cell");
  node.classList.add(name, kind);
  node.querySelector(".what").textContent = title;
  for (const [selector, of] of [["svg", "history"], ["meter", "meter"]]) if (kind !== of) node.querySelector(selector).remove();
  return { node, value: node.querySelector(".value"), line: node.querySelector(".line"), area: node.querySelector(".area"), meter: node.querySelector("meter"), drawn: [] };
}

/** Gives a slot the cells of the columns that are shown. */
function fitCells(slot) {
  for (const name in slot.cells) slot.cells[name].node.remove();
  slot.cells = {};
  for (const name of columnsShown) {
    slot.cells[name] = makeCell(name);
    slot.age.before(slot.cells[name].node);
  }
}

/** Gives the table the columns that are chosen and have room. */
function fitColumns() {
  const fitting = columnsFitting();
  if (isSame(fitting, columnsShown)) return;
  columnsShown = fitting;
  const heads = document.querySelector("thead .row");
  heads.querySelectorAll(".column").forEach(head => head.remove());
  for (const name of fitting) {
    const head = copyOf("head");
    head.dataset.sort = name;
    const button = head.querySelector("button");
    button.textContent = COLUMNS[name].title;
    button.addEventListener("click", () => sortBy(name));
    if (COLUMNS[name].kind === "number") head.classList.add("number");
    head.querySelector("span").hidden = COLUMNS[name].kind !== "history";
    heads.lastElementChild.before(head);
  }
  const widths = fitting.map(name => COLUMNS[name].kind === "number" ? `${COLUMNS[name].width}px` : `minmax(${COLUMNS[name].width}px, 1fr)`);
  $("table").style.setProperty("--columns", ["84px", "minmax(150px, 1.2fr)", ...widths, "96px"].join(" "));
  for (const slot of slots) fitCells(slot);
  drawSlots();
}

function drawCells({ row, cells, block }) {
  const isDown = row.entry.state === "down";
  for (const name of columnsShown) {
    const cell = cells[name], value = row.values[name], label = COLUMNS[name].labels[0];
    const text = value === null ? "–" : isPercent(label) ? value.toFixed(1) : numberOf(label, value, true);
    setText(cell.value, text);
    const isHigh = value !== null && isPercent(label) && value >= HIGH && !isDown;
    setClass(cell.value, value === null ? "value none" : isHigh ? "value high" : isPercent(label) ? "value percent" : "value");
    if (cell.meter) {
      const { full } = COLUMNS[name], percent = full ? row.latest[full] * 100 : value ?? NaN;
      cell.meter.hidden = isNaN(percent);
      cell.meter.value = percent || 0;
    }
    if (!cell.line || block.isOutOfSight) continue;
    const minutes = row.minutes[label] ?? [];
    if (isSame(cell.drawn, minutes)) continue;
    const { line, area } = sparkPaths(minutes, 100);
    cell.line.setAttribute("d", line);
    cell.area.setAttribute("d", area);
    cell.drawn = minutes;
  }
}

/** The menu of columns, and the ways to sort. */
function makeColumnChoices() {
  for (const name in COLUMNS) {
    const choice = make("input", { type: "checkbox", value: name });
    const label = make("label");
    label.append(choice, ` ${COLUMNS[name].title}`);
    choice.addEventListener("change", () => {
      const columns = Object.keys(COLUMNS).filter(name => $("columns").querySelector(`[value=${name}]`).checked);
      choose({ columns });
      refresh();
    });
    $("columns").append(label);
    $("sort").append(new Option(COLUMNS[name].title, name));
  }
}
