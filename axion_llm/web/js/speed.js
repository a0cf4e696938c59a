// How fast an answer comes. Times in milliseconds, of performance.now().

export class Speed {
  constructor(now) {
    this.began = now;
    this.first = null;
    this.last = null;
    this.tokens = 0;
    this.ended = null;
    this.tokensOfAll = null;
  }

  /** A piece of text came; the server sends one for each token. */
  piece(now) {
    this.first ??= now;
    this.last = now;
    this.tokens += 1;
  }

  /** The server's own count, at the end. */
  count(tokens) {
    this.tokens = tokens;
  }

  /** Several models have worked for this answer. */
  countOfAll(tokens) {
    this.tokensOfAll = tokens;
  }

  end(now) {
    this.ended = now;
  }

  get ttft() {
    return this.first === null ? null : this.first - this.began;
  }

  get perSecond() {
    const span = this.last - this.first;
    return this.tokens > 1 && span > 0 ? ((this.tokens - 1) * 1000) / span : null;
  }

  toJSON() {
    const { tokens, ttft, perSecond, tokensOfAll } = this;
    return { tokens, ttft, perSecond, tokensOfAll, took: this.ended - this.began };
  }
}

/** "24 tokens · 145 tokens/s · first token 99 ms" */
export function describe({ tokens, ttft, perSecond, tokensOfAll, took }) {
  if (tokensOfAll) return `${tokensOfAll} tokens by all models · ${duration(took)}`;
  const parts = [];
  if (tokens) parts.push(`${tokens} token${tokens === 1 ? "" : "s"}`);
  if (perSecond) parts.push(`${perSecond.toFixed(perSecond < 10 ? 1 : 0)} tokens/s`);
  if (ttft !== null && ttft !== undefined) parts.push(`first token ${duration(ttft)}`);
  return parts.join(" · ");
}

export function duration(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
}
