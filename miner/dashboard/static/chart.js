// Small charts of the last fifteen minutes, as SVG.

import { el } from "./dom.js";

const SPAN = 900; // seconds
const WIDTH = 300;
const HEIGHT = 60;

function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** One chart: `points` are [Unix seconds, value]; `most` is the top of the scale; `text` formats a value. */
export function chart({ title, points, most, text }) {
  const known = points.filter(([, value]) => value !== null);
  if (!known.length) return null;
  const end = known.at(-1)[0];
  const values = known.map(([, value]) => value);
  const [low, high, now] = [Math.min(...values), Math.max(...values), values.at(-1)];
  const top = Math.max(most ?? 0, high, 1e-9);
  const place = ([at, value]) => [
    (WIDTH * (1 - (end - at) / SPAN)).toFixed(1), (HEIGHT - 2 - (HEIGHT - 6) * (value / top)).toFixed(1),
  ];
  const line = known.map(place).map(([x, y], index) => `${index ? "L" : "M"}${x} ${y}`).join("");
  const area = `${line}L${WIDTH} ${HEIGHT}L${place(known[0])[0]} ${HEIGHT}Z`;
  return el("figure", { className: "chart" },
    el("figcaption", {}, el("span", { className: "quiet" }, title), el("strong", {}, text(now))),
    svg("svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
      "aria-label": `${title}: ${text(now)} now, between ${text(low)} and ${text(high)} in the last 15 minutes`,
    }, svg("path", { d: area, class: "area" }), svg("path", { d: line, class: "line" })),
    el("p", { className: "scale quiet", "aria-hidden": "true" }, el("span", {}, "15 min"), el("span", {}, low === high ? text(low) : `${text(low)} to ${text(high)}`)));
}
