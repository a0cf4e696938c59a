"""What the bodies of requests are made of: strict types, and fields that take only what this server can honour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from axion_llm.ranges import SAMPLING


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False)


ModelName = Annotated[str, Field(min_length=1, max_length=512)]


def _number(name: str) -> Any:
    """Of a field that says how tokens are drawn."""
    allowed = SAMPLING[name]
    return Annotated[float, Field(ge=allowed.low, le=allowed.high), AfterValidator(allowed.settle)]


Temperature, TopP, MinP = _number("temperature"), _number("top_p"), _number("min_p")
PresencePenalty, FrequencyPenalty = _number("presence_penalty"), _number("frequency_penalty")
RepeatPenalty = _number("repeat_penalty")
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
Verbosity = Literal["low", "medium", "high"]
TokenCount = Annotated[int, Field(ge=1, le=2**31 - 1)]
TopLogprobs = Annotated[int, Field(ge=0, le=20)]


def null_is(default: Any) -> BeforeValidator:
    """Of a field with a default that is not null: clients write null for what they have not set."""
    return BeforeValidator(lambda value: default if value is None else value)


def invalid(message: str) -> PydanticCustomError:
    return PydanticCustomError("invalid_value", "{message}", {"message": message})


def unsupported(message: str) -> PydanticCustomError:
    return PydanticCustomError("unsupported_value", "{message}", {"message": message})


@dataclass(frozen=True)
class _Only(AfterValidator):
    """With its values in the JSON schema, for /openapi.json."""

    allowed: tuple[Any, ...] = ()

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        return {"enum": [*self.allowed, None]}


def only(*allowed: Any, instead: str = "") -> AfterValidator:
    """Of a field that is known and not honoured: the values that ask for nothing special.

    `instead`: what does what the field is meant for.
    """

    def check(value: Any) -> Any:
        if value is None or any(_same(value, other) for other in allowed):
            return value
        choices = ", ".join(repr(a) for a in allowed if a not in ([], {})) or "leave it out"
        hint = f"; {instead}" if instead else ""
        raise unsupported(f"this value is not supported by this server (supported: {choices}){hint}")

    return _Only(check, allowed)


def _same(value: Any, other: Any) -> bool:
    return isinstance(value, bool) == isinstance(other, bool) and bool(value == other)  # 0 is 0.0, and not False
