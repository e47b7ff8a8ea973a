"""The card of a run's repository, and the files that go with it."""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from hf_ltsam.runs.card.facts import RunFacts
from hf_ltsam.runs.card.metadata import Stated, card_data, leaderboard_entries, needs_import, when
from hf_ltsam.runs.card.sentences import (
    calibrated_by,
    conformal_sentence,
    construction,
    cost,
    data_as_stated,
    data_sentence,
    installation,
    limits,
    loading,
    method_words,
    progress,
    second_stage,
    seeds_sentence,
    summary,
)
from hf_ltsam.runs.card.tables import (
    calibration_table,
    classes_table,
    corrupted_tables,
    curvature_table,
    groups_table,
    hyperparameters_table,
    results_table,
    shifted_table,
)
from hf_ltsam.runs.class_frequencies import curve_png
from hf_ltsam.runs.escaping import markdown_block, markdown_code, markdown_text, visible
from hf_ltsam.runs.folder import (
    CARD,
    EVALUATION,
    EVALUATION_RESULTS,
    RECORD,
    SHARPNESS,
    SHARPNESS_RESULTS,
    RunFolder,
    seed_folders,
)
from hf_ltsam.runs.record import untested
from hf_ltsam.runs.secrets import without_secrets

FIGURE = "class_counts.png"
ENTRIES = ".eval_results/results.yaml"


def model_card(facts: RunFacts, repo: str, stated: Stated | None = None, model_name: str | None = None) -> ModelCard:
    """The card of a run.

    Args:
        facts: as `read_facts` finds them in the run's folder; every number is theirs.
        repo: OWNER/NAME, or the folder, that the lines for loading name.
        stated: by the author.
        model_name: the title; the name of the repository where it is None.
    """
    stated = Stated() if stated is None else stated
    name = model_name or repo.rstrip("/").rpartition("/")[2]
    data = card_data(facts, name, stated)
    template = files(__package__).joinpath("template.md").read_text(encoding="utf-8")
    values = _values(facts, repo, stated)
    content = _filled(template, card_data=data.to_yaml(), model_name=markdown_text(name), **values)
    return ModelCard(without_secrets(visible(content, lines=True)))


def card_files(
    facts: RunFacts, repo: str, stated: Stated | None = None, model_name: str | None = None
) -> dict[str, Path | bytes]:
    """path in the repository -> content: the card, its figure, the other seeds' records, the recipe."""
    stated = Stated() if stated is None else stated
    content: dict[str, Path | bytes] = {CARD: str(model_card(facts, repo, stated, model_name)).encode()}
    if facts.statistics is not None and _can_draw():
        content[FIGURE] = curve_png(facts.statistics, f"Training {facts.samples} per class", facts.samples)
    for record in facts.other_seeds:
        siblings = seed_folders(facts.folder.resolve().parent)  # seed01, say: the name need not be that of the seed
        folder = next(folder for folder in siblings if RunFolder(folder).record == record)
        content[f"other_seeds/{folder.name}/{RECORD}"] = folder / RECORD
    return content


def leaderboard_files(facts: RunFacts, repo: str, stated: Stated | None = None) -> dict[str, Path | bytes]:
    """path in the repository -> content: the entries of a leaderboard, where there is a data set that they belong to."""
    entries = leaderboard_entries(facts, repo, Stated() if stated is None else stated)
    return {} if entries is None else {ENTRIES: entries.encode()}


def _values(facts: RunFacts, repo: str, stated: Stated) -> dict[str, Any]:
    record, statistics = facts.record, facts.statistics
    adapter = facts.adapter or {}
    versions = record.versions if record else {}
    measured_loss = (facts.sharpness or {}).get("loss") or {}
    return {
        "record": record is not None,
        "progress": progress(facts),
        "summary": summary(facts),
        "loading": markdown_block(loading(facts, repo), "python"),
        "needs_import": needs_import(facts),
        "installation": installation(),
        "kind": markdown_code(str(adapter.get("peft_type") or facts.config.get("model_type"))),
        "library": "peft" if adapter else "transformers",
        "adapter": bool(adapter),
        "trunk": markdown_code(facts.trained_from) if facts.trained_from else "",
        "one_channel": facts.config.get("num_channels") == 1,
        "statistics": statistics is not None,
        "samples": facts.samples,
        "figure": FIGURE if _can_draw() else None,
        "data_sentence": data_sentence(facts, statistics) if statistics else "",
        "data_as_stated": data_as_stated(stated.dataset_names, stated.dataset_args),
        "groups_table": groups_table(statistics, facts.samples) if statistics else "",
        "construction": construction(record),
        "second_stage": second_stage(facts),
        **method_words(facts),
        "hyperparameters_table": hyperparameters_table(facts),
        "results_table": results_table(facts),
        "test_images": f"{record.results['test']['samples']:,}" if record else "",
        "when": markdown_text(when(facts)),
        "untested": " ".join(untested(record)) if record else "",
        "seeds_sentence": seeds_sentence(facts),
        "classes_table": classes_table(facts),
        "calibration_table": calibration_table(facts),
        "calibrated_by": calibrated_by(facts),
        "conformal_sentence": conformal_sentence(facts),
        "shifted_table": shifted_table(facts.evaluation, facts.samples),
        "corrupted": corrupted_tables(facts.evaluation),
        "curvature_table": curvature_table(facts.sharpness, facts.samples),
        "curvature_loss": markdown_code(measured_loss.get("name", "the loss").replace("_", " ")),
        "cost": cost(facts),
        "command": markdown_block(record.command) if record and record.command else "",
        "program": "decouple" if facts.second_stage else "train",
        "versions": markdown_text(", ".join(f"{package} {version}" for package, version in versions.items())),
        "limits": limits(facts, stated.license),
        "other_files": _other_files(facts),
    }


def _other_files(facts: RunFacts) -> str:
    """Where the numbers are that are not in the record of this run."""
    files = ["`other_seeds`"] if facts.other_seeds else []
    files += [f"`{EVALUATION}/{EVALUATION_RESULTS}`"] if facts.evaluation else []
    files += [f"`{SHARPNESS}/{SHARPNESS_RESULTS}`"] if facts.sharpness else []
    return "".join(f", {file}" for file in files)


def _can_draw() -> bool:
    """Servers that only train may lack it."""
    return find_spec("matplotlib") is not None


def _filled(template: str, **values: Any) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return re.sub(r"\n{3,}", "\n\n", environment.from_string(template).render(**values))
