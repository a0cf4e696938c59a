"""The models the service knows: the shipped list, changed and added to by the user's files.

A later file may change single keys of a model or add models. Every mistake is a ConfigError that names file,
line, key and value and says what is allowed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from axion_llm.config import Settings
from axion_llm.errors import ConfigError, ModelNotFound
from axion_llm.models.schema import SOURCES, check_name, convert_model, convert_sampling, did_you_mean
from axion_llm.models.spec import ModelSpec, Source
from axion_llm.models.toml_file import Entry, TomlFile
from axion_llm.worker.messages import Sampling

SHIPPED = Path(__file__).with_name("models.toml")

# What a later file makes void when it sets a key: a new source has another file, a new file another checksum.
_OF_THE_FILE = frozenset({"size_bytes", "sha256"})
_OF_THE_SOURCE = frozenset({*SOURCES, "revision", "file", "mmproj"}) | _OF_THE_FILE
_TEMPLATES = frozenset({"chat_template", "chat_template_file"})
_VOID = {
    **dict.fromkeys(SOURCES, _OF_THE_SOURCE),
    **dict.fromkeys(("file", "revision"), _OF_THE_FILE),
    **dict.fromkeys(_TEMPLATES, _TEMPLATES),
}

_FIELDS = {"context": "n_ctx", "parallel": "n_seq_max", "chat_template_file": "chat_template"}
_SAMPLING = "sampling."


class Registry:
    """All models by name, in the order of the files."""

    def __init__(self, models: Mapping[str, ModelSpec]) -> None:
        self._models = dict(models)

    def get(self, name: str) -> ModelSpec:
        """The named model; raises ModelNotFound that lists the known ones."""
        try:
            return self._models[name]
        except KeyError:
            hint = did_you_mean(name, self._models)
            known = ", ".join(self._models) or "none"
            raise ModelNotFound(f'There is no model "{name}".{hint} Known: {known}.', param="model") from None

    def names(self) -> list[str]:
        return list(self._models)

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self._models.values())

    def __len__(self) -> int:
        return len(self._models)

    def __contains__(self, name: object) -> bool:
        return name in self._models


def load_registry(settings: Settings) -> Registry:
    """Merge the shipped file, then the user's if there is one, then the one that was named."""
    drafts: dict[str, _Draft] = {}
    for path in _files(settings):
        for draft in _read(TomlFile(path)):
            earlier = drafts.get(draft.name)
            drafts[draft.name] = draft.over(earlier)
    return Registry({name: draft.spec(drafts) for name, draft in drafts.items()})


def locate(spec: ModelSpec, settings: Settings) -> Path | None:
    """Where the model's file is on this machine; None when it is not there."""
    return _existing(spec, settings, spec.file)


def locate_mmproj(spec: ModelSpec, settings: Settings) -> Path | None:
    """Where the vision projector is; None when the model has none or it is not there."""
    return _existing(spec, settings, spec.mmproj) if spec.mmproj else None


def folder(spec: ModelSpec, settings: Settings) -> Path | None:
    """Where the model's files belong; None when they come with a Python package that is not installed."""
    if spec.source.path is not None:
        return spec.source.path.parent
    if spec.source.package is not None:
        return _package_folder(spec.source.package)
    return settings.models_dir / spec.name


def _existing(spec: ModelSpec, settings: Settings, file: str) -> Path | None:
    place = folder(spec, settings)
    return place / file if place is not None and (place / file).is_file() else None


def _package_folder(package: str) -> Path | None:
    """Found without importing it: the package may want more than is installed."""
    found = importlib.util.find_spec(package.replace("-", "_"))
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent


def registry_files(settings: Settings) -> list[Path]:
    """All that may make up the registry, whether they exist or not."""
    named = [settings.models_file] if settings.models_file else []
    return [SHIPPED, settings.user_models_file, *named]


def _files(settings: Settings) -> list[Path]:
    files = [SHIPPED]
    if settings.user_models_file.exists():
        files.append(settings.user_models_file)
    if settings.models_file is not None:
        if not settings.models_file.exists():
            raise ConfigError(
                f"{settings.models_file}: no such file, but it was named as the models file (--models or "
                "AXION_MODELS_FILE). Correct the path, or leave it out to use the shipped models.",
                param="models_file",
            )
        files.append(settings.models_file)
    return files


@dataclass(frozen=True)
class _Draft:
    """A model as far as the files give it: converted values with their places; sampling's keys prefixed."""

    name: str
    table: Entry
    values: Mapping[str, Entry]

    def over(self, earlier: _Draft | None) -> _Draft:
        """These keys on top of an earlier file's, less what they make void."""
        if earlier is None:
            return self
        void = frozenset[str]().union(*(_VOID.get(key, ()) for key in self.values))
        kept = {key: entry for key, entry in earlier.values.items() if key not in void}
        return replace(self, values={**kept, **self.values})

    def spec(self, known: Collection[str]) -> ModelSpec:
        self._check_source(known)
        source: dict[str, Any] = {}
        sampling: dict[str, Any] = {}
        rest: dict[str, Any] = {}
        for key, entry in self.values.items():
            if key in (*SOURCES, "revision"):
                source[key] = entry.value
            elif key.startswith(_SAMPLING):
                sampling[key.removeprefix(_SAMPLING)] = entry.value
            else:
                rest[_FIELDS.get(key, key)] = entry.value
        if "path" in source:
            rest["file"] = source["path"].name
        return ModelSpec(name=self.name, source=Source(**source), sampling=Sampling(**sampling), **rest)

    def _check_source(self, known: Collection[str]) -> None:
        values = self.values
        if not any(source in values for source in SOURCES):
            hint = did_you_mean(self.name, [name for name in known if name != self.name])
            raise self.table.error(f"a model needs exactly one of {', '.join(SOURCES)}.{hint}")
        if "path" in values:
            for key in ("file", "revision"):
                if key in values:
                    raise values[key].error("goes with repo or package; the path alone says which file it is")
        elif "file" not in values:
            raise self.table.error('needs the name of its GGUF file: file = "….gguf"')


def _read(toml: TomlFile) -> Iterator[_Draft]:
    for key, value in toml.data.items():
        if key != "models":
            raise toml.entry((key,), value).error("unknown key. A model is a table [models.NAME]")
    models = toml.data.get("models", {})
    if not isinstance(models, dict):
        raise toml.entry(("models",), models).error("a model is a table [models.NAME]")
    for name, table in models.items():
        yield _draft(toml, name, table)


def _draft(toml: TomlFile, name: str, table: Any) -> _Draft:
    at = toml.entry(("models", name), table)
    check_name(at, name)
    if not isinstance(table, dict):
        raise at.error("a model is a table [models.NAME]")
    values: dict[str, Entry] = {}
    for key, value in table.items():
        values[key] = convert_model(toml.entry(("models", name, key), value), key)
    if sampling := values.pop("sampling", None):
        for key, value in sampling.value.items():
            entry = toml.entry(("models", name, "sampling", key), value)
            values[_SAMPLING + key] = convert_sampling(entry, key)
    for group in (SOURCES, sorted(_TEMPLATES)):
        _check_exclusive(values, group)
    return _Draft(name, at, values)


def _check_exclusive(values: Mapping[str, Entry], group: Collection[str]) -> None:
    given = [key for key in values if key in group]
    if len(given) > 1:
        raise values[given[1]].error(f"excludes {given[0]}: only one of {', '.join(group)} can be given")
