// What the user sets: kept in this browser; the API key only while the page is open, unless told otherwise.

const KEY = "axion.settings";
const SECRET = "axion.key";

/** Limits as the API has them. An empty field leaves the choice to the model. */
export const NUMBERS = {
  temperature: { label: "Temperature", min: 0, max: 2, step: "any", hint: "0 always takes the likeliest word, 1 varies" },
  top_p: { label: "Top p", min: 0, max: 1, step: "any", hint: "choose among the likeliest words of this total share" },
  max_tokens: { label: "Max tokens", min: 1, max: 1_000_000, step: 1, hint: "where an answer is cut" },
  seed: { label: "Seed", min: -9_007_199_254_740_991, max: 9_007_199_254_740_991, step: 1, hint: "the same seed, the same text" },
};
const DEFAULTS = { system: "", model: "", temperature: null, top_p: null, max_tokens: null, seed: null };

export function loadSettings() {
  try {
    return { ...DEFAULTS, ...JSON.parse(localStorage.getItem(KEY) ?? "{}") };
  } catch {
    return { ...DEFAULTS };
  }
}

export function saveSettings(settings) {
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // no storage: they hold for this page
  }
}

/** The fields of a request. */
export function requestFields(settings) {
  const given = Object.keys(NUMBERS).filter((name) => settings[name] !== null);
  return Object.fromEntries(given.map((name) => [name, settings[name]]));
}

/** The number in a field, null when it is empty; throws an Error that says what is wrong. */
export function readNumber(name, text) {
  const { label, min, max, step } = NUMBERS[name];
  if (!text.trim()) return null;
  const value = Number(text);
  if (!Number.isFinite(value)) throw new Error(`${label}: not a number`);
  if (step === 1 && !Number.isInteger(value)) throw new Error(`${label}: a whole number`);
  if (value < min) throw new Error(`${label}: at least ${min}`);
  if (value > max) throw new Error(`${label}: at most ${max}`);
  return value;
}

export function loadKey() {
  try {
    return { key: sessionStorage.getItem(SECRET) ?? localStorage.getItem(SECRET) ?? "", isKept: SECRET in localStorage };
  } catch {
    return { key: "", isKept: false };
  }
}

export function saveKey(key, isKept) {
  try {
    localStorage.removeItem(SECRET);
    sessionStorage.removeItem(SECRET);
    if (key) (isKept ? localStorage : sessionStorage).setItem(SECRET, key);
  } catch {
    // no storage: the caller has it for this page
  }
}
