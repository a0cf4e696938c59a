"""A GGUF's header tells what is in the file and what is wrong with it; nothing in it can hurt the reader."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from axion_llm.errors import ModelLoadError
from axion_llm.models import gguf_cursor
from axion_llm.models.gguf_header import Header, check_file, estimate_bytes
from tests.factory import ARCHITECTURES, Arch, Shape, smollm2_path, write_tiny_gguf

MEBIBYTE = 1 << 20


# ---- a header by hand


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _key(name: str, kind: int, value: bytes) -> bytes:
    return _string(name) + struct.pack("<I", kind) + value


ARCHITECTURE = _key("general.architecture", 8, _string("llama"))
HUGE = 2**62
NAN_HEADS = _key("llama.attention.head_count", 9, struct.pack("<IQf", 6, 1, float("nan")))


def _count(name: str, value: int) -> bytes:
    return _key(name, 10, struct.pack("<Q", value))


def _array(name: str, kind: int, length: int, elements: bytes = b"") -> bytes:
    return _key(name, 9, struct.pack("<IQ", kind, length) + elements)


def _tensor(name: str, shape: list[int], kind: int, offset: int = 0) -> bytes:
    return _string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def _written(folder: Path, *keys: bytes, tensors: tuple[bytes, ...] = (), n_keys: int | None = None) -> Path:
    counts = struct.pack("<IQQ", 3, len(tensors), len(keys) if n_keys is None else n_keys)
    path = folder / "model.gguf"
    path.write_bytes(b"GGUF" + counts + b"".join(keys) + b"".join(tensors))
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", "llama", n_layer=1, n_head=1, n_head_kv=1)


# ---- a whole model


def test_it_says_what_the_model_is() -> None:
    header = check_file(smollm2_path())
    assert (header.architecture, header.n_layer, header.n_embd, header.n_ctx_train) == (
        "llama",
        30,
        576,
        8192,
    )
    assert (header.n_head, set(header.n_head_kv), header.key_length) == (9, {3}, 64)
    assert (header.n_vocab, header.n_params) == (49152, 134_515_008)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_it_reads_every_architecture_we_serve(arch: Arch, tmp_path: Path) -> None:
    shape = Shape(n_layer=3, n_head=2, n_head_kv=1, head_dim=64)
    header = check_file(write_tiny_gguf(tmp_path / "m.gguf", arch, shape=shape))
    assert (header.architecture, header.n_head_kv, header.n_embd) == (arch, (1, 1, 1), 128)
    assert (header.key_length, header.n_ff, header.n_vocab) == (64, shape.n_ff, 49152)
    assert header.sliding_window == (shape.sliding_window if arch == "gemma3" else 0)


def test_it_is_quick_because_it_steps_over_the_vocabulary() -> None:
    """20 ms, where reading all strings takes two seconds; the best of three, the machine being shared."""
    best = min(_seconds(lambda: check_file(smollm2_path())) for _ in range(3))
    assert best < 0.1


# ---- memory


@pytest.mark.parametrize(
    ("n_ctx", "kv_mebibytes", "compute_mebibytes"),
    [(2048, 23.90625, 99.38), (32768, 382.5, 99.38), (131072, 1530, 140.42)],
)
def test_memory_is_what_llama_cpp_reports_for_smollm2(
    n_ctx: int, kv_mebibytes: float, compute_mebibytes: float
) -> None:
    """The numbers are from llama.cpp's log; compute may be estimated too high, never too low."""
    need = estimate_bytes(check_file(smollm2_path()), n_ctx, "q8_0")
    assert need.weights / MEBIBYTE == pytest.approx(92.10, abs=0.01)
    assert need.kv / MEBIBYTE == kv_mebibytes
    assert 1 <= need.compute / MEBIBYTE / compute_mebibytes < 1.2
    assert need.total == need.weights + need.kv + need.compute


def test_memory_depends_on_the_cache_type_and_defaults_to_the_whole_context() -> None:
    header = check_file(smollm2_path())
    assert estimate_bytes(header, 32768, "f16").kv / MEBIBYTE == 720
    assert estimate_bytes(header, 0, "f16") == estimate_bytes(header, 8192, "f16")


# ---- what is not a whole model


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html>", "not a GGUF file, it begins with b'<!DOCTYP'"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b"GGUF" + struct.pack("<I", 1), "GGUF version 1"),
        (b"GGUF" + struct.pack(">I", 3), "little-endian"),
        (b"GGUF", "ends within its header"),
    ],
)
def test_it_names_what_lies_in_a_models_place(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelLoadError) as error:
        check_file(path)
    assert says in error.value.message and str(path) in error.value.message


def test_a_missing_file_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"no such file.*axion-llm pull"):
        check_file(tmp_path / "model.gguf")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="cannot be read"):
        check_file(tmp_path)


def test_a_truncated_file_says_how_much_is_missing(tiny: Path, tmp_path: Path) -> None:
    content = tiny.read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(content[:-MEBIBYTE])
    with pytest.raises(ModelLoadError, match=rf"expected {len(content):,} bytes, has {len(content) - MEBIBYTE:,}"):
        check_file(path)


def test_one_part_of_a_split_model_says_how_to_join_it(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"one of 3 parts.*llama-gguf-split"):
        check_file(_written(tmp_path, ARCHITECTURE, _count("split.count", 3)))


# ---- headers built to do harm: each asks for something enormous or makes no sense


@pytest.mark.parametrize(
    ("keys", "tensors"),
    [
        ([struct.pack("<Q", HUGE)], []),
        ([_key("a", 8, struct.pack("<Q", HUGE))], []),
        ([_array("a", 4, HUGE)], []),
        ([_array("a", 8, HUGE)], []),
        ([_array("a", 8, 3, struct.pack("<Q", HUGE))], []),
        ([_array("a", 9, 2)], []),
        ([_key("a", 99, b"")], []),
        ([_key("general.architecture", 8, struct.pack("<Q", 0))], []),
        ([ARCHITECTURE, _key("llama.block_count", 8, _string("two"))], []),
        ([ARCHITECTURE, _count("llama.block_count", HUGE)], []),
        ([ARCHITECTURE, _key("llama.block_count", 5, struct.pack("<i", -1))], []),
        ([ARCHITECTURE, _key("llama.block_count", 6, struct.pack("<f", float("nan")))], []),
        (
            [
                ARCHITECTURE,
                _count("llama.block_count", 2),
                _array("llama.attention.head_count", 4, 1, bytes(4)),
            ],
            [],
        ),
        ([ARCHITECTURE, _count("llama.block_count", 1), NAN_HEADS], []),
        ([ARCHITECTURE, _count("general.alignment", 0)], []),
        ([ARCHITECTURE, _count("general.alignment", 24)], []),
        ([ARCHITECTURE], [_tensor("t", [HUGE, HUGE, HUGE, HUGE], 0)]),
        ([ARCHITECTURE], [_tensor("t", [33], 8)]),
        ([ARCHITECTURE], [_tensor("t", [32], 77)]),
        ([ARCHITECTURE], [_tensor("t", [1] * 5, 0)]),
        ([ARCHITECTURE], [_tensor("t", [32], 0, offset=HUGE)]),
    ],
)
def test_a_hostile_header_is_refused_at_once(tmp_path: Path, keys: list[bytes], tensors: list[bytes]) -> None:
    path = _written(tmp_path, *keys, tensors=tuple(tensors))
    with pytest.raises(ModelLoadError):
        check_file(path)


@pytest.mark.parametrize("count", [HUGE, 2**32, 100_000])
def test_a_count_of_keys_or_tensors_beyond_reason_is_refused(tmp_path: Path, count: int) -> None:
    with pytest.raises(ModelLoadError, match="metadata keys"):
        check_file(_written(tmp_path, n_keys=count))


def test_strings_without_end_are_refused_however_they_are_spread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_cursor, "MAX_STRINGS", 10)
    five = [_array(f"a{i}", 8, 5, bytes(5 * 8)) for i in range(3)]
    assert check_file(_model(tmp_path, *five[:2])).architecture == "llama"
    with pytest.raises(ModelLoadError, match="more than 10 strings"):
        check_file(_written(tmp_path, ARCHITECTURE, *five))


# ---- properties: whatever the bytes, a Header or a ModelLoadError

patiently = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _header_or_error(path: Path, content: bytes) -> Header | None:
    path.write_bytes(content)
    try:
        return check_file(path)
    except ModelLoadError as error:
        assert str(path) in error.message
        return None


@patiently
@given(content=st.binary(max_size=400))
def test_random_bytes_after_the_magic(tmp_path: Path, content: bytes) -> None:
    _header_or_error(tmp_path / "random.gguf", b"GGUF\x03\x00\x00\x00" + content)


@patiently
@given(data=st.data())
def test_a_file_cut_anywhere_is_never_taken_for_whole(tiny: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = tiny.read_bytes()
    end = data.draw(st.one_of(st.integers(0, 2000), st.integers(0, len(content) - 1)))
    assert _header_or_error(tmp_path / "cut.gguf", content[:end]) is None


@patiently
@given(flips=st.lists(st.integers(0, 8 * 1600 - 1), min_size=1, max_size=4))
def test_flipped_bits_in_the_header(small: bytes, tmp_path: Path, flips: list[int]) -> None:
    content = bytearray(small)
    for bit in flips:
        content[bit // 8 % len(content)] ^= 1 << bit % 8
    header = _header_or_error(tmp_path / "flipped.gguf", bytes(content))
    if header is not None:
        estimate_bytes(header, 4096, "q8_0")


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Every kind of value and some tensors, in a kilobyte: few flips fall into a vocabulary."""
    keys = [
        ARCHITECTURE,
        _key("general.name", 8, _string("small")),
        _count("llama.block_count", 2),
        _count("llama.context_length", 512),
        _count("llama.embedding_length", 64),
        _count("llama.attention.head_count", 2),
        _array("llama.attention.head_count_kv", 4, 2, struct.pack("<2I", 1, 2)),
        _key("llama.rope.freq_base", 6, struct.pack("<f", 1e4)),
        _key("a.bool", 7, b"\x01"),
        _array("tokenizer.ggml.tokens", 8, 20, b"".join(_string(f"token{i}") for i in range(20))),
    ]
    tensors = tuple(_tensor(f"blk.{i}.weight", [64, 2], 8, offset=160 * i) for i in range(3))
    path = _written(tmp_path_factory.mktemp("gguf"), *keys, tensors=tensors)
    return path.read_bytes() + bytes(3 * 160)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


# ---- what llama.cpp would end its process over

SOUND = {"block_count": 2, "context_length": 128, "embedding_length": 64, "attention.head_count": 2}
EXPERTS = (_tensor("blk.0.ffn_up_exps.weight", [32], 0),)


def _model(folder: Path, *more: bytes, tensors: tuple[bytes, ...] = (), **changes: int) -> Path:
    counts = SOUND | {name.replace("__", "."): value for name, value in changes.items()}
    keys = [_count(f"llama.{name}", value) for name, value in counts.items()]
    path = _written(folder, ARCHITECTURE, *keys, *more, tensors=tensors)
    path.write_bytes(path.read_bytes() + bytes(4096))
    return path


def test_a_sound_one_passes(tmp_path: Path) -> None:
    assert check_file(_model(tmp_path)).n_layer == 2
    check_file(_model(tmp_path, tensors=EXPERTS, expert_count=8, expert_used_count=2))
    check_file(_model(tmp_path, _key("llama.rope.scaling.type", 8, _string("yarn"))))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"block_count": 0}, "block_count = 0"),
        ({"block_count": 513}, "513 layers|block_count = 513"),
        ({"context_length": 2**31}, "context_length = 2,147,483,648"),
        ({"context_length": 1}, "context_length = 1,"),
        ({"embedding_length": 0}, "embedding_length = 0"),
        ({"expert_count": 1}, "1 experts of which 0 are used, and no tensors"),
        ({"expert_count": 8, "expert_used_count": 2}, "8 experts .* no tensors"),
    ],
)
def test_a_count_that_cannot_be_served(tmp_path: Path, changes: dict[str, int], told: str) -> None:
    with pytest.raises(ModelLoadError, match=told):
        check_file(_model(tmp_path, **changes))


@pytest.mark.parametrize(
    ("key", "told"),
    [
        (_count("general.alignment", 1), "alignment 1 "),
        (_count("general.alignment", 8), "alignment 8 "),
        (_key("llama.rope.scaling.type", 8, _string("junk")), "rope scaling 'junk'"),
        (_array("llama.attention.head_count_kv", 4, 3, bytes(12)), "2 counts were expected"),
    ],
)
def test_a_value_that_cannot_be_served(tmp_path: Path, key: bytes, told: str) -> None:
    with pytest.raises(ModelLoadError, match=told):
        check_file(_model(tmp_path, key))


@pytest.mark.parametrize(("count", "used"), [(0, 0), (8, 9), (8, 0)])
def test_experts_that_do_not_add_up(tmp_path: Path, count: int, used: int) -> None:
    with pytest.raises(ModelLoadError, match=f"{count} experts of which {used} are used"):
        check_file(_model(tmp_path, tensors=EXPERTS, expert_count=count, expert_used_count=used))
