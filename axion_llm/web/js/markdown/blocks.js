// Markdown text -> blocks, line by line. Unclosed fences reach to the end, so that a text may be half written.
//
// Block types: heading {level, text}, paragraph {text}, code {language, text}, rule, quote {blocks},
// list {isOrdered, start, isLoose, items: [{blocks, isDone}]}, table {alignments, head, rows}.
// Each has `raw`, its source: two blocks with the same source look the same.

const MAX_DEPTH = 12; // of lists and quotes in one another; deeper is text
const FENCE = /^( {0,3})(`{3,}|~{3,})\s*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*))?$/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])( +|$)/;
const DELIMITERS = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;

export function parseBlocks(text) {
  return blocksOf(text.replace(/\r\n?/g, "\n").replace(/^\t+/gm, (tabs) => "    ".repeat(tabs.length)).split("\n"), 0);
}

function blocksOf(lines, depth) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (isBlank(lines[at])) {
      at += 1;
      continue;
    }
    const [block, next] = readBlock(lines, at, depth);
    block.raw = lines.slice(at, next).join("\n");
    blocks.push(block);
    at = next;
  }
  return blocks;
}

const READERS = [readFence, readHeading, readRule, readQuote, readList, readTable, readIndented];

/** The block that begins at a line, and the line after it. */
function readBlock(lines, at, depth) {
  for (const read of READERS) {
    const found = read(lines, at, depth);
    if (found) return found;
  }
  return readParagraph(lines, at);
}

function readFence(lines, at) {
  const found = FENCE.exec(lines[at]);
  if (!found) return null;
  const [, indent, fence, info] = found;
  const end = new RegExp(`^ {0,3}[${fence[0]}]{${fence.length},}\\s*$`);
  let next = at + 1;
  while (next < lines.length && !end.test(lines[next])) next += 1;
  const text = lines.slice(at + 1, next).map((line) => withoutIndent(line, indent.length)).join("\n");
  const language = info.trim().split(/[\s{,]/)[0];
  return [{ type: "code", language, text }, Math.min(next + 1, lines.length)];
}

function readHeading(lines, at) {
  const found = HEADING.exec(lines[at]);
  if (!found) return null;
  const text = (found[2] ?? "").trim().replace(/(^|[ \t])#+$/, "");
  return [{ type: "heading", level: found[1].length, text: text.trim() }, at + 1];
}

function readRule(lines, at) {
  return RULE.test(lines[at]) ? [{ type: "rule" }, at + 1] : null;
}

function readQuote(lines, at, depth) {
  if (!QUOTE.test(lines[at]) || depth >= MAX_DEPTH) return null;
  let next = at;
  while (next < lines.length && QUOTE.test(lines[next])) next += 1;
  const inner = lines.slice(at, next).map((line) => line.replace(QUOTE, ""));
  return [{ type: "quote", blocks: blocksOf(inner, depth + 1) }, next];
}

function readIndented(lines, at) {
  if (indentOf(lines[at]) < 4) return null;
  let next = at;
  while (next < lines.length && (isBlank(lines[next]) || indentOf(lines[next]) >= 4)) next += 1;
  const text = lines.slice(at, next).map((line) => withoutIndent(line, 4)).join("\n").replace(/\n+$/, "");
  return [{ type: "code", language: "", text }, next];
}

function readParagraph(lines, at) {
  let next = at + 1;
  while (next < lines.length && !isBlank(lines[next]) && !interrupts(lines, next)) next += 1;
  const text = lines.slice(at, next).map((line) => line.trimStart()).join("\n");
  return [{ type: "paragraph", text: text.trimEnd() }, next];
}

function interrupts(lines, at) {
  const line = lines[at];
  if (FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line)) return true;
  const item = itemAt(line);
  return (item && item.hasText && (!item.isOrdered || item.number === 1)) || isTable(lines, at);
}

// ---- lists

function itemAt(line) {
  const found = ITEM.exec(line);
  if (!found) return null;
  const [all, indent, marker, gap] = found;
  const isOrdered = marker.length > 1 || /\d/.test(marker);
  const width = gap.length > 4 ? all.length - gap.length + 1 : all.length; // more than four: code within the item
  const number = isOrdered ? parseInt(marker, 10) : 0;
  return { indent: indent.length, width, isOrdered, number, hasText: line.length > all.length };
}

function readList(lines, at, depth) {
  const first = itemAt(lines[at]);
  if (!first || first.indent > 3 || depth >= MAX_DEPTH) return null;
  const items = [];
  let isLoose = false;
  let next = at;
  while (next < lines.length) {
    const item = itemAt(lines[next]);
    if (!item || item.isOrdered !== first.isOrdered || item.indent > 3 || RULE.test(lines[next])) break;
    const [body, end] = itemLines(lines, next, item);
    const blocks = blocksOf(body.text, depth + 1);
    items.push({ blocks, isDone: body.isDone });
    const following = skipBlank(lines, end);
    isLoose ||= body.text.some((line, i) => isBlank(line) && i < body.text.length - 1 && blocks.length > 1);
    const goesOn = following < lines.length && itemAt(lines[following])?.isOrdered === first.isOrdered;
    isLoose ||= goesOn && following > end;
    next = goesOn ? following : end;
  }
  return [{ type: "list", isOrdered: first.isOrdered, start: first.number, isLoose, items }, next];
}

/** The lines of an item without its indent. Two more columns than the marker's are enough to belong to it. */
function itemLines(lines, at, item) {
  const least = item.indent + 2;
  const [first, isDone] = task(lines[at].slice(item.width));
  const text = [first];
  let next = at + 1;
  while (next < lines.length) {
    const line = lines[next];
    if (isBlank(line)) {
      const following = skipBlank(lines, next);
      if (following === lines.length || indentOf(lines[following]) < least) break;
      while (next < following) text.push(lines[next++]);
    } else if (indentOf(line) >= least) {
      text.push(withoutIndent(line, item.width));
      next += 1;
    } else if (!itemAt(line) && !interrupts(lines, next)) {
      text.push(line.trimStart()); // a paragraph that goes on without its indent
      next += 1;
    } else break;
  }
  return [{ text, isDone }, next];
}

/** "[x] done" as its text and whether it is; null where it is no task. */
function task(text) {
  const found = /^\[([ xX])\] /.exec(text);
  return found ? [text.slice(found[0].length), found[1] !== " "] : [text, null];
}

// ---- tables

function isTable(lines, at) {
  const next = lines[at + 1];
  if (next === undefined || !lines[at].includes("|") || !next.includes("-") || !DELIMITERS.test(next)) return false;
  return cells(lines[at]).length === cells(next).length;
}

function readTable(lines, at) {
  if (!isTable(lines, at)) return null;
  const head = cells(lines[at]);
  const alignments = cells(lines[at + 1]).map(alignment);
  const rows = [];
  let next = at + 2;
  while (next < lines.length && !isBlank(lines[next]) && lines[next].includes("|")) {
    const row = cells(lines[next]);
    rows.push(head.map((_, i) => row[i] ?? ""));
    next += 1;
  }
  return [{ type: "table", alignments, head, rows }, next];
}

function alignment(delimiter) {
  const isLeft = delimiter.startsWith(":"), isRight = delimiter.endsWith(":");
  return isRight ? (isLeft ? "center" : "end") : "start";
}

function cells(line) {
  const text = line.trim().replace(/^\|/, "");
  const found = [""];
  for (let i = 0; i < text.length; i += 1) {
    if (text[i] === "\\" && text[i + 1] === "|") {
      found[found.length - 1] += "|";
      i += 1;
    } else if (text[i] === "|") found.push("");
    else found[found.length - 1] += text[i];
  }
  if (found.length > 1 && !found.at(-1).trim()) found.pop();
  return found.map((cell) => cell.trim());
}

// ---- lines

function isBlank(line) {
  return !line.trim();
}

function indentOf(line) {
  return line.length - line.trimStart().length;
}

function withoutIndent(line, most) {
  return line.slice(Math.min(indentOf(line), most));
}

function skipBlank(lines, at) {
  while (at < lines.length && isBlank(lines[at])) at += 1;
  return at;
}
