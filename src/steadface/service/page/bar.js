// A similarity beside the threshold that decides, as a bar; and decisions in words.

import { el, svg } from "./dom.js";

const LOW = -0.2;

/** Where a cosine stands on the bar, in percent. */
const place = (cosine) => 100 * Math.min(1, Math.max(0, (cosine - LOW) / (1 - LOW)));

export const figure = (cosine, digits = 3) => cosine.toFixed(digits).replace("-", "−");

/** `similarity` is null where the key does not show it; `shows` says how exact it is. */
export function bar({ similarity, threshold, interval = null, match, shows = "full", small = false }) {
  const known = similarity !== null && similarity !== undefined;
  const digits = shows === "rounded" ? 1 : 3;
  const words = known
    ? `similarity ${shows === "rounded" ? "about " : ""}${figure(similarity, digits)}, threshold ${figure(threshold)}`
    : `threshold ${figure(threshold)}; this key does not show similarities`;
  const track = el("div", { class: `bar ${match ? "yes" : "no"}${small ? " small" : ""}`, role: "img", "aria-label": words });
  if (interval !== null && !small) track.append(at(el("span", { class: "interval" }), interval[0], interval[1]));
  if (known) track.append(at(el("span", { class: "value" }), LOW, similarity));
  track.append(at(el("span", { class: "limit" }), threshold));
  if (small) return track;
  const told = el(
    "p",
    { class: "figures", "aria-hidden": "true" },
    el("span", {}, known ? `similarity ${shows === "rounded" ? "≈ " : ""}${figure(similarity, digits)}` : "similarity not shown to this key"),
    el("span", {}, `threshold ${figure(threshold)}${interval === null ? "" : ` (${interval.map((end) => figure(end)).join(" to ")})`}`),
  );
  return el("div", { class: "measured" }, track, told);
}

function at(element, from, to = null) {
  element.style.left = `${place(from)}%`;
  if (to !== null) element.style.width = `${Math.max(0, place(to) - place(from))}%`;
  return element;
}

/** A decision, said in words and with a sign beside its colour. */
export function verdict(yes, words) {
  const sign = yes ? "M4 12.5l5 5L20 6.5" : "M6 6l12 12M18 6L6 18";
  return el(
    "p",
    { class: `verdict ${yes ? "yes" : "no"}` },
    svg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("path", { d: sign })),
    el("span", {}, words),
  );
}

/** What the guard says of a probe, where there is one. */
export const suspicion = (guard) =>
  guard?.suspicious ? el("p", { class: "notice" }, "The guard takes this picture for an adversarial one: do not trust the answer.") : null;
