// Building DOM nodes. Text goes in as text; there is no way here to put HTML in.

/** el("button", { class: "quiet", onclick: f, "aria-label": "Copy" }, "Copy", icon("copy")) */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function byId(id) {
  return document.getElementById(id);
}

/** One call of `draw` for all that happens until the next frame; hidden pages have no frames, so a timer there. */
export function onceAFrame(draw) {
  let isDue = false;
  return () => {
    if (isDue) return;
    isDue = true;
    const run = () => {
      isDue = false;
      draw();
    };
    if (document.hidden) setTimeout(run, 200);
    else requestAnimationFrame(run);
  };
}

/** Puts text on the clipboard, also on plain http, where browsers have no clipboard API. Resolves to success. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

function copyBySelection(text) {
  const before = document.activeElement;
  const area = el("textarea", { class: "visually-hidden", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  const isDone = document.execCommand("copy");
  area.remove();
  before?.focus();
  return isDone;
}

/** A button that copies what `text()` gives and says so for a moment. */
export function copyButton(text, label = "Copy", announce = () => {}) {
  const button = el("button", { type: "button", class: "quiet" }, label);
  button.addEventListener("click", async () => {
    const isDone = await copyText(text());
    button.textContent = isDone ? "Copied" : "Not allowed";
    announce(isDone ? "Copied" : "The browser does not allow copying");
    setTimeout(() => (button.textContent = label), 1500);
  });
  return button;
}
