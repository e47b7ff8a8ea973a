"""The first words of a report: who is ahead on the rare classes, by how much, by chance or not, at what cost."""

import numpy as np
import pytest
from runs.report.html_page import Page
from runs.report.made_runs import metrics, predictions, statistics, write_run
from runs.report.made_runs import test_result as result_of
from scipy import stats

from hf_ltsam.runs.report import by_group
from hf_ltsam.runs.report.comparison.conclusion import ranked, section
from hf_ltsam.runs.report.comparison.differences import Compared, compare
from hf_ltsam.runs.report.comparison.differences import _table as differences_table
from hf_ltsam.runs.report.comparison.paired_bootstrap import Interval
from hf_ltsam.runs.report.configurations import configurations
from hf_ltsam.runs.report.content import mean_and_deviation, percent
from hf_ltsam.runs.report.reading import read_run
from hf_ltsam.runs.report.report import write_report

PER_CLASS = 50
LABELS = np.repeat(range(5), PER_CLASS)
RARE = "on the rare classes (few: fewer than 10 training images)"


def run(folder, name, shares, seed=0, **record):
    """A run that recognizes the first images of every class, so that runs agree as far as they can."""
    hits = np.concatenate([np.arange(PER_CLASS) < round(PER_CLASS * share) for share in shares])
    own = metrics(shares, seed, **record)
    return read_run(write_run(folder / f"{name}{seed}", own, predictions=predictions(hits, LABELS)))


def conclude(*runs, folder=None):
    return section(configurations(runs), folder)


@pytest.fixture
def sgd(tmp_path):
    return run(tmp_path, "sgd", (1.0, 0.9, 0.7, 0.2, 0.2), seconds=100.0)


def test_the_best_on_the_rare_classes_is_named_with_distance_interval_and_price(tmp_path, sgd):
    better = run(tmp_path, "focal", (0.9, 0.9, 0.7, 0.5, 0.7), method="focal_sam", seconds=150.0)
    # 0.6 against 0.2. An image gained with share p: 0.3 in one class, 0.5 in the other; the deviation of their mean is
    # sqrt((0.3 * 0.7 + 0.5 * 0.5) / 50) / 2 = 0.048, so the 95 % interval is about 0.4 -+ 0.094.
    said = conclude(sgd, better).summary
    assert said.startswith(
        f"CE + Focal-SAM is ahead {RARE}: 60.0 % against 20.0 % of CE + SGD, +40.0 points, more than chance ("
    )
    low, high = map(float, said.partition("interval ")[2].partition(")")[0].split(" to "))
    assert low == pytest.approx(30.6, abs=1.5) and high == pytest.approx(49.4, abs=1.5)
    assert said.endswith("at 1.50 times its training time (150 s against 100 s).")


def test_the_first_configuration_may_be_the_best(tmp_path, sgd):
    worse = run(tmp_path, "sam", (1.0, 1.0, 1.0, 0.0, 0.0), method="sam", seconds=200.0)
    said = conclude(sgd, worse).summary
    assert said.startswith(
        f"CE + SGD is ahead {RARE}: 20.0 % against 0.0 % of CE + SAM, +20.0 points, more than chance ("
    )
    assert said.endswith("at 0.50 times its training time (100 s against 200 s).")


def test_a_difference_that_may_be_chance_is_no_lead(tmp_path, sgd):
    shares = (1.0, 0.9, 0.7, 0.2, 0.2)
    other = run(tmp_path, "sam", (*shares[:4], 0.22), method="sam")
    said = conclude(sgd, other).summary
    assert (
        said.startswith("CE + SAM is not clearly ahead") and "+1.0 points, within chance (95 % interval 0.0 to " in said
    )


def test_three_are_ranked_and_the_choice_of_the_best_widens_the_interval(tmp_path, sgd):
    second = run(tmp_path, "sam", (1.0, 0.9, 0.7, 0.6, 0.56), method="sam")
    third = run(tmp_path, "focal", (0.9, 0.9, 0.7, 0.5, 0.7), method="focal_sam")
    made = conclude(sgd, second, third)
    assert made.summary.startswith(f"CE + Focal-SAM is ahead {RARE}: 60.0 % against 20.0 % of CE + SGD, +40.0 points")
    assert made.notes[0].startswith("Next is CE + SAM, 2.0 points behind, within chance (")
    assert made.notes[1].startswith(
        "95 % intervals that allow for 3 pairs at once, paired over the same test images; of one seed each"
    )
    assert [row[0] for row in made.tables[0].rows] == ["CE + Focal-SAM", "CE + SAM", "CE + SGD"]
    groups = configurations([sgd, second, third])
    (wide,) = [c for c in ranked(groups).behind if c.configuration is groups[0]]
    (narrow,) = [c for c in compare([groups[2], groups[0], groups[1]]) if c.configuration is groups[0]]
    width = [c.intervals["few"].high - c.intervals["few"].low for c in (wide, narrow)]
    # Any of three pairs might have been the one: 98.3 % each, so 2.39 deviations in place of 1.96
    assert width[0] / width[1] == pytest.approx(2.394 / 1.96, abs=0.001)


WHOSE_DOING = {
    "loss and method": (
        {"loss": "logit_adjustment", "method": "sam"},
        "CE + SGD differ in loss and method: how much is due",
    ),
    "the method alone": ({"method": "sam"}, None),
    "the loss alone": ({"loss": "logit_adjustment"}, None),
    "the length as well": ({"method": "sam", "mixing": {"alpha": 1.0}}, "differ in alpha (1.0 and -), too"),
}


@pytest.mark.parametrize("case", WHOSE_DOING)
def test_a_lead_is_not_put_down_to_the_method_where_more_differs(tmp_path, sgd, case):
    record, said = WHOSE_DOING[case]
    notes = conclude(sgd, run(tmp_path, "other", (0.9, 0.9, 0.7, 0.5, 0.7), **record)).notes
    assert not any("differ in" in note or "due to" in note for note in notes) if said is None else said in notes[0]


def test_a_lead_is_shared_out_between_loss_and_method(tmp_path, sgd):
    between = run(tmp_path, "la", (0.9, 0.9, 0.7, 0.5, 0.5), loss="logit_adjustment")
    best = run(tmp_path, "la_sam", (0.9, 0.9, 0.7, 0.5, 0.6), loss="logit_adjustment", method="sam", args={"rho": 0.1})
    note = conclude(sgd, between, best).notes[0]
    assert note.startswith("Of these points +30.0 are due to the loss (LA + SGD against CE + SGD, more than chance (")
    assert "), and +5.0 to the method (LA + SAM against LA + SGD, more than chance (0.1 to " in note
    reference, without_method, _ = configurations((sgd, between, best))
    (of_loss,) = compare([reference, without_method], level=1 - 0.05 / 3)  # that of any of the three pairs
    interval = of_loss.intervals["few"]
    assert f"against CE + SGD, more than chance ({100 * interval.low:.1f} to {100 * interval.high:.1f})" in note
    assert 0 < interval.low < interval.high < compare([reference, without_method], level=0.999)[0].intervals["few"].high


def test_seeds_widen_it_by_student_at_that_level(tmp_path):
    """Classes are all right or all wrong, so that the seeds alone differ; at 98.3 % by Student's t, not by the normal distribution."""
    of_method = [[(0, 1), (1, 1), (1, 1)], [(0, 0), (1, 0), (0, 0)], [(0, 0), (0, 0), (1, 0)]]
    runs = [
        run(tmp_path, name, (1.0, 1.0, 1.0, *rare), seed, method=name)
        for name, seeds in zip(("sam", "asam", "msam"), of_method)
        for seed, rare in enumerate(seeds)
    ]
    (first, *_) = ranked(configurations(runs)).behind
    half = first.intervals["few"].high - first.intervals["few"].difference
    means = [np.mean(seeds, axis=1) for seeds in of_method[:2]]
    assert half == pytest.approx(
        stats.t.ppf(1 - 0.05 / 6, 4) * np.sqrt(sum(m.var(ddof=1) for m in means) / 3), rel=0.06
    )


def test_equals_are_nothing_behind(tmp_path, sgd):
    same = run(tmp_path, "sam", (1.0, 0.9, 0.7, 0.2, 0.2), method="sam")
    assert conclude(sgd, same).tables[0].rows[1][-1] == "0.0 (0.0 to 0.0)"


LEVEL = (1.0, 0.9, 0.7, 0.2, 0.2)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        (
            {"sam": LEVEL},
            f"CE + SGD and CE + SAM are level {RARE}: 20.0 % each, CE + SAM at 1.50 times the training time of the other "
            "(150 s against 100 s).",
        ),
        ({"sam": LEVEL, "focal_sam": LEVEL}, f"CE + SGD, CE + SAM and CE + Focal-SAM are level {RARE}: 20.0 % each."),
        ({"sam": LEVEL, "focal_sam": (0.5,) * 3 + (0.0, 0.0)}, f"CE + SGD and CE + SAM are level {RARE}: 20.0 % each, CE + SAM "
         "at 1.50 times the training time of the other (150 s against 100 s)."),
        ({"sam": (0.5, 0.5, 0.5, 0.4, 0.0)}, "20.0 % each (95 % interval of the difference -"),
    ],
)  # fmt: skip
def test_a_tie_is_no_lead(tmp_path, sgd, others, said):
    runs = [run(tmp_path, name, shares, method=name, seconds=150.0) for name, shares in others.items()]
    made = conclude(sgd, *runs)
    assert said in made.summary and "ahead" not in made.summary and "against 20.0" not in made.summary
    assert not [note for note in made.notes if "0.0 points" in note]


def test_a_tie_on_top_of_the_first_configuration(tmp_path, sgd):
    top = (0.9, 0.9, 0.7, 0.6, 0.6)
    made = conclude(sgd, *(run(tmp_path, name, top, method=name) for name in ("sam", "focal_sam")))
    assert made.summary.startswith("CE + SAM is ahead") and made.notes[0].startswith(
        "CE + Focal-SAM is level with it, within"
    )


def test_two_numbers_that_differ_are_shown_apart(tmp_path):
    """2 of 5,000 against 3 of 5,000 test images."""
    runs = [
        read_run(write_run(tmp_path / name, metrics((0.9, 0.9, 0.9, 0.0, rare), method=name)))
        for name, rare in {"sgd": 0.0004, "sam": 0.0006}.items()
    ]
    assert ": 0.03 % against 0.02 % of CE + SGD, +0.01 points, " in conclude(*runs).summary


@pytest.mark.parametrize(
    ("interval", "shown"),
    [
        (Interval(-0.02, -0.03, -0.0004), ("-2.00", "-3.00 to -0.04", "yes, worse")),
        (Interval(0.02, 0.0004, 0.03), ("+2.00", "+0.04 to +3.00", "yes, better")),
        (Interval(0.02, 0.01, 0.03), ("+2.0", "+1.0 to +3.0", "yes, better")),
        (Interval(0.01, -0.0004, 0.03), ("+1.0", "0.0 to +3.0", "no")),
        (Interval(-0.01, -0.03, 0.0), ("-1.0", "-3.0 to 0.0", "no")),
        (Interval(0.0, 0.0, 0.0), ("0.0", "0.0 to 0.0", "no")),
    ],
)
def test_an_interval_beside_its_verdict(tmp_path, sgd, interval, shown):
    other = configurations([sgd])[0]
    (row,) = differences_table(other, [Compared(1, other, {"few": interval}, True)]).rows
    assert (row[2], row[3], row[5]) == shown


def test_guesses_are_among_the_classes_of_the_test(tmp_path):
    """Every test image taken for one class, of three that the test has: a third, and no better than that."""
    runs = [
        read_run(write_run(tmp_path / name, metrics((1.0, 0.0, 0.0, float("nan"), float("nan")), method=name, results={
            "test": {**result_of((1.0, 0.0, 0.0), {}), "per_class": [1.0, 0.0, 0.0, None, None]},
        })))
        for name in ("sgd", "sam")
    ]  # fmt: skip
    groups = configurations(runs)
    assert by_group.chance(groups)[0] == (
        "Chance, one of the classes that the test has, gives 33.3 % in all of these columns but the ECE."
    )
    assert "is at chance (33.33 %" in by_group.chance(groups)[1]
    assert "guesses have 33.3 %" in conclude(runs[0]).summary


@pytest.mark.parametrize(
    ("fraction", "shown"),
    [(0.9999, "99.99"), (0.99951, "99.95"), (1.0, "100.0"), (1 - 1e-12, "100.0"), (0.0004, "0.04"), (0.0, "0.0"), (-0.0, "0.0"),
     (0.123, "12.3"), (float("nan"), "-")],
)  # fmt: skip
def test_nothing_passes_for_all_or_none(fraction, shown):
    assert percent(fraction) == shown == mean_and_deviation(fraction, float("nan"), 100)


def test_seeds_count_where_there_are_several(tmp_path):
    runs = [run(tmp_path, "sgd", (0.9, 0.9, 0.7, 0.2, 0.2 + 0.1 * seed), seed) for seed in range(3)]
    runs += [run(tmp_path, "sam", (0.9, 0.9, 0.7, 0.6, 0.6), seed, method="sam") for seed in range(2)]
    made = conclude(*runs)
    assert made.summary.startswith(f"CE + SAM is ahead {RARE}: 60.0 % against 25.0 % of CE + SGD")
    changes = "with what other seeds would change (2 or more of each configuration)"
    assert made.notes[0] == f"95 % intervals, paired over the same test images, {changes}."


def test_one_configuration_is_described(tmp_path, sgd):
    said = conclude(sgd).summary
    assert (
        said
        == f"CE + SGD has 20.0 % {RARE} and 60.0 % over all classes, where guesses have 20.0 %; there is nothing to compare it with."
    )


def test_what_has_no_results_or_another_training_set(tmp_path, sgd):
    other = run(tmp_path, "sam", (0.9,) * 5, method="sam", class_statistics=statistics((9, 8, 7, 6, 5)))
    made = conclude(sgd, other)
    assert "nothing to compare it with" in made.summary and "left out here: CE + SAM." in made.notes[0]
    own = metrics((0.5,) * 5, method="sam")
    folder = write_run(tmp_path / "unfinished", own, recipe={"method": "sam"})
    (folder / "metrics.json").unlink()
    assert conclude(read_run(folder)).summary == "There are no test results yet."


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"timing": {}}, "at a cost that the runs do not state"),
        ({"hardware": "8 x H100"}, "at a cost that other hardware hides"),
    ],
)
def test_a_price_that_cannot_be_compared(tmp_path, sgd, record, words):
    assert conclude(sgd, run(tmp_path, "sam", (0.9,) * 5, method="sam", **record)).summary.endswith(f"{words}.")


def test_no_better_than_guesses(tmp_path):
    runs = [
        run(tmp_path, name, (0.9, 0.9, 0.9, 0.0, few), method=name) for name, few in {"sgd": 0.0, "sam": 0.2}.items()
    ]
    assert "None is better than guesses, which have 20.0 %." in conclude(*runs).notes


def test_it_comes_first_on_the_page(tmp_path, sgd):
    better = run(tmp_path, "focal", (0.9, 0.9, 0.7, 0.5, 0.7), method="focal_sam")
    page = Page(write_report([sgd, better], tmp_path / "report").read_text())
    assert next(e["text"] for e in page.all("h2")) == "Conclusion"
    assert "CE + Focal-SAM is ahead" in page.section("Conclusion")
    header, best, first = page.table("Accuracy on the rare classes")
    assert header == ["configuration", "few (%)", "all classes (%)", "training time", "behind (points)"]
    assert best[:4] == ["CE + Focal-SAM", "60.0", "74.0", "100 s"] and best[4] == "-"
    assert first[:2] == ["CE + SGD", "20.0"] and first[4].startswith("40.0 (")
