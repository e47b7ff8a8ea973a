"""What pictures show beyond their tables: sides of zero, cells of a coarse grid, shades, axes."""

import pytest
from matplotlib.figure import Figure
from runs.report.made_runs import metrics, sharpness, write_run

from hf_ltsam.runs.report import bounds, curvature
from hf_ltsam.runs.report.comparison import differences
from hf_ltsam.runs.report.comparison.paired_bootstrap import Interval
from hf_ltsam.runs.report.configurations import configurations
from hf_ltsam.runs.report.reading import read_run


def two(folder, **records):
    """Runs of SGD and SAM, with what else they have."""
    runs = [
        write_run(folder / name, metrics((0.5,) * 5, method=name, args=args), **records)
        for name, args in (("sgd", {}), ("sam", {"rho": 0.1}))
    ]
    return configurations([read_run(run) for run in runs])


@pytest.mark.parametrize(
    ("low", "high", "drawn"),
    [(-0.0156, -0.00001, (-0.0156, -0.001)), (0.00001, 0.02, (0.001, 0.02)), (-0.01, 0.00001, (-0.01, 0.00001)),
     (-0.0002, -0.0001, (-0.001, -0.001))],
)  # fmt: skip
def test_a_line_beside_zero_ends_visibly_before_it(low, high, drawn):
    interval = Interval((low + high) / 2, low, high)
    assert differences.drawn_ends(interval, 0.001) == drawn
    assert interval.beyond_chance == (drawn[0] * drawn[1] > 0)


def test_a_filled_mark_has_a_line_that_does_not_touch_zero(tmp_path):
    base, other = two(tmp_path)
    interval = Interval(-0.008, -0.01559, -0.00001)
    figure = Figure()
    differences._paint(figure, base, [differences.Compared(1, other, {"many": interval}, True)], ["many"])
    line, mark, _ = figure.axes[0].lines
    figure.canvas.draw()
    end, zero = (figure.axes[0].transData.transform((x, 0))[0] for x in (line.get_xdata()[1], 0))
    assert mark.get_markerfacecolor() != differences.PAPER and line.get_solid_capstyle() == "butt" and zero - end > 2


def test_the_axis_of_a_bound_names_the_quantity_and_marks_of_equal_values_differ_in_size(tmp_path):
    figure = Figure()
    measured = curvature.with_curvature(two(tmp_path, sharpness=sharpness()), lambda c: True)
    bounds._paint(figure, measured, ["class 0"], ["Zhou et al. 2023b Eq. 15"])
    axes = figure.axes[0]
    assert axes.get_ylabel() == "bound on the test loss\n(Zhou et al. 2023b Eq. 15)"
    sizes = [line.get_markersize() for line in axes.lines if line.get_marker() != "None"]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 2
