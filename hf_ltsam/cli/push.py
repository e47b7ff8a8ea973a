"""`ltsam push`: a finished run on the Hub, with its card; or its report as a static Space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import CommitInfo, constants
from huggingface_hub.utils import validate_repo_id

from hf_ltsam.cli.card import NOTHING_STATED, facts_of, run_parser, stated_by
from hf_ltsam.cli.report import report
from hf_ltsam.runs.card import Stated, card_files, leaderboard_files
from hf_ltsam.runs.folder import EVALUATION, SHARPNESS
from hf_ltsam.runs.hub import Upload, check_publishable, require_network, run_files, send
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
        ValueError: no such name of a repository, or a run that is not finished.
        HubError: the Hub cannot be reached, or refuses.
    """
    require_network("ltsam push")
    check_repo_name(repo)
    check_publishable(run)
    facts = facts_of(run)
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


def check_repo_name(name: str) -> None:
    """Refuse what no repository can be called.

    Raises:
        ValueError: saying what a name looks like.
    """
    if name.count("/") != 1:
        raise ValueError(f"{name!r} is no repository on the Hub: names there have the form OWNER/NAME.")
    validate_repo_id(name)
