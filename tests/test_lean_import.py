"""Training from tensors needs neither datasets nor evaluate nor open_clip nor torchvision nor peft: GPU servers lack them."""

import subprocess
import sys

import pytest
from forked import PYTHON
from time_limits import PATIENCE

SCRIPT = """
import sys
from importlib.machinery import PathFinder

BLOCKED = {"datasets", "evaluate", "open_clip", "torchvision", "timm", "matplotlib", "sklearn", "rich", "peft"}

find = PathFinder.find_spec
PathFinder.find_spec = staticmethod(lambda name, *where: None if name.split(".")[0] in BLOCKED else find(name, *where))
import hf_ltsam
assert "torch" not in sys.modules, "import hf_ltsam waits for torch"
import torch
from hf_ltsam import CifarResNetConfig, CifarResNetForImageClassification, LTSamConfig, LTSamTrainer
from hf_ltsam.data.in_memory.images import InMemoryImages

labels = torch.tensor([0] * 8 + [1] * 3 + [2])
data = InMemoryImages(torch.randint(0, 255, (12, 3, 8, 8), dtype=torch.uint8), labels, [0.5] * 3, [0.2] * 3, augment=True)
model = CifarResNetForImageClassification(CifarResNetConfig(depth=8, num_labels=3))
args = LTSamConfig(output_dir=sys.argv[1], max_steps=2, use_cpu=True, report_to="none", save_strategy="no",
                   method="focal_sam", loss="logit_adjustment", learning_rate=0.1, disable_tqdm=True)
trainer = LTSamTrainer(model, args, train_dataset=data, eval_dataset=data)
trainer.train()
print(sorted(trainer.evaluate()))
assert not BLOCKED & {name.split(".")[0] for name in sys.modules}
"""


@pytest.mark.slow
def test_training_from_tensors_imports_only_what_it_needs(tmp_path):
    """And `import hf_ltsam` not even torch."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert "eval_balanced" in done.stdout and "eval_few" in done.stdout


SUBPACKAGES = """
import hf_ltsam
print("sam" in hf_ltsam.methods.METHODS, "ldam" in hf_ltsam.losses.LOSSES)
print(hf_ltsam.models.__name__, hf_ltsam.adapters.__name__)
print(hf_ltsam.LossLandscape.__name__, hf_ltsam.landscape.LossLandscape is hf_ltsam.LossLandscape)
print({"adapters", "losses", "methods", "models"} <= set(dir(hf_ltsam)), hasattr(hf_ltsam, "method"))
"""


def test_the_public_subpackages_need_no_import_of_their_own():
    done = subprocess.run([PYTHON, "-c", SUBPACKAGES], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "True True",
        "hf_ltsam.models hf_ltsam.adapters",
        "LossLandscape True",
        "True False",
    ]
