"""A word at the end of a training that was to be sharpness-aware and was not."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback
from transformers.utils import logging

from .telemetry import Telemetry

logger = logging.get_logger(__name__)


class WarnsIfNothingWasPerturbed(TrainerCallback):
    """At the end of a training with a method that perturbs, if no perturbation was longer than nothing.

    Args:
        trainer: with `telemetry`, the training's, and `method_in_words`.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._from_the_start = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._from_the_start = state.global_step == 0

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        telemetry: Telemetry = self._trainer.telemetry
        telemetry.pop()        # what was not logged
        if self._from_the_start and state.global_step > 0 and not telemetry.acted:
            logger.warning(
                f"{self._trainer.method_in_words} perturbed nothing in all {state.global_step} steps: this was plain "
                "training. Look at its radius and at start, stop and interval."
            )
