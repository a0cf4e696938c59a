"""llama-server's and vLLM's fields: what asks for nothing special passes, what would change the answer is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from axion_llm.api.errors import Problem, problem_for
from axion_llm.api.extensions import STAGES
from axion_llm.api.schemas import CompletionRequest


def parsed(**fields: Any) -> CompletionRequest:
    return CompletionRequest.model_validate({"model": "m", "prompt": "p", **fields})


def refusal(**fields: Any) -> Problem:
    with pytest.raises(ValidationError) as caught:
        parsed(**fields)
    return problem_for(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mirostat", 2),
        ("typical_p", 0.9),
        ("typical_p", True),  # not the number 1
        ("dry_multiplier", 0.8),
        ("xtc_probability", 0.5),
        ("dynatemp_range", 0.5),
        ("top_n_sigma", 1.5),
        ("adaptive_target", 0.5),
        ("t_max_predict_ms", 100),
        ("min_keep", 5),
        ("n_cmpl", 2),
        ("n_probs", 3),
        ("lora", [{"id": 0, "scale": 1.0}]),
        ("samplers", ["top_k", "temperature"]),
        ("samplers", list(reversed(STAGES))),
        ("add_generation_prompt", False),
        ("continue_final_message", True),
        ("chat_template_kwargs", {"messages": "x"}),
        ("guided_json", {"type": "object"}),
        ("repetition_penalty", 1.2),
        ("min_tokens", 5),
        ("stop_token_ids", [7]),
        ("skip_special_tokens", False),
    ],
)
def test_what_would_change_the_answer_is_refused(field: str, value: Any) -> None:
    problem = refusal(**{field: value})
    assert (problem.status, problem.code, problem.param) == (400, "unsupported_value", field)


def test_a_refusal_says_what_to_use_instead() -> None:
    assert "use structured_outputs" in refusal(guided_regex="a").message
    assert "use logprobs" in refusal(n_probs=3).message
    assert "penalties, top_k, top_p, min_p, temperature" in refusal(samplers=[]).message


def test_what_clients_send_with_everything_switched_off() -> None:
    """Floats for whole numbers and settings of stages that are off among it."""
    parsed(mirostat=0, mirostat_tau=5, mirostat_eta=0.1, typical_p=1, dynatemp_range=0.0, dynatemp_exponent=1)
    parsed(typical_p=1.0, xtc_probability=0, xtc_threshold=0.1, dry_multiplier=0, dry_base=1.75, top_n_sigma=-1)
    parsed(adaptive_target=-1.0, t_max_predict_ms=-1, min_keep=0, n_probs=0, lora=[], repetition_penalty=1.0)
    parsed(samplers=["penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"])
    parsed(min_tokens=0, skip_special_tokens=True, chat_template_kwargs={"enable_thinking": False})


def test_what_changes_no_answer_is_ignored() -> None:
    """Where a request runs, what is kept of it, and what is told beside the answer."""
    parsed(cache_prompt=False, id_slot=3, n_keep=5, n_discard=1, n_cache_reuse=9, backend_sampling=True)
    parsed(timings_per_token=True, return_progress=True, return_tokens=True, sse_ping_interval=5)
