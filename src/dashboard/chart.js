// One chart of a family of labels over a range: lines, lines that stack, or lines that go up and down from a middle.
// All charts of a page share one cursor. What it points at stands above each chart; a keyboard and a screen reader move
// it as a slider.

const SVG = "http://www.w3.org/2000/svg";
/** Room around the drawing in pixels: numbers to the left, times below. */
const LEFT = 66, RIGHT = 10, TOP = 8, BOTTOM = 24;
/** Least gap in pixels between numbers on the left, and between times below: the last may stand to the left of its place. */
const VALUE_GAP = 36, TIME_GAP = 90;
/** Steps of the times below, in seconds of the reader's day; those of weeks begin on Mondays. */
const TIME_STEPS_SEC = [300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, ...[1, 2, 7, 14, 28, 56, 112].map(days => days * 86400)];
/** Seconds of 1970 before its first Monday. */
const MONDAY_SEC = 4 * 86400;
/** Commands that are named as the busiest. */
const BUSIEST_SHOWN = 5;
/** Series that a chart shows before it is asked for more, which is also how many colours there are. */
const SERIES_SHOWN = 8;

const meanOf = average => average.mean ?? average.avg;

/** When the intervals of some lists begin, in order. */
const startsOf = lists => [...new Set(lists.flat().map(average => average["start-sec"]))].sort((a, b) => a - b);

function draw(name, attributes, parent) {
  const node = document.createElementNS(SVG, name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  parent.append(node);
  return node;
}

/** Bottom, top and step of a scale of round numbers that holds what lies between `low` and `high`. */
function scale(low, high, ticksMax) {
  if (low === high) high = low + (Math.abs(low) || 1);
  const rough = (high - low) / ticksMax;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map(n => n * power).find(n => n >= rough * 0.999);
  return { bottom: Math.floor(low / step) * step, top: Math.ceil(high / step) * step, step };
}

/** Runs of intervals that follow each other with at most `gapSec` between two. */
function runs(averages, gapSec) {
  const found = [];
  averages.forEach((average, i) => {
    if (i > 0 && average["start-sec"] - averages[i - 1]["end-sec"] <= gapSec) found.at(-1).push(average);
    else found.push([average]);
  });
  return found;
}

class Chart {
  /** `onPoint` is given the second that is pointed at, or null. */
  constructor(node, family, onPoint) {
    Object.assign(this, { node, family, onPoint });
    this.plot = node.querySelector(".plot");
    this.svg = node.querySelector("svg");
    this.legend = node.querySelector(".legend");
    this.more = node.querySelector(".more");
    this.busiest = node.querySelector(".busiest");
    this.fit = node.querySelector(".fit");
    [this.series, this.alerts, this.top] = [[], [], []];
    [this.isFitted, this.isWhole, this.pointed] = [false, false, null];
    /** Size in pixels. A chart that was never scrolled to has none and is not drawn. */
    [this.width, this.height] = [0, 0];
    const pointAt = event => this.onPoint(this.secondAt(event));
    this.plot.addEventListener("pointermove", pointAt);
    this.plot.addEventListener("pointerdown", pointAt);
    // What a finger has pointed at stays.
    this.plot.addEventListener("pointerleave", event => event.pointerType === "mouse" && this.onPoint(null));
    this.plot.addEventListener("keydown", event => this.step(event));
    this.plot.addEventListener("focus", () => {
      if (this.plot.matches(":focus-visible") && this.pointed === null) this.onPoint(this.starts.at(-1) ?? null);
    });
    this.plot.addEventListener("blur", () => this.onPoint(null));
    this.fit.addEventListener("click", () => {
      this.isFitted = !this.isFitted;
      setAttribute(this.fit, "aria-pressed", this.isFitted);
      this.render();
    });
    this.more.addEventListener("click", () => {
      this.isWhole = !this.isWhole;
      this.take();
    });
    new ResizeObserver(([entry]) => {
      [this.width, this.height] = [entry.contentRect.width, entry.contentRect.height];
      this.render();
    }).observe(this.plot);
  }

  /** Takes series over, each a label and its averages, within `range`; gaps of up to `gapSec` are bridged, and `away` are
      spans without any report. */
  show(series, range, gapSec, away) {
    Object.assign(this, { given: series, range, gapSec, away });
    this.take();
  }

  take() {
    const newest = ({ averages }) => meanOf(averages.at(-1) ?? { avg: -Infinity });
    const isMany = this.given.length > SERIES_SHOWN;
    const sorted = isMany ? this.given.toSorted((a, b) => newest(b) - newest(a)) : this.given;
    this.series = isMany && !this.isWhole ? sorted.slice(0, SERIES_SHOWN) : sorted;
    this.more.hidden = !isMany;
    setText(this.more, this.isWhole ? "Show fewer" : `and ${this.given.length - SERIES_SHOWN} more`);
    this.starts = startsOf(this.series.map(({ averages }) => averages));
    this.byStart = this.series.map(({ averages }) => new Map(averages.map(average => [average["start-sec"], average])));
    if (this.legend.children.length !== this.series.length) {
      this.legend.replaceChildren(...this.series.map(() => copyOf("legend")));
    }
    this.render();
  }

  /** Where a series is drawn: downwards for the second of a pair that is mirrored. */
  sign(place) {
    return this.family.kind === "mirror" && place % 2 === 1 ? -1 : 1;
  }

  /** Lower and upper edge of each average of a series: on those below it where they stack, else its own mean. */
  heights(place, average) {
    const mean = meanOf(average);
    if (this.family.kind !== "stack") return [0, this.sign(place) * mean];
    const below = this.byStart.slice(0, place).map(map => map.get(average["start-sec"]));
    const sum = below.reduce((sum, other) => sum + (other ? meanOf(other) : 0), 0);
    return [sum, sum + mean];
  }

  bounds() {
    let low = Infinity, high = -Infinity;
    const isBanded = this.series.length === 1;
    this.series.forEach(({ averages }, place) => {
      for (const average of averages) {
        const top = this.heights(place, average)[1];
        low = Math.min(low, top, isBanded ? average.min : top);
        high = Math.max(high, top, isBanded ? average.max : top);
      }
    });
    if (low > high) [low, high] = [0, 1];
    if (this.isFitted) return [low, high];
    if (this.family.isPercent) return [Math.min(0, low), Math.max(100, high)];
    return [Math.min(0, low), Math.max(0, high)];
  }

  render() {
    this.tell();
    if (this.width === 0 || !this.range) return;
    const [right, bottom] = [this.width - RIGHT, this.height - BOTTOM];
    const { start, end } = this.range;
    const values = scale(...this.bounds(), Math.max(2, Math.floor((bottom - TOP) / VALUE_GAP)));
    this.x = sec => LEFT + (sec - start) / (end - start) * (right - LEFT);
    this.y = value => bottom - (value - values.bottom) / (values.top - values.bottom) * (bottom - TOP);
    const picture = document.createDocumentFragment();
    for (const [from, to] of this.away) {
      draw("rect", { class: "away", x: this.x(from), width: Math.max(1, this.x(to) - this.x(from)), y: TOP, height: bottom - TOP }, picture);
    }
    for (const { threshold, "fired-at": firedAt, "resolved-at": resolvedAt = this.range.now } of this.alerts) {
      const from = Math.max(start, firedAt ?? end);
      if (from < resolvedAt) draw("rect", { class: "fired", x: this.x(from), width: this.x(resolvedAt) - this.x(from), y: TOP, height: bottom - TOP }, picture);
      const y = this.y(threshold ?? NaN);
      if (y >= TOP && y <= bottom) draw("line", { class: "threshold", x1: LEFT, x2: right, y1: y, y2: y }, picture);
    }
    this.drawValues(picture, values, right);
    this.drawTimes(picture, bottom, right);
    this.series.forEach((_, place) => this.drawSeries(picture, place));
    if (!this.starts.length) draw("text", { class: "nothing", x: (LEFT + right) / 2, y: (TOP + bottom) / 2 + 4 }, picture).textContent = "No samples";
    this.pointer = draw("g", {}, picture);
    this.svg.replaceChildren(picture);
    this.drawPointer();
  }

  drawValues(picture, { bottom, top, step }, right) {
    for (let n = 0; n <= Math.round((top - bottom) / step); n++) {
      const value = Number((bottom + n * step).toPrecision(12));
      const y = Math.round(this.y(value)) + 0.5;
      draw("line", { class: value === 0 ? "grid zero" : "grid", x1: LEFT, x2: right, y1: y, y2: y }, picture);
      const shown = this.family.kind === "mirror" ? Math.abs(value) : value;
      draw("text", { x: LEFT - 8, y: y + 4, "text-anchor": "end" }, picture).textContent = tickOf(this.family.label, shown);
    }
  }

  /** Times at round hours and minutes of the reader's zone; at midnight the day. */
  drawTimes(picture, bottom, right) {
    const { start, end } = this.range;
    const step = TIME_STEPS_SEC.find(step => step * (right - LEFT) >= TIME_GAP * (end - start)) ?? TIME_STEPS_SEC.at(-1);
    // Zones differ from each other by quarters of an hour.
    const stride = Math.min(step, 900);
    for (let sec = Math.ceil(start / stride) * stride; sec <= end; sec += stride) {
      const local = sec - new Date(sec * 1000).getTimezoneOffset() * 60;
      if ((local - MONDAY_SEC) % step !== 0) continue;
      const x = Math.round(this.x(sec)) + 0.5;
      draw("line", { class: "grid", x1: x, x2: x, y1: bottom, y2: bottom + 4 }, picture);
      const anchor = x > right - 20 ? "end" : "middle";
      draw("text", { x: Math.min(x, right), y: bottom + 18, "text-anchor": anchor }, picture).textContent = local % 86400 === 0 ? date(sec) : clock(sec);
      // A summer time that begins or ends moves the next one by an hour.
      sec += Math.max(0, step - 3600 - stride);
    }
  }

  drawSeries(picture, place) {
    const { averages } = this.series[place];
    const isBanded = this.series.length === 1, isFilled = this.family.kind !== "line";
    const x = average => this.x((average["start-sec"] + average["end-sec"]) / 2).toFixed(1);
    const at = (average, value) => `${x(average)} ${this.y(value).toFixed(1)}`;
    let area = "", line = "";
    for (const run of runs(averages, this.gapSec)) {
      const tops = run.map(average => at(average, this.heights(place, average)[1]));
      // An interval on its own has no neighbour to draw a line to.
      line += run.length === 1 ? `M${tops[0]}h0` : `M${tops.join("L")}`;
      if (isBanded && !isFilled) {
        area += `M${run.map(average => at(average, average.max)).join("L")}L${run.toReversed().map(average => at(average, average.min)).join("L")}Z`;
      } else if (isFilled) {
        area += `M${tops.join("L")}L${run.toReversed().map(average => at(average, this.heights(place, average)[0])).join("L")}Z`;
      }
    }
    const group = draw("g", { class: `ink-${place % SERIES_SHOWN}` }, picture);
    if (area) draw("path", { class: this.family.kind === "stack" ? "stack" : "band", d: area }, group);
    draw("path", { class: "line", d: line }, group);
    const last = averages.at(-1);
    // The running interval is hollow: more samples come.
    if (last && last["end-sec"] > this.range.now) draw("circle", { class: "running", cx: x(last), cy: this.y(this.heights(place, last)[1]), r: 3.5 }, group);
  }

  /** The second under a pointer. */
  secondAt(event) {
    if (!this.x || !this.range) return null;
    const share = (event.clientX - this.plot.getBoundingClientRect().left - LEFT) / (this.width - RIGHT - LEFT);
    return this.range.start + share * (this.range.end - this.range.start) - this.range.interval / 2;
  }

  /** Points at the interval that begins nearest to a second; at none where it is null. */
  point(sec) {
    this.pointed = sec;
    this.tell();
    this.drawPointer();
  }

  /** The place among `starts` that is pointed at; the last one where nothing is. */
  place() {
    if (this.pointed === null) return this.starts.length - 1;
    let best = 0;
    this.starts.forEach((start, i) => {
      if (Math.abs(start - this.pointed) <= Math.abs(this.starts[best] - this.pointed)) best = i;
    });
    return best;
  }

  drawPointer() {
    this.pointer?.replaceChildren();
    if (this.pointed === null || !this.x || !this.starts.length) return;
    const start = this.starts[this.place()];
    const x = this.x(start + this.range.interval / 2);
    draw("line", { class: "cursor", x1: x, x2: x, y1: TOP, y2: this.height - BOTTOM }, this.pointer);
    this.byStart.forEach((map, place) => {
      const average = map.get(start);
      if (average) draw("circle", { class: `mark ink-${place % SERIES_SHOWN}`, cx: x, cy: this.y(this.heights(place, average)[1]), r: 4 }, this.pointer);
    });
  }

  step(event) {
    const last = this.starts.length - 1, now = this.place();
    const places = { ArrowLeft: now - 1, ArrowDown: now - 1, ArrowRight: now + 1, ArrowUp: now + 1, PageUp: now + 10, PageDown: now - 10, Home: 0, End: last };
    if (event.key === "Escape") {
      // The first Esc takes the cursor away, and the next leads back to the list.
      if (this.pointed !== null) event.stopPropagation();
      return this.onPoint(null);
    }
    if (last < 0 || !Object.hasOwn(places, event.key) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.onPoint(this.starts[Math.min(last, Math.max(0, places[event.key]))]);
  }

  /** Writes what is pointed at, or the newest interval, above the chart, and tells it to those who do not see it. */
  tell() {
    if (!this.range) return;
    const place = this.place(), start = this.starts[place];
    const said = this.series.map(({ label, name }, i) => {
      const average = this.byStart[i].get(start);
      const item = this.legend.children[i];
      setClass(item.querySelector("i"), `ink-${i % SERIES_SHOWN}`);
      setText(item.querySelector("span"), name);
      setText(item.querySelector("b"), average ? numberOf(label, meanOf(average)) : "–");
      const isRange = average && this.series.length === 1 && average.min !== average.max;
      setText(item.querySelector("small"), isRange ? `${numberOf(label, average.min)} to ${numberOf(label, average.max)}` : "");
      return average && `${name} ${numberOf(label, meanOf(average))}${isRange ? `, ${numberOf(label, average.min)} to ${numberOf(label, average.max)}` : ""}`;
    });
    const busiest = this.top.flatMap(({ label, name, averages }) => {
      const average = averages.find(average => average["start-sec"] === start);
      return average ? [{ mean: meanOf(average), text: `${name.slice(stemOf(label).length + 1)} ${numberOf(label, meanOf(average))}` }] : [];
    }).sort((a, b) => b.mean - a.mean).slice(0, BUSIEST_SHOWN).map(({ text }) => text).join(", ");
    this.busiest.hidden = !this.top.length;
    setText(this.busiest, busiest && `Busiest: ${busiest}`);
    setText(this.node.querySelector("time"), this.pointed === null || start === undefined ? "" : this.when(start));
    const name = `${this.family.title}, ${this.range.title}`;
    setAttribute(this.plot, "aria-label", `${name}: ${count(this.starts.length, "interval", "intervals")}`);
    setAttribute(this.plot, "aria-valuemax", Math.max(0, this.starts.length - 1));
    setAttribute(this.plot, "aria-valuenow", Math.max(0, place));
    setAttribute(this.plot, "aria-valuetext", start === undefined ? "no samples" : [this.when(start), ...said.filter(Boolean), busiest && `busiest ${busiest}`].filter(Boolean).join(", "));
  }

  when(start) {
    if (this.range.interval === 86400) return utcDate(start);
    const from = this.range.title.startsWith("last hour") ? "" : `${date(start)}, `;
    return `${from}${clock(start)} – ${clock(start + this.range.interval)}`;
  }
}
