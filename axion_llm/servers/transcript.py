"""Prompts and answers in the log, for those who ask for it (--log-prompts); without that no text gets there."""

from __future__ import annotations

import logging

from axion_llm.worker.messages import Event, Finished, Piece

log = logging.getLogger("axion_llm.prompts")


class Transcript:
    """Of one request; a choice is written when it ends, so that streams do not mix."""

    def __init__(self) -> None:
        self._texts: dict[int, list[str]] = {}

    def prompt(self, index: int, prompt: str | list[int]) -> None:
        log.info("prompt %d: %r", index, prompt, extra={"fields": {"choice": index, "prompt": prompt}})

    def add(self, index: int, event: Event) -> None:
        if not isinstance(event, Piece | Finished):
            return
        texts = self._texts.setdefault(index, [])
        texts.append(event.text)
        if isinstance(event, Finished):
            text = "".join(self._texts.pop(index))
            log.info("answer %d: %r", index, text, extra={"fields": {"choice": index, "answer": text}})
