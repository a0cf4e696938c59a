"""Changes to a prompt that is rendered already: going on behind it, and cutting it off."""

from __future__ import annotations

import msgspec

from axion_llm.api.literal import control_words
from axion_llm.worker.messages import Generate, Loaded


def continued(request: Generate, text: str, info: Loaded) -> Generate:
    """Goes on after `text`, which is read as text whatever it looks like."""
    if not text:
        return request
    prompt = str(request.prompt)
    starts = control_words(tuple(info.control_tokens)).starts(text)
    literals = [*request.literals, *(len(prompt) + start + 1 for start in starts)]
    return msgspec.structs.replace(request, prompt=prompt + text, literals=literals)


def cut_at(request: Generate, mark: str) -> Generate:
    """What stands before the mark."""
    prompt = str(request.prompt).partition(mark)[0]
    return msgspec.structs.replace(request, prompt=prompt, literals=[p for p in request.literals if p < len(prompt)])
