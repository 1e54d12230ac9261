// The keys of the service, and what it has been asked.

import { ask, session, use } from "./api.js";
import { answers, check, dialog, el, field, form, lead, select, tell, when } from "./dom.js";

const SCOPES = [
  ["verify", "compare two pictures"],
  ["identify", "search the gallery"],
  ["enroll", "enrol, list and rename people"],
  ["embed", "take embeddings out"],
  ["delete", "remove people"],
  ["audit", "read the log"],
  ["shard", "ask for matches in a shard, for another node"],
  ["admin", "everything, keys included"],
];

export async function render(root) {
  root.append(el("h1", {}, "Keys and usage"));
  root.append(session.needed ? await keys() : withoutKeys(), await usage());
}

const withoutKeys = () =>
  el("section", {}, el("h2", {}, "Keys"), el("p", {}, "This service runs without keys and answers this machine alone. Start it with “--keys FILE” to give others one each."));

async function keys() {
  const out = answers();
  const shown = answers();
  const body = el("tbody", {});
  const load = async () => body.replaceChildren(...(await ask("GET", "/v1/keys")).map(row));
  const safely = (work) => work.catch((error) => tell(out, error));

  function row(key) {
    const many = key.collections.includes("*") ? "all" : key.collections.join(", ");
    const state = key.expired ? "expired" : key.expires === null ? "no end" : when(key.expires);
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, key.name, key.id === session.key?.id ? el("span", { class: "hint" }, " (yours)") : null),
      el("td", {}, el("code", {}, key.id)),
      el("td", {}, key.scopes.join(", ")),
      el("td", {}, many),
      el("td", {}, key.shows),
      el("td", { class: "number" }, String(key.rate)),
      el("td", { class: "whole" }, state),
      el(
        "td",
        {},
        el(
          "div",
          { class: "row" },
          el("button", { type: "button", "aria-label": `Rotate ${key.name}`, onclick: () => safely(rotate(key)) }, "Rotate"),
          el("button", { type: "button", class: "danger", "aria-label": `Revoke ${key.name}`, onclick: () => safely(revoke(key)) }, "Revoke"),
        ),
      ),
    );
  }

  async function rotate(key) {
    const words = el("p", {}, "It gets another secret, shown once; the old one opens nothing any more.");
    if ((await dialog(`Rotate ${key.name}?`, words, "Rotate")) === null) return;
    const rotated = await ask("POST", `/v1/keys/${key.id}/rotate`);
    if (key.id === session.key.id) await use(rotated.key); // or this page would be shut out
    reveal(rotated);
    await load();
  }

  async function revoke(key) {
    const words = el("p", {}, "Whoever uses it is shut out at once, and for good.");
    if ((await dialog(`Revoke ${key.name}?`, words, "Revoke", { danger: true })) === null) return;
    await ask("DELETE", `/v1/keys/${key.id}`);
    await load();
    lead(out, el("p", { class: "notice" }, `${key.name} opens nothing any more.`));
  }

  function reveal(key) {
    const secret = el("output", { class: "secret" }, key.key);
    const copy = el("button", { type: "button", onclick: async () => { await navigator.clipboard.writeText(key.key); copy.textContent = "Copied"; } }, "Copy");
    lead(
      shown,
      el(
        "section",
        { class: "receipt", "aria-label": "The new key" },
        el("h3", {}, `The key of ${key.name}`),
        el("p", {}, "This is the only time that it is shown; it is kept nowhere."),
        secret,
        el("div", { class: "row" }, copy, el("button", { type: "button", onclick: () => shown.replaceChildren() }, "I have it")),
      ),
    );
  }

  const element = el(
    "section",
    {},
    el("h2", {}, "Keys"),
    el(
      "div",
      { class: "scroll", role: "region", "aria-label": "Keys", tabindex: "0" },
      el(
        "table",
        {},
        el("thead", {}, el("tr", {}, ["Name", "Id", "May", "In", "Shows", "A minute", "Until", "Change"].map((name) => el("th", { scope: "col" }, name)))),
        body,
      ),
    ),
    out,
    shown,
    maker(out, async (key) => {
      reveal(key);
      await load();
    }),
  );
  await load();
  return element;
}

function maker(out, made) {
  const name = el("input", { autocomplete: "off", maxlength: "100" });
  const scopes = SCOPES.map(([scope, words]) => check(`${scope}: ${words}`, { value: scope }));
  const collections = select([["*", "all collections"], ...session.collections.map((one) => [one.name, one.name])], "*");
  const shows = select([["decision", "nothing but the decision"], ["rounded", "a tenth"], ["full", "everything, for those who measure"]], "rounded");
  const rate = el("input", { type: "number", min: "1", max: "1000000", value: "600" });
  const probes = el("input", { type: "number", min: "1", max: "1000000", value: "60" });
  const expires = el("input", { type: "date" });
  return form(
    out,
    async (event) => {
      const may = scopes.map((one) => one.firstChild).filter((one) => one.checked);
      const json = {
        name: name.value.trim(),
        scopes: may.map((one) => one.value),
        collections: [collections.value],
        shows: shows.value,
        rate: Number(rate.value),
        probes: Number(probes.value),
        ...(expires.value ? { expires: expires.value } : {}),
      };
      out.replaceChildren();
      await made(await ask("POST", "/v1/keys", { json }));
      event.target.reset();
    },
    el("h3", {}, "A new key"),
    el(
      "div",
      { class: "controls narrow" },
      field("Name", name, "Who or what will use it."),
      el("fieldset", { class: "choices" }, el("legend", {}, "It may"), scopes),
      field("In", collections),
      field("Shows of similarities", shows),
      field("Requests a minute", rate),
      field("Answers an hour about one person", probes, "How often one enrolled person may be the likeliest in its answers."),
      field("Until", expires),
      el("button", { class: "primary" }, "Make the key"),
    ),
  );
}

async function usage() {
  const samples = parsed(await ask("GET", "/metrics"));
  const sum = (name, labels = {}) =>
    samples.filter((one) => one.name === name && Object.entries(labels).every(([label, value]) => one.labels[label] === value)).reduce((total, one) => total + one.value, 0);
  const routes = [...new Set(samples.filter((one) => one.name === "steadface_requests_total").map((one) => one.labels.route))];
  const rows = routes
    .map((route) => {
      const requests = sum("steadface_requests_total", { route });
      const failed = samples.filter((one) => one.name === "steadface_requests_total" && one.labels.route === route && one.labels.status >= "400").reduce((total, one) => total + one.value, 0);
      const seconds = sum("steadface_request_seconds_sum", { route });
      return { route, requests, failed, ms: requests ? (1000 * seconds) / requests : 0 };
    })
    .sort((one, other) => other.requests - one.requests);
  const refused = samples.filter((one) => one.name === "steadface_refusals_total").map((one) => `${one.labels.why} ${one.value}`);
  const batches = sum("steadface_batch_faces_count");
  const facts = [
    ["People enrolled", String(sum("steadface_people"))],
    ["Templates", String(sum("steadface_templates"))],
    ["Faces embedded", String(sum("steadface_batch_faces_sum"))],
    ["Faces at once, on average", batches ? (sum("steadface_batch_faces_sum") / batches).toFixed(1) : "none yet"],
    ["Refused, by why", refused.join(", ") || "none"],
  ];
  return el(
    "section",
    { class: "apart" },
    el("h2", {}, "Usage since the service began"),
    el("dl", { class: "facts" }, facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))),
    el(
      "div",
      { class: "scroll", role: "region", "aria-label": "Requests by route", tabindex: "0" },
      el(
        "table",
        {},
        el("thead", {}, el("tr", {}, ["Route", "Requests", "Of them refused or failed", "Average, ms"].map((name, place) => el("th", { scope: "col", class: place ? "number" : null }, name)))),
        el("tbody", {}, rows.map((row) => el("tr", {}, el("th", { scope: "row" }, el("code", {}, row.route === "none" ? "no such route" : row.route)), [row.requests, row.failed, row.ms.toFixed(1)].map((value) => el("td", { class: "number" }, String(value)))))),
      ),
    ),
  );
}

/** Samples of Prometheus' text format. */
function parsed(text) {
  const found = [];
  for (const line of text.split("\n")) {
    const match = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (match === null) continue;
    const labels = Object.fromEntries([...(match[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, name, value]) => [name, value]));
    found.push({ name: match[1], labels, value: Number(match[3]) });
  }
  return found;
}
