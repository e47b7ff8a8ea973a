"""A data set on the Hub, as it is now or at a branch, a tag or a commit of its repository."""

from __future__ import annotations

from datasets import DatasetBuilder, DatasetDict, get_dataset_config_names, load_dataset, load_dataset_builder
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RevisionNotFoundError

from hf_ltsam.hyperparameters import nearest

_COPY = "cache"  # the builder's name where `datasets` takes the newest copy on the disk, whatever was asked for


class RevisionError(FileNotFoundError):
    """There is no such branch, tag or commit, or it cannot be told which commit it is."""


def load_from_hub(name: str, dataset_config_name: str | None = None, revision: str | None = None) -> DatasetDict:
    """All splits of one of its configurations.

    Args:
        name: OWNER/NAME.
        dataset_config_name: None: the default one.
        revision: a branch, a tag or a commit; None: the main branch as it is now, or the newest copy here without the Hub.

    Raises:
        ValueError: no such configuration.
        RevisionError: no such revision, or without the Hub none that is known to be here.
        datasets.exceptions.DatasetNotFoundError, ConnectionError: no such data set, or the Hub cannot be reached.
    """
    try:
        if dataset_config_name is not None:
            check_configuration(name, dataset_config_name, get_dataset_config_names(name, revision))
        if revision is not None:
            revision = _commit(load_dataset_builder(name, dataset_config_name, revision=revision), revision)
    except DatasetNotFoundError as error:
        if isinstance(error.__cause__, RevisionNotFoundError):
            raise RevisionError(
                f"the data set has no branch, tag or commit {revision!r}.{nearest(str(revision), _revisions(name))} A "
                "commit is stated by all of its 40 digits."
            ) from error
        raise
    return load_dataset(name, dataset_config_name, revision=revision)


def check_configuration(dataset: str, dataset_config_name: str, names: list[str]) -> None:
    """Refuse a configuration that is not among these of a data set."""
    if dataset_config_name not in names:
        raise ValueError(
            f"dataset_config_name={dataset_config_name!r}: {dataset} has no such configuration."
            f"{nearest(dataset_config_name, names)}"
        )


def not_reached(stated: str, error: Exception) -> FileNotFoundError:
    """What to say of a data set that `datasets` does not find.

    Args:
        stated: the option and its value, such as "--dataset me/birds".
        error: of `load_from_hub`.
    """
    if isinstance(error, RevisionError):
        return FileNotFoundError(f"{stated}: {error}")
    if "gated" in str(error):
        return FileNotFoundError(
            f"{stated} is gated on the Hub: ask for access on its page there, then log in (hf auth login, or HF_TOKEN)."
        )
    return FileNotFoundError(
        f"{stated} is neither a folder here nor a data set on the Hub that can be reached. A private one needs a login: hf "
        "auth login, or HF_TOKEN."
    )


def _commit(builder: DatasetBuilder, revision: str) -> str:
    """The commit that a revision is now."""
    commit = str(builder.hash)
    if builder.name == _COPY and commit != revision:
        raise RevisionError(
            f"the Hub cannot be reached, so the copy here is not known to be {revision!r}. It is of the commit {commit}, "
            "which can be stated in its place."
        )
    return commit


def _revisions(name: str) -> list[str]:
    """Branches and tags; none where they cannot be asked for."""
    try:
        refs = HfApi().list_repo_refs(name, repo_type="dataset")
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError):
        return []
    return [ref.name for ref in (*refs.branches, *refs.tags)]
