"""A text that no context can hold, told by its length, before anything is done with it."""

from __future__ import annotations

from axion_llm.api.schemas import ChatRequest, CompletionRequest
from axion_llm.errors import ContextLengthExceeded

LONGEST_TOKEN_CHARS = 256  # vocabularies have runs of 128 spaces, and nothing longer


def check_room(request: ChatRequest | CompletionRequest, n_ctx: int) -> None:
    """Raises ContextLengthExceeded."""
    if isinstance(request, ChatRequest):
        check_length(sum(len(message.text) for message in request.messages), n_ctx, "messages")
    else:
        check_length(max((len(p) for p in request.prompt if isinstance(p, str)), default=0), n_ctx, "prompt")


def check_length(num_chars: int, n_ctx: int, param: str) -> None:
    least = num_chars // LONGEST_TOKEN_CHARS
    if least > n_ctx:
        message = f"This model's maximum context length is {n_ctx} tokens, but {num_chars:,} characters have more."
        raise ContextLengthExceeded(f"{message} Shorten the {param}.", param=param)
