"""Which language a text is in, and which programming language it is about. Microseconds; nothing leaves the process.

Scripts that one language owns decide at once; for the others py3langid (a naive Bayes over byte n-grams, offline). Code
is told by what people call it and by what only it looks like, weighed per language.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Sequence
from functools import lru_cache

import py3langid

from axion_llm.consensus.lexicon import words_of

LANGUAGES = words_of(
    "en de fr es it pt nl pl cs ro tr vi id sv da no fi hu hr sk sl ca ru uk bg sr ar fa he hi bn ta th ja ko zh el"
)
SHORTEST = 2  # letters, below it nobody can tell

_LOADING = threading.Lock()

_FENCED = re.compile(r"```.*?(?:```|\Z)", re.S)
_QUOTED = re.compile(r"\"[^\"\n]{1,80}\"|“[^”\n]{1,80}”|«[^»\n]{1,80}»|`[^`\n]{1,80}`|https?://\S+")
_SCRIPTS: list[tuple[str, re.Pattern[str]]] = [
    ("ja", re.compile(r"[\u3040-\u30ff]")),
    ("ko", re.compile(r"[\uac00-\ud7af\u1100-\u11ff]")),
    ("zh", re.compile(r"[\u3400-\u9fff]")),
    ("he", re.compile(r"[\u0590-\u05ff]")),
    ("el", re.compile(r"[\u0370-\u03ff]")),
    ("hi", re.compile(r"[\u0900-\u097f]")),
    ("bn", re.compile(r"[\u0980-\u09ff]")),
    ("ta", re.compile(r"[\u0b80-\u0bff]")),
    ("th", re.compile(r"[\u0e00-\u0e7f]")),
    ("ar", re.compile(r"[\u0600-\u06ff]")),
    ("ru", re.compile(r"[\u0400-\u04ff]")),
]
_LETTER = re.compile(r"[^\W\d_]")
_PERSIAN = re.compile("[پچژگکی]")
_UKRAINIAN = re.compile("[іїєґІЇЄҐ]")
_ENGLISH = words_of(
    "the a an of to in is are was what which how why who when where do does did can my me you your and or for "
    "with on write give tell explain hello hi thanks please it this that i"
)


@lru_cache(maxsize=256)
def language_of(text: str) -> str:
    """ISO 639-1, or "unknown" for a text without enough letters. Quoted text and code do not count."""
    plain = _QUOTED.sub(" ", _FENCED.sub(" ", text)).strip() or text
    num_letters = len(_LETTER.findall(plain))
    if num_letters < SHORTEST:
        return "unknown"
    for language, script in _SCRIPTS:
        # Japanese has Chinese letters between its own; names of things in Latin letters stand in every language.
        if len(script.findall(plain)) > num_letters * (0.1 if language == "ja" else 0.3):
            return _of_script(language, plain)
    return _of_latin(plain)


def _of_script(language: str, text: str) -> str:
    if language == "ar":
        return "fa" if _PERSIAN.search(text) else "ar"
    if language == "ru":
        if _UKRAINIAN.search(text):
            return "uk"
        found = _classify(text)
        return found if found in ("bg", "sr") and len(text) > 60 else "ru"
    return language


def _of_latin(text: str) -> str:
    lowered = re.findall(r"[a-zA-Z']+", text.lower())
    if text.isascii() and lowered and sum(w in _ENGLISH for w in lowered) >= max(1, 0.3 * len(lowered)):
        return "en"
    return _classify(text)


@lru_cache(maxsize=1)
def _load() -> None:
    py3langid.set_languages(sorted(LANGUAGES))


async def loaded() -> None:
    """To be awaited before the first look: half a second to unpack, and 80 MB that only they pay who use it."""
    if not _load.cache_info().currsize:
        await asyncio.to_thread(_load_once)


def _load_once() -> None:
    with _LOADING:
        _load()


def _classify(text: str) -> str:
    _load_once()
    return str(py3langid.classify(text.lower())[0])


# ---- code

_NAMES: dict[str, str] = {
    "python": r"\bpython\b|\bpandas\b|\bnumpy\b|\bdjango\b|\bpytest\b|\bpip install\b|\bflask\b",
    "javascript": r"\bjavascript\b|\bnode(?:\.js)?\b|\breact\b|\bnpm\b|\btypescript\b|\bjquery\b",
    "sql": r"\bsql\b|\b(?:my|postgre)sql\b|\bsqlite\b|\b(?:inner|left|outer) join\b",
    "cpp": r"\bc\+\+(?:\d\d)?|\bcmake\b|\bstd::",
    "java": r"\bjava\b|\bjvm\b|\bmaven\b|\bspring boot\b|\bgradle\b|\b(?:hash|tree)map\b",
    "rust": r"\brust\b|\bcargo\b|\btokio\b|\bserde\b",
    "go": r"\bgolang\b|\bgoroutines?\b|\bin go\b(?= *[,.:?!]|$)",
    "c": r"\bin c\b(?= *[,.:?!]|$)|\bmalloc\b|\bansi c\b",
    "csharp": r"\bc#|\.net\b|\blinq\b",
    "bash": r"\bbash\b|\bshell script\b|\bgrep\b|\bawk\b|\bsed\b",
    "php": r"\bphp\b|\blaravel\b",
    "ruby": r"\bruby\b|\brails\b",
    "html": r"\bhtml\b|\bcss\b",
}
_LOOKS: dict[str, list[str]] = {
    "python": [
        r"^[ \t]*def \w+\(.*\).*:[ \t]*$",
        r"^[ \t]*(?:import \w+(?: as \w+)?|from [\w.]+ import .+)[ \t]*$",
        r"\bprint\(",
        r"^[ \t]*(?:for .+ in .+|if .+|while .+|with .+|elif .+|else|try|except.*|class \w+(?:\(.*\))?):[ \t]*$",
        r"Traceback \(most recent call last\)",
        r"\bself\.",
        r"\b(?:NoneType|ModuleNotFoundError|IndentationError)\b",
        r"\[.{1,60} for .{1,60} in .{1,60}\]",
        r"\b__\w+__\b",
    ],
    "javascript": [
        r"\b(?:const|let|var) \w+ = .*;?",
        r"=> ",
        r"\bconsole\.log\(",
        r"===",
        r"\bfunction\b.*\(.*\) *\{",
        r"\bdocument\.",
        r"\b(?:await|async) ",
        r"\brequire\(",
        r"reading '\w+'",
        r"\bexport default\b",
    ],
    "sql": [
        r"(?i)\bselect\b.+\bfrom\b",
        r"(?i)\binsert into\b",
        r"(?i)\bupdate \w+ set\b",
        r"(?i)\b(?:create|alter|drop) table\b",
        r"(?i)\bdelete from\b",
        r"(?i)\bgroup by\b",
    ],
    "cpp": [
        r"#include *<\w+>",
        r"\bstd::",
        r"\busing namespace\b",
        r"\btemplate *<",
        r"\b(?:cout|cin) *(?:<<|>>)",
        r"\bnew \w+\[",
        r"\bdelete(?:\[\])? \w+;",
        r"\bvirtual\b",
        r"\bint main\(",
        r"\w+\* \w+ = ",
    ],
    "java": [
        r"\bpublic (?:static |final |class |void |int )",
        r"\bSystem\.out\.",
        r"\bnew \w+(?:<.*>)?\(.*\);",
        r"\bimport java\.",
        r"\b(?:List|Map|Optional|Set|ArrayList)<",
        r"\bjava\.\w+\.",
        r"\bcatch \(\w+ \w+\)",
        r"\bprivate final\b",
    ],
    "rust": [
        r"\bfn \w+.*\(.*\).*\{?",
        r"\blet (?:mut )?\w+(?:: [^=]+)? = .*(?:;|$)(?<=[;)])",
        r"\bprintln!\(",
        r"\bimpl\b.*\{",
        r"\berror\[E\d+\]",
        r"&mut\b|&str\b",
        r"#\[derive\(",
        r"\bmatch \w+ \{",
        r"\bVec<",
        r"\bResult<",
        r"\bSome\(|\bOk\(",
    ],
    "go": [r"\bfunc \w+\(.*\).*\{", r"\bpackage main\b", r":= ", r"\bfmt\.Print"],
    "c": [r"#include *[<\"]\w+\.h[>\"]", r"\bprintf\(", r"\bmalloc\(", r"\bint main\("],
    "csharp": [r"\bConsole\.Write", r"\busing System\b", r"\bnamespace \w+"],
    "bash": [r"^#!/bin/(?:ba)?sh", r"^\$ \w+", r"\bsudo \w+", r"\|\s*grep\b"],
    "php": [r"<\?php", r"\$\w+ = "],
    "ruby": [r"\bputs\b", r"^[ \t]*end[ \t]*$", r"\.each do \|"],
    "html": [r"</?(?:div|html|body|span|p)\b"],
}
# ASCII, so that a name ends where a Chinese or Japanese character follows.
_NAME_PATTERNS = {name: re.compile(pattern, re.I | re.A) for name, pattern in _NAMES.items()}
_LOOK_PATTERNS = {name: [re.compile(p, re.M) for p in patterns] for name, patterns in _LOOKS.items()}
_NAME_SCORE = 3  # a language that is named counts as much as three of its looks
_ENOUGH = {"html": 2, "php": 1}


def code_of(text: str) -> str | None:
    """The programming language a text is written in or asks about; None for plain prose."""
    scores = {name: _score(name, text) for name in _NAME_PATTERNS}
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] >= _ENOUGH.get(best, 1) else None


def _score(name: str, text: str) -> int:
    named = _NAME_SCORE * bool(_NAME_PATTERNS[name].search(text))
    return named + sum(bool(pattern.search(text)) for pattern in _LOOK_PATTERNS[name])


def identify(texts: Sequence[str]) -> list[str]:
    """What the router goes by, for a test: the programming language where there is one, else the language."""
    return [code_of(text) or language_of(text) for text in texts]
