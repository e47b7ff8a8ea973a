"""The figures of `ltsam sharpness`, drawn from `sharpness.json` alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hf_ltsam.runs.escaping import figure_text, file_name
from hf_ltsam.runs.files import mapping, read_json
from hf_ltsam.runs.record import samples_of
from hf_ltsam.runs.report.drawing import fill_surface, grid_of_panels
from hf_ltsam.runs.report.style import GRID, INK, PALETTE, fonts_of_all_scripts, series_style, subset_colours

FLOOR = 1e-8  # of a spectral density on a log axis: less than one eigenvalue in a hundred million
SURFACE_FLOOR = 1e-4  # of a loss on a log scale
MOST = 7  # curves in one figure
DOTTED = (0, (1, 2))


def save_figures(path: Path) -> list[Path]:
    """One PNG for each quantity in a `sharpness.json`, beside it."""
    results = read_json(path, mapping) or {}
    drawn: dict[str, Callable[[Any, dict[str, Any]], None]] = {}
    if results.get("spectra"):
        drawn["spectra"] = _draw_spectra
    if results.get("evolution"):
        drawn["evolution"] = _draw_evolution
    if results.get("sharpness"):
        drawn["rho"] = _draw_sharpness
    for name, surface in results.get("surface", {}).items():
        draw = _draw_lines if len(surface["coordinates"]) == 1 else _draw_contours
        drawn[f"surface {name}"] = partial(draw, surface=surface)
    return [_save(path.parent / f"{file_name(name)}.png", draw, results) for name, draw in drawn.items()]


@fonts_of_all_scripts()
def _save(path: Path, draw: Callable[[Any, dict[str, Any]], None], results: dict[str, Any]) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    draw(figure, results)
    figure.savefig(path, dpi=200)
    return path


def subset_label(name: str, results: Mapping[str, Any]) -> str:
    """A subset in words: airplane (5,000 images, 300 taken), class 0 where classes have no names, few classes."""
    counts, names = results["class_statistics"]["counts"], results["class_names"]
    if name.startswith("class "):
        c = int(name.removeprefix("class "))
        called = name if names[c] == str(c) else names[c]
        samples = samples_of(results.get("task"))
        taken = min(counts[c], results["max_samples"] or counts[c])
        return f"{called} ({counts[c]:,} {samples}" + ("" if taken == counts[c] else f", {taken:,} taken") + ")"
    return f"{name} classes" if name != "all" else "all classes"


def _label(name: str, results: Mapping[str, Any]) -> str:
    return figure_text(subset_label(name, results))


def _loss(results: Mapping[str, Any]) -> str:
    return figure_text(results["loss"]["name"].replace("_", " "))


def _draw_spectra(figure: Any, results: dict[str, Any]) -> None:
    """One panel for each subset, as in Rangwani et al. 2022 Fig. 2; each has its own scale of eigenvalues."""
    spectra = results["spectra"]
    columns = min(3, len(spectra))
    figure.set_size_inches(0.6 + 3.3 * columns, 0.5 + 2.7 * -(-len(spectra) // columns))
    panels = grid_of_panels(figure, len(spectra), columns, sharey=True)
    colours = subset_colours(list(spectra))
    for axes, (name, record) in zip(panels, spectra.items()):
        grid, values = (np.array(record["density"][key]) for key in ("grid", "values"))
        axes.fill_between(grid, FLOOR, np.maximum(values, FLOOR), color=colours[name], alpha=0.25, linewidth=0)
        axes.plot(grid, np.maximum(values, FLOOR), color=colours[name], linewidth=1)
        axes.axvline(0, color=INK, linewidth=0.6, linestyle=DOTTED)
        axes.set_yscale("log")
        axes.set_title(_label(name, results), fontsize=9)
        axes.text(0.97, 0.96, _eigenvalues(record), transform=axes.transAxes, ha="right", va="top", fontsize=8)
        axes.tick_params(labelsize=8)
    highest = max(max(r["density"]["values"]) for r in spectra.values())
    panels[0].set_ylim(FLOOR, 30 * highest)
    figure.supxlabel(f"eigenvalue of the Hessian ({_loss(results)})", fontsize=9)
    figure.supylabel("density (log scale)", fontsize=9)


def _eigenvalues(record: Mapping[str, Any]) -> str:
    lines = [("\\lambda_{\\max}", record["lam_max"]["value"]), ("\\lambda_{\\min}", record["lam_min"]["value"])]
    ratio = record["ratios"]["abs_min_over_max"]
    if ratio is not None:
        lines.append(("|\\lambda_{\\min}/\\lambda_{\\max}|", ratio))
    lines.append(("\\mathrm{tr}\\,H", record["trace"]["value"]))
    return "\n".join(f"${symbol} = {value:.3g}$" for symbol, value in lines)


def _draw_evolution(figure: Any, results: dict[str, Any]) -> None:
    """|lam_min / lam_max| and both eigenvalues over training, as in Rangwani et al. 2022 Fig. 3."""
    figure.set_size_inches(9.5, 3.2)
    panels = figure.subplots(1, 3)
    points = results["evolution"].values()
    by_epoch = all(p["epoch"] is not None for p in points)
    key = "epoch" if by_epoch else "step"
    subsets = list(dict.fromkeys(p["subset"] for p in points))[:MOST]
    colours = subset_colours(subsets)
    for k, name in enumerate(subsets):
        of_subset = sorted((p for p in points if p["subset"] == name), key=lambda p: p["step"] or 0)
        style = {**series_style(k).marked, "color": colours[name], "markersize": 4, "linewidth": 1.2}
        style["markevery"] = max(1, len(of_subset) // 12)
        x = [p[key] for p in of_subset]
        panels[0].plot(x, [p["ratios"]["abs_min_over_max"] for p in of_subset], label=_label(name, results), **style)
        panels[1].plot(x, [p["lam_min"]["value"] for p in of_subset], **style)
        panels[2].plot(x, [p["lam_max"]["value"] for p in of_subset], **style)
    for axes, symbol in zip(panels, ("|\\lambda_{\\min}/\\lambda_{\\max}|", "\\lambda_{\\min}", "\\lambda_{\\max}")):
        axes.set_ylabel(f"${symbol}$")
        axes.set_xlabel("epoch" if by_epoch else "training step")
        axes.grid(color=GRID, linewidth=0.6)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)


def _draw_sharpness(figure: Any, results: dict[str, Any]) -> None:
    """The gap over rho, with the range that is suggested."""
    record = results["sharpness"]["all"]
    rhos, gaps = np.array(record["rhos"]), np.array(record["gap"])
    figure.set_size_inches(5.2, 3.9)
    axes = figure.subplots()
    low, high = record["suggested"]["low"], record["suggested"]["high"]
    if low or high:
        axes.axvspan(low or rhos[0], high or rhos[-1], color=PALETTE["green"][0], alpha=0.12, linewidth=0)
    counts = results["class_statistics"]["counts"]
    shown = {"largest": int(np.argmax(counts)), "smallest": len(counts) - 1 - int(np.argmin(counts[::-1]))}
    colours = subset_colours(["all", *(f"class {c}" for c in shown.values())])
    for k, c in enumerate(shown.values(), start=1):
        gap = np.array(record["classes"]["gap"][c], dtype=float)
        axes.plot(
            rhos,
            gap,
            **{**series_style(k).marked, "color": colours[f"class {c}"]},
            markersize=3,
            linewidth=1.2,
            label=_label(f"class {c}", results),
        )
    axes.plot(rhos, gaps, color=INK, linewidth=1.8, label=f"all {samples_of(results.get('task'))}")
    axes.plot(
        rhos,
        record["mean_batch_gradient_norm"] * rhos,
        color=INK,
        linewidth=0.9,
        linestyle=":",
        label=f"first order, all {samples_of(results.get('task'))}",
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(r"$\rho$")
    axes.set_ylabel(r"$L(w + \epsilon) - L(w)$")
    axes.set_title(_suggestion(low, high), fontsize=9)
    axes.legend(fontsize=8, frameon=False)


def _suggestion(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return "no range suggested: measure other radii"
    return f"suggested: $\\rho$ from {'?' if low is None else f'{low:.2g}'} to {'?' if high is None else f'{high:.2g}'}"


def _draw_lines(figure: Any, results: dict[str, Any], surface: dict[str, Any]) -> None:
    figure.set_size_inches(5.2, 3.6)
    axes = figure.subplots()
    shown = list(surface["loss"].items())[:MOST]
    colours = subset_colours([name for name, _ in shown])
    for k, (name, values) in enumerate(shown):
        axes.plot(
            surface["coordinates"][0],
            values,
            **{**series_style(k).line, "color": colours[name]},
            linewidth=1.5,
            label=_label(name, results),
        )
    axes.axvline(0, color=INK, linewidth=0.6, linestyle=DOTTED)
    axes.set_xlabel(_axis(surface, 0))
    axes.set_ylabel(f"mean loss ({_loss(results)})")
    axes.legend(fontsize=8, frameon=False)


def _draw_contours(figure: Any, results: dict[str, Any], surface: dict[str, Any]) -> None:
    from matplotlib.ticker import LogFormatterSciNotation, LogLocator

    shown = list(surface["loss"].items())
    columns = min(3, len(shown))
    figure.set_size_inches(1.2 + 2.9 * columns, 0.4 + 2.8 * -(-len(shown) // columns))
    panels = grid_of_panels(figure, len(shown), columns, sharex=True, sharey=True)
    x, y = (np.array(c) for c in surface["coordinates"])
    stacked = np.array([values for _, values in shown], dtype=float)
    positive = np.maximum(stacked, SURFACE_FLOOR)
    finite = positive[np.isfinite(positive)]  # a loss that overflowed leaves a hole
    lowest, highest = np.floor(np.log10(finite.min())), np.ceil(np.log10(finite.max()))
    levels = 10 ** np.linspace(lowest, highest, round(highest - lowest) * (4 if highest - lowest < 4 else 3) + 1)
    for axes, (name, _), values in zip(panels, shown, positive):
        filled = fill_surface(axes, x, y, values.T, levels, levels)
        axes.plot(0, 0, marker="+", color="white", markersize=9)
        axes.set_title(_label(name, results), fontsize=9)
        axes.set_box_aspect(1)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.tick_params(labelsize=8)
    floor = f", darkest: at most {SURFACE_FLOOR:g}" if np.nanmin(stacked) < SURFACE_FLOOR else ""
    bar = figure.colorbar(filled, ax=figure.axes, ticks=LogLocator(), format=LogFormatterSciNotation())
    bar.set_label(f"mean loss\n({_loss(results)}{floor})", fontsize=8)
    figure.supxlabel(_axis(surface, 0), fontsize=9)
    figure.supylabel(_axis(surface, 1), fontsize=9)


def _axis(surface: Mapping[str, Any], k: int) -> str:
    to = surface["directions"][k]
    return (
        f"0: these weights, 1: {figure_text(Path(to[3:]).name)}"
        if to.startswith("to ")
        else f"step along random direction {k + 1}"
    )
