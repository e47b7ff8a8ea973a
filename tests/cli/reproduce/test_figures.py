"""Figures over a training: what a table saves for them, the curvature that is measured, and the picture at the end."""

import json
import math
import re
import statistics
from dataclasses import replace
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import yaml
from cli.reproduce.in_process import start_here, train_here
from cli.reproduce.published_tables import FIGURES, SWEEPS
from cli.reproduce.stored_runs import faults_of, in_place_of_processes, train_once
from PIL import Image

from hf_ltsam.cli.reproduce import command as reproduce
from hf_ltsam.cli.reproduce import runs as table_runs
from hf_ltsam.cli.reproduce import sweeps
from hf_ltsam.cli.reproduce.figures import Analysis, check_figures
from hf_ltsam.cli.reproduce.focal_weights import kernel_density, statistics_of
from hf_ltsam.cli.reproduce.runs import RowRun
from hf_ltsam.cli.reproduce.tables import read_table
from hf_ltsam.cli.sharpness import command as sharpness
from hf_ltsam.runs.escaping import markdown_text
from hf_ltsam.runs.report import bounds, by_group, curvature, log_curves, report, surfaces
from hf_ltsam.runs.report.drawing import legend_above, percent_ticks
from hf_ltsam.runs.report.style import RC

QUICK = {"lanczos_steps": 3, "trace_probes": 1, "max_samples": 3}
RECIPE = {
    "builder": "image_folder", "depth": 8, "learning_rate": 0.1, "optim": "sgd", "per_device_train_batch_size": 12,
    "num_train_epochs": 2, "many_above": 10, "few_below": 5, "use_cpu": True, "disable_tqdm": True, "save_strategy": "epoch",
}  # fmt: skip


@pytest.fixture
def table(images, tmp_path):
    """SGD and SAM, two epochs, with what is evaluated and what is analysed on the way."""
    folder = tmp_path / "table"
    folder.mkdir()
    (folder / "plain.yaml").write_text(yaml.safe_dump({**RECIPE, "dataset": str(images), "method": "sgd"}))
    sam = {**RECIPE, "dataset": str(images), "method": "sam", "method_args": {"rho": 0.1}}
    (folder / "sharp.yaml").write_text(yaml.safe_dump(sam))
    values = {
        "title": "Two methods", "source": "Nobody et al. 2020 Figure 4", "rows": ["plain.yaml", "sharp.yaml"],
        "settings": {"eval_strategy": "epoch"},
        "sharpness": {**QUICK, "classes": [2], "checkpoints": True},
        "figures": ["accuracy_over_training", "curvature_over_training"],
    }  # fmt: skip
    (folder / "table.yaml").write_text(yaml.safe_dump(values))
    return folder / "table.yaml"


@pytest.fixture
def started(monkeypatch):
    """Runs and analyses here, one after the other; what has been started."""
    started = []

    def name(analysis):
        return f"curvature of {analysis.run.row.name}/seed{analysis.run.seed}"

    train_here(monkeypatch, started)
    start_here(monkeypatch, started, Analysis, sharpness.main, name)
    monkeypatch.setattr(sharpness, "save_figures", lambda path: [])  # tested with `ltsam sharpness`
    drawn = (log_curves.accuracy_section, curvature.evolution_section)
    monkeypatch.setattr(report, "SECTIONS", drawn)  # the others are tested elsewhere
    return started


SECTIONS = {
    "accuracy_over_training": log_curves.accuracy_section, "spectra": curvature.spectra_section,
    "eigenvalue_ratios": curvature.spectra_section, "curvature_over_training": curvature.evolution_section,
    "bounds_over_training": bounds.section, "surface_2d": surfaces.section, "accuracy_by_group": by_group.section,
}  # fmt: skip


def changed(path, **values):
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **values}))
    return path


def test_a_table_ends_with_its_figures_and_repeats_nothing(table, tmp_path, started, monkeypatch):
    root = tmp_path / "runs"
    command = [str(table), "--seeds", "2", "--output_dir", str(root)]
    reproduce.main(command)
    assert started == [
        "plain/seed0", "sharp/seed0", "plain/seed1", "sharp/seed1", "curvature of plain/seed0", "curvature of sharp/seed0",
    ]  # fmt: skip
    page = (root / "table.md").read_text()
    drawn = re.findall(r"!\[[^]]+\]\((report/\w+\.png)\)", page)
    assert [name.removeprefix("report/").removesuffix(".png") for name in drawn] == [
        *yaml.safe_load(table.read_text())["figures"]
    ]  # fmt: skip
    for file in drawn:
        assert min(Image.open(root / file).size) > 200
    results = json.loads((root / "sharp/seed0/sharpness/sharpness.json").read_text())
    assert sorted(results["evolution"]) == ["class 2 @ 2", "class 2 @ 4"]
    history = json.loads((root / "sharp/seed1/trainer_state.json").read_text())["log_history"]
    assert [entry["epoch"] for entry in history if "eval_few" in entry] == [1.0, 2.0]

    started.clear()
    monkeypatch.setattr(report, "SECTIONS", ())
    (root / "sharp/seed0/sharpness/sharpness.json").unlink()  # killed there
    reproduce.main(command)
    assert started == ["curvature of sharp/seed0"]


def test_what_could_not_be_drawn_is_named(table, tmp_path, started, monkeypatch, capsys):
    """An analysis that fails leaves the runs, the table and the other figures."""

    class Failed:
        returncode = 1

        def poll(self):
            return 1

    monkeypatch.setattr(Analysis, "start", lambda analysis, threads: Failed())
    monkeypatch.setattr(reproduce, "_report", lambda table, root: "report")
    changed(table, rows=["plain.yaml"], figures=["curvature_over_training"])
    with pytest.raises(SystemExit):
        reproduce.main([str(table), "--seeds", "1", "--output_dir", str(tmp_path / "runs")])
    assert "plain/seed0.sharpness.log" in capsys.readouterr().err
    assert "Not drawn yet: Curvature over the training." in (tmp_path / "runs" / "table.md").read_text()


@pytest.mark.parametrize(
    "values, words",
    [
        ({"figures": ["spectre"]}, "figures: there is no 'spectre'.*'spectra'"),
        ({"sharpness": None}, r"curvature_over_training needs `sharpness: {classes: \[0, 9\], checkpoints: true}`"),
        ({"sharpness": {"checkpoints": True}, "figures": ["spectra"]}, r"spectra needs `sharpness: {classes: \[0, 9\]}`"),
        ({"sharpness": {"surface": "1d"}, "figures": ["surface_2d"]}, r"surface_2d needs `sharpness: .*surface: 2d}`"),
        ({"settings": {}}, "accuracy_over_training needs `settings: {eval_strategy: epoch}`, which plain does not have"),
        ({"settings": {"eval_strategy": "epoch", "save_total_limit": 1}}, "checkpoints needs `settings: {save_total_limit: null}`"),
        ({"sharpness": {"clases": [0]}}, "sharpness: .*--clases.*--classes"),
        ({"sharpness": {"lanczos_steps": 0}}, "sharpness: .*lanczos_steps.*must be"),
        ({"sharpness": {"output": "x"}}, "Leave `output` out"),
        ({"sharpness": ["spectra"]}, "sets sharpness to"),
        ({"figures": "spectra"}, "sets figures to 'spectra'"),
    ],
)  # fmt: skip
def test_a_figure_without_its_numbers_is_refused_before_a_run(table, values, words):
    with pytest.raises(ValueError, match=words):
        check_figures(read_table(str(changed(table, **values))))


# --- the published ones ----------------------------------------------------------------------------------------------

TINY = ["--builder", "image_folder", "--imbalance_ratio", "4", "--depth", "8", "--num_train_epochs", "2", "--use_cpu", "true",
        "--per_device_train_batch_size", "12", "--disable_tqdm", "true", "--save_strategy", "epoch"]  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_a_published_figure_compares_the_rows_of_its_source(name):
    table = read_table(name)
    figure, rows = FIGURES[name]
    check_figures(table)
    assert [*dict.fromkeys(row.recipe for row in table.rows)] == rows and table.figures[0] == figure


def test_the_epochs_of_the_source_are_saved():
    """Rangwani et al. 2022 Sec. 3: epochs 10, 50, 160, 170, 190 and 200 of 200."""
    table = read_table("rangwani2022_fig3")
    epochs = table.sharpness["epochs"]
    assert epochs == [10, 50, 160, 170, 190, 200]
    for row in table.rows:
        settings = row.expanded
        every = settings["save_steps"] * settings["num_train_epochs"]
        assert settings["save_strategy"] == "steps" and settings["save_total_limit"] is None
        assert all(epoch % every == 0 for epoch in epochs)


@pytest.fixture(scope="module")
def stored(pictures, tmp_path_factory):
    return train_once(pictures, tmp_path_factory.mktemp("stored") / "run")


@pytest.fixture
def drawn(monkeypatch):
    """The faults of every picture that is drawn. Its SVG, which comes first and is the same, stays empty."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    faults, pictures = {}, {}

    def savefig(figure, path, **kwargs):
        if path.stem not in pictures:
            canvas = FigureCanvasAgg(figure)
            canvas.draw()  # and laid out, which later calls leave alone
            faults[path.stem] = faults_of(figure)
            pictures[path.stem] = Image.fromarray(np.asarray(canvas.buffer_rgba()))
        if path.suffix == ".svg":
            path.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
        else:
            pictures.pop(path.stem).save(path)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return faults


OF_SWEEPS = {name: ["sweep", [*rows]] for name, rows in SWEEPS.items()}


@pytest.mark.parametrize("name", [*FIGURES, *OF_SWEEPS])
def test_every_published_figure_ends_with_its_picture(name, stored, drawn, tmp_path, monkeypatch):
    """Plan, records, results and drawing are real; runs and analyses are one that was made once."""
    figure, rows = {**OF_SWEEPS, **FIGURES}[name]
    monkeypatch.setattr(report, "SECTIONS", (SECTIONS[figure],) if figure in SECTIONS else ())
    started, root, table = [], tmp_path / "runs", read_table(name)
    in_place_of_processes(monkeypatch, stored, started, RowRun, Analysis)
    monkeypatch.setattr(table_runs, "POLL", 0)
    reproduce.main([name, "--seeds", "1", "--output_dir", str(root)])
    asked = [row.name for row in table.rows] if table.train else []
    first_stages = [row.name for row in table.first_stages()] if table.train else []
    runs = [f"{name}/seed0" for name in sorted((*first_stages, *asked), key=lambda name: "_then_" in name)]
    assert started == runs + [f"curvature of {name}/seed0" for name in asked if table.sharpness]
    assert {row.recipe for row in table.rows} == set(rows)
    page = (root / "table.md").read_text()
    shown = f"{figure}.png" if figure == "sweep" else f"report/{figure}.png"
    assert f"({shown})" in page and "Not drawn" not in page
    assert len(Image.open(root / shown).convert("L").getcolors(256)) > 20
    assert drawn[figure] == []
    assert all(f"`{name}`" in page for name in asked) and markdown_text(table.source) in page
    numbers = {n for points in SWEEPS.get(name, {}).values() for of_point in points.values() for n in of_point if n}
    assert all(f"({number:g})" in page for number in numbers)


def test_words_that_touch_or_are_cut_are_seen():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2, 1))
    axes = figure.subplots()
    axes.set_xticks([0, 0.01, 1], ["one", "two", "three"])
    axes.set_title("far too long to be a title of so small a figure")
    FigureCanvasAgg(figure).draw()
    faults = faults_of(figure)
    assert "touching: 'one' and 'two'" in faults and "touching: 'one' and 'three'" not in faults
    assert any(fault.startswith("cut: 'far too") for fault in faults)


@pytest.mark.parametrize("values", [[0, 0], [100, 100], [0, 60], [98, 100]])
def test_an_axis_of_accuracies_ends_where_they_do(values):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    def impossible():
        return [fault for fault in faults_of(figure) if fault.startswith("an accuracy of")]

    figure = Figure(figsize=(4, 5))
    as_it_is, limited = figure.subplots(2)
    for axes in (as_it_is, limited):
        axes.plot([1, 2], values)
        axes.set_ylim(min(values) - 20, max(values) + 20)
        axes.set_ylabel("test accuracy (%)")
    percent_ticks(limited.yaxis)
    FigureCanvasAgg(figure).draw()
    assert impossible()
    as_it_is.set_ylabel("difference in accuracy")
    assert not impossible()


def test_a_long_legend_takes_nothing_from_the_panels():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    def height(configurations):
        figure = Figure(figsize=(7.6, 3.4), layout="constrained")
        axes = figure.subplots()
        legend_above(figure, [f"{k}, {'a long title ' * 5}" for k in range(configurations)], range(configurations))
        FigureCanvasAgg(figure).draw()
        return axes.get_window_extent().height

    with matplotlib.rc_context(RC):
        assert height(12) > 0.9 * height(2)


def test_entries_of_a_legend_differ_where_their_configurations_do():
    from matplotlib.figure import Figure

    figure = Figure()
    titles = [f"VS + Focal-SAM, {'a long title ' * 3}of cifar{n}, {'and so on ' * 3}" for n in (10, 100)]
    legend_above(figure, titles, range(2))
    first, second = (text.get_text() for text in figure.legends[0].get_texts())
    assert first != second and "cifar10," in first and "cifar100," in second


def test_a_published_figure_at_a_tiny_size(images, tmp_path, started, monkeypatch):
    """The recipes' own losses, methods and schedules, on three classes; every run and analysis is real."""
    name, (figure, rows) = "lyu2025_fig4", FIGURES["lyu2025_fig4"]
    published = read_table(name)
    tiny = replace(published, sharpness={**published.sharpness, **QUICK, "classes": [0, 2]})
    monkeypatch.setattr(report, "SECTIONS", (SECTIONS[figure],))
    monkeypatch.setattr(reproduce, "read_table", lambda name: tiny)
    root = tmp_path / "runs"
    reproduce.main(
        [name, "--rows", rows[0], rows[-1], "--seeds", "1", "--output_dir", str(root), "--", "--dataset", str(images), *TINY,
         "--many_above", "10", "--few_below", "5"]
    )  # fmt: skip
    assert len(started) == 4
    assert f"(report/{figure}.png)" in (root / "table.md").read_text()
    assert min(Image.open(root / f"report/{figure}.png").size) > 200


# --- the weights of Focal-SAM ----------------------------------------------------------------------------------------


def test_a_density_is_the_mean_of_normal_densities():
    """Scott 1992; over all x it is 1."""
    values, x = np.array([0.1, 0.4, 0.45, 0.9]), np.linspace(-3, 4, 20001)
    width = statistics.stdev(values) * 4 ** (-1 / 5)
    naive = [
        sum(math.exp(-(((at - v) / width) ** 2) / 2) / (width * math.sqrt(2 * math.pi)) for v in values) / 4
        for at in (0.1, 0.5)
    ]
    density = kernel_density(values, x)
    assert np.interp([0.1, 0.5], x, density) == pytest.approx(naive, rel=1e-4)
    assert np.trapezoid(density, x) == pytest.approx(1)
    assert np.isfinite(kernel_density(np.full(3, 0.5), x)).all()


def test_the_class_sizes_of_a_row_need_no_image():
    """Li et al. 2025 App. C.1: classes and training images."""
    rows = {row.recipe.partition("_la_")[0]: row for row in read_table("li2025_fig3").rows}
    sizes = {name: (s.num_classes, sum(s.counts)) for name, row in rows.items() for s in [statistics_of(row)]}
    assert sizes == {
        "cifar10_lt_ir100": (10, 12406), "cifar100_lt_ir100": (100, 10847), "imagenet_lt": (1000, 115846),
        "inaturalist2018": (8142, 437513),
    }  # fmt: skip


@pytest.mark.parametrize(
    "values, words",
    [
        ({"figures": ["lam_min_by_value"], "sharpness": {"classes": [0]}}, "lam_min_by_value needs rows with a sweep"),
        ({"train": False}, "accuracy_over_training needs trained rows. Leave `train: false` out"),
        ({"train": "no"}, "sets train to 'no'; it must be true or false"),
    ],
)
def test_a_figure_of_a_sweep_is_refused_without_one(table, values, words):
    with pytest.raises(ValueError, match=words):
        check_figures(read_table(str(changed(table, **values))))


def test_lam_min_stands_against_the_values(tmp_path, monkeypatch):
    """Rangwani et al. 2022 Fig. 3C: a curve for each class."""
    from matplotlib.figure import Figure

    painted = []
    monkeypatch.setattr(sweeps, "draw", lambda folder, name, size, paint, *words: painted.append((name, paint)))
    spectrum = {low: SimpleNamespace(lam_min=low) for low in (-8.0, -3.0, -1.0, -0.5)}
    curvatures = [
        SimpleNamespace(
            labels={"class 0": "cat", "class 8": "owl"}, spectra={"class 0": spectrum[a], "class 8": spectrum[b]}
        )
        for a, b in ((-1.0, -8.0), (-0.5, -3.0))
    ]
    table, row = read_table("rangwani2022_fig3c"), "cifar10_lt_ir100_ce_drw_sam"
    sweeps.draw_extremes(tmp_path, table, {row: []})
    assert painted == []
    sweeps.draw_extremes(tmp_path, table, {row: [(0.05, curvatures[0]), (0.8, curvatures[1])]})
    (name, paint), figure = painted[0], Figure()
    paint(figure)
    assert name == "lam_min_by_value"
    curves = [line.get_xydata().tolist() for line in figure.axes[0].lines if line.get_marker() != "None"]
    assert curves == [[[0.05, -1.0], [0.8, -0.5]], [[0.05, -8.0], [0.8, -3.0]]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["cat", "owl"]
    assert figure.axes[0].get_xlabel() == "rho"
