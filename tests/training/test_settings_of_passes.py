"""Settings and optimizers of the stock Trainer that reach into the passes: as stock with `sgd`, as a naive loop with SAM."""

import math

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from torch.utils.data import SequentialSampler
from training import modes
from training.test_equals_stock_trainer import StockTrainer
from transformers import BertConfig, BertForSequenceClassification, TrainerCallback, TrainingArguments

from hf_ltsam import LTSamConfig, LTSamTrainer

COUNTS = [8, 5, 3]
LABELS = [c for c, n in enumerate(COUNTS) for _ in range(n)]
ORDER = torch.randperm(16, generator=torch.Generator().manual_seed(3)).tolist()
DATA = [
    {"input_ids": torch.randint(20, (6,), generator=torch.Generator().manual_seed(i)), "labels": LABELS[i]}
    for i in ORDER
]
RHO = 0.3


class Words(modes.Words):
    """The model of the modes in float64; a stock Trainer finds its embeddings and configuration."""

    def __init__(self):
        super().__init__()
        self.double()


class InOrder:
    """The data set as it is."""

    def _get_train_sampler(self, train_dataset=None):
        return SequentialSampler(self.train_dataset)


class Ours(InOrder, LTSamTrainer):
    pass


class Stock(InOrder, StockTrainer):
    pass


def trained(kind, folder, model=None, optimizers=(None, None), callbacks=(), resume=None, data=DATA, **settings):
    config = LTSamConfig if issubclass(kind, LTSamTrainer) else TrainingArguments
    given = {
        "output_dir": str(folder),
        "num_train_epochs": 2,
        "per_device_train_batch_size": 4,
        "learning_rate": 0.1,
        "optim": "sgd",
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 7,
    }
    trainer = kind(
        Words() if model is None else model,
        config(**{**given, **settings}),
        train_dataset=data,
        eval_dataset=data,
        optimizers=optimizers,
        callbacks=list(callbacks),
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def assert_close(ours, theirs, tolerance=0.0):
    for (name, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}")


def sam_by_hand(model, loss_of, step, batches=8, rho=RHO):
    """SAM's loop on the data in order, four samples at a time; `step` writes the weights."""
    model.train()
    parameters = list(model.parameters())
    for k in range(batches):
        rows = [DATA[(4 * k + i) % 16] for i in range(4)]
        x, y = torch.stack([r["input_ids"] for r in rows]), torch.tensor([r["labels"] for r in rows])
        state = torch.get_rng_state()
        g = torch.autograd.grad(loss_of(model, x, y), parameters)
        after = torch.get_rng_state()
        length = torch.cat([t.flatten() for t in g]).norm()
        with torch.no_grad():
            w = [p.clone() for p in parameters]
            for p, t in zip(parameters, g):
                p += rho * t / length
        torch.set_rng_state(state)
        g = torch.autograd.grad(loss_of(model, x, y), parameters)
        torch.set_rng_state(after)
        with torch.no_grad():
            for p, before in zip(parameters, w):
                p.copy_(before)
        for p, t in zip(parameters, g):
            p.grad = t.clone()
        step()
    return model


def mean_loss(model, x, y):
    return F.cross_entropy(model(x)["logits"], y)


def plain_step(model, learning_rate=0.1):
    def step():
        with torch.no_grad():
            for p in model.parameters():
                p -= learning_rate * p.grad

    return step


# ---- label smoothing ----


def test_label_smoothing_is_that_of_the_stock_trainer(tmp_path):
    ours = trained(Ours, tmp_path, method="sgd", label_smoothing_factor=0.2)
    stock = trained(Stock, tmp_path, label_smoothing_factor=0.2)
    assert_close(ours.model, stock.model, 1e-8)  # its smoothed part is summed in float32
    assert (ours.model.middle.weight - trained(Ours, tmp_path, method="sgd").model.middle.weight).abs().max() > 1e-4


def test_label_smoothing_under_sam(tmp_path):
    ours = trained(Ours, tmp_path, method="sam", method_args={"rho": RHO}, label_smoothing_factor=0.2)

    def smoothed(model, x, y):
        minus_log_p = -model(x)["logits"].log_softmax(1)
        return sum(0.8 * row[label] + 0.2 * row.sum() / 3 for row, label in zip(minus_log_p, y)) / len(y)

    by_hand = Words()
    assert_close(ours.model, sam_by_hand(by_hand, smoothed, plain_step(by_hand)), 1e-12)


def test_a_smoothed_sample_stays_of_its_class(tmp_path):
    """For focal weights, for class weights and for logit adjustment, by hand."""
    ours = trained(
        Ours,
        tmp_path,
        method="focal_sam",
        method_args={"rho": RHO, "gamma": 2.0, "lam": 0.7},
        loss="logit_adjustment",
        reweighting="inverse",
        label_smoothing_factor=0.3,
        num_train_epochs=1,
        max_steps=1,
    )
    pi = torch.tensor(COUNTS, dtype=torch.float64) / 16
    w = (1 / pi) / (1 / pi).mean()
    model = Words()
    parameters = list(model.parameters())
    x, y = torch.stack([r["input_ids"] for r in DATA[:4]]), [r["labels"] for r in DATA[:4]]

    def G(weight_of):
        minus_log_p = -(model(x)["logits"] + pi.log()).log_softmax(1)
        losses = [w[c] * (0.7 * row[c] + 0.1 * row.sum()) for row, c in zip(minus_log_p, y)]
        return torch.autograd.grad(sum(weight_of(c) * loss for c, loss in zip(y, losses)) / 4, parameters)

    def f(c):
        return (1 - pi[c]) ** 2

    plain, focal = G(lambda c: 1 - 0.7 * f(c)), G(f)
    length = torch.cat([t.flatten() for t in focal]).norm()
    start = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for p, t in zip(parameters, focal):
            p += RHO * t / length
    perturbed = G(f)
    for p, before, a, b in zip(ours.model.parameters(), start, plain, perturbed, strict=True):
        torch.testing.assert_close(p.detach(), before - 0.1 * (a + 0.7 * b), rtol=0, atol=1e-12)


def test_a_model_without_a_configuration_is_smoothed_too(tmp_path):
    model = Words()
    del model.config
    trained(Ours, tmp_path, model, method="sam", label_smoothing_factor=0.1)


def test_other_smoothing_is_another_training(tmp_path):
    trained(Ours, tmp_path, label_smoothing_factor=0.1, save_strategy="steps", save_steps=4)
    with pytest.raises(ValueError, match=r"label_smoothing: 0\.1 in the checkpoint, 0\.2 now"):
        trained(Ours, tmp_path, label_smoothing_factor=0.2, resume=str(tmp_path / "checkpoint-4"))
    with pytest.raises(ValueError, match=r"label_smoothing_factor=\.\.\.\) must be in \[0, 1\], got 1\.5"):
        trained(Ours, tmp_path, label_smoothing_factor=1.5)


# ---- NEFTune ----


def test_neftune_is_that_of_the_stock_trainer(tmp_path):
    """Bit for bit, through dropout and attention too."""

    def bert():
        torch.manual_seed(0)
        return BertForSequenceClassification(
            BertConfig(
                vocab_size=20,
                hidden_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=16,
                num_labels=3,
                max_position_embeddings=8,
            )
        )

    ours = trained(Ours, tmp_path, bert(), method="sgd", neftune_noise_alpha=5.0)
    assert_close(ours.model, trained(Stock, tmp_path, bert(), neftune_noise_alpha=5.0).model)
    quiet = trained(Ours, tmp_path, bert(), method="sgd").model
    assert (quiet.classifier.weight - ours.model.classifier.weight).abs().max() > 1e-4
    assert not ours.model.get_input_embeddings()._forward_hooks, "the hook goes with the training"


@pytest.mark.parametrize("method", ["sam", "focal_sam", "cc_sam"])
def test_all_passes_of_a_step_see_one_noise(method, tmp_path):
    seen = []

    class Seen(Words):
        def forward(self, input_ids, labels=None):
            embedded = self.embedding(input_ids)
            if self.training:
                seen.append((input_ids, (embedded - self.embedding.weight[input_ids]).detach()))
            return {"logits": self.classifier(torch.tanh(self.middle(embedded.mean(1))))}

    trained(Ours, tmp_path, Seen(), method=method, neftune_noise_alpha=5.0, exact_rows=False, telemetry=False)
    steps = {}
    for x, noise in seen:
        steps.setdefault(str(x.tolist()), []).append(noise)
    assert all(noise.abs().max() > 0.1 for _, noise in seen)
    assert len(steps) == 4, "two epochs over the same four batches"
    for noises in steps.values():
        half = len(noises) // 2
        assert half >= (1 if method == "cc_sam" else 2)
        assert all((n - noises[0]).abs().max() < 1e-12 for n in noises[:half])  # read off, with moved weights too
        assert not torch.equal(noises[0], noises[half]), "another step draws anew"


def test_neftune_under_sam(tmp_path):
    class Seeded(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            torch.manual_seed(100 + state.global_step)

    ours = trained(
        Ours, tmp_path, method="sam", method_args={"rho": RHO}, neftune_noise_alpha=5.0, callbacks=[Seeded()]
    )
    by_hand, steps = Words(), iter(range(9))

    def noisy(model, x, y):
        e = model.embedding(x)
        bound = 5.0 / math.sqrt(e.shape[1] * e.shape[2])
        e = e + torch.zeros_like(e).uniform_(-bound, bound)
        return F.cross_entropy(model.classifier(torch.tanh(model.middle(e.mean(1)))), y)

    plain = plain_step(by_hand)

    def step():
        plain()
        torch.manual_seed(100 + next(steps))

    torch.manual_seed(100 + next(steps))
    assert_close(ours.model, sam_by_hand(by_hand, noisy, step), 1e-7)  # the bound is computed in float32


def test_neftune_without_embeddings_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"neftune_noise_alpha=5\.0 .*Linear has none \(get_input_embeddings\)"):
        trained(Ours, tmp_path, nn.Linear(6, 3), neftune_noise_alpha=5.0)


# ---- a batch size that is found ----


class Small(Words):
    """A device with room for four samples."""

    def forward(self, input_ids, labels=None):
        if self.training and len(input_ids) > 4:
            raise RuntimeError("CUDA out of memory.")
        return super().forward(input_ids, labels)


def test_a_found_batch_size_trains_as_the_same_one_that_was_set(tmp_path):
    """Groups of eight samples are perturbed together, whatever the model has room for at a time."""
    settings = {"method": "momentum_focal_sam", "ascent_size": 8, "ascent_scope": "step"}
    settings |= {"gradient_accumulation_steps": 2, "save_strategy": "steps", "save_steps": 3}
    found = trained(
        Ours, tmp_path, Small(), auto_find_batch_size=True, per_device_train_batch_size=8, **settings
    )  # 8, 7, 6, 5, 4
    assert found.state.global_step == 4  # of two micro-batches of four
    assert_close(found.model, trained(Ours, tmp_path / "set", Small(), **settings).model)
    resumed = trained(
        Ours,
        tmp_path,
        Small(),
        auto_find_batch_size=True,
        per_device_train_batch_size=8,
        resume=str(tmp_path / "checkpoint-3"),
        **settings,
    )
    assert_close(resumed.model, found.model)


def test_a_batch_size_below_the_ascents_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"went down to 4 samples, .* fewer than ascent_size=5"):
        trained(Ours, tmp_path, Small(), auto_find_batch_size=True, per_device_train_batch_size=6, ascent_size=5)
    settings = {"ascent_scope": "step", "gradient_accumulation_steps": 2, "ascent_size": 9}
    with pytest.raises(ValueError, match=r"went down to 4 samples, .* fewer than ascent_size=9"):
        trained(Ours, tmp_path, Small(), auto_find_batch_size=True, per_device_train_batch_size=6, **settings)


# ---- optimizers ----


class MuonBesideSGD(torch.optim.Optimizer):
    """Matrices by Muon and the others by SGD, as people compose them."""

    def __init__(self, model, lr):
        matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embedding" not in n]
        others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embedding" in n]
        self.parts = [torch.optim.Muon(matrices, lr=lr), torch.optim.SGD(others, lr=lr)]
        super().__init__([{"params": matrices}, {"params": others}], {"lr": lr})
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure=None):
        for part in self.parts:
            part.step()


def test_muon(tmp_path):
    """Its update is nobody's gradient, so a method goes before it as before any other."""
    kinds = [("sgd", Stock, {}), ("sgd", Ours, {"method": "sgd"})]
    ends = []
    for _, kind, settings in kinds:
        model = Words()
        ends.append(trained(kind, tmp_path, model, (MuonBesideSGD(model, 0.02), None), **settings).model)
    assert_close(ends[1], ends[0])
    model, by_hand = Words(), Words()
    optimizer = MuonBesideSGD(by_hand, 0.02)
    ours = trained(Ours, tmp_path, model, (MuonBesideSGD(model, 0.02), None), method="sam", method_args={"rho": RHO})
    assert_close(ours.model, sam_by_hand(by_hand, mean_loss, optimizer.step), 1e-4)  # Newton-Schulz steps in bfloat16
    assert max((a - b).abs().max() for a, b in zip(ours.model.parameters(), ends[0].parameters())) > 1e-3


def test_muon_alone_trains_the_matrices_it_holds(tmp_path, caplog):
    model, start = Words(), Words()
    muon = torch.optim.Muon([model.middle.weight, model.classifier.weight], lr=0.02)
    trained(Ours, tmp_path, model, (muon, None), method="sam", method_args={"rho": RHO})
    moved = {n for (n, p), q in zip(model.named_parameters(), start.parameters()) if not torch.equal(p, q)}
    assert moved == {"middle.weight", "classifier.weight"}


class ScheduleFree(torch.optim.Optimizer):
    """Defazio et al. 2024: gradients at y = (1 - beta) z + beta x, of which x is the mean of all z; p holds y or x."""

    def __init__(self, parameters, lr, beta=0.9):
        super().__init__(parameters, {"lr": lr, "beta": beta, "k": 0, "at_y": True})

    def _move(self, to_y):
        for group in self.param_groups:
            if group["at_y"] == to_y:
                continue
            group["at_y"] = to_y
            for p in group["params"]:
                if "z" in self.state[p]:
                    weight = 1 - group["beta"] if to_y else 1 - 1 / group["beta"]
                    p.data.lerp_(self.state[p]["z"], weight)

    def train(self):
        self._move(True)

    def eval(self):
        self._move(False)

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            if not group["at_y"]:
                raise RuntimeError("a step in evaluation mode")
            group["k"] += 1
            for p in group["params"]:
                z = self.state[p].setdefault("z", p.clone())
                x = p.lerp(z, 1 - 1 / group["beta"])
                z -= group["lr"] * p.grad
                x.lerp_(z, 1 / group["k"])
                p.copy_(x.lerp(z, 1 - group["beta"]))


def schedule_free_by_hand(model):
    """x, y and z as in the paper."""
    z, x = ([p.detach().clone() for p in model.parameters()] for _ in range(2))
    k = 0

    def step():
        nonlocal k
        k += 1
        with torch.no_grad():
            for p, z_p, x_p in zip(model.parameters(), z, x):
                z_p -= 0.1 * p.grad
                x_p += (z_p - x_p) / k
                p.copy_(0.1 * z_p + 0.9 * x_p)

    return step, x


@pytest.mark.parametrize("evaluated", [False, True])
def test_a_schedule_free_optimizer(evaluated, tmp_path):
    """Ascent and gradient at y; the model is x in evaluations, in what is saved after them, and when the training is over."""
    settings = {"eval_strategy": "steps", "eval_steps": 3} if evaluated else {}
    model, by_hand = Words(), Words()
    step, x = schedule_free_by_hand(by_hand)
    sam_by_hand(by_hand, mean_loss, step)
    optimizer = ScheduleFree(model.parameters(), 0.1)
    trained(Ours, tmp_path, model, (optimizer, None), method="sam", method_args={"rho": RHO}, **settings)
    for p, q in zip(model.parameters(), x, strict=True):
        torch.testing.assert_close(p.detach(), q, rtol=0, atol=1e-11)


def test_a_schedule_free_training_resumes(tmp_path):
    settings = {"method": "msam", "save_strategy": "steps", "save_steps": 3, "eval_strategy": "steps", "eval_steps": 3}
    ends = []
    for resume in (None, str(tmp_path / "checkpoint-3"), str(tmp_path / "checkpoint-6")):
        model = Words()
        optimizer = ScheduleFree(model.parameters(), 0.1)
        ends.append(trained(Ours, tmp_path, model, (optimizer, None), resume=resume, **settings).model)
    assert_close(ends[1], ends[0])
    assert_close(ends[2], ends[0])


def test_schedule_free_with_sgd_is_the_stock_trainer(tmp_path):
    ends = []
    for kind, settings in ((Stock, {}), (Ours, {"method": "sgd"})):
        model = Words()
        optimizer = ScheduleFree(model.parameters(), 0.1)
        ends.append(trained(kind, tmp_path, model, (optimizer, None), **settings))
        ends[-1].evaluate()  # which moves a stock Trainer's model to x
    assert_close(ends[1].model, ends[0].model)


class StopAfter(TrainerCallback):
    def on_step_end(self, args, state, control, **_):
        control.should_training_stop = state.global_step == 5


def test_after_a_schedule_free_training_the_best_checkpoint_is_loaded_as_it_is(tmp_path):
    settings = {"eval_strategy": "steps", "eval_steps": 3, "save_strategy": "steps", "save_steps": 3}
    model = Words()
    given = (ScheduleFree(model.parameters(), 0.1), None)
    best = {"load_best_model_at_end": True, "metric_for_best_model": "loss"}
    ours = trained(Ours, tmp_path, model, given, [StopAfter()], **settings, **best)
    saved = load_file(tmp_path / "checkpoint-3" / "model.safetensors")
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())
    assert ours.evaluate()["eval_loss"] == pytest.approx(ours.state.best_metric, rel=1e-9)


def test_weights_averaged_over_a_schedule_free_training_are_the_mean(tmp_path):
    """Of what the steps left, be the optimizer in either mode when the mean is written."""
    model, steps = Words(), []

    class Weights(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            steps.append([p.detach().clone() for p in model.parameters()])

    given = (ScheduleFree(model.parameters(), 0.1), None)
    trained(Ours, tmp_path, model, given, [Weights()], swa_start=0.5, swa_interval=2)
    for p, taken in zip(model.parameters(), zip(*steps[3::2]), strict=True):
        torch.testing.assert_close(p.detach(), sum(taken) / 3, rtol=0, atol=1e-12)


def test_the_package_schedulefree(tmp_path):
    """By transformers' name for it, where it is installed."""
    pytest.importorskip("schedulefree")
    ends = [trained(Ours, tmp_path, optim="schedule_free_sgd", method=m).model for m in ("sgd", "sam")]
    stock = trained(Stock, tmp_path, optim="schedule_free_sgd")
    stock.evaluate()
    assert_close(ends[0], stock.model)
    assert not torch.equal(ends[0].middle.weight, ends[1].middle.weight)


def test_an_optimizer_in_hooks_of_weights_is_refused(tmp_path):
    """It would wait for a gradient that nothing accumulates, and the model would never be trained."""
    model = Words()
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(lambda p: None)
    with pytest.raises(ValueError, match=r"hook waits for the accumulated gradient of 'embedding\.weight'"):
        trained(Ours, tmp_path, model, method="sam")
