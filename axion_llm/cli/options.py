"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

models_option = click.option(
    "--models",
    "models_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A registry (TOML) that adds to the shipped one and your own.",
)

_Command = TypeVar("_Command", bound=Callable[..., Any])


def generation_options(command: _Command) -> _Command:
    """How an answer is generated; the parameters have the names of the API's fields."""
    for option in (
        click.option("--seed", type=int, help="The same seed gives the same answer."),
        click.option("--top-p", type=click.FloatRange(0, 1), help="Draw from the likeliest tokens only."),
        click.option("--temperature", type=click.FloatRange(0, 2), help="0: always the likeliest token."),
        click.option("--max-tokens", type=click.IntRange(1), help="Length of the answer at most."),
    ):
        command = option(command)
    return command


def given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
