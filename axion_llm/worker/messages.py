"""The only contract between the server process and a worker process: small frozen structs, msgpack on the wire.

Direction and order
    parent -> worker   Load once; then requests, Cancel, SetCores, Ping in any order; Shutdown last
    worker -> parent   Hello once; LoadProgress*, then Loaded or LoadFailed; then Batch, replies, Pong; a last Pong

A request's life, as events inside Batch: exactly one Accepted or Failed first; after Accepted, any number of Piece;
then exactly one Finished or Failed. Nothing after that. Embed, Tokenize and Detokenize have one reply: Embedded,
Tokenized, Detokenized, or Failed in a Batch.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import msgspec

KvType = Literal["q8_0", "f16", "f32", "q4_0", "q4_1", "q5_0", "q5_1", "bf16"]
Speculation = Literal["off", "ngram"]
EMBEDDING_TOKENS = 2048
FinishReason = Literal["stop", "length", "cancelled"]
GrammarKind = Literal["json_schema", "regex", "grammar", "calls"]


TEST_KERNELS = "--test-kernels"  # on a worker's command line: before it is of use it tests our kernels


class Message(msgspec.Struct, frozen=True, tag=True, array_like=True, gc=False):
    """Base: tagged with the class name, so that one decoder reads them all."""


# ---- parent -> worker


class Load(Message, frozen=True):
    """Open a model. Sizes are what the user may generate over, not what the model was trained for."""

    name: str
    path: str
    n_ctx: int = 0  # tokens in the unified KV cache, all sequences together; 0: the model's own context
    n_seq_max: int = 16  # sequences decoded at the same time
    n_batch: int = 512  # most tokens in one step
    kv_type: KvType = "q8_0"
    flash_attention: bool = True
    num_threads: int = 0  # 0: all that this process may use
    chat_template: str | None = None  # overrides the model's own
    mmproj: str | None = None  # path of the projector, for images
    step_seconds: float = 0.06  # what a step may take while anything decodes
    steps_per_decision: int = 2  # decode steps between two looks at what waits
    speculation: Speculation = "off"  # for requests that do not say
    max_waiting: int = 256  # requests; beyond them new ones are refused
    max_waiting_tokens: int = 0  # of their prompts; 0: eight times the KV cache
    warm_up: bool = True  # run the usual shapes once; not when a request waits, which will do that
    embedding_ctx: int = EMBEDDING_TOKENS  # tokens of an input that is embedded, and of the cache for that


class Sampling(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How tokens are drawn; the neutral values switch a stage off. temperature 0 is greedy."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repeat_penalty: float = 1.0
    seed: int | None = None  # None: drawn anew for each request
    logit_bias: dict[int, float] = {}
    repeat_last_n: int = 64  # tokens, prompt included, that repeat_penalty looks back on; 64 is llama.cpp's default


class Grammar(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the output has to look like."""

    kind: GrammarKind
    source: str  # a schema as JSON, a regular expression, a Lark or GBNF grammar; calls: Lark of our own making
    trigger: str | None = None  # counts from behind this text on; the model need not write it
    param: str = "response_format"  # the request's field that it came from, for errors
    is_optional: bool = False  # one that does not compile is left out


class Image(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A picture in a prompt."""

    at: int  # of the prompt's characters, the one that it stands before
    data: bytes  # a PNG, JPEG, WebP or GIF file


class Generate(Message, frozen=True):
    """Continue a prompt in one sequence. `request_id` is the parent's and unique while the request lives."""

    request_id: str
    prompt: str | list[int]
    sampling: Sampling
    # Characters of the prompt before which no control token may begin that ends behind them, in order: inside of what
    # looks like one and is a user's text.
    literals: list[int] = []
    max_tokens: int | None = None  # None: up to the end of the context; 0: only read the prompt
    stop: list[str] = []
    parse_special: bool = True  # <|im_start|> and the like in the text are control tokens (chat prompts)
    add_special: bool = True  # add BOS where the model wants one and the text does not begin with it
    interactive: bool = False
    top_logprobs: int | None = None  # None: no logprobs; 0: only the chosen token's
    ignore_eos: bool = False
    images: list[Image] = []  # in the order of their places
    echo: bool = False  # the prompt comes as the first Piece, with logprobs of its own if there are any
    speculation: Speculation | None = None  # None: as the model's default
    grammar: Grammar | None = None
    shown: list[str] = []  # control tokens that count as text, as the vocabulary writes them
    # What is computed and kept for it (cells, images, grammars) serves requests of the same tenant only, lest it tell
    # of its prompt. "": all others.
    tenant: str = ""
    public_chars: int = 0  # of the prompt's first characters, that all tenants may share: the operator's own text


class Embed(Message, frozen=True):
    """One vector for each input."""

    request_id: str
    inputs: list[str | list[int]]


class Tokenize(Message, frozen=True):
    request_id: str
    content: str
    add_special: bool = False  # BOS and EOS where the model wants them
    parse_special: bool = True


class Detokenize(Message, frozen=True):
    request_id: str
    tokens: list[int]


class Cancel(Message, frozen=True):
    """End a request within one step. Its Finished(reason="cancelled") still follows; unknown ids are ignored."""

    request_id: str


class SetCores(Message, frozen=True):
    """From the next step on: so many threads, and only on these CPUs; no CPU means any that the process may use."""

    num_threads: int
    cpus: list[int] = []


class Ping(Message, frozen=True):
    nonce: int


class Shutdown(Message, frozen=True):
    pass


# ---- worker -> parent


class Hello(Message, frozen=True):
    pid: int
    protocol: str = ""  # PROTOCOL as the worker has it


class LoadProgress(Message, frozen=True):
    fraction: float


class Loaded(Message, frozen=True):
    """What the parent needs to know of the model: its template is rendered in the parent, tokens stay in the worker."""

    n_ctx: int  # tokens one request may span, prompt and output together
    n_seq_max: int
    n_vocab: int
    n_params: int
    size_bytes: int
    kv_bytes: int
    architecture: str
    description: str
    chat_template: str | None
    bos_token: str
    eos_token: str
    load_seconds: float
    has_vision: bool = False
    control_tokens: list[str] = []  # their texts
    n_embd: int = 0  # of an embedding
    n_embedding_tokens: int = 0  # of one input; 0: the model gives no embeddings
    compute_bytes: int = 0  # buffers of a step and of its outputs, in full; not all of it need be resident
    base_bytes: int = 0  # resident in the process before it opened the model
    wrong_kernels: list[str] | None = None  # that its self-test took out; None: it made none


class LoadFailed(Message, frozen=True):
    code: str  # of errors.py
    message: str


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True, gc=False):
    token: int
    piece: bytes  # the token's own bytes, perhaps part of a character
    logprob: float | None  # None: of an echoed prompt's first token
    top: list[tuple[int, bytes, float]] = []


class Accepted(Message, frozen=True):
    """The prompt is tokenised and fits. Sent before any work on it, so errors can still be a plain HTTP status."""

    request_id: str
    prompt_tokens: int


class Piece(Message, frozen=True):
    """Text that may be shown now: whole characters, and no beginning of a stop string. May be empty with logprobs."""

    request_id: str
    text: str
    num_tokens: int
    logprobs: list[TokenLogprob] = []


class Finished(Message, frozen=True):
    request_id: str
    reason: FinishReason
    text: str  # the last piece, may be empty
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    logprobs: list[TokenLogprob] = []
    stop: str | None = None  # the stop string that ended it
    queue_ms: float = 0.0
    prefill_ms: float = 0.0
    decode_ms: float = 0.0


class Failed(Message, frozen=True):
    request_id: str
    code: str  # of errors.py
    message: str
    param: str | None = None
    retry_after_seconds: float | None = None  # when there may be room again


Event = Accepted | Piece | Finished | Failed


class Embedded(Message, frozen=True):
    """Vectors of length one, each the bytes of n_embd little-endian 32-bit floats, in the order of the inputs."""

    request_id: str
    vectors: list[bytes]
    prompt_tokens: int


class Tokenized(Message, frozen=True):
    request_id: str
    tokens: list[int]
    pieces: list[bytes]


class Detokenized(Message, frozen=True):
    request_id: str
    content: str


Reply = Embedded | Tokenized | Detokenized


class Batch(Message, frozen=True):
    """All events of one engine step: one message a step, however many sequences run."""

    events: list[Event]


class EngineStats(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Counters since the load, and gauges of now."""

    num_steps: int = 0
    num_decode_steps: int = 0  # of them, those that only decode
    num_prompt_tokens: int = 0  # computed
    num_cached_tokens: int = 0  # of prompts, that the prefix cache had
    num_output_tokens: int = 0
    num_drafted_tokens: int = 0
    num_accepted_tokens: int = 0  # of the drafted ones
    num_masks: int = 0  # of tokens that a grammar allows
    num_forced_tokens: int = 0  # that a grammar left no choice about
    num_preemptions: int = 0
    num_refused: int = 0  # for too long a queue
    num_running: int = 0
    num_waiting: int = 0
    kv_used_tokens: int = 0
    kv_cached_tokens: int = 0  # of them, held by the prefix cache
    kv_total_tokens: int = 0
    step_seconds: float = 0.0  # wall time of all steps
    decode_seconds: float = 0.0  # of it, inside llama_decode
    mask_seconds: float = 0.0  # computing masks, beside llama_decode
    loop_seconds: float = 0.0  # wall time of the worker's loop while there was work: steps, messages in and out
    num_graph_reuses: int = 0
    num_decode_graph_reuses: int = 0  # in steps that only decode
    prompt_token_seconds: float = 0.0  # price of a prompt token, as the scheduler reckons with


class Pong(Message, frozen=True):
    nonce: int
    stats: EngineStats


Question = Embed | Tokenize | Detokenize
ToWorker = Load | Generate | Question | Cancel | SetCores | Ping | Shutdown
FromWorker = Hello | LoadProgress | Loaded | LoadFailed | Batch | Reply | Pong

# Workers are started for as long as a service runs, from a package that may have been replaced meanwhile.
PROTOCOL = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]

encode = msgspec.msgpack.Encoder().encode
decode_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
decode_from_worker = msgspec.msgpack.Decoder(FromWorker).decode
