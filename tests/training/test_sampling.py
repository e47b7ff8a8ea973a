"""Training with other shares of the classes than those of the training set: what the model sees, and resuming."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import IterableDataset, RandomSampler, WeightedRandomSampler
from training.noisy_run import COUNTS, Model, Noisy, noisy_trainer
from training.two_processes_sampling import Recorder, trainer_of
from training.two_ranks import results_of_two_ranks

from hf_ltsam import ClassStatistics, LTSamConfig, LTSamTrainer
from hf_ltsam.data.sampling.class_sampled_stream import ClassSampledStream

SCRIPT = Path(__file__).with_name("two_processes_sampling.py")


def assert_same(a, b):
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(x, y), name


class Stream(IterableDataset):
    """`Noisy`, in a new order in every pass."""

    def __init__(self):
        self.rows, self.epoch = Noisy(), 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        for i in np.random.default_rng(self.epoch).permutation(len(self.rows)):
            yield self.rows[int(i)]


def stream_trainer(folder, **settings):
    args = {
        "output_dir": str(folder),
        "max_steps": 12,
        "per_device_train_batch_size": 4,
        "optim": "sgd",
        "optim_args": "momentum=0.9",
        "max_grad_norm": 0.0,
        "learning_rate": 0.05,
        "save_steps": 4,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "method": "sgd",
        "logging_strategy": "no",
        "sampling": "class_balanced",
        **settings,
    }
    return LTSamTrainer(Model(), LTSamConfig(**args), train_dataset=Stream(), class_statistics=ClassStatistics(COUNTS))


@pytest.mark.parametrize(("sampling", "step"), [("class_aware", 4), ("class_balanced", 10), ("square_root", 12)])
def test_resumed_in_mid_epoch(sampling, step, tmp_path):
    settings = {"sampling": sampling, "save_steps": 2}
    whole = noisy_trainer(tmp_path, **settings)
    whole.train()
    resumed = noisy_trainer(tmp_path, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    assert_same(resumed.model, whole.model)


# the tau that balances draws in proportion to n^q is q: 0 for equal shares, 1/2 for the square root
@pytest.mark.parametrize(
    ("sampling", "loss", "settings", "words"),
    [
        (
            "class_aware",
            "logit_adjustment",
            {},
            "sampling='class_aware' and loss='logit_adjustment' with tau 1 both make up",
        ),
        ("class_balanced", "vector_scaling", {}, "or set tau=0 beside this sampling."),
        ("square_root", "logit_adjustment", {"loss_args": {"tau": 0.75}}, "or set tau=0.5 beside this sampling."),
        ("square_root", "balanced_softmax", {}, "twice. Leave one of them out."),
        ("square_root", "logit_adjustment", {"loss_args": {"tau": 0.5}}, None),
        ("class_aware", "logit_adjustment", {"loss_args": {"tau": 0.0}}, None),
        ("class_aware", "cross_entropy", {}, None),
        ("uniform", "logit_adjustment", {"loss_args": {"tau": 2.0}}, None),
    ],
)
def test_classes_that_loss_and_sampling_both_balance_are_warned_of(sampling, loss, settings, words, tmp_path, caplog):
    noisy_trainer(tmp_path, sampling=sampling, loss=loss, **settings)
    warned = [r.getMessage() for r in caplog.records if "make up for the frequencies" in r.getMessage()]
    assert len(warned) == (words is not None)
    assert words is None or words in warned[0]


def test_a_stream_that_is_sampled_by_class_is_warned_of_as_well(tmp_path, caplog):
    statistics = ClassStatistics(COUNTS)
    stream = ClassSampledStream(Stream(), statistics, "square_root", 0)
    args = LTSamConfig(output_dir=str(tmp_path), max_steps=1, report_to="none", use_cpu=True, loss="logit_adjustment")
    LTSamTrainer(Model(), args, train_dataset=stream, class_statistics=statistics)
    assert "sampling='square_root' and loss='logit_adjustment' with tau 1 both make up" in caplog.text


class Replacing(LTSamTrainer):
    def _get_train_sampler(self, train_dataset=None):
        return RandomSampler(Noisy(), replacement=True)


def test_torchs_random_sampler_resumes_in_the_middle_of_its_second_epoch(tmp_path):
    """accelerate makes its order a function of seed and epoch, which it does for samplers of this class alone."""
    whole, resumed = (noisy_trainer(tmp_path, kind=Replacing, save_steps=2) for _ in range(2))
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-10"))
    assert_same(resumed.model, whole.model)


@pytest.mark.parametrize("sampling", ["class_balanced", "class_aware"])
def test_a_stream_resumes_also_behind_its_first_pass(sampling, tmp_path):
    """A pass has 5.5 batches; the checkpoint is written after 8."""
    whole, resumed = (stream_trainer(tmp_path, sampling=sampling) for _ in range(2))
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))
    assert_same(resumed.model, whole.model)


class Weighted(LTSamTrainer):
    def _get_train_sampler(self, train_dataset=None):
        generator = torch.Generator().manual_seed(0)
        return WeightedRandomSampler([1.0 / COUNTS[c] for c in Noisy().labels], 24, generator=generator)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(LTSamTrainer, {"sampling": "class_aware"}), (LTSamTrainer, {"sampling": "class_balanced"}), (Weighted, {})],
    ids=["class_aware", "class_balanced", "own sampler"],
)
def test_samples_of_rare_classes_are_augmented_anew_at_every_draw(kind, settings, tmp_path):
    """Three samples fill a third of the epoch, as in a training loop of torch each time with other random numbers."""
    trainer = noisy_trainer(tmp_path, kind=kind, method="sgd", **settings)
    batches = list(trainer.get_train_dataloader())
    labels, inputs = (torch.cat([batch[name] for batch in batches]) for name in ("labels", "x"))
    rare = inputs[labels == 2]
    assert len(rare) > 5 and len(torch.unique(rare, dim=0)) == len(rare)


def labels_seen(trainer):
    recorder = Recorder()
    recorder.watch(trainer)
    trainer.train()
    return torch.cat(recorder.labels)


def test_the_model_sees_the_shares(tmp_path):
    settings = {"save_strategy": "no", "num_train_epochs": 50, "method": "sgd"}
    plain, aware = (labels_seen(noisy_trainer(tmp_path, sampling=s, **settings)) for s in ("uniform", "class_aware"))
    np.testing.assert_allclose(np.bincount(plain) / len(plain), np.array(COUNTS) / 22, atol=1e-9)
    assert (aware.view(50, 24)[:, :24].view(-1, 3).sort(dim=1).values == torch.arange(3)).all()
    assert len(plain) == 50 * 22 and len(aware) == 50 * 24  # as many steps, without a smaller last batch


def test_the_statistics_stay_those_of_the_training_set(tmp_path):
    assert noisy_trainer(tmp_path, sampling="class_balanced").class_statistics.counts == tuple(COUNTS)


def test_resuming_with_another_sampling_is_refused(tmp_path):
    noisy_trainer(tmp_path, max_steps=4, sampling="class_aware").train()
    with pytest.raises(ValueError, match='sampling: "class_aware" in the checkpoint, "uniform" now'):
        noisy_trainer(tmp_path).train(resume_from_checkpoint=True)


class NoLabels(Noisy):
    def __init__(self):
        super().__init__()
        self.hidden, self.labels = self.labels, None

    def __len__(self):
        return 22

    def __getitem__(self, index):
        return {"x": torch.zeros(5), "labels": self.hidden[index]}


def test_refusals(tmp_path):
    args = {
        "output_dir": str(tmp_path),
        "use_cpu": True,
        "report_to": "none",
        "max_steps": 1,
        "optim": "sgd",
        "optim_args": "momentum=0.9",
        "max_grad_norm": 0.0,
        "learning_rate": 0.1,
    }
    with pytest.raises(ValueError, match=r"Unknown sampling 'class_balance'. Did you mean 'class_balanced'"):
        LTSamConfig(sampling="class_balance", **args)
    with pytest.raises(ValueError, match="both say which image comes next"):
        LTSamConfig(sampling="class_aware", train_sampling_strategy="sequential", **args)
    trainer = LTSamTrainer(
        Model(),
        LTSamConfig(sampling="class_aware", **args),
        train_dataset=NoLabels(),
        class_statistics=ClassStatistics(COUNTS),
    )
    with pytest.raises(ValueError, match=r"needs the labels of the training set, which shows none.*attribute `labels`"):
        trainer.train()
    from hf_ltsam.data.sampling.class_sampled_stream import ClassSampledStream

    other = stream_trainer(tmp_path)
    other.train_dataset = ClassSampledStream(Stream(), ClassStatistics(COUNTS), "class_aware")
    with pytest.raises(ValueError, match="is sampled 'class_aware' already: leave out sampling='class_balanced'"):
        other.train()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return results_of_two_ranks(SCRIPT, tmp_path_factory.mktemp("two"))


@pytest.mark.slow
@pytest.mark.parametrize("data", ["points", "stream"])
def test_two_processes_share_an_epoch(ranks, data, tmp_path):
    """Together they see, step by step, what one process with batches twice as large sees; resumed in mid-epoch too."""
    first, second = (r[data]["seen"] for r in ranks)
    assert len(first) == len(second) == 12
    alone = trainer_of(data, tmp_path, batch_size=8)
    alone.train()
    for a, b, both in zip(first, second, alone.recorder.seen, strict=True):
        assert torch.equal(torch.cat([a, b]), both)
    for rank in ranks:
        assert all(torch.equal(x, y) for x, y in zip(rank[data]["seen"][7:], rank[data]["resumed"], strict=True))
        for name, value in rank[data]["state"].items():
            assert torch.equal(value, rank[data]["resumed_state"][name]), name
            assert torch.equal(value, ranks[0][data]["state"][name]), name
