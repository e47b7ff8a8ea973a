"""`ltsam push`: a finished run on the Hub, with its card; or its report as a static Space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets import ClassLabel, DatasetInfo
from datasets.info import DatasetInfosDict
from huggingface_hub import CommitInfo, constants, hf_hub_download
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import validate_repo_id

from dataset_builders.configurations import configuration_names, header_of
from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.cli.card import NOTHING_STATED, facts_of, run_parser, stated_by
from hf_ltsam.cli.report import report
from hf_ltsam.data.class_names import comparable, some
from hf_ltsam.hyperparameters import nearest
from hf_ltsam.runs.card import RunFacts, Stated, card_files, leaderboard_files
from hf_ltsam.runs.folder import CARD, EVALUATION, SHARPNESS
from hf_ltsam.runs.hub import Upload, check_publishable, in_words, require_network, run_files, send
from hf_ltsam.runs.record import RunRecord
from hf_ltsam.runs.report.report import FILE_NAME
from hf_ltsam.runs.report.space import space_files

MESSAGE, REPORT_MESSAGE = "Upload of a run", "Upload of a report"


def main(words: Sequence[str]) -> None:
    """`ltsam push RUN OWNER/NAME`, or with `--report` its report."""
    parser = run_parser(
        "push", "Upload a finished run: weights, processor, statistics, metrics, recipe, figures, card."
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="upload the report in place of the run, as a static Space; RUN is then the folder of a report, a run, or a "
        "folder of runs, of which one is written first",
    )
    parser.add_argument("repo", metavar="OWNER/NAME", help="the repository on the Hub; made where it does not exist")
    parser.add_argument("--private", action="store_true", default=None, help="make a private repository")
    parser.add_argument("--revision", help="branch to upload to (default: main)")
    parser.add_argument("--message", help="of the commit")
    arguments = parser.parse_args(words)
    stated, message = stated_by(arguments), arguments.message or (REPORT_MESSAGE if arguments.report else MESSAGE)
    if arguments.report:
        if stated.benchmark is not None:
            raise ValueError("--benchmark is of a model's results; a report has none. Leave it out.")
        commit = push_report(arguments.run, arguments.repo, stated, arguments.private, arguments.revision, message)
        print(f"Published: {commit.commit_url}")
        print(f"The report: {constants.ENDPOINT}/spaces/{arguments.repo}")
        return
    commit = push(arguments.run, arguments.repo, stated, arguments.private, arguments.revision, message)
    print(f"Published: {commit.commit_url}")
    if stated.license is None:
        print("The card states no licence: --license apache-2.0, for example, does.")


def push(
    run: Path,
    repo: str,
    stated: Stated = NOTHING_STATED,
    private: bool | None = None,
    revision: str | None = None,
    message: str = MESSAGE,
) -> CommitInfo:
    """Upload a finished run in one commit.

    Args:
        repo: OWNER/NAME on the Hub; made where it does not exist.
        stated: licence, tags and benchmark of the card.
        private: of a repository that is made; None: as the owner's default has it.
        revision: branch; None: main.
        message: of the commit.

    Raises:
        ValueError: no such name of a repository, a run that is not finished, or a benchmark of other data.
        HubError: the Hub cannot be reached, or refuses.
    """
    require_network("ltsam push")
    check_repo_name(repo)
    check_publishable(run)
    facts = facts_of(run)
    if stated.benchmark is not None:
        check_benchmark(facts, stated.benchmark)
    of_the_run = {EVALUATION: facts.evaluation, SHARPNESS: facts.sharpness}
    results = [name for name, values in of_the_run.items() if values is not None]
    files = {**run_files(run, results), **card_files(facts, repo, stated)}
    entries = leaderboard_files(facts, repo, stated)
    return send(Upload(repo, files, message, revision, private, entries=entries))


def push_report(
    run: Path,
    repo: str,
    stated: Stated = NOTHING_STATED,
    private: bool | None = None,
    revision: str | None = None,
    message: str = REPORT_MESSAGE,
) -> CommitInfo:
    """Upload a report as a static Space, in one commit.

    Args:
        run: the folder of a report; or a run, or a folder of runs, of which one is written first.
        repo, private, revision, message: as in `push`.
        stated: licence and tags of the card.

    Raises:
        FileNotFoundError, ValueError: no such name of a repository, or neither a report nor a run.
        HubError: the Hub cannot be reached, or refuses.
    """
    require_network("ltsam push --report")
    check_repo_name(repo)
    folder = run if (run / FILE_NAME).is_file() else report([run])[0].parent
    files = space_files(folder, repo.rpartition("/")[2], stated.license, stated.tags)
    return send(Upload(repo, files, message, revision, private, repo_type="space"))


def check_benchmark(facts: RunFacts, benchmark: str) -> None:
    """Refuse to enter results on the leaderboard of other data: classes, training and test samples must be the run's.

    Args:
        benchmark: OWNER/NAME, or OWNER/NAME:CONFIGURATION.

    Raises:
        ValueError: what differs, or that the run has no results, or the card of the data set says too little.
        HubError: that card cannot be read.
    """
    if facts.record is None:
        raise ValueError(f"{facts.folder} has no results, which --benchmark {benchmark} would enter: leave it out.")
    repo, _, configuration = benchmark.partition(":")
    check_repo_name(repo)
    described = _described(repo, benchmark)
    if configuration and configuration not in described:
        raise ValueError(
            f"--benchmark {benchmark}: {repo} has no configuration {configuration!r}.{nearest(configuration, described)}"
        )
    data = described[configuration or next(iter(described))]
    if difference := _difference(facts, facts.record, data):
        raise ValueError(f"--benchmark {benchmark} {difference}: the results do not belong on its leaderboard.")


def _described(repo: str, benchmark: str) -> dict[str, DatasetInfo]:
    """Configuration -> its classes and splits, as the card of the data set says; the default one first."""
    try:
        card = hf_hub_download(repo, CARD, repo_type="dataset")
    except (OSError, ValueError, HTTPError) as error:
        raise in_words(error, f"--benchmark {benchmark} cannot be compared with the run") from None
    header = header_of(Path(card))
    infos = DatasetInfosDict.from_dataset_card_data(header)
    described = {name: infos[name] for name in configuration_names(header) if name in infos} or dict(infos)
    if not described:
        raise ValueError(
            f"--benchmark {benchmark}: the card of {repo} does not say which classes and splits it has (dataset_info), so "
            "it cannot be told whether the results belong there."
        )
    return described


def _difference(facts: RunFacts, record: RunRecord, data: DatasetInfo) -> str:
    """What tells the data of a run from a data set; empty where they are the same as far as that is known."""
    labels = [tuple(f.names) for f in (data.features or {}).values() if isinstance(f, ClassLabel)]
    counts = ClassStatistics.from_dict(record.class_statistics)
    own = facts.class_names
    names = next((each for each in labels if own is not None and _same_names(own, each)), (labels or [()])[0])
    if len(names) != counts.num_classes or (own is not None and not _same_names(own, names)):
        named = some(own) if own else "without names"
        return f"has {len(names)} classes ({some(names)}) and the run {counts.num_classes} ({named})"
    sizes = {split: info.num_examples or 0 for split, info in (data.splits or {}).items()}
    tested, trained = record.results["test"]["samples"], counts.total
    if tested not in (samples for split, samples in sizes.items() if split != "train"):
        return f"has {sizes.get('test', 0):,} test {record.samples}, the run was tested on {tested:,}"
    train, reserve = sizes.get("train", 0), record.data.get("reserve") or 0.0
    least = (1 - reserve) * train - counts.num_classes if reserve else train  # of every class at least one is held back
    if not least <= trained <= train:
        return f"has {train:,} training {record.samples}, the run was trained on {trained:,}"
    return ""


def _same_names(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether they are the same classes, in any order and spelling."""
    spelling = comparable(first, second)
    return spelling is not None and set(map(spelling, first)) == set(map(spelling, second))


def check_repo_name(name: str) -> None:
    """Refuse what no repository can be called.

    Raises:
        ValueError: saying what a name looks like.
    """
    if name.count("/") != 1:
        raise ValueError(f"{name!r} is no repository on the Hub: names there have the form OWNER/NAME.")
    validate_repo_id(name)
