// Somebody becomes known, with their consent.

import { ask, formOf, here, once } from "./api.js";
import { answers, check, el, field, form, notes, when } from "./dom.js";
import { verdict } from "./bar.js";
import { picker } from "./picture.js";

export function render(root) {
  const out = answers();
  let request = once();
  const renewed = () => (request = once());
  const pictures = picker("Pictures of one person", { several: true, changed: renewed });
  const name = el("input", { required: true, autocomplete: "off", maxlength: "200", oninput: renewed });
  const consent = el("textarea", { rows: "3", oninput: renewed });
  const tomorrow = new Date(Date.now() + 864e5).toISOString().slice(0, 10);
  const expires = el("input", { type: "date", min: tomorrow, oninput: renewed });
  const aligned = check("These are aligned faces already", { onchange: renewed });
  const agreed = check("This person has agreed to be recognised", { required: true });
  const element = form(
    out,
    async () => {
      if (!name.value.trim()) throw new Error("Give a name.");
      if (pictures.empty) throw new Error("Choose one or more pictures.");
      if (!agreed.firstChild.checked) throw new Error("Nobody is enrolled here who has not agreed; tick that they have.");
      out.replaceChildren(el("p", { class: "hint" }, "Enrolling…"));
      const words = { name: name.value.trim(), consent: consent.value.trim(), expires: expires.value, aligned: aligned.firstChild.checked };
      // The same until it is answered: sent again, it is done once.
      const answer = await ask("POST", "/v1/people", { query: here(), form: formOf({ images: pictures.blobs }, words), headers: { "Idempotency-Key": request } });
      renewed();
      out.replaceChildren(...told(answer));
      pictures.take([], true);
      element.reset();
    },
    pictures.element,
    el(
      "div",
      { class: "controls" },
      field("Name", name, "Somebody who is enrolled already gets one more template."),
      field("Consent", consent, "What they agreed to, when and where; kept with the person."),
      field("Until", expires, "After this day they are removed and no longer found. Left empty: as long as this collection keeps people."),
      agreed,
      aligned,
      el("button", { class: "primary" }, "Enrol"),
    ),
  );
  element.classList.add("beside");
  root.append(
    el("h1", {}, "Enrol"),
    el("p", { class: "lede" }, "A few good pictures become one sealed template. The pictures themselves are not kept."),
    element,
    out,
  );
}

function told(answer) {
  const many = answer.images === 1 ? "one picture" : `${answer.images} pictures`;
  const like = (answer.resembles ?? []).map((one) => `looks like ${one.person}, who is enrolled as well`);
  return [
    verdict(true, answer.added ? `${answer.person} has one more template` : `${answer.person} is enrolled`),
    el("p", {}, `From ${many}; ${answer.templates === 1 ? "one template" : `${answer.templates} templates`} in all.${answer.expires ? ` Until ${when(answer.expires)}.` : ""}`),
    notes([...like, ...(answer.notes ?? [])]),
    el("p", {}, el("a", { href: "#people" }, "See all people")),
  ].filter(Boolean);
}
