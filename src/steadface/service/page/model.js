// The model, and what its thresholds mean.

import { ask, model, session } from "./api.js";
import { figure } from "./bar.js";
import { band, chart, line, linear, logarithmic, rows, rule, dot, text } from "./chart.js";
import { el, field } from "./dom.js";
import { fpirOf, onceIn, oneIn, percent, rateField } from "./rates.js";

export async function render(root) {
  const told = await model();
  const { thresholds } = told;
  root.append(el("h1", {}, "Model"), el("p", { class: "lede" }, `${told.name} gives each face ${told.dimension} numbers. Two faces are as similar as their numbers point the same way; a threshold says from where on they count as one person.`));
  if (thresholds === null) {
    root.append((await rateField()).element, facts(told));
    return;
  }
  const rate = await rateField("How often may strangers pass for one another?");
  const enrolled = (await ask("GET", "/v1/collections")).find((one) => one.name === session.collection)?.people ?? 0;
  const people = el("input", { type: "number", min: "1", max: "100000000", value: String(Math.max(1, enrolled)) });
  const words = el("div", { class: "meaning large", "aria-live": "polite" });
  const drawn = [curve(thresholds, rate, "threshold"), curve(thresholds, rate, "fnmr")];
  const say = () => {
    words.replaceChildren(...meaning(thresholds, rate.value, Math.max(1, Number(people.value) || 1)));
    for (const one of drawn) one.redraw();
  };
  rate.control.addEventListener("change", say);
  people.addEventListener("input", say);
  root.append(
    el("div", { class: "controls two" }, rate.element, field("People in the gallery", people, `${enrolled} are enrolled here now.`)),
    words,
    el(
      "div",
      { class: "pair charts" },
      el("figure", {}, el("figcaption", {}, el("h2", {}, "Where the threshold lies"), el("p", { class: "hint" }, "Similarity by false match rate; the band is its 95 % interval.")), drawn[0].element),
      el("figure", {}, el("figcaption", {}, el("h2", {}, "What it costs"), el("p", { class: "hint" }, "How often two pictures of one person are refused, with its 95 % interval.")), drawn[1].element),
    ),
    table(thresholds),
    facts(told),
  );
  say();
}

function meaning(thresholds, fmr, people) {
  const point = thresholds.points.find((one) => one.fmr === fmr);
  const fpir = fpirOf(fmr, people);
  const many = people === 1 ? "one person" : `${people.toLocaleString("en")} people`;
  return [
    el("p", {}, "From a similarity of ", el("strong", {}, figure(point.threshold)), " on, two faces count as one person. Then two different people come out as one about ", el("strong", {}, onceIn(fmr)), " comparisons."),
    el("p", {}, `A gallery of ${many} is ${many === "one person" ? "one comparison" : "as many comparisons"}: a stranger who is searched for is taken for somebody in `, el("strong", {}, percent(fpir, fpir < 0.001 ? 4 : fpir < 0.1 ? 2 : 0)), ` of visits (FPIR), about ${onceIn(fpir)}.`),
    el("p", {}, "The price: two single pictures of one person are not recognised as such in ", el("strong", {}, percent(point.fnmr)), ` of cases (95\u00a0%: ${percent(point.fnmr_ci[0])} to ${percent(point.fnmr_ci[1])}).`),
  ];
}

function curve(thresholds, rate, what) {
  const points = thresholds.points;
  const interval = `${what}_ci`;
  const first = points[0].fmr;
  const last = points.at(-1).fmr;
  const label = what === "threshold" ? "Threshold by false match rate; the table below has the figures" : "Refusals by false match rate; the table below has the figures";
  return chart(label, 280, (width, height) => {
    const [left, right, top, bottom] = [52, width - 16, 16, height - 42];
    const highest = Math.max(...points.map((one) => one[interval][1]));
    const lowest = what === "fnmr" ? 0 : Math.min(...points.map((one) => one[interval][0]), 0);
    const x = points.length > 1 ? logarithmic(first, last, left, right) : () => (left + right) / 2;
    const ticks = nice(lowest, highest);
    const y = linear(ticks[0], ticks.at(-1), bottom, top);
    const powers = [];
    for (let power = Math.ceil(Math.log10(last) - 1e-9); power <= Math.log10(first) + 1e-9; power++) powers.push(10 ** power);
    const at = points.find((one) => one.fmr === rate.value);
    const shown = what === "fnmr" ? percent(at[what]) : figure(at[what]);
    const end = x(at.fmr) > left + 70;
    return [
      rows(ticks, y, left, right, (value) => (what === "fnmr" ? `${+(100 * value).toFixed(4)}\u00a0%` : value.toFixed(1).replace("-", "−"))),
      powers.map((power) => text(x(power), bottom + 20, width < 420 ? `1e${Math.round(Math.log10(power))}` : `1 in ${Math.round(1 / power).toLocaleString("en")}`, { class: "tick", "text-anchor": Math.abs(x(power) - left) < 30 ? "start" : Math.abs(x(power) - right) < 30 ? "end" : "middle" })),
      text((left + right) / 2, height - 4, "false match rate", { class: "tick", "text-anchor": "middle" }),
      band(points.map((one) => [x(one.fmr), y(one[interval][0]), y(one[interval][1])]), { class: "band first" }),
      line(points.map((one) => [x(one.fmr), y(one[what])]), { class: "curve first" }),
      rule(x(at.fmr), top, x(at.fmr), bottom, { class: "marker" }),
      dot(x(at.fmr), y(at[what]), 5, { class: "head first" }),
      text(x(at.fmr) + (end ? -10 : 10), Math.max(top + 12, y(at[what]) - 12), shown, { class: "value", "text-anchor": end ? "end" : "start" }),
    ];
  });
}

/** Round values that take in `low` and `high`. */
function nice(low, high) {
  const rough = (high - low || 1) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough);
  const found = [];
  for (let value = Math.floor(low / step + 1e-9) * step; value < high + step - 1e-9; value += step) found.push(value);
  return found;
}

function table(thresholds) {
  const row = (point) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, oneIn(point.fmr)),
      el("td", { class: "number" }, figure(point.threshold)),
      el("td", { class: "number" }, point.threshold_ci.map((end) => figure(end)).join(" to ")),
      el("td", { class: "number" }, percent(point.fnmr)),
      el("td", { class: "number" }, point.fnmr_ci.map((end) => percent(end)).join(" to ")),
    );
  return el(
    "details",
    {},
    el("summary", {}, "The figures"),
    el(
      "div",
      { class: "scroll", role: "region", "aria-label": "Thresholds and refusals by false match rate", tabindex: "0" },
      el(
        "table",
        {},
        el("thead", {}, el("tr", {}, ["False match rate", "Threshold", "95 % interval", "Refused", "95 % interval"].map((name, place) => el("th", { scope: "col", class: place ? "number" : null }, name)))),
        el("tbody", {}, thresholds.points.map(row)),
      ),
    ),
    el("p", { class: "hint" }, `Measured on ${thresholds.images.toLocaleString("en")} images of ${thresholds.people.toLocaleString("en")} people: ${thresholds.genuine_pairs.toLocaleString("en")} pairs of one person, ${thresholds.impostor_pairs.toLocaleString("en")} of two.`),
  );
}

function facts(told) {
  const lines = [
    ["Calibration", told.calibration ?? "none"],
    ["Takes", `${told.image_size.join(" × ")} pixels, ${told.pixel_range}, ${told.channel_order}`],
    ["Mirror images", told.mirror ? "summed" : "not used"],
    ["Space of embeddings", told.space],
    ["Weights", told.weights],
    ...told.notes.map((note) => ["Note", note]),
  ];
  return el("section", { class: "apart" }, el("h2", {}, "Identity"), el("dl", { class: "facts" }, lines.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))));
}
