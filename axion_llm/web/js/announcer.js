// What screen readers are told without being asked: politely, whole paragraphs, never token by token.

import { el } from "./dom.js";

export class Announcer {
  constructor(region) {
    this.region = region;
  }

  say = (text) => {
    this.region.append(el("p", {}, text));
    while (this.region.children.length > 20) this.region.firstElementChild.remove();
  };
}
