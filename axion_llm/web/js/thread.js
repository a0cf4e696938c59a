// The conversation that is shown: its messages in order, kept in view at the end while it is written.

import { shown } from "./conversation.js";
import { onceAFrame } from "./dom.js";
import { messageView } from "./message_view.js";

const NEAR_END = 80; // pixels: who has scrolled further up is reading there and is left in peace

export class Thread {
  constructor({ root, scroller, toEnd, empty }, actions) {
    Object.assign(this, { root, scroller, toEnd, empty, actions });
    this.views = new Map();
    this.generationOf = () => null;
    this.isFollowing = true;
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    toEnd.addEventListener("click", () => this.goToEnd());
    this.redraw = onceAFrame(() => this.#updateRunning());
  }

  show(conversation) {
    const messages = conversation ? shown(conversation) : [];
    this.views = new Map(messages.map((m) => [m.id, messageView(conversation, m, this.actions)]));
    this.root.replaceChildren(...[...this.views.values()].map((view) => view.root));
    this.empty.hidden = messages.length > 0;
    this.#updateRunning();
    this.goToEnd();
  }

  #updateRunning() {
    for (const [id, view] of this.views) {
      const generation = this.generationOf(id);
      if (generation) view.update(generation);
    }
    if (this.isFollowing) this.#jump();
  }

  /** The answer is complete. */
  finish(id) {
    const view = this.views.get(id);
    if (!view) return;
    view.update(null);
    view.sayTheRest();
    if (this.isFollowing) this.#jump();
  }

  goToEnd() {
    this.isFollowing = true;
    this.#jump();
    this.#scrolled();
  }

  #jump() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    this.isFollowing = scrollHeight - scrollTop - clientHeight < NEAR_END;
    this.toEnd.hidden = this.isFollowing;
  }
}
