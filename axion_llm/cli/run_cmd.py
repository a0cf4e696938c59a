"""`axion-llm run`: one question, one answer; pipes in and out."""

from __future__ import annotations

import json
import sys
from itertools import chain
from typing import Any

import click

from axion_llm.cli.chat_client import Answer, ChatClient, Message, chat_client
from axion_llm.cli.completion_cmd import complete_model
from axion_llm.cli.options import generation_options, given
from axion_llm.cli.service_client import service_options
from axion_llm.cli.waiting import waiting


@click.command()
@click.argument("model", shell_complete=complete_model)
@click.argument("prompt", required=False)
@click.option("--system", help="What the model is told before the prompt.")
@generation_options
@click.option("--stats", is_flag=True, help="Tokens and speed on stderr, at the end.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the text.")
@service_options
def run(
    model: str,
    prompt: str | None,
    system: str | None,
    stats: bool,
    as_json: bool,
    url: str | None,
    key: str | None,
    **options: Any,
) -> None:
    """Ask MODEL one thing and print its answer as it comes.

    \b
    axion-llm run smollm2 "Why is the sky blue?"
    cat notes.txt | axion-llm run phi4_fast "Sum this up in three lines"
    git diff | axion-llm run qwen_coder "Write a commit message" > message.txt
    axion-llm run smollm2 "Name a colour" --json | jq -r .text

    What comes from a pipe follows the prompt. A service that runs on this machine answers; without one the
    model is loaded for this one question, which takes a second or more: for many questions start axion-llm serve.
    The answer goes to stdout, all else to stderr. Exit code 1 when there is no answer.
    """
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": _whole(prompt)})
    answer = Answer()
    with chat_client(url, key) as client:
        _print(client, model, messages, answer, given(options), as_json=as_json)
    if as_json:
        click.echo(json.dumps(_document(model, answer), ensure_ascii=False))
    if stats:
        click.echo(summary(answer), err=True)


def _whole(prompt: str | None) -> str:
    piped = "" if sys.stdin.isatty() else sys.stdin.read()
    if not prompt and not piped.strip():
        raise click.UsageError("what to ask? Give a PROMPT or pipe one in; to talk: axion-llm chat")
    return "\n\n".join(part for part in (prompt, piped.strip("\n")) if part)


def _print(
    client: ChatClient, model: str, messages: list[Message], answer: Answer, options: dict[str, Any], *, as_json: bool
) -> None:
    with waiting(f"{'loading' if client.is_own else 'waiting for'} {model}"):
        pieces = client.stream(model, messages, answer, **options)
        first = next(pieces, "")
    if as_json:
        for _ in pieces:
            pass
        return
    for piece in chain([first], pieces):
        click.echo(piece, nl=False)
        sys.stdout.flush()
    if not answer.text.endswith("\n"):
        click.echo()


def _document(model: str, answer: Answer) -> dict[str, Any]:
    usage = answer.usage
    return {
        "model": model,
        "text": answer.text,
        "finish_reason": answer.finish_reason,
        "prompt_tokens": usage.get("prompt_tokens"),
        "completion_tokens": usage.get("completion_tokens"),
        "ttft_seconds": answer.ttft_seconds and round(answer.ttft_seconds, 4),
        "seconds": round(answer.seconds, 4),
        "tokens_per_second": answer.tokens_per_second and round(answer.tokens_per_second, 2),
    }


def summary(answer: Answer) -> str:
    usage, speed = answer.usage, answer.tokens_per_second
    parts = [f"{usage['prompt_tokens']} tokens in, {usage['completion_tokens']} out"] if usage else ["stopped"]
    if cached := (usage.get("prompt_tokens_details") or {}).get("cached_tokens"):
        parts[0] += f" ({cached} of the prompt cached)"
    if answer.ttft_seconds is not None:
        parts.append(f"first after {answer.ttft_seconds * 1000:.0f} ms")
    if speed:
        parts.append(f"{speed:.1f} tokens/s")
    if answer.finish_reason == "length":
        parts.append("cut off at the limit")
    return " · ".join(parts)
