"""One upload: the real client against a Hub that answers, refuses, fails, hangs up."""

import os
import time

import pytest
from hub_server import READ_ONLY, TOKEN
from time_limits import PATIENCE

from hf_ltsam.runs.hub import HubError, Upload, check_token, require_network, send, within
from hf_ltsam.runs.hub.upload import GRACE, SLOWEST, WAITS
from hf_ltsam.runs.secrets import without_secrets

BIG = os.urandom(3_000_000)


def upload(**changes):
    files = {"config.json": b'{"a": 1}', "model.safetensors": BIG, "README.md": b"---\nlicense: mit\n---\n# card\n"}
    return Upload(**{"repo": "me/model", "files": files, "message": "all of it", **changes})


def test_everything_arrives_in_one_commit(hub):
    commit = send(upload(private=True))
    assert hub.files("me/model") == dict(upload().files)
    assert hub.messages == ["all of it"] and commit.commit_url.endswith(commit.oid) and hub.repo("me/model").private


@pytest.mark.parametrize("status", [None, 400, 403, 422, 500])
def test_entries_of_leaderboards_are_apart_and_optional(hub, caplog, status):
    entries = {".eval_results/results.yaml": b"- dataset: {}"}
    if status is not None:
        hub.fail("/commit/", status, times=99, after=1)  # of the second commit
    commit = send(upload(entries=entries))
    sent = dict(upload().files) | (entries if status is None else {})
    assert hub.files("me/model") == sent and commit.commit_message == "all of it"
    assert hub.messages == ["all of it"] + (["Entries of leaderboards"] if status is None else [])
    assert (f"results.yaml, with which results enter leaderboards, is not: me/model was not uploaded: the Hub answers {status}"
            in caplog.text) == (status is not None)  # fmt: skip


def test_a_second_upload_sends_only_what_has_changed(hub):
    send(upload())
    send(upload(files={**upload().files, "config.json": b'{"a": 2}'}))
    assert hub.files("me/model")["config.json"] == b'{"a": 2}'
    assert len(hub.asked("PUT /lfs/")) == 1 and len(hub.repo("me/model").commits) == 2


def test_files_come_from_the_disk_and_go_to_the_branch(hub, tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(BIG)
    send(upload(files={"model.safetensors": file}, revision="trial"))
    assert hub.files("me/model")["model.safetensors"] == BIG
    assert hub.asked("/commit/trial") and file.read_bytes() == BIG


def test_without_an_owner_the_repository_is_that_of_the_token(hub):
    send(upload(repo="model"))
    assert hub.files("me/model")


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("hf_unknown", ["401", "does not know the token", "hf auth login"]),
        (READ_ONLY, ["403", "may not write there", "me/model"]),
    ],
)
def test_what_no_other_try_can_mend_is_said_at_once(hub, clock, token, words):
    with pytest.raises(HubError) as raised:
        send(upload(), token)
    assert all(word in str(raised.value) for word in words) and token not in str(raised.value)
    assert not raised.value.temporary and not clock.slept and len(hub.asked("repos/create")) == 1
    assert "\n" not in str(raised.value) and ("model", "me/model") not in hub.repos


def test_a_read_only_token_for_a_repository_that_is_there(hub):
    """The client takes 403 at the creation for "it may exist already"; the commit tells."""
    send(upload())
    with pytest.raises(HubError, match="403, the token may not write there"):
        send(upload(), READ_ONLY)


def test_twice_500_then_success(hub, clock):
    hub.fail("POST /api/models/me/model/commit", 500, times=2)  # the client itself does not try this again
    send(upload())
    assert hub.files("me/model")["model.safetensors"] == BIG and clock.slept == list(WAITS)
    assert len(hub.asked("PUT /lfs/")) == 1  # what has arrived is not sent again


@pytest.mark.parametrize("where", ["repos/create", "preupload", "objects/batch", "PUT /lfs/", "validate-yaml"])
def test_twice_500_anywhere(hub, where):
    hub.fail(where, 500, times=2)
    send(upload())
    assert hub.files("me/model") == dict(upload().files)


def test_a_hub_that_keeps_failing_is_given_up(hub):
    hub.fail("/commit/", 503, times=99)
    with pytest.raises(HubError, match="503, it has a failure of its own") as raised:
        send(upload())
    assert raised.value.temporary and len(hub.asked("/commit/")) == 1 + len(WAITS)


def test_somebody_else_writes_at_the_same_time(hub):
    hub.fail("/commit/", 409)
    send(upload())
    assert len(hub.asked("/commit/")) == 2
    hub.fail("/commit/", 409, times=9)
    with pytest.raises(HubError, match="409, somebody else is writing there"):
        send(upload(files={"config.json": b"{}"}))


def test_too_many_requests(hub, clock):
    hub.fail("/commit/", 429, headers={"Retry-After": "7"})
    send(upload())
    assert clock.slept == [7.0] and hub.files("me/model")


def test_a_wait_that_is_too_long_is_not_waited(hub, clock):
    hub.fail("/commit/", 429, times=9, headers={"Retry-After": "3600"})
    with pytest.raises(HubError, match=r"429, it has had too many requests.*asks to wait 3600 seconds"):
        send(upload())
    assert len(hub.asked("/commit/")) == 1 and not clock.slept


def test_a_connection_cut_in_the_middle_of_the_weights(hub):
    hub.fail("PUT /lfs/", cut_after=1_000_000)
    send(upload())
    assert hub.files("me/model")["model.safetensors"] == BIG and len(hub.asked("PUT /lfs/")) == 2


def test_a_connection_cut_in_the_middle_of_the_commit(hub):
    hub.fail("/commit/", cut_after=20)
    send(upload())
    assert hub.files("me/model")["model.safetensors"] == BIG


def test_a_connection_that_is_always_cut(hub):
    hub.fail("/commit/", cut_after=20, times=99)
    with pytest.raises(HubError, match="could not be reached, or hung up") as raised:
        send(upload())
    assert raised.value.temporary


def test_nobody_there(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match=r"http://127.0.0.1:9 could not be reached"):
        send(upload())


def test_a_slow_server_is_waited_for_as_long_as_stated(hub):
    hub.fail("/commit/", delay=1.0)
    with pytest.raises(HubError, match=r"Uploading: the Hub did not finish within 0 seconds\.") as raised:
        within(0.2, lambda: send(upload()), "Uploading")
    assert raised.value.temporary
    while not hub.messages:  # its thread goes on: not beyond the life of this server
        time.sleep(0.05)
    assert upload().patience == pytest.approx(GRACE + len(BIG) / SLOWEST, rel=1e-3)


def test_within_hands_on_results_and_errors():
    assert within(PATIENCE, lambda: 3, "x") == 3
    with pytest.raises(KeyError):
        within(PATIENCE, lambda: {}["no"], "x")


def test_a_token_is_looked_at_before_anything_is_done(hub, monkeypatch):
    check_token("--push_to_hub")
    with pytest.raises(HubError, match=r"--push_to_hub cannot work: the Hub answers 401, it does not know the token"):
        check_token("--push_to_hub", "hf_unknown")
    hub.fail("whoami", 503, times=9)  # the Hub's own trouble is no reason to wait with the training
    check_token("--push_to_hub", "hf_unknown")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere/token")
    with pytest.raises(HubError, match=r"--push_to_hub cannot work: .*hf auth login"):
        check_token("--push_to_hub")


def test_offline_is_said_at_once(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"ltsam push needs the Hub, but HF_HUB_OFFLINE=1 forbids the network"):
        require_network("ltsam push")
    with pytest.raises(HubError, match="offline mode"):
        send(upload())
    assert not hub.requests


def test_secrets_are_taken_out():
    text = f"PUT https://cdn.example/x?X-Amz-Signature=abc&b=1 failed with {TOKEN} and pass-word; hf_ltsam stays"
    cleaned = without_secrets(text, "pass-word")
    assert cleaned == "PUT https://cdn.example/x failed with (secret) and (secret); hf_ltsam stays"
