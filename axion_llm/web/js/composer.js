// Where a message is written: Enter sends where there is a keyboard, images can be chosen, pasted and dropped.

import { el } from "./dom.js";
import { icon } from "./icons.js";
import { imageFiles, readImage } from "./images.js";

const HAS_KEYBOARD = matchMedia("(hover: hover) and (pointer: fine)").matches;

export class Composer {
  /** `on`: send(text, images), stop(), trouble(text). */
  constructor({ form, area, send, stop, attach, file, pictures, hint }, on) {
    Object.assign(this, { form, area, send, stop, attach, file, pictures, hint, on });
    this.images = [];
    this.isBusy = false;
    this.problem = null; // why nothing can be sent
    this.takesImages = false;
    form.addEventListener("submit", (event) => this.#submit(event));
    form.addEventListener("paste", (event) => this.#take(imageFiles(event.clipboardData), event));
    form.addEventListener("dragover", (event) => this.takesImages && event.preventDefault());
    form.addEventListener("drop", (event) => this.#take(imageFiles(event.dataTransfer), event));
    area.addEventListener("keydown", (event) => this.#key(event));
    area.addEventListener("input", () => this.#fit());
    stop.addEventListener("click", () => on.stop());
    attach.addEventListener("click", () => file.click());
    file.addEventListener("change", async () => {
      await this.#take([...file.files]);
      file.value = "";
    });
  }

  set({ isBusy = this.isBusy, problem = this.problem, takesImages = this.takesImages }) {
    Object.assign(this, { isBusy, problem, takesImages });
    this.stop.hidden = !isBusy;
    this.send.hidden = isBusy;
    this.attach.hidden = !takesImages;
    const blind = !takesImages && this.images.length ? "This model does not see images: remove them or choose another." : "";
    this.hint.textContent = problem ?? blind;
    this.send.setAttribute("aria-disabled", String(Boolean(problem ?? blind)));
  }

  fill(text) {
    this.area.value = text;
    this.#fit();
    this.area.focus();
  }

  #submit(event) {
    event.preventDefault();
    const text = this.area.value.trim();
    if (this.isBusy || this.send.getAttribute("aria-disabled") === "true") return;
    if (!text && !this.images.length) return this.area.focus();
    const { images } = this;
    this.images = [];
    this.area.value = "";
    this.#fit();
    this.#drawImages();
    this.on.send(text, images);
  }

  #key(event) {
    const isPlainEnter = event.key === "Enter" && !event.shiftKey && !event.isComposing;
    if (isPlainEnter && (HAS_KEYBOARD || event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.form.requestSubmit();
    }
  }

  #fit() {
    this.area.style.height = "auto";
    this.area.style.height = `${this.area.scrollHeight}px`;
  }

  async #take(files, event = null) {
    if (!files.length) return;
    if (!this.takesImages) return this.on.trouble("This model does not see images: choose one that does.");
    event?.preventDefault();
    for (const file of files) {
      try {
        this.images.push(await readImage(file));
      } catch (error) {
        this.on.trouble(error.message);
      }
    }
    this.#drawImages();
  }

  #drawImages() {
    const picture = (image) => {
      const label = `Remove ${image.name}`;
      const remove = el("button", { type: "button", "aria-label": label, onclick: () => this.#remove(image) }, icon("close"));
      return el("li", {}, el("img", { src: image.url, alt: image.name }), remove);
    };
    this.pictures.replaceChildren(...this.images.map(picture));
    this.pictures.hidden = !this.images.length;
    this.set({});
  }

  #remove(image) {
    this.images = this.images.filter((i) => i !== image);
    this.#drawImages();
    this.area.focus();
  }
}
