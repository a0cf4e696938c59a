"""Images in prompts: a tiny gemma3 with a tiny projector, both with random weights, looks at pictures."""

from __future__ import annotations

import ctypes
import io
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from axion_llm.engine import vision
from axion_llm.engine.binding import LlamaModel, Picture, lib, load_mtmd
from axion_llm.engine.engine import Engine
from axion_llm.errors import BadRequest, ModelLoadError
from axion_llm.worker.messages import Generate, Image, Load
from tests.engine.driver import request as text_request
from tests.engine.driver import run
from tests.factory import write_tiny_gguf, write_tiny_projector

TEXT = "Look:  and say what you see, in a few words."
PLACE = TEXT.index("  ") + 1
NUM_TOKENS = 16  # of a picture, of 224 pixels


def image_file(color: str, format: str = "PNG", size: tuple[int, int] = (60, 40)) -> bytes:
    file = io.BytesIO()
    Pillow.new("RGB", size, color).save(file, format)
    return file.getvalue()


RED, BLUE = image_file("red"), image_file("blue")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("gemma")
    model = write_tiny_gguf(folder / "gemma3.gguf", "gemma3")
    return model, write_tiny_projector(folder / "mmproj.gguf", n_embd=64, image_size=224)


@pytest.fixture(scope="module")
def gemma(paths: tuple[Path, Path]) -> Iterator[LlamaModel]:
    model = LlamaModel(Load("gemma3", str(paths[0]), n_ctx=2048, n_seq_max=8, mmproj=str(paths[1])), num_threads=2)
    yield model
    model.close()


@pytest.fixture
def engine(gemma: LlamaModel) -> Iterator[Engine]:
    engine = Engine(gemma)
    yield engine
    engine.scheduler.cache.clear()
    assert engine.scheduler.cells_used == 0
    assert engine.vision is not None
    engine.vision.close()


def request(request_id: str, *images: bytes, text: str = TEXT, max_tokens: int = 8) -> Generate:
    return text_request(request_id, text, max_tokens, images=[Image(PLACE, data) for data in images])


def request_with_logprobs(image: bytes) -> Generate:
    return text_request("r", TEXT, 1, images=[Image(PLACE, image)], top_logprobs=0)


def text(engine: Engine, *images: bytes) -> str:
    """From an empty cache."""
    engine.scheduler.cache.clear()
    return run(engine, request("r", *images))["r"].text


def test_it_is_what_mtmd_itself_computes(engine: Engine, gemma: LlamaModel) -> None:
    """Its own way through a prompt with a picture, into a context of its own, gives the same next token."""
    assert engine.vision is not None
    mtmd, projector = load_mtmd(), engine.vision._ctx
    params = lib.llama_context_default_params()
    params.n_ctx, params.type_k, params.type_v, params.flash_attn_type = 512, 8, 8, 1
    context = lib.llama_init_from_model(gemma.handle, params)
    width, height, pixels = vision.decode(RED)
    bitmap = mtmd.mtmd_bitmap_init(width, height, (ctypes.c_uint8 * len(pixels)).from_buffer_copy(pixels))
    chunks, past = mtmd.mtmd_input_chunks_init(), ctypes.c_int32()
    try:
        prompt = (TEXT[:PLACE] + vision.MARKER.decode() + TEXT[PLACE:]).encode()
        asked = mtmd.mtmd_input_text(prompt, len(prompt), True, True)
        bitmaps = (ctypes.c_void_p * 1)(bitmap)
        assert mtmd.mtmd_tokenize(projector, chunks, ctypes.byref(asked), bitmaps, 1) == 0
        where = ctypes.byref(past)
        assert mtmd.mtmd_helper_eval_chunks(projector, context, chunks, 0, 0, 512, True, where) == 0
        logits = np.array(lib.llama_get_logits_ith(context, -1)[: gemma.n_vocab])
    finally:
        mtmd.mtmd_input_chunks_free(chunks)
        mtmd.mtmd_bitmap_free(bitmap)
        lib.llama_free(context)
    (ours,) = run(engine, request_with_logprobs(RED))["r"].logprobs
    assert past.value == len(engine.tokenize(request("t", RED)))
    assert ours.token == int(logits.argmax())
    assert ours.logprob == pytest.approx(float(logits.max() - np.log(np.exp(logits).sum())), abs=0.02)


def test_what_is_seen_decides_what_is_said(engine: Engine) -> None:
    said = [text(engine), text(engine, RED), text(engine, BLUE), text(engine, RED, BLUE), text(engine, BLUE, RED)]
    assert len(set(said)) == 5
    assert text(engine, RED) == said[1]


def test_a_picture_has_its_tokens_in_the_prompt(engine: Engine) -> None:
    tokens = engine.tokenize(request("a", RED, BLUE))
    pictures = [t for t in tokens if t < 0]
    assert len(pictures) == len(set(pictures)) == 2 * NUM_TOKENS
    assert pictures == sorted(pictures, reverse=True)
    ended = run(engine, request("b", RED, BLUE))["b"].end
    assert ended is not None and ended.prompt_tokens == len(tokens)  # type: ignore[union-attr]


def test_the_same_picture_is_encoded_once_and_found_in_the_prefix_cache(engine: Engine) -> None:
    assert engine.vision is not None
    first = run(engine, request("a", RED))["a"]
    again = run(engine, request("b", RED))["b"]
    other = run(engine, request("c", BLUE))["c"]
    assert engine.vision.num_encoded == 2
    assert again.text == first.text
    before = len(engine.tokenize(text_request("t", TEXT[:PLACE])))
    num_prompt = len(engine.tokenize(request("d", RED)))
    assert again.end is not None and again.end.cached_tokens == num_prompt - 1  # type: ignore[union-attr]
    assert other.end is not None  # it shares what comes before the picture, and nothing of it
    assert other.end.cached_tokens <= before + len(engine.vision.parts(BLUE)[0])  # type: ignore[union-attr]
    assert other.text == text(engine, BLUE)


def test_half_a_picture_in_the_cache_is_computed_whole(engine: Engine) -> None:
    whole = text(engine, RED)
    sequence = engine.tokenize(request("t", RED))
    start = next(i for i, t in enumerate(sequence) if t < 0)
    cache = engine.scheduler.cache
    leaf = next(n for n in cache.nodes() if not n.children)
    cache._trim_leaf(leaf, leaf.end - (start + NUM_TOKENS // 2))
    again = run(engine, request("a", RED))["a"]
    assert again.text == whole
    assert again.end is not None and again.end.cached_tokens <= start  # type: ignore[union-attr]


def test_company_changes_nothing(engine: Engine) -> None:
    """Streams beside pictures, several pictures at once: the texts are those that each has alone."""
    alone = {"red": text(engine, RED), "both": text(engine, RED, BLUE)}
    engine.scheduler.cache.clear()
    stream = run(engine, text_request("s", "Once upon a time", 40))["s"].text
    engine.scheduler.cache.clear()
    seen = run(
        engine,
        text_request("stream", "Once upon a time", 40),
        request("red", RED),
        request("both", RED, BLUE),
        request("red again", RED),
    )
    assert seen["stream"].text == stream
    assert {name: seen[name].text for name in alone} == alone
    assert seen["red again"].text == alone["red"]


def test_a_stream_waits_for_no_two_pictures_in_a_row(engine: Engine) -> None:
    stream = text_request("s", "Once upon a time", 60)
    engine.add(stream, engine.tokenize(stream))
    for _ in range(3):
        engine.step()
    many = request("many", *[image_file(f"#{i:02x}0000") for i in range(0, 200, 25)])
    engine.add(many, engine.tokenize(many))
    had_token, steps = [], 0
    while engine.has_work and steps < 40:
        had_token.append(any(event.request_id == "s" for event in engine.step()))
        steps += 1
    assert not any(a is b is False for a, b in pairwise(had_token))
    for request_id in ("s", "many"):
        engine.cancel(request_id)


def test_a_picture_sees_all_of_itself(engine: Engine, gemma: LlamaModel) -> None:
    """gemma3 looks at a picture in both directions: with an order of tokens it says something else."""
    assert engine.vision is not None
    whole = text(engine, RED)
    parts = engine.vision.parts(RED)
    picture = next(part for part in parts if isinstance(part, Picture))
    assert not picture.is_causal
    one_way = [p if isinstance(p, list) else Picture(p.embeddings, p.ids, True) for p in parts]
    next(iter(engine.vision._kept.values()))[:] = one_way
    assert text(engine, RED) != whole


def test_without_a_projector_there_are_no_images(paths: tuple[Path, Path]) -> None:
    model = LlamaModel(Load("gemma3", str(paths[0]), n_ctx=512), num_threads=1)
    try:
        with pytest.raises(BadRequest, match="takes no images"):
            Engine(model).tokenize(request("a", RED))
    finally:
        model.close()


@pytest.mark.parametrize("wrong", ["missing", "garbage", "of another size"])
def test_projectors_that_do_not_fit(gemma: LlamaModel, tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "mmproj.gguf"
    if wrong == "garbage":
        path.write_bytes(b"garbage" * 100)
    elif wrong == "of another size":
        write_tiny_projector(path, n_embd=128)
    with pytest.raises(ModelLoadError):
        vision.Vision(gemma, str(path))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF"])
def test_formats(format: str) -> None:
    width, height, pixels = vision.decode(image_file("blue", format))
    assert (width, height, len(pixels)) == (60, 40, 60 * 40 * 3)
    assert np.abs(np.frombuffer(pixels[:3], np.uint8).astype(int) - [0, 0, 255]).max() < 8


def test_what_is_transparent_is_white_and_photos_stand_upright() -> None:
    file = io.BytesIO()
    Pillow.new("RGBA", (2, 2), (255, 0, 0, 0)).save(file, "PNG")
    assert vision.decode(file.getvalue()) == (2, 2, b"\xff" * 12)
    turned, exif = io.BytesIO(), Pillow.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Pillow.new("RGB", (8, 4)).save(turned, "JPEG", exif=exif)
    assert vision.decode(turned.getvalue())[:2] == (4, 8)


@pytest.mark.parametrize("data", [b"", b"nonsense", RED[:60], b"GIF89a" + b"\0" * 50, b"RIFF\0\0\0\0WAVE", b"%PDF-1.4"])
def test_what_is_no_image(data: bytes) -> None:
    with pytest.raises(BadRequest, match="cannot be decoded"):
        vision.decode(data)


def test_a_bomb_is_not_unpacked() -> None:
    file = io.BytesIO()
    Pillow.new("1", (20_000, 20_000)).save(file, "PNG")
    assert len(file.getvalue()) < 100_000
    with pytest.raises(BadRequest, match=r"20000 x 20000 pixels|cannot be decoded"):
        vision.decode(file.getvalue())


def test_what_was_not_seen_for_long_is_given_up(
    gemma: LlamaModel, paths: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vision, "CACHE_BYTES", 2 * NUM_TOKENS * 64 * 4)
    seen = vision.Vision(gemma, str(paths[1]))
    for color in ("red", "green", "red", "blue", "red", "green"):
        seen.parts(image_file(color))
    assert seen.num_encoded == 4  # green was the one that went for blue
    seen.close()
