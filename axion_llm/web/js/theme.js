// Light, dark, or as the system has it: one button that goes round.

import { el } from "./dom.js";
import { icon } from "./icons.js";

const NEXT = { "": "light", light: "dark", dark: "" };
const NAMES = { "": "Auto", light: "Light", dark: "Dark" };

export function setUpTheme(button, announce) {
  const root = document.documentElement;
  const show = () => {
    const name = NAMES[root.dataset.theme ?? ""];
    button.replaceChildren(icon("colours"), el("span", {}, name));
    button.setAttribute("aria-label", `Colours: ${name}`);
  };
  button.addEventListener("click", () => {
    const theme = NEXT[root.dataset.theme ?? ""];
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
    keep(theme);
    show();
    announce(`Colours: ${NAMES[theme]}`);
  });
  show();
}

function keep(theme) {
  try {
    if (theme) localStorage.setItem("axion.theme", theme);
    else localStorage.removeItem("axion.theme");
  } catch {
    // no storage: it holds for this page
  }
}
