// One view at a time, by the address's fragment; who asks; light and dark.

import { changed, may, refresh, session } from "./api.js";
import { el, tell } from "./dom.js";

const VIEWS = {
  verify: { title: "Verify", scope: "verify" },
  identify: { title: "Identify", scope: "identify" },
  enrol: { title: "Enrol", scope: "enroll" },
  people: { title: "People", scope: "enroll" },
  bench: { title: "Attack bench", scope: "admin" },
  model: { title: "Model" },
  log: { title: "Log", scope: "audit" },
  keys: { title: "Keys", scope: "admin" },
  key: { title: "Your key", apart: true },
};

const main = document.querySelector("#view");
let leave = null;
let turn = 0;

const chosen = () => {
  const name = location.hash.slice(1);
  return name in VIEWS ? name : "verify";
};

async function show({ focus = true } = {}) {
  const mine = ++turn;
  const name = session.needed && session.key === null ? "key" : chosen();
  leave?.();
  leave = null;
  main.setAttribute("aria-busy", "true");
  const root = el("div", { class: `view at-${name}` });
  try {
    const view = await import(`./${name}.js`);
    const left = await view.render(root);
    if (mine !== turn) return left?.();
    leave = left ?? null;
  } catch (error) {
    if (mine !== turn) return;
    if (!root.querySelector("h1")) root.prepend(el("h1", {}, VIEWS[name].title));
    const out = el("div", { role: "alert" });
    root.append(out);
    tell(out, error);
  }
  main.replaceChildren(root);
  main.removeAttribute("aria-busy");
  document.title = `${VIEWS[name].title} · Steadface`;
  header(name);
  if (focus) {
    const heading = root.querySelector("h1");
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }
}

function header(name) {
  const open = Object.entries(VIEWS).filter(([, view]) => !view.apart && (!view.scope || may(view.scope)));
  const link = ([one, view]) => el("li", {}, el("a", { href: `#${one}`, "aria-current": one === name && "page" }, view.title));
  document.querySelector("#views").replaceChildren(...open.map(link));
  const state = document.querySelector("#key");
  state.textContent = session.key === null ? "Give a key" : session.needed ? `Key: ${session.key.name}` : "No key needed";
  if (name === "key") state.setAttribute("aria-current", "page");
  else state.removeAttribute("aria-current");
  const several = document.querySelector("#collections");
  several.hidden = session.collections.length < 2;
  several.querySelector("select").replaceChildren(
    ...session.collections.map((one) => el("option", { value: one.name, selected: one.name === session.collection }, one.name)),
  );
}

function theme() {
  const button = document.querySelector("#theme");
  const dark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const name = () => (button.textContent = dark() ? "Light" : "Dark");
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    name();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  name();
}

document.querySelector("#collections select").addEventListener("change", (event) => {
  session.collection = event.target.value;
  show();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the fragment names the view
  main.focus();
});
window.addEventListener("hashchange", () => show());
changed.addEventListener("session", () => header(chosen()));
theme();
try {
  await refresh();
} catch (error) {
  tell(main, error);
}
await show({ focus: false });
