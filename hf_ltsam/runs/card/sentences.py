"""The sentences of a card that depend on the run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, metadata
from typing import Any

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.hyperparameters import title_of
from hf_ltsam.losses import LOSSES
from hf_ltsam.methods import METHODS
from hf_ltsam.runs.card.citations import bibtex
from hf_ltsam.runs.card.facts import RunFacts
from hf_ltsam.runs.card.metadata import data_name, needs_import
from hf_ltsam.runs.escaping import markdown_block, markdown_code, markdown_docstring, markdown_text, visible
from hf_ltsam.runs.folder import RECIPE, RunFolder
from hf_ltsam.runs.record import RunRecord, shortcomings


def summary(facts: RunFacts) -> str:
    """What it is, in one sentence."""
    classifier = {"image-classification": "an image classifier", "text-classification": "a text classifier"}
    kind = classifier.get(facts.task or "", "a classifier")
    kind = f"An adapter for {kind}" if facts.adapter else kind.capitalize()
    classes = f" of {len(facts.class_names)} classes" if facts.class_names else ""
    data = ""
    if facts.statistics is not None:
        counts = facts.statistics.counts
        data = (
            f" trained on long-tailed data ({facts.statistics.total:,} {facts.samples}: {max(counts):,} of the largest "
            f"class, {min(counts):,} of the smallest, imbalance ratio {facts.statistics.imbalance_ratio:.4g})"
        )
    how = f" with {_training(facts)}" if facts.method else ""
    start = f", starting from {markdown_code(facts.trained_from)}" if facts.trained_from else ""
    return f"{kind}{classes},{data}{how}{start}." if data or how else f"{kind}{classes}."


def _training(facts: RunFacts) -> str:
    """Method and loss; of a second stage those of the first one, then the stage."""
    if not facts.second_stage:
        return _method_and_loss(facts.method, facts.loss)
    first = facts.second_stage.get("first_stage") or {}
    before = f"{_method_and_loss(first['method'], first.get('loss'))}, then " if "method" in first else ""
    return f"{before}the second stage {_stage_title(facts.second_stage)}"


def _method_and_loss(method: Mapping[str, Any] | None, loss: Mapping[str, Any] | None) -> str:
    return f"{_method_title(method)} and the loss {markdown_text((_name(loss) or 'cross_entropy').replace('_', ' '))}"


def _method_title(method: Mapping[str, Any] | None) -> str:
    """Without a perturbation the method says nothing of the optimizer."""
    name = _name(method)
    return "plain gradients" if name == "sgd" else markdown_text(title_of(METHODS, name))


def _stage_title(stage: Mapping[str, Any]) -> str:
    return markdown_text(str(stage.get("title", stage["name"])))


def second_stage(facts: RunFacts) -> str:
    """What the second stage was, and on what; empty where there was none."""
    stage = facts.second_stage
    if not stage:
        return ""
    source = f" ({markdown_docstring(stage['source'])})" if stage.get("source") else ""
    first = stage.get("first_stage") or {}
    before = f", trained with {_method_and_loss(first['method'], first.get('loss'))}" if "method" in first else ""
    shifted = (stage.get("args") or {}).get("shift_batch_norm")
    changed = "the classifier and the running statistics of batch norm" if shifted else "the classifier alone"
    return (
        f"{_stage_title(stage)}{source} changed {changed}; everything else is that of the first stage{before}. "
        "Method, loss and cost below are those of the second stage."
    )


def progress(facts: RunFacts) -> str:
    """How far the training was, of weights without results; empty where there are some."""
    if facts.record is not None:
        return ""
    if not facts.step or not facts.planned_steps:
        unfinished = "There are no results yet: the training had not finished when this was written."
        return unfinished if RunFolder(facts.folder).has(RECIPE) else ""
    epoch = "" if facts.epoch is None else f" (epoch {facts.epoch:.3g})"
    steps = f"{facts.step:,} of {facts.planned_steps:,}"
    return f"These weights were saved at step {steps}{epoch}. There are no results of them."


def installation() -> str:
    """How to install the package, which no index has: from its repository, by the address that its metadata state."""
    try:
        stated = dict(each.split(", ", 1) for each in metadata("hf_ltsam").get_all("Project-URL") or ())
    except PackageNotFoundError:  # it runs from a folder
        stated = {}
    address = stated.get("Repository")
    return f"`pip install git+{address}`" if address else "`pip install .` in a clone of its repository"


def loading(facts: RunFacts, repo: str) -> str:
    """Lines that load it; a test runs them."""
    place = json.dumps(repo, ensure_ascii=False)  # a literal of Python, too
    if facts.samples == "texts":
        return _loading_text(facts, place)
    if facts.adapter is not None:
        return (
            "from hf_ltsam import load_run\n"
            "from transformers import AutoImageProcessor, pipeline\n"
            f'classify = pipeline("image-classification", model=load_run({place}), '
            f"image_processor=AutoImageProcessor.from_pretrained({place}))"
        )
    first = "import hf_ltsam.models\n" if needs_import(facts) else ""
    if facts.config.get("num_channels") == 1:
        return (
            f"{first}from transformers import AutoModelForImageClassification\n"
            f"model = AutoModelForImageClassification.from_pretrained({place})"
        )
    if facts.task is None:
        return (
            "from huggingface_hub import hf_hub_download\nfrom safetensors.torch import load_file\n"
            f'model.load_state_dict(load_file(hf_hub_download({place}, "model.safetensors")))'
        )
    return f'{first}from transformers import pipeline\nclassify = pipeline("{facts.task}", model={place})'


def _loading_text(facts: RunFacts, place: str) -> str:
    """Texts are cut where those of the training were; a pipeline asks for that."""
    if facts.adapter is None:
        first = "import hf_ltsam.models\n" if needs_import(facts) else ""
        return (
            f"{first}from transformers import pipeline\n"
            f'classify = pipeline("{facts.task}", model={place}, truncation=True)'
        )
    return (
        "from hf_ltsam import load_run\n"
        "from transformers import AutoTokenizer, pipeline\n"
        f'classify = pipeline("{facts.task}", model=load_run({place}), '
        f"tokenizer=AutoTokenizer.from_pretrained({place}), truncation=True)"
    )


def data_sentence(facts: RunFacts, statistics: ClassStatistics) -> str:
    where = f"{markdown_code(data_name(facts))}: " if facts.record else ""
    link = (
        f" ([on the Hub](https://huggingface.co/datasets/{facts.data_set}){_version(facts)})" if facts.data_set else ""
    )
    return (
        f"{where}{statistics.total:,} training {facts.samples} of {statistics.num_classes:,} classes, "
        f"{max(statistics.counts):,} down to {min(statistics.counts):,} {facts.samples} (imbalance ratio "
        f"{statistics.imbalance_ratio:.4g}){link}."
    )


def _version(facts: RunFacts) -> str:
    """Revision and commit of a data set on the Hub, as far as they are known."""
    revision, commit = facts.record.data.get("dataset_revision") if facts.record else None, facts.data_commit
    words = [
        *([f"revision {markdown_code(str(revision))}"] if revision and revision != commit else []),
        *([f"[commit {commit[:7]}](https://huggingface.co/datasets/{facts.data_set}/tree/{commit})"] if commit else []),
    ]
    return "".join(f", {word}" for word in words)


def data_as_stated(names: Sequence[str], arguments: Sequence[str]) -> str:
    """The names of the training data in the author's words; empty where there are none."""
    arguments = [*arguments, *[""] * len(names)]
    named = (f"{name} ({argument})" if argument else name for name, argument in zip(names, arguments))
    return f"Trained on {', '.join(named)}." if names else ""


def construction(record: RunRecord | None) -> str:
    """How the long tail was drawn, where it was."""
    data = record.data if record else {}
    if not data.get("imbalance_ratio"):
        return ""
    return (
        f"The tail was drawn from the original training split: {markdown_text(str(data.get('profile')))}, imbalance ratio "
        f"{data['imbalance_ratio']:g}, seed {data.get('split_seed')}. SHA-256 of the training labels: "
        f"{markdown_code(str(data.get('training_labels_sha256')))}."
    )


def method_words(facts: RunFacts) -> dict[str, Any]:
    """Title, equation and source of method and loss, and the papers to cite."""
    method, loss = METHODS.get(_name(facts.method)), LOSSES.get(_name(facts.loss))
    title = _method_title(facts.method)
    return {
        "method_title": f"{title[:1].upper()}{title[1:]}",
        "equation": visible(method.equation) if method else "",
        "method_source": f"{markdown_docstring(method.source)}." if method and method.source else "",
        "loss_equation": markdown_code(loss.equation) if loss else markdown_text(_name(facts.loss)),
        "loss_source": markdown_docstring(loss.source) if loss else "",
        "bibtex": markdown_block(cited, "bibtex") if (cited := bibtex(_citations(facts))) else "",
    }


def _citations(facts: RunFacts) -> list[str]:
    """Of the second stage, then of its methods and losses and those of the first stage."""
    first = facts.second_stage.get("first_stage") or {}
    described: list[tuple[Mapping[str, Any], Any]] = [
        (METHODS, facts.method),
        (LOSSES, facts.loss),
        (METHODS, first.get("method")),
        (LOSSES, first.get("loss")),
    ]
    classes = [registry[name] for registry, value in described if (name := _name(value)) in registry]
    return [*facts.second_stage.get("citations", ()), *(key for cited in classes for key in cited.citations)]


def _name(described: Any) -> str:
    return str(described["name"]) if described else ""


def seeds_sentence(facts: RunFacts) -> str:
    count = 1 + len(facts.other_seeds)
    if count == 1:
        return "One seed: how much the numbers depend on it was not measured."
    return f"The {count} runs differ in the seed alone."


def cost(facts: RunFacts) -> str:
    """Time, hardware, passes per step."""
    record = facts.record
    if record is None:
        return ""
    parts = []
    if record.train_seconds is not None:
        each = record.timing.get("seconds_per_step")
        step = f", {each:.3g} seconds per step" if each is not None else ""
        on = f" on {markdown_text(record.hardware)}" if record.hardware else ""
        parts.append(f"Training took {_duration(record.train_seconds)}{step}{on}.")
    method = METHODS.get(_name(facts.method))
    if method and method.cost:
        parts.append(f"Per step, as the equation counts: {method.cost}.")
    return " ".join(parts)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def limits(facts: RunFacts, licence: str | None) -> str:
    """What the numbers do not say."""
    answers = (
        f"Each of its labels has a probability of its own: {facts.samples} may have several of them, or none."
        if facts.has_several_labels
        else f"It always answers with one of its classes, also for {facts.samples} that "
        f"{'are' if facts.samples == 'texts' else 'show'} none of them."
    )
    points = [
        f"For research, and for {facts.samples} like those it was trained on. {answers}",
        "It was not examined for fairness or privacy, and is not meant for decisions about people.",
    ]
    if facts.statistics is not None:
        fewest = min(facts.statistics.counts)
        samples = facts.samples.removesuffix("s") if fewest == 1 else facts.samples
        points.append(
            f"Its rarest class had {fewest:,} training {samples}: what it knows of such classes rests on no more."
        )
    test_time = (facts.record.data.get("test_time") if facts.record else None) or "none"
    if test_time != "none":
        points.append(
            f"The results are means over views of each image ({test_time.replace('_', ' ')}). A pipeline sees the centre of "
            f"an image once, and scores differently: `ltsam evaluate --test_time {test_time}` repeats the views."
        )
    if facts.record is not None and facts.evaluation is None:
        points.append("It was tested on the test split of its data only, not under shift or corruption.")
    if facts.record is not None:
        points += shortcomings(facts.record, facts.losses)
    points.append(
        f"Licence: {markdown_text(licence)}." if licence else "No licence is stated: ask the publisher before using it."
    )
    return "\n".join(f"- {point}" for point in points)


def calibrated_by(facts: RunFacts) -> str:
    """What the calibration was chosen on; empty without one."""
    sets = (facts.record.results if facts.record else {}).get("conformal_sets", {})
    if source := sets.get("source"):
        return f"held-out {facts.samples} ({markdown_text(source)})"
    return f"training {facts.samples} that the training left out"


def conformal_sentence(facts: RunFacts) -> str:
    """How often the sets of `ltsam predict` held the class of a test image; empty without a calibration."""
    sets = (facts.record.results if facts.record else {}).get("conformal_sets")
    if sets is None:
        return ""
    return (
        f"Prediction sets (class-conditional conformal, {100 * sets['level']:.0f} % promised) hold the class of "
        f"{100 * sets['coverage']:.1f} % of the test {facts.samples} (mean over classes), with {sets['size']:.1f} classes "
        f"in a set; classes with too few held-out {facts.samples} for a threshold of their own, which share one: "
        f"{sets['pooled']}."
    )
