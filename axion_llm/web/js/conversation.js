// A conversation as a tree: editing a message or asking again adds a branch beside the old one, so nothing is lost.
// Pure: functions of plain objects that can be kept as JSON.
//
// conversation: { id, created, updated, model, nodes: { id: message }, chosen: { parent id, or "": child id } }
// message: { id, parent, role, text, images, ... }; the rest belongs to whoever writes the answer.

export function newConversation(now = Date.now()) {
  return { id: newId(), created: now, updated: now, nodes: {}, chosen: {} };
}

/** Adds a message below `parent` (null: at the top), on the branch that is shown from now on. Returns it. */
export function addMessage(conversation, parent, message, now = Date.now()) {
  const added = { id: newId(), parent, ...message };
  conversation.nodes[added.id] = added;
  conversation.chosen[parent ?? ""] = added.id;
  conversation.updated = now;
  return added;
}

/** The messages that are shown, first to last. */
export function shown(conversation) {
  const found = [];
  for (let id = conversation.chosen[""]; id; id = conversation.chosen[id]) found.push(conversation.nodes[id]);
  return found;
}

/** From the first message to this one. */
export function pathTo(conversation, id) {
  const found = [];
  for (let node = conversation.nodes[id]; node; node = conversation.nodes[node.parent]) found.unshift(node);
  return found;
}

/** The versions of a message, oldest first. */
export function versions(conversation, id) {
  const { parent } = conversation.nodes[id];
  return Object.values(conversation.nodes).filter((node) => node.parent === parent);
}

export function choose(conversation, id) {
  conversation.chosen[conversation.nodes[id].parent ?? ""] = id;
}

/** Takes a message that has no answers away; the version before it is shown. */
export function removeMessage(conversation, id) {
  const { parent } = conversation.nodes[id];
  delete conversation.nodes[id];
  const left = Object.values(conversation.nodes).filter((node) => node.parent === parent);
  if (left.length) conversation.chosen[parent ?? ""] = left.at(-1).id;
  else delete conversation.chosen[parent ?? ""];
}

export function title(conversation) {
  const first = shown(conversation).find((message) => message.role === "user");
  const text = first?.text.trim().split("\n")[0] ?? "";
  return text.length > 60 ? text.slice(0, 59).trimEnd() + "…" : text || (first?.images?.length ? "Image" : "New chat");
}

/** As the API wants it: what a model reads before it writes the answer below `id`. */
export function apiMessages(conversation, id, systemPrompt) {
  const system = systemPrompt.trim() ? [{ role: "system", content: systemPrompt }] : [];
  const said = pathTo(conversation, id).filter((m) => m.role === "user" || m.text);
  return [...system, ...alternating(said).map(({ role, text, images }) => ({ role, content: content(text, images) }))];
}

/** Messages that were left without an answer join the next one: many models' templates take turns only. */
function alternating(messages) {
  const found = [];
  for (const { role, text, images = [] } of messages) {
    const last = found.at(-1);
    if (last?.role === role) {
      last.text = [last.text, text].filter(Boolean).join("\n\n");
      last.images = [...last.images, ...images];
    } else found.push({ role, text, images });
  }
  return found;
}

function content(text, images) {
  if (!images.length) return text;
  const parts = images.map(({ url }) => ({ type: "image_url", image_url: { url } }));
  return text ? [...parts, { type: "text", text }] : parts;
}

function newId() {
  // crypto.randomUUID needs https or localhost; the page also works on plain http in a network
  return [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
