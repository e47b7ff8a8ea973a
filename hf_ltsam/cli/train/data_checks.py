"""Settings of the data that cannot work, refused before anything is loaded."""

from __future__ import annotations

from pathlib import Path

from dataset_builders.catalogue import sets_of
from dataset_builders.long_tail import check_imbalance_ratio, profile_named
from dataset_builders.sources.published_set import ListedSet
from dataset_builders.tables import is_table
from hf_ltsam.cli.train.settings import DataArguments
from hf_ltsam.cli.train.splits import CIFAR, IMAGE, TASKS, builder_of, builders
from hf_ltsam.cli.user_errors import check_choice
from hf_ltsam.data.in_memory.images import CUSTOMARY_NORMALISATION
from hf_ltsam.runs.record import hub_name, split_revision


def check_data(arguments: DataArguments) -> None:
    """Refuse what can be refused without loading anything.

    Raises:
        FileNotFoundError: the data set can only be a folder, and is not there.
        ValueError: no data set, a file in place of a folder, or a setting that does not exist or is out of its range.
    """
    source = arguments.dataset
    if source is None:
        raise ValueError(
            "No data set: give --dataset (a name on the Hub, a folder or a table), or --config with a recipe."
        )
    check_choice("task", arguments.task, TASKS)
    if arguments.task == IMAGE and arguments.text_column is not None:
        raise ValueError(f"--text_column {' '.join(arguments.text_column)} is for texts: leave out --task image.")
    if Path(source).is_file() and not is_table(source):
        raise ValueError(
            f"--dataset {source} is a file, and no table (CSV, TSV, JSON, JSON lines or Parquet): give the folder that it "
            "lies in."
        )
    if not Path(source).exists() and (source.count("/") > 1 or source.startswith((".", "/", "~"))):
        raise FileNotFoundError(
            f"--dataset {source}: there is no such folder, and names on the Hub have the form OWNER/NAME."
        )
    if arguments.builder != CIFAR:
        check_choice("builder", arguments.builder, (*(name for name in builders() if name != CIFAR), "auto"))
    if (arguments.held_out_per_class or 0) < 0:
        raise ValueError(f"--held_out_per_class {arguments.held_out_per_class}: it cannot be negative.")
    check_choice("normalisation", arguments.normalisation, (*CUSTOMARY_NORMALISATION, "auto"))
    profile_named(arguments.profile)
    if arguments.dataset_config_name is not None and builder_of(arguments) != "hub":
        raise ValueError(
            f"--dataset_config_name {arguments.dataset_config_name}: images of --builder {builder_of(arguments)} have no "
            "configurations. Leave it out."
        )
    _check_revision(arguments)
    _check_lists(arguments)
    if arguments.imbalance_ratio is not None:
        check_imbalance_ratio(arguments.imbalance_ratio)
    elif arguments.largest_class is not None:
        raise ValueError(f"--largest_class {arguments.largest_class} is a part of a drawn tail: add --imbalance_ratio.")
    if arguments.reserve is not None and not 0 < arguments.reserve < 1:
        raise ValueError(
            f"--reserve {arguments.reserve:g}: a share of the training samples, so it lies between 0 and 1."
        )


def _check_revision(arguments: DataArguments) -> None:
    name, revision = split_revision(str(arguments.dataset))
    if revision is not None:
        raise ValueError(
            f"--dataset {arguments.dataset}: the revision has an option of its own: --dataset {name} --dataset_revision "
            f"{revision}."
        )
    revision = arguments.dataset_revision
    if revision is None:
        return
    if not revision.strip():
        raise ValueError("--dataset_revision is empty: name a branch, a tag or a commit, or leave it out.")
    if hub_name(arguments.dataset) is None:
        kind = "a folder or file here" if Path(str(arguments.dataset)).exists() else "no OWNER/NAME"
        raise ValueError(
            f"--dataset_revision {revision}: --dataset {arguments.dataset} is {kind}, and only data sets on the Hub have "
            "revisions. Leave it out."
        )


def _check_lists(arguments: DataArguments) -> None:
    builder, listed = arguments.builder, sets_of(ListedSet)
    if builder in listed and arguments.imbalance_ratio is not None:
        raise ValueError(f"--imbalance_ratio: the long tail of {builder} is that of its published list. Leave it out.")
    if builder not in listed and (arguments.lists is not None or arguments.own_lists):
        raise ValueError(f"--lists and --own_lists are for --builder {', '.join(listed)}, not {builder}.")
