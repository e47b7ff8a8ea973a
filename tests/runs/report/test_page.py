"""The page: its numbers are those of the JSON, it can be read by a screen reader, and it needs nothing else."""

import math
import re
import shutil
import time
import warnings
from itertools import product

import numpy as np
import pytest
from PIL import Image
from runs.report.html_page import Page
from runs.report.made_runs import (
    GROUPS,
    NORMS,
    complete_run,
    history,
    metrics,
    predictions,
    sharpness,
    shifted,
    statistics,
    write,
    write_run,
)
from runs.report.made_runs import test_result as result_of
from time_limits import PATIENCE

from hf_ltsam.cli import main as cli
from hf_ltsam.runs.card import model_card, read_facts
from hf_ltsam.runs.folder import find_runs
from hf_ltsam.runs.report import bounds
from hf_ltsam.runs.report.by_group import group_bounds
from hf_ltsam.runs.report.by_group import table as group_table
from hf_ltsam.runs.report.comparison.differences import compare
from hf_ltsam.runs.report.comparison.differences import section as comparison_section
from hf_ltsam.runs.report.configurations import configurations
from hf_ltsam.runs.report.reading import read_run
from hf_ltsam.runs.report.report import write_report

LABELS = np.repeat(range(5), 10)
EVIL = "<script>alert(1)</script>&\"'"


def right(*per_class):
    """Ten images of each class, the first ones recognized."""
    return np.concatenate([np.arange(10) < round(10 * share) for share in per_class])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two seeds of SGD and of Focal-SAM, with everything, in a folder."""
    root = tmp_path_factory.mktemp("runs")
    for seed, few in enumerate([0.2, 0.4]):
        first, second = (1.0, 0.9, 0.7, few, 0.1), (0.9, 0.9, 0.8, few + 0.3, 0.6)
        complete_run(root / f"sgd{seed}", seed, first, right(*first), LABELS)
        complete_run(
            root / f"focal{seed}", seed, second, right(*second), LABELS, method="focal_sam", seconds=150.0 + seed
        )
    cli.main(["report", str(root / "sgd0"), str(root / "sgd1"), str(root / "focal0"), str(root / "focal1"), "--output",
              str(root / "report")])  # fmt: skip
    return root / "report"


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "report.html").read_text())


# ---- the numbers ----


@pytest.mark.parametrize("lacking", [(), (2,), (0, 1, 2, 3)])
def test_classes_without_a_test_image_are_told_and_warn_of_nothing(tmp_path, lacking):
    shares, rows = (1.0, 0.9, 0.7, 0.4, 0.1), ~np.isin(LABELS, lacking)
    own = metrics(shares)
    own["results"]["test"]["per_class"] = [None if c in lacking else share for c, share in enumerate(shares)]
    run = write_run(tmp_path / "run", own, predictions=predictions(right(*shares)[rows], LABELS[rows]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        cli.main(["report", str(run), "--output", str(tmp_path / "report")])
    section = Page((tmp_path / "report" / "report.html").read_text()).section("Accuracy by group")
    assert ("no test image" in section) == bool(lacking)
    assert (f"{len(lacking)} of the 5 classes" in section) == bool(lacking)
    assert ("no test image" in model_card(read_facts(run), "me/x").text) == bool(lacking)


def test_accuracy_by_group(page):
    header, sgd, focal = page.table("Test accuracy and expected")
    assert header == ["configuration", "seeds", "overall", "all classes", "many", "medium", "few", "ECE"]
    # overall of the seeds: 0.58 and 0.62; few: 0.15 and 0.25
    assert sgd == [
        "CE + SGD",
        "0, 1",
        "60.0 ± 2.8",
        "60.0 ± 2.8",
        "95.0 ± 0.0",
        "70.0 ± 0.0",
        "20.0 ± 7.1",
        "5.0 ± 0.0",
    ]
    assert focal[6] == "60.0 ± 7.1"
    assert "many above 20 (2 classes), medium 10 to 20 (1), few below 10 (2)" in page.section("Accuracy by group")


def test_accuracy_by_frequency(page):
    table = page.table("Test accuracy in %: mean")
    assert table[0] == ["class", "training images", "CE + SGD", "CE + Focal-SAM"]
    assert table[1] == ["a", "40", "100.0 ± 0.0", "90.0 ± 0.0"] and table[4] == ["d", "5", "30.0 ± 14.1", "60.0 ± 14.1"]


def test_comparison(page):
    table = page.table("Difference of test accuracy to CE + SGD")
    assert [row[:3] for row in table[1:]] == [
        ["CE + Focal-SAM", "all classes", "+16.0"],
        ["CE + Focal-SAM", "many", "-5.0"],
        ["CE + Focal-SAM", "medium", "+10.0"],
        ["CE + Focal-SAM", "few", "+40.0"],
    ]
    assert [row[4:] for row in table[1:]] == [
        ["images", "yes, better"],
        ["images", "no"],
        ["images", "no"],
        ["images", "yes, better"],
    ]


def test_curves_end_where_the_log_ends(page):
    assert page.table("Test accuracy in % at the last")[1] == ["CE + SGD", "3", *["70.0 ± 0.0"] * 4]


def test_telemetry_takes_every_sam_name(page):
    header, sgd, _ = page.table("Telemetry at the last")
    assert header[2:] == ["norm of the perturbation (units of the weights)", "new name"] and sgd[2:] == [
        "0.1 ± 0",
        "3 ± 0",
    ]


def test_confusion(page):
    table = page.table("The 5 largest confusions")
    assert table[0] == ["confusion", "CE + SGD", "CE + Focal-SAM"]
    assert table[1] == ["e taken for a", "90.0", "40.0"] and table[2] == ["d taken for e", "70.0", "40.0"]


def test_calibration(page):
    header, sgd, _ = page.table("Expected calibration error in %")
    assert header[1:] == ["all test images", "those of many classes", "those of medium classes", "those of few classes"]
    assert sgd[1:] == ["5.0 ± 0.0", "5.0 ± 0.0", "20.0 ± 0.0", "70.0 ± 7.1"]  # confidence 0.9


def test_shift(page):
    assert page.table("Accuracy on other test sets")[1] == [
        "sketch, CE + SGD",
        "60",
        "62.5 ± 0.0",
        "75.0 ± 0.0",
        "-",
        "-",
    ]
    assert page.table("images_c: error under each")[1:] == [
        ["fog", "30.0", "30.0"],
        ["gaussian noise", "30.0", "30.0"],
        ["mean", "30.0", "30.0"],
    ]
    means = page.table("images_c: means over all")[1]
    assert means[:5] == ["CE + SGD", "2", "1, 3", "30.0 ± 0.0", "-"] and means[5:] == ["90.0 ± 0.0", "-", "40.0 ± 0.0"]


def test_curvature(page):
    rows = page.table("Eigenvalues and trace")[1:]
    assert [row[0] for row in rows[:3]] == [
        f"CE + SGD, {x}" for x in ("all classes", "class 0 (40 images)", "class 4 (2 images)")
    ]
    assert rows[0][1:] == ["9.5", "-1.25", "0.132", "7.6", "33"]
    evolution = page.table("Extreme eigenvalues")
    assert evolution[0][1] == "epoch" and evolution[1][1:] == ["1", "-0.1", "4", "0.025"]
    assert page.table("Mean loss on the surfaces")[1] == ["CE + SGD, all classes, 2d", "1", "1", "3"]


def test_cost(page):
    rows = page.table("Training time and accuracy")[1:]
    assert [row[:3] for row in rows] == [
        ["CE + SGD", "100.0 ± 0.0", "250.0 ± 0.0"],
        ["CE + Focal-SAM", "150.5 ± 0.7", "250.0 ± 0.0"],
    ]
    assert [row[5] for row in rows] == ["yes", "yes"]


def test_commands_and_settings(page):
    text = page.section("Configurations and commands")
    assert "ltsam train --method focal_sam --seed 1" in text and "learning_rate: 0.1" in text
    assert page.table("Settings in which")[1] == ["method", "sgd", "focal_sam"]


# ---- the page itself ----


def test_it_is_well_formed(page):
    assert not page.badly_nested
    identities = [e["id"] for e in page.elements if "id" in e]
    assert len(identities) == len(set(identities))
    assert page.all("html", lang="en") and len(page.all("h1")) == 1 and page.all("main")


def test_tables_can_be_read_by_a_screen_reader(page):
    tables = page.all("table")
    captions = [e for e in page.all("caption") if e["inside"][-1] == "table" and e["text"].strip()]
    assert len(captions) == len(tables) > 10
    assert all(e.get("scope") in ("col", "row") for e in page.all("th"))
    rows = [e for e in page.all("tr") if "tbody" in e["inside"]]
    assert len(page.all("th", scope="row")) == len(rows)


def bounds_by_hand(loss, lam_max, rho, w=3.0, g=0.5, k=1000, n=50, delta=0.05):
    """Zhou et al. 2023b Eq. 15 at rho*, then Lyu et al. 2025 Theorem 6 without M / sqrt(n)."""
    log, sqrt = math.log, math.sqrt
    best = sqrt(w / (2 * g)) * (k * (n - 1)) ** -0.25
    spread = (1 + sqrt(log(n) / k)) ** 2
    zhou = (1 - 1 / sqrt(n)) * (loss + sqrt(k) * best * g) + 1 / sqrt(n)
    zhou += sqrt((w**2 / (4 * best**2) * spread + log(n / delta) / 2) / (n - 1))
    inside = k / 4 * log(1 + w**2 * (sqrt(k) + sqrt(log(n))) ** 2 / (k * rho**2)) + 1 / 4
    inside += log(n / delta) + 2 * log(6 * n + 3 * k)
    return zhou, loss + rho**2 * sqrt(k / (4 * math.pi)) * lam_max + sqrt(inside / (n - 1))


def test_bounds_over_the_training_are_those_of_the_sources(tmp_path):
    own = {**metrics((0.5,) * 5), "method": {"name": "sam", "args": {"rho": 0.2}}}
    run = write_run(tmp_path / "run", own, sharpness=sharpness(subsets=("class 0",)))
    page = Page(write_report([read_run(run)], tmp_path / "report").read_text())
    _, *rows = page.table("Bounds and their parts")
    expected = [bounds_by_hand(loss, 4.0, 0.2) for loss in (0.5, 0.25)]
    assert [row[1:4] for row in rows] == [
        [str(k + 1), f"{5 / (10 * (k + 1)):.3g}", f"{expected[k][kind]:.3g}"] for kind in (0, 1) for k in (0, 1)
    ]
    assert (tmp_path / "report" / "bounds_over_training.png").is_file()


@pytest.mark.parametrize("args", [{}, {"rho": [0.1, 0.2]}, {"rho": 0}])
def test_a_bound_that_needs_a_radius_is_left_out_without_one(args, tmp_path):
    own = {**metrics((0.5,) * 5), "method": {"name": "sam", "args": args}}
    run = write_run(tmp_path / "run", own, sharpness=sharpness(subsets=("class 0",)))
    rows = bounds.section(configurations([read_run(run)]), tmp_path).tables[0].rows
    assert len(rows) == 2 and all("Zhou" in row[0] for row in rows)


def test_checkpoints_without_norms_have_no_bounds(tmp_path):
    """As an earlier release measured them."""
    measured = sharpness()
    for point in measured["evolution"].values():
        for name in ("loss", *NORMS):
            del point[name]
    run = read_run(write_run(tmp_path / "run", metrics((0.5,) * 5), sharpness=measured))
    section = bounds.section(configurations([run]), tmp_path)
    assert not run.damaged and not section.figures and "--checkpoints" in section.missing[0].command


def test_figures_can_be_heard(page):
    figures = page.all("svg")
    assert len(figures) == len(page.all("figure")) == len(page.all("figcaption")) == 15
    for svg in figures:
        assert svg["role"] == "img"
        title, description = (
            next(e for e in page.elements if e.get("id") == part) for part in svg["aria-labelledby"].split()
        )
        assert (title["tag"], description["tag"]) == ("title", "desc") and title["text"] and description["text"]


def test_every_figure_lies_beside_it_as_png_and_svg(page, folder):
    links = [e["href"] for e in page.all("a") if "figcaption" in e["inside"]]
    assert len(links) == 30
    for link in links:
        assert (folder / link).stat().st_size > 3000
    pixels = np.asarray(Image.open(folder / "accuracy_by_group.png").convert("RGB"))
    assert {(0x1B, 0x1B, 0x1B), (0x00, 0x72, 0xB2)} <= {tuple(p) for p in pixels.reshape(-1, 3)}


def test_it_needs_no_network_and_no_script(folder, page):
    text = (folder / "report.html").read_text()
    assert not re.search(r"https?:|//[a-z]|@import|javascript:", re.sub(r"data:image/png;base64,[^\"]*", "", text))
    assert not page.all("script") and not page.all("link") and not page.all("img")
    assert all(e["href"].startswith(("#", "accuracy", "b", "c", "e", "t", "s")) for e in page.all("a"))
    sources = [e.get("href") for e in page.elements if e["tag"] in ("use", "image")]
    assert all(source.startswith(("#", "data:image/png;base64,")) for source in sources)


def test_it_is_drawn_in_the_colours_of_the_page(folder):
    text = (folder / "report.html").read_text()
    assert "prefers-color-scheme: dark" in text and "currentColor" in text and "var(--blue)" in text
    svg = text[text.index("<svg") : text.rindex("</svg>")]
    assert "#1b1b1b" not in svg and "#0072b2" not in svg and 'id="accuracy_by_group-patch_1"' not in svg


def test_parts_of_a_figure_find_each_other(page):
    """Letters, marks and clips are references to ids, which were made unique."""
    identities = {e["id"] for e in page.elements if "id" in e}
    inside = [e for e in page.elements if "svg" in e["inside"]]
    used = {e["href"].removeprefix("#") for e in inside if e["tag"] == "use"}
    used |= {name for e in inside for name in re.findall(r"url\(#([^)]+)\)", e.get("clip-path", ""))}
    assert len(used) > 50 and used <= identities
    assert not [e for e in inside if e["tag"] in ("style", "metadata")]  # they would speak for the whole page


def test_series_differ_without_colour():
    from hf_ltsam.runs.report.style import series_style

    assert len({(str(s.dashes), s.marker) for s in map(series_style, range(40))}) == 40


def test_a_group_has_one_colour_in_every_figure(monkeypatch):
    from matplotlib.axes import Axes

    from hf_ltsam.class_statistics import ClassStatistics
    from hf_ltsam.runs.class_frequencies import curve_png
    from hf_ltsam.runs.report.style import GROUP_COLOURS, subset_colours

    assert len(set(GROUP_COLOURS.values())) == len(GROUP_COLOURS)
    drawn = {}
    stairs = Axes.stairs
    monkeypatch.setattr(
        Axes, "stairs", lambda self, *a, **k: drawn.update({k["label"]: k["color"]}) or stairs(self, *a, **k)
    )
    curve_png(ClassStatistics((200, 50, 5)), "three classes")
    assert drawn == {f"{group} (1)": GROUP_COLOURS[group] for group in ("many", "medium", "few")}

    for names in (["all", "few", "class 3"], ["class 0", "class 9", "many", "few"], [f"class {c}" for c in range(7)]):
        colours = subset_colours(names)
        assert all(colours[name] == GROUP_COLOURS[name] for name in names if name in GROUP_COLOURS)
        assert len(set(colours.values())) == len(names), "those drawn together differ"
    assert len(subset_colours([f"class {c}" for c in range(20)])) == 20


def test_names_from_files_are_escaped(tmp_path):
    names, shares = (EVIL, "$x^", "c", "d", "e"), (0.5,) * 5
    files = {"predictions": predictions(right(*shares), LABELS, names), "ood_results": shifted({EVIL: {1: 0.5}})}
    run = write_run(tmp_path / "run", metrics(shares, loss=EVIL, hardware=EVIL), recipe={"note": EVIL}, **files)
    text = write_report([read_run(run)], tmp_path / "report").read_text()
    assert "<script" not in text and "alert(1)" in text and not Page(text).badly_nested


# ---- what is missing or damaged ----


def test_missing_parts_are_named_with_the_command_that_makes_them(tmp_path):
    own = metrics((0.5,) * 5)
    own["timing"] = {}
    again = f"ltsam train --config '{tmp_path / 'my run' / 'recipe.yaml'}' --output_dir '{tmp_path / 'my run_again'}'"
    folder = write_run(tmp_path / "my run", own, recipe={"method": "sgd", "dataset": "images"})
    write(folder / "model.safetensors", "")
    checkpoints = f"sharpness '{tmp_path / 'my run_with_checkpoints'}' --checkpoints"
    page = Page(write_report([read_run(folder)], tmp_path / "report").read_text())
    run = f"'{tmp_path / 'my run'}'"
    for title, words in {
        "Accuracy over the training": "--eval_strategy epoch --logging_strategy epoch makes it in a run of its own.",
        "The perturbation (SAM telemetry)": "--eval_strategy epoch --logging_strategy epoch makes it",
        "Confusion": again, "Calibration": again,
        "Under shift and corruption": f"ltsam evaluate --model {run} --sets images_c",
        "Spectral densities": f"ltsam sharpness {run} makes it", "Loss surfaces": f"ltsam sharpness {run} --surface 2d",
        "Curvature over the training": checkpoints, "Bounds on the test loss over the training": checkpoints,
        "Cost against accuracy": again,
    }.items():  # fmt: skip
        assert "Missing" in page.section(title) and words in page.section(title), title
    assert page.table("Test accuracy and expected")[1][2] == "50.0"
    assert "nothing to compare" in page.section("Larger than chance?")


def test_a_complete_run_misses_nothing(page):
    assert not [e for e in page.elements if e.get("class") in ("missing", "damaged")]


FILES = (
    "metrics.json",
    "predictions.json",
    "trainer_state.json",
    "sharpness/sharpness.json",
    "evaluation/ood_results.json",
)
DAMAGE = ('{"schema_version": 1, "test": {"lab', '{"schema_version": 1}', "[1, 2]", "\xff")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        *product(FILES, DAMAGE),
        ("recipe.yaml", "[1, 2]"),
        ("recipe.yaml", "a: ["),
        ("recipe.yaml", "\xff"),
        ("recipe.yaml", ""),
    ],
)
def test_a_damaged_file_is_named_and_the_rest_is_read(tmp_path, file, content):
    run = complete_run(tmp_path / "run", 0, (0.5,) * 5, right(*(0.5,) * 5), LABELS)
    (run / file).write_bytes(content.encode("latin-1"))
    read, whole = read_run(run), complete_run(tmp_path / "whole", 0, (0.5,) * 5, right(*(0.5,) * 5), LABELS)
    assert len(read.damaged) == 1 and str(run / file) in read.damaged[0]
    parts = [read.metrics, read.recipe, read.history, read.predictions, read.curvature, read.shifted]
    assert sum(map(bool, parts)) == 5 and read_run(whole).damaged == ()


def test_a_record_that_contradicts_itself_is_damaged(tmp_path):
    own = metrics((0.5,) * 5, class_statistics=statistics((9, 8, 7)))
    (sentence,) = read_run(write_run(tmp_path / "run", own)).damaged
    assert "metrics.json" in sentence and "5 entries for 3 classes" in sentence


def test_a_report_on_damaged_files(tmp_path, capsys):
    for name in ("a", "b"):
        own = metrics((0.5,) * 5, method="sam" if name == "b" else "sgd")
        write_run(tmp_path / name, own, trainer_state=history([0.1, 0.2]), sharpness=sharpness(), recipe={"depth": 8})
    (tmp_path / "b" / "metrics.json").write_text("{")
    (tmp_path / "a" / "sharpness" / "sharpness.json").write_text('{"spectra": 3}')
    (tmp_path / "b" / "sharpness" / "sharpness.json").write_text("")
    cli.main(["report", str(tmp_path), "--output", str(tmp_path / "report")])
    out = " ".join(capsys.readouterr().out.split())
    page = Page((tmp_path / "report" / "report.html").read_text())
    shown = next(e["text"] for e in page.all("section") if e.get("class") == "damaged")
    for path in ("b/metrics.json", "a/sharpness/sharpness.json", "b/sharpness/sharpness.json"):
        assert str(tmp_path / path) in shown and str(tmp_path / path) in out
    assert len(page.all("svg")) == 3  # by group, by frequency, over the training


def test_numbers_that_do_not_exist(tmp_path):
    """A diverged run: NaN is null in the files."""
    own = metrics((0.5,) * 5)
    own["results"]["test"]["ece"] = None
    own["results"]["test"]["per_class"][3] = None
    told = predictions(right(*(0.5,) * 5), LABELS)
    told["test"]["confidence"] = [None] * 50
    told["test"]["predicted"] = [-1] * 50
    curved = sharpness()
    curved["spectra"]["all"]["ratios"] = dict.fromkeys(("abs_min_over_max", "abs_max_over_min"))
    curved["surface"]["2d"]["loss"]["all"][0][0] = None
    run = write_run(tmp_path / "run", own, predictions=told, sharpness=curved)
    page = Page(write_report([read_run(run)], tmp_path / "report").read_text())
    assert read_run(run).damaged == () and page.table("Test accuracy and expected")[1][-1] == "-"
    assert page.table("Test accuracy in %: mean")[4][2] == "-"


def read_all(folder, **records):
    return [read_run(write_run(folder / name, own)) for name, own in records.items()]


def test_runs_without_predictions_are_compared_over_classes(tmp_path):
    first, second = metrics((0.9, 0.8, 0.5, 0.2, 0.1)), metrics((0.9, 0.8, 0.6, 0.6, 0.5), method="sam")
    own = configurations(read_all(tmp_path, a=first, b=second))
    (compared,) = compare(own)
    assert not compared.over_images and set(compared.intervals) == {"balanced", "many", "few"}
    few = compared.intervals["few"]  # both classes gain 0.4, whichever are drawn
    assert (few.difference, few.low, few.high) == pytest.approx((0.4, 0.4, 0.4)) and few.beyond_chance
    assert compared.intervals["balanced"].low < 0.18 < compared.intervals["balanced"].high


def test_other_images_are_not_paired(tmp_path):
    for name, labels in {"sgd": LABELS, "sam": LABELS[::-1], "asam": LABELS}.items():
        own = metrics((0.5,) * 5, method=name)
        write_run(tmp_path / name, own, predictions=predictions(right(*(0.5,) * 5), labels))
    compared = compare(configurations([read_run(tmp_path / name) for name in ("sgd", "sam", "asam")]))
    assert [c.over_images for c in compared] == [False, True]


def test_other_classes_are_not_compared(tmp_path):
    other = metrics((0.5,) * 5, method="sam", class_statistics=statistics((9, 8, 7, 6, 5)))
    own = configurations(read_all(tmp_path, a=metrics((0.5,) * 5), b=other))
    assert compare(own) == [] and "not to be compared" in group_bounds(own)[-1]
    assert "CE + SAM" in comparison_section(own, tmp_path).notes[0]


def test_head_and_tail_where_the_training_set_is_split(tmp_path):
    split = metrics((1.0, 0.8, 0.6, 0.4, 0.2), class_statistics=statistics(tail_threshold=12))
    own = configurations(read_all(tmp_path, run=split))
    shown = group_table(own)
    assert shown.columns[7:9] == ["head", "tail"] and shown.rows[0][7:9] == ["90.0", "40.0"]
    assert "at most 12 (3)" in group_bounds(own)[0]


# ---- finding runs ----


def test_a_folder_of_runs(tmp_path):
    for name in ("x/seed1", "x/seed0", "y/seed0"):
        write_run(tmp_path / name, metrics((0.5,) * 5))
    write(tmp_path / "x" / "seed0" / "checkpoint-5" / "trainer_state.json", history([0.1]))
    assert find_runs([tmp_path]) == [tmp_path / "x/seed0", tmp_path / "x/seed1", tmp_path / "y/seed0"]
    assert find_runs([tmp_path / "y" / "seed0", tmp_path / "y"]) == [tmp_path / "y" / "seed0"]


def test_a_run_that_has_not_finished_shows_its_last_checkpoint(tmp_path):
    folder = write_run(tmp_path / "run", metrics((0.5,) * 5), recipe={"method": "sam"})
    (folder / "metrics.json").unlink()
    for step, accuracies in {20: [0.1, 0.2], 100: [0.1, 0.2, 0.3], 90: [0.1]}.items():
        write(folder / f"checkpoint-{step}" / "trainer_state.json", history(accuracies))
    page = Page(write_report([read_run(folder)], tmp_path / "report").read_text())
    assert page.table("Test accuracy in % at the last")[1][:3] == ["CE + SAM, without results", "3", "30.0"]
    assert "no test results" in page.section("Accuracy by group")


def test_the_report_goes_where_all_runs_lie(tmp_path, capsys):
    runs = [
        str(write_run(tmp_path / name, metrics((0.5,) * 5, seed=k))) for k, name in enumerate(("a/seed0", "a/seed1"))
    ]
    cli.main(["report", *runs])
    assert (tmp_path / "a" / "report" / "report.html").is_file() and "report.html" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["nowhere"], ["empty"]])
def test_what_is_no_run_is_refused(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="2"):
        cli.main(["report", *words])
    assert words[0] in capsys.readouterr().err


@pytest.mark.slow
def test_ten_runs_of_a_thousand_classes_stay_small(tmp_path):
    """In a browser a page of 1.9 MB opened in half a second; here its size and the time of writing are watched."""
    C, per = 1000, 20
    counts = [max(5, int(1280 * (5 / 1280) ** (c / (C - 1)))) for c in range(C)]
    groups = {
        "many": [c for c, n in enumerate(counts) if n > 20], "medium": [c for c, n in enumerate(counts) if 10 <= n <= 20],
        "few": [c for c, n in enumerate(counts) if n < 10],
    }  # fmt: skip
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(C), per)
    for k, method in enumerate(
        ["sgd", "sam", "asam", "imbsam", "sse_sam", "focal_sam", "cc_sam", "gsam", "looksam", "msam"]
    ):
        found = rng.random(len(labels)) < (0.8 - 0.5 * np.arange(C) / C)[labels]
        accuracies = found.reshape(C, per).mean(axis=1).tolist()
        own = metrics(accuracies, method=method, class_statistics=statistics(counts),
                      results={"test": result_of(accuracies, groups)})  # fmt: skip
        write_run(
            tmp_path / f"{k}", own, predictions=predictions(found, labels, [f"class {c}" for c in range(C)]),
            trainer_state=history(np.linspace(0.1, 0.7, 90).tolist(), {"sam_eps_norm": [0.1] * 90}),
        )  # fmt: skip
    started = time.perf_counter()
    written = write_report([read_run(run) for run in find_runs([tmp_path])], tmp_path / "report")
    assert time.perf_counter() - started < PATIENCE
    page = Page(written.read_text())
    assert written.stat().st_size < 1.5e6 and len(page.elements) < 40_000
    assert len(page.table("Test accuracy in %, means over classes")) == 26
    shutil.rmtree(tmp_path)


def test_groups_of_the_made_runs_are_those_of_the_statistics():
    from hf_ltsam import ClassStatistics

    assert ClassStatistics.from_dict(statistics()).groups == GROUPS
