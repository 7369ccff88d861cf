// What a reader chose about the view, and the address that holds it (after the #, which no server
// sees): #at=3&view=2.5,312.0,405.5&point=312,405&colours=cividis&chance=1&opacity=70&time=local&hide=lines

import { $ } from "./tools.js";

const LAYERS = ["lines", "graticule", "overlay"];

export function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const numbers = (name, count) => {
    const words = given.get(name)?.split(",") ?? [];
    const found = words.map((word) => (word.trim() ? Number(word) : NaN));
    return found.length === count && found.every(Number.isFinite) ? found : null;
  };
  const at = numbers("at", 1);
  const opacity = numbers("opacity", 1)?.[0] ?? 100;
  return {
    at: at ? Math.trunc(at[0]) : null,
    view: numbers("view", 3),
    point: numbers("point", 2)?.map(Math.trunc) ?? null,
    colours: given.get("colours"),
    chance: numbers("chance", 1)?.[0] ?? null,
    opacity: Math.max(10, Math.min(100, opacity)),
    local: given.get("time") === "local",
    hidden: (given.get("hide") ?? "").split(",").filter((name) => LAYERS.includes(name)),
  };
}

let waiting = null;

// Soon: browsers take few changes of an address a second.
export function writeAddress(describe) {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    const { at, view, point, colours, chance, opacity, local, hidden } = describe();
    const parts = [];
    if (at) parts.push(`at=${at}`);
    if (view) parts.push(`view=${view.join(",")}`);
    if (point) parts.push(`point=${point.join(",")}`);
    if (colours) parts.push(`colours=${encodeURIComponent(colours)}`);
    if (chance !== null) parts.push(`chance=${chance}`);
    if (opacity < 100) parts.push(`opacity=${opacity}`);
    if (local) parts.push("time=local");
    if (hidden.length) parts.push(`hide=${hidden.join(",")}`);
    const address = `${location.pathname}${location.search}${parts.length ? `#${parts.join("&")}` : ""}`;
    if (address !== location.pathname + location.search + location.hash) history.replaceState(null, "", address);
    $("permalink").href = address;
  }, 250);
}

export function hiddenLayers() {
  return LAYERS.filter((name) => !$(`show-${name}`).checked);
}
