// One message on the page: what was said, what can be done with it, and, of an answer, how it came about.

import { versions } from "./conversation.js";
import { copyButton, el } from "./dom.js";
import { ExpertsView } from "./experts_view.js";
import { icon } from "./icons.js";
import { MarkdownView } from "./markdown/view.js";
import { describe } from "./speed.js";

/** `actions`: edit(id, text), again(id), choose(id), openSettings(), announce(text). */
export function messageView(conversation, message, actions) {
  const View = message.role === "user" ? QuestionView : AnswerView;
  return new View(conversation, message, actions);
}

class QuestionView {
  constructor(conversation, message, actions) {
    Object.assign(this, { message, actions });
    this.text = el("div", { class: "said" }, message.text);
    const images = (message.images ?? []).map(({ url, name }) => el("img", { src: url, alt: name ?? "image" }));
    this.edit = el("button", { type: "button", class: "quiet", onclick: () => this.#startEdit() }, "Edit");
    const copy = copyButton(() => message.text, "Copy", actions.announce);
    this.bar = el("div", { class: "actions" }, versionBar(conversation, message, actions), this.edit, copy);
    this.root = el(
      "article",
      { class: "message question", "data-id": message.id },
      el("h2", { class: "who" }, "You"),
      images.length ? el("div", { class: "images" }, ...images) : null,
      this.text,
      this.bar,
    );
  }

  update() {}

  #startEdit() {
    const area = el("textarea", { "aria-label": "Your message", rows: "3" });
    area.value = this.message.text;
    const stop = () => {
      form.replaceWith(this.text);
      this.bar.hidden = false;
      this.edit.focus();
    };
    const save = (event) => {
      event.preventDefault();
      if (area.value.trim()) this.actions.edit(this.message.id, area.value.trim());
    };
    const form = el(
      "form",
      { class: "edit", onsubmit: save },
      area,
      el("button", { type: "submit", class: "primary" }, "Send"),
      el("button", { type: "button", onclick: stop }, "Cancel"),
    );
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") stop();
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
    this.text.replaceWith(form);
    this.bar.hidden = true;
    area.focus();
  }
}

class AnswerView {
  constructor(conversation, message, actions) {
    Object.assign(this, { conversation, message, actions });
    this.body = el("div", { class: "prose" });
    this.text = new MarkdownView(this.body, actions.announce);
    this.numSettled = 0;
    this.experts = null;
    this.foot = el("div", { class: "foot" });
    this.root = el(
      "article",
      { class: "message answer", "data-id": message.id },
      el("h2", { class: "who" }, message.model ?? "Answer"),
      this.body,
      this.foot,
    );
    this.update(null);
  }

  /** `generation` is the one that writes it, null when it is complete. */
  update(generation) {
    const { message } = this;
    if (message.consensus) this.#experts().update(message.consensus);
    this.text.update(message.text);
    this.root.setAttribute("aria-busy", String(generation !== null));
    if (generation) {
      this.foot.replaceChildren(progress(generation));
      this.#sayWhatHasSettled();
    } else this.foot.replaceChildren(...this.#ending());
  }

  #experts() {
    if (!this.experts) {
      this.experts = new ExpertsView();
      this.body.before(this.experts.root);
    }
    return this.experts;
  }

  #sayWhatHasSettled() {
    const settled = this.text.settled(this.numSettled);
    this.numSettled += settled.length;
    settled.forEach(this.actions.announce);
  }

  /** For those who listen: what has not been read out, and how it ended. */
  sayTheRest() {
    [...this.body.children].slice(this.numSettled).forEach((node) => this.actions.announce(node.textContent));
    const { state, error } = this.message;
    this.actions.announce(error ? `${error.title}. ${error.advice}` : state === "stopped" ? "Stopped." : "End of the answer.");
  }

  #ending() {
    const { message, actions } = this;
    const again = el("button", { type: "button", class: "quiet", onclick: () => actions.again(message.id) }, "Ask again");
    const copy = message.text ? copyButton(() => message.text, "Copy", actions.announce) : null;
    const facts = el("span", { class: "muted" }, describeEnding(message));
    const bar = el("div", { class: "actions" }, versionBar(this.conversation, message, actions), copy, again, facts);
    return message.error ? [errorBox(message.error, actions), bar] : [bar];
  }
}

function describeEnding({ text, state, finish, speed, interrupted }) {
  const how = { stopped: "stopped", failed: text ? "broke off" : "" }[state] ?? (interrupted ? "the page was closed" : "");
  const cut = finish === "length" ? "cut at the token limit" : "";
  return [how, cut, speed ? describe(speed) : ""].filter(Boolean).join(" · ");
}

function progress({ stage, speed, waitingFor }) {
  const text = { waiting: waitingFor ?? "Waiting for the model…", reading: "Reading…" }[stage] ?? describe(speed);
  return el("p", { class: "progress" }, el("span", { class: "pulse", "aria-hidden": "true" }), text);
}

function errorBox({ title, message, advice, needsKey }, actions) {
  const settings = needsKey && el("button", { type: "button", onclick: actions.openSettings }, "Open settings");
  return el("div", { class: "error" }, el("strong", {}, title), el("p", {}, message), el("p", {}, advice), settings || null);
}

function versionBar(conversation, message, actions) {
  const all = versions(conversation, message.id);
  if (all.length < 2) return null;
  const at = all.findIndex((m) => m.id === message.id);
  const step = (to, label, name) => {
    const options = { type: "button", class: "quiet", "aria-label": label, disabled: !all[to] };
    return el("button", { ...options, onclick: () => actions.choose(all[to].id, label) }, icon(name));
  };
  return el(
    "span",
    { class: "versions" },
    step(at - 1, "Earlier version", "previous"),
    el("span", {}, el("span", { class: "visually-hidden" }, "Version "), `${at + 1} / ${all.length}`),
    step(at + 1, "Later version", "next"),
  );
}
