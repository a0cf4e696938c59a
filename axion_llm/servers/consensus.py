"""The consensus port (8084): models whose answer several experts give together; the experts as plain models too."""

from __future__ import annotations

from pydantic import BaseModel

from axion_llm.api.collect import Head
from axion_llm.consensus import language
from axion_llm.consensus.experts import Roster
from axion_llm.consensus.meter import Meter
from axion_llm.consensus.options import ConsensusRequest, ConsensusResponsesRequest
from axion_llm.consensus.orchestrator import Orchestrator, Task
from axion_llm.consensus.weights_file import WeightsFile
from axion_llm.servers.access import Record
from axion_llm.servers.answer import Answer
from axion_llm.servers.consensus_answer import ConsensusAnswer
from axion_llm.servers.consensus_chat import ChatForm
from axion_llm.servers.consensus_routed import RoutedAnswer
from axion_llm.servers.profile import Profile
from axion_llm.servers.service import Service

PROFILE = Profile(
    kind="consensus",
    streams_by_default=False,
    is_interactive=False,
    port_setting="consensus_port",
    port_option="--consensus-port",
)
BODIES: dict[str, type[BaseModel]] = {
    "/v1/chat/completions": ConsensusRequest,
    "/v1/responses": ConsensusResponsesRequest,
}
DESCRIPTIONS = {
    "consensus": "picks a way by the request and says which",
    "consensus/auto": "the same",
    "consensus/route": "one expert that fits, the others in reserve",
    "consensus/cascade": "the fastest expert first, more only while they do not agree",
    "consensus/vote": "a weighted vote over answers that can be compared",
    "consensus/best_of": "the answer nearest to all others",
    "consensus/synthesize": "the strongest model writes one answer from all",
    "consensus/self": "samples of one expert",
}


def orchestrator(service: Service) -> Orchestrator:
    settings = service.settings
    roster = Roster(WeightsFile(settings.consensus_weights_file), settings.max_loaded)
    return Orchestrator(service.pool, roster, meter=Meter(service.telemetry.registry))


async def answer(
    request: ConsensusRequest, own: Orchestrator, service: Service, record: Record, *, is_streamed: bool
) -> ConsensusAnswer | Answer:
    """Planned before anything is sent, so that its errors are plain HTTP statuses."""
    head = Head.new("chatcmpl", request.model)
    task = Task(head.id, request, service.profile.is_interactive, record.is_large, record.tenant)
    await language.loaded()
    plan = own.plan(task)
    if plan.is_single_handed:
        return RoutedAnswer(request, plan, service, record, is_streamed=is_streamed)
    return ConsensusAnswer(ChatForm(head, request), task, plan, own, service, record, is_streamed=is_streamed)
