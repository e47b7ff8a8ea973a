"""Settings from recipe and command line."""

import re
import shlex
import shutil
from dataclasses import fields

import pytest
from transformers import IntervalStrategy, SchedulerType, TrainingArguments
from transformers.debug_utils import DebugOption
from transformers.training_args import OptimizerNames

from hf_ltsam.cli import main as cli
from hf_ltsam.cli.train.arguments import decided_settings, make_run, option_names, parse, read_settings
from hf_ltsam.cli.train.defaults import SourceConfig
from hf_ltsam.cli.train.help import GROUPS
from hf_ltsam.cli.train.resuming import resume_point
from hf_ltsam.runs.folder import STATE
from hf_ltsam.runs.recipes import find_recipe, read_recipe

FROM_SCRATCH = {"method": "sam", "method_args": {"rho": 0.1, "start": 0.8}}  # where nothing states a method


@pytest.fixture
def write(tmp_path):
    """Write a recipe and return its path as text."""

    def write(text, name="recipe.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    return write


def test_the_command_line_overrides_the_recipe(write):
    path = write("learning_rate: 0.5\nmethod: sam\nmethod_args: {rho: 0.2}\nflip: false\n")
    run = parse(["--config", path, "--learning_rate", "0.25", "--many_above=7", "--use_cpu"])
    assert run.config.learning_rate == 0.25
    assert run.config.method_args == {"rho": 0.2}
    assert (run.data.flip, run.data.many_above, run.config.use_cpu) == (False, 7, True)


@pytest.mark.parametrize(
    ("metric", "larger"), [("ece", False), ("eval_ece", False), ("balanced", True), ("loss", False)]
)
def test_which_metric_is_better(metric, larger, write):
    words = [
        "--metric_for_best_model",
        metric,
        "--load_best_model_at_end",
        "--eval_strategy",
        "epoch",
        "--save_strategy",
        "epoch",
    ]
    assert parse(words).config.greater_is_better is larger
    path = write(f"metric_for_best_model: {metric}\n")
    assert parse(["--config", path]).config.greater_is_better is larger
    assert parse(["--config", path, "--greater_is_better", "true"]).config.greater_is_better


def test_settings_hold_what_was_set_and_nothing_else(write):
    run = parse(
        [
            "--config",
            write("learning_rate: 0.5\nloss: LA\nloss_args: {tau: 0.5}\n"),
            "--seed",
            "3",
            "--output_dir",
            "out",
        ]
    )
    assert run.settings == {
        **FROM_SCRATCH,
        "learning_rate": 0.5,
        "loss": "logit_adjustment",
        "loss_args": {"tau": 0.5},
        "seed": 3,
        "output_dir": "out",
        "num_train_epochs": 200,
    }


@pytest.mark.parametrize(
    "number, value", [("1e-3", 1e-3), ("1E5", 1e5), ("2.5e-4", 2.5e-4), ("-1e-3", -1e-3), (".5e1", 5.0)]
)
def test_numbers_with_an_exponent_are_numbers(write, number, value):
    path = write(f"weight_decay: {number}\nmethod_args: {{rho: {number}}}\n")
    run = parse(["--config", path])
    assert run.config.weight_decay == value
    assert run.config.method_args == {"rho": value}


def test_words_that_look_like_numbers_stay_words(tmp_path, write):
    assert read_recipe(tmp_path / write("dataset: e3\nloss: 1e3abc\n")) == {"dataset": "e3", "loss": "1e3abc"}


def test_a_recipe_is_read_in_the_types_of_the_options(write):
    path = write(
        'loss: CE\nnum_train_epochs: 3\nmax_steps: "5"\nflip: "no"\nuse_cpu: true\nsave_steps: 0.5\nreport_to: none\n'
        "resume_from_checkpoint: true\nspectral_norm: classifier\nlr_milestones: [1e-1, 0.5]\n"
        "gradient_checkpointing_kwargs: {use_reentrant: false}\nmethod_args: {rho: 1}\ndataset: 5\n"
    )
    settings = parse(["--config", path, "--output_dir", "out"]).settings
    assert {name: (value, type(value)) for name, value in settings.items()} == {
        "loss": ("cross_entropy", str),
        "num_train_epochs": (3.0, float),
        "max_steps": (5, int),
        "flip": (False, bool),
        "use_cpu": (True, bool),
        "save_steps": (0.5, float),
        "report_to": ("none", str),
        "resume_from_checkpoint": ("True", str),
        "spectral_norm": (["classifier"], list),
        "lr_milestones": ([0.1, 0.5], list),
        "gradient_checkpointing_kwargs": ({"use_reentrant": False}, dict),
        "method": ("sam", str),
        "method_args": ({"rho": 1}, dict),
        "dataset": ("5", str),
        "output_dir": ("out", str),
    }


def test_a_run_from_values_is_the_run_of_the_command_line(write):
    path = write("method: sam\nmethod_args: {rho: 0.2}\nlearning_rate: 1\n")
    values = {"seed": 3, "flip": False, "lr_milestones": [0.5, 0.75], "loss_args": {"tau": 2}, "use_cpu": True}
    values |= {"dataset": "my images"}
    words = ["--seed", "3", "--flip", "false", "--lr_milestones", "0.5", "0.75", "--use_cpu", "true"]
    words += ["--loss_args", '{"tau": 2}', "--dataset", "my images"]
    run, same = make_run(values, path), parse(["--config", path, *words])
    assert run.settings == same.settings
    assert (run.model, run.data, run.stage) == (same.model, same.data, same.stage)
    assert run.config.to_dict() == same.config.to_dict()
    repeated = parse(shlex.split(run.command)[2:])
    assert repeated.settings == run.settings and run.command.startswith("ltsam train --config=")


def test_a_flag_that_takes_a_text_too(write):
    """transformers reads `--fsdp` as True, and any text as the names of strategies."""
    runs = [
        parse(["--fsdp"]),
        parse(["--fsdp", "true"]),
        make_run({"fsdp": True}),
        parse(["--config", write("fsdp: true\n")]),
    ]
    assert [run.config.fsdp for run in runs] == [True] * 4 and [run.settings["fsdp"] for run in runs] == [True] * 4
    assert parse(shlex.split(runs[2].command)[2:]).settings["fsdp"] is True
    assert not parse(["--config", write("fsdp: false\n")]).config.fsdp
    assert parse(["--fsdp", "full_shard"]).settings["fsdp"] == "full_shard"


def test_none_takes_a_setting_of_the_recipe_away(write):
    path = write("learning_rate: 0.5\ntail_threshold: 3\nmethod: sam\nmethod_args: {rho: 0.2}\nflip: false\n")
    run = make_run({"learning_rate": None, "tail_threshold": None, "seed": 3}, path)
    assert (run.config.learning_rate, run.config.tail_threshold, run.data.flip) == (0.1 / 16, None, False)
    assert run.config.method_args == {"rho": 0.2}
    same = parse(shlex.split(run.command)[2:])
    assert {**same.settings, "output_dir": None} == {**run.settings, "output_dir": None}
    assert make_run({"method": None}, path).settings["method_args"] == FROM_SCRATCH["method_args"]


def test_enums_of_transformers_are_values():
    values = {
        "eval_strategy": IntervalStrategy.EPOCH,
        "optim": OptimizerNames.SGD,
        "lr_scheduler_type": SchedulerType.COSINE,
        "loss": "cross_entropy",
    }
    run = make_run({**values, "debug": [DebugOption.UNDERFLOW_OVERFLOW]})
    settings = {
        "eval_strategy": "epoch",
        "optim": "sgd",
        "lr_scheduler_type": "cosine",
        "loss": "cross_entropy",
        "debug": ["underflow_overflow"],
    }
    assert run.settings == {**settings, **FROM_SCRATCH, "num_train_epochs": 200, "output_dir": "runs/train/seed42"}
    assert {type(value) for value in (*run.settings.values(), *run.settings["debug"])} == {str, list, int, dict}
    assert run.config.optim == "sgd" and run.config.eval_strategy == "epoch"
    assert parse(shlex.split(run.command)[2:]).settings == run.settings


def test_a_value_that_does_not_exist_is_refused_from_python_too():
    with pytest.raises(ValueError, match=r"sets 'sead', which does not exist.*'seed'"):
        make_run({"sead": 3})
    with pytest.raises(ValueError, match=r"sets seed to 'x'; it must be a whole number"):
        make_run({"seed": "x"})
    with pytest.raises(
        ValueError, match=r"The caller sets loss_args to 'tau=2'; it must be a mapping, such as \{\"tau\": 2\}\."
    ):
        make_run({"loss_args": "tau=2"})


def test_the_arguments_of_one_method_are_not_those_of_another(write):
    path = write("method: sam\nmethod_args: {rho: 0.2}\nloss: focal\nloss_args: {gamma: 2}\n")
    assert parse(["--config", path, "--method", "imbsam"]).settings.get("method_args") is None
    assert parse(["--config", path, "--method", "sam"]).settings["method_args"] == {"rho": 0.2}
    assert parse(["--config", path, "--method", "imbsam"]).settings["loss_args"] == {"gamma": 2}


def test_the_command_of_several_processes_starts_as_many(monkeypatch):
    run = parse(["--seed", "1"])
    monkeypatch.setattr(type(run.config), "world_size", property(lambda _: 2))
    assert run.command == "torchrun --nproc_per_node 2 -m hf_ltsam.cli.main train --seed 1"


@pytest.mark.parametrize(
    "words", [["--hub_token", "hf_a"], ["--hub_token=hf_a"], ["--hub-token", "hf_a"], ["--hub-token=hf_a"]]
)
def test_a_token_is_in_no_record(words):
    run = parse(["--seed", "1", *words, "--depth", "8"])
    assert run.command == "ltsam train --seed 1 --depth 8" and "hub_token" not in run.settings
    assert run.config.hub_token == "hf_a"


def test_inheritance(write):
    write("learning_rate: 0.5\nseed: 1\nmethod_args: {rho: 0.1, gamma: 2}\n", "base/a.yaml")
    write("inherits: a.yaml\nweight_decay: 0.25\nseed: 2\n", "base/b.yaml")
    write("loss: focal\nseed: 3\n", "base/c.yaml")
    path = write("inherits: [base/b.yaml, base/c.yaml]\nmethod_args: {rho: 0.3}\n")
    assert read_recipe(find_recipe(path)) == {
        "learning_rate": 0.5,
        "weight_decay": 0.25,
        "loss": "focal",
        "seed": 3,
        "method_args": {"rho": 0.3},
    }


def test_null_takes_a_setting_back_to_its_default(write):
    write("learning_rate: 0.5\ntail_threshold: 3\n", "base.yaml")
    run = parse(["--config", write("inherits: base.yaml\nlearning_rate: null\ntail_threshold: null\n")])
    assert run.config.learning_rate == 0.1 * 8 / 128 and run.config.tail_threshold is None


def test_lists_and_milestones(write):
    path = write("lr_milestones: [0.8, 0.9]\n")
    assert parse(["--config", path]).config.lr_milestones == [0.8, 0.9]
    assert parse(["--config", path, "--lr_milestones", "0.5"]).config.lr_milestones == [0.5]


def test_a_schedule_in_a_recipe(write):
    args = "method: sam\nmethod_args:\n  rho:\n    piecewise: {values: [1e-1, 0.5], boundaries: [0.8]}\n"
    assert parse(["--config", write(args)]).config.method_args == {
        "rho": {"piecewise": {"values": [0.1, 0.5], "boundaries": [0.8]}}
    }


def test_every_seed_has_its_own_folder(write):
    path = write("seed: 5\n", "mine.yaml")
    assert parse(["--config", path]).config.output_dir == "runs/mine/seed5"
    assert parse(["--config", path, "--seed", "6"]).config.output_dir == "runs/mine/seed6"
    assert parse([]).config.output_dir == "runs/train/seed42"


def test_help(capsys):
    out = shown(capsys, "--help")
    assert out.startswith("usage: ltsam train [--config RECIPE]") and "--dataset" in out
    assert out == shown(capsys, "-h") and len(out.splitlines()) < 80
    assert len(re.findall(r"^  --\w+", out, re.MULTILINE)) == 10


def shown(capsys, *words):
    """What a help prints before it leaves."""
    with pytest.raises(SystemExit, match="0"):
        parse(words)
    return capsys.readouterr().out


def listed(text):
    return re.findall(r"^  (?:-h, )?--(\w+)", text, re.MULTILINE)


def test_help_by_group_has_every_option_once(capsys):
    everything = listed(shown(capsys, "--help", "all"))
    assert sorted(everything) == sorted(set(everything))
    assert set(everything) - {f"no_{n}" for n in option_names()} == {*option_names(), "config"}
    by_group = [name for group in GROUPS for name in listed(shown(capsys, "--help", group))]
    assert by_group == everything
    overview = shown(capsys, "--help")
    assert all(f"  {group} " in overview for group in GROUPS)
    stock = {field.name for field in fields(TrainingArguments)}
    assert {name.removeprefix("no_") for name in listed(shown(capsys, "--help", "other"))} <= stock


@pytest.mark.parametrize("spelling", ["tail_threshold", "tail-threshold"])
def test_help_of_one_option(capsys, spelling):
    out = shown(capsys, "--help", spelling)
    assert listed(out) == ["tail_threshold"] and "of the group method" in out


@pytest.mark.parametrize(
    "topic, said",
    [
        ("optimzer", "Did you mean 'optimizer'"),
        ("learning_rat", "'learning_rate'"),
        ("rho", "It goes into --method_args"),
        ("resume", r"Did you mean 'resume_from_checkpoint' or '"),
        ("methods_args", r"Did you mean 'method_args' or 'method' or '(?!method')\w+'\?"),
        ("epochs", "Did you mean 'num_train_epochs'"),
    ],
)
def test_help_about_nothing_that_exists(topic, said):
    with pytest.raises(ValueError, match=f"--help {topic}: no such group or option.*{said}.*--help all"):
        parse(["--help", topic])


def test_help_gives_the_defaults_that_a_run_has(capsys):
    out = " ".join(shown(capsys, "--help").split())
    assert "Not set: 0.1 for training from scratch; 0.0003 for fine-tuning; 0.001 for an adapter" in out
    assert (
        "unless --max_steps is set. Not set: 200 for training from scratch; 10 for fine-tuning; 10 for an adapter. --"
        in out
    )
    assert "Not set: runs/RECIPE/seedN, or runs/train/seedN" in out and "default: None" not in out


@pytest.mark.parametrize(
    "text, message",
    [
        ("learning_ratee: 0.1\n", r"recipe.yaml sets 'learning_ratee'.*Did you mean 'learning_rate'"),
        ("learning_rate: fast\n", r"recipe.yaml sets learning_rate to 'fast'; it must be a number"),
        ("max_steps: 2.7\n", r"recipe.yaml sets max_steps to 2.7; it must be a whole number"),
        ("max_steps: true\n", r"recipe.yaml sets max_steps to True; it must be a whole number"),
        ("flip: sometimes\n", r"recipe.yaml sets flip to 'sometimes'; it must be true or false"),
        ("seed: [1, 2]\n", r"recipe.yaml sets seed to \[1, 2\]; it takes one value"),
        ("learning_rate: {a: 1}\n", r"recipe.yaml sets learning_rate to \{'a': 1\}; it must be a number"),
        ("eval_strategy: epoc\n", r"recipe.yaml sets eval_strategy to 'epoc', which does not exist.*'epoch'"),
        (
            "train_sampling_strategy: group_by_lenght\n",
            r"to 'group_by_lenght', which does not exist.*'group_by_length'",
        ),
        ("log_level: warnings\n", r"recipe.yaml sets log_level to 'warnings', which does not exist.*'warning'"),
        ("config: demo/digits\n", r"recipe.yaml sets 'config', which does not exist"),
        ("inherits: nowhere.yaml\n", r"recipe.yaml inherits from nowhere.yaml"),
        ("inherits: recipe.yaml\n", r"recipe.yaml inherits from itself"),
        ("- a\n- b\n", r"recipe.yaml must hold settings.*list"),
        ("a: [1\n", r"recipe.yaml is not a YAML file"),
        ("method_args: 3\n", r"recipe.yaml sets method_args to 3; it must be a mapping, such as \{\"rho\": 0.1\}\."),
    ],
)
def test_bad_recipes(write, text, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        parse(["--config", write(text)])


@pytest.mark.parametrize(
    "words, message",
    [
        (["--resume"], r"Unknown option --resume\. Did you mean --resume_from_checkpoint or "),
        (["--learning_ratee", "1"], r"--learning_ratee\..*Did you mean --learning_rate.*--help"),
        (["--learning_ratee=1"], r"--learning_ratee\..*--learning_rate"),
        (["--learn", "1"], r"--learn\."),  # no guessing of abbreviations
        (["sam"], r"'sam' is not an option"),
        (
            ["--config", "nowhere.yaml"],
            r"nowhere.yaml: no such file or recipe; recipe names look like cifar100_lt_ir100_la_focal_sam\.",
        ),
        (["--config", "cifar100_lt_ir100_la_focalsam"], r"Did you mean 'cifar100_lt_ir100_la_focal_sam'"),
        (["--method_args", "{rho: 0.1}"], r"--method_args \{rho: 0.1\} is not JSON.*\{\"rho\": 0.1\}"),
        (["--method_args", "rho=0.1"], r"^--method_args rho=0.1 is no mapping.* --method_args '\{\"rho\": 0.1\}'\.$"),
        (["--loss_args", "2"], r"^--loss_args 2 is no mapping.* --loss_args '\{\"tau\": 2\}'\.$"),
        (["--adapter_args=r=8"], r"^--adapter_args r=8 is no mapping.*'\{\"r\": 8\}'"),
        (["--second_stage_args", "tau"], r"^--second_stage_args tau is no mapping.*'\{\"tau\": 1\}'"),
        (["--learning_rate"], r"^--learning_rate stands without its value"),
        (["--eval_strategy", "sometimes"], r"--eval_strategy sometimes does not exist.*epoch"),
    ],
)
def test_bad_command_lines(words, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        parse(words)


# ---- the defaults of the command line are the sources' ----


def test_defaults_that_differ_from_transformers_and_no_others(tmp_path):
    given = {"output_dir": str(tmp_path), "use_cpu": True}
    ours, stock = (kind(**given).to_dict() for kind in (SourceConfig, TrainingArguments))
    assert {name: ours[name] for name in stock if ours[name] != stock[name]} == {
        "optim": "sgd",
        "optim_args": "momentum=0.9",
        "lr_scheduler_type": "cosine",
        "max_grad_norm": 0.0,
        "remove_unused_columns": False,
    }
    assert type(make_run({"dataset": "folder", "use_cpu": True}).config) is SourceConfig


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ({}, "momentum=0.9"),
        ({"optim": "sgd"}, None),  # one that is named takes no momentum from us
        ({"optim_args": "momentum=0.5"}, "momentum=0.5"),
        ({"optim_args": "nesterov=true"}, "nesterov=true,momentum=0.9"),
    ],
)
def test_momentum_of_sgd(given, arguments, tmp_path):
    config = make_run({"dataset": "folder", "use_cpu": True, "output_dir": str(tmp_path), **given}).config
    assert config.optim == "sgd" and config.optim_args == arguments


@pytest.mark.parametrize("given", [{"adam_beta1": 0.95}, {"adam_epsilon": 1e-6}])
def test_settings_of_an_optimizer_that_is_not_used(given, tmp_path):
    with pytest.raises(ValueError, match=rf"{next(iter(given))}.*SGD here.*adamw_torch"):
        SourceConfig(str(tmp_path), **given)
    SourceConfig(str(tmp_path), optim="adamw_torch", **given)


SCRATCH = {"weight_decay": 5e-4, "optim": "sgd", "method": "sam", "loss": "logit_adjustment", "num_train_epochs": 200}
SCRATCH |= {"learning_rate": 0.1 * 8 / 128}  # the sources' of their batches
FINE_TUNING = {"learning_rate": 3e-4, "optim": "adamw_torch", "warmup_steps": 0.1, "method": "sgd"}
FINE_TUNING |= {"num_train_epochs": 10}


@pytest.mark.parametrize(
    ("words", "stated"),
    [
        ("", SCRATCH),
        ("--model x/y --pretrained false", SCRATCH),
        ("--per_device_train_batch_size 16 --gradient_accumulation_steps 2", {**SCRATCH, "learning_rate": 0.1 / 4}),
        ("--per_device_train_batch_size 256", {**SCRATCH, "learning_rate": 0.1}),
        ("--weight_decay 0.3", {**SCRATCH, "weight_decay": 0.3}),
        ("--model x/y", {**FINE_TUNING, "loss": "logit_adjustment"}),
        ("--model x/y --method sam", {**FINE_TUNING, "method": "sam"}),
        ('--model x/y --method_args {"rho":0.1}', {**FINE_TUNING, "method": "sam"}),
        ("--model x/y --loss CE", {**FINE_TUNING, "loss": "cross_entropy"}),
        ("--model x/y --num_train_epochs 4", {**FINE_TUNING, "num_train_epochs": 4}),
        ("--model x/y --max_steps 5", {**FINE_TUNING, "num_train_epochs": 3, "max_steps": 5}),
        (
            "--model x/y --adapter lora",
            {"learning_rate": 1e-3, "optim": "adamw_torch", "method": "sgd", "num_train_epochs": 10},
        ),
        ("--model x/y --adapter none", FINE_TUNING),
        ("--reweighting inverse", {"loss": "cross_entropy"}),
        ("--reweighting none --sampling uniform", {"loss": "logit_adjustment"}),
        ("--sampling class_aware --learning_rate 0.2", {"loss": "cross_entropy", "method": "sam"}),
        ("--learning_rate 0.2", {"learning_rate": 0.2, "weight_decay": 0.0, "loss": "logit_adjustment"}),
        ("--model x/y --optim adamw_torch", {"learning_rate": 5e-5, "num_train_epochs": 10}),
        ("--model x/y --optim_args momentum=0.5", {"learning_rate": 5e-5, "optim": "sgd"}),
        ("--config cifar100_lt_ir100_la_sgd", {"learning_rate": 0.1}),
    ],
)
def test_what_nothing_states_is_chosen_said_and_kept(caplog, words, stated):
    """transformers' 5e-5 leaves all models at chance with SGD, and small heads with AdamW."""
    run = parse(["--dataset", "x", *words.split()])
    for name, value in stated.items():
        assert getattr(run.config, name) == value, name
    chosen = not any(option in words for option in ("learning_rate", "optim", "config"))
    assert (run.model.init == "auto") == (chosen and "--model" in words and "false" not in words)
    again = parse(run.words)
    assert again.config.learning_rate == run.config.learning_rate and again.config.optim == run.config.optim
    assert ("learning_rate" in run.settings) == (chosen or "learning_rate" in words or "config" in words)
    said = caplog.text.partition("Not set, so ")[2]
    decided = {"learning_rate", "loss", "num_train_epochs", "method"} & run.settings.keys() - set(
        read_settings(words.split())[0]
    )
    assert all(f"--{name} " in said for name in decided) and bool(said) == bool(decided)
    assert make_run({"dataset": "x"}).config.learning_rate == 0.1 * 8 / 128


LATE = '--method sam --method_args \'{"rho": 0.1, "start": 0.8}\''


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dataset", "x"], LATE),
        (["--dataset", "x", "--learning_rate", "0.2"], LATE),
        (["--model", "x/y"], "--method sgd"),
        (["--model", "x/y", "--learning_rate", "1e-4"], "--method sgd"),
        (["--model", "x/y", "--adapter", "lora"], "--method sgd"),
        (["--model", "x/y", "--adapter", "lora", "--optim", "adamw_torch"], "--method sgd"),
        (["--dataset", "x", "--method_args", '{"rho": 0.1}'], "--method sam"),
        (["--model", "x/y", "--method_args", '{"rho": 0.1}'], "--method sam"),
        (["--dataset", "x", "--method", "sam"], ""),
        (["--model", "x/y", "--method", "focal_sam"], ""),
        (["--config", "cifar100_lt_ir100_la_sgd"], ""),
    ],
)
def test_a_method_that_nobody_states_is_told_with_its_arguments(caplog, words, said):
    """And a command that states what was told is the same run, without a word."""
    run = parse(words)
    assert " ".join(re.findall(r"--method \w+|--method_args '.*?'", caplog.text)) == said
    told = shlex.split(caplog.text.partition(" starts with ")[2].partition(". Each of these")[0])
    caplog.clear()
    again = parse([*words, *told])
    assert again.config.update_rule == run.config.update_rule and "method" not in caplog.text


@pytest.mark.parametrize(
    ("setting", "words"), [("weight_decay", []), ("warmup_steps", ["--model", "x/y"]), ("init", ["--model", "x/y"])]
)
def test_what_is_stated_is_not_told_as_decided(caplog, setting, words):
    value = "class_mean" if setting == "init" else "0.3"
    run = parse([*words, f"--{setting}", value])
    assert f"--{setting} " not in caplog.text and "--learning_rate " in caplog.text
    assert str(run.settings[setting]) == value


@pytest.mark.parametrize(("processes", "batch"), [(1, 64), (2, 32), (4, 16)])
def test_the_rate_from_scratch_is_that_of_the_batch_of_all_processes(monkeypatch, processes, batch):
    """docs/many_gpus.md divides the batch by their number: the training is the same, and so is its rate."""
    monkeypatch.setenv("WORLD_SIZE", str(processes))  # of a node that waits for a launcher
    words = ["--dataset", "x", "--per_device_train_batch_size", str(batch)]
    assert parse(words).config.learning_rate == pytest.approx(0.1 * batch / 128)
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert decided_settings({"per_device_train_batch_size": batch})["learning_rate"] == pytest.approx(0.05)


@pytest.mark.parametrize("option", ["per_device_train_batch_size", "gradient_accumulation_steps"])
@pytest.mark.parametrize("value", ["0", "-1"])
def test_a_batch_that_cannot_be_is_not_told_as_the_rate_that_follows_from_it(capsys, option, value):
    with pytest.raises(SystemExit):
        cli.main(["train", "--dataset", "x", f"--{option}", value])
    error = capsys.readouterr().err.partition("error: ")[2]
    assert option in error and "learning_rate" not in error


OF_ANOTHER_RELEASE = {"loss": "cross_entropy", "learning_rate": 0.01, "method": "sam", "num_train_epochs": 3}


def moved_run(tmp_path, content=f"checkpoint-3/{STATE}"):
    """A folder whose recipe names another one, which is not there."""
    moved = tmp_path / "moved to"
    (moved / content).parent.mkdir(parents=True)
    (moved / content).write_text("{}")
    (moved / "recipe.yaml").write_text(f"model: x/y\noutput_dir: {tmp_path / 'old'}\n")
    return moved


@pytest.mark.parametrize("content", [f"checkpoint-3/{STATE}", "metrics.json"])
@pytest.mark.parametrize("resumed", ["true", "auto"])
def test_a_run_that_has_been_moved_is_not_begun_anew_in_its_old_place(tmp_path, resumed, content):
    moved = moved_run(tmp_path, content)
    resume = ["--config", str(moved / "recipe.yaml"), "--resume_from_checkpoint", resumed]
    with pytest.raises(
        ValueError, match=rf"would go on in {tmp_path}/old, .* --output_dir '{moved}' goes on with it\."
    ):
        parse(resume)
    assert parse([*resume, "--output_dir", str(moved)]).config.output_dir == str(moved)


@pytest.mark.parametrize(
    ("change", "words", "goes_on"),
    [
        (lambda moved: None, "--resume_from_checkpoint auto --output_dir new", False),  # another folder was asked for
        (lambda moved: None, "", False),  # once more
        (lambda moved: None, "--resume_from_checkpoint checkpoint-9", "checkpoint-9"),
        (lambda moved: shutil.copytree(moved, moved.parent / "old"), "--resume_from_checkpoint true", True),  # a copy
        (lambda moved: shutil.rmtree(moved / "checkpoint-3"), "--resume_from_checkpoint auto", False),  # a first start
        (lambda moved: (moved / "recipe.yaml").rename(moved / "exp.yaml"), "--resume_from_checkpoint auto", False),
    ],
)
def test_a_recipe_that_is_not_of_a_moved_run_is_taken(tmp_path, change, words, goes_on):
    moved = moved_run(tmp_path)
    change(moved)
    (recipe,) = moved.glob("*.yaml")
    run = parse(["--config", str(recipe), *words.split()])
    assert resume_point(run.config.resume_from_checkpoint) == goes_on


def test_the_folder_of_a_recipe_may_be_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    moved = moved_run(tmp_path)
    (moved / "recipe.yaml").write_text("model: x/y\noutput_dir: ~/old\n")
    shutil.copytree(moved, tmp_path / "old")
    run = parse(["--config", str(moved / "recipe.yaml"), "--resume_from_checkpoint", "auto"])
    assert resume_point(run.config.resume_from_checkpoint) is True


@pytest.mark.parametrize(
    ("recipe", "words", "stated"),
    [
        ("learning_rate: 0.2\noptim: sgd\nloss: cross_entropy\nnum_train_epochs: 7\n", "", {"num_train_epochs": 7}),
        ("learning_rate: 0.01\noptim: sgd\nloss: cross_entropy\n", "", OF_ANOTHER_RELEASE),
        ("loss: cross_entropy\nmax_steps: 5\n", "--max_steps 5", {"max_steps": 5, "num_train_epochs": 3}),
        ("loss: cross_entropy\nmax_steps: 5\n", "", {"max_steps": 5, "num_train_epochs": 3}),
        ("num_train_epochs: 3\n", "--num_train_epochs 20", {"num_train_epochs": 20}),
        (None, "", FINE_TUNING),
    ],
)
@pytest.mark.parametrize("point", ["true", "auto", "checkpoint-5", "."])
def test_a_resumed_run_keeps_what_was_chosen_when_it_began(tmp_path, caplog, recipe, words, stated, point):
    """A default that has changed since would train another length, and end as no uninterrupted run does."""
    (tmp_path / "checkpoint-5").mkdir()
    (tmp_path / "checkpoint-5" / STATE).touch()
    if recipe is not None:
        (tmp_path / "recipe.yaml").write_text(recipe)
    where = (
        f"--output_dir {tmp_path} --resume_from_checkpoint {point if point in ('true', 'auto') else tmp_path / point}"
    )
    run = parse(f"--model x/y {where} {words}".split())
    assert {name: getattr(run.config, name) for name in stated} == stated
    if recipe is not None:
        assert "starts with" not in caplog.text
    if "num_train_epochs" in (recipe or "") and not words:
        assert "the run goes on as it began, with" in caplog.text and "--num_train_epochs 7" in caplog.text
    new = parse(f"--model x/y --output_dir {tmp_path} --resume_from_checkpoint false".split())
    assert new.config.num_train_epochs == 10


@pytest.mark.parametrize("content", ["recipe.yaml", "checkpoint-5/config.json", f"checkpoint-5/{STATE}"])
def test_auto_goes_on_where_there_is_something_to_go_on_from(tmp_path, monkeypatch, content):
    """The command of a job that a scheduler starts again, whenever it was killed."""
    (tmp_path / content).parent.mkdir(exist_ok=True)
    (tmp_path / content).write_text("{}")
    run = parse(f"--model x/y --output_dir {tmp_path} --resume_from_checkpoint auto".split())
    assert resume_point(run.config.resume_from_checkpoint) is content.endswith(STATE)
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    at_home = parse(["--model", "x/y", f"--output_dir=~/{tmp_path.name}", "--resume_from_checkpoint", "auto"])
    assert at_home.config.resume_from_checkpoint == run.config.resume_from_checkpoint
    assert "--resume_from_checkpoint auto" in run.command  # the same again
