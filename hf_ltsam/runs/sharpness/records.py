"""The records of `ltsam sharpness`: everything that a figure needs of a quantity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from hf_ltsam.curvature import (
    ChosenImages,
    RhoRange,
    SharpnessCurve,
    SpectralDensity,
    Subset,
    Traces,
    grid_moment,
    ratios,
)

MOMENTS = (1, 2, 3, 4)


def extremes_record(density: SpectralDensity) -> dict[str, Any]:
    """Both extreme eigenvalues, their bounds and both ratios."""
    low, high = density.lam_min, density.lam_max
    return {"lam_min": asdict(low), "lam_max": asdict(high), "ratios": ratios(low.value, high.value)}


def spectrum_record(density: SpectralDensity, traces: Traces, loss: float, gradient_norm: float) -> dict[str, Any]:
    """Eigenvalues, trace, density and the errors of its moments.

    Args:
        loss: L(w).
        gradient_norm: |grad L(w)|; far from 0 the model is not at a critical point of this loss.
    """
    grid, phi, sigma = density.on_grid()
    return {
        "loss": loss,
        "gradient_norm": gradient_norm,
        **extremes_record(density),
        "trace": asdict(traces.trace),
        "trace_of_square": asdict(traces.trace_of_square),
        "trace_by_lanczos": {
            "value": density.size * density.moment(1),
            "standard_error": density.size * density.moment_error(1),
        },
        "density": {
            "grid": grid.tolist(),
            "values": phi.tolist(),
            "kernel_deviation": sigma,
            "nodes": density.nodes.tolist(),
            "weights": density.weights.tolist(),
        },
        "moments": [_moment(density, traces, grid, phi, order) for order in MOMENTS],
    }


def _moment(density: SpectralDensity, traces: Traces, grid: Tensor, phi: Tensor, order: int) -> dict[str, Any]:
    """A moment by quadrature, on the smoothed grid, and from other random vectors where there is an estimate."""
    others = {1: traces.trace, 2: traces.trace_of_square}
    independent = others.get(order)
    P = density.size
    return {
        "order": order,
        "value": density.moment(order),
        "standard_error": density.moment_error(order),
        "of_smoothed_density": grid_moment(grid, phi, order),
        "independent": None if independent is None else independent.value / P,
        "independent_standard_error": None if independent is None else independent.standard_error / P,
    }


def subset_record(subset: Subset) -> dict[str, Any]:
    """Whose mean loss it is."""
    return {"classes": list(subset.classes), "samples": len(subset)}


def sharpness_record(curve: SharpnessCurve, suggested: RhoRange, chance: float) -> dict[str, Any]:
    """The curve of the mean and of every class, and the range that it suggests."""
    return {
        "rhos": curve.rhos.tolist(),
        "loss": curve.loss,
        "gap": curve.mean_gaps.tolist(),
        "mean_batch_gradient_norm": curve.slope,
        "loss_without_information": chance,
        "suggested": asdict(suggested),
        "classes": {"loss": curve.losses.tolist(), "gap": curve.gaps.T.tolist()},  # gap: (C, R)
        "definition": "mean over mini-batches of L(w + rho unit(g)) - L(w), g the gradient of the mini-batch's mean loss, "
        "in evaluation mode",
    }


def surface_record(
    coordinates: Sequence[Sequence[float]],
    directions: Sequence[str],
    class_losses: Tensor,
    subsets: Sequence[Subset],
    counts: Sequence[int],
) -> dict[str, Any]:
    """Mean loss of every subset at every point.

    Args:
        coordinates: of each direction.
        directions: in words.
        class_losses: (..., C); NaN for classes without images.
        counts: n_c.
    """
    n = torch.tensor(counts, dtype=torch.float64)
    means = {
        s.name: class_losses[..., list(s.classes)] @ (n[list(s.classes)] / n[list(s.classes)].sum()) for s in subsets
    }
    return {
        "coordinates": [list(c) for c in coordinates],
        "directions": list(directions),
        "classes": {s.name: list(s.classes) for s in subsets},
        "loss": {name: values.tolist() for name, values in means.items()},
    }


def samples_record(chosen: ChosenImages, subsets: Sequence[Subset]) -> dict[str, Any]:
    """Which images: the rule, and the rows themselves where not all were taken."""
    record: dict[str, Any] = {"rule": chosen.rule, "max_samples": chosen.max_samples, "seed": chosen.seed}
    if chosen.max_samples is not None:
        classes = sorted({c for subset in subsets for c in subset.classes})
        record["rows"] = {c: chosen.rows[c].tolist() for c in classes}
    return record


def summary(record: Mapping[str, Any]) -> list[str]:
    """One row of the table on the screen."""
    ratio = record["ratios"]
    trace = record["trace"]
    error = trace["standard_error"]
    return [
        f"{record['samples']}",
        f"{record['loss']:.4g}",
        f"{record['lam_max']['value']:.4g}",
        f"{record['lam_min']['value']:.4g}",
        _number(ratio["abs_min_over_max"]),
        _number(ratio["abs_max_over_min"]),
        f"{trace['value']:.4g}" + ("" if error is None else f" ± {error:.2g}"),
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
