"""Curvature of the loss, class by class: operator x algorithm, and the surroundings of a model.

The spectrum of a class, all in all:

    statistics = ClassStatistics.from_labels(labels)
    tail = make_subset("class 9", [9], choose_images(labels, 10, max_samples=300))
    chunks = Chunks(dataset, tail.rows, size=64)
    loss = MeanLoss(TrainableWeights(model), chunks, sample_losses_of(model, make_loss("cross_entropy"), statistics))
    with fixed_for_curvature(model):
        density = spectral_density(Hessian(loss), steps=100)        # lam_min, lam_max, moments, on_grid()
        traces = hutchinson(Hessian(loss), probes=10)
"""

from hf_ltsam.curvature.analysis import (
    CurvatureSettings,
    Sharpness,
    Spectrum,
    Subject,
    Surface,
    check_memory,
    density_of,
    sharpness_of,
    spectrum_of,
    surface_images,
    surface_of,
)
from hf_ltsam.curvature.bounds import Bound, escape_threshold, li_2025_bound, lyu_2025_bound, zhou_2023_bound
from hf_ltsam.curvature.density import Extreme, SpectralDensity, grid_moment, ratios, spectral_density
from hf_ltsam.curvature.hessian import Hessian, SymmetricOperator
from hf_ltsam.curvature.lanczos import Tridiagonal, lanczos, unit_start
from hf_ltsam.curvature.objective import Chunks, MeanLoss, class_means, fixed_for_curvature, sample_losses_of
from hf_ltsam.curvature.sharpness import DEFAULT_RHOS, RhoRange, SharpnessCurve, sharpness_curve, suggest_rho
from hf_ltsam.curvature.subsets import (
    ChosenImages,
    Subset,
    choose_images,
    class_index,
    group_classes,
    groups_of,
    make_subset,
)
from hf_ltsam.curvature.surface import Direction, filter_normalised, loss_surface, towards
from hf_ltsam.curvature.trace import Estimate, Traces, hutchinson

__all__ = [
    "DEFAULT_RHOS",
    "Bound",
    "ChosenImages",
    "Chunks",
    "CurvatureSettings",
    "Direction",
    "Estimate",
    "Extreme",
    "Hessian",
    "MeanLoss",
    "RhoRange",
    "Sharpness",
    "SharpnessCurve",
    "SpectralDensity",
    "Spectrum",
    "Subject",
    "Subset",
    "Surface",
    "SymmetricOperator",
    "Traces",
    "Tridiagonal",
    "check_memory",
    "choose_images",
    "class_index",
    "class_means",
    "density_of",
    "escape_threshold",
    "filter_normalised",
    "fixed_for_curvature",
    "grid_moment",
    "group_classes",
    "groups_of",
    "hutchinson",
    "lanczos",
    "li_2025_bound",
    "loss_surface",
    "lyu_2025_bound",
    "make_subset",
    "ratios",
    "sample_losses_of",
    "sharpness_curve",
    "sharpness_of",
    "spectral_density",
    "spectrum_of",
    "suggest_rho",
    "surface_images",
    "surface_of",
    "towards",
    "unit_start",
    "zhou_2023_bound",
]
