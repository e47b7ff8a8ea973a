"""Registration of our methods with peft.

`peft.utils.register_peft_method` accepts only members of peft's enum `PeftType`, and an enum cannot be extended. In the end
it writes into three tables, keyed by the type, from which peft later reads the configuration class of a folder, the tuner
of a configuration and the prefix of its state dict. So the same three entries are written here. The keys are members of a
separate enum of peft's form: strings equal to the text in `adapter_config.json`, with a `.value`, which some messages of
peft and transformers print, and a `str` of which `get_model_status` shows what follows the point.

The names start with HF_LTSAM, so that they differ from those of peft if it adds such a method, and so that the KeyError of
a folder loaded without `import hf_ltsam.adapters` says what is missing. `tests/adapters/test_registration.py` fails if
peft's tables change.
"""

from __future__ import annotations

import enum

import peft
from packaging.version import Version
from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner

if Version(peft.__version__) < Version("0.21"):  # before, save_pretrained accepts peft's own methods only
    raise ImportError(f"hf_ltsam.adapters needs peft >= 0.21, found {peft.__version__}: pip install --upgrade peft")


class LTSamPeftType(str, enum.Enum):  # noqa: UP042 (a StrEnum has no point in its `str`)
    """Our types beside those of `peft.PeftType`. Name and value are equal, so that member and text hash alike."""

    HF_LTSAM_ADAPTFORMER = "HF_LTSAM_ADAPTFORMER"
    HF_LTSAM_VPT = "HF_LTSAM_VPT"
    HF_LTSAM_SSF = "HF_LTSAM_SSF"


def register(peft_type: LTSamPeftType, config: type[PeftConfig], tuner: type[BaseTuner]) -> None:
    """Enter a method into peft's tables; repeated, as in a notebook, it overwrites its entries.

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
