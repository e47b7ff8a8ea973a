"""Nothing that a step leaves behind adds up."""

import gc

import pytest
import torch
from training.noisy_run import noisy_trainer
from transformers import TrainerCallback


class Counts(TrainerCallback):
    """Live tensors after some of the steps."""

    def __init__(self, *steps):
        self.steps, self.tensors = steps, []

    def on_step_end(self, args, state, control, **_):
        if state.global_step in self.steps:
            gc.collect()
            self.tensors.append(sum(type(o) is torch.Tensor or type(o) is torch.nn.Parameter for o in gc.get_objects()))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sam", "looksam", "friendly_sam", "sse_sam", "cc_sam"])
def test_no_more_tensors_after_sixty_steps_than_after_twenty(method, tmp_path):
    counts = Counts(20, 60)
    trainer = noisy_trainer(
        tmp_path,
        method=method,
        callbacks=[counts],
        max_steps=60,
        per_device_train_batch_size=11,
        save_strategy="no",
        logging_steps=5,
    )
    trainer.train()
    early, late = counts.tensors
    assert late - early < 20, "one in every second step would be twenty"
