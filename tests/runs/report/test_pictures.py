"""What pictures show beyond their tables: sides of zero, cells of a coarse grid, shades, axes."""

import numpy as np
import pytest
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from runs.report.made_runs import metrics, sharpness, write_run

from hf_ltsam.runs.report import bounds, cost, curvature, shift, surfaces
from hf_ltsam.runs.report.comparison import differences
from hf_ltsam.runs.report.comparison.paired_bootstrap import Interval
from hf_ltsam.runs.report.configurations import configurations
from hf_ltsam.runs.report.drawing import FINE, fill_surface
from hf_ltsam.runs.report.reading import read_run
from hf_ltsam.runs.report.saved_parts import Surface
from hf_ltsam.runs.report.style import DARK_FROM, INK, ON_DARK, shades
from hf_ltsam.runs.shift import report as shift_report


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


def test_the_cost_of_one_configuration_is_a_table_alone(tmp_path):
    both = two(tmp_path)
    assert not cost.section(both[:1], tmp_path).figures and cost.section(both[:1], tmp_path).tables
    assert [figure.name for figure in cost.section(both, tmp_path).figures] == ["cost"]


@pytest.mark.parametrize(
    ("loss", "ends"),
    [([0.02, 30], (0.01, 100)), ([0.5, 0.7], (0.1, 1)), ([1, 1], (1, 10)), ([0, np.inf, 5], (surfaces.FLOOR, 10))],
)
def test_levels_of_a_surface_run_between_powers_of_ten(loss, ends):
    levels = surfaces._levels([Surface((), (), {"all": np.array(loss)})], ["all", "few"])
    np.testing.assert_allclose(levels[[0, -1]], ends)
    assert len(levels) % surfaces.LINES == 1  # a contour line at both ends


def test_a_number_is_light_on_a_dark_cell(tmp_path):
    figure = Figure()
    errors = np.array([[DARK_FROM + 1, DARK_FROM - 1]] * 2)
    shift._paint(figure, ["fog", "mean"], ["SGD", "SAM"], errors)
    assert [text.get_color() for text in figure.axes[0].texts] == [ON_DARK, INK] * 2


@pytest.mark.parametrize(("points", "lines"), [(FINE - 1, False), (FINE, True)])
def test_a_coarse_surface_has_no_contours(points, lines):
    axes = Figure().subplots()
    x = np.linspace(-1, 1, points)
    values, levels = 1 + np.add.outer(x**2, x**2), np.geomspace(1, 10, 7)
    fill_surface(axes, x, x, values, levels, levels)
    kinds = {type(collection).__name__ for collection in axes.collections}
    assert kinds == ({"QuadContourSet"} if lines else {"QuadMesh"})


def lightness(colour):
    """L* of CIELAB of an sRGB colour on white."""
    rgb = np.array(colour[:3]) * colour[3] + 1 - colour[3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16


def test_heat_maps_share_shades_of_even_steps(tmp_path, monkeypatch):
    steps = -np.diff([lightness(shades()(x)) for x in np.linspace(0, 1, 11)])
    assert steps.min() > 0 and steps.max() < 1.5 * steps.min()
    made = []
    monkeypatch.setattr(shift_report, "shades", lambda: made.append(shades()) or made[0])
    cells = {"fog": {"1": {"overall": 0.7}}}
    of_set = {"cells": cells, "summary": {"errors": {"fog": 0.3}, "severities": [1], "mean_error": 0.3}}
    assert shift_report.save_heat_map(tmp_path / "map.png", "images_c", of_set).is_file()
    assert isinstance(made[0], LinearSegmentedColormap)
