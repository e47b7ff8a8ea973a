"""One commit to a repository of the Hub, tried again where that may help, and one of what the Hub may refuse."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from transformers.utils import logging

from hf_ltsam.runs.hub.background import within
from hf_ltsam.runs.hub.failures import HubError, in_words
from hf_ltsam.runs.secrets import without_secrets

logger = logging.get_logger(__name__)

WAITS = (1.0, 5.0)  # seconds before the second and the third try; the client tries single requests again itself
SLOWEST = 1e5  # bytes per second: an upload that takes longer is given up
TEXTS = (".html", ".json", ".jsonl", ".md", ".svg", ".txt", ".yaml", ".yml")
GRACE = 600.0  # seconds on top, for the requests around it

T = TypeVar("T")


@dataclass(frozen=True)
class Upload:
    """What is sent in one commit.

    Args:
        repo: OWNER/NAME, or NAME for the owner of the token; made where it does not exist.
        files: path in the repository -> file, or its content.
        message: of the commit.
        revision: branch; None: main.
        private: whether a repository that is made is private; None: as the owner's settings say.
        repo_type: "model", "dataset" or "space", which is a static one.
        entries: files that the Hub checks by lists of its own, such as those of leaderboards: sent in a commit of their own
            after the others, and where it is refused, that is a hint.
        parent: the commit that the files rest on: refused where the branch has moved since. None: whatever is there.
    """

    repo: str
    files: Mapping[str, Path | bytes]
    message: str
    revision: str | None = None
    private: bool | None = None
    repo_type: str = "model"
    entries: Mapping[str, Path | bytes] = field(default_factory=dict)
    parent: str | None = None

    @property
    def patience(self) -> float:
        """Seconds after which it is given up."""
        size = sum(len(f) if isinstance(f, bytes) else f.stat().st_size for f in self.files.values())
        return GRACE + size / SLOWEST


def create_repository(
    repo: str, token: str | None = None, private: bool | None = None, repo_type: str = "model"
) -> str:
    """Make a repository unless it is there; returns OWNER/NAME.

    Raises:
        HubError: the Hub did not do it.
    """
    sdk = "static" if repo_type == "space" else None
    try:
        api = HfApi(token=token)
        return str(api.create_repo(repo, private=private, repo_type=repo_type, space_sdk=sdk, exist_ok=True).repo_id)
    except (OSError, ValueError, HTTPError) as error:
        raise in_words(error, f"{repo} was not uploaded", token) from None  # its own text may hold what is secret


def check_token(what: str, token: str | None = None) -> None:
    """Refuse a token that the Hub does not know, before anything is done; a Hub that fails is asked again later.

    Args:
        what: the setting that needs it, as the user wrote it.

    Raises:
        HubError: there is none, or the Hub does not know it.
    """
    try:
        within(30, lambda: HfApi(token=token).whoami(), what)
    except (OSError, ValueError, HTTPError) as error:  # among them that there is no token at all
        failure = in_words(error, f"{what} cannot work", token)
        if not failure.temporary:
            raise failure from None


def send(upload: Upload, token: str | None = None) -> CommitInfo:
    """Make the repository where it is missing, and commit all files, trying three times.

    Raises:
        HubError: the Hub did not do it; nothing local has changed.
    """
    commit = _patiently(lambda: _commit(upload, token))
    if upload.entries:
        try:
            _commit(replace(upload, files=upload.entries, message="Entries of leaderboards", parent=None), token)
        except HubError as error:
            names = ", ".join(upload.entries)
            logger.warning(
                f"Everything else is on the Hub; {names}, with which results enter leaderboards, is not: {error}"
            )
    return commit


def _commit(upload: Upload, token: str | None) -> CommitInfo:
    repo = create_repository(upload.repo, token, upload.private, upload.repo_type)
    try:
        operations = [CommitOperationAdd(name, _publishable(name, file)) for name, file in sorted(upload.files.items())]
        return HfApi(token=token).create_commit(
            repo,
            operations,
            commit_message=upload.message,
            revision=upload.revision,
            repo_type=upload.repo_type,
            parent_commit=upload.parent,
        )
    except (OSError, ValueError, HTTPError) as error:
        failure = in_words(error, f"{repo} was not uploaded", token)
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        if upload.parent is not None and status == 412:
            failure.temporary = False  # the branch has moved: another try meets the same
        raise failure from None


def _publishable(name: str, file: Path | bytes) -> Path | bytes:
    """A text without secrets, also one that somebody else has written; anything else as it is."""
    if Path(name).suffix not in TEXTS:
        return file
    content = file if isinstance(file, bytes) else file.read_bytes()
    text = content.decode("utf-8", "surrogateescape")
    cleaned = _json(text) if Path(name).suffix == ".json" else without_secrets(text)
    return file if cleaned == text else cleaned.encode("utf-8", "surrogateescape")


def _json(text: str) -> str:
    """As values: what is taken out of the source may leave no JSON. What is none is a text."""
    try:
        values = json.loads(text)
    except ValueError:
        return without_secrets(text)
    cleaned = without_secrets(values)
    return text if cleaned == values else json.dumps(cleaned, indent=2) + "\n"


def _patiently(call: Callable[[], T]) -> T:
    for wait in WAITS:
        try:
            return call()
        except HubError as error:
            if not error.temporary:
                raise
            pause = max(wait, error.wait or 0.0)
            logger.warning(f"{without_secrets(str(error))} Another try in {pause:g} s.")
            time.sleep(pause)
    return call()
