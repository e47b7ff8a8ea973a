"""`ltsam push`: a finished run on the Hub, with its card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import CommitInfo
from huggingface_hub.utils import validate_repo_id

from hf_ltsam.cli.card import NOTHING_STATED, facts_of, run_parser, stated_by
from hf_ltsam.runs.card import Stated, card_files, leaderboard_files
from hf_ltsam.runs.folder import EVALUATION, SHARPNESS
from hf_ltsam.runs.hub import Upload, check_publishable, require_network, run_files, send

MESSAGE = "Upload of a run"


def main(words: Sequence[str]) -> None:
    """`ltsam push RUN OWNER/NAME`."""
    parser = run_parser(
        "push", "Upload a finished run: weights, processor, statistics, metrics, recipe, figures, card."
    )
    parser.add_argument("repo", metavar="OWNER/NAME", help="the repository on the Hub; made where it does not exist")
    parser.add_argument("--private", action="store_true", default=None, help="make a private repository")
    parser.add_argument("--revision", help="branch to upload to (default: main)")
    parser.add_argument("--message", default=MESSAGE, help="of the commit")
    arguments = parser.parse_args(words)
    stated = stated_by(arguments)
    commit = push(arguments.run, arguments.repo, stated, arguments.private, arguments.revision, arguments.message)
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


def check_repo_name(name: str) -> None:
    """Refuse what no repository can be called.

    Raises:
        ValueError: saying what a name looks like.
    """
    if name.count("/") != 1:
        raise ValueError(f"{name!r} is no repository on the Hub: names there have the form OWNER/NAME.")
    validate_repo_id(name)
