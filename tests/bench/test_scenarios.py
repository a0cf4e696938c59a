"""The scenarios' arithmetic."""

import pytest

from axion_llm.bench.client import Trace
from axion_llm.bench.scenarios import longest_gap


def trace(*times: float) -> Trace:
    return Trace(sent=10.0, pieces=list(times))


@pytest.mark.parametrize(
    ("times", "gap"),
    [
        ((0.0, 1.0, 1.1, 1.2, 2.0), 0.8),  # reaches beyond the end
        ((0.9, 1.05, 1.1, 1.3, 1.45, 1.55), 0.2),
        ((0.5, 9.0), 8.5),  # begins before and ends after
        ((0.5,), 1.0),  # nothing more came
    ],
)
def test_the_longest_silence_that_touches_the_window(times: tuple[float, ...], gap: float) -> None:
    assert longest_gap(trace(*times), 11.0, 11.5) == pytest.approx(gap)
