"""Weights that safetensors does not take as they are: written all the same, or refused before the training."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils import parametrizations
from transformers import PreTrainedConfig, PreTrainedModel, TrainerCallback

from hf_ltsam import LTSamConfig, LTSamTrainer
from hf_ltsam.training.checkpoint_folders import CheckpointError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.b(torch.tanh(self.a(x)))))


def tied():
    net = Net()
    net.b.weight = net.a.weight
    return net


def overlapping():
    net = Net()
    net.register_buffer("counts", torch.zeros(6))
    net.register_buffer("of_the_head", net.counts[:2])
    return net


def orthogonal():
    net = Net()
    parametrizations.orthogonal(net.a)
    return net


def transposed():
    net = Net()
    net.b.weight = nn.Parameter(torch.randn(4, 4).t())
    net.register_buffer("table", torch.randn(3, 5).t())
    return net


def in_channels_last():
    net = Net()
    net.a = nn.Sequential(nn.Unflatten(1, (4, 1, 1)), nn.Conv2d(4, 4, 3, padding=1), nn.Flatten())
    return net.to(memory_format=torch.channels_last)


def trainer(folder, model, callbacks=None, **settings):
    args = {
        "max_steps": 4,
        "save_strategy": "steps",
        "save_steps": 2,
        "optim": "sgd",
        "optim_args": "momentum=0.9",
        "max_grad_norm": 0.0,
        "learning_rate": 0.1,
        **settings,
    }
    config = LTSamConfig(str(folder), method="sam", use_cpu=True, report_to="none", disable_tqdm=True, **args)
    rows = [{"x": torch.randn(4, generator=torch.Generator().manual_seed(i)), "labels": i % 2} for i in range(16)]
    return LTSamTrainer(model, config, train_dataset=rows, callbacks=callbacks)


@pytest.mark.parametrize("make", [tied, overlapping, orthogonal, transposed, in_channels_last])
def test_they_are_saved_and_resumed(make, tmp_path):
    torch.manual_seed(0)
    first = make()
    whole = trainer(tmp_path, first)
    whole.train()
    torch.manual_seed(0)
    resumed = trainer(tmp_path, make())
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    saved = load_file(tmp_path / "checkpoint-4" / "model.safetensors")
    make().load_state_dict(saved)  # strict


class Tied(PreTrainedModel):
    """Without `_tied_weights_keys`."""

    config_class = type("TiedConfig", (PreTrainedConfig,), {"model_type": "tied"})

    def __init__(self, config):
        super().__init__(config)
        self.net = tied()
        self.post_init()

    def forward(self, x):
        return {"logits": self.net(x)}


def test_what_transformers_would_not_save_is_refused_before_the_training(tmp_path):
    made = trainer(tmp_path, Tied(Tied.config_class()))
    with pytest.raises(ValueError, match=r"Tied could not be saved: .*net.a.weight.*Tied._tied_weights_keys"):
        made.train()
    assert made.state.global_step == 0


class Failing(TrainerCallback):
    """As a tensor of a custom kind may, in somebody's own `state_dict`."""

    def __init__(self, error):
        self.error = error

    def on_train_begin(self, args, state, control, model, **_):
        def fails(*_):
            raise self.error

        model.register_state_dict_post_hook(fails)


@pytest.mark.parametrize(
    "error", [TypeError("no tensor"), RuntimeError("size mismatch"), KeyError("missing"), ValueError("bad value")], ids=repr
)  # fmt: skip
def test_only_the_disk_is_called_the_disk(error, tmp_path):
    with pytest.raises(type(error)) as raised:
        trainer(tmp_path, Net(), [Failing(error)]).train()
    assert raised.value is error and not isinstance(error, CheckpointError)
    assert not list(tmp_path.iterdir())
