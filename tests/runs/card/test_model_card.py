"""Cards: the golden one of the digits demo, numbers from the run's files alone, metadata by the Hub's own validators."""

import json
import re
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData, parse_eval_result_entries
from markdown_it import MarkdownIt
from runs.hub.digits_run import EVALUATION, METRICS, SHARPNESS, metrics, write, write_seeds

from hf_ltsam import METHODS, ClassStatistics
from hf_ltsam.cli.train.arguments import make_run
from hf_ltsam.methods import SAM
from hf_ltsam.runs.card import Stated, card_files, leaderboard_files, model_card, read_facts
from hf_ltsam.runs.shift.results import without_groups

GOLDEN = Path(__file__).parent / "golden_digits_card.md"


def card(folder, repo="me/digits", evaluation=None, sharpness=None, **stated):
    return model_card(read_facts(folder, evaluation, sharpness), repo, Stated(**stated))


def test_the_card_of_the_digits_demo(tmp_path):
    """Everything that is known of the run. Looks different? Read it, and write it: str(card) -> the golden file."""
    made = card(write_seeds(tmp_path), evaluation=EVALUATION, sharpness=SHARPNESS, license="apache-2.0")
    assert str(made) == GOLDEN.read_text()


def test_mean_and_deviation_over_the_seeds(tmp_path):
    text = card(write_seeds(tmp_path)).text
    assert "| this checkpoint (seed 0) | 95.4 |" in text
    assert (
        "seeds 0, 1, 2 | 95.4 ± 1.0 | 95.4 ± 0.0 | 99.3 ± 1.0 |" in text
        and "The 3 runs differ in the seed alone." in text
    )


@pytest.mark.parametrize(
    "changes", [{"loss": {"name": "focal", "args": {"gamma": 2.0}}}, {"data": {"dataset": "other"}}, {"seed": 0}]
)
def test_runs_that_differ_in_more_than_the_seed_are_not_averaged(tmp_path, changes):
    folder = write(tmp_path / "seed0", metrics())
    write(tmp_path / "seed1", {**metrics(1), **changes})
    assert "±" not in card(folder).text and "One seed" in card(folder).text


def test_runs_of_other_recipes_are_not_averaged(tmp_path):
    folder = write(tmp_path / "seed0", metrics())
    other = write(tmp_path / "seed1", metrics(1))
    assert "±" in card(folder).text
    (other / "recipe.yaml").write_text("config: demo/digits\nseed: 1\nnum_train_epochs: 2\n")
    assert "±" not in card(folder).text


def test_the_time_of_a_resumed_training_is_not_known(tmp_path):
    assert "Training took" in card(write(tmp_path / "whole", metrics())).text
    assert "Training took" not in card(write(tmp_path / "resumed", {**metrics(), "resumed": True})).text


def test_a_missing_number_is_left_out(tmp_path):
    values = metrics()
    test = values["results"]["test"]
    test["ece"] = None
    test["groups"] = {"many": 0.5, "medium": 0.4, "few": None}
    test["per_class"][9] = None
    values["timing"] = {}
    made = card(write(tmp_path / "run", values))
    assert (
        "calibration" not in str(made)
        and "| few |" not in made.text.partition("## Results")[2]
        and "accuracy_few" not in str(made)
    )
    assert "| 9 | 2 | - |" in made.text and "Training took" not in made.text and "2 forwards, 3 backwards" in made.text
    assert not re.search(r"\b(None|nan|null)\b", str(made))


def test_without_results_there_are_none(tmp_path):
    folder = write(tmp_path / "run", metrics())
    (folder / "metrics.json").unlink()
    (folder / "ltsam.json").write_text(json.dumps({"method": METRICS["method"], "loss": METRICS["loss"]}))
    made = card(folder)
    assert "## Results" not in made.text and "model-index" not in str(made) and "metrics.json" not in made.text
    assert (
        "Focal-SAM" in made.text and "had not finished" in made.text and "| few | fewer than 10 | 4 | 20 |" in made.text
    )


@pytest.mark.parametrize(
    ("step", "epoch", "sentence"),
    [
        (30, 2.1739, "These weights were saved at step 30 of 276 (epoch 2.17)."),
        (276, 20.0, "These weights were saved at step 276 of 276 (epoch 20)."),
    ],
)
@pytest.mark.parametrize("name", ["checkpoint-{}", "step-{}"])
def test_the_weights_of_a_checkpoint_say_how_far_they_are(tmp_path, name, step, epoch, sentence):
    """As `ltsam push RUN/checkpoint-30` and the uploads of `hub_strategy` find it."""
    folder = write(tmp_path / name.format(step), metrics())
    for file in ("metrics.json", "recipe.yaml"):
        (folder / file).unlink()
    state = {"global_step": step, "max_steps": 276, "epoch": epoch, "log_history": []}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    text = card(folder).text
    assert f"{sentence} There are no results of them." in text and text.count("There are no results") == 1


def test_a_finished_run_does_not_say_how_far_it_is(tmp_path):
    """One that was stopped early has results, and they are of these weights."""
    folder = write(tmp_path / "run", metrics())
    (folder / "trainer_state.json").write_text('{"global_step": 30, "max_steps": 276, "log_history": []}')
    assert "of 276" not in card(folder).text


@pytest.mark.parametrize(
    ("balanced", "losses", "limit"),
    [
        (0.1, (2.3, 2.2), "at chance (10.00 %, within the error of 500 test images)"),
        (0.954, (2.3, 9.1), "The training has diverged: its loss went from 2.3 to 9.1"),
        (0.954, (2.3, 0.1), None),
    ],
)
def test_a_training_that_failed_is_a_limit(tmp_path, balanced, losses, limit):
    values = metrics()
    values["results"]["test"]["balanced"] = balanced
    folder = write(tmp_path / "run", values)
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": [{"loss": loss} for loss in losses]}))
    limits = card(folder).text.partition("## Limits")[2].partition("## Citation")[0]
    assert limits.count("\n- ") == (5 if limit is None else 6) and (limit is None or limit in limits)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (None, "`pip install .` in a clone of its repository"),
        ("https://x.org/me/y", "`pip install git+https://x.org/me/y`"),
    ],
)
def test_where_the_package_comes_from(tmp_path, monkeypatch, address, words):
    """No index has it: its own metadata say where its repository is, once they do."""
    stated = Message()
    for name in () if address is None else ("Documentation", "Repository"):
        stated["Project-URL"] = f"{name}, {address}{'/docs' * (name == 'Documentation')}"
    monkeypatch.setattr("hf_ltsam.runs.card.sentences.metadata", lambda name: stated)
    text = card(write(tmp_path / "run", metrics())).text
    assert f"It needs the package `hf_ltsam` ({words}) and the import above" in text
    assert "pip install hf_ltsam" not in text


def test_every_number_of_the_results_follows_the_file(tmp_path):
    """Twice the same card but for the numbers that were changed."""
    before = card(write(tmp_path / "a", metrics())).text
    values = metrics()
    values["results"]["test"].update(overall=0.123, balanced=0.234, ece=0.345, per_class=[0.5] * 10)
    values["results"]["test"]["groups"] = {"many": 0.456, "medium": 0.567, "few": 0.678}
    after = card(write(tmp_path / "b", values)).text
    row = next(line for line in after.splitlines() if line.startswith("| this checkpoint"))
    assert row == "| this checkpoint (seed 0) | 12.3 | 23.4 | 45.6 | 56.7 | 67.8 | 34.5 |"
    assert len(before.splitlines()) == len(after.splitlines())


# ---- metadata ----


def test_the_metadata_is_valid_and_complete(tmp_path):
    made = card(write_seeds(tmp_path), evaluation=EVALUATION, license="mit", tags=("owls",), datasets=("me/digits-lt",))
    (tmp_path / "README.md").write_text(str(made))
    data = ModelCard.load(tmp_path / "README.md").data  # its validators refuse a broken model-index
    assert (data.library_name, data.pipeline_tag, data.license, data.datasets) == (
        "hf_ltsam",
        "image-classification",
        "mit",
        ["me/digits-lt"],
    )
    assert data.tags == ["hf_ltsam", "long-tailed", "sharpness-aware-minimization", "focal_sam", "owls"]
    assert data.base_model is None and data.model_name == "digits"
    results = {(r.dataset_name, r.metric_type): r.metric_value for r in data.eval_results}
    assert all(isinstance(r, EvalResult) and r.task_type == "image-classification" for r in data.eval_results)
    test = METRICS["results"]["test"]
    assert (
        results["digits", "accuracy"] == test["overall"] and results["digits", "accuracy_few"] == test["groups"]["few"]
    )
    assert results["digits", "expected_calibration_error"] == test["ece"]
    assert results["usps", "balanced_accuracy"] == 0.6 and results["digits_c", "mean_error_under_corruption"] == 0.26067
    assert ModelCardData(**yaml.safe_load(data.to_yaml())).to_dict() == data.to_dict()


def test_a_run_from_the_hub_names_model_and_data(tmp_path):
    values = metrics(model={"model": "microsoft/resnet-18", "pretrained": True}, data={**METRICS["data"], "dataset": "uoft-cs/cifar100",
                     "imbalance_ratio": 100.0, "profile": "exponential", "split_seed": 0},
                     hub={"model": "microsoft/resnet-18", "dataset": "uoft-cs/cifar100"})  # fmt: skip
    made = card(write(tmp_path / "run", values))
    assert made.data.base_model == "microsoft/resnet-18" and made.data.datasets == ["uoft-cs/cifar100"]
    assert made.data.eval_results[0].dataset_args == {
        "imbalance_ratio": 100.0,
        "profile": "exponential",
        "split_seed": 0,
    }
    assert (
        "starting from `microsoft/resnet-18`" in made.text
        and "https://huggingface.co/datasets/uoft-cs/cifar100" in made.text
    )
    assert "exponential, imbalance ratio 100, seed 0" in made.text
    scratch = metrics(model={"model": "microsoft/resnet-18", "pretrained": False})
    assert card(write(tmp_path / "scratch", scratch)).data.base_model is None


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_is_not_taken_for_a_name_on_the_hub(tmp_path, monkeypatch, there):
    """What a name meant is recorded when the run is made: the card is written anywhere, and later."""
    for place in ("here", "elsewhere"):
        (tmp_path / place).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in ("data/mine", "model/mine") if there else ():
        (tmp_path / "here" / name).mkdir(parents=True)
    run = make_run({"dataset": "data/mine", "model": "model/mine", "output_dir": "x"})
    monkeypatch.chdir(tmp_path / "elsewhere")
    values = metrics(
        data={"dataset": "data/mine"}, model={"model": "model/mine", "pretrained": True}, hub=dict(run.hub)
    )
    adapter = {"base_model_name_or_path": "model/mine", "peft_type": "LORA"}
    for is_adapter in (False, True):
        folder = write(tmp_path / f"run{is_adapter}", values)
        if is_adapter:
            (folder / "adapter_config.json").write_text(json.dumps(adapter))
        made = card(folder)
        found = (
            made.data.base_model,
            made.data.datasets,
            "huggingface.co/datasets" in made.text,
            "model/mine" in made.text,
        )
        assert found == ((None, None, False, False) if there else ("model/mine", ["data/mine"], True, True))
        assert made.data.eval_results[0].dataset_name == ("mine" if there else "data/mine")
    assert make_run({"model": "model/mine", "pretrained": False, "output_dir": "x"}).hub == {}


def test_a_run_of_which_nobody_recorded_it_claims_nothing(tmp_path):
    values = metrics(data={"dataset": "data/mine"}, model={"model": "model/mine", "pretrained": True})
    assert (made := card(write(tmp_path / "run", values))).data.base_model is None and made.data.datasets is None


def test_leaderboard_entries(tmp_path):
    folder = write_seeds(tmp_path)
    assert leaderboard_files(read_facts(folder), "me/digits") == {}  # no data set on the Hub
    stated = Stated(benchmark="me/digits-lt")
    files = card_files(read_facts(folder), "me/digits", stated)
    assert ".eval_results/results.yaml" not in files, "a commit of its own: the Hub may refuse it"
    entries = leaderboard_files(read_facts(folder), "me/digits", stated)
    found = parse_eval_result_entries(yaml.safe_load(entries[".eval_results/results.yaml"]))
    assert {e.task_id: e.value for e in found} == {
        "accuracy": 95.4, "balanced_accuracy": 95.4, "accuracy_many": 99.33, "accuracy_medium": 96.67, "accuracy_few": 91.5
    }  # fmt: skip
    assert all(
        e.dataset_id == "me/digits-lt" and e.source_url.endswith("/me/digits/blob/main/metrics.json") for e in found
    )
    assert {"other_seeds/seed1/metrics.json", "other_seeds/seed2/metrics.json", "README.md", "class_counts.png"} <= set(
        files
    )
    assert files["class_counts.png"].startswith(b"\x89PNG")


def test_the_other_seeds_may_lie_in_folders_of_other_numbers(tmp_path):
    folder = write_seeds(tmp_path)
    (folder.parent / "seed1").rename(folder.parent / "seed01")
    files = card_files(read_facts(folder), "me/digits")
    assert {name: path for name, path in files.items() if name.startswith("other_seeds/")} == {
        f"other_seeds/{name}/metrics.json": folder.resolve().parent / name / "metrics.json"
        for name in ("seed01", "seed2")
    }


@pytest.mark.parametrize(
    ("data", "benchmark", "data_set", "task"),
    [
        ({"dataset": "me/lt", "dataset_config_name": "r10"}, None, "me/lt", "r10_accuracy"),
        ({"dataset": "me/lt", "dataset_config_name": "r10"}, "you/lt", "you/lt", "accuracy"),
        ({"dataset": "data/mine"}, "you/lt:r10", "you/lt", "r10_accuracy"),
    ],
)
def test_leaderboard_entries_of_a_configuration(tmp_path, data, benchmark, data_set, task):
    facts = read_facts(
        write(
            tmp_path / "run",
            metrics(data=data, hub={"dataset": data["dataset"]} if "me" in data["dataset"][:2] else {}),
        )
    )
    entries = leaderboard_files(facts, "me/digits", Stated(benchmark=benchmark))
    found = parse_eval_result_entries(yaml.safe_load(entries[".eval_results/results.yaml"]))
    assert {(e.dataset_id, e.task_id) for e in found} >= {(data_set, task)}


# ---- methods, losses, papers ----


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_card(tmp_path, name):
    made = card(write(tmp_path / "run", metrics(method={"name": name, "args": {}})))
    assert f"| method | `{name}` | none |" in made.text and name in made.data.tags
    assert ("sharpness-aware-minimization" in made.data.tags) == (name != "sgd")
    assert name == "sgd" or "Source: " in made.text
    MarkdownIt("commonmark").enable("table").render(made.text)


def test_a_method_of_the_same_authors_and_year_has_its_own_paper(tmp_path, monkeypatch):
    """LookSAM is by another Liu et al. of 2022: nobody but the class says which paper is meant."""

    @dataclass(frozen=True)
    class Sparse(SAM):
        """Sparse SAM: g = G(1, rho M unit(G(1))).

        Cost: 2 forwards, 2 backwards.
        Source: Liu et al. 2022 Eq. 5.
        """

        citations: ClassVar = ("@article{liu2022sparse,\n  title = {Sparse},\n}",)

    monkeypatch.setitem(METHODS, "sparse", Sparse)
    text = card(write(tmp_path / "run", metrics(method={"name": "sparse", "args": {}}))).text
    assert "@article{liu2022sparse," in text and "Towards Efficient and Scalable" not in text
    assert "Sparse SAM:\n\n    g = G(1, rho M unit(G(1)))" in text and "Source: Liu et al. 2022 Eq. 5.\n" in text


def test_looksam_has_its_own_paper(tmp_path):
    text = card(write(tmp_path / "run", metrics(method={"name": "looksam", "args": {}}))).text
    assert "Towards Efficient and Scalable Sharpness-Aware Minimization" in text


def test_means_over_views_are_told(tmp_path):
    values = metrics(data={**METRICS["data"], "test_time": "five_crops"})
    evaluation = {
        "sets": {"usps": {"result": {**EVALUATION["sets"]["usps"]["result"], "identity": {"test_time": "flip"}}}}
    }
    text = card(write(tmp_path / "run", values), evaluation=evaluation).text
    assert "after the last epoch, mean over views (five crops):" in text and "| usps, mean over views (flip) |" in text
    assert "A pipeline sees the centre of an image once" in text and "--test_time five_crops` repeats the views" in text
    assert "A pipeline sees" not in card(write(tmp_path / "one_view", metrics())).text


RESULT = EVALUATION["sets"]["usps"]["result"]
SUMMARY = EVALUATION["sets"]["digits_c"]["summary"]


def of_sets(**sets):
    return {"sets": sets}


@pytest.mark.parametrize(
    ("changes", "remark", "entered"),
    [
        ({}, None, True),
        ({"left_out": 0, "published": 2007}, None, True),
        ({"note": "labels taken by number: the set names no classes"}, "labels taken by number", True),
        ({"left_out": 0, "identity": {"only_known_classes": True}}, None, True),
        ({"identity": {"only_known_classes": True}}, None, False),  # of a release that did not count them
        ({"left_out": 3, "note": "images of 1 classes are left out"}, "images of 1 classes are left out", False),
        ({"left_out": 3, "published": 2010}, None, False),
        ({"left_out": 0, "published": 2010}, "3 of 2,010 published images are lacking", False),
    ],
)
def test_remarks_of_an_evaluation_are_told_and_a_part_of_a_set_is_not_entered(tmp_path, changes, remark, entered):
    """In the model index a number stands for the whole set."""
    folder, result = write(tmp_path / "run", metrics()), {**RESULT, **changes}
    cells = {c: {"3": {**result, "overall": 1 - error}} for c, error in SUMMARY["errors"].items()}
    made = card(folder, evaluation=of_sets(usps={"result": result}, digits_c={"cells": cells, "summary": SUMMARY}))
    shift = made.text.partition("## Under shift")[2].partition("## Cost")[0]
    assert ("remarks" in shift) == (remark is not None)
    assert remark is None or shift.count(remark) == 2, "at the set, and at the set of corruptions"
    names = {result.dataset_name for result in made.data.eval_results}
    assert names == {"digits", *(("usps", "digits_c") if entered else ())}


@pytest.mark.parametrize(("many_above", "kept"), [(40, True), (81, False)])
def test_accuracies_by_other_groups_than_the_run_s_are_left_out(tmp_path, many_above, kept):
    """A run that is tested again with other bounds keeps its weights, and the results of its evaluations."""
    statistics = {**metrics()["class_statistics"], "many_above": many_above}
    summary = {"digits_c": {"cells": {}, "summary": {"groups": {"few": 0.1234}}}}
    assert without_groups({"sets": summary})["sets"]["digits_c"] == {"cells": {}, "summary": {"groups": {}}}
    sets = {"usps": {"result": {**RESULT, "groups": {"few": 0.1234}}}}
    made = card(write(tmp_path / "run", metrics()), evaluation={"class_statistics": statistics, "sets": sets})
    assert ("12.3" in made.text.partition("## Under shift")[2].partition("## Cost")[0]) == kept


@pytest.mark.parametrize(
    ("problem", "sentence"),
    [
        ("multi_label_classification", "images may have several of them, or none."),
        ("single_label_classification", "It always answers with one of its classes"),
        (None, "It always answers with one of its classes"),
    ],
)
def test_a_card_says_whether_a_sample_has_one_class(tmp_path, problem, sentence):
    folder = write(tmp_path / "run", metrics())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "problem_type": problem}))
    text = card(folder).text
    assert sentence in text and ("always answers" in text) == ("always answers" in sentence)


def test_a_mean_error_is_not_the_mce(tmp_path):
    """mCE is relative to a baseline: the model index has it where there is one, under its own name."""
    folder = write(tmp_path / "run", metrics())
    relative = {"ce": {}, "mce": 76.7, "relative_to": "AlexNet"}
    found = []
    for summary in (SUMMARY, {**SUMMARY, **relative}):
        made = card(folder, evaluation=of_sets(digits_c={"cells": {}, "summary": summary}))
        entries = [r for r in made.data.eval_results if r.dataset_name == "digits_c"]
        assert {entry.dataset_args["severities"] for entry in entries} == {"3"}
        found.append({entry.metric_type: (entry.metric_value, entry.metric_name) for entry in entries})
    plain = ("mean_error_under_corruption", (0.26067, "Mean error under corruption"))
    assert found == [dict([plain]), dict([plain, ("mean_corruption_error", (76.7, "mCE in %, relative to AlexNet"))])]


def test_something_of_ones_own(tmp_path):
    values = metrics(method={"name": "MyMethod", "args": {"x": 1}}, loss={"name": "my.loss", "args": {}})
    text = card(write(tmp_path / "run", values)).text
    assert (
        "MyMethod." in text
        and "| method | `MyMethod` | `x`: 1 |" in text
        and "Source" not in text
        and "Loss: my.loss." in text
    )


def test_the_metric_that_chose_the_weights_is_told_as_text(tmp_path):
    text = card(write(tmp_path / "run", metrics(best_checkpoint={"step": 7, "metric": "f1[<b>"}))).text
    assert r"of step 7, chosen by f1[\<b> in the evaluations" in text


def test_averaged_weights_late_losses_and_class_weights_are_told(tmp_path):
    values = metrics(weight_averaging={"start": 0.75, "interval": None}, reweighting={"scheme": "effective_number", "start": 0.8},
                     loss={"name": "influence_balanced", "args": {"alpha": 1000.0}, "start": 0.5})  # fmt: skip
    text = card(write(tmp_path / "run", values)).text
    assert (
        "on 500 test images, with the averaged weights:" in text
        and "| class weights | `effective_number` | `start`: 0.8 |" in text
    )
    assert "`alpha`: 1000.0, `start`: 0.5" in text


@pytest.mark.parametrize(
    ("config", "task", "kind", "code"),
    [
        (
            {"architectures": ["BertForSequenceClassification"]},
            "text-classification",
            "A text classifier",
            'pipeline("text-classification"',
        ),
        ({}, None, "A classifier", "model.load_state_dict"),
        (
            {"architectures": ["ResNetForImageClassification"]},
            "image-classification",
            "An image classifier",
            'pipeline("image-classification"',
        ),
        (
            {"model_type": "vit", "image_size": 8},
            "image-classification",
            "An image classifier",
            'pipeline("image-classification"',
        ),
    ],
)
def test_what_kind_of_model_it_is(tmp_path, config, task, kind, code):
    folder = write(tmp_path / "run", metrics())
    (folder / "config.json").write_text(json.dumps(config))
    made = card(folder)
    assert made.data.pipeline_tag == task and made.text.strip().splitlines()[2].startswith(kind) and code in made.text


def test_many_classes_are_not_listed(tmp_path):
    statistics = ClassStatistics((500,) * 50 + (5,) * 50)
    values = metrics(class_statistics=statistics.to_dict())
    values["results"]["test"]["per_class"] = [0.5] * 100
    text = card(write(tmp_path / "run", values)).text
    assert "Class by class" not in text and "| few | fewer than 20 | 50 | 250 |" in text


def test_a_damaged_file_is_named(tmp_path):
    folder = write(tmp_path / "run", metrics())
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        card(folder)
