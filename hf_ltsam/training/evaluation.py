"""Evaluation of anything that returns logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import PreTrainedModel, Trainer
from transformers.trainer_utils import EvalLoopOutput

from hf_ltsam.hyperparameters import COUNT, NON_NEGATIVE, require
from hf_ltsam.landscape.landscape import MicroBatch
from hf_ltsam.models.logits import logits_of
from hf_ltsam.models.views import averaged_logits
from hf_ltsam.training.refusals import check_columns

# ---- predicted classes that depend on the model and the images alone, not on batch size or number of proc ----

# Two leading logits closer than this share of the largest are a tie within rounding. In float32 the same image's logits
# differ between batch sizes by some 1e-6 of the largest, so the margin is wide; what falls into it is computed alone.
TIE = 1e-4


class Views(Protocol):
    """Test images: sample i is its views (V, channels, height, width), as `Preprocessing.views` makes them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Tensor: ...


def predict_classes(
    model: nn.Module, images: Views, batch_size: int = 64, num_workers: int = 0, progress: str | None = None
) -> Tensor:
    """The class of every image (N,), int64 on the CPU, in every process; -1 where a logit is NaN.

    Each process of `accelerate launch` takes whole batches, in turn, so no image is seen twice and none is made up to
    fill a batch: with one batch size the logits are the same bits for any number of processes. Between batch sizes
    logits differ in their last bits; an image whose two leading logits are that close is predicted alone, which is the
    same computation whatever the batch was. On an accelerator float32 is float32 (no TF32) and kernels deterministic.

    Args:
        model: called with `pixel_values=`, in evaluation mode; of a process group, on the device of its process.
        images: all processes have the same.
        batch_size: of every process; memory and speed only.
        num_workers: processes that load images, for every process.
        progress: title of a progress bar; None: no bar.
    """
    device = next((weights.device for weights in model.parameters()), torch.device("cpu"))
    predicted = torch.zeros(len(images), dtype=torch.long, device=device)
    return _filled(predicted, lambda views: _classes(model, views), images, batch_size, num_workers, progress)


def predict_logits(
    model: nn.Module,
    images: Views,
    num_classes: int,
    batch_size: int = 64,
    num_workers: int = 0,
    progress: str | None = None,
) -> Tensor:
    """The logits of every image (N, C), means over its views, float32 on the CPU, in every process.

    Batches, precision and arguments as in `predict_classes`.

    Args:
        num_classes: C.
    """
    device = next((weights.device for weights in model.parameters()), torch.device("cpu"))
    logits = torch.zeros(len(images), num_classes, device=device)
    return _filled(logits, lambda views: averaged_logits(model, views), images, batch_size, num_workers, progress)


def _filled(
    values: Tensor,
    of_views: Callable[[Tensor], Tensor],
    images: Views,
    batch_size: int,
    num_workers: int,
    progress: str | None,
) -> Tensor:
    """Zeros (N, ...) of the device, filled with what is made of every image's views."""
    require(COUNT, "prediction", batch_size=batch_size)
    require(NON_NEGATIVE, "prediction", num_workers=num_workers)
    state = PartialState()
    batches = torch.arange(len(images)).split(batch_size)[state.process_index :: state.num_processes]
    bar = tqdm(batches, desc=progress, unit="batch", leave=False, disable=None if progress else True)
    with torch.no_grad(), full_precision():
        for rows, views in zip(bar, _load(images, batches, num_workers)):
            values[rows.to(values.device)] = of_views(views.to(values.device)).to(values.dtype)
    if state.num_processes > 1:  # every row was written by one process, the others hold zeros
        values = reduce(values, reduction="sum")
    return values.cpu()


@contextmanager
def full_precision() -> Iterator[None]:
    """float32 without TF32, and deterministic convolutions."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, matmul.allow_tf32
    cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, matmul.allow_tf32 = False, True, False, False
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, matmul.allow_tf32 = before


def _load(images: Views, batches: Sequence[Tensor], num_workers: int) -> Any:
    workers = min(num_workers, len(batches))
    return DataLoader(images, batch_sampler=[rows.tolist() for rows in batches], num_workers=workers)  # type: ignore[arg-type]


def _classes(model: nn.Module, views: Tensor) -> Tensor:
    """Predicted classes (n,) of views (n, V, channels, height, width)."""
    logits = averaged_logits(model, views)
    alone = [averaged_logits(model, views[row : row + 1])[0] for row in near_ties(logits).nonzero()[:, 0].tolist()]
    if alone:
        logits[near_ties(logits)] = torch.stack(alone)
    return torch.where(logits.isnan().any(dim=1), -1, logits.argmax(dim=1))


def near_ties(logits: Tensor) -> Tensor:
    """Whether the two leading logits of a row (n, C) may change places by rounding (n,)."""
    first, second = logits.topk(2, dim=1).values.unbind(dim=1)
    return first - second <= TIE * logits.abs().amax(dim=1)


class EvaluatesLogits(Trainer):
    """The stock Trainer, whose `eval_loss` is the plain cross-entropy of the raw logits, whatever the training loss."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._known_columns: set[frozenset[str]] = set()
        super().__init__(*args, **kwargs)

    def micro_batch(self, inputs: dict[str, Any]) -> MicroBatch:
        """Inputs and labels apart.

        Raises:
            ValueError: there are no labels under the name of `label_names`, no samples, or columns that the model does not
                take.
        """
        name = self.label_names[0]
        if name not in inputs:
            renamed = " (the default collator renames 'label' to 'labels')" if name == "label" else ""
            raise ValueError(
                f"The batch has no {name!r}, only {sorted(inputs)}{renamed}. Name the label column 'labels', or set "
                "label_names=[...] in LTSamConfig to the name in the batch."
            )
        others = {k: v for k, v in inputs.items() if k != name}
        if frozenset(others) not in self._known_columns:
            check_columns(self.model, others)
            self._known_columns.add(frozenset(others))
        labels = inputs[name]
        if labels.ndim and not len(labels):
            raise ValueError(
                f"The batch has no samples ({name!r} has shape {tuple(labels.shape)}): nothing could be learned from it. "
                "Let the data collator return at least one, or leave samples out of the data set before."
            )
        return MicroBatch(others, labels if labels.is_floating_point() else labels.long())

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Mapping[str, Any]]:
        """The plain cross-entropy (a mean) of the raw logits."""
        batch = self.micro_batch(inputs)
        outputs = model(**batch.inputs)
        logits = logits_of(outputs)
        loss = F.cross_entropy(logits, batch.labels)
        if not return_outputs:
            return loss
        others = outputs if isinstance(outputs, Mapping) else {}
        return loss, {"logits": logits, **{k: v for k, v in others.items() if k != "logits"}}  # metrics take the first

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """As stock, with the loss as the mean over the samples, whatever the batches and the number of processes.

        The stock loop repeats the mean of each batch, as if a smaller last one were full.
        """
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        name, own = f"{metric_key_prefix}_loss", type(self).compute_loss is EvaluatesLogits.compute_loss
        if own and name in (output.metrics or {}) and self.preprocess_logits_for_metrics is None:
            loss = _mean_cross_entropy(output.predictions, output.label_ids)
            output.metrics[name] = output.metrics[name] if loss is None else loss
        return output

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        if self.label_names[0] in inputs or isinstance(self.model, PreTrainedModel):
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        # Without labels the stock step would take a bare tensor of one row for a tuple of one output.
        with torch.no_grad(), self.compute_loss_context_manager():
            return None, logits_of(model(**self._prepare_inputs(inputs))).detach(), None


def _mean_cross_entropy(predictions: Any, labels: Any) -> float | None:
    """Of logits (N, C), or a tuple that begins with them, and class indices (N,); None where they are something else."""
    predictions = predictions[0] if isinstance(predictions, tuple) else predictions
    if not isinstance(predictions, np.ndarray) or not isinstance(labels, np.ndarray) or predictions.ndim != 2:
        return None
    if labels.shape != predictions.shape[:1] or labels.dtype.kind != "i":
        return None
    return float(F.cross_entropy(torch.as_tensor(predictions).double(), torch.as_tensor(labels).long()))
