"""A long-tailed draw as a data set of one's own on the Hub: Parquet shards, a card and a leaderboard."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import yaml
from datasets import DatasetDict
from huggingface_hub import DatasetCard, DatasetCardData, constants
from huggingface_hub.errors import HTTPError

from dataset_builders.catalogue import SETS, sets_of
from dataset_builders.sources.published_set import DrawnSet, Tail, UserCopy
from hf_ltsam import ClassStatistics
from hf_ltsam.data.labels import class_label_column_of
from hf_ltsam.runs.card.card import FIGURE
from hf_ltsam.runs.card.citations import bibtex
from hf_ltsam.runs.card.metadata import METRICS
from hf_ltsam.runs.card.tables import groups_table
from hf_ltsam.runs.class_frequencies import curve_png, describe_groups
from hf_ltsam.runs.escaping import markdown_text
from hf_ltsam.runs.hub import Upload, in_words, send


@dataclass(frozen=True)
class Draw:
    """A set of the catalogue that is drawn, and how: what may be published."""

    name: str
    tail: Tail = field(default_factory=Tail)

    def __post_init__(self) -> None:
        refuse_to_publish(self.name)

    @property
    def drawn(self) -> DrawnSet:
        return sets_of(DrawnSet)[self.name]

    @property
    def title(self) -> str:
        return f"{self.drawn.title}, imbalance ratio {self.tail.imbalance_ratio:g}"

    @property
    def fingerprint(self) -> str:
        return self.drawn.fingerprint(UserCopy(), self.tail)

    @property
    def statistics(self) -> ClassStatistics:
        return self.drawn.statistics(UserCopy(), self.tail)


def refuse_to_publish(name: str) -> None:
    """Only what may be redistributed is published.

    Raises:
        ValueError: the terms of the set, and what can be done instead.
    """
    publishable = [each for each, drawn in sets_of(DrawnSet).items() if drawn.may_be_published]
    if name not in publishable:
        published = SETS[name]
        raise ValueError(
            f"{published.title} may not be published: {published.terms} Others get the same split with the list and their "
            f"own copy (load_long_tailed, load_shifted). Can be published: {', '.join(publishable)}."
        )


def publish(draw: Draw, repo: str, data_dir: str | Path | None = None, private: bool = False) -> str:
    """Push the draw with its card; returns the address.

    Args:
        repo: OWNER/NAME on the Hub; made where it does not exist.
        data_dir: CIFAR's Parquet files; None: the originals on the Hub.

    Raises:
        FileNotFoundError, ValueError: the images are not there, or cannot give this draw.
    """
    splits = draw.drawn.load(UserCopy(data_dir), draw.tail)
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
        FIGURE: curve_png(draw.statistics, draw.title),
    }
    entries = {"eval.yaml": leaderboard(draw).encode()}
    send(Upload(repo, files, "Data card", repo_type="dataset", entries=entries))
    return f"{constants.ENDPOINT}/datasets/{repo}"


def leaderboard(draw: Draw) -> str:
    """`eval.yaml`: what makes the data set a benchmark of the Hub, where models' `.eval_results` are gathered."""
    statistics, tail = draw.statistics, draw.tail
    description = (
        f"Image classification after training on the long-tailed split ({tail.profile}, imbalance ratio "
        f"{tail.imbalance_ratio:g}, seed {tail.seed}); accuracy in percent on the balanced test split after the last epoch, "
        f"over all images and by group. {describe_groups(statistics)}"
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
        source_datasets=[draw.drawn.repository],
        tags=["long-tailed", "imbalanced"],
    )
    return DatasetCard(f"---\n{data.to_yaml()}\n---\n{_text(draw, splits, repo)}")


def _text(draw: Draw, splits: DatasetDict, repo: str) -> str:
    drawn, tail, statistics = draw.drawn, draw.tail, draw.statistics
    column = class_label_column_of(splits["train"])
    names = splits["train"].features[column].names
    rows = "\n".join(f"| {markdown_text(name)} | {count} |" for name, count in zip(names, statistics.counts))
    return f"""# {draw.title}

{len(splits["train"]):,} training images of {statistics.num_classes} classes, {max(statistics.counts):,} down to \
{min(statistics.counts):,}, and {len(splits["test"]):,} balanced test images.

```python
from datasets import load_dataset
train, test = load_dataset("{repo}", split=["train", "test"])
```
To train on it: `ltsam train --dataset {repo} --method focal_sam --loss logit_adjustment --learning_rate 0.1`.

## Source and terms
{drawn.source}. {drawn.terms}

## Construction
{drawn.construction}

This draw: {tail.profile}, R = {tail.imbalance_ratio:g}, seed {tail.seed}. Drawn from the original training split in its
original order, the within-class positions in draw order, concatenated over classes as little-endian int64, have the
SHA-256 `{draw.fingerprint}`.

Made with `hf_ltsam`: `load_long_tailed("{draw.name}", imbalance_ratio={tail.imbalance_ratio:g}, profile="{tail.profile}", \
seed={tail.seed})`.

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
{bibtex(drawn.citations)}
```
"""
