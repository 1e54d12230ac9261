// The attack bench: how far does an attack come, and where does a hardened model hold?

import { ask, formOf, here, Problem } from "./api.js";
import { figure, verdict } from "./bar.js";
import { chart, dot, line, linear, rows, rule, text } from "./chart.js";
import { answers, check, choices, el, field, form, select, tell } from "./dom.js";
import { picker } from "./picture.js";
import { onceIn, rateField } from "./rates.js";

const PAUSE = 250; // ms between two looks
const MARKS = ["first", "second"]; // the looks of the two models' lines

export async function render(root) {
  const bench = await ask("GET", "/v1/bench", { query: here() });
  const out = answers();
  const stage = el("section", { class: "stage", "aria-label": "The attack", hidden: true });
  const controls = await asked(bench);
  let running = null; // the attack that is watched

  const stop = el("button", { type: "button", hidden: true, onclick: () => running?.end() }, "Stop");
  const element = form(
    out,
    async () => {
      if (controls.pictures.some((one) => one.empty)) throw new Error("Choose two pictures first.");
      out.replaceChildren();
      running = watching(stage, out);
      stop.hidden = false;
      try {
        await running.follow(controls.form());
      } finally {
        running = null;
        stop.hidden = true;
      }
    },
    el("div", { class: "pair" }, controls.pictures.map((one) => one.element)),
    el("div", { class: "controls three" }, controls.elements),
    el("div", { class: "row" }, el("button", { class: "primary" }, "Attack"), stop),
  );
  const names = bench.models.map((one) => one.model);
  root.append(
    el("h1", {}, "Attack bench"),
    el("p", { class: "lede" }, "Change a face by a few grey levels, hardly to be seen, so that the model takes it for somebody else. Watch the similarity go, and where it stops."),
    el(
      "p",
      { class: "hint" },
      names.length > 1 ? `Two models under the same attack: ${names[0]}, which this service uses, and ${names[1]}.` : `Under attack: ${names[0]}, which this service uses. Start it with “--bench-model FILE” to see a second one beside it.`,
    ),
    element,
    out,
    stage,
  );
  return () => running?.end();
}

/** What an attack is asked to do. */
async function asked(bench) {
  const pictures = [picker("The face that is changed"), picker("The face it is compared with")];
  const goal = choices("Goal", [["dodge", "Dodge: no longer be recognised (two pictures of one person)"], ["impersonate", "Impersonate: pass for the other (two people)"]], "dodge");
  const eps = slider("Budget", { min: 1, max: bench.eps, value: Math.min(8, bench.eps) }, (value) => `${value} of 255 grey levels`);
  const steps = slider("Steps", { min: 5, max: bench.steps, step: 5, value: 40 }, (value) => `${value} steps`);
  const method = select([["apgd", "APGD, which adapts its step"], ["pgd", "PGD, with a fixed step"]], "apgd");
  const rate = await rateField("The threshold of");
  const aligned = check("These are aligned faces already");
  return {
    pictures,
    elements: [goal.element, el("div", {}, eps.element, steps.element), el("div", {}, rate.element, field("Attack", method), aligned)],
    form: () =>
      formOf(
        { first: pictures[0].blob, second: pictures[1].blob },
        { goal: goal.value, eps: eps.value, steps: steps.value, method: method.value, fmr: rate.value, aligned: aligned.querySelector("input").checked },
      ),
  };
}

function slider(label, attributes, words) {
  const input = el("input", { type: "range", ...attributes });
  const said = el("output", {}, words(attributes.value));
  input.addEventListener("input", () => {
    said.textContent = words(input.value);
    input.setAttribute("aria-valuetext", words(input.value));
  });
  input.setAttribute("aria-valuetext", words(attributes.value));
  const element = field(label, input);
  element.append(said);
  return { element, get value() { return input.value; } };
}

/** One attack on the stage: begun, followed, ended. */
function watching(stage, out) {
  const ended = new AbortController();
  let id = null;
  let over = false;

  async function follow(form) {
    const begun = await ask("POST", "/v1/bench", { query: here(), form, signal: ended.signal });
    id = begun.id;
    const scene = await staged(stage, begun);
    const spoken = new Set();
    const say = (words) => {
      if (spoken.has(words)) return;
      spoken.add(words);
      out.replaceChildren(el("p", { class: "hint" }, words));
    };
    say("The attack is getting ready…");
    for (;;) {
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
      if (ended.signal.aborted) return;
      const now = await looked(id, ended.signal);
      await scene.show(now);
      if (now.status === "waiting") say(now.before ? `Waiting: ${now.before} before this one.` : "Waiting for the bench.");
      else if (now.courses.some((course) => course.cosines.length)) say("The attack runs.");
      if (["done", "failed", "stopped"].includes(now.status)) {
        over = true;
        out.replaceChildren();
        if (now.status !== "done") tell(out, new Problem(0, "The attack ended early", now.problem ?? "It was stopped."));
        scene.conclude(now);
        return;
      }
    }
  }

  function end() {
    ended.abort();
    if (id !== null && !over) ask("DELETE", `/v1/bench/${id}`).catch(() => {});
    over = true;
    out.replaceChildren(el("p", { class: "hint" }, "Stopped."));
  }

  return { follow, end };
}

/** One look, once more where the network failed it. */
async function looked(id, signal) {
  try {
    return await ask("GET", `/v1/bench/${id}`, { signal });
  } catch (error) {
    if (error.status !== 0 && error.status !== 503) throw error;
    return ask("GET", `/v1/bench/${id}`, { signal });
  }
}

/** The stage: curves above, below them each model's adversarial picture, its difference, and what it says. */
async function staged(stage, begun) {
  const original = await pixels(begun.first);
  let latest = begun;
  const curves = chart("The similarity by step of the attack", 360, (width, height) => drawn(latest, width, height));
  const cards = begun.courses.map((course, place) => card(course, place, original, begun));
  const compared = el("figure", { class: "face" }, canvasOf(await pixels(begun.second), "The face it is compared with"), el("figcaption", {}, "compared with"));
  stage.replaceChildren(
    el("figure", { class: "curves" }, el("figcaption", { class: "hidden" }, "Similarity to the other face, by step of the attack; the dashed lines are the thresholds."), curves.element),
    el("div", { class: `cards n${cards.length}` }, cards.map((one) => one.element), el("div", { class: "reference" }, compared)),
  );
  stage.hidden = false;
  stage.scrollIntoView({ block: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  return {
    async show(now) {
      latest = now;
      curves.redraw();
      await Promise.all(now.courses.map((course, place) => cards[place].show(course)));
    },
    conclude(now) {
      curves.label(now.courses.map((course) => sentence(course, now)).filter(Boolean).join(" ") || "The attack ended early");
      for (const [place, course] of now.courses.entries()) cards[place].conclude(course, now);
    },
  };
}

function drawn(run, width, height) {
  const beside = width >= 560; // there is room for words at the ends of the lines
  const [left, right, top, bottom] = [44, width - (beside ? 160 : 12), 14, height - 34];
  const all = run.courses.flatMap((course) => [...course.cosines, course.threshold ?? 0]);
  const ticks = [-1, -0.8, -0.6, -0.4, -0.2, 0, 0.2, 0.4, 0.6, 0.8, 1].filter((tick) => tick >= Math.min(-0.2, Math.min(...all) - 0.2));
  const y = linear(ticks[0], 1, bottom, top);
  const x = linear(0, run.steps + 1, left, right);
  const words = run.courses.flatMap((course, place) => [
    course.threshold === null ? null : { at: y(course.threshold), height: 17, mark: MARKS[place], lines: [`threshold ${figure(course.threshold, 2)}`] },
    course.cosines.length ? { at: y(course.cosines.at(-1)), height: 34, mark: MARKS[place], lines: [figure(course.cosines.at(-1), 2), shortened(course.model)] } : null,
  ]);
  return [
    rows(ticks, y, left, right, (value) => value.toFixed(1).replace("-", "−")),
    text(left, height - 6, "the face as it is", { class: "tick" }),
    text(right, height - 6, `${run.steps} steps`, { class: "tick", "text-anchor": "end" }),
    run.courses.map((course, place) => {
      const mark = MARKS[place];
      const points = course.cosines.map((cosine, step) => [x(Math.min(step, run.steps + 1)), y(cosine)]);
      const crossed = crossing(course, run.goal);
      return [
        course.threshold === null ? null : rule(left, y(course.threshold), right, y(course.threshold), { class: `threshold ${mark}` }),
        points.length > 1 ? line(points, { class: `curve ${mark}` }) : null,
        crossed === null ? null : dot(...points[crossed], 9, { class: `crossing ${mark}` }),
        points.length ? dot(...points.at(-1), 5, { class: `head ${mark}` }) : null,
      ];
    }),
    beside ? apart(words.filter(Boolean)).map((one) => one.lines.map((said, place) => text(right + 14, one.at + 5 + 16 * place, said, { class: `${one.height === 34 && !place ? "value" : "label"} ${one.mark}` }))) : null,
  ];
}

/** Labels that would lie over each other move down. */
function apart(labels) {
  const sorted = [...labels].sort((one, other) => one.at - other.at);
  for (let place = 1; place < sorted.length; place++) sorted[place].at = Math.max(sorted[place].at, sorted[place - 1].at + sorted[place - 1].height);
  return sorted;
}

const shortened = (name) => (name.length > 18 ? `${name.slice(0, 8)}…${name.slice(-9)}` : name);

/** At which step the attack came over the threshold, null where it did not, or was there already. */
function crossing(course, goal) {
  if (course.threshold === null || !course.cosines.length) return null;
  const there = (cosine) => cosine >= course.threshold === (goal === "impersonate");
  if (there(course.cosines[0])) return null;
  const step = course.cosines.findIndex(there);
  return step < 0 ? null : step;
}

function card(course, place, original, run) {
  const [height, width] = [original.height, original.width];
  const face = el("canvas", { width, height, role: "img", "aria-label": `The face as ${course.model} is attacked with it` });
  const difference = el("canvas", { width, height, role: "img", "aria-label": "What was changed, magnified" });
  const magnified = Math.max(1, Math.floor(127 / run.eps));
  const now = el("p", { class: "now", "aria-hidden": "true" }, "waits");
  const told = el("div", { class: "told" });
  const peek = el("button", { type: "button", "aria-pressed": "false", onclick: () => (looking = !looking, peek.setAttribute("aria-pressed", String(looking)), paint()) }, "Show the unchanged face");
  let looking = false;
  let latest = original;
  let shown = null;
  const paint = () => face.getContext("2d").putImageData(looking ? original : latest, 0, 0);
  paint();
  difference.getContext("2d").putImageData(changes(original, original, magnified), 0, 0);
  const element = el(
    "article",
    { class: `card ${MARKS[place]}` },
    el("h2", {}, el("span", { class: "swatch", "aria-hidden": "true" }), course.model),
    now,
    el(
      "div",
      { class: "faces" },
      el("figure", { class: "face" }, face, el("figcaption", {}, "changed")),
      el("figure", { class: "face" }, difference, el("figcaption", {}, `the change, ${magnified} ×`)),
    ),
    peek,
    told,
  );
  return {
    element,
    async show(course) {
      if (course.cosines.length) now.textContent = `${figure(course.cosines.at(-1), 2)}${course.threshold === null ? "" : `, threshold ${figure(course.threshold, 2)}`}`;
      if (course.picture === null || course.picture === shown) return;
      shown = course.picture;
      latest = await pixels(course.picture);
      paint();
      difference.getContext("2d").putImageData(changes(latest, original, magnified), 0, 0);
    },
    conclude(course, run) {
      const words = sentence(course, run);
      if (words === null) return;
      now.textContent = `${figure(course.cosines[0], 2)} → ${figure(course.result.cosine, 2)}`;
      const changed = `No pixel changed by more than ${course.result.changed} of 255 grey levels; measured on the picture in whole grey levels, as a file would hold it.`;
      told.replaceChildren(...[course.result.fooled === null ? null : verdict(!course.result.fooled, course.result.fooled ? "Fooled" : "Holds"), el("p", {}, words), el("p", { class: "hint" }, changed)].filter(Boolean));
    },
  };
}

/** What came out for a model, in a sentence. */
function sentence(course, run) {
  if (course.result === null) return null;
  const [from, to] = [figure(course.cosines[0], 2), figure(course.result.cosine, 2)];
  if (course.threshold === null) return `${course.model} is not calibrated: the similarity went from ${from} to ${to}, and nothing says what that means.`;
  const limit = `${figure(course.threshold, 2)} (where strangers pass ${onceIn(course.fmr)} comparisons)`;
  const step = crossing(course, run.goal);
  const when = step === null ? "" : ` after ${step} ${step === 1 ? "step" : "steps"}`;
  const began = course.cosines[0] >= course.threshold;
  if (run.goal === "dodge") {
    if (!began) return `${course.model} did not take these pictures for one person to begin with: ${from}, below ${limit}.`;
    return course.result.fooled ? `${course.model} no longer recognises the person${when}: from ${from} down to ${to}, below ${limit}.` : `${course.model} still recognises the person: from ${from} to ${to}, not below ${limit}.`;
  }
  if (began) return `${course.model} took these pictures for one person to begin with: ${from}, above ${limit}.`;
  return course.result.fooled ? `${course.model} takes the face for the other person${when}: from ${from} up to ${to}, above ${limit}.` : `${course.model} does not take the face for the other person: from ${from} to ${to}, below ${limit}.`;
}

async function pixels(base64) {
  const picture = new Image();
  picture.src = `data:image/png;base64,${base64}`;
  await picture.decode();
  const canvas = el("canvas", { width: picture.naturalWidth, height: picture.naturalHeight });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

function canvasOf(image, label) {
  const canvas = el("canvas", { width: image.width, height: image.height, role: "img", "aria-label": label });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** The difference of two pictures around middle grey, so many times. */
function changes(now, before, times) {
  const found = new ImageData(now.width, now.height);
  for (let place = 0; place < found.data.length; place++)
    found.data[place] = place % 4 === 3 ? 255 : 128 + times * (now.data[place] - before.data[place]);
  return found;
}
