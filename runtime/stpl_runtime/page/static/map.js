// The map: the frame's canvas on a Leaflet map whose coordinates are the frame's own pixels, with
// lines that the server has projected into them. So a value is always that of the pixel under it.

import { $, make } from "./tools.js";

const L = window.L;
const CLOSEST = 5; // 2^5 pixels of the screen for one of the frame
const DETAIL_ZOOM = 1;
const INKS = { rivers: "#34689a", lakes: "#34689a", borders: "#6e285a", coasts: "#1e1e22" };
const OVERLAY = "#b3005e";

// x to the right and y down, one unit a pixel; lengths are true in the middle of the frame.
const PIXELS = L.extend({}, L.CRS.Simple, {
  transformation: new L.Transformation(1, 0, 1, 0),
  pixelKm: 0,
  distance(one, other) {
    return 1000 * this.pixelKm * Math.hypot(one.lng - other.lng, one.lat - other.lat);
  },
});

function pairs(flat) {
  const found = [];
  for (let n = 0; n < flat.length; n += 2) found.push([flat[n + 1], flat[n]]);
  return found;
}

export class FrameMap {
  // on.point(x, y): asked for a pixel's values; on.hover(x, y) or on.hover(null); on.move().
  constructor(on) {
    this.on = on;
    this.size = null;
    this.address = null; // of the map that is shown
    this.fine = "none";
    this.wanted = null; // a view to open with: [zoom, x, y]
    this.crs = L.extend({}, PIXELS);
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.map = L.map($("map"), { crs: this.crs, attributionControl: false, zoomSnap: 0, maxZoom: 12, minZoom: -8, preferCanvas: true, maxBoundsViscosity: 1, wheelPxPerZoomLevel: 120, inertia: !still, zoomAnimation: !still, fadeAnimation: false, boxZoom: true, doubleClickZoom: true });
    this.map.setView([0, 0], 0);
    for (const [name, z] of [["frame", 300], ["graticule", 390], ["own", 450], ["pin", 640]]) this.map.createPane(name).style.zIndex = z;
    this.map.getPane("pin").style.pointerEvents = "none";
    this.groups = { lines: L.layerGroup(), graticule: L.layerGroup(), overlay: L.layerGroup(), cities: L.layerGroup() };
    for (const group of Object.values(this.groups)) group.addTo(this.map);
    this.scale = L.control.scale({ imperial: false, maxWidth: 120 });
    this.named = { cities: [], meridians: [], parallels: [] };
    this.listen();
  }

  listen() {
    const { map } = this;
    const inside = ({ lat, lng }) => this.size && lat >= 0 && lng >= 0 && lng < this.size[0] && lat < this.size[1];
    const pixel = (latlng, then) => inside(latlng) && then(Math.floor(latlng.lng), Math.floor(latlng.lat));
    map.on("click", ({ latlng }) => pixel(latlng, this.on.point));
    // Not the map's own event: above a canvas Leaflet leaves out what comes within 32 ms, so also where the pointer stops.
    map.getContainer().addEventListener("mousemove", (event) => {
      const latlng = map.mouseEventToLatLng(event);
      if (inside(latlng)) pixel(latlng, this.on.hover);
      else this.on.hover(null);
    });
    map.getContainer().addEventListener("mouseleave", () => this.on.hover(null));
    map.on("zoomanim", () => (this.zooms = true));
    map.on("zoomend", () => (this.zooms = false));
    map.on("moveend zoomend", () => {
      // A finger on the whole map scrolls the page.
      map.dragging[this.isWhole ? "disable" : "enable"]();
      this.label();
      this.refine();
      this.on.move();
    });
    map.getContainer().addEventListener("keydown", (event) => {
      if (event.key === "Enter" && event.target === map.getContainer()) pixel(map.getCenter(), this.on.point);
      if (event.key === "Home" || event.key === "0") this.whole();
    });
    new ResizeObserver(() => {
      const before = this.isWhole;
      map.invalidateSize({ animate: false });
      if (this.size) this.limit(before);
    }).observe(map.getContainer());
  }

  // The frame's size is known, or another.
  resize(width, height) {
    if (this.size?.[0] === width && this.size[1] === height) return;
    this.size = [width, height];
    this.bounds = L.latLngBounds([0, 0], [height, width]);
    this.frame?.remove();
    // What SVGOverlay does with an element it does with a canvas too: it keeps it on these bounds.
    this.frame = L.svgOverlay($("picture"), this.bounds, { pane: "frame", opacity: this.opacity ?? 1 }).addTo(this.map);
    this.limit(true);
  }

  // No view is wider than the frame, nor far from it.
  limit(whole) {
    const { map } = this;
    map.options.minZoom = -8;
    const least = (this.least = map.getBoundsZoom(this.bounds));
    // Not setMinZoom: it would begin to zoom from the view that is left.
    map.options.minZoom = least;
    map.options.maxZoom = Math.max(CLOSEST, least + 2);
    if (this.wanted) {
      const [zoom, x, y] = this.wanted;
      this.wanted = null;
      const clamp = (value, most) => Math.max(0, Math.min(most, value));
      this.jump([clamp(y, this.size[1]), clamp(x, this.size[0])], Math.max(least, Math.min(map.options.maxZoom, zoom)));
    } else if (whole || map.getZoom() < least) this.whole();
    map.setMaxBounds(this.bounds.pad(0.5));
    map.fire("zoomlevelschange"); // the buttons
  }

  whole() {
    if (this.size) this.jump(this.bounds.getCenter(), this.least);
  }

  // Leaflet passes over what it is told while it animates a zoom, which begins in the next picture.
  jump(center, zoom) {
    const go = () => this.map.setView(center, zoom, { animate: false });
    go();
    requestAnimationFrame(() => this.zooms && this.map.once("zoomend", go));
  }

  get isWhole() {
    return !this.size || Math.abs(this.map.getZoom() - this.least) < 0.01;
  }

  get view() {
    const { lat, lng } = this.map.getCenter();
    return [this.map.getZoom().toFixed(2), lng.toFixed(1), lat.toFixed(1)];
  }

  setView(view) {
    this.wanted = view;
    if (this.size) this.limit(false);
  }

  setOpacity(share) {
    this.opacity = share;
    this.frame?.setOpacity(share);
  }

  show(group, on) {
    if (on) this.groups[group].addTo(this.map);
    else this.groups[group].remove();
    if (group === "graticule" || group === "lines") this.label();
  }

  pin(x, y) {
    this.mark?.remove();
    this.mark = x === null ? null : L.rectangle([[y, x], [y + 1, x + 1]], { pane: "pin", color: "#000", weight: 3, fill: false, interactive: false }).addTo(this.map);
    if (!this.mark) return;
    this.ring?.remove();
    this.ring = L.circleMarker([y + 0.5, x + 0.5], { pane: "pin", radius: 9, color: "#fff", weight: 5, fill: false, interactive: false }).addTo(this.map);
    this.dot?.remove();
    this.dot = L.circleMarker([y + 0.5, x + 0.5], { pane: "pin", radius: 9, color: "#000", weight: 2, fill: false, interactive: false }).addTo(this.map);
  }

  unpin() {
    for (const part of ["mark", "ring", "dot"]) this[part]?.remove();
  }

  // The map of the frames' grid: {url} or {why}.
  async setMap({ url, why }) {
    $("no-map").textContent = why ?? "";
    $("no-map").hidden = !why;
    if ((url ?? null) === this.address) return;
    this.address = url ?? null;
    this.fine = "none";
    for (const group of Object.values(this.groups)) group.clearLayers();
    this.named = { cities: [], meridians: [], parallels: [] };
    this.scale.remove();
    this.label();
    $("overlay-row").hidden = true;
    if (!url) return;
    const found = await fetchJson(`${url}overview`);
    if (!found || this.address !== url) return;
    this.crs.pixelKm = found.pixel_km;
    this.scale.addTo(this.map);
    this.drawLines(found.layers);
    for (const [, line] of [...found.meridians, ...found.parallels]) L.polyline(pairs(line), { pane: "graticule", color: "#60606a", weight: 1, opacity: 0.5, interactive: false }).addTo(this.groups.graticule);
    this.drawOverlay(found.overlay);
    this.named = found;
    this.label();
    this.refine();
  }

  drawLines(layers) {
    this.groups.lines.clearLayers();
    const lines = Object.keys(INKS).map((layer) => [INKS[layer], layers[layer].map(pairs)]);
    for (const [, parts] of lines) L.polyline(parts, { color: "#fff", weight: 3, opacity: 0.6, interactive: false }).addTo(this.groups.lines);
    for (const [color, parts] of lines) L.polyline(parts, { color, weight: 1.2, interactive: false }).addTo(this.groups.lines);
  }

  drawOverlay(shapes) {
    $("overlay-row").hidden = !shapes.length;
    for (const { kind, name, parts } of shapes) {
      const style = { pane: "own", color: OVERLAY, weight: 2.5, fillOpacity: 0.08, bubblingMouseEvents: true };
      const lines = parts.map(pairs);
      const shape = kind === "area" ? L.polygon(lines, style) : kind === "line" ? L.polyline(lines, style) : L.layerGroup(lines.map(([at]) => L.circleMarker(at, { ...style, radius: 6 })));
      shape.addTo(this.groups.overlay);
      const text = make("span", {}, name);
      if (name) (kind === "point" ? shape.getLayers() : [shape]).forEach((one) => one.bindTooltip(text, { sticky: true }));
    }
  }

  // Finer lines once they can be told apart.
  async refine() {
    if (!this.address || this.fine !== "none" || this.map.getZoom() < DETAIL_ZOOM) return;
    const address = this.address;
    this.fine = "asked";
    const found = await fetchJson(`${address}detail`);
    if (!found || this.address !== address) return;
    this.fine = "there";
    this.drawLines(found.layers);
  }

  // Names of cities that have room, and degrees where the graticule meets the edges of the view.
  label() {
    const { map } = this;
    const { cities, meridians, parallels } = this.named;
    this.groups.cities.clearLayers();
    const size = map.getSize();
    const shown = [];
    const put = (text, x, y, name) => {
      const width = 7 * text.length + 8;
      const left = name === "meridian" ? x - width / 2 : x;
      if (left < 0 || y < 8 || left + width > size.x || y > size.y - 8) return;
      if (shown.some((other) => left < other.left + other.width && other.left < left + width && Math.abs(other.y - y) < 16)) return;
      shown.push({ left, y, width });
      const icon = L.divIcon({ className: `label ${name}`, html: make("span", {}, text), iconSize: null });
      L.marker(map.containerPointToLatLng([x, y]), { icon, interactive: false, keyboard: false, pane: "overlayPane" }).addTo(this.groups.cities);
    };
    if (map.hasLayer(this.groups.graticule)) {
      const at = (line, axis, edge) => {
        const other = axis === "y" ? "x" : "y";
        const points = pairs(line).map((one) => map.latLngToContainerPoint(one));
        for (let n = 1; n < points.length; n++) {
          const [from, to] = [points[n - 1], points[n]];
          const [before, after] = [from[axis] - edge, to[axis] - edge];
          if (before * after <= 0 && before !== after) return from[other] + ((to[other] - from[other]) * before) / (before - after);
        }
        return null;
      };
      const [corner, far] = this.size ? [[0, 0], [this.size[1], this.size[0]]].map((one) => map.latLngToContainerPoint(one)) : [size, size];
      const [left, low] = [Math.max(4, corner.x + 4), Math.min(size.y, far.y) - 12];
      for (const [text, line] of meridians) {
        const x = at(line, "y", low);
        if (x !== null) put(text, x, low, "meridian");
      }
      for (const [text, line] of parallels) {
        const y = at(line, "x", left);
        if (y !== null) put(text, left, y, "parallel");
      }
    }
    if (!map.hasLayer(this.groups.lines)) return;
    for (const [name, x, y] of cities) {
      const point = map.latLngToContainerPoint([y, x]);
      put(name, point.x, point.y, "city");
    }
  }
}

async function fetchJson(address) {
  try {
    const answer = await fetch(address);
    return answer.ok ? await answer.json() : null;
  } catch {
    return null; // no contact: the header says so
  }
}
