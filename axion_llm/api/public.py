"""Which part of a prompt is the operator's own text, so that all clients may share what is computed for it.

That is `public_prompt` of a model in models.toml: a system message that many clients of different keys send, word for
word. Nothing can be learnt from its being cached, since it is known. All else is shared within a tenant only.
"""

from __future__ import annotations

from functools import lru_cache

from axion_llm.api.chat_template import ChatTemplate


def num_public_chars(public: str | None, template: ChatTemplate, prompt: str) -> int:
    """Of a prompt's first characters; 0 when it does not begin with all of the public text."""
    beginning = _beginning(public, template) if public else ""
    return len(beginning) if beginning and prompt.startswith(beginning) else 0


@lru_cache(maxsize=64)
def _beginning(public: str, template: ChatTemplate) -> str:
    """Of the prompts of conversations that have it as their system message, up to its end; "" where it is not shown."""
    messages = [{"role": "system", "content": public}, {"role": "user", "content": "Hi"}]
    before, found, _ = template.try_render(messages, None).partition(public)
    return before + found
