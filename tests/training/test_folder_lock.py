"""One run at a time in a folder, and no lock that outlives its run."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import psutil
import pytest
from forked import call
from training.killed_runs import FORWARD, run
from training.noisy_run import noisy_trainer

from hf_ltsam.training.folder_lock import FILE_NAME, FolderInUseError, folder_lock


def hold(folder):
    with folder_lock(folder):
        print(os.getpid(), flush=True)
        sys.stdin.read()


@contextmanager
def held(folder):
    """The number of another process that holds the folder."""
    with call(hold, folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield int(process.stdout.readline())


@pytest.fixture
def elsewhere(tmp_path):
    with held(tmp_path) as number:
        yield number


def test_a_second_run_is_refused_and_told_who_is_there(elsewhere, tmp_path):
    with pytest.raises(FolderInUseError, match=r"output_dir=.*in use by another run") as refusal:
        noisy_trainer(tmp_path).train()
    for fact in (
        f"process {elsewhere} on {socket.gethostname()} since {time.strftime('%Y-')}",
        str(tmp_path),
        "another output_dir",
    ):
        assert fact in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    with pytest.raises(FolderInUseError):  # being refused has not loosened the lock
        noisy_trainer(tmp_path).train()


def test_the_lock_goes_with_its_process(elsewhere, tmp_path):
    os.kill(elsewhere, signal.SIGKILL)
    while psutil.pid_exists(elsewhere):
        time.sleep(0.01)
    assert (tmp_path / FILE_NAME).exists()
    with folder_lock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_killed_run_restarts_at_once_though_its_workers_live_on(tmp_path):
    settings = {"workers": 2, "max_steps": 6, "dataloader_persistent_workers": True}
    assert run(tmp_path / "run", (FORWARD, 10), **settings) == [-signal.SIGKILL]
    assert run(tmp_path / "run", None, **settings) == [0]


def test_trainers_of_one_process_one_after_another(tmp_path):
    first, second = noisy_trainer(tmp_path, max_steps=2), noisy_trainer(tmp_path, max_steps=2)
    for trainer in (first, second, first):
        trainer.train()
    assert not (tmp_path / FILE_NAME).exists()


def test_released_after_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="in between"), folder_lock(tmp_path):
        raise RuntimeError("in between")
    assert not (tmp_path / FILE_NAME).exists()


def test_a_holder_that_ends_between_opening_and_locking(tmp_path, monkeypatch):
    """Its file is gone then: a lock on it would keep nobody out."""
    lock, opened = fcntl.lockf, []

    def after_it_was_removed(file, how):
        if not opened:
            (tmp_path / FILE_NAME).unlink()
        opened.append(file)
        return lock(file, how)

    monkeypatch.setattr(fcntl, "lockf", after_it_was_removed)
    with folder_lock(tmp_path):
        assert (tmp_path / FILE_NAME).read_text().startswith(f"process {os.getpid()}")
    assert len(opened) == 2


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_there_is_a_warning(error, tmp_path, monkeypatch, caplog):
    def unsupported(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "lockf", unsupported)
    with caplog.at_level("WARNING"):
        noisy_trainer(tmp_path / "run", max_steps=1).train()
    assert f"{tmp_path / 'run'} cannot be locked ({os.strerror(error)})" in caplog.text


def test_only_the_main_process_locks(tmp_path):
    assert run(tmp_path / "run", None, None, max_steps=2) == [0, 0]


def test_a_lock_that_cannot_be_opened_is_no_other_run(tmp_path, caplog):
    (tmp_path / FILE_NAME).mkdir()
    with caplog.at_level("WARNING"), folder_lock(tmp_path):
        pass
    assert "cannot be locked (Is a directory)" in caplog.text
