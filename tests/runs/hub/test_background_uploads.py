"""Uploads beside a training: nobody waits, the newest counts, what failed is tried again."""

import threading
import time

import pytest
from time_limits import PATIENCE

from hf_ltsam.runs.hub import BackgroundUploads, HubError
from hf_ltsam.runs.hub.background import MOST_KEPT


class Sender:
    """An upload that waits for its gate and fails as often as it is told to."""

    def __init__(self, name, sent, fails=0):
        self.name, self.sent, self.fails = name, sent, fails
        self.gate, self.started, self.discarded = threading.Event(), threading.Event(), 0

    def __call__(self):
        self.started.set()
        assert self.gate.wait(PATIENCE)
        if self.fails:
            self.fails -= 1
            raise HubError(f"{self.name} failed", temporary=True)
        self.sent.append(self.name)
        return self.name

    def discard(self):
        self.discarded += 1


@pytest.fixture
def queue():
    uploads, sent = BackgroundUploads(), []

    def put(name, fails=0, replaceable=True, open_=False):
        sender = Sender(name, sent, fails)
        if open_:
            sender.gate.set()
        sender.future = uploads.submit(sender, replaceable, sender.discard)
        return sender

    return uploads, sent, put


def test_nobody_waits_and_the_newest_takes_the_place_of_what_waits(queue):
    uploads, sent, put = queue
    first = put("first")
    assert first.started.wait(PATIENCE)
    second, third = put("second"), put("third", open_=True)
    assert second.discarded == 1 and second.future.cancelled() and not uploads.wait(0.05)
    first.gate.set()
    assert uploads.wait(PATIENCE) and sent == ["first", "third"]
    assert first.discarded == third.discarded == 1 and third.future.result(0) == "third"


def test_what_is_not_replaceable_is_sent_in_its_turn(queue):
    uploads, sent, put = queue
    for name in "abc":
        put(name, replaceable=False, open_=True)
    assert uploads.wait(PATIENCE) and sent == ["a", "b", "c"]


def test_a_failure_is_kept_and_tried_again_at_the_end(queue, caplog):
    uploads, sent, put = queue
    failing = put("last", fails=1, open_=True)
    assert uploads.wait(PATIENCE) and not sent and failing.discarded == 0
    assert isinstance(failing.future.exception(0), HubError)
    assert uploads.finish(PATIENCE) and sent == ["last"] and failing.discarded == 1


def test_a_newer_upload_makes_a_failed_one_needless(queue):
    uploads, sent, put = queue
    failing = put("old", fails=9, open_=True)
    assert uploads.wait(PATIENCE)
    put("new", open_=True)
    assert failing.discarded == 1 and uploads.finish(PATIENCE) and sent == ["new"]


def test_the_end_is_bounded(queue):
    uploads, _, put = queue
    put("always", fails=99, open_=True)
    assert not uploads.finish(PATIENCE)
    stuck = put("stuck")
    started = time.monotonic()
    assert not uploads.finish(0.2) and time.monotonic() - started < PATIENCE
    stuck.gate.set()


def test_an_upload_that_breaks_in_an_unforeseen_way_stops_nothing(queue):
    uploads, sent, put = queue
    uploads.submit(lambda: 1 / 0)
    assert uploads.wait(PATIENCE)
    put("next", open_=True)
    assert uploads.wait(PATIENCE) and sent == ["next"]


def test_dropping_what_is_needless(queue):
    uploads, sent, put = queue
    running = put("running")
    assert running.started.wait(PATIENCE)
    waiting = put("waiting")
    uploads.drop()
    running.gate.set()
    assert uploads.wait(PATIENCE) and sent == ["running"] and waiting.discarded == 1


def test_what_is_kept_for_later_is_bounded(queue, caplog):
    """Each of them holds files of a checkpoint on the disk."""
    uploads, _, put = queue
    jobs = [put(str(k), fails=9, replaceable=False, open_=True) for k in range(3)]
    assert uploads.wait(PATIENCE)
    jobs += [put(str(k), fails=9, replaceable=False, open_=True) for k in range(3, 7)]
    assert uploads.wait(PATIENCE)
    assert len(uploads._failed) == MOST_KEPT and sum(job.discarded for job in jobs) == len(jobs) - MOST_KEPT
    assert jobs[-1].discarded == 0


def test_the_thread_keeps_no_process_alive(queue):
    _, _, put = queue
    sender = put("x")
    assert sender.started.wait(PATIENCE)
    threads = [thread for thread in threading.enumerate() if thread.name == "hf_ltsam uploads"]
    assert threads and all(thread.daemon for thread in threads)
    sender.gate.set()
