"""`ltsam sharpness` on a small run: what is written, that it resumes, and what it refuses."""

import dataclasses
import json
import math
import shlex
import shutil
import warnings
from contextlib import nullcontext

import numpy as np
import peft
import pytest
import torch
import yaml
from cli.picture_folders import draw_images
from transformers import AutoModelForImageClassification, ViTConfig, ViTForImageClassification, ViTImageProcessor

from hf_ltsam.cli.sharpness import command as analyze_sharpness
from hf_ltsam.cli.sharpness.analysis import Request, analyse
from hf_ltsam.cli.sharpness.options import command_of, parse_options
from hf_ltsam.cli.train import train
from hf_ltsam.cli.train.saved_run import open_run
from hf_ltsam.curvature import CurvatureSettings, Hessian, check_memory
from hf_ltsam.losses import make_loss
from hf_ltsam.runs.sharpness.parts import Parts

QUICK = ["--lanczos_steps", "4", "--trace_probes", "2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two epochs on 12, 6 and 3 images, with a checkpoint of each."""
    root = tmp_path_factory.mktemp("sharpness")
    draw_images(root / "images" / "train", (12, 6, 3), 12)
    draw_images(root / "images" / "test", (2, 2, 2), 12, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train.main(
            [
                "--dataset",
                str(root / "images"),
                "--output_dir",
                str(root / "run"),
                "--use_cpu",
                "true",
                "--loss",
                "cross_entropy",
                "--depth",
                "8",
                "--learning_rate",
                "0.05",
                "--per_device_train_batch_size",
                "7",
                "--num_train_epochs",
                "2",
                "--save_strategy",
                "epoch",
                "--tail_threshold",
                "6",
                "--many_above",
                "10",
                "--few_below",
                "4",
                "--disable_tqdm",
                "true",
                "--logging_strategy",
                "no",
            ]
        )
    return root / "run"


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def analyze(run, *words):
    analyze_sharpness.main([str(run), *map(str, words)])
    out = run / "sharpness"
    return json.loads((out / "sharpness.json").read_text())


def refused(capsys, *words):
    with pytest.raises(SystemExit) as exit_:
        analyze_sharpness.main(list(map(str, words)))
    assert exit_.value.code == 2
    _, error, message = capsys.readouterr().err.partition("error: ")  # progress bars come before
    assert error and "Traceback" not in message
    return message


def replace_in(file, before, after):
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


def evaluated(folder):
    """Model and training images as a test reads them: mean and deviation per channel, nothing random."""
    saved = open_run(folder)
    pixels = (
        torch.stack([torch.from_numpy(np.array(row["image"])) for row in saved.splits.train]).permute(0, 3, 1, 2) / 255
    )
    mean, std = (
        f(pixels.double().transpose(0, 1).flatten(1)) for f in (lambda x: x.mean(1), lambda x: x.std(1, correction=0))
    )
    normal = ((pixels.double() - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)).float()
    return AutoModelForImageClassification.from_pretrained(folder).eval(), normal, saved.splits.train_labels


# --- what is written -------------------------------------------------------------------------------------------------


def test_spectra_of_classes_and_groups(run, capsys):
    results = analyze(run, "--classes", "owl", "0", "--groups", "all", "tail", *QUICK)
    assert set(results["spectra"]) == {"class 2", "class 0", "all", "tail"}
    model, x, y = evaluated(run)
    with torch.no_grad():
        losses = torch.nn.functional.cross_entropy(model(x).logits, y, reduction="none")
    for name, classes in (("class 2", [2]), ("class 0", [0]), ("all", [0, 1, 2]), ("tail", [1, 2])):
        record, rows = results["spectra"][name], torch.isin(y, torch.tensor(classes))
        assert record["samples"] == int(rows.sum()) and record["classes"] == classes
        assert record["loss"] == pytest.approx(float(losses[rows].mean()), rel=1e-4)
        low, high = record["lam_min"]["value"], record["lam_max"]["value"]
        assert record["ratios"] == {"abs_min_over_max": abs(low / high), "abs_max_over_min": abs(high / low)}
        assert len(record["density"]["nodes"]) == len(record["density"]["weights"]) == 4
        assert np.trapezoid(record["density"]["values"], record["density"]["grid"]) == pytest.approx(1, abs=1e-3)
        assert [m["order"] for m in record["moments"]] == [1, 2, 3, 4]
        assert all(m["standard_error"] > 0 for m in record["moments"])
    assert results["loss"] == {"name": "cross_entropy", "args": {}} and results["class_names"] == ["cat", "dog", "owl"]
    assert results["samples"]["rule"] == "all training images" and results["class_statistics"]["counts"] == [12, 6, 3]
    assert (run / "sharpness" / "spectra.png").stat().st_size > 10_000
    out = capsys.readouterr().out
    assert "lam_min" in out and "sharpness.json" in out


def test_the_hessian_is_that_of_the_class(run):
    """The largest eigenvalue by power iteration on finite differences of the gradient."""
    record = analyze(run, "--classes", "0", "--lanczos_steps", "25", "--trace_probes", "1")["spectra"]["class 0"]
    model, x, y = evaluated(run)
    model, x, y = model.double(), x[y == 0].double(), y[y == 0]
    parameters = list(model.parameters())
    start = torch.nn.utils.parameters_to_vector(parameters).detach()

    def gradient(at):
        torch.nn.utils.vector_to_parameters(at, parameters)
        loss = torch.nn.functional.cross_entropy(model(x).logits, y)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])

    v = torch.randn(len(start), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for _ in range(25):
        v /= v.norm()
        product = (
            gradient(start + 1e-7 * v) - gradient(start - 1e-7 * v)
        ) / 2e-7  # so short that no ReLU turns between
        v, found = product, float(product @ v)
    assert record["lam_max"]["value"] == pytest.approx(found, rel=0.01)
    assert record["lam_min"]["value"] < record["lam_max"]["value"]


def test_without_a_choice_the_largest_and_the_smallest_class(run):
    results = analyze(run, "--max_samples", "2", *QUICK)
    assert set(results["spectra"]) == {"class 0", "class 2"}
    assert results["samples"]["max_samples"] == 2 and "at most 2" in results["samples"]["rule"]
    rows = results["samples"]["rows"]
    labels = open_run(run).splits.train_labels
    assert set(rows) == {"0", "2"} and all(len(r) == 2 and set(labels[r].tolist()) == {int(c)} for c, r in rows.items())


def test_another_loss(run):
    plain = analyze(run, "--classes", "2", *QUICK)["spectra"]["class 2"]["loss"]
    shutil.rmtree(run / "sharpness")
    results = analyze(run, "--classes", "2", "--loss", "logit_adjustment", "--loss_args", '{"tau": 2}', *QUICK)
    assert results["loss"] == {"name": "logit_adjustment", "args": {"tau": 2}}
    assert results["spectra"]["class 2"]["loss"] > 3 * plain  # a margin of 2 log(12/3)


def test_values_in_python_give_the_numbers_of_the_command_line(run, tmp_path):
    words = ["--groups", "few", "--loss", "focal", "--suggest_rho", "--spectrum", "--surface", "1d", "--points", "3"]
    expected = analyze(run, *words, "--rhos", "0.1", "1", "--seed", "3", "--max_samples", "2", *QUICK)
    settings = CurvatureSettings(4, 1, 2, (0.1, 1.0), points=3, max_samples=2, seed=3)
    request = Request(run, make_loss("focal"), groups=("few",), suggest_rho=True, surface="1d", settings=settings)
    path = analyse(dataclasses.replace(request, output=tmp_path / "out"), progress=False)
    found = json.loads(path.read_text())
    assert found.pop("command") == "" and expected.pop("command").startswith("ltsam sharpness")
    assert found == expected and {"spectra", "sharpness", "surface"} <= set(found)


@pytest.mark.parametrize(
    "words",
    [
        "runs/x",
        "runs/x --classes 0 owl --groups few --max_samples 3 --seed 2 --output out --dataset data",
        "runs/x --suggest_rho --spectrum --rhos 0.1 1.0 --loss logit_adjustment --loss_args '{\"tau\": 2.0}'",
        "runs/x --use_cpu --max_samples 2",
        "runs/x --checkpoints --surface 2d --points 9 --span 0 2 --towards runs/y --batch_size 8",
    ],
)
def test_a_request_states_the_command_that_repeats_it(words):
    request = parse_options(shlex.split(words))
    assert parse_options(shlex.split(command_of(request))[2:]) == request
    assert len(command_of(request)) <= len(f"ltsam sharpness {words}") + 4  # 0 is 0.0


def test_spectra_are_computed_unless_something_else_is_asked_for():
    assert parse_options(["x"]).spectra and parse_options(["x", "--surface", "1d", "--spectrum"]).spectra
    for other in (["--suggest_rho"], ["--checkpoints"], ["--surface", "1d"]):
        assert not parse_options(["x", *other]).spectra


def test_settings_out_of_their_range_are_refused():
    for wrong in ({"probes": 0}, {"points": 1.5}, {"rhos": (0.1, -1.0)}, {"span": (1.0, 0.0)}, {"batch_size": 0}):
        with pytest.raises(ValueError, match=rf"CurvatureSettings\({next(iter(wrong))}=\.\.\.\) must"):
            CurvatureSettings(**wrong)


def test_evolution_over_checkpoints(run):
    results = analyze(run, "--checkpoints", "--classes", "2", "0", *QUICK)
    assert "spectra" not in results
    points = [p for p in results["evolution"].values() if p["subset"] == "class 2"]
    assert sorted((p["step"], p["epoch"]) for p in points) == [(3, 1.0), (6, 2.0)]
    first = next(p for p in points if p["step"] == 3)
    own = analyze(run / "checkpoint-3", "--classes", "2", *QUICK)["spectra"]["class 2"]
    assert first["lam_min"] == own["lam_min"] and first["ratios"] == own["ratios"]
    assert (run / "sharpness" / "evolution.png").is_file()


def test_evolution_at_the_checkpoints_nearest_to_epochs(run):
    results = analyze(run, "--checkpoints", "--epochs", "1.8", "50", "--classes", "0", *QUICK)
    ((name, point),) = results["evolution"].items()
    assert name == "class 0 @ 6" and point["epoch"] == 2.0


def test_checkpoints_have_what_bounds_are_made_of(run):
    results = analyze(run, "--checkpoints", "--epochs", "2", "--groups", "all", "--max_samples", "4", *QUICK)
    (point,) = results["evolution"].values()
    model = open_run(run).model()
    weights = [p.detach().double().flatten() for p in model.parameters()]
    assert point["weight_norm"] == pytest.approx(float(torch.cat(weights).norm()), rel=1e-12)
    assert (point["trainable_parameters"], point["training_samples"]) == (sum(map(len, weights)), 21)
    spectrum = analyze(run, "--groups", "all", "--max_samples", "4", *QUICK)["spectra"]["all"]
    assert point["gradient_norm"] == spectrum["gradient_norm"] > 0 and point["loss"] == spectrum["loss"]


def test_the_suggestion_of_rho(run, capsys):
    results = analyze(run, "--suggest-rho", "--rhos", "0.01", "0.1", "1")
    record = results["sharpness"]["all"]
    assert record["rhos"] == [0.01, 0.1, 1.0] and len(record["gap"]) == 3
    assert len(record["classes"]["gap"]) == 3 and len(record["classes"]["gap"][0]) == 3
    shares = np.array([12, 6, 3]) / 21
    np.testing.assert_allclose(np.array(record["classes"]["gap"]).T @ shares, record["gap"], rtol=1e-6)
    assert record["loss_without_information"] == pytest.approx(math.log(3)) and record["settings"]["mini_batch"] == 7
    assert "rho to try" in capsys.readouterr().out and (run / "sharpness" / "rho.png").is_file()


def test_surfaces(run):
    results = analyze(run, "--surface", "1d", "--points", "3", "--groups", "few", "all")
    analyze(run, "--surface", "2d", "--points", "3", "--groups", "few")
    results = analyze(
        run,
        "--surface",
        "1d",
        "--points",
        "3",
        "--groups",
        "all",
        "--span",
        "0",
        "2",
        "--towards",
        run / "checkpoint-3",
    )
    assert set(results["surface"]) == {"1d", "2d", "1d towards"}
    line, plane, way = (results["surface"][name] for name in ("1d", "2d", "1d towards"))
    assert line["coordinates"] == [[-1, 0, 1]] and np.array(plane["loss"]["few"]).shape == (3, 3)
    np.testing.assert_allclose(np.array(plane["loss"]["few"])[:, 1], line["loss"]["few"], rtol=1e-5)
    model, x, y = evaluated(run / "checkpoint-3")
    with torch.no_grad():
        there = float(torch.nn.functional.cross_entropy(model(x).logits, y))
    assert way["coordinates"] == [[0, 1, 2]] and way["loss"]["all"][1] == pytest.approx(there, rel=1e-3)
    assert way["loss"]["all"][0] == pytest.approx(line["loss"]["all"][1], rel=1e-5)
    assert {f.name for f in (run / "sharpness").glob("*.png")} == {
        "surface_1d.png",
        "surface_2d.png",
        "surface_1d_towards.png",
    }


def test_of_adapters_the_adapter_parameters_alone(trained, tmp_path):
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        image_size=8,
        patch_size=4,
        id2label=dict(enumerate(("cat", "dog", "owl"))),
    )
    ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(tmp_path / "vit")
    base = AutoModelForImageClassification.from_pretrained(tmp_path / "vit")
    lora = peft.LoraConfig(r=2, target_modules="all-linear", modules_to_save=["classifier"], init_lora_weights=False)
    adapted = peft.get_peft_model(base, lora)
    adapted.save_pretrained(tmp_path / "run")
    base.config.save_pretrained(tmp_path / "run")
    recipe = {"model": str(tmp_path / "vit"), "dataset": str(trained.parent / "images"), "use_cpu": True}
    (tmp_path / "run" / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    results = analyze(tmp_path / "run", "--classes", "2", *QUICK)
    assert results["trainable_parameters"] == sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert results["trainable_parameters"] < sum(p.numel() for p in base.parameters()) / 2
    images = open_run(tmp_path / "run").training_data(adapted).plain_train
    x = torch.stack([images[row]["pixel_values"] for row in (18, 19, 20)])  # the three owls
    with torch.no_grad():
        z = adapted.eval()(x).logits
    assert results["spectra"]["class 2"]["loss"] == pytest.approx(float(-z.log_softmax(1)[:, 2].mean()), rel=1e-4)


# --- killed and resumed ----------------------------------------------------------------------------------------------


def test_killed_and_resumed_gives_the_same_numbers(run, monkeypatch, capsys):
    words = ["--classes", "0", "1", "2", *QUICK]
    whole = analyze(run, *words)
    shutil.rmtree(run / "sharpness")
    products, product = [], Hessian.__call__

    def killed_at_15(self, vector):
        products.append(self)
        if len(products) == 15:
            raise KeyboardInterrupt
        return product(self, vector)

    monkeypatch.setattr(Hessian, "__call__", killed_at_15)
    with pytest.raises(SystemExit) as exit_:
        analyze(run, *words)
    assert exit_.value.code == 130 and "goes on" in capsys.readouterr().err
    assert not (run / "sharpness" / "sharpness.json").exists()
    resumed = analyze(run, *words)
    assert len(products) == 15 + 6  # two classes of 6 products were finished; the third starts anew
    assert resumed == whole


def test_other_settings_are_computed_again_and_other_quantities_are_kept(run):
    analyze(run, "--classes", "2", *QUICK)
    results = analyze(run, "--classes", "2", "--lanczos_steps", "5", "--trace_probes", "2")
    assert len(results["spectra"]["class 2"]["density"]["nodes"]) == 5
    results = analyze(run, "--surface", "1d", "--points", "2", "--classes", "2")
    assert len(results["spectra"]["class 2"]["density"]["nodes"]) == 5 and "1d" in results["surface"]


def test_results_of_something_else_are_not_mixed(run, capsys):
    analyze(run, "--classes", "2", *QUICK)
    message = refused(capsys, run, "--classes", "2", "--max_samples", "1", *QUICK)
    assert "max_samples: null there, 1 now" in message and "--output" in message
    message = refused(capsys, run / "checkpoint-3", "--classes", "2", "--output", run / "sharpness", *QUICK)
    assert "weights_sha256" in message


@pytest.mark.parametrize(
    "words", [QUICK, ["--surface", "1d", "--points", "2"], ["--checkpoints", "--lanczos_steps", "2"]]
)
def test_results_of_other_groups_are_not_mixed(run, capsys, words):
    """A run may be tested again with other bounds, and its weights stay."""
    analyze(run, "--groups", "few", "all", *words)
    replace_in(run / "class_statistics.json", '"few_below": 4', '"few_below": 7')
    results = run / "sharpness" / "sharpness.json"
    for change in (
        lambda: None,
        lambda: results.write_text("{"),
        results.unlink,
    ):  # whole, damaged, interrupted before it
        change()
        for group in ("few", "all"):  # the results of both come into one file
            message = refused(capsys, run, "--groups", group, *words)
            assert "other classes now (few)" in message and "--output" in message and "remove" in message
    analyze_sharpness.main([str(run), "--groups", "few", *words, "--output", str(run / "other")])
    replace_in(run / "class_statistics.json", '"few_below": 7', '"few_below": 5')  # the same classes
    analyze(run, "--groups", "few", *words)


MEASURED = {  # a part, and whether it is refused where the only group is few, of the classes 1 and 2
    "the same": ("spectra/few", {"classes": [1, 2]}, False),
    "others": ("spectra/few", {"classes": [2]}, True),
    "others at a checkpoint": ("evolution/few @ 3", {"classes": [2]}, True),
    "a group that there is no more": ("spectra/tail", {"classes": [2]}, True),
    "a class": ("spectra/class 0", {"classes": [0]}, False),
    "a surface of the same": ("surface/1d", {"classes": {"few": [1, 2], "class 0": [0]}}, False),
    "a surface of others": ("surface/1d", {"classes": {"few": [2], "class 0": [0]}}, True),
    "an older surface, which does not say them": ("surface/1d", {"loss": {"few": [1.0]}}, False),
    "radii": ("sharpness/all", {"classes": {"loss": [1.0], "gap": [[1.0]]}}, False),
}


@pytest.mark.parametrize(("name", "values", "is_refused"), MEASURED.values(), ids=MEASURED)
def test_parts_of_other_groups(tmp_path, name, values, is_refused):
    Parts(tmp_path, {}, {}).make(name, {}, lambda: values)
    with pytest.raises(ValueError, match="other classes now") if is_refused else nullcontext():
        assert Parts(tmp_path, {}, {"few": (1, 2)}).is_done(name, {})


def test_a_damaged_part_is_named(run, capsys):
    analyze(run, "--classes", "2", *QUICK)
    part = run / "sharpness" / "parts" / "spectra.class_2.json"
    part.write_text(part.read_text()[:100])
    assert str(part) in refused(capsys, run, "--classes", "2", *QUICK)


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, said",
    [
        (["--lanczos_step", "5"], ["--lanczos_step", "Did you mean --lanczos_steps"]),
        (["--classes", "3"], ["Class 3", "0 to 2"]),
        (["--classes", "owll"], ["'owll'", "'owl'"]),
        (["--groups", "mny"], ["'mny'", "'many'"]),
        (["--loss", "cross_entrpy"], ["'cross_entrpy'", "'cross_entropy'"]),
        (["--loss", "ldam"], ["cosine"]),
        (["--loss", "influence_balanced"], ["--loss influence_balanced", "take cross_entropy"]),
        (["--loss_args", "{tau: 2}"], ["--loss_args {tau: 2}", "JSON"]),
        (["--lanczos_steps", "0"], ["--lanczos_steps must be a whole number of at least 1, got 0"]),
        (["--max_samples", "-1"], ["--max_samples must be", "-1"]),
        (["--rhos", "0"], ["--rhos must be positive"]),
        (["--surface", "3d"], ["--surface", "3d"]),
        (["--towards", "x"], ["--towards", "--surface"]),
        (["--epochs", "1"], ["--epochs", "add --checkpoints"]),
        (["--checkpoints", "--epochs", "-1"], ["--epochs must be", "-1"]),
        (["--surface", "1d", "--towards", "/nowhere/at/all"], ["/nowhere/at/all", "no such folder"]),
        (["--surface", "1d", "--span", "1", "1"], ["--span", "1 to 1"]),
        (["--lanczos_steps", "1000000000"], ["1000000000", "GiB", "fewer"]),
    ],
)
def test_wrong_options(trained, words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(Hessian, "__call__", lambda *_: pytest.fail("time was spent"))
    message = refused(capsys, trained, *words, "--output", tmp_path / "out")
    assert all(part in message for part in said), message


def test_folders_that_are_none(trained, tmp_path, capsys):
    assert f"{tmp_path / 'no'}: there is no such folder" in refused(capsys, tmp_path / "no")
    assert "has no recipe.yaml" in refused(capsys, tmp_path)
    (tmp_path / "recipe.yaml").write_text((trained / "recipe.yaml").read_text())
    assert "has no weights" in refused(capsys, tmp_path)


def test_a_run_without_checkpoints(run, capsys):
    for folder in run.glob("checkpoint-*"):
        shutil.rmtree(folder)
    assert "--save_strategy epoch" in refused(capsys, run, "--checkpoints")


def test_data_that_moved_or_changed(run, trained, tmp_path, capsys):
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(str(trained.parent / "images"), str(tmp_path / "gone")))
    assert "--dataset PATH" in refused(capsys, run)
    images = tmp_path / "images"
    shutil.copytree(trained.parent / "images", images)
    assert analyze(run, "--dataset", images, "--classes", "2", *QUICK)["spectra"]
    next((images / "train" / "cat").iterdir()).unlink()
    message = refused(capsys, run, "--dataset", images, "--output", tmp_path / "out")
    assert "12, 6, 3" in message and "11, 6, 3" in message


def test_memory_is_checked_on_the_device(trained):
    model = AutoModelForImageClassification.from_pretrained(trained)
    check_memory(model, 10)
    with pytest.raises(ValueError, match="GiB"):
        check_memory(model, 10**9)
