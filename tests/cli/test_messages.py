"""What the command line says when something is wrong: in its own words, in one message, without a traceback."""

import ast
import errno
import logging
import os
import re
import subprocess
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
import PIL.Image
import pytest
import safetensors
import torch
from cli.evaluate.test_evaluate_ood import save_checkpoint
from cli.picture_folders import CLASSES, draw_images
from cli.test_cli import run
from datasets import ClassLabel, Dataset, Features, Image
from syntax import tree_of
from torch.utils.data import DataLoader

import hf_ltsam
from dataset_builders import hub
from dataset_builders.long_tail import hold_out_per_class
from hf_ltsam import LOSSES, METHODS, LTSamConfig, make_loss, make_method
from hf_ltsam.cli import model_names
from hf_ltsam.cli.evaluate.sets import Places, find_sets
from hf_ltsam.cli.main import COMMANDS
from hf_ltsam.cli.options.parser import OptionParser
from hf_ltsam.cli.options.wording import in_options
from hf_ltsam.cli.train import train
from hf_ltsam.cli.train.arguments import make_run, parse, run_of
from hf_ltsam.cli.train.settings import ModelArguments
from hf_ltsam.cli.user_errors import user_errors
from hf_ltsam.hyperparameters import _letters, canonical
from hf_ltsam.runs.files import without_room, write_whole
from hf_ltsam.training.second_stage import SECOND_STAGES

PYTHON = re.compile(r"(?<!-)\b[a-z]\w*=(?!=)|\b[A-Z]\w+\(\w+=|Traceback|<class|\bself\.|\w\(\.\.\.\)")


def refusal(capsys, *words):
    status, _, err = run(capsys, *map(str, words))
    assert status == 2, f"{words}: {err}"
    assert err.count("error: ") == 1 and "Traceback" not in err  # bars may stand before it
    return err.partition("error: ")[2].partition("\n(LTSAM_TRACEBACK")[0]


# One parser: options


WRONG_OPTIONS = [  # words of every command that has options of its own, and what is said
    (("train", "--lerning-rate", "1"), "Unknown option --lerning_rate. Did you mean --learning_rate"),
    (("train", "--seed", "x"), "--seed x must be a whole number."),
    (("train", "--seed", "1.5"), "--seed 1.5 must be a whole number."),
    (("train", "--weight-decay", "x"), "--weight_decay x must be a number."),
    (("train", "--use_cpu", "maybe"), "--use_cpu maybe must be true or false."),
    (("train", "--seed"), "--seed stands without its value."),
    (("train", "images"), "'images' is not an option: every value follows an option's name."),
    (("train", "--lr_scheduler_type", "cosin"), "--lr_scheduler_type cosin does not exist. Did you mean 'cosine'"),
    (("train", "--save_strategy", "epcoh"), "--save_strategy epcoh does not exist. Did you mean 'epoch'"),
    (("train", "--method_args", "[1]"), '--method_args [1] is no mapping. It should look like --method_args \'{"rho":'),
    (("train", "--loss_args", "{"), "--loss_args { is not JSON"),
    (
        ("tune", "--dataset", "x"),
        "--dataset is an option of the trainings, which stand behind --: ltsam tune ... -- --dataset",
    ),
    (
        ("reproduce", "demo", "--learning-rate=1"),
        "--learning_rate is an option of the trainings, which stand behind --",
    ),
    (("decouple", "run", "--second_stge", "crt"), "Unknown option --second_stge. Did you mean --second_stage"),
    (
        ("evaluate", "--model", "x", "--sets", "y", "--batchsize", "3"),
        "Unknown option --batchsize. Did you mean --batch_size",
    ),
    (("evaluate",), "Missing: --model, --sets."),
    (("sharpness", "run", "--surface", "3d"), "--surface 3d does not exist. Did you mean"),
    (("sharpness", "run", "--surface", "1d", "--span", "1"), "--span takes 2 values."),
    (("corrupt", "--dataset", "x"), "Missing: --output."),
    (("data", "inof"), "The command inof does not exist. Did you mean 'info'?"),
    (("data", "info", "cifar10_lt", "--profle", "step"), "Unknown option --profle. Did you mean --profile?"),
    (("data", "info", "cifar10_lt", "--profile", "stp"), "--profile stp does not exist. Did you mean 'step'?"),
    (("export", "run"), "Missing: OUT."),
    (("push", "run", "owner/name", "--private=1"), "--private takes no value, got '1'."),
    (("card", "run", "other"), "'other' is one word too many."),
    (("calibrate", "run", "data", "--splt", "x"), "Unknown option --splt. Did you mean --split"),
    (("methods", "--lsit"), "Unknown option --lsit."),
    (("recipes", "--jsn"), "Unknown option --jsn. Did you mean --json?"),
    (("report",), "Missing: RUN."),
    (("completion", "zhs"), "SHELL zhs does not exist. Did you mean 'zsh'"),
    (("mistakes", "run", "--per_clas", "3"), "Unknown option --per_clas. Did you mean --per_class?"),
    (("predict", "run", "x.png", "--topk", "x"), "Unknown option --topk. Did you mean --top_k?"),
    (("reproduce", "x", "--seeds", "x"), "--seeds x must be a whole number."),
    (("demo", "--seed", "3"), "Unknown option --seed. Did you mean --seeds?"),
    (("demo", "--seeds", "x"), "--seeds x must be a whole number of at least 1."),
    (("demo", "--seeds", "0"), "--seeds 0 must be a whole number of at least 1."),
    (("train", "--debug", "x"), "--debug x is none of its values. Valid: tpu_metrics_debug, underflow_overflow."),
    (("train", "--lr_scheduler_kwargs", "x"), "--lr_scheduler_kwargs x is no mapping. It should look like"),
    (("train", "--dataset", "x", "--output_dir", ""), "--output_dir is empty: name a place, or leave it out."),
    (("sharpness", "run", "--points", "1"), "--points must be at least 2, got 1"),
    (("corrupt", "--dataset", __file__, "--output", "x"), f"--dataset {__file__} cannot be read: "),
    (("train", "--lr", "0.1"), "Unknown option --lr. Did you mean --learning_rate?"),
    (("train", "--batch-size", "4"), "Unknown option --batch_size. Did you mean --per_device_train_batch_size?"),
    (("train", "--rho", "0.1"), "Unknown option --rho. It goes into --method_args: --method_args '{\"rho\": 0.1}'."),
    (("train", "--rho=1e-2"), "Unknown option --rho. It goes into --method_args: --method_args '{\"rho\": 1e-2}'."),
    (("train", "--gamma", "x"), "Unknown option --gamma. It goes into --method_args or --loss_args: "),
    (("report", "--rho", "0.1", "run"), "Unknown option --rho. `ltsam report --help`"),
    (("tune", "--trials", "x"), "--trials x must be a whole number."),
    (("trian",), "Unknown command 'trian'. Did you mean 'train'"),
]


@pytest.mark.parametrize(("words", "said"), WRONG_OPTIONS, ids=[" ".join(words) for words, _ in WRONG_OPTIONS])
def test_a_wrong_option_is_one_message_with_the_nearest(capsys, words, said):
    assert refusal(capsys, *words).startswith(said)


def test_every_command_is_in_that_table():
    assert {words[0] for words, _ in WRONG_OPTIONS} >= set(COMMANDS)


def test_scripts_are_refused_as_the_commands_are(capsys):
    """Those of training_scripts/ call the modules, not `ltsam`."""
    from hf_ltsam.cli.evaluate import command as evaluate

    assert evaluate._parser().parse_args(["--model", "x", "--sets", "y", "--batch-size", "3"]).batch_size == 3
    for main, words in ((evaluate.main, ["--modle", "x"]), (train.main, ["--lerning-rate", "1"])):
        with pytest.raises(SystemExit) as exit_:
            main(words)
        assert exit_.value.code == 2 and capsys.readouterr().err.startswith("error: ")


# One wording: settings


WORDINGS = [
    ("LTSamConfig(swa_start=...) must be in [0, 1)", "--swa_start must be in [0, 1)"),
    ("LTSamConfig(load_best_model_at_end=True) does not", "--load_best_model_at_end true does not"),
    ("FocalSAM(rho=...) must be positive, got -1.", "rho in --method_args must be positive, got -1."),
    ("Piecewise(values=...) must hold", "values in --method_args must hold"),
    ("VectorScaling(tau=...) must be", "tau in --loss_args must be"),
    ("TauNorm(taus=...) must be a list", "taus in --second_stage_args must be a list"),
    ("Reweighting(scheme=...) does not know 'x'.", "--reweighting does not know 'x'."),
    ("`RandAugment(magnitude=...)` must be", "--randaugment_magnitude must be"),
    ("optim='lomo' does not go", "--optim lomo does not go"),
    ("resume_from_checkpoint='a/b-1' is not a folder", "--resume_from_checkpoint a/b-1 is not a folder"),
    ("set tail_threshold in LTSamConfig (classes", "set --tail_threshold (classes"),
    ("set `tail_threshold` (the", "set --tail_threshold (the"),
    ('(CifarResNetConfig(head="cosine"); a', "(--head cosine; a"),
    ("in runs/second_stage/x.yaml", "in runs/second_stage/x.yaml"),  # a path
    ("got 'tail_threshold'. Did you mean 'max_steps'?", "got 'tail_threshold'. Did you mean 'max_steps'?"),  # values
    ("--search max_steps: [3]: there", "--search max_steps: [3]: there"),  # the name that is searched
    ("--max_steps 3 is", "--max_steps 3 is"),  # an option already
    ("no such --tail_threshold=3", "no such --tail_threshold=3"),
    ("own_lists=True needs lists=FOLDER", "--own_lists true needs --lists FOLDER"),
    ("ClassStatistics(counts=...) needs 2", "ClassStatistics(counts=...) needs 2"),  # not an option
]


@pytest.mark.parametrize(("message", "said"), WORDINGS)
def test_settings_become_options(message, said):
    import hf_ltsam.adapters.factory  # noqa: F401 (registries that have been read know their classes)
    from hf_ltsam.cli.train.arguments import _options

    assert in_options(message, _options("train")) == said


def test_a_command_without_options_keeps_its_messages():
    assert in_options("LTSamConfig(swa_start=...)", ()) == "LTSamConfig(swa_start=...)"


WRONG_SETTINGS = [  # more than one layer deep: words after --dataset images, and a part of the answer
    ("--method samm", "Unknown method 'samm'. Did you mean 'sam'"),
    ('--method focal_sam --method_args {"rho":-1}', "rho in --method_args must be non-negative and finite, got -1."),
    ('--loss la --loss_args {"tau":-1}', "tau in --loss_args must be non-negative"),
    ("--loss nope", "Unknown loss 'nope'."),
    ("--loss ldam", "has no cosine head: on unbounded logits they mean nothing. Give it a cosine head (--head cosine;"),
    ("--method imbsam", "ImbSAM splits head from tail: set --tail_threshold (classes"),
    ("--depth 7", "--depth must be 6n + 2"),
    ("--spectral_norm conv1 --spectral_norm_iterations 0", "--spectral_norm_iterations must be a whole number"),
    ("--train_only classifier.* --model x/y --adapter lora", "--train_only classifier.* and --adapter lora: both say"),
    ("--train_only clasifier.weight", "--train_only clasifier.weight matches no weight of CifarResNet"),
    ("--optim lomo", "--optim lomo does not go with"),
    ("--reweighting nope", "--reweighting does not know 'nope'."),
    ("--swa_interval 3", "--swa_interval 3 says how weights are averaged, but not from when on: set --swa_start"),
    ("--report_to nope", "--report_to nope does not exist."),
    ("--report_to dvclive", "--report_to dvclive needs a package that is not installed: `pip install dvclive`"),
    ("--torch_compile_backend inductr", "--torch_compile_backend inductr does not exist. Did you mean 'inductor'"),
    ("--learning_rate nan", "--learning_rate must be a finite number, got nan."),
    ("--weight_decay -1", "--weight_decay must be non-negative and finite, got -1.0."),
    ("--gradient_accumulation_steps 0", "--gradient_accumulation_steps must be a whole number of at least 1, got 0."),
    ("--per_device_eval_batch_size 0", "--per_device_eval_batch_size must be a whole number of at least 1, got 0."),
    ("--eval_accumulation_steps 0", "--eval_accumulation_steps must be a whole number of at least 1, got 0."),
    ("--dataloader_num_workers -1", "--dataloader_num_workers must be a whole number of at least 0, got -1."),
    ("--optim_args nonsense", "'nonsense' has not the form NAME=VALUE, such as momentum=0.9."),
    ("--optim_args momentum=x", "momentum must be a number, got 'x'."),
    (
        "--prediction_loss_only true",
        "--prediction_loss_only true leaves nothing to measure accuracies by: leave it out.",
    ),
    (
        '--loss ldam --head cosine --loss_args {"s":10}',
        "Make them equal: --loss_args '{\"s\": 30}', or a head with --cosine_scale 10.",
    ),
    ("--image_size 1000000", "--image_size 1000000: 8 images take 96,000 GB, and this machine has "),
    ("--imbalance_ratio 1000", "would get no image at --imbalance_ratio 1000: the largest class has 12"),
    ("--held_out_per_class 2", "--held_out_per_class 2, but "),
    ("--resume_from_checkpoint nowhere", "--resume_from_checkpoint nowhere is not a folder, nor true, auto or false."),
    ("--train_split trian", "Did you mean 'train'?"),
    ("--output_dir FILE", "--output_dir "),
    ("--model FILE", "is a file: name the folder that it lies in."),
    ("--model EMPTY", "holds no model: there is no config.json in it."),
    ("--model JUNK", "its config.json describes no model ("),
    ("--dataset EMPTY", "needs at least 2 class folders with images, it has 0."),
    ("--dataset TABLE", "labels.csv has no rows."),
    ("--dataset FILE", "is a file, and no table (CSV, TSV, JSON, JSON lines or Parquet): give the folder"),
    ("--config EMPTY", ""),
    ("--adapter vpt", "--adapter vpt does not exist. Did you mean 'vpt_deep'"),
]


@pytest.mark.parametrize(("words", "said"), WRONG_SETTINGS)
def test_a_wrong_setting_is_told_in_options(words, said, capsys, images, tmp_path):
    places = {"FILE": tmp_path / "file.txt", "EMPTY": tmp_path / "empty", "JUNK": tmp_path / "junk"}
    places["TABLE"] = tmp_path / "labels.csv"
    places["FILE"].write_text("x")
    places["TABLE"].write_text("x")
    places["EMPTY"].mkdir()
    places["JUNK"].mkdir()
    (places["JUNK"] / "config.json").write_text("{}")
    given = [str(places.get(word, word)) for word in words.split()]
    quick = ["--dataset", images, "--use_cpu", "true", "--output_dir", tmp_path / "out"]
    message = refusal(capsys, "train", *quick, *given)
    assert said in message
    assert not PYTHON.search(message.replace("momentum=", "")), message


def test_no_error_is_its_own_cause():
    """`raise error from error` makes a chain without an end, which whoever looks for its start follows for ever."""
    with pytest.raises(ValueError, match="learning_rate") as raised:
        run_of({"learning_rate": float("nan")}, [])
    assert raised.value.__cause__ is not raised.value
    with pytest.raises(OSError, match="folder") as raised:
        write_whole(Path("/dev/null/folder/file.txt"), "")
    assert raised.value.__cause__ is not raised.value
    endless, full = ValueError("x"), OSError(errno.ENOSPC, "No space left on device")
    endless.__cause__ = endless
    assert without_room(endless) is None
    endless.__cause__ = full
    assert without_room(endless) is full


# Errors that are not refusals


FOREIGN = [
    (
        torch.OutOfMemoryError("CUDA out of memory."),
        "The accelerator's memory is full (CUDA out of memory). A smaller --per_d",
    ),
    (
        MemoryError(),
        "The memory of this machine is full (MemoryError). A smaller --per_device_train_batch_size needs less",
    ),
    (
        safetensors.SafetensorError("header too large"),
        "A file of weights is damaged or cut off (header too large): take an",
    ),
    (
        ModuleNotFoundError("No module named 'wandb'", name="wandb"),
        "A package is missing, or too old for this: No module n",
    ),
    (
        RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]"),
        "The processes lost each other ([third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by",
    ),
    (torch.distributed.DistNetworkError("timed out"), "The processes lost each other (timed out). Where another one"),
    (huggingface_hub.errors.HTTPError("no route"), "The network failed: no route. The same command tries again."),
]


@pytest.mark.parametrize(("error", "said"), FOREIGN, ids=[type(error).__name__ for error, _ in FOREIGN])
def test_errors_of_the_machine_are_one_message(error, said, capsys, monkeypatch, images, tmp_path):
    def fail(_):
        raise error

    monkeypatch.setattr(train, "load_splits", fail)
    words = ["--dataset", images, "--use_cpu", "true", "--output_dir", tmp_path / "out"]
    assert refusal(capsys, "train", *words).startswith(said)


FAULTS = [KeyError("x"), RuntimeError("x"), TypeError("x"), AssertionError("x"), ImportError("x", name="hf_ltsam.nope")]


@pytest.mark.parametrize("fault", FAULTS, ids=[type(fault).__name__ for fault in FAULTS])
def test_a_fault_of_ours_says_so_before_its_traceback(fault, capsys, monkeypatch):
    def fail(_):
        raise fault

    monkeypatch.setattr(train, "main", fail)
    with pytest.raises(type(fault)):
        run(capsys, "train")
    err = capsys.readouterr().err
    assert (
        err.startswith(f"error: {type(fault).__name__}, which is a fault of hf_ltsam")
        and "report it as an issue" in err
    )


def test_a_type_error_that_we_raise_is_a_refusal(capsys, monkeypatch):
    from hf_ltsam.training.refusals.settings import check_types

    monkeypatch.setattr(train, "main", lambda _: check_types("no config", None))
    assert "must be an LTSamConfig" in refusal(capsys, "train")


# Warnings


@pytest.fixture
def shown(monkeypatch, capsys):
    """What a function prints within a command that has read its options, where pytest does not catch the warnings."""

    def show(message, category, filename, lineno, file=None, line=None):
        print(warnings.formatwarning(message, category, filename, lineno, line), end="", file=sys.stderr)

    def printed(warn):
        with warnings.catch_warnings(), user_errors():
            warnings.simplefilter("always")
            monkeypatch.setattr(warnings, "showwarning", show)
            parse(["--dataset", "x"])
            warn()
        return capsys.readouterr().err

    return printed


def in_our_place(code, **names):
    """Run code as if it stood in a file of ours."""
    exec(compile(code, str(Path(hf_ltsam.__file__).with_name("trainer.py")), "exec"), names)


SMALL = Dataset.from_dict(
    {"label": [0] * 5 + [1] * 3}, features=Features({"label": ClassLabel(names=["cat", "dog\nowl"])})
)
OF_OTHERS = {  # whoever they say that they come from
    "a package": lambda: warnings.warn("held_out_per_class=2 is deprecated", stacklevel=1),
    "a package that names its caller": lambda: in_our_place(
        "warn()", warn=lambda: warnings.warn("held_out_per_class=2 is deprecated", stacklevel=2)
    ),
    "a number": lambda: in_our_place("x / 0.0", x=np.float64(1)),
}


def test_warnings_of_ours_are_one_line_in_options(shown):
    assert shown(lambda: hold_out_per_class(SMALL, 2)) == (
        "warning: --held_out_per_class 2: at most half of a class is held out, so small classes give fewer: "
        "'dog\\nowl' 1 of 3.\n"
    )
    before = warnings.formatwarning
    with user_errors(), user_errors():
        assert warnings.formatwarning is not before
    assert warnings.formatwarning is before


@pytest.mark.skipif(torch.accelerator.is_available(), reason="only told where there is no accelerator")
@pytest.mark.parametrize("in_a_command", [False, True])
def test_a_machine_without_an_accelerator_is_not_warned_of(in_a_command):
    """By every loader of the stock Trainer, whose default it is."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with user_errors() if in_a_command else nullcontext():
            list(DataLoader([0.0], pin_memory=True))
    assert sum("pin_memory" in str(warning.message) for warning in caught) == (0 if in_a_command else 1)


@pytest.mark.parametrize("warn", OF_OTHERS.values(), ids=OF_OTHERS)
def test_warnings_of_others_are_left_as_they_are(shown, warn):
    assert re.match(r"\S+\.py:\d+: (UserWarning: held_out_per_class=2 is|RuntimeWarning: divide)", shown(warn))


def test_what_we_log_is_told_in_options_too(shown):
    def log():
        for name in ("hf_ltsam.training.trainer", "other"):
            message = "LTSamConfig(save_steps=...) or max_steps=3."
            printed.append(logging.getLogRecordFactory()(name, 30, "", 1, message, (), None).getMessage())

    printed = []
    shown(log)
    assert printed == ["--save_steps or --max_steps 3.", "LTSamConfig(save_steps=...) or max_steps=3."]


# Names as papers write them


SPELLINGS = [
    ("method", "focal-sam FocalSAM Focal-SAM focalsam FOCAL_SAM", "focal_sam"),
    ("method", "imb_sam ImbSAM imb-sam", "imbsam"),
    ("method", "SSE-SAM CC-SAM", None),
    ("loss", "la LA logit-adjustment LogitAdjustment la_loss", "logit_adjustment"),
    ("loss", "ce CE CrossEntropy cross-entropy", "cross_entropy"),
    ("loss", "vs VS vs_loss", "vector_scaling"),
    ("loss", "ib", "influence_balanced"),
    ("loss", "BS", "balanced_softmax"),
    ("loss", "CB", "class_balanced"),
    ("loss", "LAS", "label_aware_smoothing"),
    ("loss", "LDAM", "ldam"),
]


@pytest.mark.parametrize(("setting", "names", "key"), SPELLINGS)
def test_names_are_understood_as_papers_write_them(setting, names, key):
    registry, make = {"method": (METHODS, make_method), "loss": (LOSSES, make_loss)}[setting]
    for name in names.split():
        wanted = key or name.lower().replace("-", "_")
        assert type(make(name)) is registry[wanted]
        assert getattr(LTSamConfig("x", use_cpu=True, **{setting: name}), setting) == wanted
        assert parse(["--dataset", "x", "--use_cpu", "true", f"--{setting}", name]).settings[setting] == wanted


def test_no_two_entries_of_a_registry_have_one_spelling():
    for registry in (METHODS, LOSSES, SECOND_STAGES):
        taken = {}
        for key, entry in registry.items():
            for spelling in {_letters(key), _letters(entry.__name__), _letters(entry.title)}:
                assert taken.setdefault(spelling, key) == key
        assert all(canonical(registry, entry.title) == key for key, entry in registry.items())
        assert canonical(registry, "nope") == "nope"


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("drw", "cross_entropy"),
        ("DRW", "cross_entropy"),
        ("ldam_drw", "ldam"),
        ("LDAM-DRW", "ldam"),
        ("ce+drw", "cross_entropy"),
    ],
)
def test_a_deferred_reweighting_is_understood_as_a_loss(name, loss):
    config = LTSamConfig("x", use_cpu=True, loss=name)
    assert (config.loss, config.reweighting, config.reweighting_start) == (loss, "effective_number", 0.8)
    stated = LTSamConfig("x", use_cpu=True, loss=name, reweighting="inverse", reweighting_start=0.5)
    assert (stated.loss, stated.reweighting, stated.reweighting_start) == (loss, "inverse", 0.5)


def test_another_spelling_keeps_the_hyperparameters_of_the_recipe():
    run = parse(
        ["--config", "cifar100_lt_ir100_la_focal_sam", "--method", "FocalSAM", "--loss", "LA", "--use_cpu", "true"]
    )
    assert run.config.method_args == {"rho": 0.3, "gamma": 3.2, "lam": 0.8} and run.config.loss_args == {"tau": 1.0}


# Models


class Answers:
    """The Hub's answer to a question about a model."""

    def __init__(self, error):
        self.error, self.asked = error, 0

    def model_info(self, name, timeout):
        self.asked += 1
        if self.error is not None:
            raise self.error

    dataset_info = model_info


def of_hub(kind):
    import httpx2 as client

    return kind("404", response=client.Response(404, request=client.Request("GET", "https://x")))


HUB = [
    (lambda: None, "goole/vit", True, None),
    (lambda: of_hub(huggingface_hub.errors.RepositoryNotFoundError), "timm/resnet18.a1_in2k", True,
     r"--model timm/resnet18.a1_in2k is neither a folder here nor a model on the Hub that you may read. Did you mean timm/resnet18.a1_in1k"),
    (lambda: of_hub(huggingface_hub.errors.RepositoryNotFoundError), "resnet18", True, "Did you mean timm/resnet18.* --pretrained false builds it"),
    (lambda: of_hub(huggingface_hub.errors.RepositoryNotFoundError), "cifar_resnt", True, "Did you mean cifar_resnet?"),
    (lambda: of_hub(huggingface_hub.errors.GatedRepoError), "a/gated", True, "--model a/gated is gated: accept its terms at http"),
    (lambda: huggingface_hub.errors.OfflineModeIsEnabled("x"), "a/b", True, "is not on this machine, and HF_HUB_OFFLINE=1 forbids the network: unset it, or name a folder"),
    (lambda: huggingface_hub.errors.OfflineModeIsEnabled("x"), "timm/resnet18.a1_in1k", True, r"config.json and weights\. --pretrained false builds"),
    (lambda: huggingface_hub.errors.HTTPError("refused"), "a/b", True, r"not on this machine, and the Hub cannot be reached \(refused\)\."),
    (lambda: huggingface_hub.errors.HTTPError("refused"), "timm/resnet18.a1_in1k", False, None),
    (lambda: huggingface_hub.errors.HTTPError("refused"), "resnet18", False, None),
    (lambda: huggingface_hub.errors.HTTPError("refused"), "cifar_resnet", True, None),
]  # fmt: skip


@pytest.mark.parametrize(("error", "name", "pretrained", "said"), HUB)
def test_a_model_that_is_not_there_is_one_question_and_one_line(error, name, pretrained, said, monkeypatch):
    answers = Answers(error())
    monkeypatch.setattr(model_names, "HfApi", lambda: answers)
    if said is None:
        model_names.check_model(name, pretrained)
    else:
        with pytest.raises(OSError, match=said) as refused:
            model_names.check_model(name, pretrained)
        assert answers.asked == 1 and "\n" not in str(refused.value)


def test_a_mistyped_folder_of_a_model_is_told_from_a_name_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(model_names, "HfApi", lambda: Answers(huggingface_hub.errors.OfflineModeIsEnabled("x")))
    (tmp_path / "models" / "resnet").mkdir(parents=True)
    (tmp_path / "models" / "resnet" / "config.json").write_text("{}")
    with pytest.raises(OSError, match="Did you mean models/resnet"):
        model_names.check_model("models/resnt")


ABSENT = [
    lambda: of_hub(huggingface_hub.errors.RepositoryNotFoundError),
    lambda: huggingface_hub.errors.OfflineModeIsEnabled("x"),
    lambda: huggingface_hub.errors.HTTPError("refused"),
]


@pytest.fixture
def folder_of_data(tmp_path, monkeypatch):
    """`data` with two folders here; what is left of the Hub is one question, whose answer is to be set."""
    monkeypatch.chdir(tmp_path)
    for name in ("fruit", "flags"):
        (tmp_path / "data" / name).mkdir(parents=True)
    monkeypatch.setattr(hub, "load_dataset", lambda *_: pytest.fail("it is asked again and again"))
    return tmp_path / "data"


@pytest.mark.parametrize("error", ABSENT)
@pytest.mark.parametrize(
    ("name", "meant"), [("frut", "Did you mean data/fruit?"), ("nope", "data has 'flags', 'fruit'.")]
)
@pytest.mark.parametrize("words", ["train --use_cpu true --dataset", "corrupt --output out --dataset"])
def test_a_misspelled_folder_is_told_after_one_question(words, name, meant, error, capsys, folder_of_data, monkeypatch):
    """Not before it: OWNER may be a folder here, too."""
    answers = Answers(error())
    monkeypatch.setattr(hub, "HfApi", lambda: answers)
    said = f"there is no such file or folder, nor a data set on the Hub that can be reached. {meant}"
    assert refusal(capsys, *words.split(), f"data/{name}") == f"--dataset data/{name}: {said}"
    assert answers.asked == 1


@pytest.mark.parametrize("error", [lambda: None, lambda: of_hub(huggingface_hub.errors.GatedRepoError), None])
def test_a_name_on_the_hub_whose_owner_is_a_folder_here_is_loaded(error, folder_of_data, tmp_path, monkeypatch):
    """Also without the Hub, from the copy of an earlier run."""
    monkeypatch.setattr(hub, "HfApi", lambda: Answers((error or ABSENT[1])()))
    if error is None:
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
        (tmp_path / "data___frut").mkdir()
    found = object()
    monkeypatch.setattr(hub, "load_dataset", lambda *_: found)
    assert hub.load_from_hub("data/frut") is found
    assert hub.entries_beside("datta/frut") == hub.entries_beside("data/fruit") == []


@pytest.mark.parametrize("name", ["timm/resnet18.a1_in1k", "resnet18"])
def test_timm_models_start_at_random_without_the_hub(name, monkeypatch):
    from hf_ltsam.cli.train.model import build_model, wanted_format

    arguments = ModelArguments(model=name, pretrained=False)
    model = build_model(arguments, ["cat", "dog", "eel"])
    assert model.config.num_labels == 3 and model.eval()(torch.zeros(1, 3, 32, 32)).logits.shape == (1, 3)
    assert wanted_format(arguments).size == 224


# Data and models that are wrong, for the commands that have other options than `ltsam train`


def of_two_sizes(root):
    draw_images(root / "train", (3, 3, 3), 12)
    draw_images(root / "test", (1, 1, 1), 12)
    PIL.Image.new("RGB", (9, 9)).save(root / "train" / "dog" / "0.png")


def unlabelled(root):
    columns = {"image": [{"bytes": None, "path": "x.png"}] * 3, "label": [0, None, 1]}
    features = Features({"image": Image(), "label": ClassLabel(names=["cat", "dog"])})
    root.mkdir()
    for split in ("train", "test"):
        Dataset.from_dict(columns, features).to_parquet(root / f"{split}.parquet")


def of_two_images(root):
    root.mkdir()
    features = Features({"a": Image(), "b": Image(), "label": ClassLabel(names=["cat", "dog"])})
    Dataset.from_dict({"a": [None] * 2, "b": [None] * 2, "label": [0, 1]}, features).to_parquet(root / "test.parquet")


def of_other_classes(root):
    draw_images(root / "train", (2, 2), 12)
    draw_images(root / "test", (2, 2, 2), 12)


def of_training(root):
    draw_images(root / "train", (2, 2, 2), 12)


def incomplete(root):
    (root / "sketch" / "n01440764").mkdir(parents=True)
    PIL.Image.new("RGB", (9, 9)).save(root / "sketch" / "n01440764" / "1.JPEG")


WRONG_DATA = [  # the data, a command, and a part of the answer
    (of_two_sizes, "train --dataset DATA --use_cpu true --output_dir OUT", "--image_size brings all images to one size"),
    (unlabelled, "train --dataset DATA --use_cpu true --output_dir OUT", "'label' has 1 missing labels"),
    (unlabelled, "evaluate --model MODEL --sets DATA --use_cpu", "'label' has 1 missing labels"),
    (of_other_classes, "evaluate --model TWO --sets DATA --use_cpu", "--only_known_classes leaves their images out"),
    (of_training, "evaluate --model MODEL --sets DATA --use_cpu",
     "DATA/train if those of the training are meant."),
    (incomplete, "evaluate --model MODEL --sets imagenet_sketch --data_dir imagenet_sketch=DATA --use_cpu",
     "Complete the copy; --incomplete_copies takes what is there."),
    (of_two_images, "evaluate --model MODEL --sets DATA --use_cpu", "several Image columns (a, b): name one by --image_column"),
    (of_two_images, "corrupt --dataset DATA --output OUT", "several Image columns (a, b): name one by --image_column"),
    (None, "predict no/where x.png", "RUN no/where is not on this machine"),
    (None, "predict no/wh/ere x.png", "RUN no/wh/ere: there is no such folder"),
    (None, "predict FILE x.png", "is a file: name the folder that it lies in"),
    (None, "evaluate --model no/where --sets digits", "--model no/where is not on this machine"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "words", "said"), WRONG_DATA)
def test_a_message_names_the_options_of_its_command_alone(make, words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(model_names, "HfApi", lambda: Answers(huggingface_hub.errors.OfflineModeIsEnabled("x")))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.png").write_bytes(b"x")
    if make is not None:
        make(tmp_path / "DATA")
        save_checkpoint(tmp_path / "MODEL")
        save_checkpoint(tmp_path / "TWO", CLASSES[:2], (6, 3))
    (tmp_path / "FILE").write_text("x")
    message = refusal(capsys, *words.split())
    assert said in message
    assert not PYTHON.search(message.replace("imagenet_sketch=", "")), message
    elsewhere = re.sub(r"`ltsam [^`]*`|ltsam \w+ --\w+", "", message)
    assert {word[2:] for word in re.findall(r"--\w+", elsewhere)} <= OptionParser.declared, message


def test_classes_are_numbered_as_those_of_the_training_split(tmp_path):
    draw_images(tmp_path / "set" / "train", (2, 2, 2), 12)
    draw_images(tmp_path / "set" / "test", (2, 0, 1), 12)
    (tmp_path / "set" / "test" / "dog").rmdir()
    (tmp_path / "set" / "test" / "ape").mkdir()
    PIL.Image.new("RGB", (12, 12)).save(tmp_path / "set" / "test" / "ape" / "1.png")
    (found,) = find_sets([str(tmp_path / "set")], Places())
    rows = found.load()
    assert rows.features["label"].names == ["ape", "cat", "dog", "owl"] and rows["label"][:] == [0, 1, 1, 3]


# Messages of our own source


def test_no_message_of_the_command_line_names_python():
    """Of what `cli/` raises itself; for what lies below there is `in_options`."""
    for path in sorted((Path(hf_ltsam.__file__).parent / "cli").rglob("*.py")):
        for node in ast.walk(tree_of(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                texts = [part.value for part in ast.walk(node.exc) if isinstance(part, ast.Constant)]
                for text in filter(lambda part: isinstance(part, str), texts):
                    assert not re.search(
                        r"\b[A-Z]\w+\(\w+=|\w+=\.\.\.|=True|=False",
                        text.replace("=...", "", 1) if "NAME" in text else text,
                    ), f"{path}: {text}"


def test_a_default_is_stated_once():
    """A help text shows the default by %(default)s, so that it is the one that holds."""
    stated = re.compile(r"default: [\d.]|\(\d[\d.]*\)$")
    for path in sorted((Path(hf_ltsam.__file__).parent / "cli").rglob("*.py")):
        for node in ast.walk(tree_of(path.read_text())):
            for keyword in getattr(node, "keywords", []):
                if keyword.arg == "help" and isinstance(keyword.value, ast.Constant):
                    assert not stated.search(str(keyword.value.value)), f"{path}: {keyword.value.value}"


@pytest.mark.parametrize("name", ["cifar10_lt", "CIFAR-10-LT", "cifar10-lt"])
def test_data_sets_have_one_name_everywhere(name, capsys):
    assert run(capsys, "data", "info", name)[0] == 0
    assert parse(["--dataset", "x", "--use_cpu", "true", "--builder", name]).data.builder == "cifar10_lt"


def test_the_old_name_of_both_cifar_sets_is_read_and_not_listed(capsys):
    from hf_ltsam.cli.train.data_checks import check_data
    from hf_ltsam.cli.train.splits import DataArguments, builders

    assert "cifar_lt" in builders()
    check_data(DataArguments(dataset="uoft-cs/cifar10", builder="cifar_lt"))
    with pytest.raises(ValueError, match=r"Did you mean .*Valid: auto, cifar100_lt, cifar10_lt, hub"):
        check_data(DataArguments(dataset="x", builder="cifar_ltt"))
    assert "Did you mean 'cifar10_lt' or 'cifar100_lt'" in refusal(capsys, "data", "info", "cifar_lt")


def test_an_error_that_is_its_own_cause():
    """`raise error from error` makes one: whoever follows causes must come to an end."""
    error = ValueError("no disk has a part in it")
    error.__cause__ = error
    assert without_room(error) is None


def test_a_refused_value_has_no_cause_of_its_own():
    with pytest.raises(ValueError, match="finite") as raised:
        make_run({"output_dir": "x", "lr_gamma": float("nan")})
    assert raised.value.__cause__ is not raised.value


@pytest.mark.parametrize("words", [["methods", "focal_sam"], ["recipes"], ["train", "--help", "all"]])
def test_a_reader_that_has_ended_is_no_error(words):
    """As `ltsam methods focal_sam | head -1` has it."""
    read, write = os.pipe()
    os.close(read)
    program = "import sys; from hf_ltsam.cli.main import main; sys.argv[0] = 'ltsam'; main()"
    ended = subprocess.run([sys.executable, "-c", program, *words], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert ended.stderr == "" and ended.returncode in (1, 141)


def test_another_broken_pipe_is_told(capfd):
    with pytest.raises(SystemExit) as ended, user_errors():
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    assert ended.value.code == 2 and "Broken pipe" in capfd.readouterr().err
