// Elements from text, and numbers for people. Text never becomes markup, here or in callers.

export const $ = (id) => document.getElementById(id);

/** An element; `properties` with a dash become attributes. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

/** Set an element's text only if it changed, to keep selections and spare screen readers. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function show(element, shown) {
  element.hidden = !shown;
}

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value > 0 && value < 0.1) return `${Math.round(value * 1000)} ms`;
  if (value === 0) return "0 s";
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 60) return `${value.toFixed(0)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`;
  if (value < 86400) return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
  return `${Math.floor(value / 86400)} d ${Math.floor((value % 86400) / 3600)} h`;
}

export function bytes(value) {
  if (value < 1e6) return `${Math.max(Math.round(value / 1e3), 1)} KB`;
  if (value < 1e9) return `${(value / 1e6).toFixed(value < 1e7 ? 1 : 0)} MB`;
  return `${(value / 1e9).toFixed(1)} GB`;
}

export function percent(share) {
  return `${Math.round(share * 100)} %`;
}

/** An address, shortened to both ends. */
export const address = (id) => (id.length <= 20 ? id : `${id.slice(0, 8)}…${id.slice(-8)}`);

/** A long id, shortened. */
export function short(id, most = 12) {
  return id.length <= most ? id : `${id.slice(0, most - 1)}…`;
}

let offset = 0; // seconds the miner's clock is ahead

/** The miner's clock, in Unix seconds. */
export const clock = () => Date.now() / 1000 + offset;

export function setClock(at) {
  offset = at - Date.now() / 1000;
}

/** "3 min ago", with the full date as a tooltip. */
export function ago(at) {
  const date = new Date(at * 1000);
  const time = el("time", { dateTime: date.toISOString(), title: date.toLocaleString() });
  time.dataset.at = at;
  tell(time);
  return time;
}

/** Update every `ago`. */
export function age() {
  document.querySelectorAll("time[data-at]").forEach(tell);
}

function tell(time) {
  const past = Math.max(clock() - Number(time.dataset.at), 0);
  const words = past < 5 ? "just now" : past < 60 ? `${Math.floor(past)} s ago` : past < 3600 ? `${Math.floor(past / 60)} min ago`
    : past < 86400 ? `${Math.floor(past / 3600)} h ago` : `${Math.floor(past / 86400)} d ago`;
  say(time, words);
}

export const WORDS = { done: "Done", failed: "Failed", refused: "Refused", lost: "Lost" };

/** A finished task's thumbnail, or a sign of its outcome. */
export function thumbnail(task) {
  if (!task.pictured) {
    const sign = { done: "▶", failed: "!", refused: "✕", lost: "↩" }[task.outcome];
    return el("span", { className: `thumb none ${task.outcome}`, "aria-hidden": "true" }, sign);
  }
  const query = new URLSearchParams({ miner: task.miner_id, task: task.task_id });
  return el("img", {
    className: "thumb", loading: "lazy", decoding: "async", src: `/api/thumbnail?${query}`,
    alt: `Result of ${short(task.task_id)}, ${task.pixels[0]} by ${task.pixels[1]} pixels`,
  });
}
