"""Every method once more, naively, from its paper: deep copies, loops over samples and `.backward()`.

Imports nothing of ours. A reference takes a `Problem` and returns one gradient per parameter of `problem.model`, in
order (None where the parameter is frozen).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

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

    @property
    def prior(self) -> list[float]:
        return [n / sum(self.counts) for n in self.counts]

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
    for z, label in zip(logits, problem.y.tolist()):
        total = total + weight_of(label) * (torch.logsumexp(z, 0) - z[label])
    (total / len(problem.y)).backward()
    return [None if not p.requires_grad else torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]


def combine(*terms: tuple[float, Gradient]) -> Gradient:
    """sum_k c_k v_k"""
    return [None if parts[0] is None else sum(c * v for (c, _), v in zip(terms, parts)) for parts in zip(*(v for _, v in terms))]


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
    """002 Eq. 1: the head's loss as it is, the tail's loss at its own perturbation."""
    n = len(problem.y)
    n_tail = sum(problem.is_tail(c) for c in problem.y.tolist())
    head_factor = n / max(n - n_tail, 1) if reduction == "group" else 1.0
    tail_factor = n / max(n_tail, 1) if reduction == "group" else 1.0

    def head(c: int) -> float:
        return 0.0 if problem.is_tail(c) else head_factor

    def tail(c: int) -> float:
        return tail_factor if problem.is_tail(c) else 0.0

    eps = combine((rho, unit(G(problem, tail))))
    return combine((1.0, G(problem, head)), (tail_weight, G(problem, tail, eps)))


def sse_sam(
    problem: Problem, rho_head: float, rho_tail: float, gamma: float, normalizer: str = "total"
) -> Gradient:
    """000 Alg. 1, steps 3 to 13."""
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
    """000 Table 3: SSE-SAM that never leaves its first stage."""
    return sse_sam(problem, rho_head, rho_tail, gamma=2.0, normalizer=normalizer)


def focal_sam(problem: Problem, rho: float, gamma: float, lam: float) -> Gradient:
    """002 Alg. 1: g_1 at the perturbed weights, g_2 = grad(L - lam L^gamma), update with lam g_1 + g_2."""

    def focal(c: int) -> float:
        return (1 - problem.prior[c]) ** gamma

    eps = combine((rho, unit(G(problem, focal))))
    g_1 = G(problem, focal, eps)
    g_2 = combine((1.0, G(problem, one)), (-lam, G(problem, focal)))
    return combine((lam, g_1), (1.0, g_2))
