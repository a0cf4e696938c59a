"""What makes one port different from another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["standard", "streaming", "consensus"]


@dataclass(frozen=True)
class Profile:
    kind: Kind
    streams_by_default: bool
    is_interactive: bool  # the scheduler favours its requests
    port_setting: str  # the field of Settings
    port_option: str  # of `axion-llm serve`
