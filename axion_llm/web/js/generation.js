// One answer being written: asks the server, collects what comes into the message, tells who looks at it.

import { streamChat } from "./api.js";
import { fold } from "./consensus.js";
import { explain } from "./help.js";
import { Speed } from "./speed.js";

export class Generation {
  /** `message` is written to; `onChange` is called after each change, `onEnd` once. */
  constructor(message, { onChange, onEnd }) {
    this.message = message;
    this.onChange = onChange;
    this.onEnd = onEnd;
    this.abort = new AbortController();
    this.speed = new Speed(performance.now());
    this.stage = "waiting"; // for the model, reading the prompt, writing
  }

  stop() {
    this.abort.abort();
  }

  async run(body, key) {
    try {
      const options = { key, signal: this.abort.signal, onAccepted: () => this.#enter("reading") };
      for await (const chunk of streamChat(body, options)) this.#take(chunk);
      this.message.state = "done";
    } catch (error) {
      this.message.state = this.abort.signal.aborted ? "stopped" : "failed";
      if (this.message.state === "failed") this.message.error = explain(error);
    }
    this.speed.end(performance.now());
    this.message.speed = this.speed.toJSON();
    this.onEnd();
  }

  #count(tokens) {
    if (this.message.consensus) this.speed.countOfAll(tokens);
    else this.speed.count(tokens);
  }

  #enter(stage) {
    this.stage = stage;
    this.onChange();
  }

  #take(chunk) {
    const choice = chunk.choices?.[0];
    if (choice?.delta?.content) {
      this.stage = "writing";
      this.speed.piece(performance.now());
      this.message.text += choice.delta.content;
    }
    if (choice?.finish_reason) this.message.finish = choice.finish_reason;
    if (chunk.consensus) this.message.consensus = fold(this.message.consensus ?? null, chunk.consensus);
    if (chunk.usage) this.#count(chunk.usage.completion_tokens);
    this.onChange();
  }
}
