"""How peft learns of methods that are not its own: the one place that knows.

`peft.utils.register_peft_method` takes only names that are members of peft's enum `PeftType`, and an enum cannot be
extended from outside. What it does in the end is to write into three tables, keyed by the type; everything peft later asks
(the configuration class of a folder, the tuner of a configuration, the prefix of its state dict) it reads from there. So the
same three entries are written here. The keys are members of an enum of our own that are strings, as peft's are: equal to
the text in `adapter_config.json`, and with a `.value`, which some messages of peft and transformers print.

The names start with HF_LTSAM, so that a method which peft adds under its common name is another one, and whoever loads a
folder without `import hf_ltsam.adapters` finds in the KeyError what is missing. `tests/adapters/test_registration.py` fails
where peft's tables change.
"""

from __future__ import annotations

import enum

import peft
from packaging.version import Version
from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner

if Version(peft.__version__) < Version("0.21"):  # there save_pretrained knows peft's own methods alone
    raise ImportError(f"hf_ltsam.adapters needs peft >= 0.21, found {peft.__version__}: pip install --upgrade peft")


class OwnPeftType(enum.StrEnum):
    """Types beside those of `peft.PeftType`; name and value are the same, so that member and text hash alike."""

    HF_LTSAM_ADAPTFORMER = "HF_LTSAM_ADAPTFORMER"
    HF_LTSAM_VPT = "HF_LTSAM_VPT"
    HF_LTSAM_SSF = "HF_LTSAM_SSF"


def register(peft_type: OwnPeftType, config: type[PeftConfig], tuner: type[BaseTuner]) -> None:
    """Enter a method into peft's tables; a second time it overwrites itself (a module imported anew, say).

    Raises:
        RuntimeError: the prefix of its parameters belongs to another method.
    """
    tables: tuple[dict, dict, dict] = (
        PEFT_TYPE_TO_CONFIG_MAPPING,
        PEFT_TYPE_TO_TUNER_MAPPING,
        PEFT_TYPE_TO_PREFIX_MAPPING,
    )
    taken = [other for other, prefix in tables[2].items() if prefix == tuner.prefix and other != peft_type]
    if taken:
        raise RuntimeError(
            f"peft has a method {taken[0]} whose parameters start with {tuner.prefix!r}, as those of {tuner.__name__} do: "
            "use an older peft, or a newer hf_ltsam."
        )
    for table, entry in zip(tables, (config, tuner, tuner.prefix)):
        table[peft_type] = entry
