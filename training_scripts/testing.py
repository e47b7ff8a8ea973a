"""The test after the last epoch."""

from __future__ import annotations

from transformers.trainer_utils import PredictionOutput

from hf_ltsam import LTSamTrainer
from hf_ltsam.data.decode import encoded_images
from hf_ltsam.data.test_time import Preprocessing
from hf_ltsam.decoupling import SecondStageTrainer
from hf_ltsam.prediction import predict_logits
from training_scripts.arguments import Run
from training_scripts.ood_images import TestImages
from training_scripts.splits import Splits


def predict_test(run: Run, splits: Splits, trainer: LTSamTrainer) -> PredictionOutput:
    """Logits and labels of the test images; logits are means over each image's views, where `--test_time` asks for them."""
    if run.data.test_time == "none":
        return trainer.predict(trainer.eval_dataset, metric_key_prefix="test")
    see = Preprocessing.from_image_processor(trainer.processing_class)
    encoded = encoded_images(splits.test, run.data.image_column)
    config = run.config
    model = trainer.put_into_model() if isinstance(trainer, SecondStageTrainer) else trainer.model
    logits = predict_logits(
        model.eval(),
        TestImages(encoded, range(len(splits.test)), see, run.data.test_time),
        len(splits.class_names),
        config.per_device_eval_batch_size,
        config.dataloader_num_workers,
        None if config.disable_tqdm else f"test, {run.data.test_time}",
    )
    return PredictionOutput(logits.numpy(), splits.test_labels.numpy(), {})
