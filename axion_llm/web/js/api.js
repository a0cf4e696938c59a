// The calls of the server's own API. Every failure is an ApiError, but for a call that was aborted on purpose.

import { eventData } from "./sse.js";

export class ApiError extends Error {
  /** status: of HTTP, 0 when there was no answer; code: as the server names it, or one of ours. */
  constructor(message, { status = 0, code = null, retryAfterSeconds = null } = {}) {
    super(message);
    Object.assign(this, { status, code, retryAfterSeconds });
  }
}

export async function listModels(key) {
  const response = await call("/v1/models", { headers: headers(key) });
  return (await response.json()).data;
}

/** Why models could not be loaded, by name. */
export async function loadErrors(key) {
  const response = await call("/health", { headers: headers(key) });
  const { models = [] } = await response.json();
  return new Map(models.filter((m) => m.error).map((m) => [m.id, m.error]));
}

/** The chunks of a streamed answer. `onAccepted` is called when the model has taken the request. */
export async function* streamChat(body, { key, signal, onAccepted = () => {} }) {
  const response = await call("/v1/chat/completions", {
    method: "POST",
    headers: { ...headers(key), "content-type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  onAccepted();
  yield* chunks(response.body, signal);
}

async function* chunks(body, signal) {
  try {
    for await (const data of eventData(body)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(chunk.error.message, { status: 200, code: chunk.error.code });
      yield chunk;
    }
  } catch (error) {
    if (signal?.aborted || error instanceof ApiError) throw error;
  }
  signal?.throwIfAborted();
  throw new ApiError("The connection ended before the answer did.", { code: "connection_lost" });
}

async function call(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError("The server cannot be reached.", { code: "unreachable" });
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const { error } = await response.json().catch(() => ({}));
  const message = error?.message ?? `The server answered ${response.status}.`;
  const wait = Number(response.headers.get("retry-after")) || null;
  return new ApiError(message, { status: response.status, code: error?.code ?? null, retryAfterSeconds: wait });
}

function headers(key) {
  return key ? { authorization: `Bearer ${key}` } : {};
}
