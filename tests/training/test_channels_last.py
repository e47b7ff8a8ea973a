"""`channels_last`: every method gives the same training, files hold the usual order, and a run resumes bit for bit."""

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from training.test_batches_on_device import assert_same
from training.two_processes_in_memory import COUNTS

from hf_ltsam import CifarResNetConfig, CifarResNetForImageClassification, ClassStatistics, LTSamConfig, LTSamTrainer
from hf_ltsam.data.in_memory.images import InMemoryImages
from hf_ltsam.methods import METHODS

METHOD_ARGS = {
    "sam": {"rho": 0.3},
    "sse_sam": {"gamma": 0.5, "rho_head": 0.2, "rho_tail": 0.4},
    "focal_sam": {"rho": 0.3},
    "cc_sam": {"scale": 0.3, "mix": 0.6, "parameters": "all"},
    "looksam": {"rho": 0.3, "every": 2},
}


class Wide(nn.Module):
    """A ResNet in double precision on images in single."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner = CifarResNetForImageClassification(CifarResNetConfig(depth=8, num_labels=3)).double()
        self.formats = set()  # of the images and of a convolution's weights, where the two orders differ

    def forward(self, pixel_values: Tensor) -> Tensor:
        for tensor in (pixel_values, next(p for p in self.inner.parameters() if p.ndim == 4 and p.shape[1] > 1)):
            self.formats.add(tensor.is_contiguous(memory_format=torch.channels_last))
        return self.inner(pixel_values=pixel_values.double()).logits


def images():
    pixels = torch.randint(0, 256, (40, 3, 8, 8), generator=torch.Generator().manual_seed(2)).byte()
    labels = [c for c, n in enumerate(COUNTS) for _ in range(n)]
    return InMemoryImages(pixels, labels, [0.5] * 3, [0.25] * 3, augment=True, crop_padding=1)


def trainer_of(folder, model=Wide, **settings):
    given = {
        "output_dir": str(folder),
        "max_steps": 4,
        "per_device_train_batch_size": 8,
        "optim": "sgd",
        "optim_args": "momentum=0.9",
        "max_grad_norm": 0.0,
        "learning_rate": 0.05,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "save_strategy": "no",
        "logging_strategy": "no",
        "tail_threshold": 10,
        "weight_decay": 0.01,
        **settings,
    }
    return LTSamTrainer(
        model(), LTSamConfig(**given), train_dataset=images(), class_statistics=ClassStatistics(COUNTS, 10)
    )


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_alike(method, tmp_path):
    settings = {"method": method, "method_args": METHOD_ARGS.get(method)}
    plain, last = (trainer_of(tmp_path, channels_last=c, **settings) for c in (False, True))
    for trainer in (plain, last):
        trainer.train()
    assert plain.model.formats == {False} and last.model.formats == {True}
    for (name, a), b in zip(plain.model.state_dict().items(), last.model.state_dict().values(), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-7, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}")


def test_a_model_of_ones_own_is_saved_in_the_usual_order_and_resumes(tmp_path):
    settings = {
        "channels_last": True,
        "method": "looksam",
        "method_args": {"every": 3},
        "save_strategy": "steps",
        "save_steps": 2,
    }
    whole, resumed = (trainer_of(tmp_path, **settings) for _ in range(2))
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert_same(whole.model, resumed.model)
    assert resumed.model.formats == {True}
    whole.save_model(str(tmp_path / "final"))
    saved = load_file(tmp_path / "final" / "model.safetensors")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(saved[name], value)


def test_a_pretrained_model_is_loaded_as_it_was_saved(tmp_path):
    def model():
        return CifarResNetForImageClassification(CifarResNetConfig(depth=8, num_labels=3))

    trainer = trainer_of(tmp_path, model, channels_last=True, max_steps=1)
    trainer.train()
    trainer.save_model(str(tmp_path / "final"))
    assert_same(CifarResNetForImageClassification.from_pretrained(tmp_path / "final"), trainer.model)


def test_a_new_model_of_every_training_is_in_channels_last_order(tmp_path):
    given = {
        "output_dir": str(tmp_path),
        "max_steps": 1,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "optim": "sgd",
        "optim_args": "momentum=0.9",
        "max_grad_norm": 0.0,
        "learning_rate": 0.1,
        "save_strategy": "no",
        "channels_last": True,
    }
    trainer = LTSamTrainer(model_init=lambda: Wide(), args=LTSamConfig(**given), train_dataset=images())
    for _ in range(2):
        trainer.train()
        assert trainer.model.formats == {True}


def test_other_data_sets_come_in_channels_last_order_too(tmp_path):
    trainer = trainer_of(tmp_path, channels_last=True, max_steps=1)
    trainer.train_dataset = [{"pixel_values": image, "labels": 0} for image in torch.rand(8, 3, 8, 8)]
    trainer.train()
    assert trainer.model.formats == {True}
