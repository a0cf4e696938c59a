"""Grammars of one model: compiled once, copied for each sequence that uses them.

The vocabulary is brought into llguidance's form at the first use, which takes up to two seconds: loads stay fast.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, grammar_from

from axion_llm.engine import trial
from axion_llm.engine.binding import LlamaModel
from axion_llm.engine.constraint import Constraint, first_line
from axion_llm.errors import BadRequest, Overloaded
from axion_llm.worker.messages import Grammar

KEPT = 64  # compiled grammars, the ones used last
MOST_KEPT_BYTES = 16 << 20  # of one of them: a larger one is compiled anew
LIMITS = trial.Limits(cpu_seconds=5, memory_bytes=384 << 20, wall_seconds=60.0)
# What a mask may cost at most, in llguidance's own units: some tens of milliseconds of a hostile grammar. A schema with
# many optional properties needs long rows, but its rows are cheap; a grammar of a client's own making can be ambiguous.
SCHEMA_LIMITS = LLParserLimits(
    step_max_items=5000, step_lexer_fuel=100_000, max_lexer_states=50_000, verbose_errors=False
)
GRAMMAR_LIMITS = LLParserLimits(
    max_items_in_row=400, step_max_items=5000, step_lexer_fuel=100_000, max_lexer_states=50_000, verbose_errors=False
)

_Owned = tuple[str, Grammar]  # by a tenant


class Grammars:
    """Compiling may run in any thread."""

    def __init__(self, model: LlamaModel) -> None:
        self._model = model
        self._tokenizer: LLTokenizer | None = None
        self._building, self._keeping = Lock(), Lock()
        self._compiled: OrderedDict[_Owned, LLMatcher] = OrderedDict()

    def is_known(self, grammar: Grammar, tenant: str = "") -> bool:
        return (tenant, grammar) in self._compiled

    def constraint(
        self, grammar: Grammar, tenant: str = "", is_wanted: Callable[[], bool] = lambda: True
    ) -> Constraint:
        """A fresh state of the grammar; BadRequest when it does not compile.

        Each tenant has its own: that a grammar is there at once would tell another one that somebody uses it.
        """
        with self._building:
            self._tokenizer = self._tokenizer or self._make_tokenizer()
        owned = tenant, grammar
        matcher, num_bytes = self._compiled.get(owned), 0
        if matcher is None:
            num_bytes = self._try(grammar, self._tokenizer, is_wanted)
            matcher = self._compile(grammar, self._tokenizer)
        if num_bytes <= MOST_KEPT_BYTES:
            self._keep(owned, matcher)
        return Constraint(matcher.deep_copy(), self._tokenizer, grammar.trigger)

    def _keep(self, owned: _Owned, matcher: LLMatcher) -> None:
        with self._keeping:
            self._compiled[owned] = matcher
            self._compiled.move_to_end(owned)
            while len(self._compiled) > KEPT:
                self._compiled.popitem(last=False)

    def _try(self, grammar: Grammar, tokenizer: LLTokenizer, is_wanted: Callable[[], bool]) -> int:
        """Whether it can be afforded, and the bytes that it takes: some grammars would take gigabytes, or for ever."""
        try:
            return trial.run(lambda: self._compile(grammar, tokenizer), LIMITS, is_wanted)
        except BadRequest as error:
            raise BadRequest(error.message, param=grammar.param) from None
        except trial.Unaffordable:
            most = f"{LIMITS.cpu_seconds} s of computing or {LIMITS.memory_bytes >> 20} MB"
            message = f"the grammar takes more than {most} to compile; make it simpler"
            raise BadRequest(message, param=grammar.param) from None
        except trial.Unwanted:
            raise Overloaded("the machine is too busy to compile the grammar; try again later") from None

    def _compile(self, grammar: Grammar, tokenizer: LLTokenizer) -> LLMatcher:
        limits = GRAMMAR_LIMITS if grammar.kind in ("grammar", "regex") else SCHEMA_LIMITS
        matcher = LLMatcher(tokenizer, _source(grammar), log_level=0, limits=limits)
        if matcher.is_error():
            raise BadRequest(f"the grammar does not compile: {first_line(matcher.get_error())}", param=grammar.param)
        return matcher

    def _make_tokenizer(self) -> LLTokenizer:
        model = self._model
        tokenizer: LLTokenizer = LLTokenizer.from_llamacpp(  # type: ignore[attr-defined]
            tokens=model.vocabulary(),
            vocab_ptr=model.vocab,
            tokenize_fptr=model.tokenize_address,
            eos_token=[t for t in range(model.n_vocab) if model.is_end(t)],
            slices=None,
        )
        return tokenizer


def _source(grammar: Grammar) -> str:
    try:
        if grammar.kind == "json_schema":
            return LLMatcher.grammar_from_json_schema(grammar.source)
        return grammar_from("lark" if grammar.kind == "calls" else grammar.kind, grammar.source)
    except (ValueError, RecursionError) as e:
        raise BadRequest(f"the grammar does not compile: {first_line(str(e))}", param=grammar.param) from e
