"""`ltsam evaluate`: numbers against a loop written by hand, restarts, processes, tables, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from cli.picture_folders import CLASSES, draw_images
from PIL import Image
from training.two_ranks import outputs_of_two_ranks
from transformers import AutoModelForImageClassification

from dataset_builders.corruptions import CORRUPTIONS, corrupt
from dataset_builders.sources.class_table import class_table
from hf_ltsam import CifarResNetConfig, CifarResNetForImageClassification, ClassStatistics
from hf_ltsam.cli import main as cli
from hf_ltsam.cli.evaluate import command as evaluate_ood
from hf_ltsam.cli.evaluate import evaluation as ood_evaluation
from hf_ltsam.cli.evaluate.images import large_as_in_imagenet_c
from hf_ltsam.data.keys import random_key
from hf_ltsam.data.preprocessing import Preprocessing
from hf_ltsam.runs.card import model_card, read_facts
from hf_ltsam.runs.shift.results import other_images, read_results

SCRIPT = Path(__file__).parents[3] / "training_scripts" / "evaluate_ood.py"
FEW = ["--corruptions", "fog", "gaussian_noise", "contrast", "--severities", "1", "4"]
MEAN, STD = (0.4, 0.45, 0.5), (0.2, 0.21, 0.22)


def save_checkpoint(folder, names=CLASSES, counts=(12, 6, 3), size=12, seed=1):
    """A small network with random weights, as a training leaves it; its predictions are a mixture."""
    torch.manual_seed(seed)
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: c for c, name in enumerate(names)}}
    model = CifarResNetForImageClassification(CifarResNetConfig(depth=8, width=4, **labels)).train()
    model(torch.randn(64, 3, size, size) - 0.3)
    with torch.no_grad():
        model.classifier.weight.mul_(5)
        logits = model.eval()(torch.randn(64, 3, size, size)).logits
        model.classifier.bias.sub_(logits.mean(0))
    model.save_pretrained(folder)
    Preprocessing(size, size, size, tuple(MEAN), tuple(STD)).image_processor().save_pretrained(folder)
    if counts:
        ClassStatistics(counts, many_above=6, few_below=6).save(folder)
    return folder


@pytest.fixture
def checkpoint(tmp_path):
    return save_checkpoint(tmp_path / "model")


@pytest.fixture
def test_images(tmp_path):
    """13 images in three classes: no batch size divides them."""
    draw_images(tmp_path / "other", (5, 4, 4), 12, seed=3)
    return tmp_path / "other"


def evaluate(checkpoint, *words, out=None):
    """The content of the results' file."""
    folder = out or checkpoint / "evaluation"
    evaluate_ood.main(["--model", str(checkpoint), "--output_dir", str(folder), "--use_cpu", *map(str, words)])
    return read_results(folder / "ood_results.json")


def refused(capsys, *words):
    with pytest.raises(SystemExit) as exit_:
        evaluate_ood.main([str(word) for word in words])
    assert exit_.value.code == 2
    return capsys.readouterr().err


def accuracy_by_hand(checkpoint, folder, change=lambda pixels, row: pixels, flip=False):
    """Overall and per class: PIL, numpy, one image at a time."""
    model = AutoModelForImageClassification.from_pretrained(checkpoint).eval()
    right = {name: [] for name in CLASSES}
    for row, file in enumerate(sorted(folder.rglob("*.png"))):
        pixels = change(np.asarray(Image.open(file)), row)
        x = torch.tensor((pixels / 255 - np.array(MEAN)) / np.array(STD), dtype=torch.float32).permute(2, 0, 1)[None]
        with torch.no_grad():
            logits = model(x).logits + (model(x.flip(-1)).logits if flip else 0)
        right[file.parent.name].append(int(logits.argmax()) == CLASSES.index(file.parent.name))
    return np.mean([hit for hits in right.values() for hit in hits]), {
        name: np.mean(values) for name, values in right.items()
    }


# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("test_time, views", [("none", 1), ("flip", 2), ("five_crops", 5)])
def test_the_model_sees_the_views_that_were_asked_for(checkpoint, test_images, test_time, views, monkeypatch):
    seen, true = [], ood_evaluation.predict_logits
    monkeypatch.setattr(ood_evaluation, "predict_logits", lambda *words: seen.append(words[1][0].shape) or true(*words))
    evaluate(checkpoint, "--sets", test_images, "--test_time", test_time)
    assert seen == [(views, 3, 12, 12)]


@pytest.mark.parametrize("test_time", ["none", "flip"])
def test_a_loop_by_hand_gives_the_same_accuracies(checkpoint, test_images, test_time):
    result = evaluate(checkpoint, "--sets", test_images, "--test_time", test_time)["sets"][str(test_images)]["result"]
    overall, of_class = accuracy_by_hand(checkpoint, test_images, flip=test_time == "flip")
    assert 0 < overall < 1
    assert result["overall"] == pytest.approx(overall) and result["samples"] == 13
    assert result["per_class"] == pytest.approx(list(of_class.values()))
    assert result["groups"] == pytest.approx(dict(zip(("many", "medium", "few"), of_class.values())))
    assert result["balanced"] == pytest.approx(np.mean(list(of_class.values())))


def test_a_loop_by_hand_over_corrupted_images_gives_the_same_table(checkpoint, test_images):
    name = f"{test_images}_c"
    of_set = evaluate(checkpoint, "--sets", name, "--seed", "5", *FEW)["sets"][name]
    for corruption in ("fog", "gaussian_noise", "contrast"):
        for severity in (1, 4):
            overall, _ = accuracy_by_hand(
                checkpoint,
                test_images,
                lambda pixels, row, c=corruption, s=severity: corrupt(pixels, c, s, random_key(5, row)),
            )
            assert of_set["cells"][corruption][str(severity)]["overall"] == pytest.approx(overall)
    errors = [1 - cell["overall"] for row in of_set["cells"].values() for cell in row.values()]
    assert of_set["summary"]["mean_error"] == pytest.approx(np.mean(errors))
    groups = [cell["groups"]["few"] for row in of_set["cells"].values() for cell in row.values()]
    assert of_set["summary"]["groups"]["few"] == pytest.approx(np.mean(groups))


def test_a_stored_set_of_corruptions_gives_the_same_as_one_made_on_the_fly(checkpoint, test_images, tmp_path):
    from datasets import load_dataset

    from dataset_builders.corruptions import write_corrupted

    clean = load_dataset("imagefolder", data_dir=str(test_images), split="train")
    write_corrupted(clean, tmp_path / "stored", corruptions=["fog"], severities=[1, 4], seed=0, workers=1)
    words = ["--corruptions", "fog", "--severities", "1", "4"]
    sets = evaluate(checkpoint, "--sets", f"{test_images}_c", tmp_path / "stored", *words)["sets"]
    made, stored = (sets[name]["cells"]["fog"] for name in (f"{test_images}_c", str(tmp_path / "stored")))
    assert [made[s]["overall"] for s in "14"] == [stored[s]["overall"] for s in "14"]
    assert "seed" in made["1"]["identity"] and "seed" not in stored["1"]["identity"]


@pytest.mark.parametrize("batch_size", [1, 5, 13])
def test_the_batch_size_changes_nothing(checkpoint, test_images, tmp_path, batch_size):
    words = ["--sets", test_images, f"{test_images}_c", *FEW]
    expected = evaluate(checkpoint, *words, out=tmp_path / "a")
    assert evaluate(checkpoint, *words, "--batch_size", batch_size, out=tmp_path / "b") == expected


@pytest.mark.slow
def test_two_processes_change_nothing(checkpoint, test_images, tmp_path):
    """13 images in batches of 3: 5 batches, the last of one image; 3 images: the second process has none."""
    draw_images(tmp_path / "three", (1, 1, 1), 12, seed=4)
    words = ["--sets", *map(str, (test_images, f"{test_images}_c", tmp_path / "three")), *FEW]
    expected = evaluate(checkpoint, *words, "--batch_size", "13", out=tmp_path / "one")
    words += ["--batch_size", "3"]
    outputs = outputs_of_two_ranks(
        str(SCRIPT), "--model", str(checkpoint), "--output_dir", str(tmp_path / "two"), *words
    )
    assert read_results(tmp_path / "two" / "ood_results.json") == expected
    assert sum("mean error" in out for out in outputs) == 1  # one of them speaks


def test_classes_in_another_order_are_mapped(checkpoint, test_images, tmp_path, capsys):
    expected = evaluate(checkpoint, "--sets", test_images, out=tmp_path / "out")["sets"][str(test_images)]["result"]
    shuffled = shutil.copytree(checkpoint, tmp_path / "shuffled")
    model = AutoModelForImageClassification.from_pretrained(checkpoint)
    with torch.no_grad():
        for p in model.classifier.parameters():
            p.copy_(p[[2, 0, 1]].clone())
    model.config.id2label = {0: "owl", 1: "cat", 2: "dog"}
    model.config.label2id = {"owl": 0, "cat": 1, "dog": 2}
    model.save_pretrained(shuffled)
    result = evaluate(shuffled, "--sets", test_images)["sets"][str(test_images)]["result"]
    assert result["overall"] == expected["overall"]
    assert [result["per_class"][c] for c in (1, 2, 0)] == expected["per_class"]
    assert "'cat' is class 0 of the set and 1 of the model" in result["note"]


# --- sets of ImageNet ------------------------------------------------------------------------------------------------


@pytest.fixture
def imagenet_samples(shared):
    folder = shared / "samples" / "imagenet"
    if not folder.is_dir():
        pytest.skip(f"no ImageNet samples at {folder}")
    return sorted(folder.rglob("*.JPEG")) or sorted(file for file in folder.rglob("*") if file.is_file())


def test_sets_of_imagenet_and_alexnet(imagenet_samples, tmp_path):
    table = class_table("imagenet")
    files = imagenet_samples[:6]
    for file in files:
        wnid = file.stem.partition("_")[0] if file.stem.startswith("n0") else file.parent.name
        c = table.keys.index(wnid)
        for place in (
            f"imagenet_sketch/sketch/{wnid}",
            f"imagenetv2/imagenetv2-matched-frequency-format-val/{c}",
            *(f"imagenet_c/digital/contrast/{s}/{wnid}" for s in range(1, 6)),
        ):
            (tmp_path / "data" / place).mkdir(parents=True)
            Image.open(file).convert("RGB").resize((224, 224)).save(tmp_path / "data" / place / "1.JPEG")
    model = save_checkpoint(tmp_path / "model", table.names, counts=(3,) * 500 + (30,) * 500, size=32)
    sets = evaluate(
        model,
        "--sets",
        "imagenet_sketch",
        "imagenetv2",
        "imagenet_c",
        "--data_dir",
        tmp_path / "data",
        "--corruptions",
        "contrast",
        "--incomplete_copies",
        "--test_time",
        "five_crops",
    )["sets"]
    assert [sets[name]["result"]["samples"] for name in ("imagenet_sketch", "imagenetv2")] == [6, 6]
    assert list(sets["imagenet_sketch"]["result"]["groups"]) == ["few"]  # those of the model's training set
    summary = sets["imagenet_c"]["summary"]
    assert summary["relative_to"].startswith("AlexNet") and summary["mce"] is None  # of one corruption
    assert summary["ce"]["contrast"] == pytest.approx(100 * summary["errors"]["contrast"] / 0.853204)


def test_what_was_not_measured_is_told(tmp_path):
    """Classes that the model does not know, and images that a copy lacks: in the page, the card and the model index."""
    table = class_table("imagenet")
    folders = {
        "imagenet_sketch/sketch": (0, 1, 999),
        "imagenet_c/digital/contrast/1": (0,),
        "imagenet_c/digital/contrast/2": (0, 1),
    }
    for place, classes in folders.items():
        for c in classes:
            (folder := tmp_path / "data" / place / table.keys[c]).mkdir(parents=True)
            Image.new("RGB", (16, 16), (c % 256, 99, 50)).save(folder / "1.JPEG")
    model = save_checkpoint(tmp_path / "model", table.names[:996], counts=None)
    words = ["--data_dir", tmp_path / "data", "--corruptions", "contrast", "--severities", 1, 2]
    words += ["--incomplete_copies", "--only_known_classes", "--sets", "imagenet_sketch", "imagenet_c"]
    results = evaluate(model, *words)
    of_sketch = results["sets"]["imagenet_sketch"]["result"]
    assert {name: of_sketch[name] for name in ("samples", "left_out", "published")} == {
        "samples": 2, "left_out": 1, "published": 50_889
    }  # fmt: skip
    pages = (
        (model / "evaluation" / "ood_results.md").read_text(),
        str(card := model_card(read_facts(model, evaluation=results), "me/model")),
    )
    for page in pages:
        row = next(line for line in page.splitlines() if line.startswith("| imagenet_sketch |"))
        assert "images of 4 classes that the model does not know are left out" in row
        assert "50,886 of 50,889 published images are lacking" in row
        assert "49,998 to 49,999 of 50,000 published images are lacking" in page
        assert page.count("are left out") == 2, "once for all cells"
    assert "on 1 to 2 images each" in pages[0] and card.data.eval_results is None


def test_large_images_are_cropped_as_imagenet_cs_were():
    from torchvision.transforms import v2

    large = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))
    expected = v2.CenterCrop(224)(v2.Resize(256)(large))
    np.testing.assert_array_equal(np.asarray(large_as_in_imagenet_c(large)), np.asarray(expected))
    small = large.resize((224, 240))
    assert large_as_in_imagenet_c(small) is small


# --- CIFAR-100-C and the digits --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_cifar100_c_made_of_the_test_split(shared, tmp_path):
    source, folder = shared / "data" / "cifar100", tmp_path / "cifar100"
    if not source.is_dir():
        pytest.skip(f"no CIFAR-100 at {source}")
    folder.mkdir()
    (folder / "train_ir10.parquet").symlink_to(source / "train_ir10.parquet")
    test = pq.read_table(source / "test.parquet")
    pq.write_table(test.take(list(range(0, len(test), 1000))), folder / "test.parquet")  # 10 images
    from dataset_builders.sets.cifar_lt import CIFAR100_NAMES

    model = save_checkpoint(tmp_path / "model", CIFAR100_NAMES, (30,) * 100, size=32)
    other = save_checkpoint(tmp_path / "other", CIFAR100_NAMES, (30,) * 100, size=32, seed=2)
    words = ["--sets", "cifar100", "cifar100_c", "--data_dir", tmp_path]
    evaluate(other, *words)
    results = evaluate(model, *words, "--baseline", other / "evaluation" / "ood_results.json")
    of_set = results["sets"]["cifar100_c"]
    assert tuple(of_set["cells"]) == CORRUPTIONS and all(list(row) == list("12345") for row in of_set["cells"].values())
    assert results["sets"]["cifar100"]["result"]["samples"] == 10
    summary, basis = (
        of_set["summary"],
        read_results(other / "evaluation" / "ood_results.json")["sets"]["cifar100_c"]["summary"],
    )
    by_hand = np.mean([100 * summary["errors"][c] / basis["errors"][c] for c in CORRUPTIONS])
    assert summary["mce"] == pytest.approx(by_hand) and summary["relative_to"] == str(other)
    assert Image.open(model / "evaluation" / "heat_map_cifar100_c.png").size[0] > 600


def test_a_model_against_itself_gives_100(checkpoint, test_images):
    words = ["--sets", f"{test_images}_c", "--severities", "5", "--corruptions", *CORRUPTIONS]
    evaluate(checkpoint, *words)
    results = checkpoint / "evaluation" / "ood_results.json"
    summary = evaluate(checkpoint, *words, "--baseline", results)["sets"][f"{test_images}_c"]["summary"]
    assert summary["mce"] == pytest.approx(100)


# --- restarts --------------------------------------------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch):
    """How many predictions are made, and a way to fail at the n-th."""

    class Counted:
        calls, fails_at = 0, None

        def __call__(self, *words):
            if self.calls == self.fails_at:
                raise KeyboardInterrupt
            self.calls += 1
            return true(*words)

    true, counter = ood_evaluation.predict_logits, Counted()
    monkeypatch.setattr(ood_evaluation, "predict_logits", counter)
    return counter


def test_what_was_interrupted_goes_on(checkpoint, test_images, tmp_path, counted, capsys):
    words = ["--sets", test_images, f"{test_images}_c", *FEW]
    expected = evaluate(checkpoint, *words, out=tmp_path / "whole")
    assert counted.calls == 7
    counted.fails_at, counted.calls = 4, 0
    with pytest.raises(SystemExit, match="130"):
        evaluate(checkpoint, *words)
    assert "The same command goes on" in capsys.readouterr().err
    partial = read_results(checkpoint / "evaluation" / "ood_results.json")["sets"]
    assert len(partial) == 2 and "summary" not in partial[f"{test_images}_c"]
    counted.fails_at, counted.calls = None, 0
    assert evaluate(checkpoint, *words) == expected
    assert counted.calls == 3
    evaluate(checkpoint, *words)
    assert counted.calls == 3


@pytest.mark.parametrize("more", [["--seed", "1"], ["--test_time", "flip"]])
def test_other_settings_are_evaluated_anew(checkpoint, test_images, counted, more):
    words = ["--sets", f"{test_images}_c", *FEW]
    evaluate(checkpoint, *words)
    again = evaluate(checkpoint, *words, *more)
    assert counted.calls == 12
    identity = again["sets"][f"{test_images}_c"]["cells"]["fog"]["1"]["identity"]
    assert str(identity[more[0].removeprefix("--")]) == more[1]


def one_more(folder):
    Image.open(folder / "dog" / "0.png").save(folder / "dog" / "9.png")


def another_picture(folder):
    Image.new("RGB", (12, 12)).save(folder / "dog" / "0.png")


def another_class(folder):
    (folder / "dog" / "0.png").rename(folder / "cat" / "dog_0.png")


CHANGES = pytest.mark.parametrize("change", [one_more, another_picture, another_class])


@CHANGES
@pytest.mark.parametrize("kind", ["folder", "made", "table", "parquet"])
def test_changed_images_are_evaluated_anew(checkpoint, test_images, tmp_path, counted, change, kind):
    """Whatever the images lie in: results are of those that are there now."""

    def name():
        files = sorted(test_images.rglob("*.png"))
        if kind == "table":
            rows = [f"{file.relative_to(tmp_path)},{file.parent.name}\n" for file in files]
            (tmp_path / "table.csv").write_text("".join(["image,label\n", *rows]))
        if kind == "parquet":
            (tmp_path / "files").mkdir(exist_ok=True)
            columns = {
                "image": [{"bytes": file.read_bytes(), "path": None} for file in files],
                "label": [file.parent.name for file in files],
            }
            pq.write_table(pa.table(columns), tmp_path / "files" / "test.parquet")
        places = {"made": f"{test_images}_c", "table": tmp_path / "table.csv", "parquet": tmp_path / "files"}
        return str(places.get(kind, test_images))

    words = ["--sets", name(), *(["--corruptions", "fog", "--severities", "1"] if kind == "made" else [])]
    evaluate(checkpoint, *words)
    evaluate(checkpoint, *words)
    assert counted.calls == 1
    change(test_images)
    words[1] = name()
    again = evaluate(checkpoint, *words)["sets"]
    assert counted.calls == 2 and again == evaluate(checkpoint, *words, out=tmp_path / "fresh")["sets"]


def test_changed_corruptions_on_the_disk_are_evaluated_anew(checkpoint, test_images, tmp_path, counted):
    from datasets import load_dataset

    from dataset_builders.corruptions import write_corrupted

    def write(seed):
        shutil.rmtree(tmp_path / "stored", ignore_errors=True)
        clean = load_dataset("imagefolder", data_dir=str(test_images), split="train")
        write_corrupted(clean, tmp_path / "stored", corruptions=["shot_noise"], severities=[1, 4], seed=seed, workers=1)

    words = ["--sets", tmp_path / "stored", "--corruptions", "shot_noise", "--severities", "1", "4"]
    write(0)
    evaluate(checkpoint, *words)
    evaluate(checkpoint, *words)
    assert counted.calls == 2
    write(1)
    evaluate(checkpoint, *words)
    assert counted.calls == 4


@pytest.mark.parametrize("complete", [False, True])
def test_a_copy_that_was_completed_is_evaluated_anew(tmp_path, counted, complete):
    table = class_table("imagenet")
    model = save_checkpoint(tmp_path / "model", table.names, counts=(), size=12)

    def add(c):
        folder = tmp_path / "data" / "imagenet_sketch" / "sketch" / table.keys[c]
        folder.mkdir(parents=True)
        Image.new("RGB", (12, 12)).save(folder / "1.JPEG")

    words = ["--sets", "imagenet_sketch", "--data_dir", tmp_path / "data", "--incomplete_copies"]
    add(0)
    samples = [evaluate(model, *words)["sets"]["imagenet_sketch"]["result"]["samples"]]
    if complete:
        add(1)
    samples.append(evaluate(model, *words)["sets"]["imagenet_sketch"]["result"]["samples"])
    assert samples == [1, 1 + complete] and counted.calls == 1 + complete


# --- the summary of what was measured, and what it is relative to -------------------------------------------------------


def summary_after(checkpoint, name, *commands):
    """The summary of a set after one command after another, and the number of its cells."""
    for words in commands:
        of_set = evaluate(checkpoint, "--sets", name, *words)["sets"][name]
    return of_set["summary"], sum(map(len, of_set["cells"].values()))


def asked(corruptions, severities):
    return ["--corruptions", *corruptions.split(), "--severities", *severities.split()]


@pytest.mark.parametrize(
    "before, then, corruptions, severities, more",
    [
        (
            asked("fog contrast", "1 4"),
            asked("fog contrast", "1"),
            ["fog", "contrast"],
            [1, 4],
            True,
        ),  # less is asked for
        (asked("fog contrast", "1 4"), asked("fog", "4"), ["fog", "contrast"], [1, 4], True),
        (asked("fog", "1 4"), asked("contrast", "1 4"), ["fog", "contrast"], [1, 4], True),  # one after the other
        (asked("fog", "1"), asked("fog", "4"), ["fog"], [1, 4], True),
        (asked("fog", "1 4"), asked("contrast", "4"), ["contrast"], [4], False),  # means over different severities
        (asked("fog", "1 4"), [*asked("fog", "4"), "--seed", "1"], ["fog"], [4], False),  # other settings
    ],
)
def test_a_summary_is_of_all_that_is_measured(
    checkpoint, test_images, before, then, corruptions, severities, more, capsys
):
    summary, _ = summary_after(checkpoint, f"{test_images}_c", before, then)
    assert list(summary["errors"]) == corruptions and summary["severities"] == severities
    assert ("measured before" in capsys.readouterr().out) == more


def test_cells_of_images_that_were_there_before_are_not_in_the_summary(checkpoint, test_images):
    name = f"{test_images}_c"
    summary_after(checkpoint, name, asked("fog", "1 4"))
    another_picture(test_images)
    summary, cells = summary_after(checkpoint, name, asked("fog", "4"))
    assert summary["severities"] == [4] and cells == 2


@pytest.fixture
def imagenet_c(tmp_path):
    """Two classes of ImageNet-C under contrast, and two networks of ImageNet's classes."""
    table = class_table("imagenet")
    for c, severity in [(c, s) for c in (0, 1) for s in range(1, 6)]:
        folder = tmp_path / "data" / "imagenet_c" / "digital" / "contrast" / str(severity) / table.keys[c]
        folder.mkdir(parents=True)
        Image.new("RGB", (224, 224), (60 * c, 20 * severity, 90)).save(folder / "1.JPEG")
    models = [save_checkpoint(tmp_path / name, table.names, counts=(), seed=s) for s, name in enumerate("ab")]
    copy = ["--sets", "imagenet_c", "--data_dir", tmp_path / "data", "--incomplete_copies", "--corruptions", "contrast"]
    return models, copy


@pytest.mark.parametrize("more", [[], ["--severities", "1", "2"], ["--only_known_classes"]])
def test_a_stated_baseline_is_taken_for_imagenet_c(imagenet_c, more):
    (other, model), words = imagenet_c
    evaluate(other, *words)
    results = other / "evaluation" / "ood_results.json"
    summary = evaluate(model, *words, *more, "--baseline", results)["sets"]["imagenet_c"]["summary"]
    basis = read_results(results)["sets"]["imagenet_c"]["cells"]["contrast"]
    errors = [1 - basis[str(s)]["overall"] for s in summary["severities"]]
    assert summary["relative_to"] == str(other)
    assert summary["ce"]["contrast"] == pytest.approx(100 * summary["errors"]["contrast"] / np.mean(errors))
    summary = evaluate(model, *words, *more)["sets"]["imagenet_c"]["summary"]
    assert summary["relative_to"] == (None if more else "AlexNet (Hendrycks & Dietterich 2019)")


def test_a_baseline_of_fewer_severities_is_compared_at_those(checkpoint, test_images, tmp_path):
    other, name = save_checkpoint(tmp_path / "reference", seed=2), f"{test_images}_c"
    evaluate(other, "--sets", name, *asked("fog", "4"))
    basis = ["--baseline", other / "evaluation" / "ood_results.json"]
    summary, _ = summary_after(checkpoint, name, asked("fog", "1 4"), [*asked("fog", "4"), *basis])
    assert summary["severities"] == [4] and summary["relative_to"] == str(other)


OTHER_IMAGES = {
    "one is gone": ([], lambda folder: (folder / "dog" / "1.png").unlink(), "on other images (13 and 12)"),
    "as many others": (
        [],
        lambda folder: Image.new("RGB", (9, 9)).save(folder / "dog/1.png"),
        "that have changed in between",
    ),
    "another seed": (["--seed", "7"], lambda folder: None, "(--seed 0 and 7)"),
}


SAME = {"samples": 13, "labels_sha256": "a", "identity": {"seed": 0, "source": "me/set", "commit": "c" * 40}}


@pytest.mark.parametrize(
    ("change", "identity", "words"),
    [
        ({}, {}, ""),
        ({"samples": 9}, {}, "on other images (9 and 13)"),  # of some of the classes
        ({"labels_sha256": "b"}, {}, "on images of other classes"),
        ({}, {"seed": 7}, "under corruptions made with other random numbers (--seed 7 and 0)"),
        ({}, {"commit": "d" * 40}, "at another commit of me/set (dddddddddddd and cccccccccccc)"),
        ({"identity": {}}, {}, ""),  # of an older version
    ],
)
def test_results_on_other_images_are_told_apart(change, identity, words):
    assert other_images(SAME, {**SAME, "identity": {**SAME["identity"], **identity}, **change}) == words


@pytest.mark.parametrize("words, change, message", OTHER_IMAGES.values(), ids=OTHER_IMAGES)
def test_a_baseline_of_other_images_is_refused(checkpoint, test_images, tmp_path, capsys, words, change, message):
    other, name = save_checkpoint(tmp_path / "reference", seed=2), f"{test_images}_c"
    evaluate(other, "--sets", name, *asked("fog", "4"))
    change(test_images)
    basis, sets = other / "evaluation" / "ood_results.json", ["--sets", name, *asked("fog", "4"), *words]
    error = refused(capsys, "--model", checkpoint, *sets, "--use_cpu", "--baseline", basis)
    assert message in error and f"--baseline {basis}" in error and "leave --baseline out" in error
    evaluate(other, *sets)
    assert evaluate(checkpoint, *sets, "--baseline", basis)["sets"][name]["summary"]["relative_to"] == str(other)


def test_results_of_another_checkpoint_are_not_mixed_in(checkpoint, test_images, tmp_path, capsys):
    evaluate(checkpoint, "--sets", test_images)
    other = save_checkpoint(tmp_path / "other", seed=2)
    message = refused(capsys, "--model", other, "--sets", test_images, "--output_dir", checkpoint / "evaluation")
    assert "another checkpoint" in message and "--output_dir OTHER" in message


@pytest.mark.parametrize("now", [(12, 4), None], ids=["other bounds", "no statistics"])
def test_results_by_other_groups_are_not_mixed_in(checkpoint, test_images, capsys, now):
    evaluate(checkpoint, "--sets", test_images)
    words = ["--model", checkpoint, "--sets", test_images, "--use_cpu"]
    (checkpoint / "class_statistics.json").unlink()
    if now is not None:
        ClassStatistics((12, 6, 3), many_above=now[0], few_below=now[1]).save(checkpoint)
    message = refused(capsys, *words)
    assert "other groups of classes" in message and "--output_dir OTHER" in message
    assert (
        "The checkpoint has no class statistics now" if now is None else "many above 12, medium 4 to 12, few below 4"
    ) in message
    assert evaluate(checkpoint, "--sets", test_images, out=checkpoint / "other")["sets"]


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_table_page_and_heat_map(checkpoint, test_images, capsys):
    name = f"{test_images}_c"
    results = evaluate(checkpoint, "--sets", test_images, name, *FEW)
    out = capsys.readouterr().out
    assert "mean error" in out and "ood_results.md" in out and "heat_map" in out
    page = (checkpoint / "evaluation" / "ood_results.md").read_text()
    assert "many above 6, medium 6, few below 6" in page
    summary = results["sets"][name]["summary"]
    row = next(line for line in page.splitlines() if line.startswith("| gaussian noise |"))
    assert row.count("|") == 5 and f"| {100 * summary['errors']['gaussian_noise']:.1f} |" in row
    assert "No CE: it needs `--baseline`" in page
    maps = list((checkpoint / "evaluation").glob("heat_map_*.png"))
    assert len(maps) == 1 and min(Image.open(maps[0]).size) > 200


def test_without_statistics_there_are_no_groups_and_that_is_said(checkpoint, test_images, capsys):
    (checkpoint / "class_statistics.json").unlink()
    result = evaluate(checkpoint, "--sets", test_images)["sets"][str(test_images)]["result"]
    assert result["groups"] == {} and result["overall"] > 0
    assert "no accuracies by group" in capsys.readouterr().out
    assert "no accuracies by group" in (checkpoint / "evaluation" / "ood_results.md").read_text()


def test_ltsam_evaluate_is_this_script(monkeypatch):
    seen = []
    monkeypatch.setattr(evaluate_ood, "main", seen.append)
    cli.main(["evaluate", "--model", "x", "--help"])
    assert seen == [["--model", "x", "--help"]]


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more, said",
    [
        (["--sets", "imagenet_sketc"], ["imagenet_sketc", "'imagenet_sketch'"]),
        (["--sets", "digit_c"], ["digit_c", "'digits_c'"]),
        (["--sets", "digits", "digits"], ["digits twice"]),
        (["--sets", "./nowhere"], ["./nowhere", "no such folder"]),
        (["--sets", "imagenetv2"], ["imagenetv2", "--data_dir imagenetv2=FOLDER"]),
        (["--sets", "digits", "--data_dir", "nowhere"], ["no folder nowhere"]),
        (["--sets", "digits", "--test_time", "flips"], ["'flips'", "'flip'"]),
        (["--sets", "digits_c", "--corruptions", "fogg"], ["fogg", "'fog'"]),
        (["--sets", "digits_c", "--severities", "6"], ["6", "1, 2, 3, 4, 5"]),
        (
            ["--sets", "digits", "--corruptions", "fog"],
            ["--corruptions fog: no set", "is corrupted. digits_c stands for"],
        ),
        (["--sets", "digits", "--severities", "1", "3"], ["--severities 1 3: no set", "digits_c"]),
        (["--sets", "digits", "--baseline", "nowhere.json"], ["--baseline nowhere.json: no set", "digits_c"]),
        (["--sets", "digits", "--batch_size", "0"], ["batch_size", "0"]),
        (["--sets", "digits_c", "--baseline", "nowhere.json"], ["no results at nowhere.json"]),
    ],
)
def test_settings_are_refused_before_the_model_is_loaded(checkpoint, more, said, capsys, monkeypatch):
    monkeypatch.setattr(evaluate_ood, "load_classifier", lambda *_: pytest.fail("time was spent"))
    message = refused(capsys, "--model", checkpoint, *more)
    assert message.startswith("error: ") and all(part in message for part in said), message


def test_the_folder_above_is_searched(checkpoint, tmp_path, capsys):
    message = refused(capsys, "--model", checkpoint, "--sets", "imagenetv2", "--data_dir", tmp_path)
    assert f"There is no {tmp_path / 'imagenetv2'}" in message
    message = refused(capsys, "--model", checkpoint, "--sets", "digits", "--data_dir", f"imagenetv2={tmp_path}")
    assert "imagenetv2=...: no such set is asked for" in message


def test_corruptions_of_corruptions(checkpoint, tmp_path, capsys):
    message = refused(capsys, "--model", checkpoint, "--sets", "imagenet_c_c", "--data_dir", f"imagenet_c={tmp_path}")
    assert "imagenet_c holds corrupted images already" in message


def test_a_model_that_is_none(tmp_path, capsys):
    assert "no such folder" in refused(capsys, "--model", tmp_path / "nowhere", "--sets", "digits")
    save_checkpoint(tmp_path / "runs" / "seed0")
    message = refused(capsys, "--model", tmp_path / "runs", "--sets", "digits")
    assert "holds no model" in message and "checkpoints in it: seed0" in message


def test_another_number_of_classes(checkpoint, capsys):
    message = refused(capsys, "--model", checkpoint, "--sets", "digits", "--use_cpu")
    assert str(checkpoint) in message and "3 classes" in message and "the set 10" in message and "id2label" in message


def test_a_baseline_that_lacks_results(checkpoint, test_images, tmp_path, capsys):
    evaluate(checkpoint, "--sets", f"{test_images}_c", *FEW)
    results = checkpoint / "evaluation" / "ood_results.json"
    message = refused(capsys, "--model", checkpoint, "--sets", f"{test_images}_c", "--baseline", results)
    assert "lacks 69 of 75 results" in message
    message = refused(capsys, "--model", checkpoint, "--sets", "digits_c", "--baseline", results)
    assert "no results on digits_c" in message and str(test_images) in message
    words = ["--sets", "imagenet_c", "--data_dir", f"imagenet_c={tmp_path}", "--baseline", results]
    message = refused(capsys, "--model", checkpoint, *words)
    assert "no results on imagenet_c" in message and "without --baseline" in message


def test_a_damaged_file_of_results(checkpoint, test_images, capsys):
    (checkpoint / "evaluation").mkdir()
    (checkpoint / "evaluation" / "ood_results.json").write_text('{"sets": {')  # by something that was killed
    message = refused(capsys, "--model", checkpoint, "--sets", test_images, "--use_cpu")
    assert "ood_results.json is damaged" in message and "Remove it, and evaluate again" in message


def test_a_corrupt_image_is_named(checkpoint, test_images, capsys):
    (test_images / "dog" / "1.png").write_bytes(b"no image")
    message = refused(capsys, "--model", checkpoint, "--sets", test_images, "--use_cpu")
    assert str(test_images / "dog" / "1.png") in message


@pytest.mark.parametrize("split", ["test", "val"])
def test_the_test_split_of_a_folder(checkpoint, test_images, tmp_path, split):
    root = tmp_path / "whole"
    draw_images(root / "train", (2, 2, 2), 12)
    shutil.copytree(test_images, root / split)
    assert Path(root).is_dir()
    sets = evaluate(checkpoint, "--sets", root, test_images)["sets"]
    assert sets[str(root)]["result"]["overall"] == sets[str(test_images)]["result"]["overall"]
    assert sets[str(root)]["result"]["samples"] == 13
