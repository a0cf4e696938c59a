// The conversations of this browser: open, delete, export, import. On a narrow page it slides over the others.

import { title } from "./conversation.js";
import { el } from "./dom.js";
import { icon } from "./icons.js";

export class Sidebar {
  /** `on`: open(id), remove(id). */
  constructor({ root, list, toggle, close, rest }, on) {
    Object.assign(this, { root, list, toggle, close, rest, on });
    this.narrow = matchMedia("(max-width: 60rem)");
    toggle.addEventListener("click", () => this.setOpen(!this.isOpen));
    close.addEventListener("click", () => this.setOpen(false));
    root.addEventListener("keydown", (event) => event.key === "Escape" && this.setOpen(false));
    this.narrow.addEventListener("change", () => this.setOpen(false));
    this.setOpen(false);
  }

  /** On a wide page it is always there. */
  setOpen(isOpen) {
    const isOver = this.narrow.matches && isOpen;
    const hadFocus = this.root.contains(document.activeElement);
    this.isOpen = isOpen;
    this.root.classList.toggle("is-open", isOver);
    this.root.inert = this.narrow.matches && !isOpen;
    for (const part of this.rest) part.inert = isOver;
    this.toggle.setAttribute("aria-expanded", String(isOver));
    if (isOver) this.close.focus();
    else if (hadFocus && this.narrow.matches) this.toggle.focus();
  }

  draw(conversations, currentId) {
    this.list.replaceChildren(...conversations.map((c) => this.#entry(c, c.id === currentId)));
  }

  #entry(conversation, isCurrent) {
    const name = title(conversation);
    const open = () => {
      this.on.open(conversation.id);
      if (this.narrow.matches) this.setOpen(false);
    };
    const options = { type: "button", class: "entry", "aria-current": isCurrent ? "true" : null, onclick: open };
    const remove = { type: "button", class: "quiet", "aria-label": `Delete ${name}`, onclick: () => this.on.remove(conversation.id) };
    return el("li", {}, el("button", options, name), el("button", remove, icon("close")));
  }
}
