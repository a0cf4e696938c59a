"""`axion-llm`: the group of all commands, and the one place where an error becomes an exit code."""

from __future__ import annotations

import sys

import click

from axion_llm import __version__
from axion_llm.cli import bench_consensus_cmd, bench_pool_cmd
from axion_llm.cli.admin_cmd import load, pin, unload, unpin
from axion_llm.cli.bench_cmd import bench
from axion_llm.cli.bench_latency_cmd import compare, latency, report
from axion_llm.cli.chat_cmd import chat
from axion_llm.cli.completion_cmd import COMPLETE_VAR, PROG_NAME, completion
from axion_llm.cli.config_cmd import config
from axion_llm.cli.consensus_cmd import consensus
from axion_llm.cli.doctor_cmd import doctor
from axion_llm.cli.keys_cmd import keys
from axion_llm.cli.models_cmd import models, pull, rm
from axion_llm.cli.run_cmd import run
from axion_llm.cli.serve_cmd import serve
from axion_llm.cli.status_cmd import memory, ps
from axion_llm.errors import AxionError, ConfigError

EXIT_ERROR = 1
EXIT_USAGE = 2  # click's own, and settings that are wrong
EXIT_INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="axion-llm")
def cli() -> None:
    """Serve several open language models from one CPU machine, to any OpenAI client.

    \b
    axion-llm serve             the embedded default model on http://127.0.0.1:8082/v1
    axion-llm chat              talk to it in the terminal; run: one question, pipes in and out
    axion-llm models            what can be served
    axion-llm pull qwen_coder   fetch one of them
    axion-llm ps                what a running service has loaded; memory: where its memory goes
    axion-llm consensus ask …   several models answer together
    axion-llm doctor            what this machine has, and what is wrong with the installation

    Exit codes: 0 done, 1 it failed, 2 wrong usage or settings, 130 interrupted.
    """


_SERVICE = (serve, ps, memory, load, unload, pin, unpin)
_TALK = (run, chat, consensus)
_INSTALLATION = (models, pull, rm, keys, config, completion, doctor, bench)
for command in (*_SERVICE, *_TALK, *_INSTALLATION):
    cli.add_command(command)
for measurement in (bench_pool_cmd.pool, bench_consensus_cmd.consensus, latency, compare, report):
    bench.add_command(measurement)


def main() -> None:
    try:
        result = cli.main(prog_name=PROG_NAME, complete_var=COMPLETE_VAR, standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException as e:
        e.show()
        sys.exit(e.exit_code)
    except AxionError as e:
        click.echo(f"error: {e.message}", err=True)
        sys.exit(EXIT_USAGE if isinstance(e, ConfigError) else EXIT_ERROR)
    if isinstance(result, int):  # what click makes of an Exit
        sys.exit(result)


if __name__ == "__main__":
    main()
