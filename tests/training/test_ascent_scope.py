"""What is perturbed together: a micro-batch, a whole step, so many samples at a time."""

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from hf_ltsam import LTSamConfig, LTSamTrainer
from hf_ltsam.methods import METHODS

METHOD_ARGS = {
    "cc_sam": {"scale": 0.5, "mix": 0.5},
    "sse_sam": {"gamma": 0.5},
    "pgd": {"sigma": 0.1},
    "lpf_sgd": {"gamma": 0.1},
}


class Points(Dataset):
    """32 samples (6,) of four classes, in a fixed order."""

    def __init__(self):
        self.x = torch.randn(32, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        self.labels = [[0, 0, 0, 1, 0, 2, 1, 3][i % 8] for i in range(32)]

    def __len__(self):
        return 32

    def __getitem__(self, index):
        return {"input": self.x[index], "labels": self.labels[index]}


class InOrder(LTSamTrainer):
    def _get_train_sampler(self, train_dataset=None):
        return torch.utils.data.SequentialSampler(self.train_dataset)


def model(*, norm=False):
    torch.manual_seed(0)
    middle = [nn.BatchNorm1d(7)] if norm else []
    return nn.Sequential(nn.Linear(6, 7), *middle, nn.Tanh(), nn.Linear(7, 4)).double()


def trained(folder, method, batch, accumulation=1, net=None, **settings):
    args = LTSamConfig(
        output_dir=str(folder),
        max_steps=3,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        learning_rate=0.5,
        optim="sgd",
        optim_args="momentum=0.9",
        max_grad_norm=0.0,
        lr_scheduler_type="constant",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        save_strategy="no",
        logging_steps=1,
        tail_threshold=4,
        method=method,
        method_args=METHOD_ARGS.get(method),
        **settings,
    )
    trainer = InOrder(model() if net is None else net, args, train_dataset=Points())
    trainer.train()
    return trainer


def flat(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def moved(trainer):
    start = torch.cat([p.detach().flatten() for p in model().parameters()])
    return flat(trainer) - start


def assert_close(a, b):
    assert (moved(a) - moved(b)).norm() <= 1e-6 * moved(b).norm()
    assert moved(b).norm() > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_micro_batches_of_a_step_equal_one_batch(method, tmp_path):
    whole = trained(tmp_path, method, 8)
    assert_close(trained(tmp_path, method, 2, 4, ascent_scope="step"), whole)
    if method in {"sam", "focal_sam"}:  # and the default is something else
        assert (moved(trained(tmp_path, method, 2, 4)) - moved(whole)).norm() > 1e-5 * moved(whole).norm()


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_logged_loss_is_the_mean_over_the_step(accumulation, tmp_path):
    whole = trained(tmp_path, "sam", 8)
    parts = trained(tmp_path, "sam", 8 // accumulation, accumulation, ascent_scope="step")
    losses = [[entry["loss"] for entry in t.state.log_history if "loss" in entry] for t in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert len(set(losses[0])) == 3


@pytest.mark.parametrize("method", METHODS)
def test_groups_of_a_batch_equal_micro_batches_of_that_size(method, tmp_path):
    """m-sharpness: each group with its own perturbation, whatever it is cut from."""
    groups = trained(tmp_path, method, 8, ascent_size=2)
    assert_close(groups, trained(tmp_path, method, 2, 4))
    assert_close(trained(tmp_path, method, 4, 2, ascent_scope="step", ascent_size=2), groups)


def test_groups_may_hold_several_micro_batches_and_a_rest(tmp_path):
    """Groups of 6 and 2 of eight samples: the mean weighs them by their samples."""
    ours = trained(tmp_path, "sam", 4, 2, ascent_scope="step", ascent_size=6)
    net, data, buffers = model(), Points(), []
    for step in range(3):
        parameters = list(net.parameters())
        total = [torch.zeros_like(p) for p in parameters]
        for rows in (range(8 * step, 8 * step + 6), range(8 * step + 6, 8 * step + 8)):
            x, y = data.x[list(rows)], torch.tensor([data.labels[i] for i in rows])
            g = torch.autograd.grad(nn.functional.cross_entropy(net(x), y), parameters)
            norm = torch.cat([t.flatten() for t in g]).norm()
            with torch.no_grad():
                for p, t in zip(parameters, g):
                    p.add_(0.05 * t / (norm + 1e-12))
            perturbed = torch.autograd.grad(nn.functional.cross_entropy(net(x), y), parameters)
            with torch.no_grad():
                for p, t, s, q in zip(parameters, g, total, perturbed):
                    p.sub_(0.05 * t / (norm + 1e-12))
                    s.add_(q, alpha=len(rows) / 8)
        buffers = [t.clone() for t in total] if step == 0 else [0.9 * b + t for b, t in zip(buffers, total)]
        with torch.no_grad():
            for p, b in zip(parameters, buffers):
                p.sub_(0.5 * b)
    expected = torch.cat([p.detach().flatten() for p in net.parameters()])
    torch.testing.assert_close(flat(ours), expected, rtol=0, atol=1e-10)


def test_a_whole_step_with_batch_norm_moves_its_statistics_once_per_micro_batch(tmp_path):
    once = trained(tmp_path, "sam", 4, 2, net=model(norm=True), ascent_scope="step")
    assert int(once.model[1].num_batches_tracked) == 6


def test_the_last_step_of_an_epoch_has_fewer_micro_batches(tmp_path):
    """32 samples in steps of 3 x 4: the third step has two micro-batches."""
    assert_close(
        trained(tmp_path, "sam", 4, 3, ascent_scope="step"),
        trained_on_unequal_steps(tmp_path),
    )


def trained_on_unequal_steps(folder):
    class Unequal(InOrder):
        def get_train_dataloader(self):
            data = Points()
            return [
                {"input": data.x[a:b], "labels": torch.tensor(data.labels[a:b])}
                for a, b in ((0, 12), (12, 24), (24, 32))
            ]

    args = LTSamConfig(
        output_dir=str(folder),
        max_steps=3,
        per_device_train_batch_size=12,
        learning_rate=0.5,
        optim="sgd",
        optim_args="momentum=0.9",
        max_grad_norm=0.0,
        lr_scheduler_type="constant",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        method="sam",
    )
    trainer = Unequal(model(), args, train_dataset=Points())
    trainer.train()
    return trainer


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"ascent_scope": "batch"}, r"ascent_scope='batch'.*Valid: micro, step"),
        ({"ascent_size": 0}, r"ascent_size=.*got 0"),
        ({"max_skipped_steps": 0}, r"max_skipped_steps=.*got 0"),
    ],
)
def test_settings_that_mean_nothing(settings, named, tmp_path):
    with pytest.raises(ValueError, match=named):
        LTSamConfig(output_dir=str(tmp_path), use_cpu=True, **settings)
