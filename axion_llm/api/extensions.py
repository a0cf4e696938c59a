"""Fields of llama-server's and vLLM's requests, by their names there: honoured, or refused where they would matter.

Beside OpenAI's fields, clients of those servers send these, and OpenAI's rule that an unknown field is ignored would
give them another answer than they asked for. What is not here changes no answer (docs/api.md lists it) and is ignored.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from axion_llm.api.fields import MinP, RepeatPenalty, Strict, only, unsupported
from axion_llm.worker.messages import Speculation

MAX_REPEAT_WINDOW = 2048  # tokens that are looked through for each token that is drawn
STAGES = ("penalties", "top_k", "top_p", "min_p", "temperature")  # of engine/sampler.py, in its order


def _our_stages(value: list[str] | None) -> list[str] | None:
    """Stages that are not ours are off, wherever they stand."""
    if value is None or [stage for stage in value if stage in STAGES] == list(STAGES):
        return value
    raise unsupported(f"the stages and their order are {', '.join(STAGES)}; switch one off by its own field")


def _is_off(value: Any) -> Any:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and value <= 0):
        return value
    raise unsupported("this value is not supported by this server (supported: 0 and below, which switches it off)")


Off = AfterValidator(_is_off)
STRUCTURED = "use structured_outputs"
TOKENS = "use logit_bias"

TEMPLATE_NAMES = ("messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token")


def _own_names(value: dict[str, Any]) -> dict[str, Any]:
    if taken := value.keys() & set(TEMPLATE_NAMES):
        raise unsupported(f"{sorted(taken)[0]!r} is not taken from a request by this server")
    return value


TemplateValues = Annotated[
    dict[Annotated[str, Field(max_length=64)], bool | int | float | Annotated[str, Field(max_length=1000)] | None],
    Field(max_length=32),
    AfterValidator(_own_names),
]


class Extensions(Strict):
    # llama-server's, honoured
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None  # 0 and -1: off
    min_p: MinP | None = None
    repeat_penalty: RepeatPenalty | None = None
    repeat_last_n: Annotated[int, Field(ge=0, le=MAX_REPEAT_WINDOW)] | None = None
    ignore_eos: bool | None = None
    n_predict: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None  # -1: up to the end of the context
    json_schema: dict[str, Any] | None = None  # see structured.py
    grammar: str | None = None  # GBNF or Lark
    samplers: Annotated[list[str] | None, AfterValidator(_our_stages)] = None

    # vLLM's, and our own
    structured_outputs: dict[str, Any] | None = None  # see structured.py
    speculation: Speculation | None = None

    # llama-server's, not honoured. What belongs to a stage that is off (mirostat_tau, dry_base, …) is not looked at.
    adaptive_target: Annotated[Any, Off] = None
    dry_multiplier: Annotated[Any, only(0)] = None
    dynatemp_range: Annotated[Any, only(0)] = None
    mirostat: Annotated[Any, only(0)] = None
    top_n_sigma: Annotated[Any, Off] = None
    typical_p: Annotated[Any, only(1)] = None
    xtc_probability: Annotated[Any, only(0)] = None
    min_keep: Annotated[Any, only(0, 1)] = None
    n_cmpl: Annotated[Any, only(1, instead="use n")] = None
    n_indent: Annotated[Any, only(0)] = None
    n_probs: Annotated[Any, only(0, instead="use logprobs")] = None
    post_sampling_probs: Annotated[Any, only(False)] = None
    t_max_predict_ms: Annotated[Any, Off] = None
    grammar_lazy: Annotated[Any, only(False)] = None
    lora: Annotated[Any, only([])] = None
    parse_tool_calls: Annotated[Any, only(True)] = None
    reasoning_format: Annotated[Any, only("none", "auto")] = None
    reasoning_budget_tokens: Annotated[Any, only(-1)] = None
    thinking_budget_tokens: Annotated[Any, only(-1)] = None

    # llama-server's and vLLM's
    add_generation_prompt: Annotated[Any, only(True)] = None
    continue_final_message: Annotated[Any, only(False)] = None
    chat_template_kwargs: TemplateValues | None = None

    # vLLM's, not honoured
    allowed_token_ids: Annotated[Any, only([], instead=TOKENS)] = None
    bad_words: Annotated[Any, only([], instead=TOKENS)] = None
    chat_template: Annotated[Any, only()] = None
    documents: Annotated[Any, only([])] = None
    guided_choice: Annotated[Any, only(instead=STRUCTURED)] = None
    guided_grammar: Annotated[Any, only(instead=STRUCTURED)] = None
    guided_json: Annotated[Any, only(instead=STRUCTURED)] = None
    guided_regex: Annotated[Any, only(instead=STRUCTURED)] = None
    include_stop_str_in_output: Annotated[Any, only(False)] = None
    length_penalty: Annotated[Any, only(1)] = None
    min_tokens: Annotated[Any, only(0)] = None
    prompt_logprobs: Annotated[Any, only(instead="use echo with logprobs on /v1/completions")] = None
    repetition_penalty: Annotated[Any, only(1, instead="use repeat_penalty with repeat_last_n")] = None
    skip_special_tokens: Annotated[Any, only(True)] = None
    stop_token_ids: Annotated[Any, only([])] = None
    truncate_prompt_tokens: Annotated[Any, only()] = None
    use_beam_search: Annotated[Any, only(False)] = None
