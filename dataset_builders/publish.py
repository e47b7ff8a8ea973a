"""A long-tailed draw as a data set of one's own on the Hub: Parquet shards and a card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datasets import DatasetDict
from huggingface_hub import DatasetCard, DatasetCardData, constants

from dataset_builders.catalogue import CIFAR, load_long_tailed, long_tail_statistics, training_fingerprint
from dataset_builders.set_facts import FACTS
from hf_ltsam import ClassStatistics
from hf_ltsam.data.labels import class_label_column_of


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
    splits.push_to_hub(repo, private=private, commit_message=draw.title)
    card = DatasetCard.load(repo)        # with the features and sizes that `push_to_hub` has written down
    described = data_card(draw, splits)
    card.data = DatasetCardData(**{**card.data.to_dict(), **described.data.to_dict()})
    card.text = described.text
    card.push_to_hub(repo, repo_type="dataset", commit_message="Data card")
    return f"{constants.ENDPOINT}/datasets/{repo}"


def data_card(draw: Draw, splits: DatasetDict) -> DatasetCard:
    """Source, terms, construction and counts."""
    data = DatasetCardData(
        license="unknown",
        pretty_name=draw.title,
        task_categories=["image-classification"],
        source_datasets=[CIFAR[draw.name].hub],
        tags=["long-tailed", "imbalanced"],
    )
    return DatasetCard(f"---\n{data.to_yaml()}\n---\n{_text(draw, splits)}")


def _text(draw: Draw, splits: DatasetDict) -> str:
    facts, statistics = FACTS[draw.name], draw.statistics
    column = class_label_column_of(splits["train"])
    names = splits["train"].features[column].names
    rows = "\n".join(f"| {name} | {count} |" for name, count in zip(names, statistics.counts))
    return f"""# {draw.title}

{len(splits["train"]):,} training images of {statistics.num_classes} classes, {max(statistics.counts):,} down to \
{min(statistics.counts):,}, and {len(splits["test"]):,} balanced test images.

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
| class | images |
|---|---|
{rows}
"""
