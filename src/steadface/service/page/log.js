// What was done to a gallery.

import { ask, here } from "./api.js";
import { el, tell, when } from "./dom.js";

const PAGE = 100;

export async function render(root) {
  const out = el("div", {});
  const body = el("tbody", {});
  const head = el("p", { class: "hint" });
  const more = el("button", { type: "button", hidden: true, onclick: () => load().catch((error) => tell(out, error)) }, "More");
  let shown = null; // the number of the oldest entry in the table

  async function load() {
    if (shown === null) shown = (await page(0, 1)).last + 1;
    const after = Math.max(0, shown - 1 - PAGE);
    const answer = await page(after, Math.max(1, shown - 1 - after));
    body.append(...answer.entries.map(row).reverse());
    shown = after + 1;
    more.hidden = after === 0;
    head.replaceChildren("Head of the log, to be noted elsewhere: ", el("code", {}, answer.head));
  }

  root.append(
    el("h1", {}, "Log"),
    el("p", { class: "lede" }, "What was done to this gallery, newest first. Each entry holds the hash of the one before, so that none can be changed or left out unseen. People appear by random ids alone."),
    head,
    el(
      "div",
      { class: "scroll", role: "region", "aria-label": "Entries of the log", tabindex: "0" },
      el(
        "table",
        {},
        el("thead", {}, el("tr", {}, ["Entry", "When", "Event", "Person", "Details", "Hash"].map((name) => el("th", { scope: "col" }, name)))),
        body,
      ),
    ),
    el("div", { class: "row" }, more),
    out,
  );
  await load();
}

function page(after, limit) {
  return ask("GET", "/v1/log", { query: here({ after, limit }) });
}

function row(entry) {
  const details = Object.entries(entry.details).map(([name, value]) => `${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`);
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, String(entry.entry)),
    el("td", { class: "whole" }, when(entry.time)),
    el("td", {}, entry.event),
    el("td", {}, el("code", {}, entry.person ?? "")),
    el("td", { class: "details" }, details.join(", ")),
    el("td", {}, el("code", { title: entry.hash }, `${entry.hash.slice(0, 12)}…`)),
  );
}
