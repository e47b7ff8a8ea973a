"""The folder of a run: one module names and reads its files, what is missing is None, what is damaged is named."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from runs.report.made_runs import complete_run, history, metrics, statistics, write
from syntax import tree_of
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME

from hf_ltsam.runs import folder as owner
from hf_ltsam.runs.files import DamagedFileError
from hf_ltsam.runs.folder import Recipe, RunFolder, find_runs

PACKAGE = Path(owner.__file__).parents[1]
NAMES = {
    name
    for value in vars(owner).values()
    for name in (value if isinstance(value, tuple) else [value])
    if isinstance(name, str)
    and name.rpartition(".")[2] in ("json", "yaml", "md", "bin", "safetensors")
    and " " not in name
}
# Statistics are saved without a run too, so they name their own file; a card shows code that loads any weights.
ELSEWHERE = {"class_statistics/statistics.py": "class_statistics.json", "runs/card/sentences.py": "model.safetensors"}
READERS = ("record", "recipe", "predictions", "statistics", "identity", "config", "adapter", "evaluation", "sharpness")


@pytest.fixture
def run(tmp_path):
    """A run that has every file."""
    folder = complete_run(tmp_path / "seed0", 0, (0.5,) * 5, [True, False] * 5, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    write(folder / "class_statistics.json", statistics())
    write(folder / "ltsam.json", {"method": {"name": "sgd"}})
    write(folder / "config.json", {"num_labels": 5})
    write(folder / "adapter_config.json", {"peft_type": "LORA"})
    return RunFolder(folder)


def checkpoint(run, step, epoch=1.5, weights=True):
    folder = run.path / f"checkpoint-{step}"
    write(folder / "trainer_state.json", {"global_step": step, "epoch": epoch, **history([0.1] * (step // 10))})
    if weights:
        write(folder / "model.safetensors", f"weights of {step}")
    return folder


# ---- one owner ----


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_no_other_module_names_the_files_of_a_run(file):
    if file == Path(owner.__file__):
        return
    constants = [node.value for node in ast.walk(tree_of(file.read_text())) if isinstance(node, ast.Constant)]
    texts = [value for value in constants if isinstance(value, str) and len(value) < 60]
    named = {name for name in NAMES for text in texts if text == name or text.endswith(f"/{name}")}
    allowed = {ELSEWHERE.get(file.relative_to(PACKAGE).as_posix())}
    assert named <= allowed, (
        f"{file} names {sorted(named - allowed)}: import the name from hf_ltsam.runs.folder, or read it there."
    )


def test_the_names_are_those_of_transformers():
    assert len(NAMES) >= 15
    assert owner.STATE == TRAINER_STATE_NAME and owner.PICKLED_SETTINGS == TRAINING_ARGS_NAME
    assert owner.CHECKPOINT == PREFIX_CHECKPOINT_DIR and owner.CONFIG == CONFIG_NAME
    assert {SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME} < set(owner.SAFE_WEIGHTS) < set(owner.WEIGHTS)
    assert {WEIGHTS_NAME, WEIGHTS_INDEX_NAME} < set(owner.WEIGHTS)


def test_names_and_records_do_without_transformers():
    code = "import sys, hf_ltsam.runs.folder, hf_ltsam.runs.experiment; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# ---- reading ----


def test_every_file_is_read(run):
    assert run.record.seed == 0 and run.finished_record() == run.record
    assert run.recipe.settings["learning_rate"] == 0.1 and run.recipe.text.startswith("# ltsam train")
    assert run.predictions.class_names == ("a", "b", "c", "d", "e")
    assert run.statistics.counts == (40, 30, 12, 5, 2) and run.identity == {"method": {"name": "sgd"}}
    assert run.config == {"num_labels": 5} and run.adapter == {"peft_type": "LORA"}
    assert set(run.evaluation["sets"]) == {"sketch", "images_c"} and "spectra" in run.sharpness
    assert [entry["eval_many"] for entry in run.log_history if "eval_many" in entry] == [0.2, 0.5, 0.7]


def test_what_is_missing_is_none(tmp_path):
    run = RunFolder(tmp_path)
    assert [getattr(run, name) for name in READERS] == [None] * len(READERS)
    assert run.log_history == () and run.checkpoints == {} and run.step is run.epoch is None
    assert run.weights_sha256 == "" and not run.has_weights and not run.has("metrics.json")
    with pytest.raises(FileNotFoundError, match=r"has no metrics\.json: the run has not finished"):
        run.finished_record()


@pytest.mark.parametrize("content", ["{", "[1, 2]", "\xff", "", "3"])
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("record", "metrics.json"), ("recipe", "recipe.yaml"), ("predictions", "predictions.json"),
        ("statistics", "class_statistics.json"), ("identity", "ltsam.json"), ("config", "config.json"),
        ("adapter", "adapter_config.json"), ("evaluation", "evaluation/ood_results.json"),
        ("sharpness", "sharpness/sharpness.json"), ("log_history", "trainer_state.json"),
    ],
)  # fmt: skip
def test_damage_is_named(run, name, file, content):
    (run.path / file).write_bytes(content.encode("latin-1"))
    with pytest.raises(DamagedFileError) as error:
        getattr(run, name)
    assert str(error.value).startswith(f"{run.path / file} is damaged: ") and "\n" not in str(error.value)


def test_a_missing_key_and_the_way_out_are_named(run):
    values = json.loads((run.path / "predictions.json").read_text())
    del values["test"]
    write(run.path / "predictions.json", values)
    with pytest.raises(DamagedFileError, match=r"it lacks 'test'\. `ltsam train` writes it after the last epoch\.$"):
        assert run.predictions


@pytest.mark.parametrize(
    ("name", "file", "path"),
    [
        ("evaluation", "evaluation/ood_results.json", ("sets", "sketch", "result", "samples")),
        ("evaluation", "evaluation/ood_results.json", ("sets", "images_c", "summary", "mean_error")),
        ("evaluation", "evaluation/ood_results.json", ("checkpoint",)),
        ("sharpness", "sharpness/sharpness.json", ("weights_sha256",)),
        ("sharpness", "sharpness/sharpness.json", ("spectra", "class 4", "samples")),
        ("sharpness", "sharpness/sharpness.json", ("spectra", "class 4", "trace", "value")),
        ("sharpness", "sharpness/sharpness.json", ("schema_version",)),
    ],
)
def test_results_of_other_commands_are_complete(run, name, file, path):
    """What the card shows is checked where it is read, and not by the table that stumbles over it."""
    values = json.loads((run.path / file).read_text())
    inner = values
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    write(run.path / file, values)
    with pytest.raises(DamagedFileError):
        getattr(run, name)


# ---- writing ----


def test_what_is_written_is_read_again(run, tmp_path):
    copy = RunFolder(tmp_path / "copy")
    copy.write_record(run.record)
    copy.write_identity(run.identity)
    copy.write_predictions(run.predictions)
    copy.write_recipe(run.recipe.settings, ("the command", "the same again"))
    assert copy.record == run.record and copy.identity == run.identity
    assert copy.predictions.predicted.tolist() == run.predictions.predicted.tolist()
    assert copy.recipe.settings == run.recipe.settings
    assert copy.recipe.text.splitlines()[:2] == ["# the command", "# the same again"]


def test_a_recipe_must_be_names_and_values():
    assert Recipe.from_text("# x\nseed: 3\n").settings == {"seed": 3}
    with pytest.raises(ValueError, match=r"must hold settings.*got a list"):
        Recipe.from_text("- seed")


# ---- weights and checkpoints ----


def test_checkpoints_are_in_the_order_of_the_training(run):
    for step in (1000, 20, 300):
        checkpoint(run, step)
    for name in (
        "checkpoint-best",
        "checkpoint-old1",
        "checkpoint-old-1",
        "checkpoint-",
        "checkpoint-1a",
        "checkpoint-20-copy",
        "checkpoint-1.5",
    ):
        (run.path / name).mkdir()
        write(run.path / name / "trainer_state.json", "not even JSON")
    write(run.path / "checkpoint-7", "a file")
    assert list(run.checkpoints) == [20, 300, 1000]
    middle = run.checkpoints[300]
    assert (middle.step, middle.epoch, middle.has_weights) == (300, 1.5, True)
    assert middle.root == run.root == run


def test_an_unfinished_run_has_the_log_of_its_last_checkpoint(run):
    for step in (10, 200):
        checkpoint(run, step)
    whole = run.log_history
    (run.path / "trainer_state.json").unlink()
    assert len(whole) == 6 and len(run.log_history) == 40


def test_the_step_of_a_run_is_its_last_one(run):
    write(run.path / "trainer_state.json", {"global_step": 77, "epoch": 3.0, "log_history": []})
    assert (run.step, run.epoch) == (77, 3.0)


def test_the_digest_follows_the_weights_alone(run):
    write(run.path / "model.safetensors", "one")
    first = run.weights_sha256
    write(run.path / "config.json", {})
    assert run.weights_sha256 == first != ""
    write(run.path / "adapter_model.safetensors", "two")
    assert run.weights_sha256 != first


@pytest.mark.parametrize("name", owner.WEIGHTS)
def test_all_kinds_of_weights_are_seen(run, name):
    with pytest.raises(FileNotFoundError, match=r"has no weights \(model\.safetensors\)"):
        run.require_weights()
    write(run.path / name, "weights")
    run.require_weights()


def test_no_folder_and_no_recipe_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such folder"):
        RunFolder(tmp_path / "nowhere").require_weights()
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such folder"):
        assert RunFolder(tmp_path / "nowhere").root
    with pytest.raises(FileNotFoundError, match=r"has no recipe\.yaml: give the output folder of `ltsam train`"):
        assert RunFolder(tmp_path).root


def test_runs_are_found_inside_folders(tmp_path):
    write(tmp_path / "b" / "seed1" / "metrics.json", metrics((0.5,) * 5))
    write(tmp_path / "a" / "recipe.yaml", "seed: 1")
    assert find_runs([tmp_path, tmp_path / "a"]) == [tmp_path / "a", tmp_path / "b" / "seed1"]
    with pytest.raises(FileNotFoundError, match=r"holds no run \(neither metrics\.json nor recipe\.yaml\)"):
        find_runs([(tmp_path / "a" / "empty").mkdir() or tmp_path / "a" / "empty"])


def test_the_folder_of_a_seed():
    assert owner.default_folder("mine", 3) == Path("runs/mine/seed3") == owner.seed_folder(Path("runs/mine"), 3)
    assert owner.without_seed("a/seed12/seed_of_doubt/b") == "a/seed*/seed_of_doubt/b"


def test_the_folders_of_seeds_are_folders_named_by_a_seed_alone(tmp_path):
    for name in ("seed2", "seed10", "seed2_old", "seeds", "report"):
        (tmp_path / name).mkdir()
    (tmp_path / "seed2.log").touch()
    (tmp_path / "seed7").touch()
    assert [folder.name for folder in owner.seed_folders(tmp_path)] == ["seed10", "seed2"]


def test_no_other_module_spells_the_folder_of_a_seed():
    spelled = [
        f"{file}: {ast.unparse(part)}"
        for file in sorted(PACKAGE.rglob("*.py"))
        if file != Path(owner.__file__)
        for part in ast.walk(tree_of(file.read_text()))
        if isinstance(part, ast.JoinedStr) and re.search(r"(^|/)seed\{", ast.unparse(part)[2:-1])
    ]
    assert not spelled, "seed_folder() of hf_ltsam.runs.folder"
