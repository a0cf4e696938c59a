"""What the endpoints of one port share."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from axion_llm.config import Settings
from axion_llm.consensus.options import model_names
from axion_llm.errors import ModelNotFound
from axion_llm.models.spec import ModelSpec
from axion_llm.pool.interface import ModelPool, ModelStatus
from axion_llm.servers.drain import Drain
from axion_llm.servers.profile import Profile
from axion_llm.servers.telemetry import Telemetry


@dataclass(frozen=True)
class Service:
    pool: ModelPool
    settings: Settings
    profile: Profile
    drain: Drain
    telemetry: Telemetry
    began: int = field(default_factory=lambda: int(time.time()))

    def status(self, name: str) -> ModelStatus:
        found = {status.spec.name: status for status in self.pool.models()}
        if name not in found:
            known = ", ".join(found) or "none"
            raise ModelNotFound(f'There is no model "{name[:200]}". Known: {known}.', param="model")
        return found[name]

    def spec(self, name: str) -> ModelSpec:
        return self.status(name).spec

    def expect_one_model(self, name: str) -> None:
        """ModelNotFound for the name of several experts, which says what to do instead."""
        if name not in model_names():
            return
        if self.profile.kind == "consensus":
            why = "answers chats and responses only; what else is here needs one model"
        else:
            why = f"answers on the consensus port ({self.settings.consensus_port})"
        known = ", ".join(status.spec.name for status in self.pool.models())
        raise ModelNotFound(f'"{name}" {why}. Known: {known}.', param="model")
