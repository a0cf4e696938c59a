// The settings: a form in a dialog. Nothing is changed until it is saved, and a mistake is named beside its field.

import { el } from "./dom.js";
import { NUMBERS, readNumber } from "./settings.js";

export class SettingsDialog {
  /** `save(settings, key, isKept)` gets what was entered. */
  constructor({ dialog, form, numbers, cancel }, save) {
    Object.assign(this, { dialog, form, save });
    numbers.append(...Object.entries(NUMBERS).map(([name, about]) => numberField(name, about)));
    cancel.addEventListener("click", () => dialog.close());
    form.addEventListener("submit", (event) => this.#submit(event));
  }

  open(settings, { key, isKept }) {
    const { elements } = this.form;
    elements.system.value = settings.system;
    elements.key.value = key;
    elements.keep.checked = isKept;
    for (const name of Object.keys(NUMBERS)) {
      elements[name].value = settings[name] ?? "";
      setProblem(elements[name], "");
    }
    this.dialog.showModal();
  }

  #submit(event) {
    event.preventDefault();
    const { elements } = this.form;
    const found = { system: elements.system.value };
    let wrong = null;
    for (const name of Object.keys(NUMBERS)) {
      try {
        found[name] = readNumber(name, elements[name].value);
        setProblem(elements[name], "");
      } catch (error) {
        setProblem(elements[name], error.message);
        wrong ??= elements[name];
      }
    }
    if (wrong) return wrong.focus();
    this.dialog.close();
    this.save(found, elements.key.value.trim(), elements.keep.checked);
  }
}

function numberField(name, { label, hint }) {
  const options = { id: name, name, inputmode: "decimal", autocomplete: "off", placeholder: "the model's own" };
  return el(
    "div",
    { class: "field" },
    el("label", { for: name }, label),
    el("input", { ...options, "aria-describedby": `${name}-hint ${name}-problem` }),
    el("p", { class: "hint", id: `${name}-hint` }, hint),
    el("p", { class: "problem", id: `${name}-problem` }),
  );
}

function setProblem(input, text) {
  document.getElementById(`${input.name}-problem`).textContent = text;
  input.setAttribute("aria-invalid", String(Boolean(text)));
}
