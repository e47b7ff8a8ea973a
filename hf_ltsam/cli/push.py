"""`ltsam push` and `ltsam card`: a finished run on the Hub, and its card on the screen."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.utils import validate_repo_id

from hf_ltsam.runs.card import RunFacts, Stated, card_files, model_card, read_facts
from hf_ltsam.runs.folder import EVALUATION, SHARPNESS, RunFolder
from hf_ltsam.runs.hub import Upload, check_publishable, require_network, run_files, send
from hf_ltsam.runs.identity import fingerprint
from hf_ltsam.runs.model import load_run
from hf_ltsam.runs.shift.checkpoint import load_checkpoint


def push_command(words: Sequence[str]) -> None:
    """ltsam push RUN OWNER/NAME."""
    parser = _parser("push", "Upload a finished run: weights, processor, statistics, metrics, recipe, figures, card.")
    parser.add_argument("repo", metavar="OWNER/NAME", help="the repository on the Hub; made where it does not exist")
    parser.add_argument("--private", action="store_true", default=None, help="make a private repository")
    parser.add_argument("--revision", help="branch to upload to (default: main)")
    parser.add_argument("--message", default="Upload of a run", help="of the commit")
    arguments = parser.parse_args(words)
    require_network("ltsam push")
    check_repo_name(arguments.repo)
    check_publishable(arguments.run)
    facts = facts_of(arguments.run)
    results = [name for name, of in ((EVALUATION, facts.evaluation), (SHARPNESS, facts.sharpness)) if of is not None]
    files = {**run_files(arguments.run, results), **card_files(facts, arguments.repo, _stated(arguments))}
    commit = send(Upload(arguments.repo, files, arguments.message, arguments.revision, arguments.private))
    print(f"Published: {commit.commit_url}")
    if arguments.license is None:
        print("The card states no licence: --license apache-2.0, say, does.")


def card_command(words: Sequence[str]) -> None:
    """ltsam card RUN > README.md."""
    parser = _parser("card", "Print the card that `ltsam push` makes for a run.")
    parser.add_argument("--repo", metavar="OWNER/NAME", help="the repository that its code names (default: the folder)")
    arguments = parser.parse_args(words)
    check_publishable(arguments.run)
    print(model_card(facts_of(arguments.run), arguments.repo or arguments.run.as_posix(), _stated(arguments)))


def check_repo_name(name: str) -> None:
    """Refuse what no repository can be called.

    Raises:
        ValueError: saying what a name looks like.
    """
    if name.count("/") != 1:
        raise ValueError(f"{name!r} is no repository on the Hub: its name reads OWNER/NAME.")
    validate_repo_id(name)


def facts_of(run: Path) -> RunFacts:
    """What the run says about itself; results of other weights than it holds now are left out, saying so."""
    folder = RunFolder(run)
    evaluation = _of_these_weights(
        run / EVALUATION,
        folder.evaluation,
        lambda results: results["checkpoint"]["fingerprint"],
        lambda: load_checkpoint(str(run)).fingerprint,
    )
    sharpness = _of_these_weights(
        run / SHARPNESS,
        folder.sharpness,
        lambda results: results["weights_sha256"],
        lambda: fingerprint(load_run(run, trainable=True)),
    )
    return read_facts(run, evaluation, sharpness)


def _of_these_weights(
    place: Path, results: Mapping[str, Any] | None, stated: Callable[[Any], str], current: Callable[[], str]
) -> Mapping[str, Any] | None:
    if results is not None and stated(results) != current():
        print(f"{place} is of other weights than the run has now: it is left out.")
        return None
    return results


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"ltsam {name}", description=description, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", type=Path, help="output folder of a training, or of `ltsam export`")
    parser.add_argument("--license", help="an identifier of the Hub's, such as apache-2.0 (default: none is stated)")
    parser.add_argument("--tags", nargs="+", default=(), metavar="TAG", help="further tags")
    parser.add_argument(
        "--benchmark", metavar="OWNER/NAME", help="data set on the Hub whose leaderboard the results belong to"
    )
    return parser


def _stated(arguments: argparse.Namespace) -> Stated:
    return Stated(arguments.license, tags=tuple(arguments.tags), benchmark=arguments.benchmark)
