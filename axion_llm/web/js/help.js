// An error as people need it: what happened in a few words, the server's own message, and what to do about it.

const BY_CODE = {
  unreachable: ["No connection to the server", "Is it still running? It is started with: axion-llm serve"],
  connection_lost: ["The answer broke off", "What had come is kept. Try again; the server's log says more."],
  model_not_found: ["There is no such model", "Choose another one at the top of the page."],
  context_length_exceeded: ["Too long for this model", "Begin a new chat, shorten the message, or lower Max tokens."],
  request_too_large: ["Too large for the server", "Send fewer or smaller images, or begin a new chat."],
  model_load_error: ["The model cannot be loaded", "Choose another one, or see the server's log."],
  insufficient_memory: ["Not enough memory for this model", "Choose a smaller one, or try again when others are idle."],
  worker_died: ["The model's process has ended", "It starts again by itself: try once more."],
  shutting_down: ["The server is shutting down", "Try again when it is back."],
};
const BY_STATUS = {
  401: ["An API key is needed", "Enter it in the settings."],
  403: ["Not allowed", "This key may not do that."],
  413: BY_CODE.request_too_large,
  429: ["The server is busy", "Try again in a moment."],
};

/** { title, message, advice, needsKey } of anything that was thrown. */
export function explain(error) {
  const { code = null, status = 0, retryAfterSeconds = null } = error;
  const byStatus = status === 400 ? ["The server does not take this request", "Check the settings."] : null;
  const unknown = ["Something went wrong", "Try again; the server's log says more."];
  const [title, advice] = BY_CODE[code] ?? BY_STATUS[status] ?? byStatus ?? unknown;
  const wait = status === 429 && retryAfterSeconds ? `Try again in ${retryAfterSeconds} s.` : advice;
  return { title, message: String(error.message ?? error), advice: wait, needsKey: status === 401 };
}
