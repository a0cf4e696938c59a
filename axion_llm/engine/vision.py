"""Images as a model sees them: decoded, encoded by the projector (llama.cpp's mtmd), kept by tenant and content.

Runs in a thread of its own beside the steps: encoding an image takes seconds, and no stream waits for it. Each image
gets token ids of its own below zero, the same whenever it comes again, so that the prefix cache can tell images apart
and finds the same one.
"""

from __future__ import annotations

import ctypes
import hashlib
import io
import threading
from collections import OrderedDict
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from axion_llm.engine.binding import LlamaModel, Picture, load_mtmd
from axion_llm.errors import BadRequest, EngineError, ModelLoadError

CACHE_BYTES = 128 << 20  # of embeddings; one image of gemma-3-4b has 2.6 MB
MAX_PIXELS = 40_000_000
FORMATS = ("PNG", "JPEG", "WEBP", "GIF")  # of an animation the first picture
MARKER = b"<__media__>"


Part = list[int] | Picture


class Vision:
    """A projector for one model. Raises ModelLoadError for a file that is none, or none for this model."""

    def __init__(self, model: LlamaModel, path: str) -> None:
        self._mtmd = mtmd = load_mtmd()
        params = mtmd.mtmd_context_params_default()
        params.use_gpu, params.warmup, params.print_timings = False, False, False
        params.n_threads = model.num_threads
        params.media_marker = MARKER
        self._ctx = mtmd.mtmd_init_from_file(path.encode(), model.handle, params)
        if not self._ctx:
            raise ModelLoadError(f"llama.cpp cannot load the projector {path}: damaged, or made for another model")
        if not mtmd.mtmd_support_vision(self._ctx) or mtmd.mtmd_decode_use_mrope(self._ctx):
            raise ModelLoadError(f"the projector {path} is of a kind that cannot be served: gemma3's are")
        self._is_causal = not mtmd.mtmd_decode_use_non_causal(self._ctx, None)
        self._n_embd = model.n_embd
        self._most_tokens = model.n_batch
        self._lock = threading.Lock()
        self._next_id = -1
        self._kept: OrderedDict[bytes, list[Part]] = OrderedDict()
        self._kept_bytes = 0
        self.num_encoded = 0

    def close(self) -> None:
        self._mtmd.mtmd_free(self._ctx)

    def parts(self, data: bytes, tenant: str = "") -> list[Part]:
        """The image file as tokens of text around it and what the model sees. Raises BadRequest for no image.

        Each tenant has its own: the time that is saved would tell another one that somebody has sent this image.
        """
        key = hashlib.sha256(hashlib.sha256(data).digest() + tenant.encode()).digest()
        with self._lock:
            parts = self._kept.get(key)
            if parts is None:
                parts = self._kept[key] = self._encode(data)
                self._kept_bytes += _num_bytes(parts)
                self.num_encoded += 1
            self._kept.move_to_end(key)
            while self._kept_bytes > CACHE_BYTES and len(self._kept) > 1:
                self._kept_bytes -= _num_bytes(self._kept.popitem(last=False)[1])
        return parts

    def _encode(self, data: bytes) -> list[Part]:
        mtmd = self._mtmd
        width, height, pixels = decode(data)
        buffer = (ctypes.c_uint8 * len(pixels)).from_buffer_copy(pixels)
        bitmap = mtmd.mtmd_bitmap_init(width, height, buffer)
        chunks = mtmd.mtmd_input_chunks_init()
        try:
            self._tokenize(chunks, bitmap)
            found = [mtmd.mtmd_input_chunks_get(chunks, i) for i in range(mtmd.mtmd_input_chunks_size(chunks))]
            return [self._part(chunk) for chunk in found]
        finally:
            mtmd.mtmd_input_chunks_free(chunks)
            mtmd.mtmd_bitmap_free(bitmap)

    def _tokenize(self, chunks: Any, bitmap: Any) -> None:
        text = self._mtmd.mtmd_input_text(MARKER, len(MARKER), False, True)
        bitmaps = (ctypes.c_void_p * 1)(bitmap)
        if self._mtmd.mtmd_tokenize(self._ctx, chunks, ctypes.byref(text), bitmaps, 1) != 0:
            raise BadRequest("the image cannot be prepared for this model", param="messages")

    def _part(self, chunk: Any) -> Part:
        mtmd = self._mtmd
        if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT:
            count = ctypes.c_size_t()
            tokens = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
            return list(tokens[: count.value])
        num_tokens = int(mtmd.mtmd_input_chunk_get_n_tokens(chunk))
        if num_tokens > self._most_tokens:
            raise EngineError(f"an image of {num_tokens} tokens does not fit into a step of {self._most_tokens}")
        if mtmd.mtmd_encode_chunk(self._ctx, chunk) != 0:
            raise EngineError("the projector could not encode the image")
        address = ctypes.cast(mtmd.mtmd_get_output_embd(self._ctx), ctypes.c_void_p).value
        values = (ctypes.c_float * (num_tokens * self._n_embd)).from_address(address or 0)
        embeddings = np.ctypeslib.as_array(values).reshape(num_tokens, self._n_embd).copy()
        ids = list(range(self._next_id, self._next_id - num_tokens, -1))
        self._next_id -= num_tokens
        return Picture(embeddings, ids, self._is_causal)


def decode(data: bytes) -> tuple[int, int, bytes]:
    """Width, height and RGB of an image file, upright, on white where it is transparent.

    Pillow and not mtmd's own helper: that one hands what it does not know to ffmpeg.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                size = f"{image.width} x {image.height}"
                raise BadRequest(
                    f"the image has {size} pixels, more than {MAX_PIXELS:,} are not taken", param="messages"
                )
            upright = ImageOps.exif_transpose(image).convert("RGBA")
            flat = Image.new("RGB", upright.size, "white")
            flat.paste(upright, mask=upright.getchannel("A"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        known = ", ".join(FORMATS)
        raise BadRequest(f"the image cannot be decoded: damaged, or none of {known}", param="messages") from error
    return flat.width, flat.height, flat.tobytes()


def _num_bytes(parts: list[Part]) -> int:
    return sum(part.embeddings.nbytes for part in parts if isinstance(part, Picture))
