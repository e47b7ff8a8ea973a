"""The recipes: all of them build, say where their numbers come from, and hold what the papers hold."""

import re
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from hf_ltsam import METHODS, make_loss, make_method
from hf_ltsam.reweighting import Reweighting
from training_scripts.arguments import parse
from training_scripts.recipe_file import RECIPES, find_recipe, read_recipe, recipe_names

ROWS = [
    f"{data}_lt_ir100_{loss}_{method}"
    for data in ("cifar10", "cifar100")
    for loss in ("ce", "la")
    for method in ("sgd", "sam", "imbsam", "sse_sam", "focal_sam")
]
# data, loss, method -> (training, overall accuracy that stands in its source): Rangwani et al. 2022 Tables 4 and 9, Li et al. 2025
# Tables 2 and 5, Zhou et al. 2023b Table 2 with the second stage; None where there is none
OTHERS = {
    ("cifar10", "ce_drw", "sgd"): ("rangwani", 75.5),
    ("cifar10", "ce_drw", "sam"): ("rangwani", 80.6),
    ("cifar10", "ce_drw", "pgd"): ("rangwani", 77.2),
    ("cifar10", "ce_drw", "lpf_sgd"): ("rangwani", 78.5),
    ("cifar100", "ce_drw", "sgd"): ("rangwani", 41.0),
    ("cifar100", "ce_drw", "sam"): ("rangwani", 44.6),
    ("cifar100", "ce_drw", "pgd"): ("rangwani", 42.2),
    ("cifar100", "ce_drw", "lpf_sgd"): ("rangwani", 42.9),
    ("cifar100", "ib", "sgd"): ("park", 40.4),
    ("cifar100", "ib", "sam"): ("park", 42.8),
    ("cifar10", "ce", "cc_sam"): ("zhou", 79.74),
    ("cifar100", "ce", "cc_sam"): ("zhou", 47.74),
    ("cifar10", "la", "cc_sam"): ("li", 82.5),
    ("cifar100", "la", "cc_sam"): ("li", 50.1),
    ("cifar100", "la", "asam"): ("li", None),
    ("cifar100", "la", "gradient_norm"): ("li", None),
    ("cifar100", "la", "gsam"): ("li", None),
    ("cifar100", "la", "looksam"): ("li", None),
    ("cifar100", "la", "msam"): ("li", None),
    ("cifar100", "la", "friendly_sam"): ("li", None),
    ("cifar100", "la", "focal_sam_reuse"): ("li", 50.7),
    ("cifar100", "ce", "model_perturbation"): ("zhou", None),
    ("cifar100", "ce", "swa"): ("zhou", None),
    ("cifar100", "ce", "spectral_norm"): ("zhou", None),
}
NAMES = {row: f"{row[0]}_lt_ir100_{row[1]}_{row[2]}" for row in OTHERS}
# (epochs, batch, learning rate, weight decay on CIFAR-10 and CIFAR-100, milestones, factor): protocols of the sources
TRAININGS = {
    "li": (200, 64, 0.1, (2e-4, 1e-3), None, 0.1),
    "rangwani": (200, 128, 0.1, (2e-4, 2e-4), [0.8, 0.9], 0.01),
    "park": (200, 128, 0.1, (None, 2e-4), [0.5, 0.8, 0.9], 0.01),
    "zhou": (200, 64, 0.1, (2e-4, 2e-4), [0.8, 0.9], 0.1),
}
LOSSES = {"ce": "cross_entropy", "la": "logit_adjustment", "ce_drw": "cross_entropy", "ib": "influence_balanced"}
CLIP_ROWS = [
    f"{data}_clip_{tuning}_la_{method}"
    for data in ("cifar10_lt_ir100", "cifar100_lt_ir100", "imagenet_lt", "inaturalist2018")
    for tuning in ("fft", "lift")
    for method in ("sgd", "focal_sam")
]
FILES = sorted(RECIPES.rglob("*.yaml"))

# (rho or rho_head, rho_tail, gamma, lam): Rangwani et al. 2022 Table 5, Lyu et al. 2025 "Results", Li et al. 2025's code; None where the method has no such value
HYPERPARAMETERS = {
    ("cifar10", "ce", "sam"): {"rho": 0.1},
    ("cifar100", "ce", "sam"): {"rho": 0.2},
    ("cifar10", "la", "focal_sam"): {"rho": 0.2, "gamma": 3.0, "lam": 0.5},
    ("cifar100", "la", "focal_sam"): {"rho": 0.3, "gamma": 3.2, "lam": 0.8},
    ("cifar10", "ce", "imbsam"): {"rho": 0.1, "tail_weight": 1.0},
    ("cifar100", "la", "imbsam"): {"rho": 0.1, "tail_weight": 1.0},
    ("cifar10", "la", "sse_sam"): {"rho_head": 0.05, "rho_tail": 0.1, "gamma": 0.7, "normalizer": "total"},
    ("cifar10", "ce_drw", "sam"): {"rho": 0.5},
    ("cifar100", "ce_drw", "sam"): {"rho": 0.8},
    ("cifar10", "ce_drw", "pgd"): {"sigma": 1e-4},
    ("cifar100", "ce_drw", "lpf_sgd"): {"gamma": 1e-3, "shards": 8},
    ("cifar100", "ce", "cc_sam"): {"scale": 1e-2},
    ("cifar100", "ce", "model_perturbation"): {"rho": 1e-3},
    ("cifar100", "la", "focal_sam_reuse"): {"rho": 0.3, "gamma": 3.2, "lam": 0.8, "plain": "reuse"},
    ("cifar100", "ce", "sse_sam"): {"rho_head": 0.05, "rho_tail": 0.1, "gamma": 0.7, "normalizer": "total"},
}
# overall accuracy: Li et al. 2025 Table 5 (CIFAR-10-LT) and Table 2 (CIFAR-100-LT), SSE-SAM Lyu et al. 2025 Table 1
TARGETS = {
    "cifar10": {"ce": (73.1, 75.0, 76.9, 83.2, 77.2), "la": (77.9, 82.3, 82.2, 85.1, 82.9)},
    "cifar100": {"ce": (41.5, 42.2, 43.0, 49.3, 44.0), "la": (44.9, 50.0, 47.3, 53.2, 50.7)},
}


def run_of(name, tmp_path):
    return parse(["--config", name, "--use_cpu", "true", "--output_dir", str(tmp_path)])


def test_there_is_a_recipe_for_every_row():
    assert recipe_names() == sorted([*ROWS, *NAMES.values(), *CLIP_ROWS])


def test_there_is_a_recipe_for_every_method(tmp_path):
    assert {run_of(name, tmp_path).config.method for name in [*ROWS, *NAMES.values()]} == set(METHODS) - {"sam_ext"}


@pytest.mark.parametrize("name", [*ROWS, *NAMES.values(), *CLIP_ROWS, "demo/digits"])
def test_it_builds(name, tmp_path):
    config = run_of(name, tmp_path).config
    make_method(config.method, **config.method_hyperparameters)
    make_loss(config.loss, **(config.loss_args or {}))
    Reweighting(config.reweighting, config.reweighting_start)


@pytest.mark.parametrize("name", ROWS)
def test_it_holds_what_the_protocol_says(name, tmp_path):
    run = run_of(name, tmp_path)
    data, loss = name.split("_")[0], name.split("_")[3]
    by_lyu = name.endswith("sse_sam")
    config = run.config
    assert (run.model.model, run.model.depth, run.data.imbalance_ratio) == ("cifar_resnet", 32, 100)
    assert run.data.dataset == f"uoft-cs/{data}" and run.data.split_seed == 0 and run.data.profile == "exponential"
    assert config.num_train_epochs == (500 if by_lyu else 200)
    assert config.per_device_train_batch_size == 64
    assert config.learning_rate == (0.01 if by_lyu else 0.1)
    assert config.weight_decay == (2e-4 if data == "cifar10" and not by_lyu else 1e-3)
    assert (config.optim, config.optim_args, config.decay_all_parameters) == ("sgd", "momentum=0.9", True)
    assert (config.lr_scheduler_type, config.max_grad_norm) == ("cosine", 0)
    assert (run.data.many_above, run.data.few_below) == ((1000, 200) if data == "cifar10" else (100, 20))
    assert config.tail_threshold == (1000 if data == "cifar10" else 100)
    assert config.loss == {"ce": "cross_entropy", "la": "logit_adjustment"}[loss]
    assert config.loss_args == (None if loss == "ce" else {"tau": 0.75 if by_lyu else 1.0})
    assert name == f"{data}_lt_ir100_{loss}_{config.method}"


@pytest.mark.parametrize("row", OTHERS, ids=NAMES.get)
def test_the_others_hold_what_their_source_says(row, tmp_path):
    data, loss, method = row
    training, target = OTHERS[row]
    run = run_of(NAMES[row], tmp_path)
    config = run.config
    epochs, batch, rate, decay, milestones, factor = TRAININGS[training]
    assert (config.num_train_epochs, config.per_device_train_batch_size, config.learning_rate) == (epochs, batch, rate)
    assert config.weight_decay == decay[data == "cifar100"]
    if method == "swa":        # cosine, then constant
        milestones, factor = None, 0.1
        assert (config.swa_start, config.swa_interval, config.lr_scheduler_type) == (0.75, None, "cosine")
    assert (config.lr_milestones, config.lr_gamma) == (milestones, factor)
    assert config.warmup_steps == (0 if training == "li" else 5 / 200)
    assert run.data.dataset == f"uoft-cs/{data}" and run.model.depth == 32 and config.decay_all_parameters
    assert config.loss == LOSSES[loss]
    assert (config.reweighting, config.reweighting_start) == (("effective_number", 0.8) if loss == "ce_drw" else ("none", 0.0))
    assert (config.loss_start, (config.loss_args or {}).get("alpha")) == ((0.5, 1000) if loss == "ib" else (0.0, None))
    assert config.method == {"swa": "sgd", "spectral_norm": "sgd", "focal_sam_reuse": "focal_sam"}.get(method, method)
    assert (run.model.spectral_norm, run.model.spectral_norm_iterations) == ((["*"] if method == "spectral_norm" else None), 5)
    header = find_recipe(NAMES[row]).read_text().partition("inherits")[0]
    assert "# Target   none published" in header if target is None else f"{target} % overall" in header
    assert re.search(r"(Rangwani|Li|Zhou) et al\. 20\d\d", header) or target is None


@pytest.mark.parametrize("row, expected", HYPERPARAMETERS.items(), ids=str)
def test_hyperparameters_of_the_papers(row, expected, tmp_path):
    data, loss, method = row
    assert run_of(f"{data}_lt_ir100_{loss}_{method}", tmp_path).config.method_args == expected


@pytest.mark.parametrize("name", [*ROWS, *NAMES.values()])
def test_the_header_states_command_and_result(name):
    header = find_recipe(name).read_text().partition("inherits")[0]
    assert "# Target   " in header and "# Result " in header
    assert f"accelerate launch training_scripts/train.py --config training_scripts/recipes/{name}.yaml" in header


@pytest.mark.parametrize("name", ROWS)
def test_the_header_states_the_target(name):
    header = find_recipe(name).read_text().partition("inherits")[0]
    data, loss, method = name.split("_")[0], name.split("_")[3], name.split("_", 4)[4]
    target = TARGETS[data][loss][("sgd", "sam", "imbsam", "sse_sam", "focal_sam").index(method)]
    assert f"# Target   {target} % overall" in header
    assert re.search(r"(Lyu|Li) et al. 2025 Table \d", header)


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name != "demo"], ids=lambda path: path.stem)
def test_every_number_has_its_source_beside_it(path):
    for line in path.read_text().splitlines():
        if re.match(r"\s*\w+:\s+[-\d.]+(e-?\d+)?\b", line):
            assert "# " in line, f"{path.name}: {line!r} has no source"


# Li et al. 2025 Tables 2, 3 and 5: overall accuracy with SGD and with Focal-SAM; its code: rho, gamma, lam on CLIP
CLIP_TARGETS = {
    ("cifar10_lt_ir100", "fft"): (96.7, 97.2), ("cifar10_lt_ir100", "lift"): (96.6, 96.8),
    ("cifar100_lt_ir100", "fft"): (78.5, 81.6), ("cifar100_lt_ir100", "lift"): (82.0, 82.4),
    ("imagenet_lt", "fft"): (71.5, 73.9), ("imagenet_lt", "lift"): (77.1, 77.4),
    ("inaturalist2018", "fft"): (71.6, 74.0), ("inaturalist2018", "lift"): (79.7, 80.0),
}
CLIP_FOCAL_SAM = {
    "cifar10_lt_ir100": (0.05, 1.5, 0.7), "cifar100_lt_ir100": (0.05, 5.5, 0.8), "imagenet_lt": (0.05, 0.5, 0.8),
    "inaturalist2018": (0.02, 0.2, 1.0),
}


@pytest.mark.parametrize("name", CLIP_ROWS)
def test_clip_as_the_protocol_says(name, tmp_path):
    data, _, rest = name.partition("_clip_")
    tuning, _, method = rest.split("_", 2)
    run = run_of(name, tmp_path)
    config, model = run.config, run.model
    assert (model.model, model.init, model.templates, model.cosine_scale) == ("openai/clip-vit-base-patch16", "text", "one", 25)
    assert (model.adapter, config.learning_rate) == {"fft": ("none", 0.001), "lift": ("adaptformer", 0.01)}[tuning]
    assert (config.optim, config.optim_args, config.weight_decay) == ("sgd", "momentum=0.9", 5e-4)
    assert (config.num_train_epochs, config.per_device_train_batch_size, config.lr_scheduler_type) == (20, 128, "cosine")
    assert (config.loss, config.loss_args, config.method) == ("logit_adjustment", {"tau": 1.0}, method)
    if method == "focal_sam":
        assert tuple(config.method_args[key] for key in ("rho", "gamma", "lam")) == CLIP_FOCAL_SAM[data]
    assert (run.data.normalisation, run.data.image_size, run.data.test_short_side) == ("auto", None, 224)        # CLIP's own
    assert run.data.builder == ("cifar_lt" if data.startswith("cifar") else data)
    header = find_recipe(name).read_text()
    assert f"# Target   {CLIP_TARGETS[data, tuning][method == 'focal_sam']} % overall" in header
    assert f"--config training_scripts/recipes/{name}.yaml" in header and "# Result " in header


@pytest.mark.parametrize("name", [*ROWS, *NAMES.values(), *CLIP_ROWS])
def test_no_setting_is_written_twice_along_the_inheritance(name):
    def own_settings(path: Path):
        values = yaml.safe_load(path.read_text())
        parents = values.pop("inherits", [])
        yield from values
        for parent in [parents] if isinstance(parents, str) else parents:
            yield from own_settings(path.parent / parent)

    settings = list(own_settings(find_recipe(name)))
    assert len(settings) == len(set(settings))
    assert set(settings) == set(read_recipe(find_recipe(name)))


def test_every_base_file_is_used():
    used = {name for path in FILES for name in re.findall(r"[\w/]+\.yaml", _inherits(path))}
    assert {path.name for path in (RECIPES / "base").iterdir()} == {Path(name).name for name in used}


def _inherits(path):
    return "".join(line for line in path.read_text().splitlines() if line.startswith("inherits:"))


@pytest.mark.parametrize("name, processes", [("cpu", 1), ("one_gpu", 1), ("multi_gpu", 2)])
def test_accelerate_reads_its_configurations(name, processes):
    config = load_config_from_file(str(RECIPES.parent / "accelerate_configs" / f"{name}.yaml"))
    assert config.num_processes == processes
    assert config.mixed_precision == "no"
