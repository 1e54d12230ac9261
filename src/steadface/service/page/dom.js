// Elements made from what they hold. Data only ever becomes text: there is no innerHTML on this page.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes (`on...` are listeners, false and null are left out) and children, texts among them. */
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

let made = 0;

/** An id that nothing else on the page has. */
export const fresh = (stem) => `${stem}-${++made}`;

/** A labelled control; `hint` is read with it. */
export function field(label, control, hint = null) {
  control.id ||= fresh("field");
  const told = hint === null ? null : el("p", { class: "hint", id: `${control.id}-hint` }, hint);
  if (told !== null) control.setAttribute("aria-describedby", told.id);
  return el("div", { class: "field" }, el("label", { for: control.id }, label), control, told);
}

export const select = (options, chosen, attributes = {}) =>
  el(
    "select",
    attributes,
    options.map(([value, text]) => el("option", { value, selected: value === chosen }, text)),
  );

export const check = (label, attributes = {}) =>
  el("label", { class: "check" }, el("input", { type: "checkbox", ...attributes }), el("span", {}, label));

/** Choices of which one holds: a group of radio buttons, and what is chosen. */
export function choices(legend, options, chosen) {
  const name = fresh("choice");
  const radio = ([value, text]) =>
    el("label", { class: "check" }, el("input", { type: "radio", name, value, checked: value === chosen }), el("span", {}, text));
  const element = el("fieldset", { class: "choices" }, el("legend", {}, legend), options.map(radio));
  return { element, get value() { return element.querySelector("input:checked").value; } };
}

/** A place where answers come up, and are read out. */
export const answers = () => el("div", { class: "answer", "aria-live": "polite" });

/** A form whose work is done once at a time; what goes wrong is told in `out`. */
export function form(out, work, ...children) {
  const element = el("form", { novalidate: true }, children);
  element.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = event.submitter;
    if (element.getAttribute("aria-busy") === "true") return;
    element.setAttribute("aria-busy", "true");
    button?.setAttribute("aria-disabled", "true");
    try {
      await work(event);
    } catch (error) {
      tell(out, error);
    } finally {
      element.removeAttribute("aria-busy");
      button?.removeAttribute("aria-disabled");
    }
  });
  return element;
}

/** What went wrong, in the service's own words. */
export function tell(out, error) {
  if (error.name === "AbortError") return;
  out.replaceChildren(el("p", { class: "notice wrong" }, el("strong", {}, `${error.title ?? "That did not work"}. `), error.message));
}

/** Shows what came of something, and leads whoever uses the keyboard there: what they pressed may be gone. */
export function lead(out, element) {
  out.replaceChildren(element);
  element.tabIndex = -1;
  element.focus();
}

export const notes = (several) =>
  several?.length ? el("ul", { class: "notes" }, several.map((note) => el("li", {}, note))) : null;

/** Asks before something is done; the promise holds what `ask` returned, null where somebody thought better of it. */
export function dialog(title, content, action, { danger = false, value = () => true } = {}) {
  return new Promise((resolve) => {
    const id = fresh("dialog");
    const element = el(
      "dialog",
      { "aria-labelledby": id },
      el("h2", { id }, title),
      content,
      el(
        "div",
        { class: "row" },
        el("button", { type: "button", class: danger ? "danger" : "primary", onclick: () => leave(value()) }, action),
        el("button", { type: "button", autofocus: danger, onclick: () => leave(null) }, "Cancel"),
      ),
    );
    const leave = (result) => {
      resolve(result);
      element.close();
    };
    element.addEventListener("close", () => {
      resolve(null);
      element.remove();
    });
    document.body.append(element);
    element.showModal();
  });
}

export const when = (time) =>
  time === null ? "" : new Date(time).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
