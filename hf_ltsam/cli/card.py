"""`ltsam card`: the card of a finished run, on the screen."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_ltsam.cli.options.parser import OptionParser
from hf_ltsam.runs.card import RunFacts, Stated, model_card, read_facts
from hf_ltsam.runs.folder import EVALUATION, SHARPNESS, RunFolder
from hf_ltsam.runs.hub import check_publishable
from hf_ltsam.runs.identity import fingerprint
from hf_ltsam.runs.model import load_run
from hf_ltsam.runs.shift.checkpoint import load_checkpoint

NOTHING_STATED = Stated()


def main(words: Sequence[str]) -> None:
    """`ltsam card RUN > README.md`."""
    parser = run_parser("card", "Print the card that `ltsam push` makes for a run.")
    parser.add_argument("--repo", metavar="OWNER/NAME", help="the repository that its code names (default: the folder)")
    arguments = parser.parse_args(words)
    print(card(arguments.run, arguments.repo, stated_by(arguments)))


def card(run: Path, repo: str | None = None, stated: Stated = NOTHING_STATED) -> str:
    """The card that `push` makes for a run, as Markdown.

    Args:
        repo: the repository that its code names; None: the folder.
        stated: licence, tags and benchmark, which a run does not know.
    """
    check_publishable(run)
    return str(model_card(facts_of(run), repo or run.as_posix(), stated))


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


def run_parser(command: str, description: str) -> argparse.ArgumentParser:
    """A run, and what a card states that no run knows: the options that `ltsam card` and `ltsam push` share."""
    parser = OptionParser(prog=f"ltsam {command}", description=description)
    parser.add_argument("run", metavar="RUN", type=Path, help="output folder of a training, or of `ltsam export`")
    parser.add_argument("--license", help="an identifier of the Hub's, such as apache-2.0 (default: none is stated)")
    parser.add_argument("--tags", nargs="+", default=(), metavar="TAG", help="further tags")
    parser.add_argument(
        "--benchmark",
        metavar="OWNER/NAME[:CONFIGURATION]",
        help="data set on the Hub whose leaderboard the results belong to",
    )
    return parser


def stated_by(arguments: argparse.Namespace) -> Stated:
    """Those options as a value."""
    return Stated(arguments.license, tags=tuple(arguments.tags), benchmark=arguments.benchmark)


def _of_these_weights(
    place: Path, results: Mapping[str, Any] | None, stated: Callable[[Any], str], current: Callable[[], str]
) -> Mapping[str, Any] | None:
    """Results, if they are of the weights that the run has now."""
    if results is not None and stated(results) != current():
        print(f"{place} is of other weights than the run has now: it is left out.", file=sys.stderr)
        return None
    return results
