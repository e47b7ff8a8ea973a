"""Sweeps: a row several times with other values, its folders, its figure, its published curve, and the choice on a reserve."""

import json
import math
import re

import pytest
import yaml
from cli.reproduce.in_process import start_here, train_here
from runs.report.made_runs import metrics, write_run

from hf_ltsam.cli.evaluate import command as evaluate
from hf_ltsam.cli.reproduce import command as reproduce
from hf_ltsam.cli.reproduce import shifted, sweeps
from hf_ltsam.cli.reproduce.runs import RowRun
from hf_ltsam.cli.reproduce.shifted import Evaluation
from hf_ltsam.cli.reproduce.tables import read_table

RECIPE = {
    "builder": "image_folder", "depth": 8, "learning_rate": 0.1, "optim": "sgd", "per_device_train_batch_size": 8, "max_steps": 2,
    "many_above": 10, "few_below": 5, "use_cpu": True, "disable_tqdm": True, "method": "sam", "method_args": {"rho": 0.1},
    "save_strategy": "no",
}  # fmt: skip


@pytest.fixture
def table(images, tmp_path):
    """A sweep of one row and a plain row, in files of their own."""
    folder = tmp_path / "table"
    folder.mkdir()
    (folder / "sharp.yaml").write_text(yaml.safe_dump({**RECIPE, "dataset": str(images)}))
    curve = [{"at": 0.05, "few": 63.0}, {"at": 0.8, "overall": 70.5, "few": 73.0}]
    rows = [{"sharp.yaml": {"sweep": {"rho": [0.05, 0.8]}, "curve": curve}}]
    values = {"title": "A sweep", "source": "Nobody et al. 2020 Figure 4", "rows": rows}
    (folder / "table.yaml").write_text(yaml.safe_dump(values))
    return folder / "table.yaml"


@pytest.fixture
def in_process(monkeypatch):
    """Runs and tests here, one after the other; what has been started, by folder."""
    started = []

    train_here(monkeypatch, started)
    start_here(monkeypatch, started, Evaluation, evaluate.main, lambda test: f"test of {test.run.row.name}")
    monkeypatch.setattr(reproduce, "_report", lambda table, root: "report")  # its ten figures are tested elsewhere
    return started


def changed(path, **values):
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **values}))
    return path


def test_a_sweep_ends_with_table_and_figure_and_repeats_nothing(table, tmp_path, in_process, capsys):
    root = tmp_path / "runs"
    command = [str(table), "--seeds", "2", "--output_dir", str(root)]
    reproduce.main(command)
    folders = [f"sharp/rho={rho}/seed{seed}" for seed in (0, 1) for rho in (0.05, 0.8)]
    assert in_process == folders
    for folder in folders:
        record = json.loads((root / folder / "metrics.json").read_text())
        assert record["method"]["args"]["rho"] == float(re.search(r"rho=([\d.]+)", folder)[1])
    page = (root / "table.md").read_text()
    assert re.search(r"\| `sharp/rho=0.05` \| [\d.]+ ± [\d.]+ \| .*\(63\) \| 2 \|", page)
    assert re.search(r"\| `sharp/rho=0.8` \| [\d.]+ ± [\d.]+ \(70.5\) \| .*\(73\) \| 2 \|", page)
    assert "(sweep.png)" in page and (root / "sweep.png").stat().st_size > 10_000 and (root / "sweep.svg").is_file()
    rows = json.loads((root / "table.json").read_text())["rows"]
    assert [(row["row"], row["value"], row["published"]["few"]) for row in rows] == [
        ("sharp/rho=0.05", {"rho": 0.05}, 63.0), ("sharp/rho=0.8", {"rho": 0.8}, 73.0),
    ]  # fmt: skip

    in_process.clear()
    (root / "sharp/rho=0.8/seed1/metrics.json").unlink()  # killed there
    reproduce.main(command)
    assert in_process == ["sharp/rho=0.8/seed1"]
    in_process.clear()
    reproduce.main(command)
    assert in_process == [] and "0 to go" in capsys.readouterr().out


def test_the_figure_has_the_means_and_the_published_points(table, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(sweeps, "draw", lambda root, name, size, paint, *words: drawn.append((Figure(), paint)))
    read = read_table(str(table))
    groups = {"overall": [50.0], "many": [50.0], "medium": [50.0]}
    reached = {"sharp": [(0.05, {**groups, "few": [10.0, 14.0]}), (0.8, {**groups, "few": []})]}
    sweeps.draw_sweeps(tmp_path, read, reached)
    figure, paint = drawn[0]
    paint(figure)
    few = next(axes for axes in figure.axes if axes.get_ylabel().startswith("few"))
    assert few.get_xlabel() == "rho" and few.get_xscale() == "log"
    (bars,) = few.containers
    assert bars.lines[0].get_xydata().tolist() == [[0.05, 12.0]]
    low, high = bars.lines[2][0].get_segments()[0][:, 1]
    assert math.isclose(high - low, 2 * 2 * math.sqrt(2))  # two sample deviations of 10 and 14
    published = next(line for line in few.lines if line.get_marker() == "x")
    assert published.get_xydata().tolist() == [[0.05, 63.0], [0.8, 73.0]]
    sweeps.draw_sweeps(tmp_path, read, {"sharp": [(0.05, {group: [] for group in groups} | {"few": []})]})
    assert len(drawn) == 1  # nothing has ended, nothing is drawn


def test_values_that_are_no_numbers_stand_side_by_side(table, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(sweeps, "draw", lambda root, name, size, paint, *words: drawn.append(paint))
    read = read_table(
        str(changed(table, rows=[{"sharp.yaml": {"sweep": {"lr_scheduler_type": ["cosine", "linear"]}}}]))
    )
    numbers = {"overall": [50.0], "many": [], "medium": [], "few": []}
    sweeps.draw_sweeps(tmp_path, read, {"sharp": [("cosine", numbers), ("linear", numbers)]})
    figure = Figure()
    drawn[0](figure)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["cosine", "linear"]


@pytest.mark.parametrize(
    "values, shown",
    [
        ([0.05, 0.075, 0.1, 0.125, 0.15], ["0.05", "0.075", "0.1", "0.125", "0.15"]),
        ([0.5, 1.0, 2.0, 3.0, 3.2, 5.0], ["0.5", "1", "2", "3", "5"]),  # 3.2 would touch 3
        ([1e-5, 1e-3, 0.1], ["1e-05", "0.001", "0.1"]),
    ],
)
def test_the_numbers_below_a_figure_are_the_values(table, tmp_path, monkeypatch, values, shown):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(sweeps, "draw", lambda root, name, size, paint, *words: drawn.append((size, paint)))
    read = read_table(str(changed(table, rows=[{"sharp.yaml": {"sweep": {"rho": values}}}])))
    numbers = {group: [50.0 + k] for k, group in enumerate(("overall", "many", "medium", "few"))}
    sweeps.draw_sweeps(tmp_path, read, {"sharp": [(value, numbers) for value in values]})
    size, paint = drawn[0]
    paint(figure := Figure(figsize=size))
    for axes in figure.axes:
        labels = [text.get_text() for text in axes.get_xticklabels()]
        assert labels == shown and axes.get_xticks(minor=True).size == 0
        assert axes.get_xlabel() == "rho"


def test_the_legend_says_what_is_published_and_settings_are_in_words(table, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(sweeps, "draw", lambda root, name, size, paint, *words: drawn.append(paint))
    numbers = {"overall": [50.0], "many": [], "medium": [], "few": []}
    read = read_table(str(table))
    sweeps.draw_sweeps(tmp_path, read, {"sharp": [(0.05, numbers), (0.8, numbers)]})
    drawn[0](figure := Figure())
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["sharp", "published"]
    assert sweeps.setting_in_words("method_args.gamma") == "gamma"
    assert sweeps.setting_in_words("first_stage.scale") == "scale of the first stage"
    row = read_table("zhou2023b_fig1").rows[0]
    assert sweeps.data_of(row) == "cifar10, imbalance ratio 100"


def test_sweeps_of_two_settings_have_axes_of_their_own(table, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(sweeps, "draw", lambda root, name, size, paint, *words: drawn.append(paint))
    (table.parent / "long.yaml").write_text((table.parent / "sharp.yaml").read_text())
    rows = [
        {"sharp.yaml": {"sweep": {"rho": [0.05, 0.8]}}},
        {"long.yaml": {"sweep": {"optim": ["sgd", "adamw_torch"]}}},
    ]
    read, numbers = read_table(str(changed(table, rows=rows))), {"overall": [50.0], "many": [], "medium": [], "few": []}
    reached = {"sharp": [(0.05, numbers), (0.8, numbers)], "long": [("sgd", numbers), ("adamw_torch", numbers)]}
    sweeps.draw_sweeps(tmp_path, read, reached)
    figure = Figure()
    drawn[0](figure)
    radius, optimizer = figure.axes
    assert (radius.get_xlabel(), optimizer.get_xlabel()) == ("rho", "optim")
    assert radius.get_xscale() == "log" and radius.containers[0].lines[0].get_xdata().tolist() == [0.05, 0.8]
    assert [label.get_text() for label in optimizer.get_xticklabels()] == ["sgd", "adamw_torch"]


@pytest.mark.parametrize(
    "row, words",
    [
        ({"sweep": {"rho": [0.1]}}, "it names one setting and two values or more"),
        ({"sweep": {"rho": 0.1}}, "it names one setting and two values or more"),
        ({"sweep": {"rho": [0.1, 0.2], "seed": [1, 2]}}, "it names one setting and two values or more"),
        ({"sweep": {"rho": [0.1, 0.1]}}, "the sweep has the value 0.1 twice"),
        ({"sweep": {"rh": [0.1, 0.2]}}, "sweep of rh: There is no setting 'rh'.*'rho'"),
        ({"sweep": {"rho": [0.1, -0.2]}}, r"sweep of rho: SAM\(rho=...\) must be"),
        ({"sweep": {"num_train_epochs": [1, "many"]}}, "sweep of num_train_epochs: .*'many'"),
        ({"sweep": {"first_stage.rho": [0.1, 0.2]}}, "the row has no first stage"),
        ({"sweep": {"rho": [0.1, 0.10000001]}}, "another value has the folder of"),
        ({"curve": [{"at": 0.1}]}, "should look like {at: 0.05, few: 63.0}"),
        ({"curve": [{"at": 0.1, "tail": 3}]}, "curve at 0.1 has no 'tail'"),
        ({"curve": [{"at": 0.1, "few": 630}]}, "few is 630 %"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_with_its_place(table, row, words):
    with pytest.raises(
        ValueError, match=rf"table\.yaml, row sharp.yaml.*{words}|table\.yaml.*row .*sharp.yaml.*{words}"
    ):
        read_table(str(changed(table, rows=[{"sharp.yaml": row}])))


@pytest.mark.parametrize(
    "values, words",
    [
        ({"choose": {"metric": "tails"}}, r"table\.yaml, choose: metric 'tails' does not exist.*balanced"),
        ({"choose": {"reserve": 3}}, r"table\.yaml, choose: reserve must be a share .*got 3"),
        ({"choose": {"reserved": 0.3}}, r"table\.yaml, choose: there is no 'reserved'.*'reserve'"),
        ({"choose": {}, "rows": ["sharp.yaml"]}, r"table\.yaml, choose: no row has a sweep"),
        (
            {"evaluate": ["imagenet_sketc"]},
            r"^The table has evaluate: imagenet_sketc does not exist.*'imagenet_sketch'",
        ),
    ],
)
def test_what_a_table_cannot_ask_for_is_refused_in_its_words(table, tmp_path, values, words):
    with pytest.raises(ValueError, match=words):
        reproduce.reproduce(str(changed(table, **values)), output_dir=tmp_path / "runs")


def test_a_sweep_of_what_a_second_stage_starts_from(table, tmp_path):
    """Each value has a first stage of its own, which is trained before."""
    folder = table.parent
    (folder / "then.yaml").write_text(
        yaml.safe_dump({"first_stage": str(folder / "sharp.yaml"), "second_stage": "crt"})
    )
    read = read_table(str(changed(table, rows=[{"then.yaml": {"sweep": {"first_stage.rho": [0.05, 0.8]}}}])))
    runs = reproduce._runs(read, 1, [], tmp_path, ())
    assert [(run.program, run.row.name) for run in runs] == [
        ("train", "sharp/rho=0.05"), ("train", "sharp/rho=0.8"),
        ("decouple", "then/first_stage.rho=0.05"), ("decouple", "then/first_stage.rho=0.8"),
    ]  # fmt: skip
    words = runs[3].arguments()
    assert words[words.index("--first_stage") + 1] == str(tmp_path / "sharp/rho=0.8/seed0")
    assert runs[1].row.expanded["method_args"] == {"rho": 0.8}


def test_reserved_training_images_choose_the_value(table, tmp_path, in_process):
    """By the trials of `ltsam tune`: each value once, the test set without a part in it, nothing repeated."""
    root = tmp_path / "runs"
    command = [
        str(changed(table, choose={"metric": "overall", "reserve": 0.4})),
        "--seeds",
        "1",
        "--output_dir",
        str(root),
    ]
    reproduce.main(command)
    choice = json.loads((root / "choice.json").read_text())["sharp"]
    assert [value for value, _ in choice["reached"]] == [0.05, 0.8]
    assert choice["value"] == max(choice["reached"], key=lambda pair: pair[1])[0] and choice["reserve"] == 0.4
    page = (root / "table.md").read_text()
    assert f"Chosen on 40 % of the training samples by overall accuracy: rho {choice['value']} in sharp" in page
    assert (root / "choice" / "sharp" / "best.yaml").is_file()
    trials = json.loads((root / "choice" / "tune.json").read_text())["studies"][0]["trials"]  # with their seconds
    assert len(trials) == 2
    reproduce.main(command)
    assert json.loads((root / "choice" / "tune.json").read_text())["studies"][0]["trials"] == trials


def test_every_sweep_chooses_on_its_own_data_and_those_alone_that_are_run(table, images, tmp_path, monkeypatch):
    import hf_ltsam.cli.tune.command as tuning

    chosen = []
    monkeypatch.setattr(
        tuning, "tune", lambda recipes, search, settings, **_: chosen.append((recipes[0], search, settings["dataset"]))
    )
    monkeypatch.setattr("hf_ltsam.cli.tune.study.Study", lambda folder: type("Study", (), {"best": None}))
    rows = ["cifar10_lt_ir100_la_sam", "cifar100_lt_ir100_la_sam"]
    read = read_table(str(changed(table, rows=rows, sweep={"rho": [0.1, 0.2]}, choose={})))
    words = [f"uoft-cs/{name}={images}/{name}" for name in ("cifar10", "cifar100")]
    for name in ("cifar10", "cifar100"):
        (images / name).mkdir()
    root = tmp_path / "runs"
    root.mkdir()
    (root / sweeps.CHOICE).write_text(json.dumps({"earlier": {"value": 1}}))
    sweeps.choose(read, root, reproduce._runs(read, 1, words, root, ()), 1)
    assert [(search, dataset) for _, search, dataset in chosen] == [
        ({"rho": {"choices": [0.1, 0.2]}}, f"{images}/{name}") for name in ("cifar10", "cifar100")
    ]
    chosen.clear()
    some = read.only(["cifar100_*"])
    sweeps.choose(some, root, reproduce._runs(some, 1, words[1:], root, ()), 1)
    assert ["cifar100" in dataset for *_, dataset in chosen] == [True]
    assert "earlier" in sweeps.read_choice(root)


def test_folders_of_test_sets_without_test_sets_are_refused(table, images, tmp_path):
    """--data_dir where --dataset was meant."""
    with pytest.raises(ValueError, match=r"--data_dir .*tested on no other sets.*--dataset"):
        reproduce.reproduce(str(table), data_dir=[str(images)], output_dir=tmp_path / "runs")


def test_test_sets_of_a_table(table, images, tmp_path, in_process, capsys):
    """Every run that has ended is tested on them, once; those without a copy are named, the others are not held up."""
    root, other = tmp_path / "runs", str(images / "test")
    shifted = {other: {"overall": 36.4, "few": 21.4}, "imagenet_sketch": {"overall": 40.0}}
    rows = [{"sharp.yaml": {"shifted": shifted}}]
    path = changed(table, rows=rows, evaluate=[other, "imagenet_sketch"])
    command = [str(path), "--seeds", "1", "--output_dir", str(root)]
    reproduce.main(command)
    assert in_process == ["sharp/seed0", "test of sharp"]
    page = (root / "table.md").read_text()
    assert "## Other test sets" in page
    assert re.search(r"\| `sharp` \| .*test \| [\d.]+ \(36.4\) \| .*\(21.4\) \| - \|", page)
    assert re.search(r"\| `sharp` \| imagenet.*sketch \| - \(40\) \|", page)
    assert "Not tested on imagenet" in page and "No test on imagenet_sketch" in capsys.readouterr().out
    row = json.loads((root / "table.json").read_text())["rows"][0]
    overall = row["accuracies"]["overall"]
    assert [seed["overall"] for seed in row["shifted"][other]["seeds"]] == overall
    in_process.clear()
    reproduce.main(command)
    assert in_process == []


def test_corruption_errors_stand_beside_the_published_ones():
    from hf_ltsam.cli.reproduce.shifted import shifted_lines

    def of(mce, fog, snow):
        return {
            "overall": None,
            "many": None,
            "medium": None,
            "few": None,
            "mce": mce,
            "ce": {"fog": fog, "snow": snow},
        }

    row = {"row": "a", "shifted": {"imagenet_c": {"published": of(68.3, 59.7, 61.5), "seeds": [of(70.0, 60.0, 62.0)]}}}
    bare = {"row": "b", "shifted": {"imagenet_c": {"published": of(63.6, 52.2, 57.0), "seeds": []}}}
    lines = shifted_lines([row, bare], {"imagenetv2": "no copy"})
    assert "| row | mCE | fog | snow |" in lines
    assert (
        "| `a` | 70.0 (68.3) | 60.0 (59.7) | 62.0 (61.5) |" in lines
        and "| `b` | - (63.6) | - (52.2) | - (57) |" in lines
    )
    assert lines[-1] == "Not tested on imagenetv2: no copy"


# --- the published ones ----------------------------------------------------------------------------------------------

TINY = ["--builder", "image_folder", "--imbalance_ratio", "1", "--depth", "8", "--max_steps", "2", "--save_strategy", "no",
        "--per_device_train_batch_size", "8", "--use_cpu", "true", "--disable_tqdm", "true", "--group_sizes", "1", "1", "1"]  # fmt: skip


def test_a_published_sweep_at_a_tiny_size(images, tmp_path, in_process):
    """The recipe's own loss, method and schedules, on three classes."""
    root = tmp_path / "runs"
    rows = ["--rows", "*rho=0.05", "*rho=0.8"]
    reproduce.main(
        ["rangwani2022_fig4", *rows, "--seeds", "1", "--output_dir", str(root), "--", "--dataset", str(images), *TINY]
    )
    assert in_process == ["cifar10_lt_ir100_ce_drw_sam/rho=0.05/seed0", "cifar10_lt_ir100_ce_drw_sam/rho=0.8/seed0"]
    page = (root / "table.md").read_text()
    assert page.count("(63)") == page.count("(73)") == 1 and "(80.6)" in page and "(sweep.png)" in page
    assert (root / "sweep.png").is_file()


@pytest.mark.parametrize("name", ["li2025_table4", "li2025_table7"])
def test_a_published_table_of_other_test_sets(name, tmp_path, monkeypatch, capsys):
    """On runs that are made up: what is run, and what is shown of it."""
    monkeypatch.setattr(RowRun, "check", lambda run: None)
    monkeypatch.setattr(reproduce, "_report", lambda table, root: "report")
    read, root = read_table(name), tmp_path / "runs"
    for k, row in enumerate((*read.first_stages(), *read.rows)):
        write_run(root / row.name / "seed0", metrics([0.9, 0.8, 0.5, 0.4, 0.1 + k / 1000]))
    reproduce.main([name, "--seeds", "1", "--output_dir", str(root)])
    assert " 0 to go" in capsys.readouterr().out
    page = (root / "table.md").read_text()
    assert "- (62.2)" in page or "- (46.2)" in page
    assert all(
        f"Not tested on {of_set.replace('_', chr(92) + '_')}" in page or f"Not tested on {of_set}" in page
        for of_set in read.evaluate
    )


def test_numbers_of_an_evaluation_are_in_percent_with_its_corruption_errors(tmp_path):
    summary = {
        "errors": {"fog": 0.4},
        "severities": [1],
        "mean_error": 0.4,
        "groups": {"few": 0.25},
        "mce": 70.5,
        "ce": {"fog": 60.0},
    }
    plain = {"overall": 0.5, "balanced": 0.5, "groups": {"many": 0.75}, "samples": 4}
    sets = {"imagenet_c": {"cells": {}, "summary": summary}, "imagenetv2": {"result": plain}, "half": {"cells": {}}}
    results = {"schema_version": 1, "checkpoint": {}, "class_statistics": None, "sets": sets}
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "ood_results.json").write_text(json.dumps(results))
    assert shifted.measured_sets(tmp_path) == {
        "imagenet_c": {"overall": 60.0, "many": None, "medium": None, "few": 25.0, "mce": 70.5, "ce": {"fog": 60.0}},
        "imagenetv2": {"overall": 50.0, "many": 75.0, "medium": None, "few": None, "mce": None, "ce": {}},
    }
