"""Frozen settings of one service: defaults, a file, the environment, the command line; the later one counts.

The only reader of os.environ.
"""

from __future__ import annotations

import importlib
import ipaddress
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from axion_llm.errors import ConfigError

tomllib: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

ENV_PREFIX = "AXION_"
SIZES = ("memory_limit",)  # fields in bytes that take a unit
_OTHER_VARIABLES = (
    "CONFIG_FILE",
    "FLAVOUR",
    "KERNELS",
    "KEY",
    "LIB_DIR",
    "RUNG",
)  # that are no settings of the service


def _xdg(variable: str, fallback: str) -> Path:
    if given := os.environ.get(variable):
        return Path(given) / "axion-llm"
    try:
        return Path.home() / fallback / "axion-llm"
    except RuntimeError:  # no HOME, and a user id that has no entry in passwd: as in many containers
        raise ConfigError(f"this user has no home folder: set HOME or {variable}", param=variable) from None


def default_config_dir() -> Path:
    return _xdg("XDG_CONFIG_HOME", ".config")


def default_data_dir() -> Path:
    return _xdg("XDG_DATA_HOME", ".local/share")


def default_keys_file() -> Path:
    return default_config_dir() / "keys.toml"


CHOICES = {
    "log_level": ("debug", "info", "warning", "error"),
    "log_format": ("auto", "text", "json"),
    "share_prefixes": ("tenant", "all"),
}
_NOT_NEGATIVE = (
    "warm",
    "threads",
    "max_queue_tokens",
    "spare_workers",
    "memory_limit",
    "requests_per_minute",
    "tokens_per_minute",
    "responses_ttl_seconds",
    "max_image_bytes",
    "max_images",
)


@dataclass(frozen=True)
class Settings:
    """Ports, limits and places. Each field can be set in config.toml, and as AXION_<FIELD> in the environment."""

    host: str = "127.0.0.1"
    standard_port: int = 8082
    streaming_port: int = 8083
    consensus_port: int = 8084
    warm: int = 2  # models loaded at start
    max_loaded: int = 5
    idle_unload_seconds: float = 300.0
    start_timeout_seconds: float = 60.0  # for the imports of a worker process; a slow machine wants more
    load_timeout_seconds: float = 600.0
    memory_limit: int = 0  # bytes of all models together, also as "16GiB"; 0: what the machine has
    room_wait_seconds: float = 120.0  # for a place or memory that models in use hold
    turn_seconds: float = 20.0  # of a model in use for whose place another one waits
    max_body_bytes: int = 32 * 1024 * 1024
    shutdown_grace_seconds: float = 5.0
    step_ms: float = 60.0  # what a step of a model may take while it decodes anything
    num_scheduler_steps: int = 2  # decode steps between two looks at the queue
    max_queue: int = 256  # requests that may wait for one model
    max_queue_tokens: int = 0  # of their prompts; 0: eight times the model's KV cache
    threads: int = 0  # of all models together; 0: the cores this process may use
    share_cores: bool = True  # among the models that work; off: each computes with all threads
    pin_cores: bool = False  # bind each model that works to CPUs of its own
    spare_workers: int = 1  # processes that stand ready for the next load
    hang_seconds: float = 30.0  # a worker that does nothing for so long is killed
    models_file: Path | None = None  # a registry added to the shipped one and the user's
    models_dir: Path = field(default_factory=lambda: default_data_dir() / "models")
    user_models_file: Path = field(default_factory=lambda: default_config_dir() / "models.toml")
    store_responses: bool = True  # of /v1/responses, for previous_response_id and for reading them again
    responses_file: Path = field(default_factory=lambda: default_data_dir() / "responses.sqlite")
    responses_ttl_seconds: float = 30 * 24 * 3600.0
    kernels_file: Path = field(default_factory=lambda: default_data_dir() / "kernels.json")  # what the CPU cannot do
    consensus_weights_file: Path = field(default_factory=lambda: default_data_dir() / "consensus-weights.json")
    image_urls: bool = False  # images may be named by an http(s) URL, which this machine then fetches
    image_timeout_seconds: float = 10.0  # for all that it takes to fetch one
    max_image_bytes: int = 20 * 1024 * 1024  # of one image
    max_images: int = 16  # of one request
    log_level: str = "info"
    log_format: str = "auto"  # text, json, or auto: colours on a terminal, else text
    log_prompts: bool = False  # the texts of prompts and answers too
    tracing: bool = False  # OpenTelemetry spans; wants the extra `tracing`
    keys_file: Path = field(default_factory=default_keys_file)
    api_keys: str = field(default="", repr=False)  # keys that may use the models, separated by commas
    admin_keys: str = field(default="", repr=False)  # keys that may do everything
    requests_per_minute: int = 0  # of each key that has no limit of its own; 0: no limit
    tokens_per_minute: int = 0  # of prompts and answers
    share_prefixes: str = "tenant"  # what is computed of a prompt: within a tenant (a key), or among all callers
    allowed_hosts: tuple[str, ...] = ()  # names of this service, beside localhost and addresses
    cors_origins: tuple[str, ...] = ()  # web pages of other origins that may use the service
    tls_cert: Path | None = None  # PEM, with the chain; https instead of http
    tls_key: Path | None = None  # PEM, without a passphrase

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the ports."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def is_keys_file_chosen(self) -> bool:
        try:
            return self.keys_file != default_keys_file()
        except ConfigError:  # without a home there is no default
            return True

    def __post_init__(self) -> None:
        for name in ("standard_port", "streaming_port", "consensus_port"):
            if not 0 <= getattr(self, name) <= 65535:
                raise ConfigError(f"{name} = {getattr(self, name)}: a port is 0 to 65535", param=name)
        for name in _NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} = {getattr(self, name)}: must not be negative", param=name)
        for name in ("step_ms", "num_scheduler_steps", "max_queue"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be 1 or more", param=name)
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} = {getattr(self, name)!r}: one of {', '.join(allowed)}", param=name)
        for name in ("start_timeout_seconds", "hang_seconds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be 1 or more", param=name)
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("tls_cert and tls_key: give both or neither", param="tls_cert")
        if self.max_loaded < 1:
            raise ConfigError(f"max_loaded = {self.max_loaded}: at least one model must fit", param="max_loaded")

    @classmethod
    def load(cls, overrides: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
        """Defaults, config.toml, AXION_* of `environ`, then `overrides` (None values mean: not given)."""
        values = {name: value for layer in layers(environ) for name, value in layer.values.items()}
        values |= {k: v for k, v in (overrides or {}).items() if v is not None}
        return cls(**values)


@dataclass(frozen=True)
class Layer:
    """What one source sets."""

    source: str
    values: dict[str, Any]


def layers(environ: Mapping[str, str] | None = None) -> list[Layer]:
    """The file (when there is one) and the environment; the later one counts. Raises ConfigError."""
    environ = os.environ if environ is None else environ
    chosen = environ.get(ENV_PREFIX + "CONFIG_FILE")
    path = Path(chosen) if chosen else _default_config_file()
    types = {f.name: str(f.type) for f in fields(Settings)}
    given = {name: text for name in types if (text := environ.get(ENV_PREFIX + name.upper()))}
    from_environ = {name: _convert(name, types[name], text) for name, text in given.items()}
    from_file = [Layer(str(path), _read_file(path, types))] if path and (chosen or path.exists()) else []
    return [*from_file, Layer("environment", from_environ)]


def _default_config_file() -> Path | None:
    """None without a home: then there is no such file either."""
    try:
        return default_config_dir() / "config.toml"
    except ConfigError:
        return None


def unknown_variables(environ: Mapping[str, str] | None = None) -> list[str]:
    """AXION_* variables that nothing reads: misspelt, or of another version."""
    known = {ENV_PREFIX + f.name.upper() for f in fields(Settings)} | {ENV_PREFIX + name for name in _OTHER_VARIABLES}
    given = os.environ if environ is None else environ
    return sorted(name for name in given if name.startswith(ENV_PREFIX) and name not in known)


def _read_file(path: Path, types: Mapping[str, str]) -> dict[str, Any]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # not UTF-8, or not TOML
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    values = {}
    for name, value in data.items():
        if name not in types:
            raise ConfigError(f"{path}: {name}: there is no such setting; axion-llm config list has all", param=name)
        values[name] = _from_toml(path, name, types[name], value)
    return values


def _from_toml(path: Path, name: str, type_name: str, value: Any) -> Any:
    if type_name == "tuple[str, ...]" and isinstance(value, list) and all(isinstance(v, str) for v in value):
        return tuple(value)
    if type_name == "float" and type(value) in (int, float):
        return float(value)
    if type_name in ("int", "bool", "str") and type(value).__name__ == type_name:
        return value
    if type_name.startswith("Path") and isinstance(value, str):
        return _expanded(value)
    if name in SIZES and isinstance(value, str):
        with suppress(ValueError):
            return parse_size(value)
    raise ConfigError(f"{path}: {name} = {value!r}: not a valid {type_name}", param=name)


def _expanded(value: str) -> Path:
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise ConfigError(f"{value}: ~ means nothing for a user without a home folder: set HOME") from None


def _convert(name: str, type_name: str, text: str) -> Any:
    convert: Any = parse_size if name in SIZES else _CONVERTERS.get(type_name, Path)
    try:
        return convert(text)
    except ValueError:
        raise ConfigError(f"{ENV_PREFIX}{name.upper()} = {text!r}: not a valid {type_name}", param=name) from None


def parse_size(text: str) -> int:
    """Bytes, from a number with or without a unit: 800MB, 16GiB, 0.5TiB. ValueError for anything else."""
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(?:([KMGT])(i)?)?B?\s*", text, re.IGNORECASE)
    if not found:
        raise ValueError(text)
    number, unit, binary = found.groups()
    power = " KMGT".index(unit.upper()) if unit else 0
    return int(float(number) * (1024 if binary else 1000) ** power)


def _bool(text: str) -> bool:
    words = {"1": True, "true": True, "on": True, "yes": True, "0": False, "false": False, "off": False, "no": False}
    if text.lower() not in words:
        raise ValueError(text)
    return words[text.lower()]


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


_CONVERTERS = {"int": int, "float": float, "str": str, "bool": _bool, "tuple[str, ...]": _words}


VISION_LIBRARY = "libmtmd.so"  # left out of a first build


def library_dir() -> Path:
    """Where the native libraries are: beside the package, or AXION_LIB_DIR (another build, to try or to compare)."""
    return Path(os.environ.get(ENV_PREFIX + "LIB_DIR") or Path(__file__).parent / "lib")


def use_library_dir(path: Path) -> None:
    """Tell the llama-cpp-python bindings, before their import, to load our libraries."""
    os.environ["LLAMA_CPP_LIB_PATH"] = os.environ["MTMD_CPP_LIB"] = str(path)


Rung = Literal["all", "upstream", "no_repack", "baseline"]
RUNGS: tuple[Rung, ...] = ("all", "upstream", "no_repack", "baseline")
"""How much of the libraries a worker uses: all; none of our kernels; none of upstream's own weight layouts (repacking,
AMX) either; the backend in plain code."""


def rung() -> Rung:
    """Of this process, from AXION_RUNG."""
    name = os.environ.get(ENV_PREFIX + "RUNG") or "all"
    if name not in RUNGS:
        raise ConfigError(f"AXION_RUNG = {name!r}: one of {', '.join(RUNGS)}", param="rung")
    return name


def environment_on(rung: Rung, without: Sequence[str]) -> dict[str, str]:
    """The environment of a process that stays on a rung and does without some of our kernels."""
    chosen = os.environ.get(ENV_PREFIX + "KERNELS") or "all"
    kernels = ",".join([chosen, *(f"-{name}" for name in without)]) if rung == "all" else "off"
    return {**os.environ, ENV_PREFIX + "KERNELS": kernels, ENV_PREFIX + "RUNG": rung}


# How long a compute thread spins at a barrier before it sleeps, in iterations of some tens of nanoseconds. libgomp's
# own 300,000 lets a thread burn whole time slices while the one it waits for wants that very core.
SPIN_COUNT = 1000


def limit_spinning() -> None:
    """For libraries loaded after this; the user's own GOMP_SPINCOUNT or OMP_WAIT_POLICY is kept."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))
