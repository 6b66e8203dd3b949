// One chart: the average as a line inside the band from the lowest to the highest sample, over a window of intervals.
// A keyboard and a screen reader move along it as along a slider, and are told what a pointer is shown.

const SVG = "http://www.w3.org/2000/svg";
/** Room around the drawing in pixels: numbers to the left, times below. */
const LEFT = 46, RIGHT = 10, TOP = 10, BOTTOM = 24;
/** Gap in pixels between numbers on the left, and between times below. */
const VALUE_GAP = 36, TIME_GAP = 68;
/** How often a time may stand below, in seconds of the reader's day. */
const TIME_STEPS_SEC = [300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200];
/** Numbers that differ by less than this part of them are looked at without the way down to zero, but for percentages. */
const FLAT = 0.1;

function draw(name, attributes, parent) {
  const node = document.createElementNS(SVG, name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  parent.append(node);
  return node;
}

/** Bottom, top and step of a scale of round numbers that holds what lies between `low` and `high`. */
function scale(low, high, ticksMax, hasZero) {
  const isFlat = !hasZero && low !== high && high - low < FLAT * Math.max(Math.abs(low), Math.abs(high));
  if (!isFlat) [low, high] = [Math.min(low, 0), Math.max(high, 0)];
  if (low === high) high = 1;
  const rough = (high - low) / ticksMax;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map(n => n * power).find(n => n >= rough * 0.999);
  return { bottom: Math.floor(low / step) * step, top: Math.ceil(high / step) * step, step };
}

/** Runs of intervals that follow each other without a gap. */
function runs(averages) {
  const found = [];
  averages.forEach((average, i) => {
    if (i > 0 && averages[i - 1]["end-sec"] === average["start-sec"]) found.at(-1).push(average);
    else found.push([average]);
  });
  return found;
}

class Chart {
  constructor(figure, label, title) {
    [this.label, this.title] = [label, title];
    this.caption = figure.querySelector("span");
    this.plot = figure.querySelector(".plot");
    this.svg = figure.querySelector("svg");
    this.tip = figure.querySelector(".tip");
    this.averages = [];
    /** Size in pixels, of which a card that was never scrolled to has none: it is not drawn either. */
    [this.width, this.height] = [0, 0];
    /** Start of the interval that is pointed at, in seconds: it stays the same one when others come. */
    this.pointed = null;
    this.plot.addEventListener("pointermove", event => this.pointAt(event));
    this.plot.addEventListener("pointerdown", event => this.pointAt(event));
    this.plot.addEventListener("pointerleave", () => this.point(null));
    this.plot.addEventListener("keydown", event => this.step(event));
    this.plot.addEventListener("focus", () => {
      if (this.plot.matches(":focus-visible") && this.averages.length) this.point(this.averages.at(-1)["start-sec"]);
    });
    this.plot.addEventListener("blur", () => this.point(null));
    new ResizeObserver(([entry]) => this.resize(entry.contentRect)).observe(this.plot);
  }

  resize({ width, height }) {
    [this.width, this.height] = [width, height];
    this.render();
  }

  /** Takes averages over, within the window from `start` to `end` in intervals of `interval` seconds. */
  show(averages, start, end, interval) {
    [this.averages, this.start, this.interval] = [averages, start, interval];
    this.end = Math.ceil(end / interval) * interval;
    const low = Math.min(...averages.map(average => average.min));
    const high = Math.max(...averages.map(average => average.max));
    [this.low, this.high] = averages.length ? [low, high] : [0, 1];
    setText(this.caption, averages.length ? `${number(low)} to ${numberOf(this.label, high)}` : "");
    this.render();
  }

  render() {
    if (this.width === 0) return;
    const [right, bottom] = [this.width - RIGHT, this.height - BOTTOM];
    const values = scale(this.low, this.high, Math.max(2, Math.floor((bottom - TOP) / VALUE_GAP)), isPercent(this.label));
    this.x = sec => LEFT + (sec - this.start) / (this.end - this.start) * (right - LEFT);
    this.y = value => bottom - (value - values.bottom) / (values.top - values.bottom) * (bottom - TOP);
    const picture = document.createDocumentFragment();
    this.drawValues(picture, values, right);
    this.drawTimes(picture, bottom, right);
    if (this.averages.length) this.drawAverages(picture);
    else draw("text", { class: "nothing", x: (LEFT + right) / 2, y: (TOP + bottom) / 2 + 4 }, picture).textContent = "No samples";
    this.pointer = draw("g", {}, picture);
    this.svg.replaceChildren(picture);
    this.point(this.pointed);
  }

  drawValues(picture, { bottom, top, step }, right) {
    for (let n = 0; n <= Math.round((top - bottom) / step); n++) {
      const value = bottom + n * step;
      const y = Math.round(this.y(value)) + 0.5;
      draw("line", { class: "grid", x1: LEFT, x2: right, y1: y, y2: y }, picture);
      const text = draw("text", { x: LEFT - 8, y: y + 4, "text-anchor": "end" }, picture);
      text.textContent = number(Number(value.toPrecision(12)));
    }
  }

  /** Times at round hours and minutes of the reader's zone; at midnight the day. */
  drawTimes(picture, bottom, right) {
    const fitting = Math.max(2, Math.floor((right - LEFT) / TIME_GAP));
    const step = TIME_STEPS_SEC.find(step => (this.end - this.start) / step <= fitting) ?? 86400;
    // Zones differ from each other by quarters of an hour.
    const stride = Math.min(step, 900);
    for (let sec = Math.ceil(this.start / stride) * stride; sec <= this.end; sec += stride) {
      const time = new Date(sec * 1000);
      const ofDay = time.getHours() * 3600 + time.getMinutes() * 60;
      if (ofDay % step !== 0) continue;
      const x = Math.round(this.x(sec)) + 0.5;
      draw("line", { class: "grid", x1: x, x2: x, y1: bottom, y2: bottom + 4 }, picture);
      const anchor = x > right - 16 ? "end" : "middle";
      draw("text", { x: Math.min(x, right), y: bottom + 18, "text-anchor": anchor }, picture).textContent = ofDay === 0 ? day(sec) : clock(sec);
    }
  }

  drawAverages(picture) {
    const middle = average => this.x((average["start-sec"] + average["end-sec"]) / 2).toFixed(1);
    const at = (average, what) => `${middle(average)} ${this.y(average[what]).toFixed(1)}`;
    let band = "", line = "";
    for (const run of runs(this.averages)) {
      if (run.length === 1) {
        // An interval on its own has no neighbour to draw a line to: a dot, and a bar as its band.
        const [x, top, bottom] = [Number(middle(run[0])), this.y(run[0].max).toFixed(1), this.y(run[0].min).toFixed(1)];
        band += `M${x - 2} ${top}H${x + 2}V${bottom}H${x - 2}Z`;
        line += `M${at(run[0], "avg")}h0`;
        continue;
      }
      band += `M${run.map(average => at(average, "max")).join("L")}L${run.toReversed().map(average => at(average, "min")).join("L")}Z`;
      line += `M${run.map(average => at(average, "avg")).join("L")}`;
    }
    draw("path", { class: "band", d: band }, picture);
    draw("path", { class: "line", d: line }, picture);
    const [last] = this.averages.slice(-1);
    draw("circle", { class: "mark", cx: middle(last), cy: this.y(last.avg), r: 4 }, picture);
  }

  /** Shows the interval that begins at `start`, or else the nearest one; nothing where `start` is `null`. */
  point(start) {
    const index = start === null ? -1 : this.nearest(start);
    this.pointed = index < 0 ? null : this.averages[index]["start-sec"];
    const average = this.averages[index] ?? this.averages.at(-1);
    this.tell(average, index < 0 ? this.averages.length - 1 : index);
    this.tip.hidden = index < 0;
    this.pointer?.replaceChildren();
    if (index < 0 || !this.x) return;
    const x = this.x((average["start-sec"] + average["end-sec"]) / 2);
    draw("line", { class: "cursor", x1: x, x2: x, y1: TOP, y2: this.height - BOTTOM }, this.pointer);
    draw("circle", { class: "mark", cx: x, cy: this.y(average.avg), r: 4.5 }, this.pointer);
    setText(this.tip, this.words(average).join("\n"));
    const place = x + 14 + this.tip.offsetWidth > this.width ? x - 14 - this.tip.offsetWidth : x + 14;
    this.tip.style.transform = `translate(${Math.max(0, Math.round(place))}px, ${TOP}px)`;
  }

  nearest(start) {
    let best = -1;
    this.averages.forEach((average, i) => {
      if (best < 0 || Math.abs(average["start-sec"] - start) <= Math.abs(this.averages[best]["start-sec"] - start)) best = i;
    });
    return best;
  }

  pointAt(event) {
    if (!this.averages.length || !this.x) return;
    const x = event.clientX - this.plot.getBoundingClientRect().left;
    const share = (x - LEFT) / (this.width - RIGHT - LEFT);
    this.point(this.start + share * (this.end - this.start) - this.interval / 2);
  }

  step(event) {
    const last = this.averages.length - 1;
    const now = this.pointed === null ? last : this.nearest(this.pointed);
    const places = { ArrowLeft: now - 1, ArrowDown: now - 1, ArrowRight: now + 1, ArrowUp: now + 1, PageUp: now + 10, PageDown: now - 10, Home: 0, End: last };
    if (event.key === "Escape") return this.point(null);
    if (last < 0 || !Object.hasOwn(places, event.key) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.point(this.averages[Math.min(last, Math.max(0, places[event.key]))]["start-sec"]);
  }

  /** What is known of an interval: when, and then how much. */
  words(average) {
    const of = what => numberOf(this.label, average[what]);
    const from = this.interval < 3600 ? "" : `${day(average["start-sec"])}, `;
    return [
      `${from}${clock(average["start-sec"])} – ${clock(average["end-sec"])}`,
      `average ${of("avg")}`,
      `${number(average.min)} to ${of("max")}`,
      count(average["num-samples"], "sample", "samples"),
    ];
  }

  /** Says the same to those who do not see it. */
  tell(average, index) {
    const name = `${this.label}, ${this.title}`;
    if (!average) {
      setAttribute(this.plot, "role", "img");
      setAttribute(this.plot, "aria-label", `${name}: no samples`);
      ["aria-valuemin", "aria-valuemax", "aria-valuenow", "aria-valuetext"].forEach(key => this.plot.removeAttribute(key));
      return;
    }
    setAttribute(this.plot, "role", "slider");
    setAttribute(this.plot, "aria-label", `${name}: ${this.averages.length} averages, ${number(this.low)} to ${numberOf(this.label, this.high)}`);
    setAttribute(this.plot, "aria-valuemin", 0);
    setAttribute(this.plot, "aria-valuemax", this.averages.length - 1);
    setAttribute(this.plot, "aria-valuenow", index);
    setAttribute(this.plot, "aria-valuetext", this.words(average).join(", "));
  }
}
