"""Code in an answer -> a form that layout, comments and the names of variables do not change.

Python is compared by its syntax tree, with arguments and local names numbered in the order they appear and without
docstrings and annotations; other languages by their tokens. Two programs that do the same in different ways stay
different: only running them could tell, and a server does not run what a model wrote.
"""

from __future__ import annotations

import ast
import hashlib
import re

_FENCE = re.compile(r"```([\w+#-]*)[ \t]*\n(.*?)(?:```|\Z)", re.S)
_INLINE = re.compile(r"`([^`\n]+)`")
_COMMENT = re.compile(r"/\*.*?\*/|(?<!:)//[^\n]*|(?m:^\s*#(?!include)[^\n]*)|--[^\n]*", re.S)
_TOKEN = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|\w+|[^\s\w]")
_LOOKS_LIKE_CODE = re.compile(r"[(){}\[\]=;<>]")
_SQL = re.compile(r"\s*(?:select|insert|update|delete|create|alter|drop|with)\b", re.I)


def code_key(text: str) -> str | None:
    code = _code_of(text)
    if code is None:
        return None
    normal = _python(code) or _tokens(code)
    return hashlib.sha256(normal.encode()).hexdigest()[:16] if normal else None


def _code_of(text: str) -> str | None:
    """The fenced blocks together; without any, an inline piece alone or the whole text when it looks like code."""
    blocks = [block for _, block in _FENCE.findall(text)]
    if blocks:
        return "\n".join(blocks)
    inline = _INLINE.fullmatch(text.strip())
    if inline:
        return inline.group(1)
    return text if _LOOKS_LIKE_CODE.search(text) or _SQL.match(text) else None


def _python(code: str) -> str | None:
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return ast.dump(_Plain().visit(tree), annotate_fields=False)


class _Plain(ast.NodeTransformer):
    """Names that the code itself binds, numbered; what it only uses keeps its name."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def _bind(self, name: str) -> str:
        return self._names.setdefault(name, f"v{len(self._names)}")

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.body = _without_docstring(node.body)
        node.returns = None
        self.generic_visit(node)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is None:
            return ast.Pass()
        self.generic_visit(node)
        return ast.Assign(targets=[node.target], value=node.value)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg(arg=self._bind(node.arg), annotation=None)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if isinstance(node.ctx, ast.Store):
            self._bind(node.id)
        return ast.Name(id=self._names.get(node.id, node.id), ctx=node.ctx)


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    is_text = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    return body[1:] or [ast.Pass()] if is_text else body


def _tokens(code: str) -> str:
    tokens = _TOKEN.findall(_COMMENT.sub(" ", code))
    while tokens and tokens[-1] == ";":
        tokens.pop()
    return " ".join(t if t[:1] in "\"'" or not _SQL.match(code) else t.lower() for t in tokens)
