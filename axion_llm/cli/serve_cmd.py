"""`axion-llm serve`: settings and registry, the pool over them, and the ports until a signal."""

from __future__ import annotations

import asyncio
import gc
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from axion_llm.config import Settings, parse_size
from axion_llm.servers.logs import FORMATS, LEVELS, log_to_stderr

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from axion_llm.pool.interface import ModelPool
    from axion_llm.servers.profile import Kind
    from axion_llm.servers.run import Urls

PORTS = ("standard", "streaming", "consensus")
OPEN_TO_ALL = (
    "host %s without API keys: everybody who reaches this machine may use the models; "
    "make a key with: axion-llm keys new NAME"
)


class _Size(click.ParamType):  # type: ignore[type-arg]  # generic for the type checker only
    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return value if isinstance(value, int) else parse_size(value)
        except ValueError:
            self.fail(f"{value!r} is no size: write it as 16GiB or 800MB", param, ctx)


SIZE = _Size()
FILE = click.Path(path_type=Path, dir_okay=False)
PORT = click.IntRange(0, 65535)


@click.command()
@click.option("--host", help="Address to listen on. 0.0.0.0: every network of this machine.  [127.0.0.1]")
@click.option("--standard-port", type=PORT, help="Answers in one piece by default; 0: any free port.  [8082]")
@click.option("--streaming-port", type=PORT, help="Streams by default, favoured by the scheduler.  [8083]")
@click.option("--consensus-port", type=PORT, help="Several experts answer together.  [8084]")
@click.option("--only", type=click.Choice(PORTS), multiple=True, help="Open this port only; may be repeated.")
@click.option(
    "--models",
    "models_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A registry (TOML) that adds to the shipped one and your own; see axion-llm models.",
)
@click.option("--warm", type=click.IntRange(0), help="Models to load at the start.  [2]")
@click.option("--max-loaded", type=click.IntRange(1), help="Most models in memory at the same time.  [5]")
@click.option("--memory-limit", type=SIZE, help="Of all models together, as 16GiB or 800MB.  [what is there]")
@click.option("--idle-unload-seconds", type=click.FloatRange(0), help="Unload what nobody used; 0: never.  [300]")
@click.option("--turn-seconds", type=click.FloatRange(1), help="Longest turn of a model others wait for.  [20]")
@click.option("--threads", type=click.IntRange(0), help="Of all models together; 0: all cores it may use.  [0]")
@click.option("--pin-cores/--no-pin-cores", default=None, help="Bind models at work to CPUs of their own.  [no]")
@click.option("--step-ms", type=click.FloatRange(1), help="What a step may take while anything is generated.  [60]")
@click.option("--num-scheduler-steps", type=click.IntRange(1), help="Decode steps between two looks at the queue.  [2]")
@click.option("--max-queue", type=click.IntRange(1), help="Requests that may wait for a model; more get 429.  [256]")
@click.option("--allowed-host", "allowed_hosts", multiple=True, help="A name of this service, beside localhost.")
@click.option("--cors-origin", "cors_origins", multiple=True, help="Web pages that may use it: https://my.app; *: all.")
@click.option("--tls-cert", type=FILE, help="Certificate and its chain (PEM): https instead of http.")
@click.option("--tls-key", type=FILE, help="The certificate's key (PEM, no passphrase).")
@click.option("--log-level", type=click.Choice(LEVELS), help="How much to say on stderr.  [info]")
@click.option("--log-format", type=click.Choice(FORMATS), help="A line of text or of JSON for each event.  [auto]")
@click.option("--log-prompts/--no-log-prompts", default=None, help="Prompts and answers in the log, too.  [no]")
@click.option("--tracing/--no-tracing", default=None, help="OpenTelemetry spans, to OTEL_EXPORTER_OTLP_ENDPOINT.  [no]")
def serve(only: tuple[str, ...], **options: Any) -> None:
    """Answer OpenAI clients on 8082 (standard), 8083 (streaming) and 8084 (consensus) until Ctrl-C.

    \b
    axion-llm serve                          with nothing else: the embedded model smollm2
    axion-llm serve --only streaming         one port, one model pool
    axion-llm serve --standard-port 0        any free port; the real one is printed
    axion-llm serve --warm 0 --threads 4     load on the first request, use 4 cores

    \b
    Any OpenAI client works; the key may be anything:
    OpenAI(base_url="http://127.0.0.1:8082/v1", api_key="none")

    A model that is not loaded is loaded when a request asks for it, and the request waits. Models that work
    at the same time share the cores; more of them than there is room for take turns. Each option can also be
    set in the environment: AXION_STANDARD_PORT=9000, AXION_WARM=0, AXION_MODELS_FILE=... Ctrl-C lets answers
    that have begun go on for a few seconds, a second one ends them.
    """
    settings = Settings.load({k: v for k, v in options.items() if v != ()})
    log_to_stderr(settings.log_level, settings.log_format)
    asyncio.run(_serve(settings, _kinds(only)))


def _kinds(only: tuple[str, ...]) -> list[Kind]:
    kinds: tuple[Kind, ...] = ("standard", "streaming", "consensus")
    return [kind for kind in kinds if not only or kind in only]


async def _serve(settings: Settings, kinds: list[Kind]) -> None:
    # Here, so that --help and a mistake in an option do not wait for them.
    from axion_llm.models.live import LiveRegistry
    from axion_llm.pool.pool import Pool
    from axion_llm.security.keyring import KeyRing
    from axion_llm.servers.run import serve as run

    pool = Pool(LiveRegistry(settings), settings)
    announce = _Announcer(pool)
    if not settings.is_loopback and not KeyRing(settings).is_asking:
        log.warning(OPEN_TO_ALL, settings.host)

    def ready() -> None:
        gc.collect()
        gc.freeze()  # what exists now stays: a collection that walked it would hold every stream up
        announce.ready()

    await run(pool, settings, kinds, on_listening=announce.listening, on_ready=ready)
    announce.stopped()


class _Announcer:
    """What a person who starts the service needs to see; everything else is the log."""

    def __init__(self, pool: ModelPool) -> None:
        self._pool = pool
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._urls: Urls = {}

    def listening(self, urls: Urls) -> None:
        self._urls = urls
        for kind, url in urls.items():
            self._console.print(f"[bold]{kind:<10}[/] {url}/v1")

    def ready(self) -> None:
        statuses = self._pool.models()
        loaded = [s.spec.name for s in statuses if s.state == "ready"]
        for s in statuses:
            if s.state == "failed":
                self._console.print(f"[red]failed[/]     {s.spec.name}: ", end="")
                self._console.print(s.error, markup=False)
        self._console.print(f"[bold green]ready[/]      {', '.join(loaded) or 'no model loaded yet'}")
        name = next(iter(loaded or [s.spec.name for s in statuses]), None)
        if name:
            kind, url = next(iter(self._urls.items()))
            self._console.print(_example(url, "consensus" if kind == "consensus" else name), markup=False)

    def stopped(self) -> None:
        self._console.print("stopped")


def _example(url: str, model: str) -> str:
    body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
    return f"try        curl {url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'"
