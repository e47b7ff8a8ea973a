"""What a recipe's name says about it, read independently of its content."""

import re
import tempfile
from functools import cache
from pathlib import Path

from hf_ltsam.cli.train.arguments import parse
from hf_ltsam.runs.recipes import recipe_names

NAME = re.compile(
    r"(?P<data>cifar10|cifar100|imagenet_lt|inaturalist2018|places_lt)(_(?P<kind>lt|step)_ir(?P<ratio>\d+))?"
    r"(_clip_(?P<clip>fft|lift))?_(?P<loss>ce_drw|ce|cb|gcl|la|ldam_drw|ldam|vs|ib)_(?P<method>[a-z_]+?)(_(?P<small>rho005))?(_(?P<decay>no_decay|decay))?"
    r"(_(?P<mixed>mixup|cutmix))?"
    r"(_(?P<epochs>\d+)_epochs)?(_(?P<suffix>li2025|lyu2025|rangwani2022|zhou2023b))?"
)
SPECIAL = ("swa", "spectral_norm", "focal_sam_reuse", "model_perturbation")  # more than a loss and a method
_EMPTY = Path(tempfile.mkdtemp())


class Row:
    """A recipe of the first stage by name; an attribute for each part of the name, None where it is not there."""

    def __init__(self, name):
        found = NAME.fullmatch(Path(name).name)
        if found is None:
            raise ValueError(f"{name} is not named as recipes are.")
        self.name = name
        self.data, self.kind, self.clip, self.loss, self.method, self.small, self.decay, self.suffix = found.group(
            "data", "kind", "clip", "loss", "method", "small", "decay", "suffix"
        )
        self.mixed = found["mixed"]
        self.ratio = found["ratio"] and int(found["ratio"])
        self.epochs = found["epochs"] and int(found["epochs"])
        self.on_cifar = self.data.startswith("cifar")

    @property
    def source(self):
        """Whose training it is."""
        if self.suffix:
            return self.suffix
        if self.loss == "ib":
            return "park2021"
        if self.decay:
            return "alshammari2022"
        if self.data == "places_lt":
            return "li2025"
        if self.mixed:
            return "zhong2021" if self.name.startswith("second_stage/") else "rangwani2022"
        if self.kind == "step" or self.loss == "ce_drw":
            return "rangwani2022"
        if self.method in ("sse_sam", "sam_ext"):
            return "lyu2025"
        zhou = self.method in ("swa", "spectral_norm", "model_perturbation") or (self.loss, self.method) == (
            "ce",
            "cc_sam",
        )
        return "zhou2023b" if zhou else "li2025"

    @property
    def run(self):
        return run_of(self.name)


@cache
def run_of(name):
    """Its settings, parsed once; where it needs a folder of images, an empty one."""
    folder = [] if name.startswith(("cifar", "second_stage/cifar")) else ["--dataset", str(_EMPTY)]
    return parse(["--config", name, "--use_cpu", "true", "--output_dir", str(_EMPTY / name), *folder])


FIRST_STAGES = [name for name in recipe_names() if name.startswith("second_stage/") and "_then_" not in name]
ROWS = [Row(name) for name in [*(name for name in recipe_names() if "/" not in name), *FIRST_STAGES]]
