"""A long-tailed draw as a data set of one's own on the Hub: Parquet shards, a card and a leaderboard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml
from datasets import DatasetDict
from huggingface_hub import DatasetCard, DatasetCardData, constants
from huggingface_hub.errors import HTTPError

from dataset_builders.catalogue import CIFAR, load_long_tailed, long_tail_statistics, training_fingerprint
from dataset_builders.sets.facts import FACTS
from hf_ltsam import ClassStatistics
from hf_ltsam.data.labels import class_label_column_of
from hf_ltsam.runs.card.card import FIGURE
from hf_ltsam.runs.card.citations import bibtex
from hf_ltsam.runs.card.metadata import METRICS
from hf_ltsam.runs.card.tables import groups_table
from hf_ltsam.runs.class_curve import curve_png
from hf_ltsam.runs.hub import Upload, in_words, send


@dataclass(frozen=True)
class Draw:
    """Which CIFAR-LT: a name of the catalogue, and how it is drawn."""

    name: str
    imbalance_ratio: float = 100
    profile: str = "exponential"
    seed: int = 0

    def __post_init__(self) -> None:
        refuse_to_publish(self.name)

    @property
    def title(self) -> str:
        return f"{FACTS[self.name].title}, imbalance ratio {self.imbalance_ratio:g}"

    @property
    def fingerprint(self) -> str:
        return training_fingerprint(self.name, self.imbalance_ratio, self.profile, self.seed)

    @property
    def statistics(self) -> ClassStatistics:
        return long_tail_statistics(self.name, imbalance_ratio=self.imbalance_ratio, profile=self.profile)


def refuse_to_publish(name: str) -> None:
    """Only what may be redistributed is published.

    Raises:
        ValueError: the terms of the set, and what can be done instead.
    """
    facts = FACTS[name]
    if not facts.may_be_published:
        can = ", ".join(each for each, of_set in FACTS.items() if of_set.may_be_published)
        raise ValueError(
            f"{facts.title} may not be published: {facts.terms} Others get the same split with the list and their own copy "
            f"(load_long_tailed, load_shifted). Can be published: {can}."
        )


def publish(draw: Draw, repo: str, data_dir: str | Path | None = None, private: bool = False) -> str:
    """Push the draw with its card; returns the address.

    Args:
        repo: OWNER/NAME on the Hub; made where it does not exist.
        data_dir: CIFAR's Parquet files; None: the originals on the Hub.

    Raises:
        FileNotFoundError, ValueError: the images are not there, or cannot give this draw.
    """
    splits = load_long_tailed(
        draw.name, data_dir, imbalance_ratio=draw.imbalance_ratio, profile=draw.profile, seed=draw.seed
    )
    try:
        splits.push_to_hub(repo, private=private, commit_message=draw.title)
        card = DatasetCard.load(repo)  # with the features and sizes that `push_to_hub` has written down
    except (OSError, HTTPError) as error:
        raise in_words(error, f"{repo} was not uploaded") from None
    described = data_card(draw, splits, repo)
    card.data = DatasetCardData(**{**card.data.to_dict(), **described.data.to_dict()})
    card.text = described.text
    files = {
        "README.md": str(card).encode(),
        "eval.yaml": leaderboard(draw).encode(),
        FIGURE: curve_png(draw.statistics, draw.title),
    }
    send(Upload(repo, files, "Data card and leaderboard", repo_type="dataset"))
    return f"{constants.ENDPOINT}/datasets/{repo}"


def leaderboard(draw: Draw) -> str:
    """`eval.yaml`: what makes the data set a benchmark of the Hub, where models' `.eval_results` are gathered."""
    statistics = draw.statistics
    low, high = statistics.few_below, statistics.many_above
    description = (
        f"Image classification after training on the long-tailed split ({draw.profile}, imbalance ratio "
        f"{draw.imbalance_ratio:g}, seed {draw.seed}); accuracy in percent on the balanced test split after the last epoch, "
        f"over all images and by training images of the class: many above {high}, medium {low} to {high}, few below {low}."
    )
    groups = [name for name, classes in statistics.groups.items() if classes]
    tasks = [
        {"id": METRICS[name][0], "config": "default", "split": "test"} for name in ("overall", "balanced", *groups)
    ]
    settings = {"name": draw.title, "description": description, "evaluation_framework": "hf_ltsam", "tasks": tasks}
    return yaml.safe_dump(settings, sort_keys=False, width=120)


def data_card(draw: Draw, splits: DatasetDict, repo: str) -> DatasetCard:
    """How to load it, source, terms, construction, counts, limits and whom to cite."""
    data = DatasetCardData(
        license="unknown",
        pretty_name=draw.title,
        task_categories=["image-classification"],
        source_datasets=[CIFAR[draw.name].hub],
        tags=["long-tailed", "imbalanced"],
    )
    return DatasetCard(f"---\n{data.to_yaml()}\n---\n{_text(draw, splits, repo)}")


def _text(draw: Draw, splits: DatasetDict, repo: str) -> str:
    facts, statistics = FACTS[draw.name], draw.statistics
    column = class_label_column_of(splits["train"])
    names = splits["train"].features[column].names
    rows = "\n".join(f"| {name} | {count} |" for name, count in zip(names, statistics.counts))
    return f"""# {draw.title}

{len(splits["train"]):,} training images of {statistics.num_classes} classes, {max(statistics.counts):,} down to \
{min(statistics.counts):,}, and {len(splits["test"]):,} balanced test images.

```python
from datasets import load_dataset
train, test = load_dataset("{repo}", split=["train", "test"])
```
To train on it: `ltsam train --dataset {repo} --method focal_sam --loss logit_adjustment --learning_rate 0.1`.

## Source and terms
{facts.source}. {facts.terms}

## Construction
{facts.construction}

This draw: {draw.profile}, R = {draw.imbalance_ratio:g}, seed {draw.seed}. Drawn from the original training split in its
original order, the within-class positions in draw order, concatenated over classes as little-endian int64, have the
SHA-256 `{draw.fingerprint}`.

Made with `hf_ltsam`: `load_long_tailed("{draw.name}", imbalance_ratio={draw.imbalance_ratio:g}, profile="{draw.profile}", \
seed={draw.seed})`.

## Training images
![Training images per class, the largest first]({FIGURE})

{groups_table(statistics)}

| class | images |
|---|---|
{rows}

## Limits
The tail is artificial: real rare classes differ from common ones in more than their number. The test split is that of the
original; whoever chooses settings by it should say so. For research.

## Citation
```bibtex
{bibtex(["krizhevsky2009", "cao2019"])}
```
"""
