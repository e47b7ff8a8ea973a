"""One run at a time in a folder, and no lock that outlives its run."""

import errno
import fcntl
import os
import signal
import socket
import time

import pytest
from time_limits import PATIENCE
from training.killed_runs import FORWARD, PROCESSES, run, start
from training.noisy_run import noisy_trainer

from hf_ltsam.training.folder_lock import FILE_NAME, FolderInUseError, folder_lock


def hold(folder, test):
    with folder_lock(folder):
        test.send("ready")
        test.poll(PATIENCE)


@pytest.fixture
def elsewhere(tmp_path):
    """Another process that holds the folder."""
    here, there = PROCESSES.Pipe()
    process = PROCESSES.Process(target=hold, args=(tmp_path, there))
    process.start()
    assert here.recv() == "ready"
    yield process
    process.kill()
    process.join(PATIENCE)


def test_a_second_run_is_refused_and_told_who_is_there(elsewhere, tmp_path):
    with pytest.raises(FolderInUseError, match=r"output_dir=.*in use by another run") as refusal:
        noisy_trainer(tmp_path).train()
    for fact in (
        f"process {elsewhere.pid} on {socket.gethostname()} since {time.strftime('%Y-')}",
        str(tmp_path),
        "another output_dir",
    ):
        assert fact in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    with pytest.raises(FolderInUseError):  # being refused has not loosened the lock
        noisy_trainer(tmp_path).train()


def test_the_lock_goes_with_its_process(elsewhere, tmp_path):
    os.kill(elsewhere.pid, signal.SIGKILL)
    elsewhere.join(PATIENCE)
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
    started = start(tmp_path / "run", None, None, max_steps=2)
    for process in started:
        process.join(PATIENCE)
    assert [process.exitcode for process in started] == [0, 0]


def test_a_lock_that_cannot_be_opened_is_no_other_run(tmp_path, caplog):
    (tmp_path / FILE_NAME).mkdir()
    with caplog.at_level("WARNING"), folder_lock(tmp_path):
        pass
    assert "cannot be locked (Is a directory)" in caplog.text
