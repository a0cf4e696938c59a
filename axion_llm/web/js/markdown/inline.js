// Inline Markdown -> a tree of plain objects, in time linear in the text whatever a model writes.
//
// Node types: text {text}, code {text}, strong | em | del {children}, link {href, children}, break.
// What is open (*, _, ~~, [) is a stack of frames; a closing mark takes the nearest frame of its kind and turns those
// above it back into plain text.

import { safeHref } from "./links.js";

const MAX_OPEN = 64; // frames; beyond it marks are text, so that neither the tree nor the work can grow without bound
const PLAIN = /(?:(?!\bhttps?:\/\/)[^\\`*_~[\]!<&\n])+/y;
const MARKS = /\*+|_+|~+/y;
const BARE_URL = /https?:\/\/[^\s<>"`]+/y;
const IN_ANGLES = /<((?:https?:\/\/|mailto:)[^\s<>]+)>/y;
const LINE_BREAK_TAG = /<br\s*\/?>/iy;
const ENTITY = /&(?:([a-z]{2,6})|#(\d{1,7})|#x([0-9a-f]{1,6}));/iy;
const DESTINATION = /\(\s*(?:<([^<>\n]*)>|([^\s()<>]*(?:\([^\s()]*\)[^\s()<>]*)*))(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)/y;
const NAMED = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };
const ESCAPABLE = /[!-/:-@[-`{-~]/;
const KEPT_ESCAPES = "()[]"; // LaTeX's \( and \[: shown as they are
const SPACE = /^\s?$/u;
const PUNCTUATION = /^[\p{P}\p{S}]$/u;

export function parseInline(text) {
  return new Scanner(text).run();
}

class Scanner {
  constructor(text) {
    this.text = text;
    this.at = 0;
    this.frames = [{ mark: "", count: 0, children: [] }];
    this.open = { "*": 0, _: 0, "~": 0, "[": 0 };
    this.backticks = null; // length of a run -> where runs of it begin, the next one last
  }

  run() {
    while (this.at < this.text.length) this.step();
    this.flatten(1);
    return this.frames[0].children;
  }

  step() {
    switch (this.text[this.at]) {
      case "\\": return this.escape();
      case "`": return this.code();
      case "*": case "_": case "~": return this.marks();
      case "!": return this.text[this.at + 1] === "[" ? this.openBracket("![") : this.literal("!");
      case "[": return this.openBracket("[");
      case "]": return this.closeBracket();
      case "<": return this.angle();
      case "&": return this.entity();
      case "\n": return this.lineBreak();
    }
    const plain = this.match(PLAIN);
    if (plain) this.addText(plain[0]);
    else this.bareUrl();
  }

  match(sticky) {
    sticky.lastIndex = this.at;
    const found = sticky.exec(this.text);
    if (found) this.at = sticky.lastIndex;
    return found;
  }

  literal(text) {
    this.at += text.length;
    this.addText(text);
  }

  add(node) {
    this.frames.at(-1).children.push(node);
  }

  addText(text) {
    const last = this.frames.at(-1).children.at(-1);
    if (last?.type === "text") last.text += text;
    else if (text) this.add({ type: "text", text });
  }

  escape() {
    const next = this.text[this.at + 1];
    if (next === "\n") {
      this.at += 1;
      this.lineBreak();
    } else if (next !== undefined && ESCAPABLE.test(next)) {
      this.at += 2;
      this.addText(KEPT_ESCAPES.includes(next) ? "\\" + next : next);
    } else this.literal("\\");
  }

  lineBreak() {
    this.at += 1;
    while (this.text[this.at] === " ") this.at += 1;
    const last = this.frames.at(-1).children.at(-1);
    if (last?.type === "text") last.text = last.text.replace(/ +$/, "");
    this.add({ type: "break" });
  }

  code() {
    const length = /^`+/.exec(this.text.slice(this.at, this.at + 100))[0].length;
    const end = this.nextBackticks(length);
    if (end === undefined) return this.literal("`".repeat(length));
    let text = this.text.slice(this.at + length, end).replaceAll("\n", " ");
    if (text.startsWith(" ") && text.endsWith(" ") && text.trim()) text = text.slice(1, -1);
    this.add({ type: "code", text });
    this.at = end + length;
  }

  nextBackticks(length) {
    if (!this.backticks) {
      this.backticks = new Map();
      for (const run of [...this.text.matchAll(/`+/g)].reverse()) {
        const key = run[0].length;
        if (!this.backticks.has(key)) this.backticks.set(key, []);
        this.backticks.get(key).push(run.index);
      }
    }
    const places = this.backticks.get(length) ?? [];
    while (places.length && places.at(-1) <= this.at) places.pop();
    return places.at(-1);
  }

  marks() {
    const start = this.at;
    const [run] = this.match(MARKS);
    const mark = run[0];
    if (mark === "~" && run.length !== 2) return this.addText(run);
    const { canOpen, canClose } = flanks(mark, this.text[start - 1] ?? "", this.text[this.at] ?? "");
    const left = canClose ? this.closeMarks(mark, run.length) : run.length;
    if (!left) return;
    if (canOpen && this.frames.length < MAX_OPEN) this.push(mark, left);
    else this.addText(mark.repeat(left));
  }

  push(mark, count) {
    this.frames.push({ mark, count, children: [] });
    this.open[mark.at(-1)] += 1;
  }

  /** Returns how many of the marks closed nothing. */
  closeMarks(mark, count) {
    while (count && this.open[mark]) {
      const index = this.frames.findLastIndex((frame) => frame.mark === mark);
      this.flatten(index + 1);
      const frame = this.frames[index];
      const used = Math.min(2, frame.count, count);
      const type = mark === "~" ? "del" : used === 2 ? "strong" : "em";
      const node = { type, children: frame.children };
      frame.count -= used;
      count -= used;
      frame.children = [node];
      if (!frame.count) this.pop();
    }
    return count;
  }

  pop() {
    const frame = this.frames.pop();
    this.open[frame.mark.at(-1)] -= 1;
    const into = this.frames.at(-1).children;
    for (const node of frame.children) into.push(node);
  }

  /** The frames from `index` on were not closed: their marks are text. */
  flatten(index) {
    const unclosed = this.frames.splice(index);
    for (const frame of unclosed) {
      this.open[frame.mark.at(-1)] -= 1;
      this.addText(frame.mark.repeat(frame.count));
      for (const node of frame.children) node.type === "text" ? this.addText(node.text) : this.add(node);
    }
  }

  openBracket(mark) {
    if (this.frames.length >= MAX_OPEN) return this.literal(mark);
    this.at += mark.length;
    this.push(mark, 1);
  }

  closeBracket() {
    if (!this.open["["]) return this.literal("]");
    const index = this.frames.findLastIndex((frame) => frame.mark.endsWith("["));
    this.flatten(index + 1);
    const { children, isInLink } = this.frames[index];
    const href = isInLink ? null : this.destination();
    if (!href) {
      this.flatten(index);
      return this.literal("]");
    }
    this.frames[index].children = [{ type: "link", href, children: children.length ? children : [textNode(href)] }];
    this.pop();
    for (const frame of this.frames) frame.isInLink = true; // no link around a link
  }

  /** Of "](address)"; moves on only when there is one. */
  destination() {
    const start = this.at;
    this.at += 1;
    const found = this.match(DESTINATION);
    const href = found && safeHref(found[1] ?? found[2]);
    if (!href) this.at = start;
    return href;
  }

  angle() {
    if (this.match(LINE_BREAK_TAG)) return this.add({ type: "break" });
    const start = this.at;
    const found = this.match(IN_ANGLES);
    const href = found && safeHref(found[1]);
    if (href) return this.add({ type: "link", href, children: [textNode(found[1])] });
    this.at = start;
    this.literal("<");
  }

  entity() {
    const start = this.at;
    const found = this.match(ENTITY);
    const text = found && (found[1] ? NAMED[found[1].toLowerCase()] : character(found[2], found[3]));
    if (text) return this.addText(text);
    this.at = start;
    this.literal("&");
  }

  bareUrl() {
    const found = this.match(BARE_URL);
    if (!found) return this.literal(this.text[this.at]);
    const url = withoutTail(found[0]);
    this.at -= found[0].length - url.length;
    const href = safeHref(url);
    if (href) this.add({ type: "link", href, children: [textNode(url)] });
    else this.addText(url);
  }
}

function textNode(text) {
  return { type: "text", text };
}

/** What ends the sentence is not part of the address; a closing bracket is when it was opened in it. */
function withoutTail(url) {
  let end = url.length;
  let surplus = (url.match(/\)/g) ?? []).length - (url.match(/\(/g) ?? []).length;
  for (; end > 0; end -= 1) {
    const last = url[end - 1];
    if (last === ")" && surplus > 0) surplus -= 1;
    else if (!".,;:!?'*_~]".includes(last)) break;
  }
  return url.slice(0, end);
}

function character(decimal, hex) {
  const code = decimal ? Number(decimal) : parseInt(hex, 16);
  return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : null;
}

/** CommonMark's rules for where emphasis may begin and end. */
function flanks(mark, before, after) {
  const isSpaceBefore = SPACE.test(before), isSpaceAfter = SPACE.test(after);
  const isPunctuationBefore = PUNCTUATION.test(before), isPunctuationAfter = PUNCTUATION.test(after);
  const left = !isSpaceAfter && (!isPunctuationAfter || isSpaceBefore || isPunctuationBefore);
  const right = !isSpaceBefore && (!isPunctuationBefore || isSpaceAfter || isPunctuationAfter);
  if (mark !== "_") return { canOpen: left, canClose: right };
  return { canOpen: left && (!right || isPunctuationBefore), canClose: right && (!left || isPunctuationAfter) };
}
