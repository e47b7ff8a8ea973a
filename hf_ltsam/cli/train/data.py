"""The splits as the Trainer takes them: small images in memory, larger ones on the fly, texts as tokens."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import default_data_collator
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from hf_ltsam.cli.train.model import ImageFormat, Normalisation
from hf_ltsam.cli.train.settings import DataArguments
from hf_ltsam.cli.train.splits import Splits
from hf_ltsam.data.bad_images import BadImageError
from hf_ltsam.data.class_columns import sample_name
from hf_ltsam.data.decoding import decode_image, decode_images, encoded_images, unreadable_images
from hf_ltsam.data.in_memory.images import CUSTOMARY_NORMALISATION, InMemoryImages, normalisation
from hf_ltsam.data.preprocessing import Preprocessing
from hf_ltsam.data.texts import Tokenization, tokenised
from hf_ltsam.data.transforms import image_transform, on_the_fly, short_side_of
from hf_ltsam.runs.record import samples_of

SMALL = 64  # pixels: images up to this side are decoded once and kept in memory


@dataclass(frozen=True)
class TrainingData:
    """Data sets of `{"pixel_values": float32 (C, H, W), "labels": int}`, or of tokens and labels."""

    train: Any
    test: Any
    plain_train: Any  # the training images as the test would see them, not augmented
    preprocessing: Preprocessing | Tokenization  # of the test

    @property
    def processor(self) -> Any:
        """transformers' own, which is saved beside the weights."""
        see = self.preprocessing
        return see.tokenizer if isinstance(see, Tokenization) else see.image_processor()

    @property
    def collator(self) -> Any:
        """Makes batches of samples."""
        see = self.preprocessing
        return see.collator if isinstance(see, Tokenization) else default_data_collator


def prepare(
    splits: Splits,
    arguments: DataArguments,
    wanted: ImageFormat | Tokenization,
    seed: int,
    progress: bool = True,
    on_bad_image: str = "raise",
) -> TrainingData:
    """Decode small images at once, larger ones when they are needed; cut texts into tokens.

    Small training images are cropped after padding, larger ones by random resized crops; all else that augments is the same.

    Args:
        wanted: what the model takes; a size or normalisation in the settings comes first.
        seed: of the augmentation.
        progress: whether to show a bar while images are decoded or checked.
        on_bad_image: of the run, see `LTSamConfig`.

    Raises:
        ValueError: images that cannot be decoded (named), or that need a size and have none.
    """
    if isinstance(wanted, Tokenization):
        train, test = (
            tokenised(split, splits.text_columns, splits.label_column, wanted) for split in (splits.train, splits.test)
        )
        return TrainingData(train, test, train, wanted)
    size = wanted.size if arguments.image_size is None else arguments.image_size
    pixels = wanted.normalisation
    if arguments.normalisation != "auto":
        pixels = CUSTOMARY_NORMALISATION[arguments.normalisation]
    if size is None or size <= SMALL:
        try:
            if size is None:
                _require_small(splits.train, arguments)
            return _in_memory(splits, arguments, ImageFormat(size, pixels), seed, progress)
        except BadImageError:  # the first of perhaps many
            ways = _ways_on(on_bad_image, arguments.check_images)
            _refuse_unreadable([splits.train, splits.test], arguments, progress, ways)
            raise
    imagenet = (tuple(IMAGENET_DEFAULT_MEAN), tuple(IMAGENET_DEFAULT_STD))
    return _on_the_fly(splits, arguments, size, pixels or imagenet, progress, on_bad_image)


def warn_of_copies(data: TrainingData, splits: Splits) -> None:
    """Say which test samples are training samples, too: small images by their pixels, texts by their letters.

    Larger images are not compared: it would take as long to read all files as to train an epoch of a small model.
    """
    train: Iterable[Any]
    test: Iterable[Any]
    if splits.text_columns:
        texts = (zip(*(split[name][:] for name in splits.text_columns)) for split in (splits.train, splits.test))
        train, test = ((sample if any(sample) else None for sample in split) for split in texts)
    elif isinstance(data.plain_train, InMemoryImages):
        train, test = (_digests(split.images) for split in (data.plain_train, data.test))
    else:
        return
    known = set(train) - {None}  # empty texts and images of one colour, which tell nothing
    copies = [row for row, sample in enumerate(test) if sample in known]
    if copies:
        kind, name = samples_of(splits.task), sample_name(splits.test, copies[0], splits.label_column)
        warnings.warn(
            f"{len(copies)} of {len(splits.test)} test {kind} are copies of training {kind} (the first is "
            f"{name or f'row {copies[0]}'}): for them the test measures memory. Take them out of one of the splits.",
            stacklevel=2,
        )


def _digests(images: Tensor) -> Iterator[bytes | None]:
    """One of each image (N, C, H, W); None for one of a single colour."""
    shape = repr(tuple(images.shape[1:])).encode()
    rows = images.cpu().permute(0, 2, 3, 1).numpy()  # as they lie in memory
    return (
        None if (image == image[0, 0]).all() else hashlib.blake2b(shape + image.tobytes(), digest_size=16).digest()
        for image in rows
    )


def _in_memory(splits: Splits, arguments: DataArguments, form: ImageFormat, seed: int, progress: bool) -> TrainingData:
    values = arguments.pixel_values
    train, test = (
        decode_images(split, arguments.image_column, form.size, arguments.num_channels, progress, values)
        for split in (splits.train, splits.test)
    )
    mean, std = form.normalisation or normalisation(train)
    short_side = form.size or min(test.shape[2:])
    height, width = test.shape[2:]
    train = train.contiguous(memory_format=torch.channels_last)  # as `InMemoryImages` keeps them: one copy for both
    return TrainingData(
        InMemoryImages(
            train,
            splits.train_labels,
            mean,
            std,
            True,
            seed,
            arguments.crop_padding,
            arguments.flip,
            arguments.cutout,
            arguments.operations,
            arguments.color_jitter,
            arguments.random_erasing,
        ),
        InMemoryImages(test, splits.test_labels, mean, std, augment=False),
        InMemoryImages(train, splits.train_labels, mean, std, augment=False),
        Preprocessing(height, width, short_side, tuple(mean), tuple(std), values=values),
    )


def _on_the_fly(
    splits: Splits, arguments: DataArguments, size: int, pixels: Normalisation, progress: bool, on_bad_image: str
) -> TrainingData:
    """The Trainer keys the random numbers of the transforms by its own seed."""
    mean, std = pixels
    if arguments.num_channels != 3:
        raise ValueError(
            f"--num_channels {arguments.num_channels} needs images of at most {SMALL} pixels, got {size}: "
            f"--image_size {SMALL} or less."
        )
    short_side = short_side_of(size) if arguments.test_short_side is None else arguments.test_short_side
    if short_side < size:
        raise ValueError(
            f"--test_short_side {short_side} leaves less than the {size} pixels that are kept: {size} or more."
        )
    if arguments.check_images:
        unchecked = [splits.test] if splits.train_is_readable else [splits.train, splits.test]
        ways = f"{_ways_on(on_bad_image)} --check_images false skips this check."
        _refuse_unreadable(unchecked, arguments, progress, ways)
    augmented = image_transform(
        size,
        mean,
        std,
        True,
        short_side,
        arguments.color_jitter,
        arguments.flip,
        arguments.operations,
        arguments.random_erasing,
        arguments.cutout,
    )
    values = arguments.pixel_values
    preprocessing = Preprocessing(size, size, short_side, mean, std, values=values)
    train, test, plain_train = (
        on_the_fly(split, transform, arguments.image_column, splits.label_column, values)
        for split, transform in (
            (splits.train, augmented),
            (splits.test, preprocessing),
            (splits.train, preprocessing),
        )
    )
    return TrainingData(train, test, plain_train, preprocessing)


def _require_small(split: Dataset, arguments: DataArguments) -> None:
    """Refuse large images without a stated size: they would be kept in memory as they are."""
    first = encoded_images(split, arguments.image_column)[0]["image"]
    image = decode_image(first, row=0, values=arguments.pixel_values)
    if max(image.size) > SMALL:
        raise ValueError(
            f"The first image has {image.width} x {image.height} pixels, and cifar_resnet takes any size: state the one to "
            "train at, for example --image_size 32 as for CIFAR."
        )


def _ways_on(on_bad_image: str, are_checked: bool = True) -> str:
    """What to do about images that cannot be read."""
    if on_bad_image != "skip":
        also = "" if are_checked else " with --check_images true"
        return (
            f"Replace or remove the files, or train without those of the training split by --on_bad_image skip{also}."
        )
    if not are_checked:
        return "--on_bad_image skip needs --check_images true for images that are kept in memory."
    return "--on_bad_image skip leaves training images out and no test image: replace or remove these files."


def _refuse_unreadable(splits: Sequence[Dataset], arguments: DataArguments, progress: bool, ways: str) -> None:
    column, values = arguments.image_column, arguments.pixel_values
    messages = [message for split in splits for message in unreadable_images(split, column, progress, values)]
    if messages:
        raise ValueError("\n".join([*messages[:10], f"Unreadable images in all: {len(messages)}. {ways}"]))
