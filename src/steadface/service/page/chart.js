// Charts as SVG, drawn for the width of their place, so that words keep their size on every screen.

import { el, svg } from "./dom.js";

/** A chart that is drawn again whenever its place has another width. `draw` gets (width, height) and gives elements. */
export function chart(label, height, draw) {
  const picture = svg("svg", { role: "img", "aria-label": label });
  const element = el("div", { class: "chart" }, picture);
  let width = 0;
  const redraw = () => {
    if (!width) return;
    // In units that grow with the page's letters, so that words in it do too.
    const unit = parseFloat(getComputedStyle(document.documentElement).fontSize) / 17;
    picture.setAttribute("viewBox", `0 0 ${width / unit} ${height}`);
    picture.setAttribute("height", height * unit);
    picture.replaceChildren(...draw(width / unit, height).flat(3).filter(Boolean));
  };
  const observer = new ResizeObserver(([entry]) => {
    const now = Math.round(entry.contentRect.width);
    if (now !== width) {
      width = now;
      redraw();
    }
  });
  observer.observe(element);
  return { element, redraw, label: (words) => picture.setAttribute("aria-label", words) };
}

export const linear = (from, to, low, high) => (value) => low + ((value - from) / (to - from)) * (high - low);
export const logarithmic = (from, to, low, high) => (value) => linear(Math.log(from), Math.log(to), low, high)(Math.log(value));

export const line = (points, attributes) =>
  svg("path", { d: points.map(([x, y], place) => `${place ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join(""), fill: "none", ...attributes });

/** What lies between two lines with the same x. */
export const band = (points, attributes) =>
  svg("path", {
    d: `M${points.map(([x, low]) => `${x.toFixed(1)} ${low.toFixed(1)}`).join("L")}L${[...points].reverse().map(([x, , high]) => `${x.toFixed(1)} ${high.toFixed(1)}`).join("L")}Z`,
    ...attributes,
  });

export const text = (x, y, words, attributes = {}) => svg("text", { x: x.toFixed(1), y: y.toFixed(1), ...attributes }, words);
export const rule = (x1, y1, x2, y2, attributes = {}) => svg("line", { x1, y1, x2, y2, ...attributes });

/** Labelled horizontal lines. */
export const rows = (values, y, left, right, words) =>
  values.map((value) => [rule(left, y(value), right, y(value), { class: "grid" }), text(left - 8, y(value) + 4, words(value), { class: "tick", "text-anchor": "end" })]);

export const dot = (x, y, r, attributes = {}) => svg("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r, ...attributes });
