// Who is enrolled: found, renamed, removed.

import { ask, here, may } from "./api.js";
import { answers, dialog, el, field, lead, tell, when } from "./dom.js";

const PAGE = 50;

export async function render(root) {
  const out = answers();
  const count = el("p", { class: "hint", role: "status" });
  const list = el("ul", { class: "people" });
  const search = el("input", { type: "search", autocomplete: "off", maxlength: "200" });
  const more = el("button", { type: "button", hidden: true }, "More");
  let asked = null;
  let next = 0;

  async function load({ afresh }) {
    asked?.abort();
    asked = new AbortController();
    const answer = await ask("GET", "/v1/people", { query: here({ search: search.value, after: afresh ? 0 : next, limit: PAGE }), signal: asked.signal });
    const rows = answer.people.map((person) => row(person));
    if (afresh) list.replaceChildren(...rows);
    else list.append(...rows);
    if (!afresh) rows[0]?.querySelector("button")?.focus();
    next = answer.next;
    more.hidden = next === null;
    const shown = list.children.length;
    count.textContent = search.value ? `${shown}${next === null ? "" : " or more"} of ${answer.count} people` : `${shown} of ${answer.count} people`;
  }

  const safely = (work) => work.catch((error) => tell(out, error));
  let pause = null;
  search.addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(() => safely(load({ afresh: true })), 200);
  });
  more.addEventListener("click", () => safely(load({ afresh: false })));

  function row(person) {
    const facts = [
      person.templates === 1 ? "one template" : `${person.templates} templates`,
      `since ${when(person.enrolled)}`,
      person.expires === null ? null : person.expired ? "expired" : `until ${when(person.expires)}`,
    ];
    return el(
      "li",
      {},
      el("div", {}, el("h2", {}, person.person), el("p", { class: "hint" }, facts.filter(Boolean).join(" · ")), person.consent ? el("p", { class: "consent" }, person.consent) : null),
      el(
        "div",
        { class: "row" },
        el("button", { type: "button", "aria-label": `Rename ${person.person}`, onclick: () => safely(rename(person)) }, "Rename"),
        may("delete") && el("button", { type: "button", class: "danger", "aria-label": `Remove ${person.person}`, onclick: () => safely(remove(person)) }, "Remove"),
      ),
    );
  }

  async function rename(person) {
    const input = el("input", { value: person.person, autocomplete: "off", maxlength: "200" });
    const name = await dialog(`Rename ${person.person}`, field("New name", input, "Nothing is left of the old one."), "Rename", { value: () => input.value.trim() });
    if (name === null || name === person.person) return;
    await ask("PATCH", `/v1/people/${encodeURIComponent(person.id)}`, { query: here(), json: { name } });
    await load({ afresh: true });
    lead(out, el("p", { class: "notice" }, `${person.person} is ${name} now.`));
  }

  async function remove(person) {
    const words = el("p", {}, "Their templates are destroyed and cannot be brought back. You get a receipt.");
    if ((await dialog(`Remove ${person.person}?`, words, "Remove", { danger: true })) === null) return;
    const { receipt } = await ask("DELETE", `/v1/people/${encodeURIComponent(person.id)}`, { query: here() });
    await load({ afresh: true });
    lead(out, told(receipt));
  }

  root.append(
    el("h1", {}, "People"),
    el("p", { class: "lede" }, "Who is enrolled in this collection, in the order in which they came."),
    el("div", { class: "controls narrow" }, field("Search by name", search)),
    out,
    count,
    list,
    el("div", { class: "row" }, more),
  );
  await load({ afresh: true });
  return () => asked?.abort();
}

function told(receipt) {
  const rows = [["Who", receipt.person], ["Event", receipt.event], ["When", when(receipt.time)], ["Entry", receipt.entry]];
  return el(
    "section",
    { class: "receipt", "aria-label": "Receipt of the removal" },
    el("h2", {}, "Receipt"),
    el("p", {}, "“steadface gallery verify-log --head” with this entry confirms it for as long as the gallery is there."),
    el("dl", { class: "facts" }, rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))),
  );
}
