"""`ltsam predict`: numbers against a loop by hand, files that cannot be read, calibration from the reserve of a training."""

import base64
import csv
import io
import json
import os
import shutil

import numpy as np
import pytest
import torch
from cli.picture_folders import CLASSES, draw_images
from datasets import Dataset
from PIL import Image
from text_models import save_encoder, texts, write_lines
from transformers import AutoModelForSequenceClassification, pipeline

import hf_ltsam
from hf_ltsam import CifarResNetConfig, CifarResNetForImageClassification, ClassStatistics
from hf_ltsam.cli import main as cli
from hf_ltsam.cli.export import export
from hf_ltsam.cli.predict.command import FilePrediction, as_csv
from hf_ltsam.cli.predict.mistakes import mistakes
from hf_ltsam.data.preprocessing import Preprocessing
from hf_ltsam.metrics.calibration import Calibration
from hf_ltsam.runs.folder import RunFolder
from hf_ltsam.runs.record import RunRecord
from hf_ltsam.runs.shift import checkpoint

SEE = Preprocessing(12, 12, 12, (0.4, 0.45, 0.5), (0.2, 0.21, 0.22))
COUNTS = (40, 10, 3)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Nine images in folders, one that is none among them, one of another kind, one hidden."""
    folder = tmp_path_factory.mktemp("pictures") / "photos"
    draw_images(folder, (3, 3, 2), 12, seed=3)
    (folder / CLASSES[0] / "broken.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("notes")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(1)
    labels = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: c for c, name in enumerate(CLASSES)}}
    CifarResNetForImageClassification(CifarResNetConfig(depth=8, width=4, **labels)).save_pretrained(folder)
    SEE.image_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def calibration():
    numbers = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), (60, 20, 10))
    logits = numbers.normal(size=(90, 3)) + 0.5 * np.eye(3)[labels] + np.log(COUNTS)
    chosen = Calibration.fit(logits, labels, COUNTS)
    assert chosen.balanced != chosen.training
    return chosen


@pytest.fixture
def calibrated(run, calibration):
    file = RunFolder(run).write_calibration(calibration)
    yield calibration
    file.unlink()


def logits_of(run, files, flip=False):
    model = hf_ltsam.load_run(run)
    logits = []
    for file in files:
        x = (np.asarray(Image.open(file)) / 255 - np.array(SEE.mean)) / np.array(SEE.std)
        x = torch.tensor(x, dtype=torch.float32).permute(2, 0, 1)[None]
        with torch.no_grad():
            z = model(x).logits[0]
            logits.append(((z + model(x.flip(-1)).logits[0]) / 2 if flip else z).double().numpy())
    return np.stack(logits)


def ltsam(capsys, *words):
    cli.main(["predict", *map(str, words), "--use_cpu"])
    return capsys.readouterr()


def good(pictures):
    return [file for file in sorted(pictures.rglob("*.png")) if file.name != "broken.png"]


def test_the_table_has_every_file_and_what_the_model_says_by_hand(run, pictures, capsys):
    said = ltsam(capsys, run, pictures, "--top_k", 2, "--batch_size", 3)
    rows = {row["file"]: row for row in csv.DictReader(io.StringIO(said.out))}
    assert list(rows) == [str(file) for file in sorted(pictures.rglob("*.png"))]
    assert list(next(iter(rows.values()))) == ["file", "class", "probability", "class_2", "probability_2", "error"]
    for file, z in zip(good(pictures), logits_of(run, good(pictures))):
        p = np.exp(z) / np.exp(z).sum()
        order = np.argsort(-p)
        row = rows[str(file)]
        assert [row["class"], row["class_2"]] == [CLASSES[order[0]], CLASSES[order[1]]] and row["error"] == ""
        assert [float(row["probability"]), float(row["probability_2"])] == pytest.approx(p[order[:2]], abs=2e-6)
    broken = rows[str(pictures / CLASSES[0] / "broken.png")]
    assert "broken.png" in broken["error"] and "cannot be decoded" in broken["error"] and broken["class"] == ""
    assert "broken.png" in said.err and "8 of 9 predicted" in said.err and "no calibration" in said.err


def test_names_of_files_that_no_screen_takes(run, pictures, tmp_path, capfd):
    """Linux takes any bytes for a name; the table is written all the same, to the screen as into a file."""
    file = os.fsencode(tmp_path) + b"/owl[a]\xff.png"
    shutil.copy(good(pictures)[0], file)
    for output in ([], ["--output", str(tmp_path / "p.csv")]):
        cli.main(["predict", str(run), os.fsdecode(file), *output, "--use_cpu"])
    said = capfd.readouterr().out
    assert said == (tmp_path / "p.csv").read_text() and "owl[a]\\udcff.png,c" in said


def test_json_into_a_file_and_from_python(run, pictures, tmp_path, capsys):
    file = good(pictures)[0]
    said = ltsam(capsys, run, file, pictures / CLASSES[0], "--output", tmp_path / "p.json")
    assert said.out == "" and "p.json" in said.err
    first, *others = json.loads((tmp_path / "p.json").read_text())
    assert first["file"] == str(file) and first["class"] == first["top"][0]["class"] and len(first["top"]) == 3
    assert len(others) == 3  # the first file of the folder was named before
    predicted = hf_ltsam.predict(run, [file], use_cpu=True, top_k=1)[0]
    assert predicted.classes == (first["class"],) and predicted.prediction_set is None
    assert predicted.probabilities[0] == pytest.approx(first["probability"], abs=1e-6)


def test_views_are_averaged(run, pictures):
    files = good(pictures)
    flipped = hf_ltsam.predict(run, files, use_cpu=True, test_time="flip")
    z = logits_of(run, files, flip=True)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    np.testing.assert_allclose([row.probabilities[0] for row in flipped], p.max(1), rtol=1e-5)


@pytest.mark.parametrize("prior", [None, "balanced", "training", "none"])
def test_probabilities_and_sets_are_those_of_the_calibration(run, pictures, calibrated, prior):
    files = good(pictures)
    predicted, z = hf_ltsam.predict(run, files, use_cpu=True, prior=prior, coverage=0.7), logits_of(run, files)
    raw = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    p = raw if prior == "none" else calibrated.probabilities(z, prior or "balanced")
    np.testing.assert_allclose([sorted(row.probabilities) for row in predicted], np.sort(p, axis=1), rtol=1e-4)
    thresholds = calibrated.thresholds(0.7)
    expected = [tuple(CLASSES[c] for c in range(3) if 1 - row[c] <= thresholds[c]) for row in raw]
    assert [row.prediction_set for row in predicted] == expected and len(set(map(len, expected))) > 1


def test_texts_of_tables_and_of_lines(tmp_path, capsys):
    """As a pipeline sees them; the reserve calibrates a run of texts too."""
    torch.manual_seed(0)
    save_encoder(tmp_path / "bert")
    write_lines(tmp_path / "news", train=texts((12, 8, 6)), test=texts((4, 4, 4), seed=1))
    words = (
        "--use_cpu true --optim adamw_torch --learning_rate 0.02 --max_steps 3 --disable_tqdm true --save_strategy no"
    )
    places = [
        "--dataset",
        str(tmp_path / "news"),
        "--model",
        str(tmp_path / "bert"),
        "--output_dir",
        str(tmp_path / "run"),
    ]
    cli.main(["train", *places, *words.split(), "--reserve", "0.4"])
    rows = texts((2, 2, 2), seed=2)
    lines = [row["text"] for row in rows]
    (tmp_path / "new.csv").write_text("id,review\n" + "".join(f"{k},{line}\n" for k, line in enumerate(lines)))
    (tmp_path / "new.txt").write_text("\n".join(lines))
    capsys.readouterr()
    said = ltsam(capsys, tmp_path / "run", tmp_path / "new.csv", "--text_column", "review", "--prior", "none")
    table = list(csv.DictReader(io.StringIO(said.out)))
    assert [row["file"] for row in table] == [f"{tmp_path / 'new.csv'}:{k + 1}" for k in range(6)]
    classify = pipeline("text-classification", model=str(tmp_path / "run"))
    for row, expected in zip(table, classify(lines)):
        assert row["class"] == expected["label"] and float(row["probability"]) == pytest.approx(
            expected["score"], abs=1e-5
        )
    calibrated = hf_ltsam.predict(tmp_path / "run", [tmp_path / "new.txt"], use_cpu=True)
    assert [row.file for row in calibrated] == [f"{tmp_path / 'new.txt'}:{k + 1}" for k in range(6)]
    assert all(row.prediction_set is not None for row in calibrated)
    for words, message in {
        (tmp_path / "bert" / "model.safetensors",): "from tables or text files",
        (tmp_path / "new.txt", "--test_time", "flip"): "texts, which have no views",
        (tmp_path / "new.csv", "--text_column", "reviews"): "no column 'reviews'",
    }.items():
        with pytest.raises(SystemExit):
            ltsam(capsys, tmp_path / "run", *words)
        assert message in capsys.readouterr().err


def test_text_files_as_editors_save_them(tmp_path):
    """A byte order mark is no word; only ends of lines end a text; another encoding is named with its file."""
    torch.manual_seed(0)
    model = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: c for c, name in enumerate(CLASSES)}}
    save_encoder(tmp_path / "bert")
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "bert", **model)
    classifier.save_pretrained(tmp_path / "bert")
    lines = "ship rose today\ngold fell\u2028price\x0bfell\n"
    (tmp_path / "plain.txt").write_text(lines, encoding="utf-8", newline="")
    (tmp_path / "windows.txt").write_text("\ufeff" + lines, encoding="utf-8", newline="\r\n")
    plain, windows = (
        hf_ltsam.predict(tmp_path / "bert", [tmp_path / f"{name}.txt"], use_cpu=True) for name in ("plain", "windows")
    )
    assert [row.probabilities for row in plain] == [row.probabilities for row in windows] and len(plain) == 2
    (tmp_path / "latin.txt").write_bytes("größe".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.txt is no UTF-8 text"):
        hf_ltsam.predict(tmp_path / "bert", [tmp_path / "latin.txt"], use_cpu=True)


@pytest.mark.parametrize("bits", [16, 32])
def test_deep_images_are_seen_as_in_the_training(tmp_path, bits):
    """The calibration, `ltsam predict` and the pictures of `ltsam mistakes` read 1000 to 2000 as black to white too."""
    numbers = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 3)):
        for c, name in enumerate(CLASSES):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for k in range(count):
                pixels = numbers.integers(1000, 1400, (12, 12)) + 300 * c
                image = Image.fromarray(pixels.astype(np.uint16 if bits == 16 else np.float32))
                image.save(tmp_path / "images" / split / name / f"{k}.tiff")
    words = "--depth 8 --learning_rate 0.05 --max_steps 2 --use_cpu true --save_strategy no --disable_tqdm true"
    words += " --pixel_range 1000 2000 --reserve 0.5"
    cli.main(["train", "--dataset", str(tmp_path / "images"), "--output_dir", str(tmp_path / "run"), *words.split()])
    folder = RunFolder(tmp_path / "run")
    assert folder.calibration.held_out == (3, 3, 3)
    test = sorted((tmp_path / "images" / "test").rglob("*.tiff"))
    predicted = hf_ltsam.predict(folder.path, test, use_cpu=True, prior="none")
    np.testing.assert_allclose([row.probabilities[0] for row in predicted], folder.predictions.confidence, atol=1e-3)
    for mistake in mistakes(folder.path):
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(mistake.picture))), dtype=float)
        stored = np.asarray(Image.open(mistake.file), dtype=float)
        assert shown.mean() == pytest.approx((stored.mean() - 1000) * 255 / 1000, abs=6)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_tables_of_images(run, pictures, tmp_path, capsys, kind):
    """As training reads them: all rows, in their order and as they name images, whatever their column `split` says."""
    files = [good(pictures)[k] for k in (5, 0, 3, 0)]
    rows = [{"note": "x", "path": str(file.relative_to(pictures)), "split": "test"} for file in files]
    rows[1]["split"] = "train"
    table = pictures / f"table.{kind}"
    if kind == "csv":
        table.write_text("note;path;split\n" + "".join(f"{r['note']};{r['path']};{r['split']}\n" for r in rows))
    elif kind == "jsonl":
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        held = [{"image": {"bytes": file.read_bytes(), "path": None}, "split": "test"} for file in files]
        Dataset.from_list(held).to_parquet(table)
    expected = hf_ltsam.predict(run, files, use_cpu=True)
    alike = {row.file: row.probabilities for row in expected}
    try:
        for more in ([], ["--image_column", "image" if kind == "parquet" else "path"]):
            said = list(csv.DictReader(io.StringIO(ltsam(capsys, run, table, *more).out)))
            names = [f"{table}:{k}" for k in (1, 2, 3, 4)] if kind == "parquet" else [row["path"] for row in rows]
            assert [row["file"] for row in said] == names
        predicted = hf_ltsam.predict(run, [table, files[0]], use_cpu=True)
        assert [row.probabilities for row in predicted] == [alike[str(file)] for file in [*files, files[0]]]
    finally:
        table.unlink()


def test_rows_of_tables_that_cannot_be_read(run, pictures, tmp_path, capsys):
    content = [good(pictures)[0].read_bytes(), b"no image", None]
    Dataset.from_dict({"image": [{"bytes": c, "path": None} for c in content]}).to_parquet(tmp_path / "t.parquet")
    first, second, third = hf_ltsam.predict(run, [tmp_path / "t.parquet"], use_cpu=True)
    assert not first.error and "(row 1) cannot be decoded" in second.error and "(row 2) holds no image" in third.error
    (tmp_path / "gone.csv").write_text("path\nnowhere.png\n")
    (tmp_path / "none.csv").write_text("a,b\n1,2\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "new.csv").write_text("path\nnowhere.png\n")
    for words, message in {
        (
            tmp_path / "gone.csv",
        ): "1 of 1 images that the column 'path' names are not there: 'nowhere.png' (row 2 of gone.csv)",
        (tmp_path / "gone.csv", "--image_column", "paht"): "gone.csv has no column 'paht'. Did you mean 'path'",
        (
            tmp_path / "none.csv",
        ): "none.csv has no one column of images, or of paths of images, among a, b: --image_column",
        (tmp_path / "folder",): "Tables are named one by one, as",
    }.items():
        with pytest.raises(SystemExit):
            ltsam(capsys, run, *words)
        assert message in capsys.readouterr().err


def test_the_column_of_the_training_is_taken(run, pictures, calibration, tmp_path):
    """A table with two columns of images: the one that was trained on, where the record says."""
    folder = shutil.copytree(run, tmp_path / "run")
    statistics = ClassStatistics(COUNTS)
    RunFolder(folder).write_record(
        RunRecord(
            0, {"name": "sgd"}, {"name": "cross_entropy"}, statistics.to_dict(), {}, data={"image_column": "side"}
        )
    )
    front, side = good(pictures)[0], good(pictures)[5]
    (tmp_path / "t.csv").write_text(f"front,side\n{front},{side}\n")
    assert [row.file for row in hf_ltsam.predict(folder, [tmp_path / "t.csv"], use_cpu=True)] == [str(side)]
    stated = hf_ltsam.predict(folder, [tmp_path / "t.csv"], use_cpu=True, image_column="front")
    assert [row.file for row in stated] == [str(front)]


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ("multi_label_classification", "several labels of a sample (problem_type 'multi_label_classification'"),
        ("regression", "numbers, not classes (problem_type 'regression'"),
        ("single_label_classification", None),
        (None, None),
    ],
)
@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_models_that_choose_no_class_are_refused(run, pictures, tmp_path, capsys, command, problem, message):
    """The softmax over labels of which a sample may have several, or none, is no probability of any."""
    folder, held_out = tmp_path / "run", tmp_path / "test"
    shutil.copytree(run, folder)
    draw_images(held_out, (2, 2, 2), 12)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "problem_type": problem}))
    words = [folder, held_out] if command == "predict" else ["--model", folder, "--sets", held_out]
    code = 0
    try:
        cli.main([command, *map(str, words), "--use_cpu"])
    except SystemExit as exit_:
        code = exit_.code
    assert code == (2 if message else 0) and (message or "") in capsys.readouterr().err


@pytest.mark.parametrize("names", [("a", "b", "c|d"), ("|a", "b", "c"), ("a", "b", 'c"d'), ("[a]", "b", "c,d")])
def test_sets_in_csv_are_those_of_json(names):
    """A name with the sign that parts names makes lists of JSON."""
    sets = [names, names[1:], names[:1], ()]
    found = [FilePrediction(f"{k}.png", names, (0.5, 0.3, 0.2), of_file) for k, of_file in enumerate(sets)]
    rows = csv.DictReader(io.StringIO(as_csv([*found, FilePrediction("bad.png", error="no image")])))
    parts = json.loads if any("|" in name for name in names) else lambda cell: cell.split("|") if cell else []
    assert [parts(row["set"]) if not row["error"] else row["set"] for row in rows] == [*map(list, sets), ""]


@pytest.mark.parametrize(
    ("tested", "stated", "calibrated", "told"),
    [("flip", "none", False, True), ("flip", "five_crops", False, False), ("flip", "five_crops", True, True),
     ("none", "flip", True, True), ("flip", "flip", True, False)],
)  # fmt: skip
def test_probabilities_are_calibrated_for_the_views_of_the_test(monkeypatch, tested, stated, calibrated, told):
    warnings, chosen = [], Calibration.fit(np.eye(2).repeat(9, 0), [0] * 9 + [1] * 9, [9, 9]) if calibrated else None
    monkeypatch.setattr(checkpoint.logger, "warning", warnings.append)
    loaded = checkpoint.Checkpoint("runs/mine", None, 2, None, None, None, "", chosen, test_time=tested)
    loaded.warn_of_other_views(stated)
    assert [f"add --test_time {tested} for those" in warning for warning in warnings] == [True] * told


@pytest.mark.parametrize("command", ["predict", "evaluate"])
@pytest.mark.parametrize(
    ("tested", "stated", "told"), [("flip", "none", True), ("none", "flip", False), ("flip", "flip", False), (None, "none", False)]
)  # fmt: skip
def test_other_views_than_those_of_the_test_are_told(run, tmp_path, monkeypatch, command, tested, stated, told):
    folder, held_out, warnings = tmp_path / "run", tmp_path / "test", []
    shutil.copytree(run, folder)
    draw_images(held_out, (2, 2, 2), 12)
    data = {} if tested is None else {"test_time": tested}
    RunFolder(folder).write_record(RunRecord(0, {}, {}, {}, {}, data=data))
    monkeypatch.setattr(checkpoint.logger, "warning", warnings.append)
    words = [folder, held_out] if command == "predict" else ["--model", folder, "--sets", held_out]
    cli.main([command, *map(str, words), "--use_cpu", "--test_time", stated])
    assert ["--test_time flip" in warning for warning in warnings] == [True] * told


def test_what_is_refused(run, pictures, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for words, message in {
        (run, pictures / "none.png"): "none.png: there is no such file or folder",
        (run, tmp_path / "empty"): "empty: there are no images in this folder",
        (tmp_path / "empty", pictures): "has no weights",
        (run, pictures, "--prior", "balanced"): "has no calibration. It follows from",
        (run, pictures, "--prior", "uniform"): "--prior uniform",
        (run, pictures, "--coverage", "90"): "--coverage 90 must lie between 0 and 1",
        (run, pictures, "--coverage", "0.8"): "--coverage 0.8: ",
        (run, pictures, "--format", "xml"): "--format xml",
        (run, pictures, "--output", tmp_path / "p.jsonl"): "predictions are written as csv or json, not as jsonl",
        (run, pictures, "--output", tmp_path / "p.xls"): "predictions are written as csv or json, not as xls",
        (run, pictures, "--top_k", "0"): "top_k",
    }.items():
        with pytest.raises(SystemExit) as ended:
            ltsam(capsys, *words)
        said = capsys.readouterr().err
        assert ended.value.code == 2 and message in said, said


def test_a_training_with_a_reserve_is_calibrated_by_it(tmp_path, capsys):
    """The reserve is in no batch; what is chosen follows from the saved weights, and is shown and used."""
    draw_images(tmp_path / "images" / "train", (30, 20, 8), 12)
    draw_images(tmp_path / "images" / "test", (5, 5, 5), 12, seed=1)
    words = "--model cifar_resnet --depth 8 --learning_rate 0.05 --max_steps 6 --use_cpu true --report_to none"
    words += " --save_strategy no --disable_tqdm true --reserve 0.5 --few_below 10"
    cli.main(["train", "--dataset", str(tmp_path / "images"), "--output_dir", str(tmp_path / "run"), *words.split()])
    folder = RunFolder(tmp_path / "run")
    calibration, results = folder.calibration, folder.finished_record().results
    assert calibration.counts == (15, 10, 4) and calibration.held_out == (15, 10, 4)
    test = sorted((tmp_path / "images" / "test").rglob("*.png"))
    predicted = hf_ltsam.predict(tmp_path / "run", test, use_cpu=True)
    right = np.mean([row.classes[0] == file.parent.name for row, file in zip(predicted, test)])
    assert results["balanced_prior"]["overall"] == pytest.approx(right)
    assert results["balanced_prior"]["tau"] == calibration.balanced.tau
    covered = np.mean([file.parent.name in row.prediction_set for row, file in zip(predicted, test)])
    assert results["conformal_sets"]["coverage"] == pytest.approx(covered)
    assert results["conformal_sets"]["pooled"] == 1  # of 4 held-out images no threshold follows
    assert results["conformal_sets"]["size"] == pytest.approx(np.mean([len(row.prediction_set) for row in predicted]))
    export(tmp_path / "run", tmp_path / "plain")
    assert RunFolder(tmp_path / "plain").calibration == calibration
