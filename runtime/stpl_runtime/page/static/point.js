// The values of one pixel: under the pointer, and through the next hour where somebody clicked.

import { $, degrees, make, number } from "./tools.js";

const HOUR = 3600e3;

// One question at a time; of those asked meanwhile the newest is next.
class Asker {
  constructor() {
    this.busy = false;
    this.next = null;
  }

  async ask(address, then) {
    this.next = [address, then];
    if (this.busy) return;
    this.busy = true;
    while (this.next) {
      const [from, take] = this.next;
      this.next = null;
      try {
        const answer = await fetch(from);
        const found = answer.ok ? await answer.json() : null;
        if (!this.next || found) take(found);
      } catch {
        // No contact: the header says so.
      }
    }
    this.busy = false;
  }
}

export class Point {
  // page: {root(): start of the addresses or null, frame(): what is shown, shown(): {threshold, place} of the chances that are shown or undefined, unit(): text, chanceText(threshold): text,
  //        clock(time): text with the day, hours(time): without it, least(): value from where it rains or null, moved(): it was (un)pinned}
  constructor(page, map) {
    this.page = page;
    this.map = map;
    this.read = null; // what the pixel under the pointer has, and the address that it came from
    this.hovering = new Asker();
    this.asking = new Asker();
    this.at = null; // [x, y] of the pinned pixel
    this.under = null; // of the pointer
    $("unpin").addEventListener("click", () => this.unpin());
  }

  // To the last digit, or to fewer.
  value(values, text = String) {
    if (!values) return "no data";
    return `${values.map((one) => text(one)).join(", ")} ${this.page.unit()}`.trim();
  }

  // The chance of what is shown, or null where a frame has none.
  chance({ chances }, { threshold, place } = {}) {
    if (threshold === undefined || chances === undefined) return null;
    return chances === null ? "no data" : `${number(100 * chances[place])}%`;
  }

  // What a frame of the answer has there.
  words(one) {
    const frame = this.page.frame();
    const chance = this.chance(one, frame);
    return chance === null ? this.value(one.values) : `${chance} ${this.page.chanceText(frame.threshold)}`;
  }

  where({ x, y, lat, lon }) {
    const pixel = `column ${x}, row ${y}`;
    return lat === null ? pixel : `${degrees(lat, lon)} · ${pixel}`;
  }

  hover(x, y) {
    const root = this.page.root();
    this.under = x === null || !root ? null : [x, y];
    if (!this.under) {
      $("readout").textContent = "";
      return;
    }
    const address = `${root}${x}/${y}`;
    if (this.read?.address === address) this.tell();
    else this.hovering.ask(address, (found) => {
      this.read = { address, found };
      this.tell();
    });
  }

  // What is under the pointer in the frame that is shown.
  tell() {
    const { found } = this.read;
    const one = this.under && found?.frames.find(({ step }) => step === this.page.frame()?.step);
    $("readout").textContent = one ? `${this.words(one)} · ${this.where(found)}` : "";
  }

  // Another frame, or another nowcast, under a pointer that rests; and at the pinned pixel.
  refresh(isNew) {
    if (this.under) this.hover(...this.under);
    if (this.at && isNew) this.pin(...this.at);
    if (this.at && !isNew) this.mark();
  }

  pin(x, y) {
    const root = this.page.root();
    const isOther = this.at?.[0] !== x || this.at[1] !== y;
    this.at = [x, y];
    this.map.pin(x, y);
    if (isOther) this.page.moved();
    if (root) this.asking.ask(`${root}${x}/${y}`, (found) => found && this.draw(found));
  }

  unpin() {
    this.at = null;
    this.map.unpin();
    $("point").hidden = true;
    this.page.moved();
    $("map").focus({ preventScroll: true });
  }

  draw(found) {
    if (!this.at || found.x !== this.at[0] || found.y !== this.at[1]) return;
    this.found = found;
    $("point").hidden = false;
    $("point-head").textContent = found.lat === null ? `Column ${found.x}, row ${found.y}` : degrees(found.lat, found.lon);
    const ahead = found.frames.filter(({ step }) => step > 0);
    const says = ahead.length ? this.sentence(found.frames.find(({ step }) => step === 0), ahead) : "No forecast yet.";
    if ($("point-says").textContent !== says) $("point-says").textContent = says; // it is read out
    const start = Date.parse(found.frames.find(({ step }) => step === 0)?.time ?? 0);
    const hour = ahead.filter(({ time }, n) => Date.parse(time) - start <= HOUR || n === 0);
    const shown = this.page.shown();
    const extra = (one) => (shown ? [make("td", {}, this.chance(one, shown) ?? "–")] : []);
    const row = (one) => make("tr", { "data-step": one.step }, make("th", { scope: "row" }, this.page.hours(one.time)), make("td", {}, this.page.lead(one.step)), make("td", { title: this.value(one.values) }, this.value(one.values, (value) => number(value, 4))), ...extra(one));
    const head = ["time", "lead", "value", ...(shown ? [this.page.chanceText(shown.threshold)] : [])].map((text) => make("th", { scope: "col" }, text));
    $("point-table").replaceChildren(make("table", {}, make("caption", { class: "hidden" }, "The next hour here"), make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...hour.map(row))));
    $("point-table").hidden = !hour.length;
    this.bars(found.frames);
  }

  // When does it rain here?
  sentence(now, ahead) {
    const least = this.page.least();
    const first = (one) => one.values?.[0] ?? null;
    const known = ahead.filter((one) => first(one) !== null);
    if (!known.length) return "No data here.";
    const most = known.reduce((best, one) => (first(one) > first(best) ? one : best));
    const peak = `most at ${this.page.hours(most.time)}: ${number(first(most))} ${this.page.unit()}`;
    if (least === null) return `${peak[0].toUpperCase()}${peak.slice(1)}.`;
    const wet = (one) => first(one) !== null && first(one) >= least;
    const last = this.page.hours(known.at(-1).time);
    if (!known.some(wet)) return `${now && wet(now) ? "Rain now; dry" : "Dry"} until ${last}.`;
    if (now && wet(now)) {
      const dry = known.find((one) => !wet(one));
      return `Rain now${dry ? `, dry from ${this.page.hours(dry.time)}` : `, until after ${last}`}; ${peak}.`;
    }
    const begins = known.find(wet);
    const ends = known.slice(known.indexOf(begins)).find((one) => !wet(one));
    return `Rain from ${this.page.hours(begins.time)}${ends ? ` to ${this.page.hours(ends.time)}` : ""}; ${peak}.`;
  }

  bars(frames) {
    const [width, height, foot] = [320, 90, 16];
    const values = frames.map(({ values }) => values?.[0] ?? null);
    const known = values.filter((value) => value !== null);
    const high = Math.max(...known, this.page.least() ?? 0) || 1;
    const low = Math.min(0, ...known);
    const step = width / frames.length;
    const y = (value) => (height - foot) * (1 - (value - low) / (high - low || 1));
    const svg = make("svg:svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Values here through the frames; the table has the numbers of the next hour" });
    frames.forEach((frame, n) => {
      const value = values[n];
      const kind = frame.step > 0 ? "ahead" : "past";
      const top = value === null ? 0 : Math.min(y(value), height - foot - 1);
      const bar = make("svg:rect", { class: value === null ? "none" : kind, "data-step": frame.step, x: n * step + 1, width: Math.max(1, step - 2), y: top, height: height - foot - top });
      bar.append(make("svg:title", {}, `${this.page.clock(frame.time)}: ${this.value(frame.values)}`));
      svg.append(bar);
    });
    const zero = frames.findIndex(({ step: at }) => at === 0);
    const text = (x, anchor, words) => svg.append(make("svg:text", { x, y: height - 3, "text-anchor": anchor }, words));
    if (zero >= 0) text((zero + 0.5) * step, "middle", "now");
    if (frames.at(-1).step > 0) text(width, "end", this.page.lead(frames.at(-1).step));
    $("point-chart").replaceChildren(svg);
    this.mark();
  }

  // Which of them is shown.
  mark() {
    const shown = String(this.page.frame()?.step);
    for (const one of $("point").querySelectorAll("[data-step]")) one.classList.toggle("here", one.dataset.step === shown);
  }
}
