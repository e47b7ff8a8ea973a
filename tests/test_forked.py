"""Copies of one process stand for new ones: in what they have imported, draw and hold open, and in how they end."""

import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path

import forked
import pytest
from forked import PYTHON, ForkingServer


def run(code, *words, **options):
    return subprocess.run([PYTHON, "-c", code, *words], capture_output=True, text=True, **options)


def test_what_nobody_has_seeded_is_drawn_anew_by_every_process():
    """Else a result would repeat in two processes of a test that does not repeat for users."""
    code = "import random, numpy, torch; print(random.random(), numpy.random.rand(), torch.rand(1).item())"
    one, other = (run(code).stdout.split() for _ in range(2))
    assert len(one) == 3 and not set(one) & set(other)


def test_nothing_of_ours_has_been_imported():
    code = "import json, sys; print(json.dumps([[*sys.modules], sys.path]))"
    modules, path = json.loads(run(code, env={**os.environ, "PYTHONPATH": ""}).stdout)
    assert not [
        name for name in modules if name.split(".")[0] in ("hf_ltsam", "dataset_builders", "forked", "training")
    ]
    assert str(Path(__file__).parent) not in path


def test_parents_are_those_of_the_processes_they_stand_for():
    code = """
import os
me, reading, writing = os.getpid(), *os.pipe()
if not os.fork():
    os.write(writing, str(os.getppid() == me).encode())
    os._exit(0)
print(os.getppid(), os.read(reading, 9).decode())
"""
    assert run(code).stdout.split() == [str(os.getpid()), "True"]


@pytest.mark.parametrize(
    "code, status",
    [
        ("raise SystemExit(3)", 3),
        ("raise SystemExit('no')", 1),
        ("1 / 0", 1),
        ("import hf_ltsam.nothing", 1),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("import os; os.abort()", -signal.SIGABRT),
        ("pass", 0),
    ],
)
def test_the_status_is_that_of_the_process(code, status):
    assert run(code).returncode == status


def test_a_process_with_few_files_to_open():
    """256 on macOS; the copy has what its client has, and nothing of the server."""
    code = """
import os, resource, sys
sys.path.insert(0, sys.argv[1])
import forking_server
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
kept = [os.dup(number) for number in range(3)]
listing = "import os; print(len([n for n in os.listdir('/dev/fd') if os.path.exists(f'/dev/fd/{n}')]))"
request = {"files": [0, 1, 2], "folder": ".", "environment": dict(os.environ), "executable": sys.executable,
           "client": os.getpid(), "arguments": ["-c", listing]}
forking_server.run(request, kept)
"""
    ended = run(code, str(Path(__file__).parent))
    assert (ended.returncode, ended.stdout) == (0, "3\n"), ended.stderr


@pytest.mark.parametrize("hindrance", ["a long path", "no execution"])
def test_where_there_can_be_no_server_python_is_python(hindrance, tmp_path, monkeypatch):
    before = forked.PYTHON, dict(os.environ)
    if hindrance == "a long path":
        folder = tmp_path / ("x" * 120)
        folder.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
    else:
        monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OSError, match=r"too long|without execution"):
        ForkingServer()
    assert (forked.PYTHON, dict(os.environ)) == before
