"""Uploads beside a training: in a thread of their own, which nobody waits for longer than stated."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from transformers.utils import logging

from hf_ltsam.runs.hub.failures import HubError

logger = logging.get_logger(__name__)

MOST_KEPT = 4  # uploads that run, wait or have failed: the files of each stay on the disk

T = TypeVar("T")


def within(seconds: float, call: Callable[[], T], what: str) -> T:
    """The result of a call, waited for so long at most.

    The thread is a daemon: a server that never answers (the client knows no time limit) keeps no process alive.

    Raises:
        HubError: no result in time.
    """
    future = _in_thread(call)
    try:
        return future.result(timeout=seconds)
    except TimeoutError:
        if future.done():  # the call's own
            raise
        raise HubError(f"{what}: the Hub did not finish within {seconds:.0f} seconds.", temporary=True) from None


@dataclass(eq=False)
class _Job:
    send: Callable[[], Any]
    replaceable: bool
    discard: Callable[[], None]
    future: Future[Any] = field(default_factory=Future)


class BackgroundUploads:
    """Uploads one after another; a newer one takes the place of what is waiting or has failed.

    What could not be sent is kept, and sent again by `finish`.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[_Job] = deque()
        self._failed: list[_Job] = []
        self._running: _Job | None = None
        self._thread: threading.Thread | None = None

    def submit(
        self, send: Callable[[], Any], replaceable: bool = True, discard: Callable[[], None] = lambda: None
    ) -> Future[Any]:
        """Put an upload at the end of the queue.

        Args:
            send: does it.
            replaceable: whether a later one makes it needless.
            discard: called once it is sent or no longer needed.
        """
        job = _Job(send, replaceable, discard)
        with self._changed:
            kept = [*self._failed, *self._waiting]
            needless = [old for old in kept if old.replaceable and replaceable]
            others = [old for old in kept if old not in needless]
            too_many = others[: max(len(others) + (self._running is not None) + 1 - MOST_KEPT, 0)]
            self._remove([*needless, *too_many])
            self._waiting.append(job)
            self._start()
        if too_many:
            logger.warning(f"The uploads do not keep up with the training: {len(too_many)} of the oldest is not sent.")
        _let_go([*needless, *too_many])
        return job.future

    def wait(self, seconds: float) -> bool:
        """Whether everything has been tried within so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and self._running is None, timeout=seconds)

    def finish(self, seconds: float) -> bool:
        """Wait, then try once more what has failed; whether all is sent within so many seconds."""
        deadline = time.monotonic() + seconds
        if self.wait(seconds) and self._failed:
            with self._changed:
                again, self._failed = self._failed, []
                self._waiting.extend(again)
                self._start()
        return self.wait(max(deadline - time.monotonic(), 0.0)) and not self._failed

    def drop(self) -> None:
        """Forget what is waiting or has failed, since something newer is sent another way."""
        with self._changed:
            needless = [*self._waiting, *self._failed]
            self._remove(needless)
        _let_go(needless)

    def _remove(self, jobs: list[_Job]) -> None:
        self._waiting = deque(job for job in self._waiting if job not in jobs)
        self._failed = [job for job in self._failed if job not in jobs]

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="hf_ltsam uploads", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        """Until nothing is waiting."""
        while True:
            with self._changed:
                if not self._waiting:
                    self._thread, self._running = None, None
                    self._changed.notify_all()
                    return
                job = self._running = self._waiting.popleft()
            error = _run(job)
            with self._changed:
                self._running = None
                if error is not None:
                    self._failed.append(job)
                self._changed.notify_all()
            if error is None:
                job.discard()
            else:
                logger.warning(f"{error} The training goes on; this is tried again later, and at its end.")


def _let_go(jobs: list[_Job]) -> None:
    for job in jobs:
        job.future.cancel()
        job.discard()


def _run(job: _Job) -> Exception | None:
    try:
        result = job.send()
    except Exception as error:  # whatever happens here must not reach the training
        if not job.future.done():
            job.future.set_exception(error)
        return error
    if not job.future.done():
        job.future.set_result(result)
    return None


def _in_thread(call: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # the caller gets it, as if it had made the call itself
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
