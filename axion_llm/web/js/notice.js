// A line that comes up at the bottom for a while, with at most one thing to do about it.

import { el } from "./dom.js";

const SHOWN_MS = 8000;

export class Notice {
  constructor(root, announce) {
    this.root = root;
    this.announce = announce;
    this.timer = null;
  }

  show(text, action = null) {
    clearTimeout(this.timer);
    const button = action && el("button", { type: "button", onclick: () => this.#act(action.run) }, action.label);
    this.root.replaceChildren(el("span", {}, text), ...(button ? [button] : []));
    this.root.hidden = false;
    this.announce(action ? `${text}. ${action.label} is possible at the end of the page.` : text);
    this.timer = setTimeout(() => this.hide(), SHOWN_MS);
  }

  hide() {
    if (this.root.contains(document.activeElement)) {
      this.timer = setTimeout(() => this.hide(), SHOWN_MS); // not from under the keyboard
      return;
    }
    this.root.hidden = true;
  }

  #act(run) {
    this.root.hidden = true;
    run();
  }
}
