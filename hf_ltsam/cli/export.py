"""`ltsam export`: a run as one plain checkpoint, with its adapter merged into the weights."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer

from hf_ltsam.cli.options.parser import OptionParser
from hf_ltsam.data.preprocessing import Preprocessing, saved_image_processor
from hf_ltsam.models.text_classifier import auto_class, is_of_texts
from hf_ltsam.models.timm_config import state_image_processor
from hf_ltsam.runs.folder import CALIBRATION, CONFIG, RECIPE, RECORD, STATISTICS, RunFolder
from hf_ltsam.runs.model import load_run

ONNX = "model.onnx"
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_TOLERANCE = 1e-3  # of logits, relative to the largest: another order of float32 sums, and no more

FACTS = (RECORD, RECIPE, STATISTICS, CALIBRATION)  # what the run says about itself


def main(words: Sequence[str]) -> None:
    """`ltsam export RUN OUT`."""
    parser = OptionParser(prog="ltsam export", description="Write a run as one plain checkpoint, adapter merged.")
    parser.add_argument("run", metavar="RUN", type=Path, help="the output folder of a training run")
    parser.add_argument("out", metavar="OUT", type=Path, help="a new folder")
    parser.add_argument("--onnx", action="store_true", help=f"write {ONNX} too, for images: pixel_values to logits")
    arguments = parser.parse_args(words)
    if arguments.onnx:
        require_onnx(arguments.run)
    export(arguments.run, arguments.out)
    if arguments.onnx:
        print(f"{write_onnx(arguments.out)} gives the same logits, for batches of any size.")
    loads = auto_class(AutoConfig.from_pretrained(arguments.out)).__name__
    print(f"{arguments.out} holds the whole model: {loads}.from_pretrained, after import hf_ltsam.models.")


def export(run: Path, out: Path) -> None:
    """Write weights, image processor or tokenizer, and what the run says about itself into a new folder.

    Raises:
        FileNotFoundError: no run there.
        ValueError: the folder to write holds something, or the adapter cannot be merged.
    """
    if not RunFolder(run).has(CONFIG):
        raise FileNotFoundError(f"{run} holds no finished run: there is no {CONFIG} in it.")
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty: name a new folder.")
    model: Any = merged(load_run(run), run)
    processor = AutoTokenizer.from_pretrained(run) if is_of_texts(model.config) else saved_image_processor(run)
    state_image_processor(model.config, processor)
    model.save_pretrained(out)
    processor.save_pretrained(out)
    for name in FACTS:
        if (run / name).is_file():
            shutil.copy2(run / name, out / name)
    _results_stay_true(run, out)


class _Logits(nn.Module):
    """pixel_values (n, channels, height, width) -> logits (n, C)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model(pixel_values=pixel_values).logits


def require_onnx(run: Path) -> None:
    """Refuse before anything is written.

    Raises:
        ValueError: a package is not installed, or the run is one of texts.
    """
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"--onnx needs {', '.join(missing)}: pip install {' '.join(missing)}.")
    if RunFolder(run).has(CONFIG) and is_of_texts(AutoConfig.from_pretrained(run)):
        raise ValueError(f"--onnx is for models of images, and {run} is one of texts: leave it out.")


def write_onnx(folder: Path) -> Path:
    """The exported model of images as ONNX, beside its weights, once onnxruntime has computed the same logits.

    Raises:
        ValueError: other logits.
    """
    import onnxruntime

    model = _Logits(load_run(folder)).eval()
    see = Preprocessing.from_image_processor(saved_image_processor(folder))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, len(see.mean), see.height, see.width, generator=generator)
    file = folder / ONNX
    batch = {"pixel_values": {0: torch.export.Dim("batch")}}
    names: dict[str, Any] = {"input_names": ["pixel_values"], "output_names": ["logits"]}
    torch.onnx.export(model, (images[:2],), file, dynamic_shapes=batch, dynamo=True, external_data=False, **names)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    theirs = torch.from_numpy(session.run(None, {"pixel_values": images.numpy()})[0])
    with torch.no_grad():
        ours = model(images)
    difference = float((theirs - ours).abs().max())
    if not difference <= _TOLERANCE * max(1.0, float(ours.abs().max())):
        file.unlink()
        raise ValueError(
            f"--onnx: onnxruntime's logits differ from the model's by {difference:.3g}: {ONNX} is not kept."
        )
    return file


def _results_stay_true(run: Path, out: Path) -> None:
    """The merged weights compute the same, so the results that were those of the run's weights are theirs too."""
    source, merged_run = RunFolder(run), RunFolder(out)
    record = source.record
    if record is not None and record.weights_sha256 and record.weights_sha256 == source.weights_sha256:
        merged_run.write_record(replace(record, weights_sha256=merged_run.weights_sha256))


def merged(model: nn.Module, run: Path) -> nn.Module:
    """The model without its adapter, which computes the same.

    Raises:
        ValueError: an adapter that is no change of weights.
    """
    if not isinstance(model, PeftModel):
        return model
    tuner: Any = model.base_model  # LoraModel, IA3Model, ...
    try:
        return tuner.merge_and_unload()
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"{run} holds an adapter ({type(tuner).__name__}) that cannot become part of the weights: {error} Load "
            f"it as it is: hf_ltsam.load_run({str(run)!r})."
        ) from error
