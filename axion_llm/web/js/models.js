// The models of the server: the list, what state each is in, and the choice at the top of the page.

import { listModels, loadErrors } from "./api.js";
import { el } from "./dom.js";

const STATES = {
  ready: "loaded",
  available: "available",
  loading: "loading",
  missing: "not on this machine",
  failed: "failed to load",
};
const POLL_MS = 15_000;
const POLL_WHILE_LOADING_MS = 1_500;

export class Models {
  constructor(select, note, { key, onChange, onError }) {
    Object.assign(this, { select, note, key, onChange, onError });
    this.list = [];
    this.errors = new Map();
    this.timer = null;
    select.addEventListener("change", () => this.#chosen());
    document.addEventListener("visibilitychange", () => !document.hidden && this.refresh());
  }

  get current() {
    return this.list.find((model) => model.id === this.select.value) ?? null;
  }

  /** Whether a request to the chosen model can be answered. */
  get isUsable() {
    return this.current !== null && this.current.state !== "missing";
  }

  get seesImages() {
    return (this.current?.input_modalities ?? []).includes("image");
  }

  async refresh(preferred = "") {
    clearTimeout(this.timer);
    try {
      this.list = await listModels(this.key());
      this.errors = this.list.some((m) => m.state === "failed") ? await loadErrors(this.key()) : new Map();
      this.#draw(preferred);
      this.onError(null);
    } catch (error) {
      this.onError(error);
    }
    this.#pollLater();
  }

  #pollLater() {
    const isLoading = this.list.some((model) => model.state === "loading");
    clearTimeout(this.timer);
    this.timer = setTimeout(() => !document.hidden && this.refresh(), isLoading ? POLL_WHILE_LOADING_MS : POLL_MS);
  }

  #draw(preferred) {
    const options = this.list.map((m) => [m.id, m.state && m.state in STATES ? `${m.id} · ${STATES[m.state]}` : m.id]);
    const isSame = options.length === this.select.options.length && options.every(isOption, this.select.options);
    const before = this.select.value;
    if (!isSame) {
      this.select.replaceChildren(...options.map(([value, text]) => el("option", { value }, text)));
      this.select.value = [before, preferred].find((id) => this.list.some((m) => m.id === id)) ?? this.#best();
    }
    this.#chosen();
  }

  /** Where nothing was chosen: one that answers at once, else one that can be loaded. */
  #best() {
    const found = ["ready", "loading", "available"].map((state) => this.list.find((m) => m.state === state));
    const consensus = this.list.find((m) => m.id === "consensus");
    return (consensus ?? found.find(Boolean) ?? this.list[0])?.id ?? "";
  }

  #chosen() {
    const model = this.current;
    this.select.dataset.state = model?.state ?? "";
    this.note.replaceChildren(...(model ? this.#about(model) : []));
    this.onChange(model);
  }

  #about(model) {
    if (model.state === "missing") {
      return ["Not on this machine yet. Fetch it with ", el("code", {}, `axion-llm pull ${model.id}`)];
    }
    if (model.state === "failed") return [`Could not be loaded: ${this.errors.get(model.id) ?? "see the server's log"}`];
    return [model.description ?? ""];
  }
}

function isOption([value, text], index) {
  return this[index].value === value && this[index].textContent === text;
}
