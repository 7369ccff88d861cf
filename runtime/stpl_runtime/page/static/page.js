// The page: listens to /events, draws frames on a canvas, and says when what it shows is old.
// Plain JavaScript and Leaflet, no build step; everything comes from the server that it came from.

import { FrameMap } from "./map.js";
import { Point } from "./point.js";
import { hiddenLayers, readAddress, writeAddress } from "./settings.js";
import { $, make, number } from "./tools.js";

const LOST_MS = 4000; // the server tells something each second
const KEPT = 400; // pictures
const UNITS = { 1: "of full scale", "mm h-1": "mm/h", "m s-1": "m/s", Celsius: "°C", degC: "°C" };
const FATES = ["used", "late", "duplicate", "dropped", "bad", "pending"];

const state = {
  hello: null, // what does not change
  stream: "", // which one is watched
  facts: null, // what is shown of it
  pulse: null, // states, ages, counts
  frames: [], // the time line: {step, kind, text, time, url, image}
  at: null, // step of the frame that is shown: 0 is the newest observation
  lead: null, // lead time of the check
  playing: null, // timer
  heard: performance.now(),
  source: null, // EventSource
  local: false, // times as on this machine, not UTC
  colours: null, // word of a palette; null: the server's own
  chance: null, // threshold whose chances are shown; null: the forecast itself
};

// ---- small helpers

function unit() {
  const word = state.hello?.look.units ?? "";
  return UNITS[word] ?? word;
}

// What a chance is of, in words.
function chanceText(threshold) {
  return `chance of ${number(threshold, 4)} ${unit()} or more`;
}

function percent(part) {
  return `${Math.abs(Math.round(100 * part))}%`;
}

function span(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

function hours(iso) {
  const time = new Date(iso);
  const cadence = state.facts?.nowcast?.cadence_s ?? 60;
  const ahead = state.local ? -time.getTimezoneOffset() * 60e3 : 0;
  const text = new Date(time.getTime() + ahead).toISOString().slice(11, cadence < 1 ? 23 : cadence < 60 ? 19 : 16);
  return `${text} ${state.local ? zoneName(time) : "UTC"}`;
}

function clock(iso) {
  const time = new Date(iso);
  if (Math.abs(Date.now() - time) <= 18 * 3600e3) return hours(iso);
  const zone = state.local ? {} : { timeZone: "UTC" };
  return `${time.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric", ...zone })}, ${hours(iso)}`;
}

function zoneName(time) {
  const parts = new Intl.DateTimeFormat("en-GB", { timeZoneName: "short" }).formatToParts(time);
  return parts.find(({ type }) => type === "timeZoneName").value;
}

// ---- pictures

const pictures = new Map(); // address -> promise of an image, the oldest first

// The address of a frame in the chosen colours.
function coloured(url) {
  return state.colours ? `${url}?colours=${encodeURIComponent(state.colours)}` : url;
}

function picture(url) {
  let found = pictures.get(url);
  if (!found) {
    found = new Promise((resolve) => {
      const image = new Image();
      image.onload = () => resolve(image);
      image.onerror = () => {
        pictures.delete(url);
        resolve(null); // it is not kept any more: a newer one is on its way
      };
      image.src = url;
    });
  }
  pictures.delete(url);
  pictures.set(url, found);
  for (const old of pictures.keys()) {
    if (pictures.size <= KEPT) break;
    pictures.delete(old);
  }
  return found;
}

function paint(canvas, image) {
  if (!image) return;
  if (canvas.width !== image.naturalWidth) canvas.width = image.naturalWidth;
  if (canvas.height !== image.naturalHeight) canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0);
}

// ---- the time line

let loading = false;
let next = null;

async function show(facts) {
  next = facts;
  if (loading) return; // pictures of the one before are on their way; then the newest one's turn
  loading = true;
  try {
    while (next) {
      const now = next;
      next = null;
      await prepare(now);
    }
  } finally {
    loading = false;
  }
}

async function prepare(facts) {
  const frames = timeline(facts);
  const urls = frames.map(({ url, threshold }) => (threshold === undefined ? coloured(url) : url));
  if (facts.check) {
    urls.push(coloured(facts.check.truth));
    for (const lead of Object.values(facts.check.leads)) urls.push(coloured(lead.forecast), lead.difference);
  }
  const images = await Promise.all(urls.map(picture));
  frames.forEach((frame, n) => (frame.image = images[n]));
  if (facts.stream !== state.stream) return;
  const before = state.frames;
  state.facts = facts;
  state.frames = frames.filter((frame) => frame.image);
  drawShown();
  if (facts.nowcast && !before.some((frame) => frame.kind === "ahead") && state.at === 0) state.at = null;
  drawStrip();
  draw(true);
  map.setMap(facts.map);
  drawSkill();
  drawSlots();
  drawProblems();
  drawMade();
  drawPulse();
}

function timeline(facts) {
  const { nowcast, observed } = facts;
  if (!nowcast) {
    return observed.map((frame, n) => ({ ...frame, kind: "past", step: n + 1 - observed.length, text: n + 1 === observed.length ? "now" : "" }));
  }
  const past = nowcast.past.map((frame, n) => ({ ...frame, kind: "past", step: n + 1 - nowcast.past.length }));
  const place = nowcast.thresholds.indexOf(state.chance);
  const chance = place < 0 ? {} : { threshold: state.chance, place };
  const ahead = nowcast.ahead.map((frame, n) => ({ ...frame, ...chance, url: frame.chances[place] ?? frame.url, kind: "ahead", step: n + 1 }));
  return [...past, ...ahead];
}

function drawStrip() {
  const strip = $("strip");
  const { frames } = state;
  for (const kind of ["past", "ahead"]) fillStrip($(`strip-${kind}`), frames.filter((frame) => frame.kind === kind));
  const range = $("time");
  range.disabled = $("play").disabled = frames.length < 2;
  if (frames.length < 2) play(false);
  if (!frames.length) return;
  const [first, last] = [frames[0], frames[frames.length - 1]];
  range.min = first.step;
  range.max = last.step;
  const track = strip.parentElement;
  track.style.setProperty("--n", frames.length);
  const ahead = frames.filter((frame) => frame.kind === "ahead").length;
  track.style.setProperty("--most", Math.max(ahead, frames.length - ahead));
  const now = frames.findIndex((frame) => frame.step === 0);
  track.style.setProperty("--now", `${(100 * (now + 0.5)) / frames.length}%`);
  $("first").textContent = first.step < 0 ? first.text : "";
  $("middle").hidden = now < 0;
  $("last").textContent = last.step > 0 ? last.text : "";
  if (state.at === null) state.at = 0;
  state.at = Math.max(first.step, Math.min(last.step, state.at));
  const { naturalWidth: width, naturalHeight: height } = first.image;
  map.resize(width, height);
  for (const part of [$("stage"), strip, $("trio")]) {
    part.style.setProperty("--shape", `${width} / ${height}`);
    part.style.setProperty("--ratio", width / height);
  }
}

function fillStrip(row, frames) {
  while (row.children.length > frames.length) row.lastChild.remove();
  while (row.children.length < frames.length) row.append(make("li", {}, make("canvas")));
  row.style.setProperty("--n", Math.max(1, frames.length));
  frames.forEach((frame, n) => {
    const item = row.children[n];
    item.className = frame.stand_in ? "stand-in" : "";
    item.title = `${label(frame)}, ${clock(frame.time)}`;
    item.dataset.step = frame.step;
    paint(item.firstChild, frame.image);
  });
}

function label(frame) {
  const stand = { held: ", held in place of a missing frame", bridged: ", the model's own forecast for a missing frame" };
  if (frame.threshold !== undefined) return `${chanceText(frame.threshold)}, ${frame.text}`;
  if (frame.kind === "ahead") return `forecast ${frame.text}`;
  if (frame.stand_in) return `${frame.text}${stand[frame.stand_in] ?? ""}`;
  return frame.step === 0 ? "observed now" : `observed ${frame.text}`.trim();
}

function draw(isNew = false) {
  const frame = state.frames.find((one) => one.step === state.at);
  if (!frame) return;
  const stage = $("stage");
  stage.dataset.kind = frame.kind;
  paint($("picture"), frame.image);
  $("tag").textContent = label(frame);
  $("clock").textContent = clock(frame.time);
  $("picture").setAttribute("aria-label", `${label(frame)}, ${clock(frame.time)}`);
  const range = $("time");
  range.value = state.at;
  range.setAttribute("aria-valuetext", `${label(frame)}, ${clock(frame.time)}`);
  for (const item of $("strip").querySelectorAll("li")) item.setAttribute("aria-current", String(Number(item.dataset.step) === state.at));
  if (frame.kind === "ahead") state.lead = frame.step;
  drawLook(frame);
  drawCheck();
  moveMark();
  point.refresh(isNew);
  if (!state.playing) keepAddress();
}

function go(step) {
  if (!state.frames.length) return;
  const steps = state.frames.map((frame) => frame.step);
  state.at = Math.max(steps[0], Math.min(steps[steps.length - 1], step));
  draw();
}

function play(on) {
  clearTimeout(state.playing);
  state.playing = null;
  on &&= state.frames.length > 1;
  const button = $("play");
  button.setAttribute("aria-pressed", String(on));
  button.querySelector("span").textContent = on ? "Pause" : "Play";
  button.title = on ? "Pause (space)" : "Play (space)";
  if (!on) return;
  const step = () => {
    const steps = state.frames.map((frame) => frame.step);
    const last = steps[steps.length - 1];
    go(state.at >= last ? (steps[0] ?? 0) : state.at + 1);
    const rest = state.at === last ? 1200 : state.at === 0 ? 700 : 220;
    state.playing = setTimeout(step, rest);
  };
  state.playing = setTimeout(step, 60);
}

// ---- how it turned out

async function drawCheck() {
  const check = state.facts?.check;
  const known = Object.keys(check?.leads ?? {}).map(Number);
  $("trio").hidden = !known.length;
  $("difference-legend").hidden = !known.length;
  if (!known.length) return;
  const wanted = state.lead ?? Math.ceil((state.facts.nowcast?.ahead.length ?? 2) / 2);
  const lead = known.reduce((best, one) => (Math.abs(one - wanted) < Math.abs(best - wanted) ? one : best));
  const found = check.leads[lead];
  const [forecast, truth, difference] = await Promise.all([coloured(found.forecast), coloured(check.truth), found.difference].map(picture));
  if (state.facts?.check !== check) return;
  paint($("forecast"), forecast);
  paint($("truth"), truth);
  paint($("difference"), difference);
  const made = `${found.text} forecast of ${clock(found.issue_time)}`;
  $("forecast").setAttribute("aria-label", made);
  $("truth").setAttribute("aria-label", `observed ${clock(check.time)}`);
  $("difference").setAttribute("aria-label", "forecast minus observed: red too much, blue too little");
  const verdict = against(found.mse, { persistence: found.mse_persistence, flow: found.mse_flow }, "error").map((text) => `, ${text}`).join("");
  const stand = found.stand_ins ? "; it stood on frames that were not observed" : "";
  $("check-says").textContent = `${found.text}, for ${clock(check.time)}${verdict}${stand}.`;
}

// ---- skill

const SCORES = { mse: "Squared error", mae: "Absolute error", psnr: "PSNR, dB" };

function drawScores() {
  const select = $("score");
  const names = Object.keys(SCORES).map((name) => [name, SCORES[name]]);
  for (const threshold of state.hello.thresholds) names.push([`csi_${threshold}`, `CSI at ${threshold} ${unit()}`]);
  select.replaceChildren(...names.map(([name, text]) => make("option", { value: name }, text)));
}

function leadText(lead) {
  return state.facts?.nowcast?.ahead[lead - 1]?.text ?? `+${lead}`;
}

// How the nowcast's error compares with that of each baseline, in words.
function against(ours, baselines, error) {
  const known = Object.entries(baselines).filter(([, theirs]) => theirs && ours !== null);
  return known.map(([way, theirs]) => (ours <= theirs ? `${percent(1 - ours / theirs)} less ${error} than ${way}` : `${percent(ours / theirs - 1)} more ${error} than ${way}`));
}

function drawSkill() {
  const skill = state.facts?.skill;
  const part = skill?.[$("span").value];
  $("span").options[0].textContent = skill ? `newest ${skill.window} of each` : "newest";
  const name = $("score").value;
  const chart = $("chart");
  $("score").disabled = $("span").disabled = !skill?.total.frames.some(Boolean);
  if (!part || !part.frames.some(Boolean) || !part.per_lead.nowcast[name]) {
    chart.replaceChildren();
    $("table-of-skill").hidden = true;
    return;
  }
  const ways = Object.keys(part.per_lead); // nowcast, persistence, and flow where it is asked for
  const lines = Object.fromEntries(ways.map((way) => [way, part.per_lead[way][name]]));
  chart.replaceChildren(curve(lines, name));
  moveMark();
  const { nowcast, ...others } = part.overall;
  const theirs = Object.fromEntries(Object.entries(others).map(([way, scores]) => [way, scores.mse]));
  const says = against(nowcast.mse, theirs, "squared error");
  if (says.length) says[says.length - 1] += " over all lead times";
  const compared = part.frames[0] === 1 ? "1 forecast" : `${part.frames[0].toLocaleString("en-GB")} forecasts`;
  says.push(`${compared} compared at ${leadText(1)}`);
  const apart = skill.stand_ins.frames.reduce((sum, count) => sum + count, 0);
  if (apart) says.push(`${apart} comparisons that stood on stand-ins are left out`);
  if (skill.alarm?.standing) says.push(`alarm: worse than persistence for ${skill.alarm.after} frames in a row`);
  $("skill-says").textContent = `${says.join("; ")}.`;
  const row = (lead) => make("tr", {}, make("th", { scope: "row" }, leadText(lead)), ...Object.values(lines).map((values) => make("td", {}, number(values[lead - 1]))), make("td", {}, String(part.frames[lead - 1])));
  const head = ["lead", ...ways, "compared"].map((text) => make("th", { scope: "col" }, text));
  $("numbers").replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...part.frames.map((_, k) => row(k + 1)))));
  $("table-of-skill").hidden = false;
}

const PLOT = { height: 190, left: 44, right: 86, top: 10, bottom: 24 };

function ticks(low, high) {
  const rough = (high - low || 1) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((times) => times * power >= rough);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-6; value += step) found.push(value);
  return found;
}

function curve(lines, name) {
  const { height, left, right, top, bottom } = PLOT;
  const width = Math.max(260, Math.min(640, $("chart").clientWidth));
  const known = Object.values(lines).flat().filter((value) => value !== null);
  const high = name.startsWith("csi") ? 1 : Math.max(...known) * 1.06 || 1;
  const low = name === "psnr" ? Math.min(...known) - 1 : 0;
  const count = lines.nowcast.length;
  const x = (k) => left + (count > 1 ? (k / (count - 1)) * (width - left - right) : 0);
  const y = (value) => height - bottom - ((value - low) / (high - low || 1)) * (height - top - bottom);
  const svg = make("svg:svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${$("score").selectedOptions[0].textContent} by lead time: ${Object.keys(lines).join(", ")}; the numbers are below` });
  for (const value of ticks(low, high)) {
    svg.append(make("svg:line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }), make("svg:text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, number(value)));
  }
  const every = Math.max(1, Math.ceil((count * 56) / (width - left - right)));
  for (let k = 0; k < count; k += every) svg.append(make("svg:text", { x: x(k), y: height - 6, "text-anchor": "middle" }, leadText(k + 1)));
  svg.append(make("svg:line", { class: "here", id: "mark", visibility: "hidden", y1: top, y2: height - bottom }));
  const ends = [];
  for (const [way, values] of Object.entries(lines).reverse()) {
    const points = values.map((value, k) => (value === null ? null : [x(k), y(value)])).filter(Boolean);
    if (!points.length) continue;
    const path = points.map(([px, py], n) => `${n ? "L" : "M"}${px.toFixed(1)} ${py.toFixed(1)}`).join("");
    if (way === "nowcast" && points.length > 1) svg.append(make("svg:path", { class: "area", d: `${path}L${points.at(-1)[0]} ${height - bottom}L${points[0][0]} ${height - bottom}Z` }));
    svg.append(make("svg:path", { class: way, d: path }));
    for (const [px, py] of points) svg.append(make("svg:circle", { class: way, cx: px, cy: py, r: way === "nowcast" ? 3 : 2.2 }));
    ends.push([way, points.at(-1)]);
  }
  ends.sort((one, other) => one[1][1] - other[1][1]);
  ends.forEach(([way, [px, py]], n) => {
    const above = n ? Math.max(py, ends[n - 1][1][1] + 14) : py;
    ends[n][1][1] = above;
    svg.append(make("svg:text", { class: way, x: px + 8, y: above + 4 }, way));
  });
  svg.dataset.left = left;
  svg.dataset.step = count > 1 ? (width - left - right) / (count - 1) : 0;
  return svg;
}

function moveMark() {
  const mark = $("mark");
  if (!mark) return;
  const { left, step } = mark.parentElement.dataset;
  const at = Number(left) + (state.at - 1) * Number(step);
  mark.setAttribute("visibility", state.at > 0 ? "visible" : "hidden");
  mark.setAttribute("x1", at);
  mark.setAttribute("x2", at);
}

// ---- legends

function drawLegend(into, { classes, colours, ticks: texts, no_echo, no_data }, text) {
  const boxes = make("div", { class: "boxes" });
  if (classes) {
    for (const colour of colours) {
      const box = make("i");
      box.style.background = colour;
      boxes.append(box);
    }
  } else {
    boxes.style.background = `linear-gradient(to right, ${colours.join(", ")})`;
  }
  const count = colours.length;
  const places = texts.map((_, n) => (classes ? (n + count - texts.length) / count : n / (texts.length - 1)));
  const row = make("div", { class: "ticks" });
  texts.forEach((tick, n) => {
    const end = places[n] < 0.02 ? "start" : places[n] > 0.98 ? "end" : "";
    const mark = make("span", { class: end }, tick.replace("-", "−"));
    mark.style.left = `${100 * places[n]}%`;
    row.append(mark);
  });
  into.replaceChildren(make("span", { class: "unit" }, text), make("div", { class: "bar" }, boxes, row));
  for (const [colour, meaning] of [[no_echo, "none"], [no_data, "no data"]]) {
    if (!colour) continue;
    const box = make("i");
    box.style.background = colour;
    into.append(make("span", { class: "swatch" }, box, meaning));
  }
}

// ---- source, counts, gaps, problems

function drawPulse() {
  const { pulse } = state;
  const one = pulse?.streams[state.stream];
  if (!one) return;
  const lost = performance.now() - state.heard > LOST_MS;
  const words = { ok: one.is_replay ? "replay" : "live", degraded: "degraded", stale: "stale", down: "source down" };
  const ended = one.source.state === "ended";
  setStatus(lost ? "lost" : one.status, lost ? "no contact" : ended ? "ended" : words[one.status]);
  const notice = $("notice");
  const quiet = one.status === "stale" && !one.frame; // nothing came yet: the header says so
  const text = lost ? `The server has not answered for ${span((performance.now() - state.heard) / 1000)}: what you see is old. Trying again.` : one.reasons.join("; ");
  notice.hidden = !text || (quiet && !lost);
  notice.dataset.word = lost ? "lost" : one.status;
  if (notice.textContent !== text) notice.textContent = text;
  $("stage").classList.toggle("old", lost || one.status === "stale" || one.status === "down");
  const { source, frame, counts, nowcasts } = one;
  const named = state.hello?.streams.find((stream) => stream.name === state.stream)?.source ?? "";
  const bad = { down: "bad", ended: "warn" }[source.state];
  const since = `since ${new Date(source.since).toISOString().slice(11, 19)} UTC`;
  const again = source.reconnects ? `, came back ${source.reconnects} ${source.reconnects === 1 ? "time" : "times"}` : "";
  $("source").replaceChildren(make("span", bad ? { class: bad } : {}, source.state), ` ${since}${again} · ${named}`);
  if (frame) {
    const age = (Date.parse(pulse.now) - Date.parse(frame.valid_time)) / 1000;
    const old = age < 0 ? ", ahead of the clock" : one.is_replay ? ", of an archive" : `, ${span(age)} old`;
    $("age").textContent = `${clock(frame.valid_time)}${old}; arrived ${span(frame.arrived_s_ago)} ago`;
  }
  const sum = $("counts");
  const parts = FATES.map((fate) => make("span", counts[fate] ? {} : { class: "zero" }, make("b", {}, counts[fate].toLocaleString("en-GB")), ` ${fate}`));
  sum.replaceChildren(make("b", {}, counts.received.toLocaleString("en-GB")), " frames received = ");
  parts.forEach((part, n) => sum.append(n ? " + " : "", part));
  const left = [["skipped", "skipped"], ["incomplete", "without a whole window"], ["not_finite", "not finite"]];
  const texts = left.filter(([name]) => nowcasts[name]).map(([name, meaning]) => `${nowcasts[name].toLocaleString("en-GB")} ${meaning}`);
  $("nowcasts").textContent = [`${nowcasts.made.toLocaleString("en-GB")} made`, ...texts].join(", ");
  if (!state.frames.length) $("tag").textContent = emptyText(counts, one.stage);
  drawWaits(source.state, nowcasts.wanted, counts.used, one.stage);
}

// Where there is no picture: why.
function emptyText(counts, stage) {
  if (stage) return "loading the model";
  if (!counts.received) return "no frame yet";
  if (state.facts?.nowcast || state.facts?.observed.length || next) return "loading pictures";
  if (counts.pending || counts.used) return "reading frames";
  return `none of ${counts.received.toLocaleString("en-GB")} frames could be used: see below`;
}

// Before the first nowcast: what is waited for.
function drawWaits(source, wanted, used, stage) {
  const needs = state.hello?.look.context;
  const waits = $("waits");
  waits.hidden = !state.hello || !state.facts || Boolean(state.facts.nowcast);
  if (waits.hidden) return;
  const more = `${wanted} ${used ? "more " : ""}${wanted === 1 ? "frame" : "frames"}`;
  let text = `Waiting for ${more}: a nowcast needs ${needs} in a row.`;
  if (wanted === 0) text = "The first nowcast is being made.";
  if (stage) text = `${stage[0].toUpperCase()}${stage.slice(1)}.`;
  if (source === "ended") text = `No nowcast: the source ended before there were ${needs} frames in a row.`;
  if (waits.textContent !== text) waits.textContent = text; // it is read out when it changes
}

function setStatus(word, text) {
  const status = $("status");
  if (status.dataset.word === word && status.textContent === text) return;
  status.dataset.word = word;
  status.textContent = text;
}

function drawSlots() {
  const { slots, latencies_ms: latencies } = state.facts;
  const words = { used: "observed", missing: "missing", held: "held", bridged: "bridged" };
  const box = $("slots");
  box.replaceChildren(...slots.map(({ fate, time }) => make("i", { class: fate, title: `${words[fate]}, ${clock(time)}` })));
  const count = (fate) => slots.filter((slot) => slot.fate === fate).length;
  const said = Object.keys(words).filter(count).map((fate) => `${count(fate)} ${words[fate]}`);
  const text = slots.length ? `Newest ${slots.length} slots: ${said.join(", ")}.` : "";
  box.setAttribute("aria-label", text || "No frames yet");
  $("slots-says").textContent = text;
  const newest = latencies.at(-1);
  $("latency").textContent = newest === undefined ? "–" : newest < 1000 ? `${number(newest)} ms` : `${(newest / 1000).toFixed(1)} s`;
  const most = Math.max(...latencies, 1e-9);
  const points = latencies.map((value, n) => `${n ? "L" : "M"}${n} ${(18 - (16 * value) / most).toFixed(2)}`).join("");
  const spark = $("spark");
  spark.setAttribute("viewBox", `0 0 ${Math.max(1, latencies.length - 1)} 19`);
  spark.setAttribute("preserveAspectRatio", "none");
  spark.replaceChildren(make("svg:path", { d: points }));
}

function drawProblems() {
  const { problems } = state.facts;
  $("log").hidden = !problems.length;
  $("problems").replaceChildren(...problems.map(({ time, line }) => make("li", {}, make("time", { datetime: time }, new Date(time).toISOString().slice(11, 19)), line)));
}

function drawMade() {
  const stream = state.stream ? `stream=${encodeURIComponent(state.stream)}&` : "";
  const { nowcast } = state.facts;
  if (!nowcast) {
    $("files").textContent = "none yet";
    $("made").textContent = "";
    return;
  }
  const kinds = { nc: "NetCDF", tif: "GeoTIFF", png: "PNG", gif: "GIF", npz: "npz", json: "JSON" };
  const links = Object.entries(kinds).map(([kind, text]) => make("a", { href: `nowcast/latest?${stream}format=${kind}` }, text));
  $("files").replaceChildren(...links.flatMap((link, n) => (n ? [" · ", link] : [link])));
  const facts = Object.entries(nowcast.made_by).map(([name, value]) => `${name.replaceAll("_", " ")} ${String(value).length > 20 ? `${String(value).slice(0, 12)}…` : value}`);
  const notes = ["attribution", "licence", "institution"].map((name) => nowcast.notes[name]).filter(Boolean);
  $("made").textContent = [...notes, facts.join(", ")].filter(Boolean).join(" · ");
}

// The forecast, or one of the chances that came with it.
function drawShown() {
  const thresholds = state.facts.nowcast?.thresholds ?? [];
  $("shown-row").hidden = !thresholds.length;
  const select = $("shown");
  const choices = [["", state.hello.look.quantity], ...thresholds.map((one) => [String(one), chanceText(one)])];
  if (choices.map(([, text]) => text).join() !== [...select.options].map((one) => one.text).join()) {
    select.replaceChildren(...choices.map(([value, text]) => make("option", { value }, text)));
  }
  select.value = thresholds.includes(state.chance) ? String(state.chance) : "";
}

// The legend of what is shown: observed frames have no chances.
function drawLook(frame) {
  const { legends, chances } = state.hello.look;
  if (frame?.threshold !== undefined) drawLegend($("legend"), chances, `${chanceText(frame.threshold)}, %`);
  else drawLegend($("legend"), legends[$("colours").value], unit());
}

// The palettes that there are.
function drawColours() {
  const { legends } = state.hello.look;
  const words = Object.keys(legends);
  const chosen = words.includes(state.colours) ? state.colours : words[0];
  state.colours = chosen === words[0] ? null : chosen;
  $("colours").replaceChildren(...words.map((word) => make("option", { value: word }, legends[word].title)));
  $("colours").value = chosen;
  $("colours").disabled = words.length < 2;
  drawLook(state.frames.find((one) => one.step === state.at));
}

function drawHello() {
  const { look, streams, version } = state.hello;
  const what = look.quantity[0].toUpperCase() + look.quantity.slice(1);
  $("title").textContent = `Nowcast: ${look.quantity}`;
  document.title = `${what} nowcast`;
  const size = `${look.width}×${look.height}`;
  $("about").textContent = `${look.model}, ${look.context} frames in, ${look.horizon} ahead, ${size} pixels · stpl-deploy ${version}`;
  drawColours();
  drawLegend($("difference-legend"), look.difference, `too little ← ${unit()} → too much`);
  const score = $("score").value;
  drawScores();
  if (score) $("score").value = score;
  if (!$("score").value) $("score").selectedIndex = 0;
  $("streams").hidden = streams.length < 2;
  $("stream").replaceChildren(...streams.map(({ name }) => make("option", { value: name }, name || "the stream")));
  $("stream").value = state.stream;
}

// ---- the map, a point on it, and what the reader chose

const map = new FrameMap({
  point: (x, y) => point.pin(x, y),
  hover: (x, y) => point.hover(x, y),
  move: () => keepAddress(),
});

const point = new Point({
  root: () => (state.facts?.points ? `${state.facts.points}${state.facts.nowcast?.key ?? "observed"}/` : null),
  frame: () => state.frames.find((one) => one.step === state.at),
  shown: () => state.frames.find((one) => one.threshold !== undefined),
  unit,
  chanceText,
  clock,
  hours,
  lead: (step) => state.frames.find((one) => one.step === step)?.text ?? String(step),
  // Where the colours have classes, it rains from the first one on.
  least: () => {
    const legend = Object.values(state.hello.look.legends)[0];
    return legend.classes ? Number(legend.ticks[0]) : null;
  },
  moved: () => keepAddress(),
}, map);

function keepAddress() {
  writeAddress(() => ({
    at: state.at,
    view: map.isWhole ? null : map.view,
    point: point.at,
    colours: state.colours,
    chance: state.chance,
    opacity: Number($("opacity").value),
    local: state.local,
    hidden: hiddenLayers(),
  }));
}

// Show what the address asks for.
function takeAddress() {
  const asked = readAddress();
  state.local = asked.local;
  state.colours = asked.colours;
  state.chance = asked.chance;
  if (asked.at !== null) state.at = asked.at;
  $("zone").value = asked.local ? "local" : "utc";
  $("opacity").value = asked.opacity;
  map.setOpacity(asked.opacity / 100);
  for (const name of ["lines", "graticule", "overlay"]) {
    $(`show-${name}`).checked = !asked.hidden.includes(name);
    map.show(name, !asked.hidden.includes(name));
  }
  if (asked.view) map.setView(asked.view);
  if (asked.point) point.pin(...asked.point);
}

function redraw() {
  if (!state.facts) return;
  drawColours();
  show(state.facts);
  keepAddress();
}

addEventListener("hashchange", () => {
  takeAddress();
  redraw();
});
$("colours").addEventListener("change", (event) => {
  state.colours = event.target.value;
  redraw();
});
$("shown").addEventListener("change", (event) => {
  state.chance = event.target.value ? Number(event.target.value) : null;
  if (state.chance !== null && state.at < 1) state.at = 1; // only a forecast has chances
  redraw();
});
$("zone").addEventListener("change", (event) => {
  state.local = event.target.value === "local";
  redraw();
});
$("opacity").addEventListener("input", (event) => {
  map.setOpacity(event.target.value / 100);
  keepAddress();
});
for (const name of ["lines", "graticule", "overlay"]) {
  $(`show-${name}`).addEventListener("change", (event) => {
    map.show(name, event.target.checked);
    keepAddress();
  });
}

// ---- the connection

let run = null;

function connect() {
  state.source?.close();
  const query = state.stream ? `?stream=${encodeURIComponent(state.stream)}` : "";
  const source = (state.source = new EventSource(`events${query}`));
  const heard = (take) => (event) => {
    if (state.source !== source) return;
    state.heard = performance.now();
    take(JSON.parse(event.data));
  };
  source.addEventListener("hello", heard((hello) => {
    state.hello = hello;
    if (!hello.streams.some((stream) => stream.name === state.stream)) state.stream = hello.streams[0].name;
    if (run !== null && run !== hello.run) pictures.clear(); // another start: nothing of it is ours
    run = hello.run;
    drawHello();
  }));
  source.addEventListener("stream", heard(show));
  source.addEventListener("pulse", heard((pulse) => {
    state.pulse = pulse;
    drawPulse();
  }));
  source.onerror = () => {
    // The browser tries again by itself, unless the server refused.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => state.source === source && connect(), 2000);
  };
}

setInterval(() => {
  if (performance.now() - state.heard <= LOST_MS) return;
  if (state.pulse) drawPulse();
  else setStatus("lost", "no contact");
}, 1000);

// ---- hands

$("play").addEventListener("click", () => play(!state.playing));
$("time").addEventListener("input", (event) => {
  play(false);
  go(Number(event.target.value));
});
$("strip").addEventListener("click", (event) => {
  const item = event.target.closest("li");
  if (!item) return;
  play(false);
  go(Number(item.dataset.step));
});
new ResizeObserver(() => state.facts && drawSkill()).observe($("skill"));
$("score").addEventListener("change", drawSkill);
$("span").addEventListener("change", drawSkill);
$("stream").addEventListener("change", (event) => {
  state.stream = event.target.value;
  Object.assign(state, { facts: null, frames: [], at: null });
  history.replaceState(null, "", `${state.stream ? `?stream=${encodeURIComponent(state.stream)}` : location.pathname}${location.hash}`);
  connect();
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const tag = event.target.tagName;
  if (tag === "SELECT" || event.target.type === "checkbox") return;
  if (event.target.id === "opacity" || (event.key.startsWith("Arrow") && event.target.closest("#map"))) return;
  const steps = { ArrowLeft: -1, ArrowRight: 1 };
  if (event.key === " " && tag !== "BUTTON" && tag !== "SUMMARY" && tag !== "A") {
    play(!state.playing);
  } else if (event.key in steps && tag !== "INPUT") {
    play(false);
    go(state.at + steps[event.key]);
  } else if (event.key === "n" || event.key === "N") {
    play(false);
    go(0);
  } else {
    return;
  }
  event.preventDefault();
});

state.stream = new URLSearchParams(location.search).get("stream") ?? "";
takeAddress();
connect();
