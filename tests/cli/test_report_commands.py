"""Every command that a report offers for what a run lacks works as it stands, whatever state the run is in."""

import re
import shlex

import pytest
import yaml
from runs.report.html_page import Page
from runs.report.made_runs import history, metrics, statistics, write, write_run

from hf_ltsam.cli.decouple import parse_second_stage
from hf_ltsam.cli.evaluate.sets import Places, find_sets
from hf_ltsam.cli.sharpness.options import parse_options
from hf_ltsam.cli.train.arguments import parse
from hf_ltsam.cli.train.checks import check
from hf_ltsam.runs.folder import IDENTITY, MADE_IN_PYTHON, RECORD, WEIGHTS, RunFolder, find_runs
from hf_ltsam.runs.report import by_class, by_frequency, by_group, calibration, confusion, cost, log_curves
from hf_ltsam.runs.report.configurations import configurations
from hf_ltsam.runs.report.content import Figure
from hf_ltsam.runs.report.reading import read_run
from hf_ltsam.runs.report.report import SECTIONS, write_report
from hf_ltsam.runs.report.report import configurations as last_section

SETTINGS = {
    "dataset": "images",
    "model": "cifar_resnet",
    "depth": 8,
    "method": "sam",
    "output_dir": "runs/mine",
    "seed": 0,
}
OF_TEXTS = {"dataset": "texts.csv", "task": "text"}


@pytest.fixture
def here(tmp_path, monkeypatch, pictures):
    """A folder with the images of the runs, and nothing else."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").symlink_to(pictures)
    file = next(pictures.rglob("*.png"))
    (tmp_path / "labels.csv").write_text(f"image,label,split\n{file},a,train\n{file},b,test\n")
    for module in (by_class, by_frequency, by_group, calibration, cost, confusion, log_curves):
        monkeypatch.setattr(module, "draw", lambda *_: Figure("none", "<svg/>", ""))  # which takes the time
    return tmp_path


def made(folder, recipe=SETTINGS, finished=True, checkpoints=(), python=False, identity=None, **record):
    """A run in a state: its record, its recipe (None: lost), weights at the end and in checkpoints."""
    command = f"ltsam train --dataset images --depth 8 --output-dir {folder} --seed=0 --resume_from_checkpoint true --method sam"
    own = metrics(
        (0.5,) * len(record.get("class_statistics", statistics())["counts"]),
        command="" if python else command,
        **{"data": {"dataset": "images"}, **record},
    )
    write_run(folder, own)
    write(folder / WEIGHTS[0], "")
    if recipe is not None:
        write(folder / "recipe.yaml", f"# {MADE_IN_PYTHON if python else command}\n{yaml.safe_dump(recipe)}")
    for step in checkpoints:
        write(folder / f"checkpoint-{step}" / WEIGHTS[0], "")
        write(folder / f"checkpoint-{step}" / "trainer_state.json", {**history([0.5]), "global_step": step})
        if identity is not None:
            write(folder / f"checkpoint-{step}" / IDENTITY, identity)
    if not finished:
        (folder / "metrics.json").unlink()
        (folder / WEIGHTS[0]).unlink()
    return folder


STATES = {
    "finished": {},
    "finished, with its last checkpoint": {"checkpoints": (40,)},
    "resumed, so without a time": {"resumed": True, "checkpoints": (20, 40)},
    "it chose its best epoch, and kept two": {
        "recipe": {**SETTINGS, "load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 5, "save_steps": 5, "save_total_limit": 1},
        "checkpoints": (5,),
    },
    "without telemetry": {"recipe": {**SETTINGS, "telemetry": False}},
    "of two processes": {"hardware": "2 x cpu"},
    "of two processes, killed": {"finished": False, "checkpoints": (20,), "identity": {"settings": {"processes": 2}}},
    "published": {"recipe": {**SETTINGS, "push_to_hub": True, "hub_model_id": "me/mine"}},
    "killed before its first checkpoint": {"finished": False},
    "killed after a checkpoint": {"finished": False, "checkpoints": (20,)},
    "killed after a checkpoint of weights alone": {
        "recipe": {**SETTINGS, "save_only_model": True}, "finished": False, "checkpoints": (20,),
    },
    "without its recipe": {"recipe": None},
    "without its recipe, from a file of images and labels": {"recipe": None, "data": {"dataset": "labels.csv"}},
    "with images held out": {"recipe": {**SETTINGS, "held_out_per_class": 2}, "data": {"dataset": "images", "held_out_per_class": 2}},
    "of CIFAR": {"data": {"dataset": "uoft-cs/cifar100", "builder": "cifar_lt"}, "class_statistics": statistics([9] * 100)},
    "of a published set": {"data": {"dataset": "images", "builder": "imagenet_lt"}},
    "of a revision on the Hub": {"data": {"dataset": "me/birds", "dataset_revision": "v2", "label_column": "kind"}},
    "of texts": {"data": OF_TEXTS},
    "made in Python": {"recipe": {"method": "sam"}, "python": True, "data": {}},
    "made in Python, its place named": {"recipe": {"method": "sam", "dataset": "images"}, "python": True},
    "made in Python, killed": {"recipe": {"method": "sam"}, "python": True, "finished": False, "checkpoints": (20,)},
    "a second stage that rescales": {
        "recipe": {**SETTINGS, "second_stage": "tau_norm", "first_stage": "runs/first", "output_dir": "runs/mine"},
        "second_stage": {"name": "tau_norm", "first_stage": {"folder": "runs/first"}},
    },
}  # fmt: skip


def ways(*folders):
    """Everything that their report names as missing."""
    groups = configurations([read_run(folder) for folder in folders])
    sections = [*(make(groups, folders[0]) for make in SECTIONS), last_section.section(groups)]
    return [(section.title, missing) for section in sections for missing in section.missing]


def try_out(command):
    """Refused, or not, as far as that is known before anything is loaded; what a command before it leaves is there."""
    left = {}
    for part in command.split(" && "):
        _, program, *words = shlex.split(re.sub("^torchrun .* -m hf_ltsam.cli.main", "ltsam", part))
        if program in ("train", "decouple"):
            run = parse(words) if program == "train" else parse_second_stage(words)
            if run.config.push_to_hub:
                pytest.fail(f"{part} would publish its model in the place of the run's")
            if run.config.resume_from_checkpoint and not run.config.save_only_model:
                assert RunFolder(run.config.output_dir).checkpoints and not RunFolder(run.config.output_dir).has(RECORD)
            else:
                check(run)
            left[run.config.output_dir] = run.config
            continue
        options = words if program == "sharpness" else ["--sets", *words[words.index("--sets") + 1 :]]
        folder = words[0] if program == "sharpness" else words[words.index("--model") + 1]
        if program == "sharpness":
            request = parse_options(words)
            saved = [f for f in RunFolder(request.run).checkpoints.values() if f.has_weights]
            assert not request.checkpoints or saved or left[folder].save_strategy == "epoch", part
        else:
            sets = [word for word in options[1:] if not word.startswith("--")][:1]
            data_dir = [words[words.index("--data_dir") + 1]] if "--data_dir" in words else []
            (found,) = find_sets(sets, Places.of(data_dir))
            assert found.corruptions == "made"
        assert folder in left or RunFolder(folder).has_weights, f"{part}: {folder} has no weights"


@pytest.mark.parametrize("state", STATES)
def test_what_a_report_offers_works(here, state):
    made(here / "runs" / "first")
    folder = made(here / "runs" / "mine", **STATES[state]).relative_to(here)
    offered = ways(folder)
    commands = {m.command for _, m in offered}
    trained = [command for command in commands if " --output_dir " in command and " && " not in command]
    assert offered and len({c.partition(" --output_dir ")[2].split()[0] for c in trained}) == len(trained), (
        "one after the other"
    )
    for title, missing in offered:
        assert "..." not in missing.command and (missing.command or missing.way.remark.endswith(".")), (title, missing)
        if missing.command:
            try_out(missing.command)


@pytest.mark.parametrize(("state", "title", "command"), [
    ("finished", "Cost against accuracy", ""),
    ("finished", "Accuracy over the training", "ltsam train --config runs/mine/recipe.yaml --output_dir runs/mine_with_curves --eval_strategy epoch --logging_strategy epoch"),
    ("finished", "Curvature over the training", "ltsam train --config runs/mine/recipe.yaml --output_dir runs/mine_with_checkpoints --save_strategy epoch && ltsam sharpness runs/mine_with_checkpoints --checkpoints"),
    ("finished", "Spectral densities", "ltsam sharpness runs/mine"),
    ("resumed, so without a time", "Cost against accuracy", "ltsam train --config runs/mine/recipe.yaml --output_dir runs/mine_again"),
    ("resumed, so without a time", "Curvature over the training", "ltsam sharpness runs/mine --checkpoints"),
    ("killed before its first checkpoint", "Accuracy by frequency", "ltsam train --config runs/mine/recipe.yaml --output_dir runs/mine"),
    ("killed after a checkpoint", "Accuracy by frequency", "ltsam train --config runs/mine/recipe.yaml --output_dir runs/mine --resume_from_checkpoint true"),
    ("without its recipe", "Configurations and commands", "ltsam train --dataset images --depth 8 --seed=0 --method sam --output_dir runs/mine_again"),
    ("of two processes", "Curvature over the training", "torchrun --nproc_per_node 2 -m hf_ltsam.cli.main train --config runs/mine/recipe.yaml --output_dir runs/mine_with_checkpoints --save_strategy epoch && ltsam sharpness runs/mine_with_checkpoints --checkpoints"),
    ("of two processes, killed", "Accuracy by frequency", "torchrun --nproc_per_node 2 -m hf_ltsam.cli.main train --config runs/mine/recipe.yaml --output_dir runs/mine --resume_from_checkpoint true"),
    ("of CIFAR", "Under shift and corruption", "ltsam evaluate --model runs/mine --sets cifar100_c"),
    ("of a published set", "Under shift and corruption", "ltsam evaluate --model runs/mine --sets imagenet_lt_c --data_dir imagenet_lt=images"),
    ("of a revision on the Hub", "Under shift and corruption", "ltsam evaluate --model runs/mine --sets me/birds@v2_c --label_column kind"),
])  # fmt: skip
def test_the_command_for_a_state(here, state, title, command):
    folder = made(here / "runs" / "mine", **STATES[state]).relative_to(here)
    assert next((m.command for where, m in ways(folder) if where == title), "") == command


def test_what_no_command_makes_is_not_offered(here):
    """Corrupted texts; the curves of a stage that takes no step."""
    texts = made(here / "runs" / "texts", data=OF_TEXTS)
    assert "Under shift and corruption" not in dict(ways(texts))
    rescaled = made(here / "runs" / "mine", **STATES["a second stage that rescales"])
    assert not {"Accuracy over the training", "Curvature over the training"} & dict(ways(rescaled)).keys()


def test_a_run_of_python_is_repeated_in_python(here):
    said = dict(ways(made(here / "run", **STATES["made in Python"])))["Accuracy over the training"].way
    assert not said.command
    assert (
        "train it again there, with eval_strategy='epoch' and logging_strategy='epoch' and another output_dir"
        in said.remark
    )


def test_seeds_stay_together_and_no_folder_is_taken_twice(here):
    seed = made(here / "runs" / "mine" / "seed0").relative_to(here)
    made(here / "runs" / "mine_with_curves" / "seed0")
    (missing,) = [m for title, m in ways(seed) if title == "Accuracy over the training"]
    assert "--output_dir runs/mine_with_curves_2/seed0 " in missing.command
    assert find_runs([here / "runs" / "mine"]) == [here / seed]


def test_the_page_says_where_it_will_be(here):
    made(here / "run")
    text = Page(write_report([read_run(here / "run")], here / "report").read_text()).section(
        "Accuracy over the training"
    )
    assert (
        f"--output_dir {here / 'run_with_curves'} --eval_strategy epoch --logging_strategy epoch makes it in a run of its own."
        in text
    )
