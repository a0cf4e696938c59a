"""The only module that touches llama_cpp: a loaded model with one context, as a few typed calls on numpy arrays."""

from __future__ import annotations

import ctypes
import re
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from axion_llm import config, native
from axion_llm.errors import EngineError, ModelLoadError
from axion_llm.worker.messages import Load

Logits = npt.NDArray[np.float32]  # [num_outputs, n_vocab], a view that the next decode overwrites

GGML_TYPE = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "bf16": 30}

_POOLING = {1: "mean", 2: "cls", 3: "last", 4: "rank"}

_NO_TEXT = 1 | 8  # LLAMA_TOKEN_ATTR_UNKNOWN, _CONTROL

MAX_SEQ_IDS = 256  # LLAMA_MAX_SEQ
CACHE_SEQ_IDS = 48  # at least, for what the prefix cache keeps beside the running sequences

# llama.cpp tells the sizes of its buffers nowhere but in its log.
_BUFFER_SIZE = re.compile(rb"(KV|compute|output) buffer size = +([\d.]+) MiB")
_buffer_bytes: dict[str, int] = {}

_keep_alive: list[Any] = []


def _load_llama_cpp(library: native.NativeLibrary) -> Any:
    """Import the bindings on top of our verified libraries."""
    config.use_library_dir(library.directory)
    import llama_cpp

    level = 0

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
    def log(new_level: int, text: bytes, _: Any) -> None:
        nonlocal level
        level = new_level if new_level != 5 else level  # 5: goes on with the line before
        if found := _BUFFER_SIZE.search(text):
            kind = found[1].decode()
            _buffer_bytes[kind] = _buffer_bytes.get(kind, 0) + int(float(found[2]) * (1 << 20))
        if level in (3, 4):  # GGML_LOG_LEVEL_WARN, _ERROR
            sys.stderr.write(text.decode("utf-8", "replace"))

    _keep_alive.append(log)
    llama_cpp.llama_log_set(log, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    return llama_cpp


def load_mtmd() -> Any:
    """llama.cpp's library for images; most workers need none. Its log goes where llama.cpp's does."""
    if not (library.directory / config.VISION_LIBRARY).exists():
        raise ModelLoadError(f"images need {config.VISION_LIBRARY}, which is not built: run scripts/build")
    from llama_cpp import mtmd_cpp

    for set_log in (mtmd_cpp.mtmd_log_set, mtmd_cpp.mtmd_helper_log_set):
        set_log(_keep_alive[0], ctypes.c_void_p(0))
    return mtmd_cpp


library = native.load()
lib = _load_llama_cpp(library)


@dataclass(frozen=True, eq=False)
class Picture:
    """A run of tokens as a projector sees an image: [num_tokens, n_embd]. `ids`: theirs, below zero, one by one."""

    embeddings: npt.NDArray[np.float32]
    ids: list[int]
    is_causal: bool


class Batch:
    """Tokens of one llama_decode: filled part by part, then run. Arrays are made once and reused."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.size = 0
        self.tokens = np.zeros(capacity, np.int32)
        self.positions = np.zeros(capacity, np.int32)
        self.seq_ids = np.zeros(capacity, np.int32)
        self.outputs = np.zeros(capacity, np.int8)
        self._num_seq_ids = np.ones(capacity, np.int32)
        base = self.seq_ids.ctypes.data
        self._seq_id_pointers = np.arange(base, base + 4 * capacity, 4, dtype=np.uint64)
        self.struct = lib.llama_batch(
            token=self.pointer(self.tokens, ctypes.c_int32),
            pos=self.pointer(self.positions, ctypes.c_int32),
            n_seq_id=self.pointer(self._num_seq_ids, ctypes.c_int32),
            seq_id=ctypes.cast(self._seq_id_pointers.ctypes.data, ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
            logits=self.pointer(self.outputs, ctypes.c_int8),
        )
        self.struct_of_embeddings = type(self.struct).from_buffer_copy(self.struct)
        self.struct_of_embeddings.token = None

    @staticmethod
    def pointer(array: npt.NDArray[Any], ctype: Any) -> Any:
        return ctypes.cast(array.ctypes.data, ctypes.POINTER(ctype))

    def clear(self) -> None:
        self.size = 0

    def add(self, tokens: Sequence[int], first_position: int, seq_id: int, num_outputs: int) -> None:
        """Append tokens of one sequence; the last `num_outputs` of them get logits."""
        start, end = self.size, self.size + len(tokens)
        self.tokens[start:end] = tokens
        self.positions[start:end] = range(first_position, first_position + len(tokens))
        self.seq_ids[start:end] = seq_id
        self.outputs[start:end] = 0
        self.outputs[end - num_outputs : end] = 1
        self.size = end


class LlamaModel:
    """A GGUF opened for generation: vocabulary, one context with a unified KV cache, decode.

    Raises ModelLoadError when llama.cpp refuses the file or the context. `on_progress` gets 0..1 and may return False
    to stop the load. `close` gives everything back. It is the `KvCells` of its cache (see prefix_cache).
    """

    def __init__(self, load: Load, num_threads: int, on_progress: Callable[[float], bool] = lambda _: True) -> None:
        self.load = load
        self.num_threads = num_threads
        self._model: Any = None
        self.ctx: Any = None
        self.contexts: list[Any] = []  # others on the same weights, to be closed with it
        self._open_model(load, on_progress)
        self.vocab = lib.llama_model_get_vocab(self._model)
        self.n_embd: int = lib.llama_model_n_embd(self._model)
        self.n_vocab: int = lib.llama_vocab_n_tokens(self.vocab)
        self.n_ctx_train: int = lib.llama_model_n_ctx_train(self._model)
        # A recurrent state is that of the last position only: it cannot be cut off or shared in the middle.
        self.has_positions = not (lib.llama_model_is_recurrent(self._model) or lib.llama_model_is_hybrid(self._model))
        self._window: int = lib.llama_model_n_swa(self._model)
        with ThreadPoolExecutor(1) as beside:  # some 20 ms in Python, while llama.cpp works on the context
            control_texts = beside.submit(self._find_control_texts)
            self._open_context(load, num_threads)
            self.control_texts = control_texts.result()
        self.kv_bytes = _buffer_bytes.get("KV", 0)
        self.compute_bytes = _buffer_bytes.get("compute", 0) + _buffer_bytes.get("output", 0)
        self.n_ctx: int = lib.llama_n_ctx(self.ctx)
        self.n_seq_max = load.n_seq_max  # sequences that run at the same time
        self.num_seq_ids: int = lib.llama_n_seq_max(self.ctx)
        self.n_batch: int = lib.llama_n_batch(self.ctx)
        self._memory = lib.llama_get_memory(self.ctx)
        # Every token sees those behind it too: such a model can embed, and not generate.
        self.is_encoder = not self._memory or self._meta_of_arch("attention.causal") == "false"
        self.pooling = _POOLING.get(int(self._meta_of_arch("pooling_type") or 0), "mean")
        self._pieces: dict[int, bytes] = {}

    def _open_model(self, load: Load, on_progress: Callable[[float], bool]) -> None:
        params = lib.llama_model_default_params()
        params.n_gpu_layers = 0
        params.use_extra_bufts = config.rung() in ("all", "upstream")
        callback = lib.llama_progress_callback(lambda fraction, _: on_progress(fraction))
        params.progress_callback = callback
        self._model = lib.llama_model_load_from_file(load.path.encode(), params)
        if not self._model:
            raise ModelLoadError(f"llama.cpp cannot load {load.path}: damaged, or an architecture it does not know")

    def _open_context(self, load: Load, num_threads: int) -> None:
        params = lib.llama_context_default_params()
        params.n_ctx = load.n_ctx or self.n_ctx_train
        params.n_batch = params.n_ubatch = min(load.n_batch, params.n_ctx)
        spare = max(load.n_seq_max, CACHE_SEQ_IDS) if self.has_positions else 0
        params.n_seq_max = min(load.n_seq_max + spare, MAX_SEQ_IDS)
        params.n_threads = params.n_threads_batch = num_threads
        params.type_k = params.type_v = GGML_TYPE[load.kv_type]
        params.flash_attn_type = int(load.flash_attention)
        params.kv_unified = True
        params.no_perf = False  # graph reuse is counted there
        _buffer_bytes.clear()
        self.ctx = lib.llama_init_from_model(self._model, params)
        if not self.ctx:
            self.close()
            raise ModelLoadError(
                f"llama.cpp cannot make a context of {load.n_ctx} tokens ({load.kv_type} cache) for {load.name}: "
                "out of memory, or a cache type that this model's head size does not allow"
            )

    def close(self) -> None:
        for ctx in [*self.contexts, self.ctx]:
            if ctx:
                lib.llama_free(ctx)
        self.contexts = []
        if self._model:
            lib.llama_model_free(self._model)
        self.ctx = self._model = None

    # ---- what the model is

    @property
    def handle(self) -> Any:
        """llama.cpp's model, to make another context on it; that one goes into `contexts`."""
        return self._model

    def _meta_of_arch(self, key: str) -> str | None:
        return self.meta(f"{self.meta('general.architecture')}.{key}")

    def meta(self, key: str) -> str | None:
        buffer = ctypes.create_string_buffer(256)
        size = lib.llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if size >= 0 else None

    def describe(self) -> dict[str, Any]:
        """Facts for messages.Loaded."""
        buffer = ctypes.create_string_buffer(256)
        lib.llama_model_desc(self._model, buffer, len(buffer))
        template = lib.llama_model_chat_template(self._model, None)
        return {
            "n_vocab": self.n_vocab,
            "n_embd": self.n_embd,
            "n_params": lib.llama_model_n_params(self._model),
            "size_bytes": lib.llama_model_size(self._model),
            "architecture": self.meta("general.architecture") or "unknown",
            "description": buffer.value.decode("utf-8", "replace"),
            "chat_template": template.decode("utf-8", "replace") if template else None,
            "bos_token": self.piece_text(lib.llama_vocab_bos(self.vocab)),
            "eos_token": self.piece_text(lib.llama_vocab_eos(self.vocab)),
        }

    def piece_text(self, token: int) -> str:
        """A token as the vocabulary writes it, control tokens too; empty for -1 (none)."""
        return lib.llama_vocab_get_text(self.vocab, token).decode("utf-8", "replace") if token >= 0 else ""

    def _find_control_texts(self) -> list[str]:
        """What is a token of its own in a text that is parsed for control tokens, and only there."""
        marked = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN
        ids = (t for t in range(self.n_vocab) if lib.llama_vocab_get_attr(self.vocab, t) & marked)
        return [text for text in map(self.piece_text, ids) if text]

    # ---- text

    def tokenize(self, text: str, add_special: bool, parse_special: bool) -> list[int]:
        """Safe to call from another thread while a decode runs."""
        data = text.encode("utf-8", "surrogatepass")
        capacity = len(data) + 8
        tokens = (ctypes.c_int32 * capacity)()
        count = lib.llama_tokenize(self.vocab, data, len(data), tokens, capacity, add_special, parse_special)
        if count < 0:
            raise EngineError("llama_tokenize wants more tokens than the text has bytes")
        return list(tokens[:count])

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for; empty for control tokens."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._read_piece(token)
        return piece

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of tokens, control tokens as they are written."""
        ids = (ctypes.c_int32 * len(tokens))(*tokens)
        size = max(64, 8 * len(tokens))
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = lib.llama_detokenize(self.vocab, ids, len(tokens), buffer, size, False, True)
            if count >= 0:
                return buffer.raw[:count].decode("utf-8", "replace")
            size = -count

    def _read_piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(512)
        size = lib.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[: max(size, 0)]

    def vocabulary(self) -> list[bytes]:
        """All tokens' bytes in the form that llguidance reads: 0xff begins those that are no text, or end the text."""
        return [self._vocabulary_entry(token) for token in range(self.n_vocab)]

    def _vocabulary_entry(self, token: int) -> bytes:
        attributes = lib.llama_vocab_get_attr(self.vocab, token)
        if not attributes & _NO_TEXT and not self.is_end(token):
            return self._read_piece(token)
        return b"\xff" + self.piece_text(token).encode()

    def control_token(self, text: str) -> list[int]:
        """The control token that is written so; empty when there is none."""
        tokens = self.tokenize(text, add_special=False, parse_special=True)
        return tokens if len(tokens) == 1 and lib.llama_vocab_is_control(self.vocab, tokens[0]) else []

    @property
    def tokenize_address(self) -> int:
        """Of the C function llama_tokenize."""
        return ctypes.cast(lib.llama_cpp._lib.llama_tokenize, ctypes.c_void_p).value or 0

    def is_end(self, token: int) -> bool:
        return bool(lib.llama_vocab_is_eog(self.vocab, token))

    @property
    def bos(self) -> int:
        return int(lib.llama_vocab_bos(self.vocab))

    # ---- running

    def decode(self, batch: Batch) -> bool:
        """One forward pass. False: the KV cache has no room for this batch and nothing changed."""
        batch.struct.n_tokens = batch.size
        status = lib.llama_decode(self.ctx, batch.struct)
        if status == 1:
            return False
        if status != 0:
            raise EngineError(f"llama_decode failed with status {status} on a batch of {batch.size} tokens")
        return True

    def decode_picture(self, batch: Batch, picture: Picture) -> bool:
        """As `decode`, with what the tokens look like in place of their ids, and seeing each other if they should."""
        batch.struct_of_embeddings.n_tokens = batch.size
        batch.struct_of_embeddings.embd = Batch.pointer(picture.embeddings, ctypes.c_float)
        if not picture.is_causal:
            lib.llama_set_causal_attn(self.ctx, False)
        try:
            status = lib.llama_decode(self.ctx, batch.struct_of_embeddings)
        finally:
            lib.llama_set_causal_attn(self.ctx, True)
        if status not in (0, 1):
            raise EngineError(f"llama_decode failed with status {status} on a picture of {batch.size} tokens")
        return bool(status == 0)

    def logits(self, num_outputs: int) -> Logits:
        """[num_outputs, n_vocab] of the last decode, in batch order. A view: read it before the next decode."""
        address = ctypes.cast(lib.llama_get_logits(self.ctx), ctypes.c_void_p).value
        if not address:
            raise EngineError("llama.cpp has no logits for the last batch")
        size = num_outputs * self.n_vocab
        values = (ctypes.c_float * size).from_address(address)
        rows: Logits = np.ctypeslib.as_array(values).reshape(num_outputs, self.n_vocab)
        return rows

    def share(self, source: int, target: int, count: int) -> None:
        lib.llama_memory_seq_cp(self._memory, source, target, 0, count)

    def truncate(self, seq_id: int, count: int) -> None:
        lib.llama_memory_seq_rm(self._memory, seq_id, count, -1)

    def can_share(self, source: int, count: int) -> bool:
        """A sliding window forgets what a sequence has left behind; without one all positions are there."""
        if not self._window:
            return True
        return int(lib.llama_memory_seq_pos_min(self._memory, source)) <= max(0, count - self._window)

    def last_position(self, seq_id: int) -> int:
        """The highest position the sequence has in the cache, -1 when it has none."""
        return int(lib.llama_memory_seq_pos_max(self._memory, seq_id))

    def set_threads(self, num_threads: int) -> None:
        self.num_threads = num_threads
        for ctx in [self.ctx, *self.contexts]:
            lib.llama_set_n_threads(ctx, num_threads, num_threads)

    def num_nodes_done(self) -> int:
        """Grows while a decode goes on, also when read from another thread. Without our kernels: CPU time instead."""
        return library.num_calls() or int(time.process_time() * 100)

    def num_graph_reuses(self) -> int:
        return int(lib.llama_perf_context(self.ctx).n_reused)
