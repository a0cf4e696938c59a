"""`axion-llm completion`: the script that lets a shell complete commands, options and names of models."""

from __future__ import annotations

from contextlib import suppress

import click
from click.shell_completion import CompletionItem, get_completion_class

from axion_llm.errors import AxionError

PROG_NAME = "axion-llm"
COMPLETE_VAR = "_AXION_LLM_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes SHELL complete commands, options and names of models with the tab key.

    \b
    bash   echo 'eval "$(axion-llm completion bash)"' >> ~/.bashrc
    zsh    echo 'eval "$(axion-llm completion zsh)"' >> ~/.zshrc
    fish   axion-llm completion fish > ~/.config/fish/completions/axion-llm.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(ctx.find_root().command, {}, PROG_NAME, COMPLETE_VAR).source())


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of the registry; none when it cannot be read."""
    from axion_llm.config import Settings
    from axion_llm.models.registry import load_registry

    with suppress(AxionError):
        specs = load_registry(Settings.load())
        return [CompletionItem(s.name, help=s.description) for s in specs if s.name.startswith(incomplete)]
    return []
