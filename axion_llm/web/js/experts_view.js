// The experts of a consensus answer side by side: who says what, how many agree, who decided.

import { el } from "./dom.js";
import { MarkdownView } from "./markdown/view.js";
import { duration } from "./speed.js";

const STATUS = {
  waiting: "waiting",
  running: "writing",
  ok: "done",
  blank: "said nothing",
  cut: "cut off",
  failed: "failed",
  timeout: "too late",
  cancelled: "not needed",
};

export class ExpertsView {
  constructor() {
    this.summary = el("summary");
    this.reason = el("p", { class: "reason muted" });
    const options = { class: "experts", role: "list", tabindex: "0", "aria-label": "What the experts say" };
    this.grid = el("div", options);
    this.root = el("details", { class: "consensus", open: true }, this.summary, this.reason, this.grid);
    this.cards = new Map();
  }

  update(state) {
    this.summary.replaceChildren(...summary(state));
    this.reason.textContent = state.reason ?? "";
    this.reason.hidden = !state.reason;
    for (const expert of state.experts) this.#card(expert).update(expert, state);
  }

  #card(expert) {
    if (!this.cards.has(expert.index)) {
      const card = new ExpertCard();
      this.cards.set(expert.index, card);
      this.grid.append(card.root);
    }
    return this.cards.get(expert.index);
  }
}

class ExpertCard {
  constructor() {
    this.name = el("strong");
    this.status = el("span", { class: "status" });
    this.says = el("p", { class: "extracted" });
    this.body = el("div", { class: "prose", tabindex: "0", role: "region" });
    this.text = new MarkdownView(this.body);
    this.root = el("div", { class: "expert", role: "listitem" }, el("header", {}, this.name, this.status), this.says, this.body);
  }

  update(expert, state) {
    const isChosen = state.chosen === expert.index;
    const isOneOfMany = state.experts.some((e) => e.model === expert.model && e.sample > 0);
    const name = isOneOfMany ? `${expert.model} (${expert.sample + 1})` : expert.model;
    this.name.textContent = name;
    this.body.setAttribute("aria-label", `${name}: the whole answer`);
    this.root.dataset.status = expert.status;
    this.root.classList.toggle("is-chosen", isChosen);
    const time = expert.timings?.total_ms;
    const status = STATUS[expert.status] ?? expert.status;
    this.status.textContent = [isChosen ? "chosen" : status, time ? duration(time) : ""].filter(Boolean).join(" · ");
    const isShort = expert.extracted && expert.extracted !== expert.text;
    this.says.textContent = expert.error ?? (isShort ? expert.extracted : "");
    this.says.hidden = !this.says.textContent;
    this.text.update(expert.text ?? "");
    this.body.hidden = !expert.text;
  }
}

function summary({ experts, strategy, agreement, decidedBy, judge, isEarly }) {
  const done = experts.filter((e) => !["waiting", "running"].includes(e.status)).length;
  const isDecided = decidedBy !== undefined;
  const many = `${experts.length} ${experts.length === 1 ? "answer" : "answers"}`;
  const parts = [el("span", {}, isDecided ? many : experts.length ? `${done} of ${many} in` : "Choosing experts…")];
  if (typeof agreement === "number") parts.push(agreementMeter(agreement));
  const by = judge ? `written by ${judge}` : isDecided ? `decided by ${words(decidedBy)}` : "";
  const isSame = decidedBy === strategy;
  const how = [!isSame && strategy && words(strategy), by, isEarly && "the rest was not needed"].filter(Boolean).join(" · ");
  if (how) parts.push(el("span", { class: "muted" }, how));
  return parts;
}

/** Agreement is how many say the same. It says nothing about being right, so it is never called that. */
function agreementMeter(agreement) {
  const percent = `${Math.round(agreement * 100)}%`;
  const meter = el("meter", { min: "0", max: "1", value: String(agreement), "aria-label": "Agreement" }, percent);
  return el("span", { class: "agreement", title: "How many say the same, not whether it is right" }, meter, `${percent} agree`);
}

const WORDS = { route: "routing", synthesize: "synthesis", self: "samples of one model" };

function words(name) {
  return WORDS[name] ?? String(name).replaceAll("_", " ");
}
