"""A Hub on the loopback for the real client, in this process, which waits for nothing longer than it must."""

import time

import huggingface_hub.constants as constants
import huggingface_hub.utils._http as client
import pytest
from hub_server import TOKEN, HubServer

import hf_ltsam.runs.hub.upload as upload


class Clock:
    """The module `time`, whose `sleep` is short and noted."""

    def __init__(self):
        self.slept = []

    def sleep(self, seconds):
        self.slept.append(seconds)
        time.sleep(min(seconds, 0.01))

    def __getattr__(self, name):
        return getattr(time, name)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(client, "time", clock)
    monkeypatch.setattr(upload, "time", clock)
    return clock


@pytest.fixture
def hub(monkeypatch, clock, tmp_path):
    """The client of this process talks to it, with a token that may write."""
    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server
    client.close_session()
