// The key that this page asks with; in memory alone.

import { session, use } from "./api.js";
import { answers, el, field, form, when } from "./dom.js";

export function render(root) {
  const out = answers();
  const input = el("input", { type: "password", autocomplete: "off", spellcheck: "false", required: true });
  const given = form(
    out,
    async () => {
      await use(input.value.trim());
      input.value = "";
      if (["#key", ""].includes(location.hash)) location.hash = session.key.scopes.includes("admin") ? "#people" : "#verify";
      else window.dispatchEvent(new Event("hashchange"));
    },
    field("API key", input, "It reads sf_… and stays in the memory of this page: when you close or reload it, it is gone."),
    el("div", { class: "row" }, el("button", { class: "primary" }, "Use this key")),
  );
  root.append(el("h1", {}, "Your key"));
  if (session.key === null) {
    root.append(el("p", { class: "lede" }, "This service answers those who have a key. Whoever runs it makes them: “steadface keys make”."), given, out);
    return;
  }
  if (!session.needed) {
    root.append(el("p", { class: "lede" }, "This service runs without keys. It answers this machine alone, and whoever uses this machine may do everything."));
    return;
  }
  const { key } = session;
  const rows = [
    ["Name", key.name],
    ["Id", key.id],
    ["May", key.scopes.join(", ")],
    ["In", key.collections.map((one) => (one === "*" ? "all collections" : one)).join(", ")],
    ["Shows of similarities", { full: "everything", rounded: "a tenth", decision: "nothing but the decision" }[key.shows]],
    ["Requests a minute", String(key.rate)],
    ["Until", key.expires === null ? "it is revoked" : when(key.expires)],
  ];
  root.append(
    el("p", { class: "lede" }, "The key in use, as the service knows it."),
    el("dl", { class: "facts" }, rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))),
    el("div", { class: "row" }, el("button", { type: "button", onclick: async () => { await use(null); window.dispatchEvent(new Event("hashchange")); } }, "Forget this key")),
    el("h2", {}, "Another key"),
    given,
    out,
  );
}
