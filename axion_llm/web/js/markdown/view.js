// Markdown on the page, also while it is being written: only blocks whose source has changed are drawn again.

import { copyButton, el } from "../dom.js";
import { parseBlocks } from "./blocks.js";
import { parseInline } from "./inline.js";

export class MarkdownView {
  constructor(root, announce = () => {}) {
    this.root = root;
    this.announce = announce;
    this.blocks = [];
  }

  update(text) {
    const blocks = parseBlocks(text);
    let same = 0;
    while (same < blocks.length && blocks[same].raw === this.blocks[same]?.raw) same += 1;
    const isGrown = same < blocks.length && growCode(this.root.children[same], this.blocks[same], blocks[same]);
    if (isGrown) same += 1;
    while (this.root.children.length > same) this.root.lastElementChild.remove();
    for (const block of blocks.slice(same)) this.root.append(drawBlock(block, this.announce));
    this.blocks = blocks;
  }

  /** The text of the blocks from `first` on that will not change any more while the text is being written. */
  settled(first) {
    return [...this.root.children].slice(first, -1).map((node) => node.textContent);
  }
}

/** A code block that has become longer keeps its element, and with it what is selected or scrolled. */
function growCode(element, before, after) {
  if (before?.type !== "code" || after.type !== "code" || before.language !== after.language) return false;
  if (!after.text.startsWith(before.text)) return false;
  const code = element.querySelector("code");
  code.append(after.text.slice(before.text.length));
  code.normalize();
  return true;
}

function drawBlock(block, announce) {
  switch (block.type) {
    case "heading": return el(`h${Math.min(block.level + 2, 6)}`, {}, ...inline(block.text));
    case "paragraph": return el("p", {}, ...inline(block.text));
    case "code": return drawCode(block, announce);
    case "rule": return el("hr");
    case "quote": return el("blockquote", {}, ...block.blocks.map((b) => drawBlock(b, announce)));
    case "list": return drawList(block, announce);
    case "table": return drawTable(block);
  }
}

function drawCode({ language, text }, announce) {
  const code = el("code", {}, text);
  const name = language ? `${language} code` : "code";
  const head = el("figcaption", {}, el("span", {}, language || "text"), copyButton(() => code.textContent, "Copy", announce));
  return el("figure", { class: "code" }, head, el("pre", { tabindex: "0", role: "region", "aria-label": name }, code));
}

function drawList(list, announce) {
  const items = list.items.map(({ blocks, isDone }) => {
    const isTight = blocks[0]?.type === "paragraph" && (!list.isLoose || isDone !== null);
    const first = isTight ? inline(blocks[0].text) : [];
    const rest = blocks.slice(isTight ? 1 : 0).map((b) => drawBlock(b, announce));
    const box = isDone === null ? [] : [isDone ? "☑ " : "☐ "];
    return el("li", {}, ...box, ...first, ...rest);
  });
  if (!list.isOrdered) return el("ul", {}, ...items);
  return el("ol", { start: list.start === 1 ? null : String(list.start) }, ...items);
}

function drawTable({ alignments, head, rows }) {
  const cell = (tag) => (text, i) =>
    el(tag, { class: `align-${alignments[i]}`, scope: tag === "th" ? "col" : null }, ...inline(text));
  const table = el(
    "table",
    {},
    el("thead", {}, el("tr", {}, ...head.map(cell("th")))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map(cell("td"))))),
  );
  return el("div", { class: "table", tabindex: "0", role: "region", "aria-label": "table" }, table);
}

function inline(text) {
  return parseInline(text).map(drawInline);
}

function drawInline(node) {
  switch (node.type) {
    case "text": return document.createTextNode(node.text);
    case "code": return el("code", {}, node.text);
    case "break": return el("br");
    case "link": return drawLink(node);
    default: return el(node.type, {}, ...node.children.map(drawInline)); // strong, em, del: names of the parser's own
  }
}

function drawLink({ href, children }) {
  const options = { href, target: "_blank", rel: "noopener noreferrer nofollow" };
  return el("a", options, ...children.map(drawInline));
}
