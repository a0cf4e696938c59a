// Conversations as files: one as Markdown to read, all as JSON to keep and to bring to another browser.

import { shown, title } from "./conversation.js";
import { el } from "./dom.js";
import { isConversation } from "./storage.js";

const FORMAT = "axion-llm chats 1";

export function asMarkdown(conversation) {
  const parts = shown(conversation).map(({ role, text, images, model }) => {
    const who = role === "user" ? "You" : (model ?? "Assistant");
    const pictures = images?.length ? `*${images.length} image${images.length > 1 ? "s" : ""}*\n\n` : "";
    return `## ${who}\n\n${pictures}${text}\n`;
  });
  return `# ${title(conversation)}\n\n${parts.join("\n")}`;
}

export function asJson(conversations) {
  return JSON.stringify({ format: FORMAT, conversations }, null, 1);
}

/** The conversations of a file that asJson wrote; throws an Error that says what is wrong with it. */
export function fromJson(text) {
  let found;
  try {
    found = JSON.parse(text);
  } catch {
    throw new Error("This file is not JSON.");
  }
  if (found?.format !== FORMAT || !Array.isArray(found.conversations)) {
    throw new Error("This file is not an export of chats from this page.");
  }
  const good = found.conversations.filter(isConversation);
  if (good.length < found.conversations.length) {
    throw new Error(`${found.conversations.length - good.length} chats in this file are damaged; nothing was imported.`);
  }
  return good;
}

export function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** A name for a file, made of a title. */
export function fileName(text, ending) {
  const plain = text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "").slice(0, 50);
  return `${plain || "chat"}.${ending}`;
}
