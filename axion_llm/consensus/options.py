"""The request object `consensus`, and what a model name like consensus/vote asks for."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

from axion_llm.api.fields import null_is
from axion_llm.api.responses.schema import ResponsesRequest
from axion_llm.api.schemas import ChatRequest
from axion_llm.errors import BadRequest, ModelNotFound

Strategy = Literal["auto", "route", "cascade", "vote", "best_of", "synthesize", "self"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
MODEL = "consensus"
MAX_EXPERTS = 4
MAX_CALLS = 64

Milliseconds = Annotated[int, Field(ge=1, le=24 * 3_600_000)]


class Options(BaseModel):
    """What a request may say about how it is answered. An unknown key is refused: it is our own object."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    strategy: Strategy | None = None
    experts: Annotated[list[str], Field(min_length=1, max_length=MAX_EXPERTS)] | None = None
    min_successful: Annotated[int, Field(ge=1, le=MAX_CALLS)] | None = None  # answers, below it an error
    deadline_ms: Milliseconds | None = None  # for the whole request
    patience_ms: Annotated[int, Field(ge=0, le=24 * 3_600_000)] | None = None  # for the rest, once there is a quorum
    n: Annotated[int, Field(ge=1, le=16)] | None = None  # samples of each expert
    aggregator: str | None = None  # who writes the synthesis
    concurrency: Annotated[int, Field(ge=1, le=MAX_EXPERTS)] | None = None  # experts at a time; None: as measured
    early_stop: Annotated[bool, null_is(True)] = True  # stop when the vote is decided
    pre_evaluate: Annotated[bool, null_is(True)] = True  # let the aggregator read answers as they arrive
    fallback: Literal["best", "error"] | None = None  # below the quorum; best: unless min_successful is given
    include_experts: Annotated[bool, null_is(True)] = True  # their texts in the response
    # Of a stream; text: the experts' words as they write.
    events: Annotated[Literal["none", "steps", "text"], null_is("steps")] = "steps"

    @field_validator("experts")
    @classmethod
    def _no_expert_twice(cls, value: list[str] | None) -> list[str] | None:
        if value and len(set(value)) < len(value):
            raise ValueError("names an expert twice; for several samples of one use n")
        return value


class ConsensusRequest(ChatRequest):
    consensus: Options | None = None


class ConsensusResponsesRequest(ResponsesRequest):
    consensus: Options | None = None


def takes(model: str) -> bool:
    """Is the name one of ours?"""
    return model == MODEL or model.startswith(MODEL + "/")


def model_names() -> list[str]:
    return [MODEL, *(f"{MODEL}/{strategy}" for strategy in STRATEGIES)]


def strategy_of(model: str, options: Options) -> Strategy:
    """From the name, else from the options; BadRequest when they differ."""
    _, _, named = model.partition("/")
    if named and named not in STRATEGIES:
        known = ", ".join(model_names())
        raise ModelNotFound(f'There is no model "{model[:200]}". Known: {known}.', param="model")
    if named and options.strategy not in (None, named):
        message = f"consensus.strategy: {options.strategy!r} is not what the model {model!r} says"
        raise BadRequest(message, param="consensus.strategy")
    found: Any = named or options.strategy or "auto"
    chosen: Strategy = found
    return chosen


def check(request: ConsensusRequest) -> None:
    """What OpenAI's fields cannot mean when several models answer; BadRequest."""
    if (request.n or 1) > 1:
        raise BadRequest("n: consensus gives one answer; consensus.n is the number of samples", param="n")
    if request.logprobs:
        raise BadRequest("logprobs: not for an answer of several models; ask an expert by its name", param="logprobs")
    if request.logit_bias:
        message = "logit_bias: token ids differ between the experts; ask an expert by its name"
        raise BadRequest(message, param="logit_bias")
