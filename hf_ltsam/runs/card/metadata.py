"""The machine-readable side of a card: its YAML header with the model index, and the entries of leaderboards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from huggingface_hub import (
    EvalResult,
    EvalResultEntry,
    ModelCardData,
    constants,
    eval_result_entries_to_yaml,
)

from hf_ltsam.runs.card.facts import RunFacts
from hf_ltsam.runs.card.tables import accuracies, views
from hf_ltsam.runs.folder import RECORD
from hf_ltsam.runs.record import split_revision
from hf_ltsam.runs.shift.results import is_whole

# name in the results -> identifier of the metric on the Hub, and in words
METRICS = {
    "overall": ("accuracy", "Accuracy"),
    "balanced": ("balanced_accuracy", "Balanced accuracy"),
    "many": ("accuracy_many", "Accuracy, classes with many training images"),
    "medium": ("accuracy_medium", "Accuracy, classes with a medium number of training images"),
    "few": ("accuracy_few", "Accuracy, classes with few training images"),
}


@dataclass(frozen=True)
class Stated:
    """What only the author of a model can say.

    Args:
        license: an identifier of the Hub's, such as apache-2.0; None: none is stated.
        language, tags, datasets: further metadata; data sets by their names on the Hub.
        tasks: as the Hub names them; none: the task that the model's configuration shows.
        dataset_names, dataset_args: of the training data, in words, for data sets that have no name on the Hub.
        base_model: where the run itself does not say what it started from.
        benchmark: OWNER/NAME of a data set with an `eval.yaml` of ours, whose leaderboard the results belong to; of a
            configuration other than its default one, OWNER/NAME:r10.
    """

    license: str | None = None
    language: str | None = None
    tags: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    dataset_names: tuple[str, ...] = ()
    dataset_args: tuple[str, ...] = ()
    base_model: str | None = None
    benchmark: str | None = None


def needs_import(facts: RunFacts) -> bool:
    """Whether transformers and peft cannot load it alone: our model types and adapters carry our name."""
    kinds = (facts.config.get("model_type"), (facts.adapter or {}).get("peft_type"))
    return any(str(kind).lower().startswith("hf_ltsam") for kind in kinds)


def card_data(facts: RunFacts, model_name: str, stated: Stated) -> ModelCardData:
    """The header, without fields that would be empty."""
    library = "hf_ltsam" if needs_import(facts) else "peft" if facts.adapter is not None else "transformers"
    method = (facts.method or {}).get("name", "sgd")
    sharpness_aware = [] if method == "sgd" else ["sharpness-aware-minimization"]
    datasets = list(dict.fromkeys(filter(None, (facts.data_set, *stated.datasets))))
    return ModelCardData(
        license=stated.license,
        language=stated.language,
        library_name=library,
        pipeline_tag=stated.tasks[0] if stated.tasks else facts.task,
        base_model=stated.base_model or facts.trained_from,
        datasets=datasets or None,
        tags=["hf_ltsam", "long-tailed", *sharpness_aware, method, *stated.tags, *stated.tasks[1:]],
        model_name=model_name,
        eval_results=eval_results(facts, stated) or None,
    )


def eval_results(facts: RunFacts, stated: Stated) -> list[EvalResult]:
    """The model index: the numbers of the record and of the evaluation, fractions in [0, 1] but for mCE.

    A number there stands for a whole test set: sets of which a part was measured are left out.
    """
    results, task = [], stated.tasks[0] if stated.tasks else facts.task or "classification"
    if facts.record is not None:
        data = facts.record.data
        drawn = {key: data[key] for key in ("imbalance_ratio", "profile", "split_seed") if data.get("imbalance_ratio")}
        where = data_name(facts)
        result = facts.record.results["test"]
        results += _of_set(result, task, where, drawn or None, facts.samples, facts.data_commit)
        if result.get("ece") is not None:
            name = "Expected calibration error"
            ece = float(result["ece"])
            results.append(_one("expected_calibration_error", name, ece, task, where, drawn or None, facts.data_commit))
    for name, of_set in ((facts.evaluation or {}).get("sets") or {}).items():
        finished = "result" in of_set or "summary" in of_set
        if not finished or not is_whole(of_set):
            continue
        if "result" in of_set:
            where, revision = split_revision(name)
            results += _of_set(of_set["result"], task, where, None, facts.samples, revision)
        else:
            results += _under_corruption(of_set["summary"], task, name)
    return results


def _under_corruption(summary: Mapping[str, Any], task: str, where: str) -> list[EvalResult]:
    """The mean error, and where there is a baseline, the mean of the errors relative to it."""
    of = {"corruptions": len(summary["errors"]), "severities": ", ".join(map(str, summary["severities"]))}
    mean = float(summary["mean_error"])
    results = [_one("mean_error_under_corruption", "Mean error under corruption", mean, task, where, of)]
    if (mce := summary.get("mce")) is not None:
        name = f"mCE in %, relative to {summary['relative_to']}"
        results.append(_one("mean_corruption_error", name, float(mce), task, where, of))
    return results


def leaderboard_entries(facts: RunFacts, repo: str, stated: Stated) -> str | None:
    """The content of `.eval_results/*.yaml`, in percent; None where there is no data set on the Hub that it belongs to."""
    if facts.record is None or (stated.benchmark or facts.data_set) is None:
        return None
    trained_on = f"{facts.data_set}:{facts.record.data.get('dataset_config_name') or ''}"
    benchmark, _, configuration = (stated.benchmark or trained_on).partition(":")
    prefix = configuration and f"{configuration}_"
    source = f"{constants.ENDPOINT}/{repo}/blob/main/{RECORD}"
    entries = [
        EvalResultEntry(
            dataset_id=benchmark,
            task_id=prefix + METRICS[name][0],
            value=round(100 * value, 2),
            source_url=source,
            source_name=RECORD,
            dataset_revision=facts.data_commit if benchmark == facts.data_set else None,
            notes=f"seed {facts.record.seed}, {when(facts)}",
        )
        for name, value in accuracies(facts.record.results["test"]).items()
    ]
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False)


def when(facts: RunFacts) -> str:
    """Which weights the results belong to, and which views of an image they saw."""
    if facts.record is None:
        return ""
    return facts.record.weights + views(facts.record.data)


def data_name(facts: RunFacts) -> str:
    """The name of the training data on the Hub, or the end of their path."""
    data = facts.record.data if facts.record else {}
    name = str(data.get("dataset") or data.get("name") or data.get("builder") or "training data").rstrip("/")
    return name if facts.data_set else name.rpartition("/")[2]


def _of_set(
    result: Mapping[str, Any],
    task: str,
    where: str,
    drawn: dict[str, Any] | None,
    samples: str,
    revision: str | None = None,
) -> list[EvalResult]:
    return [
        _one(METRICS[name][0], METRICS[name][1].replace("images", samples), value, task, where, drawn, revision)
        for name, value in accuracies(result).items()
    ]


def _one(
    metric: str,
    name: str,
    value: float,
    task: str,
    where: str,
    drawn: dict[str, Any] | None,
    revision: str | None = None,
) -> EvalResult:
    return EvalResult(
        task_type=task,
        dataset_type=where,
        dataset_name=where,
        metric_type=metric,
        metric_value=value,
        metric_name=name,
        dataset_split="test",
        dataset_revision=revision,
        dataset_args=drawn,
    )
