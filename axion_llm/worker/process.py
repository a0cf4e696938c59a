"""The child process of one model: reads messages, steps the engine, sends events. `python -m axion_llm.worker.process`.

One thread does it all, so that nothing competes with a decode; only a long prompt's tokenising, a grammar's compiling
(the calls release the GIL) and the pulse run beside it. The process ends when its parent does.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import zmq

from axion_llm.errors import AxionError, EngineError, Overloaded, ShuttingDown, unexpected
from axion_llm.worker import messages as m
from axion_llm.worker.pulse import beat
from axion_llm.worker.side_jobs import SideJobs

if TYPE_CHECKING:
    from axion_llm.engine.engine import Engine
    from axion_llm.worker.intake import Intake

IDLE_POLL_MS = 500  # how often an idle worker looks whether its parent is still there
PR_SET_PDEATHSIG = 1


class Stop(Exception):
    """Shutdown came, or the parent is gone."""


class Worker:
    """The message loop around an engine."""

    def __init__(self, endpoint: str, pulse_fd: int, *, tests_kernels: bool = False) -> None:
        self._tests_kernels = tests_kernels
        self._wrong_kernels: list[str] | None = None  # once they are tested
        self._num_turns = 0
        self._pulse_fd = pulse_fd
        self._context = zmq.Context(io_threads=1)
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.setsockopt(zmq.LINGER, 1000)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.connect(endpoint)
        self._parent = os.getppid()
        self._threads = ThreadPoolExecutor(max_workers=1)
        self._side_jobs = SideJobs(self._threads, self._fail)
        self._engine: Engine | None = None
        self._intake: Intake | None = None
        self._loop_seconds = 0.0
        self._all_cpus = os.sched_getaffinity(0)
        self._cpus: list[int] = []  # that we are bound to

    def run(self) -> None:
        self._send(m.Hello(os.getpid(), m.PROTOCOL))
        threading.Thread(target=beat, args=(self._pulse_fd, self._num_done), daemon=True).start()
        prepare()
        if self._tests_kernels:
            self._wrong_kernels = take_out_wrong_kernels()
        try:
            while True:
                self._turn()
                self._num_turns += 1
        except Stop:
            self._threads.shutdown(wait=True, cancel_futures=True)
            if self._intake:
                self._intake.close()
        finally:
            self._socket.close()
            self._context.term()

    def _turn(self) -> None:
        """Messages in, one step, events out."""
        timeout_ms = self._poll_ms()
        started = time.perf_counter()
        self._receive(timeout_ms)
        if timeout_ms:
            started = time.perf_counter()  # waiting for work is not work
        self._admit_prepared()
        self._side_jobs.collect()
        if self._engine and self._engine.has_work:
            events = self._engine.step()
            if events:
                self._send(m.Batch(events))
            for reply in self._engine.step_embeddings():
                self._send(m.Batch([reply]) if isinstance(reply, m.Failed) else reply)
            self._loop_seconds += time.perf_counter() - started

    def _num_done(self) -> int:
        """Grows as long as anything is done, also in the middle of a step."""
        return self._num_turns + (self._engine.model.num_nodes_done() if self._engine else 0)

    def _stats(self) -> m.EngineStats:
        stats = self._engine.stats() if self._engine else m.EngineStats()
        return msgspec.structs.replace(stats, loop_seconds=self._loop_seconds)

    def _send(self, message: m.Message) -> None:
        self._socket.send(m.encode(message))

    def _poll_ms(self) -> int:
        if self._engine and self._engine.has_work:
            return 0
        is_preparing = self._side_jobs.num_running or (self._intake and self._intake.waiting)
        return 1 if is_preparing else IDLE_POLL_MS

    def _receive(self, timeout_ms: int) -> None:
        if not self._socket.poll(timeout_ms):
            if timeout_ms and os.getppid() != self._parent:
                raise Stop
            return
        while True:
            try:
                message = m.decode_to_worker(self._socket.recv(zmq.NOBLOCK))
            except zmq.Again:
                return
            self._handle(message)

    def _handle(self, message: m.ToWorker) -> None:
        match message:
            case m.Generate():
                self._generate(message)
            case m.Embed() | m.Tokenize() | m.Detokenize():
                self._answer(message)
            case m.Cancel(request_id):
                self._cancel(request_id)
            case m.SetCores(num_threads, cpus):
                self._set_cores(num_threads, cpus)
            case m.Ping(nonce):
                self._send(m.Pong(nonce, self._stats()))
            case m.Load():
                self._load(message)
            case m.Shutdown():
                self._end_all()
                self._send(m.Pong(0, self._stats()))  # nobody asked, but nobody can ask again
                raise Stop

    # ---- requests

    def _generate(self, request: m.Generate) -> None:
        if self._intake is None:
            return self._reject(request, EngineError("no model is loaded in this worker"))
        intake = self._intake
        self._accept(request, lambda: intake.take(request))

    def _admit_prepared(self) -> None:
        for request, hand_over in self._intake.accepted() if self._intake else ():
            if not self._accept(request, hand_over):
                self._send(m.Batch([m.Finished(request.request_id, "cancelled", "", 0, 0, 0)]))

    def _accept(self, request: m.Generate, hand_over: Callable[[], m.Accepted | None]) -> bool:
        """Tell what became of it; False when it is not decided."""
        try:
            accepted = hand_over()
        except Exception as e:  # one that was not foreseen is this request's too, and not the process's
            self._reject(request, unexpected(e))
            return True
        if accepted:
            self._send(m.Batch([accepted]))
        return accepted is not None

    def _reject(self, request: m.Generate, error: AxionError) -> None:
        self._fail(request.request_id, error)

    def _fail(self, request_id: str, error: AxionError) -> None:
        retry = error.retry_after_seconds if isinstance(error, Overloaded) else None
        self._send(m.Batch([m.Failed(request_id, error.code, error.message, error.param, retry)]))

    def _answer(self, question: m.Question) -> None:
        """Tokenising takes its time for a long text, and there may be thousands of texts: never between two steps."""
        engine, jobs = self._engine, self._side_jobs
        if engine is None:
            return self._fail(question.request_id, EngineError("no model is loaded in this worker"))
        match question:
            case m.Embed(request_id):
                tokenize = partial(engine.embedder.tokenize, question)
                jobs.submit(request_id, tokenize, partial(engine.embedder.add, request_id))
            case m.Tokenize(request_id):
                jobs.submit(request_id, partial(engine.vocabulary.tokenize, question), self._send)
            case m.Detokenize(request_id):
                jobs.submit(request_id, partial(engine.vocabulary.detokenize, question), self._send)

    def _cancel(self, request_id: str) -> None:
        if self._side_jobs.cancel(request_id) or (self._engine and self._engine.embedder.cancel(request_id)):
            return
        finished = self._engine.cancel(request_id) if self._engine else None
        if finished:
            self._send(m.Batch([finished]))
        elif self._intake:
            self._intake.cancel(request_id)

    def _end_all(self) -> None:
        for request in self._intake.waiting if self._intake else ():
            self._reject(request, ShuttingDown("the model is being unloaded"))

    def _set_cores(self, num_threads: int, cpus: list[int]) -> None:
        if self._engine:
            self._engine.model.set_threads(num_threads)
        if cpus == self._cpus:
            return
        self._cpus = cpus
        for thread in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):  # it has just ended, or these CPUs are no longer ours
                os.sched_setaffinity(int(thread.name), cpus or self._all_cpus)

    # ---- loading

    def _load(self, load: m.Load) -> None:
        started = time.monotonic()
        try:
            from axion_llm.engine.binding import LlamaModel
            from axion_llm.engine.engine import Engine
            from axion_llm.worker.intake import Intake

            num_threads = load.num_threads or len(os.sched_getaffinity(0))
            base_bytes = resident_bytes()
            model = LlamaModel(load, num_threads, self._on_progress)
            engine = Engine(model)
            if load.warm_up:
                engine.warm_up()
            self._engine, self._intake = engine, Intake(engine)
        except AxionError as e:
            self._send(m.LoadFailed(e.code, e.message))
            return
        facts = model.describe()
        facts["chat_template"] = load.chat_template or facts["chat_template"]
        self._send(
            m.Loaded(
                n_ctx=self._engine.max_request_tokens,
                n_seq_max=model.n_seq_max,
                kv_bytes=model.kv_bytes,
                compute_bytes=model.compute_bytes,
                base_bytes=base_bytes,
                load_seconds=time.monotonic() - started,
                has_vision=self._engine.vision is not None,
                control_tokens=self._engine.vocabulary.control_texts,
                n_embedding_tokens=self._engine.embedder.max_tokens,
                wrong_kernels=self._wrong_kernels,
                **facts,
            )
        )
        gc.collect()
        gc.freeze()  # what exists now stays: later collections need not walk it

    def _on_progress(self, fraction: float) -> bool:
        self._send(m.LoadProgress(fraction))
        return True


def prepare() -> None:
    """All imports that a load needs: a worker that stands ready without a model has only to open the file."""
    with contextlib.suppress(AxionError):  # it comes again in the load, which can tell
        import axion_llm.engine.engine
        import axion_llm.worker.intake  # noqa: F401


def take_out_wrong_kernels() -> list[str] | None:
    """The short self-test, some 0.2 s: a kernel that this machine computes wrong numbers with is switched off."""
    from axion_llm.kernels.self_test import take_out_wrong

    with contextlib.suppress(AxionError):  # no libraries: the load will tell
        return take_out_wrong()
    return None


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def die_with_parent() -> None:
    """Linux: the kernel kills this process when the parent ends, however that happens."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    # Ctrl-C reaches the whole process group; the parent decides how we end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    *options, endpoint, pulse_fd = sys.argv[1:]
    Worker(endpoint, int(pulse_fd), tests_kernels=m.TEST_KERNELS in options).run()


if __name__ == "__main__":
    main()
