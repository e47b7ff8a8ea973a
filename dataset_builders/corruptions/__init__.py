"""The corruptions of ImageNet-C, for any images: as a function, as a transform of a data set, and as a written -C set."""

from dataset_builders.corruptions.apply import corrupt
from dataset_builders.corruptions.parameters import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES
from dataset_builders.corruptions.reader import load_corrupted
from dataset_builders.corruptions.transform import corrupted
from dataset_builders.corruptions.writer import write_corrupted

__all__ = [
    "CORRUPTIONS",
    "EXTRA_CORRUPTIONS",
    "SEVERITIES",
    "corrupt",
    "corrupted",
    "load_corrupted",
    "write_corrupted",
]
