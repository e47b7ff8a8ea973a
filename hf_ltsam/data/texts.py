"""Texts as a model takes them: tokens, cut to a length; a batch is filled up to its longest text."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_ltsam.hyperparameters import nearest

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

TEXT_WORDS = (
    "text",
    "sentence",
    "content",
    "document",
    "review",
    "comment",
    "message",
    "abstract",
    "description",
    "title",
)
LONGEST = 512  # tokens of a text where nothing else is said; attention grows with the square of the length

_NAMED = 5  # rows of empty texts


@dataclass(frozen=True, eq=False)
class Tokenization:
    """From a text, or a pair, to what a model takes.

    Args:
        tokenizer: of the model. Its `model_max_length`, which is saved beside the weights, is where texts are cut.
    """

    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def beside(cls, name: str) -> Tokenization:
        """That of a saved model, a folder or a name on the Hub.

        Raises:
            OSError: there is no tokenizer beside it.
        """
        from transformers import AutoTokenizer

        try:
            return cls(AutoTokenizer.from_pretrained(name))
        except (OSError, ValueError, KeyError) as error:
            raise OSError(
                f"{name} has no tokenizer that can be read ({' '.join(str(error).split())[:200]})."
            ) from error

    def cut_at(self, max_length: int | None, longest: int | None) -> Tokenization:
        """With texts cut to a length.

        Args:
            max_length: in tokens; None: what the model takes, at most 512.
            longest: what the model takes; None: any.

        Raises:
            ValueError: more than the model takes.
        """
        stated = self.tokenizer.model_max_length
        longest = min(stated, longest or stated)
        if max_length is not None and max_length > longest:
            raise ValueError(f"--max_length {max_length}: the model takes {longest} tokens at most.")
        tokenizer = copy.deepcopy(self.tokenizer)
        tokenizer.model_max_length = min(longest, LONGEST) if max_length is None else max_length
        return Tokenization(tokenizer)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what its tokens follow from."""
        settings = (self.tokenizer.model_max_length, sorted(self.tokenizer.get_vocab().items()), str(self.tokenizer))
        return hashlib.sha256(repr(settings).encode()).hexdigest()

    def __call__(self, *texts: Sequence[str | None]) -> Mapping[str, list[Any]]:
        """Columns such as input_ids and attention_mask, not filled up.

        Args:
            texts: of N samples, or of their first and second halves; what is missing is empty.
        """
        plain = [["" if text is None else str(text) for text in part] for part in texts]
        return dict(self.tokenizer(*plain, truncation=True))

    @property
    def collator(self) -> Any:
        """Makes batches of samples, filled up to the longest of each."""
        from transformers import DataCollatorWithPadding

        return DataCollatorWithPadding(self.tokenizer)


def tokenised(
    dataset: datasets.Dataset, columns: Sequence[str], label_column: str, tokenization: Tokenization
) -> datasets.Dataset:
    """The same rows as input_ids, attention_mask and so on, and `labels`.

    Args:
        dataset: its transform and format are dropped.
        columns: one of texts, or two of pairs.
    """
    from datasets import Dataset

    plain = copy.copy(dataset)
    plain.reset_format()
    tokens = Dataset.from_dict(dict(tokenization(*(plain[column][:] for column in columns))))
    return tokens.add_column("labels", plain[label_column][:], feature=plain.features[label_column])


def text_columns_of(
    dataset: datasets.Dataset, names: Sequence[str] | None, label_column: str | None = None
) -> tuple[str, ...]:
    """The named columns of texts, one that is called as texts are, or the only one.

    Raises:
        ValueError: there are no such columns, more than two, or several could be meant.
    """
    valid = [name for name in dataset.column_names if holds_text(dataset, name) and name != label_column]
    if names is not None:
        wrong = next((name for name in names if name not in valid), None)
        if wrong is not None:
            what = "has no column" if wrong not in dataset.column_names else "has no texts in the column"
            way_out = nearest(wrong, valid) if valid else " It has no texts at all: leave --text_column out for images."
            raise ValueError(f"The data set {what} {wrong!r}.{way_out}")
        if not 1 <= len(names) <= 2:
            raise ValueError(f"--text_column {' '.join(names)}: one column, or the two of pairs of texts.")
        return tuple(names)
    columns = [name for name in TEXT_WORDS if name in valid][:1] or valid
    if len(columns) == 1:
        return (columns[0],)
    what = (
        f"several columns of texts ({', '.join(columns)})" if columns else "neither a column of images nor one of texts"
    )
    raise ValueError(f"The data set has {what} among {', '.join(dataset.column_names)}: name one by --text_column.")


def require_columns(test: datasets.Dataset, columns: Sequence[str]) -> None:
    """Refuse a test split without the columns of texts that are trained on.

    Raises:
        ValueError: naming the first one.
    """
    missing = next((name for name in columns if name not in test.column_names), None)
    if missing is not None:
        raise ValueError(
            f"The test split has no column {missing!r}, which is trained on, only {', '.join(test.column_names)}: give the "
            "column one name in both splits."
        )


def warn_of_empty(split: str, dataset: datasets.Dataset, columns: Sequence[str], labels: Sequence[int]) -> None:
    """Say which texts are missing or blank in all their columns: a model can tell nothing from them.

    Args:
        split: "training" or "test".
        columns: of the texts; none of them: nothing is said.
        labels: of the rows (N,), class indices.

    Raises:
        ValueError: all training texts of a class are empty.
    """
    if not columns:
        return
    cells = zip(*(dataset[column][:] for column in columns))
    empty = [
        row for row, parts in enumerate(cells) if not any(part is not None and str(part).strip() for part in parts)
    ]
    if not empty:
        return
    named = ", ".join([*map(str, empty[:_NAMED]), *["..."] * (len(empty) > _NAMED)])
    where = (
        f"{len(empty)} of {len(dataset)} {split} texts are empty (column {', '.join(columns)}; rows {named}, from 0)"
    )
    without = set(empty)
    lost = set(labels) - {label for row, label in enumerate(labels) if row not in without}
    if split == "training" and lost:
        raise ValueError(
            f"{where}, among them all of {len(lost)} classes, which cannot be learned: fill them in, or take the rows out."
        )
    warnings.warn(
        f"{where}. They are kept, and tell a model nothing: fill them in, or take the rows out.", stacklevel=2
    )


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts of a test set: sample i is what a model takes of one.

    Args:
        columns: of N texts, or of first and second halves.
        rows: those that count, in this order.
    """

    columns: Sequence[Sequence[str | None]]
    rows: Sequence[int]
    see: Tokenization

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        return {name: values[0] for name, values in self.see(*([part[row]] for part in self.columns)).items()}

    def collate(self, samples: list[Any]) -> Mapping[str, Any]:
        """A batch of them."""
        batch: Mapping[str, Any] = self.see.collator(samples)
        return dict(batch)


def holds_text(dataset: datasets.Dataset, column: str) -> bool:
    """Whether it is a column of strings."""
    return getattr(dataset.features[column], "dtype", None) in ("string", "large_string")
