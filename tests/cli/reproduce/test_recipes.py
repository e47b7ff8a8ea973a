"""The recipes: all of them would start, and hold what their sources hold."""

import math
from pathlib import Path

import pytest
from cli.reproduce.recipe_rows import ROWS, SPECIAL, run_of

from dataset_builders.catalogue import SETS, long_tail_statistics
from dataset_builders.long_tail import class_counts
from hf_ltsam import METHODS, ClassStatistics, make_method
from hf_ltsam.cli.train.checks import check
from hf_ltsam.runs.recipe_tables import published_rows
from hf_ltsam.runs.recipes import recipe_names
from hf_ltsam.training.refusals.problem import check_split

ON_CIFAR = [row for row in ROWS if row.on_cifar and not row.clip]
CLIP = [row for row in ROWS if row.clip]
LARGE = [row for row in ROWS if not row.on_cifar and not row.clip]


def of(rows, **parts):
    return [row for row in rows if all(getattr(row, part) == value for part, value in parts.items())]


def test_there_is_a_recipe_for_every_method():
    assert {row.run.config.method for row in ROWS} == set(METHODS)


def test_the_readme_counts_them():
    """What authors took from other papers is not theirs; the papers of weight balancing and of MiSLAS are none of the four."""
    sources = [row.published.source for row in published_rows().values() if row.published is not None]
    theirs = [s for s in sources if "taken from" not in s and not s.startswith(("Alshammari", "Zhong"))]
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    assert f"each of the {len(theirs)} rows" in readme and f"{len(published_rows())} recipes in all" in readme


FINE_TUNED = [name for name in recipe_names() if name.startswith(("news/", "plankton/"))]


@pytest.mark.parametrize("name", [*(row.name for row in ROWS), "demo/digits", *FINE_TUNED])
def test_it_would_start(name, monkeypatch):
    monkeypatch.setattr("hf_ltsam.cli.train.checks.check_model", lambda *named: None)  # which asks the Hub
    check(run_of(name))


# ---- data ----

# Li et al. 2025, code; Lyu et al. 2025 App. "Experiment Settings" for ratio 50 of CIFAR-100
BOUNDS = {
    ("cifar10", 10): (2319, 835),
    ("cifar10", 50): (1500, 200),
    ("cifar10", 100): (1000, 200),
    ("cifar10", 200): (800, 100),
    ("cifar100", 10): (265, 99),
    ("cifar100", 50): (100, 20),
    ("cifar100", 100): (100, 20),
    ("cifar100", 200): (60, 10),
}


def test_data_of_cifar():
    for row in (row for row in ROWS if row.on_cifar):
        data = row.run.data
        assert (data.builder, data.dataset, data.split_seed) == ("cifar_lt", f"uoft-cs/{row.data}", 0), row.name
        assert (data.imbalance_ratio, data.profile) == (row.ratio, {"lt": "exponential", "step": "step"}[row.kind]), (
            row.name
        )
        assert (data.many_above, data.few_below) == BOUNDS[row.data, row.ratio], row.name
        assert row.run.config.tail_threshold == {"cifar10": 1000, "cifar100": 100}[row.data], row.name


def test_data_of_the_large_sets():
    for row in (row for row in ROWS if not row.on_cifar):
        data = row.run.data
        assert (data.builder, data.imbalance_ratio) == (row.data, None), row.name
        assert (data.many_above, data.few_below, row.run.config.tail_threshold) == (100, 20, 100), row.name


def statistics_of(row):
    data, threshold = row.run.data, row.run.config.tail_threshold
    if not row.on_cifar:
        return ClassStatistics(long_tail_statistics(row.data).counts, threshold, data.many_above, data.few_below)
    drawn = SETS[f"{row.data}_lt"]
    counts = class_counts(drawn.per_class, drawn.class_names, data.imbalance_ratio, data.profile)
    return ClassStatistics(counts, threshold, data.many_above, data.few_below)


@pytest.mark.parametrize(
    "data, kind, ratio, sizes",
    [
        ("cifar10", "lt", 10, (4, 3, 3)),
        ("cifar10", "lt", 50, (3, 5, 2)),
        ("cifar10", "lt", 100, (4, 3, 3)),
        ("cifar10", "lt", 200, (4, 3, 3)),
        ("cifar100", "lt", 100, (35, 35, 30)),
        ("cifar10", "step", 100, (5, 0, 5)),
        ("cifar100", "step", 100, (50, 0, 50)),
        ("imagenet_lt", None, None, (385, 479, 136)),
        ("inaturalist2018", None, None, (842, 4076, 3224)),
        ("places_lt", None, None, (131, 163, 71)),
    ],
)
def test_groups_of_a_set(data, kind, ratio, sizes):
    groups = statistics_of(of(ROWS, data=data, kind=kind, ratio=ratio)[0]).groups
    assert tuple(len(groups[name]) for name in ("many", "medium", "few")) == sizes


def test_every_method_that_needs_a_split_has_head_and_tail(recwarn):
    for row in (row for row in ROWS if METHODS[row.run.config.method].needs_split):
        config = row.run.config
        check_split(make_method(config.method, **config.method_hyperparameters), statistics_of(row))
    assert not recwarn.list


# ---- trainings ----

# epochs, batch, learning rate, warm-up, milestones, factor: protocols of the sources
TRAININGS = {
    "li2025": (200, 64, 0.1, 0, None, 0.1),
    "lyu2025": (500, 64, 0.01, 0, None, 0.1),
    "rangwani2022": (200, 128, 0.1, 5 / 200, [0.8, 0.9], 0.01),
    "park2021": (200, 128, 0.1, 5 / 200, [0.5, 0.8, 0.9], 0.01),
    "zhou2023b": (200, 64, 0.1, 5 / 200, [0.8, 0.9], 0.1),
    "zhong2021": (200, 128, 0.1, 5 / 200, [0.8, 0.9], 0.1),
    "alshammari2022": (200, 64, 0.01, 0, None, 0.1),
}
DECAY = {
    "li2025": {"cifar10": 2e-4, "cifar100": 1e-3},
    "lyu2025": {"cifar10": 1e-3, "cifar100": 1e-3},
    "alshammari2022": {"cifar100": 5e-3},
}
# model, optimizer: the same in all sources
SGD = ("sgd", "momentum=0.9", True, 0)


def test_trainings_on_cifar():
    for row in ON_CIFAR:
        epochs, batch, rate, warmup, milestones, factor = TRAININGS[row.source]
        if row.source == "rangwani2022" and row.loss == "vs":
            epochs, warmup, milestones = 300, 5 / 300, [160 / 300, 180 / 300]
        if row.method == "swa":  # cosine, then constant
            milestones, factor = None, 0.1
        decay = 0 if row.decay == "no_decay" else DECAY.get(row.source, {}).get(row.data, 2e-4)
        config, model, data = row.run.config, row.run.model, row.run.data
        assert (config.num_train_epochs, config.per_device_train_batch_size) == (row.epochs or epochs, batch), row.name
        assert (config.learning_rate, config.weight_decay) == (rate, decay), row.name
        assert config.lr_scheduler_type == "cosine" or milestones, row.name
        assert config.warmup_steps == pytest.approx(warmup, rel=1e-6), row.name
        assert (config.lr_milestones, config.lr_gamma) == (milestones and pytest.approx(milestones), factor), row.name
        assert (config.optim, config.optim_args, config.decay_all_parameters, config.max_grad_norm) == SGD, row.name
        assert (model.model, model.depth, data.normalisation, data.crop_padding, data.flip) == (
            "cifar_resnet",
            32,
            "cifar10",
            4,
            True,
        ), row.name
        assert data.test_time == ("flip" if row.source == "lyu2025" else "none"), row.name  # its code


def test_epochs_in_shares_fall_on_the_epoch():
    """Shares have eight digits: they become the first step of the epoch that the source names, of 85 to 157 steps in each."""
    for steps in (85, 97, 98, 157):
        assert [
            round(share * 300 * steps) for share in run_of("cifar10_lt_ir100_vs_sam_rangwani2022").config.lr_milestones
        ] == [160 * steps, 180 * steps]
        assert math.ceil(run_of("cifar10_lt_ir100_vs_sam_rangwani2022").config.warmup_steps * 300 * steps) == 5 * steps
    for name, epoch, epochs, steps in (
        ("cifar100_lt_ir100_ldam_drw_sam_300_epochs", 160, 300, 170),
        ("imagenet_lt_ce_drw_sgd", 60, 90, 453),
    ):
        start, total = run_of(name).config.reweighting_start, epochs * steps
        assert (epoch * steps - 1) / total < start <= epoch * steps / total


# epochs, batch, learning rate, weight decay
LARGE_TRAININGS = {
    ("li2025", "imagenet_lt"): (200, 256, 0.1, 5e-4),
    ("lyu2025", "imagenet_lt"): (200, 256, 0.1, 5e-4),
    ("li2025", "inaturalist2018"): (200, 512, 0.2, 2e-4),
    ("li2025", "places_lt"): (200, 256, 0.1, 5e-4),
    ("rangwani2022", "imagenet_lt"): (90, 256, 0.2, 2e-4),
    ("rangwani2022", "inaturalist2018"): (90, 256, 0.1, 2e-4),
    ("zhong2021", "imagenet_lt"): (180, 256, 0.1, 5e-4),
    ("zhong2021", "inaturalist2018"): (200, 256, 0.1, 1e-4),
}


def test_trainings_on_the_large_sets():
    for row in LARGE:
        epochs, batch, rate, decay = LARGE_TRAININGS[row.source, row.data]
        if (row.data, row.loss) == ("inaturalist2018", "ldam_drw"):
            decay = 1e-4
        config, model, data = row.run.config, row.run.model, row.run.data
        assert (config.num_train_epochs, config.per_device_train_batch_size) == (row.epochs or epochs, batch), row.name
        assert (config.learning_rate, config.weight_decay, config.lr_scheduler_type) == (rate, decay, "cosine"), (
            row.name
        )
        assert (config.warmup_steps, config.lr_milestones) == (0, None), row.name
        assert (config.optim, config.optim_args, config.decay_all_parameters, config.max_grad_norm) == SGD, row.name
        assert (model.model, model.pretrained, data.image_size) == ("microsoft/resnet-50", False, 224), row.name
        no_jitter = (row.source, row.data) == ("li2025", "inaturalist2018")
        assert data.color_jitter == (0.0 if no_jitter else 0.4), row.name


def test_clip_as_the_protocol_says():
    for row in CLIP:
        config, model, data = row.run.config, row.run.model, row.run.data
        assert (model.model, model.init, model.templates, model.cosine_scale) == (
            "openai/clip-vit-base-patch16",
            "text",
            "one",
            25,
        ), row.name
        assert (model.adapter, config.learning_rate) == {"fft": ("none", 0.001), "lift": ("adaptformer", 0.01)}[
            row.clip
        ], row.name
        assert (config.num_train_epochs, config.per_device_train_batch_size, config.lr_scheduler_type) == (
            row.epochs or 20,
            128,
            "cosine",
        ), row.name
        assert (config.optim, config.optim_args, config.decay_all_parameters, config.max_grad_norm) == SGD, row.name
        assert (config.weight_decay, config.warmup_steps, config.lr_milestones) == (5e-4, 0, None), row.name
        assert (data.normalisation, data.image_size, data.test_short_side) == ("auto", None, 224), (
            row.name
        )  # CLIP's own


def test_equal_cost_is_one_and_a_half_times_as_long():
    longer = [row for row in ROWS if row.epochs]
    assert {row.method for row in longer} == {"sam"} and len(longer) == 28
    for row in longer:
        shorter = run_of(row.name.replace(f"_{row.epochs}_epochs", ""))
        assert row.run.config.num_train_epochs == row.epochs == 1.5 * shorter.config.num_train_epochs, row.name
        assert row.run.config.method_args == shorter.config.method_args, row.name


# ---- losses ----

LOSSES = {
    "ce": ("cross_entropy", None),
    "ce_drw": ("cross_entropy", None),
    "la": ("logit_adjustment", {"tau": 1.0}),
    "ldam": ("ldam", {"max_m": 0.5, "s": 30}),
    "ldam_drw": ("ldam", {"max_m": 0.5, "s": 30}),
    "vs": ("vector_scaling", {"gamma": 0.05, "tau": 0.75}),
    "gcl": ("gaussian_clouded", {"noise": 0.5, "m": 0.0, "s": 30}),
    "cb": ("class_balanced", {"beta": 0.9999}),
    "ib": ("influence_balanced", {"alpha": 1000, "epsilon": 1e-3, "through_weight": True}),
}


def test_losses():
    for row in ROWS:
        loss, arguments = LOSSES[row.loss]
        if (row.loss, row.source) == ("la", "lyu2025"):
            arguments = {"tau": 0.75}
        if loss == "ldam" and not row.on_cifar:
            arguments = {"max_m": 0.3, "s": 30}
        config, model = row.run.config, row.run.model
        assert (config.loss, config.loss_args) == (loss, arguments), row.name
        start = 160 / 300 if row.epochs else 0.8 if row.on_cifar else 60 / 90
        expected = ("effective_number", pytest.approx(start)) if row.loss.endswith("drw") else ("none", 0.0)
        assert (config.reweighting, config.reweighting_start) == expected, row.name
        assert config.loss_start == (0.5 if loss == "influence_balanced" else 0.0), row.name
        of_cosines = loss in ("ldam", "gaussian_clouded")
        assert (model.head, of_cosines and model.cosine_scale) == (
            ("cosine", 30) if of_cosines else ("linear", False)
        ), row.name


def test_seed_and_checkpoints_are_the_same_for_all():
    for row in ROWS:
        config = row.run.config
        assert (config.seed, config.save_strategy, config.save_total_limit, config.logging_steps) == (
            0,
            "epoch",
            1,
            50,
        ), row.name


_OTHER_NAMES = {
    "swa": "sgd",
    "spectral_norm": "sgd",
    "focal_sam_reuse": "focal_sam",
    "late_sam": "sam",
    "late_focal_sam": "focal_sam",
    "momentum_focal_sam_reuse": "momentum_focal_sam",
}


def test_the_method_is_that_of_the_name():
    for row in ROWS:
        expected = _OTHER_NAMES.get(row.method, row.method)
        assert row.run.config.method == expected, row.name
        assert row.run.model.spectral_norm == (["*"] if row.method == "spectral_norm" else None), row.name
        alpha = 1.0 if row.on_cifar else 0.2
        assert row.run.config.mixing == ({f"{row.mixed}_alpha": alpha} if row.mixed else {}), row.name
        assert row.run.config.swa_start == (0.75 if row.method == "swa" else None), row.name
    assert set(SPECIAL) <= {row.method for row in ROWS}
