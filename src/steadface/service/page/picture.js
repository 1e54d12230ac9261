// Pictures from files, the clipboard, a drop or the camera.

import { el, fresh } from "./dom.js";

const pickers = new WeakMap(); // by their elements, with which they and their pictures are forgotten

document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])].filter((file) => file.type.startsWith("image/"));
  const open = [...document.querySelectorAll(".picture")].map((element) => pickers.get(element));
  const used = open.find((one) => one.element.contains(document.activeElement));
  const target = used ?? open.find((one) => one.empty) ?? open[0];
  if (files.length && target) {
    event.preventDefault();
    target.take(files);
  }
});
for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());

/** Something to choose a picture with, or `several`; `changed` is told when others are chosen. */
export function picker(legend, { several = false, changed = () => {} } = {}) {
  let blobs = [];
  const shown = el("div", { class: "shown" });
  const status = el("p", { class: "hidden", role: "status" });
  const input = el("input", { type: "file", accept: "image/*", multiple: several, id: fresh("file"), onchange: () => take([...input.files]) });
  const tools = el("div", { class: "tools" });
  const frame = el("div", { class: "frame" }, shown);
  const element = el("fieldset", { class: "picture" }, el("legend", {}, legend), frame, tools, status);
  const camera = el("button", { type: "button", onclick: () => photograph() }, "Camera");
  const clear = el("button", { type: "button", hidden: true, onclick: () => take([], true) }, "Clear");
  tools.append(el("span", { class: "file" }, input, el("label", { for: input.id, class: "button" }, several ? "Choose pictures" : "Choose")), camera, clear);

  const mine = { element, frame, take, get blobs() { return blobs; }, get blob() { return blobs[0] ?? null; }, get empty() { return !blobs.length; } };
  for (const kind of ["dragenter", "dragover"]) frame.addEventListener(kind, () => frame.classList.add("over"));
  for (const kind of ["dragleave", "drop"]) frame.addEventListener(kind, () => frame.classList.remove("over"));
  frame.addEventListener("drop", (event) => take([...event.dataTransfer.files].filter((file) => file.type.startsWith("image/"))));
  pickers.set(element, mine);
  draw();
  return mine;

  function take(files, all = false) {
    if (!files.length && !all) return;
    blobs = several && !all ? [...blobs, ...files] : files.slice(0, 1);
    input.value = "";
    draw();
    status.textContent = blobs.length ? `${legend}: ${blobs.length === 1 ? "a picture is" : `${blobs.length} pictures are`} chosen` : `${legend}: no picture`;
    changed(mine);
  }

  function draw() {
    shown.classList.toggle("many", several && blobs.length > 1);
    shown.replaceChildren(
      ...(blobs.length
        ? blobs.map((blob, place) => preview(blob, several ? `${legend}, ${place + 1}` : legend))
        : [el("p", { class: "hint" }, several ? "Drop or paste pictures here, or choose them." : "Drop or paste a picture here, or choose one.")]),
    );
    clear.hidden = !blobs.length;
  }

  async function photograph() {
    let stream;
    try {
      stream = await openCamera();
    } catch (error) {
      status.classList.remove("hidden");
      status.textContent = error.message;
      return;
    }
    const video = el("video", { autoplay: true, muted: true, playsinline: true, "aria-label": `${legend}: the camera's picture` });
    video.muted = true;
    video.srcObject = stream;
    const done = () => {
      for (const track of stream.getTracks()) track.stop();
      draw();
      tools.hidden = false;
      shutter.remove();
      camera.focus();
    };
    const shutter = el(
      "div",
      { class: "tools" },
      el("button", { type: "button", class: "primary", onclick: async () => { const blob = await snapshot(video); done(); take([blob]); } }, "Take the picture"),
      el("button", { type: "button", onclick: done }, "Leave"),
    );
    shown.replaceChildren(video);
    tools.hidden = true;
    tools.after(shutter);
    shutter.firstChild.focus();
    window.addEventListener("hashchange", done, { once: true });
  }
}

function preview(blob, alt) {
  const url = URL.createObjectURL(blob);
  const forget = () => URL.revokeObjectURL(url);
  return el("img", { src: url, alt, onload: forget, onerror: forget });
}

/** Throws with words for people where there is no camera, or nobody may use it. */
export async function openCamera() {
  try {
    return await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 }, facingMode: "user" }, audio: false });
  } catch {
    throw new Error("There is no camera that this page may use; it needs your permission, and https or this machine's own address.");
  }
}

/** What a video shows now, as JPEG. */
export function snapshot(video) {
  const canvas = el("canvas", { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
}
