"""A run made in Python by `trainer.save_run()`: every command reads it, with the numbers of the same run by the command line."""

import numpy as np
import pytest
import torch
from cli.picture_folders import CLASSES, draw_images
from datasets import Array3D, ClassLabel, Dataset, Features
from text_models import save_encoder, texts, write_lines
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline, set_seed

from hf_ltsam import CifarResNetConfig, CifarResNetForImageClassification, LTSamConfig, LTSamTrainer, load_run
from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.cli.card import card
from hf_ltsam.cli.decouple import make_second_stage_run, run_second_stage
from hf_ltsam.cli.evaluate.command import evaluate_model
from hf_ltsam.cli.evaluate.evaluation import EvaluationSettings
from hf_ltsam.cli.report import report
from hf_ltsam.cli.sharpness.command import main as sharpness
from hf_ltsam.cli.train.arguments import make_run
from hf_ltsam.cli.train.data import prepare
from hf_ltsam.cli.train.model import ImageFormat
from hf_ltsam.cli.train.saved_run import open_run
from hf_ltsam.cli.train.splits import load_splits
from hf_ltsam.cli.train.train import run_training
from hf_ltsam.runs.experiment import experiment_of
from hf_ltsam.runs.folder import RunFolder
from hf_ltsam.runs.hub.run_files import run_files

QUICK = {"use_cpu": True, "learning_rate": 0.1, "per_device_train_batch_size": 4, "max_steps": 6, "disable_tqdm": True,
         "method": "sam", "method_args": {"rho": 0.1}, "loss": "cross_entropy",
         "tail_threshold": 6, "logging_steps": 1}  # fmt: skip
SOURCES = {"optim": "sgd", "optim_args": "momentum=0.9", "lr_scheduler_type": "cosine", "max_grad_norm": 0.0}
GROUPS = {"many_above": 6, "few_below": 6}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same training twice: by the command line, and in Python without a word on where the data lie."""
    root = tmp_path_factory.mktemp("python_runs")
    draw_images(root / "images" / "train", (12, 6, 3), 12)
    draw_images(root / "images" / "test", (4, 4, 4), 12, seed=1)
    run = make_run({"dataset": str(root / "images"), "output_dir": str(root / "line"), "depth": 8, **QUICK, **GROUPS})
    by_line = run_training(run)

    splits = load_splits(run.data)
    data = prepare(splits, run.data, ImageFormat(), run.config.seed)
    set_seed(run.config.seed)
    names = dict(enumerate(CLASSES))
    model = CifarResNetForImageClassification(CifarResNetConfig(depth=8, id2label=names))
    args = LTSamConfig(output_dir=str(root / "python"), **QUICK, **SOURCES)
    trainer = LTSamTrainer(
        model,
        args,
        train_dataset=data.train,
        eval_dataset=data.test,
        processing_class=data.processor,
        class_statistics=ClassStatistics.from_labels(splits.train_labels, **GROUPS),
    )
    trainer.train()
    return root, by_line, trainer.save_run()


def test_results_and_weights_are_those_of_the_command_line(runs):
    root, by_line, in_python = runs
    line, python = RunFolder(root / "line"), RunFolder(root / "python")
    assert python.finished_record() == in_python
    assert in_python.weights_sha256 == by_line.weights_sha256 and in_python.results == by_line.results
    for name in ("seed", "method", "loss", "class_statistics", "reweighting", "sampling", "versions", "hardware"):
        assert getattr(in_python, name) == getattr(by_line, name), name
    assert in_python.data["training_labels_sha256"] == by_line.data["training_labels_sha256"]
    assert in_python.timing.keys() == by_line.timing.keys() and in_python.command == ""
    for name in ("labels", "predicted", "confidence"):
        assert np.array_equal(getattr(python.predictions, name), getattr(line.predictions, name)), name
    assert python.predictions.class_names == CLASSES and len(python.log_history) == len(line.log_history)


def test_its_recipe_says_what_the_command_line_would_not_assume(runs):
    root, _, _ = runs
    line, python = RunFolder(root / "line"), RunFolder(root / "python")
    assert python.recipe.is_of_python and not line.recipe.is_of_python
    made = make_run({"dataset": str(root / "images")}, root / "python" / "recipe.yaml").config
    theirs = make_run({}, root / "line" / "recipe.yaml").config
    for name in (
        "optim",
        "optim_args",
        "lr_scheduler_type",
        "max_grad_norm",
        "learning_rate",
        "max_steps",
        "tail_threshold",
    ):
        assert getattr(made, name) == getattr(theirs, name), name
    assert made.update_rule == theirs.update_rule
    assert experiment_of(python.record, python.recipe)


def test_it_is_evaluated_alike(runs):
    root, _, in_python = runs
    sets, settings = [str(root / "images" / "test")], EvaluationSettings()
    line, python = (evaluate_model(str(root / name), sets, settings, use_cpu=True) for name in ("line", "python"))
    assert python.sets[sets[0]]["result"] == line.sets[sets[0]]["result"]
    assert python.sets[sets[0]]["result"]["overall"] == in_python.results["test"]["overall"]


def test_commands_that_read_training_images_ask_where_they_are(runs):
    root, _, _ = runs
    with pytest.raises(ValueError, match=r"made in Python.*--dataset PATH"):
        open_run(root / "python")
    line, python = open_run(root / "line"), open_run(root / "python", str(root / "images"))
    assert python.statistics == line.statistics
    models = line.model(), python.model()
    seen = [saved.training_data(model, False).plain_train for saved, model in zip((line, python), models)]
    for a, b in zip(*seen, strict=True):
        assert torch.allclose(a["pixel_values"], b["pixel_values"], atol=1e-6) and a["labels"] == b["labels"]


def test_a_second_stage_starts_from_it(runs):
    root, _, _ = runs
    accuracies = []
    for name in ("line", "python"):
        settings = {"first_stage": str(root / name), "second_stage": "tau_norm", "second_stage_args": {"tau": 1.0}}
        place = {"output_dir": str(root / f"{name}_second"), "dataset": str(root / "images")}
        run = make_second_stage_run({**settings, **place, "use_cpu": True, "disable_tqdm": True})
        accuracies.append(run_second_stage(run).results)
    assert accuracies[0] == accuracies[1]


def test_curvature_is_the_same(runs, capsys):
    root, _, _ = runs
    found = []
    for name in ("line", "python"):
        words = ["--lanczos_steps", "4", "--trace_probes", "1", "--classes", "0", "--max_samples", "4"]
        sharpness([str(root / name), "--dataset", str(root / "images"), *words])
        found.append(RunFolder(root / name).sharpness["spectra"])
    assert found[0] and found[0].keys() == found[1].keys()
    for name, spectrum in found[0].items():
        for key in ("loss", "samples"):
            assert found[1][name].get(key) == pytest.approx(spectrum.get(key), rel=1e-5), (name, key)


def test_card_and_report_read_it(runs, tmp_path):
    root, by_line, _ = runs
    overall = f"{100 * by_line.results['test']['overall']:.1f}"
    for name in ("line", "python"):
        assert overall in card(root / name, f"me/{name}")
    page, damaged = report([root / "line", root / "python"], tmp_path / "report")
    assert page.is_file() and not damaged


def test_the_pipeline_of_transformers_gives_the_same(runs):
    root, _, _ = runs
    picture = str(root / "images" / "test" / "owl" / "0.png")
    line, python = (pipeline("image-classification", str(root / name)) for name in ("line", "python"))
    assert line(picture) == python(picture)


def test_what_would_be_published_is_the_same_kind_of_files(runs):
    root, _, _ = runs
    line, python = (set(run_files(root / name)) for name in ("line", "python"))
    assert line == python


def test_its_model_loads(runs):
    root, _, _ = runs
    for a, b in zip(load_run(root / "line").parameters(), load_run(root / "python").parameters(), strict=True):
        assert torch.equal(a, b)


# ---- data that the command line does not know ----


class Pairs(torch.utils.data.Dataset):
    """Samples that state neither labels nor names."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        pixels = torch.full((3, 8, 8), 0.1 * (index % 3))
        return {"pixel_values": pixels, "labels": index % 3 if index < 9 else 0}


def saved(folder, data, test, **settings):
    set_seed(0)
    model = CifarResNetForImageClassification(CifarResNetConfig(depth=8, num_labels=3))
    args = LTSamConfig(output_dir=str(folder), **{**QUICK, "max_steps": 2, **settings})
    trainer = LTSamTrainer(model, args, train_dataset=data, eval_dataset=test)
    trainer.train()
    return trainer


def test_a_torch_data_set(tmp_path):
    record = saved(tmp_path / "run", Pairs(), {"other": Pairs(), "test": Pairs()}).save_run()
    folder = RunFolder(tmp_path / "run")
    assert folder.predictions.class_names == ("0", "1", "2") and record.results["test"]["samples"] == 12
    assert load_run(tmp_path / "run").config.num_labels == 3


def test_names_of_a_class_label_are_given_to_a_model_without_names(tmp_path):
    features = Features({"pixel_values": Array3D((3, 8, 8), "float32"), "label": ClassLabel(names=list(CLASSES))})
    pixels = [np.full((3, 8, 8), 0.1 * (i % 3), dtype=np.float32) for i in range(12)]
    data = Dataset.from_dict({"pixel_values": pixels, "label": [i % 3 for i in range(12)]}, features=features)
    saved(tmp_path / "run", data.with_format("torch"), data.with_format("torch")).save_run()
    assert RunFolder(tmp_path / "run").predictions.class_names == CLASSES
    assert load_run(tmp_path / "run").config.id2label == dict(enumerate(CLASSES))


def test_where_the_data_lie_can_be_said(tmp_path):
    record = saved(tmp_path / "run", Pairs(), Pairs()).save_run(dataset="somewhere", label_column="kind")
    assert record.data["dataset"] == "somewhere"
    run = make_run({}, tmp_path / "run" / "recipe.yaml")
    assert (run.data.dataset, run.data.label_column) == ("somewhere", "kind")
    # transformers' defaults are stated, since the command line has others
    assert run.config.optim.startswith("adamw") and run.config.lr_scheduler_type == "linear"
    assert run.config.max_grad_norm == 1.0 and run.config.optim_args is None


class Unlabelled(Pairs):
    def __getitem__(self, index):
        return {**super().__getitem__(index), "labels": -1}


def test_what_save_run_refuses_before_it_writes(tmp_path):
    """A wrong option stood in recipe.yaml, which no command could read then."""
    trainer = saved(tmp_path / "run", Pairs(), Pairs(), save_run=False)
    for test, options, said in (
        (None, {"datset": "x"}, r"save_run\(datset=...\) is no option of the data. Did you mean 'dataset'"),
        (Unlabelled(), {}, "has no labelled samples"),
    ):
        with pytest.raises(ValueError, match=said):
            trainer.save_run(test, **options)
        assert not (tmp_path / "run" / "metrics.json").exists() and not (tmp_path / "run" / "recipe.yaml").exists()
    trainer.save_run(dataset=tmp_path / "images", text_column="review")
    assert make_run({}, tmp_path / "run" / "recipe.yaml").data.dataset == str(tmp_path / "images")


def test_classes_alone_for_metrics_of_ones_own(tmp_path):
    """As many scripts have it, so that logits need no memory; the saved predictions keep their confidence."""
    trainer = saved(tmp_path / "run", Pairs(), Pairs())
    trainer.preprocess_logits_for_metrics = lambda logits, labels: logits.argmax(-1)
    trainer.compute_metrics = lambda of: {"right": float((of.predictions == of.label_ids).mean())}
    record = trainer.save_run()
    assert trainer.evaluate()["eval_right"] == pytest.approx(record.results["test"]["overall"])
    assert (RunFolder(tmp_path / "run").predictions.confidence > 1 / 3).all()


def test_a_run_without_a_test_set(tmp_path):
    with pytest.raises(ValueError, match=r"save_run\(\) tests the model: pass test_dataset"):
        saved(tmp_path, Pairs(), None).save_run()
    with pytest.raises(ValueError, match="pass test_dataset"):
        saved(tmp_path / "several", Pairs(), {"one": Pairs()}).save_run()


def test_a_run_of_texts(tmp_path):
    """A script as in transformers' documentation, and the commands that read its run."""
    save_encoder(tmp_path / "bert")
    write_lines(tmp_path / "news", train=texts((12, 8, 6)), test=texts((4, 4, 4), seed=1))
    run = make_run({"dataset": str(tmp_path / "news"), "model": str(tmp_path / "bert"), "use_cpu": True})
    splits = load_splits(run.data)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "bert")
    train, test = (part.map(lambda row: tokenizer(row["text"])) for part in (splits.train, splits.test))
    set_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "bert", id2label=dict(enumerate(splits.class_names)), label2id={}
    )
    args = LTSamConfig(output_dir=str(tmp_path / "run"), **{**QUICK, "learning_rate": 0.02, "max_steps": 8})
    trainer = LTSamTrainer(model, args, train_dataset=train, eval_dataset=test, processing_class=tokenizer)
    trainer.train()
    record = trainer.save_run()
    assert trainer.evaluate()["eval_overall"] == record.results["test"]["overall"]
    sets = [str(tmp_path / "news")]
    results = evaluate_model(str(tmp_path / "run"), sets, EvaluationSettings(), use_cpu=True)
    assert results.sets[sets[0]]["result"]["overall"] == record.results["test"]["overall"]
    assert "pipeline_tag: text-classification" in card(tmp_path / "run", "me/news")
    opened = open_run(tmp_path / "run", str(tmp_path / "news"))
    assert len(opened.training_data(opened.model(), False).plain_train) == 26
