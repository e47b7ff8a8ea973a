"""What the training set looks like: class counts, prior, reporting groups, head and tail."""

from hf_ltsam.class_statistics.groups import GROUPS, group_bounds
from hf_ltsam.class_statistics.labels import NAMES_TO_NUMBERS, SHOWN, are_names, are_several, check_label_range
from hf_ltsam.class_statistics.statistics import FILE_NAME, ClassStatistics, per_class

__all__ = [
    "FILE_NAME",
    "GROUPS",
    "NAMES_TO_NUMBERS",
    "SHOWN",
    "ClassStatistics",
    "are_names",
    "are_several",
    "check_label_range",
    "group_bounds",
    "per_class",
]
