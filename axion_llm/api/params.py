"""A request and the model's defaults -> the Generate messages that a worker runs, one for each choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from msgspec import structs

from axion_llm.api import structured
from axion_llm.api.chat_template import Message, chat_template
from axion_llm.api.images import Gallery, image_urls
from axion_llm.api.literal import Marks, control_words
from axion_llm.api.public import num_public_chars
from axion_llm.api.room import check_room
from axion_llm.api.schemas import MAX_CHOICES, ChatRequest, CompletionRequest, Generation
from axion_llm.api.tools.plan import ToolPlan, requested, tool_plan
from axion_llm.api.tools.render import form_of, render
from axion_llm.errors import BadRequest, RequestError, ServiceError
from axion_llm.models.spec import ModelSpec
from axion_llm.worker.messages import Generate, Grammar, Loaded, Sampling

T = TypeVar("T")

NUM_SEEDS = 2**32 - 1  # llama.cpp's seeds have 32 bits, and it takes the last one as "draw a seed"


@dataclass(frozen=True)
class Origin:
    """What the messages to a worker need beside the request itself."""

    completion_id: str
    spec: ModelSpec
    is_interactive: bool
    tenant: str = ""  # of the caller; see messages.Generate


def check(request: Generation, *, is_streamed: bool) -> None:
    """What no single field's schema can say. Raises BadRequest."""
    if request.stream_options is not None and not is_streamed:
        raise BadRequest("stream_options: only allowed when stream is true", param="stream_options")
    structured.grammar_of(request)
    _check_limits(request)
    if isinstance(request, ChatRequest):
        _check_chat(request)
    if isinstance(request, CompletionRequest):
        _check_completion(request)


def _check_limits(request: Generation) -> None:
    if len(set(request.token_limits) - {None}) > 1:
        names = "n_predict, max_tokens and max_completion_tokens"
        raise BadRequest(f"max_tokens: {names} mean the same and must not differ", param="max_tokens")


def _check_chat(request: ChatRequest) -> None:
    if request.top_logprobs is not None and not request.logprobs:
        raise BadRequest("top_logprobs: only allowed when logprobs is true", param="top_logprobs")
    requested(request)


def _check_completion(request: CompletionRequest) -> None:
    if len(request.prompt) * (request.n or 1) > MAX_CHOICES:
        raise BadRequest(f"n: prompts times n must not be above {MAX_CHOICES}", param="n")
    if request.best_of is not None and request.best_of != (request.n or 1):
        raise BadRequest("best_of: not supported by this server; leave it out", param="best_of")


def chat_generates(request: ChatRequest, origin: Origin, info: Loaded) -> list[Generate]:
    source = origin.spec.chat_template or info.chat_template
    if not source:
        message = f"model: {origin.spec.name!r} has no chat template; use /v1/completions"
        raise BadRequest(message, param="model")
    check_room(request, info.n_ctx)
    template = chat_template(source, info.bos_token, info.eos_token)
    marks = Marks(control_words(tuple(info.control_tokens)))
    messages = [m.model_dump(exclude_none=True) for m in request.messages]
    gallery = _gallery(request, messages, origin, info)
    marked = marks.put([gallery.marked(m, marks) for m in messages])
    plan = tool_plan(request, source, info)
    tools = marks.put(plan.use.tools) if plan else []
    values = marks.put(request.chat_template_kwargs or {})
    taken = marks.take(render(template, marked, tools, form_of(source, info.control_tokens), values))
    prompt, top_logprobs = taken.prompt, (request.top_logprobs or 0) if request.logprobs else None
    grammar = structured.grammar_of(request)
    if plan:
        prompt, grammar = prompt + plan.answer_begins, plan.grammar(grammar)
    generates = _generates(request, [prompt], top_logprobs, origin, info, grammar)
    images, shown = gallery.placed(taken.images), list(plan.control) if plan else []
    public = num_public_chars(origin.spec.public_prompt, template, prompt)
    more = {"literals": taken.literals, "images": images, "shown": shown, "public_chars": public}
    return [structs.replace(g, **more) for g in generates]


def _gallery(request: ChatRequest, messages: list[Message], origin: Origin, info: Loaded) -> Gallery:
    urls = list(image_urls(messages))
    if urls and not info.has_vision:
        message = f"messages: {origin.spec.name} takes no images"
        raise BadRequest(message, param=urls[0][1].removesuffix(".image_url.url"))
    missing = next((param for url, param in urls if url not in request.image_files), None)
    if missing:
        raise ServiceError(f"{missing}: the image was not loaded")
    return Gallery(request.image_files)


def chat_tools(request: ChatRequest, origin: Origin, info: Loaded) -> ToolPlan | None:
    """How its tools are served; None when the model is shown none."""
    return tool_plan(request, origin.spec.chat_template or info.chat_template, info)


def completion_generates(request: CompletionRequest, origin: Origin, info: Loaded) -> list[Generate]:
    check_room(request, info.n_ctx)
    for prompt in request.prompt:
        if isinstance(prompt, list) and max(prompt) >= info.n_vocab:
            message = f"prompt: {max(prompt)} is not a token id of this model (0 to {info.n_vocab - 1})"
            raise BadRequest(message, param="prompt")
    grammar = structured.grammar_of(request)
    return _generates(request, request.prompt, request.logprobs, origin, info, grammar)


def _generates(
    request: ChatRequest | CompletionRequest,
    prompts: list[str | list[int]] | list[str],
    top_logprobs: int | None,
    origin: Origin,
    info: Loaded,
    grammar: Grammar | None,
) -> list[Generate]:
    """Choice `i` of prompt `p` is number p * n + i, as OpenAI numbers them."""
    n = request.n or 1
    drawn = [sampling(request, origin.spec.sampling, choice=i) for i in range(n)]
    _check_bias(drawn[0], info)
    return [
        Generate(
            request_id=f"{origin.completion_id}-{p * n + i}",
            prompt=prompt,
            sampling=drawn[i],
            max_tokens=request.max_new_tokens,
            stop=request.stop or [],
            interactive=origin.is_interactive,
            top_logprobs=top_logprobs,
            ignore_eos=bool(request.ignore_eos),
            echo=isinstance(request, CompletionRequest) and request.is_echoed_by_worker(prompt),
            speculation=request.speculation,
            grammar=grammar,
            tenant=origin.tenant,
        )
        for p, prompt in enumerate(prompts)
        for i in range(n)
    ]


def _check_bias(sampling: Sampling, info: Loaded) -> None:
    largest = max(sampling.logit_bias, default=0)
    if sampling.logit_bias and largest >= info.n_vocab:
        message = f"logit_bias: {largest} is not a token id of this model (0 to {info.n_vocab - 1})"
        raise BadRequest(message, param="logit_bias")


def named_as_sent(error: RequestError, request: Generation) -> RequestError:
    """An error of the model's, which knows a prompt and max_tokens only, with the fields that the client has sent."""
    if error.param == "prompt" and isinstance(request, ChatRequest):
        error.param = "messages"
    elif error.param == "max_tokens":
        names = ("max_completion_tokens", "n_predict", "max_tokens")
        error.param = next((n for n in names if getattr(request, n, None) not in (None, -1)), "max_tokens")
        error.message = error.message.replace("max_tokens", error.param)
    return error


def sampling(request: Generation, default: Sampling, choice: int = 0) -> Sampling:
    """The request's values where it has them; each choice gets a seed of its own when there is one."""
    seed = default.seed if request.seed is None else request.seed
    return Sampling(
        temperature=_or(request.temperature, default.temperature),
        top_k=max(0, _or(request.top_k, default.top_k)),
        top_p=_or(request.top_p, default.top_p),
        min_p=_or(request.min_p, default.min_p),
        presence_penalty=_or(request.presence_penalty, default.presence_penalty),
        frequency_penalty=_or(request.frequency_penalty, default.frequency_penalty),
        repeat_penalty=_or(request.repeat_penalty, default.repeat_penalty),
        repeat_last_n=_or(request.repeat_last_n, default.repeat_last_n),
        seed=None if seed is None else (seed + choice) % NUM_SEEDS,
        logit_bias=_or(request.logit_bias, default.logit_bias),
    )


def _or(value: T | None, default: T) -> T:
    return default if value is None else value
