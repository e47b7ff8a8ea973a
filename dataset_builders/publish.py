"""Long-tailed draws as configurations of a data set of one's own, in a folder or on the Hub; split lists in a folder."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import yaml
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard, DatasetCardData, HfApi, constants
from huggingface_hub.errors import EntryNotFoundError, HTTPError, RepositoryNotFoundError

from dataset_builders.catalogue import SETS, sets_of
from dataset_builders.configurations import CARD, configuration_names, header_of, parquet_files, write_configurations
from dataset_builders.sources.published_set import DrawnSet, ListedSet, Tail, UserCopy
from hf_ltsam import ClassStatistics
from hf_ltsam.runs.card.card import FIGURE
from hf_ltsam.runs.card.citations import bibtex
from hf_ltsam.runs.card.metadata import METRICS
from hf_ltsam.runs.card.tables import groups_table
from hf_ltsam.runs.class_frequencies import curve_png, describe_groups
from hf_ltsam.runs.escaping import markdown_table, markdown_text
from hf_ltsam.runs.hub import Upload, in_words, send

LEADERBOARD = "eval.yaml"
TAGS = ["long-tailed", "imbalanced"]
LISTS = "Split lists of long-tailed data sets"


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
    def configuration(self) -> str:
        return self.tail.configuration

    @property
    def title(self) -> str:
        step = "" if self.tail.profile == "exponential" else f", {self.tail.profile}"
        return f"{self.drawn.title}, imbalance ratio {self.tail.imbalance_ratio:g}{step}"

    @cached_property
    def fingerprint(self) -> str:
        return self.drawn.fingerprint(UserCopy(), self.tail)

    @cached_property
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


def publish(draws: Sequence[Draw], repo: str, data_dir: str | Path | None = None, private: bool = False) -> str:
    """Add draws of one set to a repository; returns its address. Configurations that are there already stay.

    Args:
        repo: OWNER/NAME on the Hub; made where it does not exist.
        data_dir: CIFAR's Parquet files; None: the originals on the Hub.

    Raises:
        FileNotFoundError, ValueError: the images are not there, or cannot give these draws; a repository of something else.
        HubError: the Hub did not do it, or somebody else has changed the repository meanwhile.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            head = _fetch_card(repo, folder)
        except (OSError, HTTPError) as error:
            raise in_words(error, f"{repo} was not uploaded") from None
        written = _write(draws, folder, repo, data_dir)
        files = {**written, **{file: folder / file for file in (CARD, FIGURE)}}
        entries = {LEADERBOARD: folder / LEADERBOARD}
        titles = "; ".join(draw.title for draw in draws)
        send(Upload(repo, files, titles, private=private, repo_type="dataset", entries=entries, parent=head))
    return f"{constants.ENDPOINT}/datasets/{repo}"


def write_draws(draws: Sequence[Draw], folder: str | Path, data_dir: str | Path | None = None) -> list[str]:
    """The same in a local folder; returns its configurations.

    Raises:
        FileNotFoundError, ValueError: as `publish`.
    """
    _write(draws, Path(folder), f"path/to/{Path(folder).resolve().name}", data_dir)
    return configuration_names(header_of(Path(folder) / CARD))


def write_lists(name: str, folder: str | Path, copy: UserCopy | None = None) -> list[str]:
    """The list of a set, as a configuration with the name of the set, in a local folder; returns its configurations.

    Args:
        copy: where the lists are.

    Raises:
        FileNotFoundError, ValueError: no such list, or not the published one; a folder of something else.
    """
    folder = Path(folder)
    header = header_of(folder / CARD)
    _refuse_another(folder, header, {"pretty_name": LISTS})
    listed = sets_of(ListedSet)[name]
    splits = listed.lists(copy or UserCopy())
    missing = [
        f"{split} ({published.files[0]})" for split, published in listed.builder.LISTS.items() if split not in splits
    ]
    if missing:
        warnings.warn(
            f"{name} is written without {' and '.join(missing)}: there is no such list in {(copy or UserCopy()).lists}.",
            stacklevel=2,
        )
    write_configurations({name: splits}, folder, header)
    header = DatasetCardData(**{**header.to_dict(), "pretty_name": LISTS, "tags": TAGS})
    _write_card(folder, header, _text_of_lists(header, f"path/to/{folder.resolve().name}"))
    return configuration_names(header)


def _fetch_card(repo: str, folder: Path) -> str | None:
    """Put the repository's card into the folder; returns the commit it is of. None: there is no repository."""
    try:
        head = HfApi().repo_info(repo, repo_type="dataset").sha
        fetched = HfApi().hf_hub_download(repo, CARD, repo_type="dataset", revision=head)
        (folder / CARD).write_bytes(Path(fetched).read_bytes())
    except RepositoryNotFoundError:
        return None
    except EntryNotFoundError:
        pass
    return head


def _write(draws: Sequence[Draw], folder: Path, where: str, data_dir: str | Path | None) -> Mapping[str, Path]:
    """Parquet files, card, figure and leaderboard; returns the Parquet files."""
    header, drawn = header_of(folder / CARD), draws[0].drawn
    _refuse_another(where, header, {"source_datasets": [drawn.repository]})
    configurations = {draw.configuration: drawn.load(UserCopy(data_dir), draw.tail) for draw in draws}
    write_configurations(configurations, folder, header)
    card = data_card(draws[0].name, header, where)
    card.save(folder / CARD)
    described = _draws_in(draws[0].name, header)
    (folder / FIGURE).write_bytes(curve_png(described[0].statistics, described[0].title))
    (folder / LEADERBOARD).write_text(leaderboard(described), encoding="utf-8")
    return parquet_files(folder, configurations)


def _refuse_another(where: str | Path, header: DatasetCardData, marks: Mapping[str, object]) -> None:
    """A card that is somebody else's is not overwritten."""
    before = header.to_dict()
    for key, value in marks.items():
        if before and before.get(key) != value:
            raise ValueError(
                f"{where} has a {CARD} of another data set ({key}: {before.get(key)}, here {value}): take another name."
            )


def _draws_in(name: str, header: DatasetCardData) -> list[Draw]:
    """The configurations that are draws of the set, the default one first."""
    draws = []
    for configuration in configuration_names(header):
        try:
            draws.append(Draw(name, Tail.named(configuration)))
        except ValueError:  # of an earlier version, or somebody's own: it stays, and is not described
            continue
    return draws


_LIMITS = """\
The tail is artificial: real rare classes differ from common ones in more than their number. The test split is that of the
original; whoever chooses settings by it should say so. For research."""


def leaderboard(draws: Sequence[Draw]) -> str:
    """`eval.yaml`: what makes the data set a benchmark of the Hub, where models' `.eval_results` are gathered.

    Args:
        draws: the default configuration first. Its tasks have plain names too (accuracy beside r100_accuracy).
    """
    first = draws[0]
    description = (
        f"Image classification after training on a long-tailed split ({'; '.join(map(_in_short, draws))}); accuracy in "
        "percent on the balanced test split after the last epoch, over all images and by group. "
        + describe_groups(first.statistics)
    )
    tasks = [{"id": task, "config": first.configuration, "split": "test"} for task in _tasks(first)]
    for draw in draws:
        prefix = draw.configuration
        tasks += [{"id": f"{prefix}_{task}", "config": prefix, "split": "test"} for task in _tasks(draw)]
    settings = {"name": _title(draws), "description": description, "evaluation_framework": "hf_ltsam", "tasks": tasks}
    return yaml.safe_dump(settings, sort_keys=False, width=120)


def _tasks(draw: Draw) -> list[str]:
    groups = [name for name, classes in draw.statistics.groups.items() if classes]
    return [METRICS[name][0] for name in ("overall", "balanced", *groups)]


def _in_short(draw: Draw) -> str:
    tail = draw.tail
    return f"{draw.configuration}: {tail.profile}, imbalance ratio {tail.imbalance_ratio:g}, seed {tail.seed}"


def _title(draws: Sequence[Draw]) -> str:
    if len(draws) == 1:
        return draws[0].title
    return f"{draws[0].drawn.title} ({', '.join(draw.configuration for draw in draws)})"


def data_card(name: str, header: DatasetCardData, where: str) -> DatasetCard:
    """How to load it, source, terms, construction, counts, limits and whom to cite.

    Args:
        header: with the configurations and their sizes.
        where: OWNER/NAME or a folder, as `load_dataset` is told.
    """
    draws = _draws_in(name, header)
    described = DatasetCardData(
        license="unknown",
        pretty_name=_title(draws),
        task_categories=["image-classification"],
        source_datasets=[draws[0].drawn.repository],
        tags=TAGS,
    )
    merged = DatasetCardData(**{**header.to_dict(), **described.to_dict()})
    return DatasetCard(f"---\n{merged.to_yaml()}\n---\n{_text(draws, header, where)}")


def _text(draws: Sequence[Draw], header: DatasetCardData, where: str) -> str:
    sections = {
        "Source and terms": f"{draws[0].drawn.source}. {draws[0].drawn.terms}",
        "Construction": _construction(draws),
        "Training images": _training_images(draws),
        "Limits": _LIMITS,
        "Citation": f"```bibtex\n{bibtex(draws[0].drawn.citations)}\n```",
    }
    text = "".join(f"\n## {title}\n{section}\n" for title, section in sections.items())
    return f"# {_title(draws)}\n\n{_loading(draws, header, where)}\n{text}"


def _loading(draws: Sequence[Draw], header: DatasetCardData, where: str) -> str:
    """What the data set holds, how it is loaded, and how to train on it."""
    first, names = draws[0].configuration, [draw.configuration for draw in draws]
    overview = markdown_table(
        ["configuration", "tail", "ratio", "seed", "training images", "largest and smallest class", "test images"],
        [_overview(draw, header) for draw in draws],
    )
    shapes = "" if len(names) == 1 else f", in {len(names)} shapes of the tail"
    classes = len(draws[0].drawn.class_names)
    return f"""A long-tailed training split of {classes} classes with a balanced test split{shapes}.

{overview}

```python
from datasets import load_dataset
train, test = load_dataset("{where}", "{first}", split=["train", "test"])
```
To train on it: `ltsam train --dataset {where} --dataset_config_name {first} --method focal_sam \
--loss logit_adjustment --learning_rate 0.1`."""


def _construction(draws: Sequence[Draw]) -> str:
    """How the tail was drawn, with what another draw can be compared with."""
    first = draws[0]
    prints = "\n".join(f"- {draw.configuration}: `{draw.fingerprint}`" for draw in draws)
    return f"""{first.drawn.construction}

SHA-256 of each draw from the original training split in its original order (the within-class positions in draw order,
concatenated over classes as little-endian int64):

{prints}

Made with `hf_ltsam`: `load_long_tailed("{first.name}", imbalance_ratio={first.tail.imbalance_ratio:g}, \
profile="{first.tail.profile}", seed={first.tail.seed})`."""


def _training_images(draws: Sequence[Draw]) -> str:
    """By group and by class."""
    groups = "\n\n".join(f"{_in_short(draw)}\n\n{groups_table(draw.statistics)}" for draw in draws)
    counts = zip(draws[0].drawn.class_names, *(draw.statistics.counts for draw in draws))
    rows = [[markdown_text(name), *map(str, of_class)] for name, *of_class in counts]
    by_class = markdown_table(["class", *(draw.configuration for draw in draws)], rows)
    return f"![Training images per class, the largest first]({FIGURE})\n\n{groups}\n\n{by_class}"


def _overview(draw: Draw, header: DatasetCardData) -> list[str]:
    """A row of the table of configurations."""
    splits = DatasetInfosDict.from_dataset_card_data(header)[draw.configuration].splits
    train, test = (f"{splits[name].num_examples:,}" for name in ("train", "test"))
    counts, tail = draw.statistics.counts, draw.tail
    extremes = f"{max(counts):,} and {min(counts):,}"
    return [draw.configuration, tail.profile, f"{tail.imbalance_ratio:g}", str(tail.seed), train, extremes, test]


def _write_card(folder: Path, header: DatasetCardData, text: str) -> None:
    DatasetCard(f"---\n{header.to_yaml()}\n---\n{text}").save(folder / CARD)


def _text_of_lists(header: DatasetCardData, where: str) -> str:
    names = [name for name in configuration_names(header) if name in sets_of(ListedSet)]
    sizes = DatasetInfosDict.from_dataset_card_data(header)
    rows = [
        [name, SETS[name].title, ", ".join(f"{split} {of.num_examples:,}" for split, of in sizes[name].splits.items())]
        for name in names
    ]
    sources = "\n".join(
        f"- {SETS[name].title}: {SETS[name].construction} Images: {SETS[name].source}. {SETS[name].terms}"
        for name in names
    )
    return f"""# {LISTS}

Paths and labels, and no image: everybody joins a copy of the images of one's own.

{markdown_table(["configuration", "data set", "rows"], rows)}

```python
from dataset_builders import join_images
from datasets import load_dataset
rows = load_dataset("{where}", "{names[0]}", split="train")
train = join_images(rows, "{names[0]}", "/data/images")  # folders or official archives; no image is copied
```

## Sources and terms
{sources}
"""
