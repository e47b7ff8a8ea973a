"""Uploads beside a training: in a thread of their own, which nobody waits for longer than stated.

`HfApi.run_as_future` has one queue too, but its thread is not a daemon: a Hub that never answers would keep the process
alive after the training, and nothing that waits there can be replaced by a newer upload.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from transformers.utils import logging

from hf_ltsam.runs.hub.failures import HubError

logger = logging.get_logger(__name__)

MOST_KEPT = 4  # uploads that run, wait or have failed: the files of each stay on the disk

T = TypeVar("T")


def within(seconds: float, call: Callable[[], T], what: str) -> T:
    """The result of a call that may take at most this long.

    Args:
        what: is waited for, for the message.

    Raises:
        HubError: no result in time; the call goes on in its thread, which keeps no process alive.
    """
    future: Future[T] = Future()
    threading.Thread(target=_settle, args=(future, call), daemon=True).start()
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
    """Uploads one after another; a newer one replaces those that wait or have failed.

    A failed upload is kept until a newer one replaces it or `finish` tries it again.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[_Job] = []
        self._failed: list[_Job] = []
        self._running: _Job | None = None

    def submit(
        self, send: Callable[[], Any], replaceable: bool = True, discard: Callable[[], None] = lambda: None
    ) -> Future[Any]:
        """Put an upload at the end of the queue.

        Args:
            send: does it.
            replaceable: whether a later replaceable upload makes it needless.
            discard: called once it is sent or no longer needed.
        """
        job = _Job(send, replaceable, discard)
        with self._changed:
            kept = [*self._failed, *self._waiting]
            needless = [old for old in kept if old.replaceable and replaceable]
            others = [old for old in kept if old not in needless]
            surplus = others[: max(len(others) + (self._running is not None) + 1 - MOST_KEPT, 0)]
            self._forget([*needless, *surplus])
            self._queue([job])
        if surplus:
            logger.warning(f"The uploads do not keep up with the training: the oldest are not sent ({len(surplus)}).")
        return job.future

    def wait(self, seconds: float) -> bool:
        """Whether everything has been tried within this time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and self._running is None, timeout=seconds)

    def finish(self, seconds: float) -> bool:
        """Wait, and try once more what has failed; whether everything is sent within this time."""
        deadline = time.monotonic() + seconds
        if self.wait(seconds):
            with self._changed:
                failed, self._failed = self._failed, []
                self._queue(failed)
        return self.wait(max(deadline - time.monotonic(), 0.0)) and not self._failed

    def drop(self) -> None:
        """Forget what waits or has failed, since something newer is sent another way."""
        with self._changed:
            self._forget([*self._waiting, *self._failed])

    def _queue(self, jobs: Sequence[_Job]) -> None:
        idle = not self._waiting and self._running is None
        self._waiting.extend(jobs)
        if idle and self._waiting:
            self._running = self._waiting.pop(0)
            threading.Thread(target=self._work, args=(self._running,), name="hf_ltsam uploads", daemon=True).start()

    def _forget(self, jobs: Sequence[_Job]) -> None:
        self._waiting = [job for job in self._waiting if job not in jobs]
        self._failed = [job for job in self._failed if job not in jobs]
        for job in jobs:
            job.future.cancel()
            job.discard()

    def _work(self, job: _Job | None) -> None:
        """Send this one, and what is waiting then."""
        while job is not None:
            error = _settle(job.future, job.send)
            if error is None:
                job.discard()
            else:
                logger.warning(f"{error} The training goes on; this is tried again later, and at its end.")
            with self._changed:
                self._failed += [] if error is None else [job]
                job = self._running = self._waiting.pop(0) if self._waiting else None
                self._changed.notify_all()


def _settle(future: Future[Any], call: Callable[[], Any]) -> BaseException | None:
    """Give the future what the call returns or raises, unless an earlier try has; what it raises."""
    try:
        result = call()
    except BaseException as error:  # whatever happens must reach the one who waits, and not the training
        if not future.done():
            future.set_exception(error)
        return error
    if not future.done():
        future.set_result(result)
    return None
