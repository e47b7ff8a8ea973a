"""The corruptions of ImageNet-C, for any images: as a function, as a transform of a data set, and as a written -C set."""

from dataset_builders.corruptions.apply import corrupt
from dataset_builders.corruptions.parameters import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES

__all__ = ["CORRUPTIONS", "EXTRA_CORRUPTIONS", "SEVERITIES", "corrupt"]
