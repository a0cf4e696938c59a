// The conversations and the answers being written in them: what happens when something is sent, edited, asked again.

import { isConsensusModel } from "./consensus.js";
import { addMessage, apiMessages, choose, newConversation, removeMessage, shown } from "./conversation.js";
import { Generation } from "./generation.js";
import { requestFields } from "./settings.js";

const SAVE_MS = 1000; // how much of an answer may be lost when the browser goes down

export class Chats {
  /** `ask()` gives { model, settings, key }; `on`: shown(), progress(), ended(message id, conversation). */
  constructor(store, ask, on) {
    Object.assign(this, { store, ask, on });
    this.current = null;
    this.running = new Map(); // message id -> { generation, conversation }
    this.isLeaving = false;
    store.all().forEach(endInterrupted);
  }

  open(id) {
    this.current = this.store.get(id) ?? null;
    this.on.shown();
  }

  startNew() {
    this.open(null);
  }

  remove(id) {
    for (const { generation, conversation } of this.running.values()) if (conversation.id === id) generation.stop();
    this.store.remove(id);
    if (this.current?.id === id) this.startNew();
    else this.on.shown();
  }

  /** The answer that is being written in the conversation on show. */
  get generation() {
    return [...this.running.values()].find((r) => r.conversation === this.current)?.generation ?? null;
  }

  generationOf(messageId) {
    return this.running.get(messageId)?.generation ?? null;
  }

  send(text, images) {
    this.current ??= newConversation();
    const last = shown(this.current).at(-1)?.id ?? null;
    this.#askBelow(addMessage(this.current, last, { role: "user", text, images }).id);
  }

  edit(id, text) {
    const { parent, images } = this.current.nodes[id];
    this.generation?.stop();
    this.#askBelow(addMessage(this.current, parent, { role: "user", text, images }).id);
  }

  again(id) {
    const { parent, text, state } = this.current.nodes[id];
    this.generation?.stop();
    if (state === "failed" && !text) removeMessage(this.current, id);
    this.#askBelow(parent);
  }

  choose(id) {
    choose(this.current, id);
    this.store.save(this.current);
    this.on.shown();
  }

  /** The page is being closed: what has come is kept as it is, the browser ends the requests. */
  leave() {
    this.isLeaving = true;
    for (const { conversation } of this.running.values()) this.store.save(conversation);
  }

  #askBelow(parent) {
    const { current: conversation } = this;
    const { model, settings, key } = this.ask();
    const answer = addMessage(conversation, parent, { role: "assistant", text: "", model: model.id, state: "running" });
    const generation = new Generation(answer, {
      onChange: () => {
        this.#saveNowAndThen(conversation);
        this.on.progress();
      },
      onEnd: () => this.#ended(answer, conversation),
    });
    generation.waitingFor = model.state === "ready" || !model.state ? null : `Loading ${model.id}…`;
    this.running.set(answer.id, { generation, conversation });
    this.store.save(conversation);
    this.on.shown();
    generation.run(requestBody(conversation, parent, model, settings), key);
  }

  #ended(answer, conversation) {
    if (this.isLeaving) return;
    this.running.delete(answer.id);
    if (this.store.get(conversation.id)) this.store.save(conversation);
    this.on.ended(answer.id, conversation);
  }

  #saveNowAndThen(conversation) {
    const now = performance.now();
    if (now - (this.saved ?? 0) < SAVE_MS || !this.store.get(conversation.id)) return;
    this.saved = now;
    this.store.save(conversation);
  }
}

function requestBody(conversation, parent, model, settings) {
  const body = {
    model: model.id,
    messages: apiMessages(conversation, parent, settings.system),
    stream: true,
    stream_options: { include_usage: true },
    ...requestFields(settings),
  };
  return isConsensusModel(model.id) ? { ...body, consensus: { events: "text" } } : body;
}

/** The page was closed while an answer was being written: what had come is kept. */
function endInterrupted(conversation) {
  for (const message of Object.values(conversation.nodes)) {
    if (message.state === "running") Object.assign(message, { state: "done", interrupted: true });
  }
}
