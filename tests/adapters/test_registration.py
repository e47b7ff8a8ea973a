"""Our entries in the tables of peft. If a test here fails, peft has changed: see `registration.py`."""

import json
import subprocess

import pytest
from adapters.tiny import METHODS, adapted, bare
from forked import PYTHON
from peft import PeftConfig, PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner
from time_limits import PATIENCE

from hf_ltsam.adapters.registration import LTSamPeftType, register
from hf_ltsam.adapters.ssf import SSFConfig, SSFModel

TABLES = (PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING)


def test_the_tables_of_peft_are_unchanged():
    for table, value in zip(TABLES, ("LoraConfig", "LoraModel", "lora_")):
        entry = table[PeftType.LORA]
        assert (entry if isinstance(entry, str) else entry.__name__) == value
        assert table["LORA"] is entry, "looked up by the text of adapter_config.json"
    assert PEFT_TYPE_TO_TUNER_MAPPING[PeftType.LORA].prefix == "lora_"


def test_our_types_are_in_the_tables_and_peft_has_none_of_their_names():
    for ours in LTSamPeftType:
        assert ours.name == ours.value == ours and hash(ours) == hash(ours.value)
        assert str(ours) == f"LTSamPeftType.{ours.name}", "as of peft's enum, which get_model_status takes apart"
        assert all(ours in table and ours.value in table for table in TABLES)
        assert ours.value not in [member.value for member in PeftType]
    prefixes = list(PEFT_TYPE_TO_PREFIX_MAPPING.values())
    assert all(prefixes.count(PEFT_TYPE_TO_PREFIX_MAPPING[ours]) == 1 for ours in LTSamPeftType)


def test_peft_still_has_the_methods_that_our_tuner_overrides():
    """If peft renamed one, ours would silently never be called."""
    for name in (
        "_prepare_adapter_config",
        "_prepare_model",
        "_create_and_replace",
        "_replace_module",
        "_check_merge_allowed",
        "_check_target_module_exists",
        "_remap_adapter_state_dict_for_load",
        "inject_adapter",
        "unload",
    ):
        assert callable(vars(BaseTuner).get(name) and getattr(BaseTuner, name)), name


def test_a_prefix_that_is_taken_is_refused():
    class Other(SSFModel):
        prefix = "lora_"

    with pytest.raises(RuntimeError, match=r"peft has a method .*LORA whose parameters start with 'lora_'"):
        register(LTSamPeftType.HF_LTSAM_SSF, SSFConfig, Other)
    assert PEFT_TYPE_TO_TUNER_MAPPING[LTSamPeftType.HF_LTSAM_SSF] is SSFModel
    register(LTSamPeftType.HF_LTSAM_SSF, SSFConfig, SSFModel)  # as on a second import


@pytest.mark.parametrize("method", METHODS)
def test_configurations_round_trip(method, tmp_path):
    model = adapted(method, bare("vit"), modules_to_save=None)
    config = model.peft_config["default"]
    config.save_pretrained(tmp_path)
    loaded = PeftConfig.from_pretrained(tmp_path)
    assert type(loaded) is type(config) and loaded.to_dict() == config.to_dict()
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == config.peft_type.value


FRESH = """
import sys, torch
from safetensors.torch import load_file
from transformers import ViTModel
from peft import PeftModel
folder = sys.argv[1]
base = ViTModel.from_pretrained(folder + "/base")
try:
    PeftModel.from_pretrained(base, folder + "/adaptformer")
except KeyError as error:
    print("without:", error)
import hf_ltsam.adapters
for method in sys.argv[2:]:
    model = PeftModel.from_pretrained(ViTModel.from_pretrained(folder + "/base"), f"{folder}/{method}").eval()
    case = load_file(f"{folder}/{method}.safetensors")
    with torch.no_grad():
        print(method, torch.equal(model(pixel_values=case["images"])[0], case["output"]))
"""


@pytest.mark.slow
def test_in_a_fresh_process(tmp_path):
    """Three lines load it; without the import the error names what is missing."""
    from adapters.tiny import IMAGES, logits
    from safetensors.torch import save_file

    bare("vit").save_pretrained(tmp_path / "base")
    for method in METHODS:
        model = adapted(method, bare("vit"), modules_to_save=None)
        model.save_pretrained(tmp_path / method)
        save_file({"images": IMAGES, "output": logits(model).contiguous()}, tmp_path / f"{method}.safetensors")
    done = subprocess.run(
        [PYTHON, "-c", FRESH, str(tmp_path), *METHODS], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert "without: 'HF_LTSAM_ADAPTFORMER'" in done.stdout
    assert all(f"{method} True" in done.stdout for method in METHODS), done.stdout
