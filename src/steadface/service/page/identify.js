// Who of the enrolled is in a picture, or in front of the camera?

import { ask, formOf, here, session } from "./api.js";
import { bar, figure, suspicion, verdict } from "./bar.js";
import { answers, check, choices, el, form, notes, tell } from "./dom.js";
import { openCamera, picker, snapshot } from "./picture.js";
import { onceIn, percent, rateField } from "./rates.js";

// Milliseconds between two questions of the live picture: longer while it shows the same people, since a key may be asked
// about one person only so often in an hour.
const PAUSE = 150;
const LONGEST_PAUSE = 10_000;

export async function render(root) {
  const out = answers();
  const rate = await rateField("How often may a stranger pass?", "");
  const kind = choices("Counted by", [["fmr", "comparison with one person (FMR)"], ["fpir", "visit, for anybody enrolled (FPIR)"]], "fmr");
  const aligned = check("This is an aligned face already");
  let overlay = null;
  const picture = picker("Picture", { changed: () => { overlay?.remove(); out.replaceChildren(); } });
  const words = () => ({ [kind.value]: rate.value });
  const element = form(
    out,
    async () => {
      if (picture.empty) throw new Error("Choose a picture first.");
      out.replaceChildren(el("p", { class: "hint" }, "Looking…"));
      overlay?.remove();
      const body = formOf({ image: picture.blob }, { ...words(), aligned: aligned.firstChild.checked });
      const answer = await ask("POST", "/v1/identify", { query: here(), form: body });
      overlay = boxes(answer);
      picture.frame.querySelector(".shown").append(overlay);
      out.replaceChildren(...told(answer));
    },
    picture.element,
    el("div", { class: "controls" }, rate.element, kind.element, aligned, el("button", { class: "primary" }, "Identify")),
  );
  element.classList.add("beside");
  const [section, stop] = live(words);
  root.append(
    el("h1", {}, "Identify"),
    el("p", { class: "lede" }, "Who of the enrolled is this? Whoever stays below the threshold is nobody: the most similar person is never named in their place."),
    element,
    out,
    section,
  );
  return stop;
}

function told(answer) {
  if (!answer.faces.length) return [verdict(false, "No face was found"), notes(answer.notes)].filter(Boolean);
  const people = answer.enrolled === 1 ? "one person" : `${answer.enrolled} people`;
  const chance = answer.fpir === null ? "" : `, and for anybody among the ${people} enrolled in ${percent(answer.fpir, 2)} of visits`;
  return [
    el("ol", { class: "found" }, answer.faces.map((face, place) => one(face, place, answer))),
    el("p", { class: "meaning" }, `A stranger is taken for a given person about ${onceIn(answer.fmr)} comparisons${chance}.`),
    notes(answer.notes),
  ].filter(Boolean);
}

function one(face, place, answer) {
  const others = face.match ? (face.candidates ?? []).slice(1) : [];
  return el(
    "li",
    {},
    answer.faces.length > 1 ? el("p", { class: "hint" }, `Face ${place + 1}`) : null,
    verdict(face.match, face.match ? face.person : "Nobody who is enrolled"),
    bar({ similarity: face.similarity ?? null, threshold: answer.threshold, interval: answer.threshold_interval, match: face.match, shows: session.key?.shows }),
    suspicion(face.guard),
    others.length ? el("p", { class: "hint" }, `Next most similar: ${others.slice(0, 3).map((other) => other.person + (other.similarity === undefined ? "" : ` ${figure(other.similarity, 2)}`)).join(", ")}`) : null,
  );
}

const known = (face) => typeof face.similarity === "number";

/** Over the picture: a frame around each face, the name, and the similarity beside the threshold. */
function boxes(answer) {
  const layer = el("div", { class: "boxes", "aria-hidden": "true" }); // the list beside it says the same
  layer.style.aspectRatio = `${answer.width} / ${answer.height}`;
  for (const [place, face] of answer.faces.entries()) {
    if (face.box === null) continue;
    const [left, top, right, bottom] = face.box;
    const number = answer.faces.length > 1 ? `${place + 1} ` : "";
    const label = el(
      "span",
      { class: "name" },
      number + (face.match ? face.person : "nobody") + (known(face) ? ` ${session.key?.shows === "rounded" ? "≈ " : ""}${figure(face.similarity, session.key?.shows === "rounded" ? 1 : 2)}` : ""),
      bar({ similarity: face.similarity ?? null, threshold: answer.threshold, match: face.match, small: true }),
    );
    const box = el("div", { class: `box ${face.match ? "yes" : "no"}` }, label);
    const share = (value, whole) => `${(100 * value) / whole}%`;
    Object.assign(box.style, {
      left: share(left, answer.width),
      top: share(top, answer.height),
      width: share(right - left, answer.width),
      height: share(bottom - top, answer.height),
    });
    if (top < answer.height * 0.15) box.classList.add("high");
    layer.append(box);
  }
  return layer;
}

/** The live picture, and what ends it. */
function live(words) {
  const heard = el("p", { class: "spoken", role: "status" });
  const out = el("div", {});
  const video = el("video", { playsinline: true, "aria-label": "The camera's picture" });
  video.muted = true;
  const frame = el("div", { class: "frame live", hidden: true }, el("div", { class: "shown" }, video));
  const button = el("button", { type: "button", onclick: () => (stream === null ? start() : stop()) }, "Start the camera");
  let stream = null;
  let layer = null;

  async function start() {
    out.replaceChildren();
    try {
      stream = await openCamera();
    } catch (error) {
      tell(out, error);
      return;
    }
    video.srcObject = stream;
    await video.play();
    frame.hidden = false;
    button.textContent = "Stop the camera";
    follow(stream).catch((error) => {
      stop();
      tell(out, error);
    });
  }

  async function follow(mine) {
    let pause = PAUSE;
    while (stream === mine) {
      const blob = await snapshot(video);
      if (blob === null || stream !== mine) return;
      const answer = await ask("POST", "/v1/identify", { query: here(words()), body: blob, headers: { "Content-Type": "image/jpeg" } });
      if (stream !== mine) return;
      layer?.remove();
      layer = boxes(answer);
      video.after(layer);
      const names = answer.faces.filter((face) => face.match).map((face) => face.person);
      const strangers = answer.faces.length - names.length;
      const sentence = [...names, strangers === 0 ? null : strangers === 1 ? "one face of nobody enrolled" : `${strangers} faces of nobody enrolled`].filter(Boolean).join(", ");
      const spoken = sentence ? `In the picture: ${sentence}.` : "No face in the picture.";
      pause = names.length && heard.textContent === spoken ? Math.min(2 * pause, LONGEST_PAUSE) : PAUSE;
      if (heard.textContent !== spoken) heard.textContent = spoken;
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }

  function stop() {
    for (const track of stream?.getTracks() ?? []) track.stop();
    stream = null;
    layer?.remove();
    frame.hidden = true;
    heard.textContent = "";
    button.textContent = "Start the camera";
  }

  const section = el(
    "section",
    { class: "apart" },
    el("h2", {}, "Live"),
    el("p", {}, "The camera's pictures are sent one after the other and kept by nobody."),
    el("div", { class: "row" }, button),
    frame,
    heard,
    out,
  );
  return [section, stop];
}
