// Do two pictures show one person?

import { ask, formOf, here, session } from "./api.js";
import { bar, suspicion, verdict } from "./bar.js";
import { answers, check, el, form, notes } from "./dom.js";
import { picker } from "./picture.js";
import { onceIn, rateField } from "./rates.js";

export async function render(root) {
  const out = answers();
  const pictures = [picker("First picture"), picker("Second picture")];
  const rate = await rateField();
  const aligned = check("These are aligned faces already");
  const element = form(
    out,
    async () => {
      if (pictures.some((one) => one.empty)) throw new Error("Choose two pictures first.");
      const [first, second] = pictures.map((one) => one.blob);
      const words = { fmr: rate.value, aligned: aligned.firstChild.checked };
      out.replaceChildren(el("p", { class: "hint" }, "Looking…"));
      const answer = await ask("POST", "/v1/verify", { query: here(), form: formOf({ first, second }, words) });
      out.replaceChildren(...told(answer));
    },
    el("div", { class: "pair" }, pictures.map((one) => one.element)),
    el("div", { class: "controls narrow" }, rate.element, aligned, el("button", { class: "primary" }, "Compare")),
  );
  root.append(
    el("h1", {}, "Verify"),
    el("p", { class: "lede" }, "Do two pictures show one person? You say how often strangers may pass for one another; the similarity that this takes decides."),
    element,
    out,
  );
}

function told(answer) {
  return [
    verdict(answer.match, answer.match ? "Taken for one person" : "Not taken for one person"),
    bar({ ...answer, similarity: answer.similarity ?? null, interval: answer.threshold_interval, shows: session.key?.shows }),
    el("p", { class: "meaning" }, `At this threshold two different people are taken for one about ${onceIn(answer.fmr)} comparisons.`),
    suspicion(answer.guard),
    notes(answer.notes),
  ].filter(Boolean);
}
