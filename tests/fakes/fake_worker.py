"""A worker process without a model: speaks the protocol of worker/messages.py and misbehaves as it is told.

Told by the last part of the model's path and by the prompt, in words `key=value` (with commas in a path):

    path      slow=SECONDS  fail=CODE  die=SIGNAL  hang=1     instead of, or before, Loaded
              quit=1                                          exits right after LoadFailed
              stubborn=1                                      deaf to Shutdown and SIGTERM
              nonsense=1                                      answers Load with bytes that are no message
    prompt    tokens=N delay=SECONDS                          N pieces "t0 ", "t1 ", ... and Finished
              reject=CODE                                     Failed instead of Accepted
              fail=CODE die=SIGNAL exit=CODE hang=1 after=N   in place of the piece number N
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import zmq

from axion_llm.worker.messages import (
    PROTOCOL,
    Accepted,
    Batch,
    Cancel,
    EngineStats,
    Event,
    Failed,
    Finished,
    FromWorker,
    Generate,
    Hello,
    Load,
    Loaded,
    LoadFailed,
    LoadProgress,
    Piece,
    Ping,
    Pong,
    SetCores,
    Shutdown,
    Tokenize,
    ToWorker,
    decode_to_worker,
    encode,
)
from axion_llm.worker.pulse import beat

PR_SET_PDEATHSIG = 1


def words(text: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in text.replace(",", " ").split() if "=" in word)


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass
class Run:
    """One request that generates."""

    request: Generate
    told: dict[str, str]
    num_done: int = 0
    next_at: float = 0.0

    @property
    def num_tokens(self) -> int:
        return int(self.told.get("tokens", "3"))

    def finish(self, reason: str) -> Finished:
        return Finished(self.request.request_id, reason, "", 1, self.num_done, 0)  # type: ignore[arg-type]


class FakeWorker:
    def __init__(self, endpoint: str) -> None:
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PAIR)
        self.socket.connect(endpoint)
        self.runs: dict[str, Run] = {}
        self.told: dict[str, str] = {}
        self.num_output_tokens = 0
        self.num_turns = 0
        self.num_threads = 0

    def send(self, message: FromWorker) -> None:
        self.socket.send(encode(message))

    def serve(self, pulse_fd: int) -> None:
        self.send(Hello(os.getpid(), os.environ.get("FAKE_PROTOCOL", PROTOCOL)))
        threading.Thread(target=beat, args=(pulse_fd, lambda: self.num_turns), daemon=True).start()
        while True:
            self.num_turns += 1
            if self.socket.poll(self.wait_ms()):
                self.handle(decode_to_worker(self.socket.recv()))
            if events := [event for run in self.due() for event in self.step(run)]:
                self.send(Batch(events))

    def wait_ms(self) -> int:
        if not self.runs:
            return 200
        return max(0, int(1000 * (min(run.next_at for run in self.runs.values()) - time.monotonic())))

    def due(self) -> list[Run]:
        return [run for run in self.runs.values() if run.next_at <= time.monotonic()]

    def handle(self, message: ToWorker) -> None:
        match message:
            case Load():
                self.load(message)
            case Generate():
                self.accept(Run(message, words(str(message.prompt))))
            case Cancel(request_id=request_id):
                if run := self.runs.pop(request_id, None):
                    self.send(Batch([run.finish("cancelled")]))
            case Tokenize(content=content):
                misbehave(words(content))
            case SetCores(num_threads=num_threads):
                self.num_threads = num_threads
            case Ping(nonce=nonce):
                stats = EngineStats(num_running=len(self.runs), num_output_tokens=self.num_output_tokens)
                self.send(Pong(nonce, stats))
            case Shutdown():
                if "stubborn" not in self.told:
                    raise SystemExit(0)

    def load(self, load: Load) -> None:
        self.told = told = words(Path(load.path).name)
        if "stubborn" in told:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if "nonsense" in told:
            self.socket.send(b"\xc1nonsense")
            return
        self.send(LoadProgress(0.5))
        time.sleep(float(told.get("slow", "0")))
        misbehave(told)
        if "fail" in told:
            self.send(LoadFailed(told["fail"], "as it was told"))
            if "quit" in told:
                raise SystemExit(1)
            return
        self.send(LoadProgress(1.0))
        self.send(Loaded(load.n_ctx, load.n_seq_max, 1, 1, 1, 1, "fake", load.name, None, "", "", 0.0))

    def accept(self, run: Run) -> None:
        request_id = run.request.request_id
        if "reject" in run.told:
            self.send(Batch([Failed(request_id, run.told["reject"], "as it was told", "messages")]))
            return
        self.runs[request_id] = run
        self.send(Batch([Accepted(request_id, 1)]))

    def step(self, run: Run) -> list[Event]:
        request_id = run.request.request_id
        if run.num_done == int(run.told.get("after", "0")):
            misbehave(run.told)
            if "fail" in run.told:
                del self.runs[request_id]
                return [Failed(request_id, run.told["fail"], "as it was told")]
        if run.num_done == run.num_tokens:
            del self.runs[request_id]
            return [run.finish("stop")]
        piece = Piece(request_id, f"t{run.num_done} ", 1)
        run.num_done += 1
        self.num_output_tokens += 1
        run.next_at = time.monotonic() + float(run.told.get("delay", "0"))
        return [piece]


def misbehave(told: dict[str, str]) -> None:
    if "die" in told:
        print("ggml.c:1: GGML_ASSERT(told) failed", file=sys.stderr, flush=True)
        os.kill(os.getpid(), int(told["die"]))
    if "exit" in told:
        os._exit(int(told["exit"]))
    while "hang" in told:
        time.sleep(60)


if __name__ == "__main__":
    die_with_parent()
    FakeWorker(sys.argv[1]).serve(int(sys.argv[2]))
