"""Every method once more, naively, from its paper: deep copies, loops over samples and `.backward()`.

Imports nothing of ours. A reference takes a `Problem` and returns one gradient per parameter of `problem.model`, in
order (None where the parameter is frozen). A sample of several classes, y (n, C), has the means over its shares: of the
losses, and of whatever a method gives to a class. What a method remembers it keeps in `problem.memory`; what it draws, it draws
from `problem.generator()`, one number per weight in the order of the parameters.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import nn

TINY = 1e-12
Gradient = list


@dataclass
class Problem:
    model: nn.Module
    x: torch.Tensor
    y: torch.Tensor
    counts: list[int]
    tail_threshold: int
    progress: float = 0.0
    step: int = 0
    memory: dict = field(default_factory=dict)
    generator: Callable[[], torch.Generator] = lambda: torch.Generator().manual_seed(0)

    @property
    def prior(self) -> list[float]:
        return [n / sum(self.counts) for n in self.counts]

    @property
    def shares(self) -> list[dict[int, float]]:
        """Of every sample, class -> share."""
        if self.y.ndim == 1:
            return [{label: 1.0} for label in self.y.tolist()]
        return [{c: share for c, share in enumerate(row) if share > 0} for row in self.y.tolist()]

    @property
    def members(self) -> dict[int, float]:
        """How many samples of the batch each of its classes has."""
        classes = sorted({c for shares in self.shares for c in shares})
        return {c: sum(shares.get(c, 0.0) for shares in self.shares) for c in classes}

    def is_tail(self, label: int) -> bool:
        return self.counts[label] <= self.tail_threshold


def G(problem: Problem, weight_of: Callable[[int], float], offset: Gradient | None = None) -> Gradient:
    """grad_w (1/n) sum_i a_i l_i(w + eps), where a_i depends on the label of sample i alone."""
    model = copy.deepcopy(problem.model)
    if offset is not None:
        with torch.no_grad():
            for p, e in zip(model.parameters(), offset):
                if e is not None:
                    p.add_(e)
    logits = model(problem.x)
    total = torch.zeros((), dtype=logits.dtype)
    for z, shares in zip(logits, problem.shares):
        weight = sum(share * weight_of(c) for c, share in shares.items())
        total = total + weight * sum(share * (torch.logsumexp(z, 0) - z[c]) for c, share in shares.items())
    (total / len(problem.y)).backward()
    return [
        None if not p.requires_grad else torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()
    ]


def combine(*terms: tuple[float, Gradient]) -> Gradient:
    """sum_k c_k v_k"""
    return [
        None if parts[0] is None else sum(c * v for (c, _), v in zip(terms, parts))
        for parts in zip(*(v for _, v in terms))
    ]


def norm(v: Gradient) -> float:
    return float(sum((t.double() ** 2).sum() for t in v if t is not None)) ** 0.5


def unit(v: Gradient) -> Gradient:
    return combine((1 / (norm(v) + TINY), v))


def one(_: int) -> float:
    return 1.0


def sgd(problem: Problem) -> Gradient:
    return G(problem, one)


def sam(problem: Problem, rho: float) -> Gradient:
    """Foret et al. 2021, Eq. 2 and 3."""
    return G(problem, one, combine((rho, unit(G(problem, one)))))


def asam(problem: Problem, rho: float, eta: float) -> Gradient:
    """Kwon et al. 2021: eps = rho T^2 g / ||T g|| with T = |w| + eta."""
    g = G(problem, one)
    T = [p.detach().abs() + eta for p in problem.model.parameters()]
    Tg = [None if v is None else t * v for t, v in zip(T, g)]
    TTg = [None if v is None else t * v for t, v in zip(T, Tg)]
    return G(problem, one, combine((rho / (norm(Tg) + TINY), TTg)))


def imbsam(problem: Problem, rho: float, tail_weight: float = 1.0, reduction: str = "batch") -> Gradient:
    """Li et al. 2025 Eq. 1: the head's loss as it is, the tail's loss at its own perturbation."""
    n = len(problem.y)
    n_tail = sum(count for c, count in problem.members.items() if problem.is_tail(c))
    head_factor = n / max(n - n_tail, 1) if reduction == "group" else 1.0
    tail_factor = n / max(n_tail, 1) if reduction == "group" else 1.0

    def head(c: int) -> float:
        return 0.0 if problem.is_tail(c) else head_factor

    def tail(c: int) -> float:
        return tail_factor if problem.is_tail(c) else 0.0

    eps = combine((rho, unit(G(problem, tail))))
    return combine((1.0, G(problem, head)), (tail_weight, G(problem, tail, eps)))


def sse_sam(problem: Problem, rho_head: float, rho_tail: float, gamma: float, normalizer: str = "total") -> Gradient:
    """Lyu et al. 2025 Alg. 1, steps 3 to 13."""
    if problem.progress >= gamma:
        rho_head = 0.0

    def head(c: int) -> float:
        return 0.0 if problem.is_tail(c) else 1.0

    def tail(c: int) -> float:
        return 1.0 if problem.is_tail(c) else 0.0

    g_head, g_tail = G(problem, head), G(problem, tail)
    total = norm(G(problem, one))
    N_head, N_tail = (total, total) if normalizer == "total" else (norm(g_head), norm(g_tail))
    eps_head = combine((rho_head / (N_head + TINY), g_head))
    eps_tail = combine((rho_tail / (N_tail + TINY), g_tail))
    return combine((1.0, G(problem, head, eps_head)), (1.0, G(problem, tail, eps_tail)))


def sam_ext(problem: Problem, rho_head: float, rho_tail: float, normalizer: str = "total") -> Gradient:
    """Lyu et al. 2025 Table 3: SSE-SAM that never leaves its first stage."""
    return sse_sam(problem, rho_head, rho_tail, gamma=2.0, normalizer=normalizer)


def focal_sam(problem: Problem, rho: float, gamma: float, lam: float, plain: str = "exact") -> Gradient:
    """Li et al. 2025 Alg. 1: g_1 at the perturbed weights, g_2 = grad(L - lam L^gamma), update with lam g_1 + g_2."""

    def focal(c: int) -> float:
        return (1 - problem.prior[c]) ** gamma

    g_focal = G(problem, focal)
    g_1 = G(problem, focal, combine((rho, unit(g_focal))))
    g_2 = combine((1.0, G(problem, one)), (-lam, g_focal))
    if plain == "reuse":  # methods.md: ((1 - c) / c) lam G(f) with c = sum of pi_c lam (1 - pi_c)^gamma
        c = sum(pi * lam * focal(y) for y, pi in enumerate(problem.prior))
        g_2 = combine(((1 - c) / c * lam, g_focal))
    return combine((lam, g_1), (1.0, g_2))


def gradient_norm(problem: Problem, rho: float, alpha: float) -> Gradient:
    """Zhou et al. 2023b Eq. 2."""
    return combine((1 - alpha, sgd(problem)), (alpha, sam(problem, rho)))


def wsam(problem: Problem, rho: float, gamma: float) -> Gradient:
    """Yue et al. 2023: L + gamma/(1 - gamma) (L_SAM - L)."""
    weight = gamma / (1 - gamma)
    g = sgd(problem)
    return combine((1.0, g), (weight, combine((1.0, sam(problem, rho)), (-1.0, g))))


def momentum_focal_sam(problem: Problem, rho: float, gamma: float, momentum: float, plain: str = "exact") -> Gradient:
    """One pass, at w + rho unit(m) with m = sum of momentum^k times the focal gradients of the steps before."""

    def focal(c: int) -> float:
        return (1 - problem.prior[c]) ** gamma

    past = problem.memory.setdefault("focal", [])
    eps = None
    if past:
        eps = combine((rho, unit(combine(*((momentum**k, g) for k, g in enumerate(reversed(past)))))))
    g_focal = G(problem, focal, eps)
    past.append(g_focal)
    if plain == "reuse":
        mean = sum(pi * focal(y) for y, pi in enumerate(problem.prior))
        return combine((1 / mean, g_focal))
    return G(problem, one, eps)


def gsa(problem: Problem, scale: float, groups: int, perturbation: str = "group") -> Gradient:
    """Chen et al. 2026 (GSA): each group's ascent without its projection on the whole gradient; CC-SAM's radius."""
    order = sorted(range(len(problem.counts)), key=lambda c: -problem.counts[c])
    parts, start = [], 0
    for k in range(min(groups, len(order))):  # of nearly equal size, larger ones first
        size = len(order) // min(groups, len(order)) + (k < len(order) % min(groups, len(order)))
        parts.append(order[start : start + size])
        start += size
    w = [p.detach() for p in problem.model.parameters() if p.requires_grad]
    d, length = sum(p.numel() for p in w), sum(float((p**2).sum()) for p in w) ** 0.5
    u = unit(sgd(problem))
    total, mean = None, None
    for part in parts:

        def own(label: int, part: list[int] = part) -> float:
            return 1.0 if label in part else 0.0

        members = sum(count for c, count in problem.members.items() if c in part)
        if members == 0:
            continue
        g_k = combine((len(problem.y) / members, G(problem, own)))
        r = combine((1.0, g_k), (-dot(g_k, u), u))
        n_k = sum(problem.counts[c] for c in part)
        rho = (length / (2 * norm(r) + TINY)) ** 0.5 * (d * max(n_k - 1, 1)) ** -0.25
        eps = combine((0.0, r)) if norm(r) <= 1e-4 * norm(g_k) else combine((scale * d**0.5 * rho, unit(r)))
        term = G(problem, own, eps)
        total = term if total is None else combine((1.0, total), (1.0, term))
        weighted = combine((members / len(problem.y), eps))
        mean = weighted if mean is None else combine((1.0, mean), (1.0, weighted))
    return total if perturbation == "group" else G(problem, one, mean)


def dot(a: Gradient, b: Gradient) -> float:
    return float(sum((x * y).sum() for x, y in zip(a, b) if x is not None))


def rejection(a: Gradient, b: Gradient) -> Gradient:
    """The part of a that is orthogonal to b."""
    return combine((1.0, a), (-dot(a, b) / dot(b, b), b))


def gsam(problem: Problem, rho: float, alpha: float) -> Gradient:
    """Zhuang et al. 2022, Alg. 1: descend along SAM's gradient, ascend along what of g is orthogonal to it."""
    g_s = sam(problem, rho)
    return combine((1.0, g_s), (-alpha, rejection(sgd(problem), g_s)))


def looksam(problem: Problem, rho: float, every: int, alpha: float) -> Gradient:
    """Liu et al. 2022, Alg. 1."""
    g = sgd(problem)
    if problem.step % every == 0:
        g_s = sam(problem, rho)
        problem.memory["v"] = rejection(g_s, g)
        return g_s
    v = problem.memory["v"]
    return combine((1.0, g), (alpha * norm(g) / (norm(v) + TINY), v))


def msam(problem: Problem, rho: float, momentum: float = 0.9) -> Gradient:
    """Momentum-SAM 2024: against the momentum by rho; the buffer is that of SGD."""
    m = problem.memory.get(
        "m", [None if not p.requires_grad else torch.zeros_like(p) for p in problem.model.parameters()]
    )
    g = G(problem, one, combine((-rho, unit(m))))
    problem.memory["m"] = combine((momentum, m), (1.0, g))
    return g


def le_sam(problem: Problem, sigma: float, rho_max: float) -> Gradient:
    """Wang et al. 2026: the ascent whose first-order gain is sigma, no further than rho_max."""
    g = sgd(problem)
    return G(problem, one, combine((min(sigma / (norm(g) + TINY), rho_max), unit(g))))


def mean_loss(problem: Problem, offset: Gradient) -> float:
    model = copy.deepcopy(problem.model)
    with torch.no_grad():
        for p, e in zip(model.parameters(), offset):
            if e is not None:
                p.add_(e)
        return float(torch.nn.functional.cross_entropy(model(problem.x), problem.y))


def xsam(problem: Problem, rho: float, rho_max: float, every: int) -> Gradient:
    """Chen et al. 2026: spherical interpolation between the gradient's direction and that at the ascent point."""
    u_0 = unit(sgd(problem))
    g_1 = sam(problem, rho)
    u_1 = unit(g_1)
    theta = math.acos(max(-1.0, min(1.0, dot(u_0, u_1))))

    def arc(alpha: float) -> Gradient:
        if math.sin(theta) <= 1e-6:
            return combine((1 - alpha, u_0), (alpha, u_1))
        return combine(
            (math.sin((1 - alpha) * theta) / math.sin(theta), u_0), (math.sin(alpha * theta) / math.sin(theta), u_1)
        )

    if problem.step % every == 0:
        grid = [k / 10 for k in range(21)]
        problem.memory["alpha"] = max(grid, key=lambda alpha: mean_loss(problem, combine((rho_max, arc(alpha)))))
    return combine((norm(g_1), arc(problem.memory["alpha"])))


def gnm(problem: Problem, sigma: float) -> Gradient:
    """Li et al. 2024 (GNM-PT): the gradient at a Gaussian neighbour."""
    return G(problem, one, combine((sigma, normal(problem, problem.generator()))))


def friendly_sam(problem: Problem, rho: float, sigma: float, beta: float) -> Gradient:
    """Li et al. 2024: the exponential average of all gradients so far stands for the full gradient."""
    g = sgd(problem)
    past = problem.memory.setdefault("g", [])
    past.append(g)
    t = len(past) - 1
    m = combine(*(((1 - beta) * beta ** (t - s), g_then) for s, g_then in enumerate(past)))
    return G(problem, one, combine((rho, unit(combine((1.0, g), (-sigma, m))))))


def normal(problem: Problem, generator: torch.Generator) -> Gradient:
    return [
        torch.randn(p.shape, generator=generator, dtype=p.dtype) if p.requires_grad else None
        for p in problem.model.parameters()
    ]


def pgd(problem: Problem, sigma: float) -> Gradient:
    """Rangwani et al. 2022 App. C: Gaussian noise of standard deviation sigma on the gradient."""
    return combine((1.0, sgd(problem)), (sigma, normal(problem, problem.generator())))


def lpf_sgd(problem: Problem, gamma: float, shards: int) -> Gradient:
    """Bisla et al. 2022, Alg. 4.1: part m of the batch at its own noise, filter by filter."""
    generator, n = problem.generator(), len(problem.y)
    total = None
    for rows in torch.arange(n).tensor_split(shards):
        if len(rows) == 0:
            continue
        eps = normal(problem, generator)
        for p, e in zip(problem.model.parameters(), eps):
            if e is None:
                continue
            if p.ndim == 1:
                e.mul_(gamma * p.detach().norm())
            else:
                for filter_of_e, filter_of_p in zip(e, p.detach()):
                    filter_of_e.mul_(gamma * filter_of_p.norm())
        part = replace(problem, x=problem.x[rows], y=problem.y[rows])
        share = (len(rows) / n, G(part, one, eps))
        total = combine(share) if total is None else combine((1.0, total), share)
    return total


def classifier_weights(problem: Problem) -> set[int]:
    """Of the layer with one output per class, linear or cosine, that is trained, by identity."""
    weights = [(m, getattr(m, "weight", None)) for m in problem.model.modules()]
    of_classes = [(m, w) for m, w in weights if w is not None and w.requires_grad and len(w) == len(problem.counts)]
    (layer,) = {id(w): m for m, w in of_classes}.values()  # the layer itself, where peft wraps it
    return {id(p) for p in layer.parameters()}


def masked(problem: Problem, v: Gradient, kept: set[int]) -> Gradient:
    return [
        None if t is None else t if id(p) in kept else torch.zeros_like(t)
        for p, t in zip(problem.model.parameters(), v)
    ]


def model_perturbation(problem: Problem, rho: float) -> Gradient:
    """Zhou et al. 2023b C.3: Gaussian noise of norm rho on the classifier."""
    xi = masked(problem, normal(problem, problem.generator()), classifier_weights(problem))
    return G(problem, one, combine((rho / norm(xi), xi)))


def cc_sam(
    problem: Problem,
    scale: float = 1e-2,
    mix: float = 1.0,
    norm: str = "global",
    class_weighting: str = "none",
    parameters: str = "classifier",
) -> Gradient:
    """Zhou et al. 2023b Eq. 1 and 16, one class at a time; `per_tensor` as in the published code."""
    trained = {id(p) for p in problem.model.parameters() if p.requires_grad}
    kept = trained & classifier_weights(problem) if parameters == "classifier" else trained
    w = [p.detach() for p in problem.model.parameters() if id(p) in kept]
    k = sum(p.numel() for p in w)
    length = sum(float((p**2).sum()) for p in w) ** 0.5
    total = combine((1 - mix, sgd(problem)))
    for c, members in problem.members.items():

        def own(label: int, c: int = c) -> float:
            return 1.0 if label == c else 0.0

        # of the class's mean loss, normalised (batch norm) with all others
        g_c = combine((len(problem.y) / members, masked(problem, G(problem, own), kept)))
        whole = sum(float((t**2).sum()) for t in g_c if t is not None) ** 0.5
        eps = []
        for t in g_c:
            size = None if t is None else whole if norm == "global" else float(t.norm())
            if t is None or size == 0:
                eps.append(t)
                continue
            rho_c = (length / (2 * size + TINY)) ** 0.5 * k**-0.25 * max(problem.counts[c] - 1, 1) ** -0.25
            eps.append(scale * k**0.5 * rho_c * t / (size + TINY))
        v_c = 1 / problem.prior[c] if class_weighting == "inverse_prior" else 1.0
        total = combine((1.0, total), (mix * v_c, G(problem, own, eps)))
    return total
