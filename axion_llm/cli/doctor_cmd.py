"""`axion-llm doctor`: what this machine has, what is installed, and what is wrong with it."""

from __future__ import annotations

import asyncio
import json
import platform
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from axion_llm import __version__, native
from axion_llm.cli.kernel_check import check_kernels
from axion_llm.config import Settings, library_dir
from axion_llm.errors import AxionError, NativeLibraryError
from axion_llm.kernels import footing as footings
from axion_llm.models.gguf_header import check_file
from axion_llm.models.registry import load_registry, locate
from axion_llm.pool import machine
from axion_llm.pool.ladder import embedded_model, probe

# Features our kernels or upstream's have fast paths for, as /proc/cpuinfo spells them.
CPU_FEATURES = {
    "x86_64": ["avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8"],
    "aarch64": ["asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2"],
}


@dataclass
class Report:
    """What doctor found; `problems` decides the exit code."""

    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def examine(self, part: str, look: Callable[[], dict[str, Any]]) -> None:
        """Fill one part; an error of ours becomes a problem and does not stop the others."""
        try:
            self.facts[part] = look()
        except AxionError as e:
            self.facts[part] = {"error": e.message}
            self.problems.append(f"{part}: {e.message}")


@click.command()
@click.option("--models", "models_file", type=click.Path(path_type=Path), help="A registry to check as well.")
@click.option("--kernels", "with_kernels", is_flag=True, help="Test every kernel of ours on this machine.")
@click.option("--retry", is_flag=True, help="Forget what this machine was found not to compute with; tried anew.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def doctor(models_file: Path | None, with_kernels: bool, retry: bool, as_json: bool) -> None:
    """Check the machine and the installation.

    Prints CPU features, which of our kernels are active, where libraries and models are, the cores and the memory this
    process may really use (cgroup limits too), and every problem found with what to do. Exit code 1 when there is one.

    \b
    axion-llm doctor
    axion-llm doctor --kernels             each of our kernels against its definition, with its largest error
    axion-llm doctor --retry               after a kernel was taken out: the next start tries all again
    AXION_KERNELS=off axion-llm doctor     how it looks with our kernels off
    axion-llm doctor --json | jq .problems
    """
    report = Report()
    if retry:
        footings.forget(Settings.load().kernels_file)
    report.examine("package", _package)
    report.examine("cpu", _cpu)
    report.examine("machine", _machine)
    report.examine("native", _native)
    report.examine("computing", lambda: _computing(Settings.load({"models_file": models_file}), report.problems))
    if with_kernels:
        report.examine("kernels", lambda: _kernels(report.problems, show_progress=not as_json))
    report.examine("models", lambda: _models(Settings.load({"models_file": models_file}), report.problems))
    click.echo(json.dumps(asdict(report), indent=2) if as_json else _as_text(report))
    sys.exit(1 if report.problems else 0)


def _package() -> dict[str, Any]:
    try:
        bindings = version("llama-cpp-python")
    except PackageNotFoundError:
        raise NativeLibraryError("llama-cpp-python is not installed: run scripts/build, or reinstall") from None
    return {
        "axion-llm": __version__,
        "location": str(Path(__file__).parents[1]),
        "python": platform.python_version(),
        "llama-cpp-python": bindings,
    }


def _cpu() -> dict[str, Any]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    name = re.search(r"^(?:model name|CPU part)\s*:\s*(.*)$", text, re.M)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.M)
    present = set(flags[1].split()) if flags else set()
    wanted = CPU_FEATURES.get(platform.machine(), [])
    return {
        "architecture": platform.machine(),
        "model": name[1] if name else platform.processor(),
        "features": [f for f in wanted if f in present],
        "missing": [f for f in wanted if f not in present],
    }


def _machine() -> dict[str, Any]:
    memory = machine.read_memory()
    return {
        "cores_usable": machine.available_cores(),
        "memory_total_bytes": memory.total_bytes,
        "memory_usable_bytes": memory.available_bytes,
        "memory_limit_bytes": memory.cgroup_limit_bytes,
    }


def _native() -> dict[str, Any]:
    library = native.load()
    stamp = native.read_stamp(library.directory)
    if stamp.get("machine") not in (None, platform.machine()):
        raise NativeLibraryError(f"the libraries are for {stamp['machine']}: {native.REBUILD}")
    return {
        "directory": str(library.directory),
        "build_id": library.build_id,
        "flavour": stamp.get("flavour"),
        "isa": library.isa,
        "kernels": {k.name: "on" if k.enabled else "off" for k in library.kernels()},
    }


def _computing(settings: Settings, problems: list[str]) -> dict[str, Any]:
    """What workers use of the libraries on this machine, after what happened on it."""
    footing = footings.read(settings.kernels_file, footings.key_of(native.read_stamp(library_dir())))
    if not footing.is_full:
        problems.append(
            f"computing with {footing}, for {footing.why}. Please report this with the output of "
            "`axion-llm doctor --kernels --json`; a new build tries everything again, and so does `--retry`"
        )
    model = embedded_model(load_registry(settings), settings)
    found = asyncio.run(probe(footing, model))
    if not found.is_well:
        at = {"model": "the embedded model", "": "the libraries"}.get(found.at, f"kernel {found.at}")
        fault = found.ended_by or f"wrong numbers from {', '.join(found.wrong)}"
        problems.append(
            f"a process that computes with {at} fails ({fault}): a service finds what this machine can compute with at "
            "its next start; please report the output of `axion-llm doctor --kernels --json`"
        )
    tried = "computes" if found.is_well else f"fails: {found.ended_by or 'wrong numbers'}"
    return {"with": str(footing), "embedded model": tried if model else f"is not here; the kernels: {tried}"}


def _kernels(problems: list[str], show_progress: bool) -> dict[str, Any]:
    lines: dict[str, Any] = {}
    for line in check_kernels():
        if show_progress and sys.stderr.isatty():
            click.echo(f"\r\x1b[Ktesting kernels: {line.kernel}", err=True, nl=False)
        lines[line.kernel] = asdict(line)
        if line.is_bad:
            error = f", {line.error:.3g} times what is allowed" if line.error else ""
            problems.append(f"kernel {line.kernel} is {line.state}{error} ({line.worst}); AXION_KERNELS=-{line.kernel}")
    if show_progress and sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)
    return lines


def _models(settings: Settings, problems: list[str]) -> dict[str, Any]:
    states: dict[str, str] = {}
    for spec in load_registry(settings):
        path = locate(spec, settings)
        states[spec.name] = str(path) if path else f"missing (axion-llm pull {spec.name})"
        if path:
            try:
                check_file(path)
            except AxionError as e:
                problems.append(f"model {spec.name}: {e.message}")
    return {
        "downloads": str(settings.models_dir),
        "user registry": str(settings.user_models_file) if settings.user_models_file.exists() else "none",
        **states,
    }


def _as_text(report: Report) -> str:
    lines = []
    for part, facts in report.facts.items():
        lines.append(click.style(part, bold=True))
        lines += [f"  {key:<25} {_show(key, value)}" for key, value in facts.items()]
    if report.problems:
        lines.append(click.style("problems", bold=True, fg="red"))
        lines += [f"  - {p}" for p in report.problems]
    else:
        lines.append(click.style("no problems found", fg="green"))
    return "\n".join(lines)


def _show(key: str, value: Any) -> str:
    if isinstance(value, dict) and "worst" in value:
        return _show_kernel(value)
    if key.endswith("_bytes"):
        return "none" if value is None else f"{value / 2**30:.1f} GiB"
    if isinstance(value, dict):
        return "  ".join(f"{k} {v}" for k, v in value.items()) or "none"
    if isinstance(value, list):
        return " ".join(value) or "none"
    return str(value)


def _show_kernel(line: dict[str, Any]) -> str:
    if line["state"] == "unused":
        return "unused: this machine computes its operations with upstream's code"
    if line["error"] is None:
        return f"{line['state']}  {line['worst']}"
    cases = f"{line['num_cases']} cases, largest error {line['error']:.2g} of what is allowed"
    return f"{line['state']}  {cases}  ({line['worst']})"
