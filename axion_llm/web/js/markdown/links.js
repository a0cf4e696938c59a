// Which addresses a model's text may lead to: absolute ones of the web, and mail. Everything else stays text.

const SCHEMES = ["http:", "https:", "mailto:"];

/** The normalised address, or null. */
export function safeHref(text) {
  try {
    const url = new URL(text);
    return SCHEMES.includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}
