"""A data set on the Hub, as it is now or at a branch, a tag or a commit of its repository."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
from datasets import DatasetBuilder, DatasetDict, get_dataset_config_names, load_dataset, load_dataset_builder
from datasets.exceptions import DatasetNotFoundError
from datasets.naming import camelcase_to_snakecase
from datasets.packaged_modules.cache.cache import Cache
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name

from hf_ltsam.data.class_names import some
from hf_ltsam.hyperparameters import nearest

_COPY = "cache"  # the builder's name where `datasets` takes the newest copy on the disk, whatever was asked for
_SECONDS = 10  # for one question
_NO_COPY = "Couldn't find cache"  # how it begins where that has another configuration


class MisspelledFolderError(FileNotFoundError):
    """There is no such folder, nor such a data set, but a folder here that it would lie in."""


class RevisionError(FileNotFoundError):
    """There is no such branch, tag or commit, or it cannot be told which commit it is."""


NOT_FOUND = (DatasetNotFoundError, ConnectionError, RevisionError, MisspelledFolderError)  # of `load_from_hub`


def load_from_hub(name: str, dataset_config_name: str | None = None, revision: str | None = None) -> DatasetDict:
    """All splits of one of its configurations.

    Args:
        name: OWNER/NAME.
        dataset_config_name: None: the default one.
        revision: a branch, a tag or a commit; None: the main branch as it is now. Without the Hub the copy that is here: of
            the commit that the revision was when it was last asked for; None: the newest one.

    Raises:
        ValueError: no such configuration.
        RevisionError: no such revision, or without the Hub no copy of it.
        MisspelledFolderError: there is none, and OWNER is a folder here: it is asked for once, and not again and again.
        datasets.exceptions.DatasetNotFoundError, ConnectionError: no such data set, or the Hub cannot be reached.
    """
    entries = entries_beside(name)
    if entries and not _has_copy(name) and not _is_on_hub(name):
        folder, _, rest = name.partition("/")
        close = [f"{folder}/{entry}" for entry in difflib.get_close_matches(rest, entries, 3, 0.8)]
        meant = f"Did you mean {' or '.join(close)}?" if close else f"{folder} has {some(entries)}."
        raise MisspelledFolderError(
            f"there is no such file or folder, nor a data set on the Hub that can be reached. {meant}"
        )
    return _load(name, dataset_config_name, revision)


def _load(name: str, dataset_config_name: str | None, revision: str | None) -> DatasetDict:
    try:
        if revision is None:
            return load_dataset(name, dataset_config_name)
        builder = load_dataset_builder(name, dataset_config_name, revision=revision)
    except DatasetNotFoundError as error:
        if isinstance(error.__cause__, RevisionNotFoundError):
            raise RevisionError(
                f"the data set has no branch, tag or commit {revision!r}.{nearest(str(revision), _revisions(name))} A "
                "commit is stated by all of its 40 digits."
            ) from error
        raise
    except ValueError as error:
        if dataset_config_name is not None and not str(error).startswith(_NO_COPY):
            check_configuration(name, dataset_config_name, get_dataset_config_names(name, revision))
        raise
    if builder.name == _COPY:
        builder = _copy(builder, name, revision)
    builder.download_and_prepare()
    return builder.as_dataset()


def entries_beside(name: str) -> list[str]:
    """What the folder FOLDER has in the place of FOLDER/REST, sorted; nothing where that is here, or there is no FOLDER."""
    folder, slash, _ = name.partition("/")
    if not slash or os.path.exists(name) or not os.path.isdir(folder):  # noqa: PTH110, PTH112  as names too long for a file
        return []
    try:
        return sorted(entry for entry in os.listdir(folder) if not entry.startswith("."))  # noqa: PTH208
    except OSError:
        return []


def _has_copy(name: str) -> bool:
    """Whether an earlier run has brought the data set here."""
    owner, _, title = name.partition("/")
    prepared = Path(datasets.config.HF_DATASETS_CACHE, f"{owner}___{camelcase_to_snakecase(title)}")
    return (
        prepared.is_dir() or Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="dataset")).is_dir()
    )


def _is_on_hub(name: str) -> bool:
    """Whether the Hub has such a data set, by one question; also where it has trouble of its own."""
    try:
        HfApi().dataset_info(name, timeout=_SECONDS)
    except GatedRepoError:
        return True
    except (RepositoryNotFoundError, HFValidationError, OfflineModeIsEnabled):
        return False
    except HfHubHTTPError:
        return True
    except (HTTPError, OSError):  # it cannot be reached
        return False
    return True


def check_configuration(dataset: str, dataset_config_name: str, names: list[str]) -> None:
    """Refuse a configuration that is not among these of a data set."""
    if dataset_config_name not in names:
        raise ValueError(
            f"dataset_config_name={dataset_config_name!r}: {dataset} has no such configuration."
            f"{nearest(dataset_config_name, names)}"
        )


@contextmanager
def stated_as(stated: str) -> Iterator[None]:
    """Says of a data set that `load_from_hub` does not find what was stated, and what to do.

    Args:
        stated: the option and its value, such as "--dataset me/birds".

    Raises:
        FileNotFoundError: it was not found.
    """
    try:
        yield
    except NOT_FOUND as error:
        raise _not_found(stated, error) from error


def _not_found(stated: str, error: Exception) -> FileNotFoundError:
    if isinstance(error, RevisionError | MisspelledFolderError):
        return FileNotFoundError(f"{stated}: {error}")
    if "gated" in str(error):
        return FileNotFoundError(
            f"{stated} is gated on the Hub: ask for access on its page there, then log in (hf auth login, or HF_TOKEN)."
        )
    return FileNotFoundError(
        f"{stated} is neither a file or folder here nor a data set on the Hub that can be reached. A private one needs "
        "a login: hf auth login, or HF_TOKEN."
    )


def _copy(newest: DatasetBuilder, name: str, revision: str) -> DatasetBuilder:
    """The copy on this disk of a revision, where `datasets` takes the newest one, whatever was asked for.

    Args:
        newest: of the configuration that is wanted.
    """
    known = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="dataset"), "refs", revision)
    commit = known.read_text().strip() if known.is_file() else revision
    place = Path(newest.cache_dir)  # OWNER___NAME/CONFIGURATION/VERSION/COMMIT
    if not (place.parent / commit).is_dir():
        copies = ", ".join(sorted(folder.name for folder in place.parent.iterdir() if folder.is_dir()))
        raise RevisionError(
            f"the Hub cannot be reached, and no copy here is known to be {revision!r}. Those here are of commits {copies}, "
            "which can be stated in its place."
        )
    return Cache(
        dataset_name=newest.dataset_name,
        config_name=newest.config.name,
        version=str(newest.config.version),
        hash=commit,
        repo_id=name,
    )


def _revisions(name: str) -> list[str]:
    """Branches and tags; none where they cannot be asked for."""
    try:
        refs = HfApi().list_repo_refs(name, repo_type="dataset")
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError):
        return []
    return [ref.name for ref in (*refs.branches, *refs.tags)]
