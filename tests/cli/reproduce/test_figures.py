"""Figures over a training: what a table saves for them, the curvature that is measured, and the picture at the end."""

import json
import re
from dataclasses import replace

import pytest
import yaml
from cli.reproduce.in_process import start_here, train_here
from cli.reproduce.published_tables import FIGURES
from PIL import Image

from hf_ltsam.cli.reproduce import command as reproduce
from hf_ltsam.cli.reproduce.figures import Analysis, check_figures
from hf_ltsam.cli.reproduce.tables import read_table
from hf_ltsam.cli.sharpness import command as sharpness
from hf_ltsam.runs.report import bounds, curvature, log_curves, report, surfaces

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
    "bounds_over_training": bounds.section, "surface_2d": surfaces.section,
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
    assert [row.recipe for row in table.rows] == rows and table.figures[0] == figure


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


@pytest.mark.parametrize("name", ["lyu2025_fig3", "rangwani2022_fig3", "lyu2025_fig4", "li2025_fig7", "zhou2023b_fig3"])
def test_a_published_figure_at_a_tiny_size(name, images, tmp_path, started, monkeypatch):
    """The recipes' own losses, methods and schedules, on three classes."""
    published, (figure, rows) = read_table(name), FIGURES[name]
    asked = {**published.sharpness, **QUICK} if published.sharpness else {}
    asked |= {"classes": [0, 2]} if "classes" in asked else {}
    asked |= {"points": 2} if "surface" in asked else {}
    tiny = replace(published, sharpness=asked)
    monkeypatch.setattr(report, "SECTIONS", (SECTIONS[figure],))
    monkeypatch.setattr(reproduce, "read_table", lambda name: tiny)
    root = tmp_path / "runs"
    sizes = [] if "lyu2025" in name or "li2025" in name or "zhou" in name else ["--group_sizes", "1", "1", "1"]
    reproduce.main(
        [name, "--rows", rows[0], rows[-1], "--seeds", "1", "--output_dir", str(root), "--", "--dataset", str(images), *TINY, *sizes,
         "--many_above", "10", "--few_below", "5"]
    )  # fmt: skip
    assert len(started) == len({rows[0], rows[-1]}) * (2 if asked else 1)
    assert f"(report/{figure}.png)" in (root / "table.md").read_text()
    assert min(Image.open(root / f"report/{figure}.png").size) > 200
