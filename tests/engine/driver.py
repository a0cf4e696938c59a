"""Run requests through an engine and collect what a client would see."""

from dataclasses import dataclass, field

from axion_llm.engine.engine import Engine
from axion_llm.worker.messages import Event, Failed, Finished, Generate, Piece, Sampling, TokenLogprob

GREEDY = Sampling(temperature=0)


@dataclass
class Seen:
    text: str = ""
    end: Finished | Failed | None = None
    logprobs: list[TokenLogprob] = field(default_factory=list)
    num_events: int = 0


def note(seen: dict[str, Seen], event: Event) -> None:
    one = seen.setdefault(event.request_id, Seen())
    one.num_events += 1
    assert one.end is None, f"an event after the end: {event}"
    match event:
        case Piece(_, text, _, logprobs):
            one.text += text
            one.logprobs += logprobs
        case Finished():
            one.text += event.text
            one.logprobs += event.logprobs
            one.end = event
        case Failed():
            one.end = event


def run(engine: Engine, *requests: Generate) -> dict[str, Seen]:
    for request in requests:
        engine.add(request, engine.tokenize(request))
    seen: dict[str, Seen] = {}
    while engine.has_work:
        for event in engine.step():
            note(seen, event)
    return seen


def request(request_id: str, prompt: str, max_tokens: int | None = 16, **kwargs: object) -> Generate:
    kwargs.setdefault("sampling", GREEDY)
    return Generate(request_id, prompt, max_tokens=max_tokens, **kwargs)  # type: ignore[arg-type]
