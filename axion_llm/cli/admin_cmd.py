"""`axion-llm load`, `unload`, `pin` and `unpin`: orders to a running service."""

from __future__ import annotations

import click

from axion_llm.api.status import Order
from axion_llm.cli.completion_cmd import complete_model
from axion_llm.cli.service_client import ServiceClient, service_options
from axion_llm.cli.waiting import waiting

name_argument = click.argument("name", shell_complete=complete_model)


@click.command()
@name_argument
@service_options
def load(name: str, url: str | None, key: str | None) -> None:
    """Load a model in a running service, before a request needs it.

    Returns when it is loaded. Idle models make room for it as they do for a request; pinned ones do not.
    """
    with waiting(f"loading {name}"):
        order = ServiceClient(url, key).order(name, "load")
    _say(order)


@click.command()
@name_argument
@click.option("--force", is_flag=True, help="End the requests that are in flight.")
@service_options
def unload(name: str, force: bool, url: str | None, key: str | None) -> None:
    """Unload a model of a running service and free its memory. The next request that names it loads it again.

    With requests in flight this is refused, unless forced. A pin does not hold against it.
    """
    _say(ServiceClient(url, key).order(name, "unload", force=force))


@click.command()
@name_argument
@service_options
def pin(name: str, url: str | None, key: str | None) -> None:
    """Keep a model loaded once it is: neither idle time nor another model unloads it.

    Lasts until the service ends; for good: pin = true in models.toml.
    """
    _say(ServiceClient(url, key).order(name, "pin"))


@click.command()
@name_argument
@service_options
def unpin(name: str, url: str | None, key: str | None) -> None:
    """Let a model be unloaded again when it is idle or another one needs the room."""
    _say(ServiceClient(url, key).order(name, "unpin"))


def _say(order: Order) -> None:
    state = {"ready": "loaded", "available": "not loaded"}.get(order.state, order.state)
    click.echo(f"{order.name}: {state}{', pinned' if order.is_pinned else ''}")
