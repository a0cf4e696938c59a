// Conversations in the browser's localStorage, one entry each. Where there is none, or it is full, they live as long
// as the page, and `onTrouble` says so.

const PREFIX = "axion.chat.";

export class ConversationStore {
  constructor(onTrouble = () => {}) {
    this.onTrouble = onTrouble;
    this.held = new Map(); // id -> conversation
    this.reload();
  }

  reload() {
    for (const key of keys()) {
      const found = parse(key);
      if (found) this.held.set(found.id, found);
    }
  }

  /** The latest first. */
  all() {
    return [...this.held.values()].sort((a, b) => b.updated - a.updated);
  }

  get(id) {
    return this.held.get(id);
  }

  save(conversation) {
    this.held.set(conversation.id, conversation);
    try {
      localStorage.setItem(PREFIX + conversation.id, JSON.stringify(conversation));
    } catch (error) {
      const isFull = error.name === "QuotaExceededError";
      this.onTrouble(
        isFull
          ? "This browser's storage is full: the chat is kept until you close the page. Export it, or delete old ones."
          : "This browser keeps nothing for this page: chats are gone when you close it.",
      );
    }
  }

  remove(id) {
    this.held.delete(id);
    try {
      localStorage.removeItem(PREFIX + id);
    } catch {
      // there was nothing to remove
    }
  }

  /** Another page of this browser has changed an entry. Returns whether it was a conversation. */
  takeOver(key) {
    if (!key?.startsWith(PREFIX)) return false;
    const found = parse(key);
    if (found) this.held.set(found.id, found);
    else this.held.delete(key.slice(PREFIX.length));
    return true;
  }
}

function keys() {
  try {
    return Object.keys(localStorage).filter((key) => key.startsWith(PREFIX));
  } catch {
    return [];
  }
}

function parse(key) {
  try {
    const found = JSON.parse(localStorage.getItem(key));
    return isConversation(found) ? found : null;
  } catch {
    return null;
  }
}

/** Whether something read from a file or from the storage can be shown. */
export function isConversation(value) {
  const isObject = (v) => typeof v === "object" && v !== null && !Array.isArray(v);
  if (!isObject(value) || typeof value.id !== "string" || !isObject(value.nodes) || !isObject(value.chosen)) return false;
  if (typeof value.updated !== "number") return false;
  return Object.entries(value.nodes).every(([id, m]) => isMessage(m, id)) && isTree(value);
}

function isMessage(message, id) {
  const isImage = (image) => typeof image?.url === "string" && image.url.startsWith("data:image/");
  return (
    message?.id === id &&
    (message.role === "user" || message.role === "assistant") &&
    typeof message.text === "string" &&
    (message.images === undefined || (Array.isArray(message.images) && message.images.every(isImage)))
  );
}

/** Every parent and every chosen child exists, and no message is below itself. */
function isTree({ nodes, chosen }) {
  const isBelow = Object.entries(chosen).every(([parent, child]) => (nodes[child]?.parent ?? "") === parent && nodes[child]);
  const depths = Object.values(nodes).map((node) => {
    const seen = new Set();
    for (let at = node; at; at = nodes[at.parent]) {
      if (seen.has(at.id)) return false;
      seen.add(at.id);
      if (at.parent !== null && !nodes[at.parent]) return false;
    }
    return true;
  });
  return isBelow && depths.every(Boolean);
}
