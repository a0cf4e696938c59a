"""Whether this machine computes with what it stands on: the short self-test, then the embedded model.

    python -m axion_llm.worker.probe MODEL.gguf

is started with the environment of a worker (AXION_RUNG, AXION_KERNELS) after one has ended at an instruction of its
own, and may end so itself. It writes a line of JSON before each kernel and the model, and what was found behind it.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict

from axion_llm.config import rung

PROMPTS = (1, 3, 8, 64, 200)  # tokens of one decode each: the shapes of decode, of guesses, of prefill


def say(line: object) -> None:
    os.write(sys.stdout.fileno(), (json.dumps(line) + "\n").encode())


def try_kernels() -> None:
    from axion_llm.kernels.self_test import self_test

    for message in self_test(is_short=True):
        say({"begin": message} if isinstance(message, str) else asdict(message))


def try_model(path: str) -> None:
    from axion_llm.engine.binding import Batch, LlamaModel
    from axion_llm.worker.messages import Load

    model = LlamaModel(Load("probe", path, n_ctx=512, n_seq_max=1), len(os.sched_getaffinity(0)))
    batch, position = Batch(512), 0
    for count in PROMPTS:
        batch.clear()
        batch.add([(position + i) % 1000 for i in range(count)], position, 0, num_outputs=1)
        model.decode(batch)
        logits = model.logits(1)
        if not (logits == logits).all():
            raise SystemExit("the embedded model's logits are not numbers")
        position += count
    model.close()


def main() -> None:
    say({"begin": ""})
    if rung() == "all":
        try_kernels()
    if len(sys.argv) > 1:
        say({"begin": "model"})
        try_model(sys.argv[1])


if __name__ == "__main__":
    main()
