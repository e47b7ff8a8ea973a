"""CUDA's graphs on the CPU, for `torch.cuda.make_graphed_callables` itself: kernels are noted down and run again where they ran.

Nothing else of a pass is: Python runs once. Memory that a captured backward pass gives back belongs to the kernels after it, so
it is spoilt once they have run.
"""

from contextlib import contextmanager, nullcontext

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only


def tensors(tree):
    return [t for t in tree_leaves(tree) if isinstance(t, torch.Tensor)]


def memory(tensor):
    return tensor.untyped_storage()._cdata


class Graph(TorchDispatchMode):
    """One capture: (operation, arguments, results) of every kernel, and what its end left to others."""

    def __init__(self):
        super().__init__()
        self.kernels, self.reused = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = args, kwargs or {}
        out = func(*given[0], **given[1])
        if "empty" not in func.__name__:
            self.kernels.append((func, *tree_map_only(torch.Tensor, torch.Tensor.detach, (*given, out))))
        return out

    @torch.no_grad()
    def replay(self):
        for func, args, kwargs, out in self.kernels:
            read = {memory(t) for t in tensors((args, kwargs))}
            for at, new in zip(tensors(out), tensors(func(*args, **kwargs)), strict=True):
                if memory(at) not in read:
                    at.copy_(new)
        for tensor in self.reused:
            tensor.fill_(float("nan"))

    def written(self):
        """Tensors of every piece of memory that is this graph's own."""
        for _, args, kwargs, out in self.kernels:
            yield from (t for t in tensors(out) if memory(t) not in {memory(a) for a in tensors((args, kwargs))})


def in_memory(monkeypatch):
    """`torch.cuda` as it is, but for its graphs; the captures are appended to the list that is given back."""
    captures = []

    @contextmanager
    def capture(graph, pool, **_):
        with graph:
            yield
        for forward in (c for c, p in captures if p is pool):
            aliases = [memory(t) for g in (forward, graph) for t in tensors(g.kernels)]
            graph.reused += [
                t
                for t in forward.written()
                if t.is_floating_point() and torch._C._storage_Use_Count(memory(t)) == aliases.count(memory(t)) + 1
            ]
        captures.append((graph, pool))

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda.graphs, "graph_pool_handle", object)
    monkeypatch.setattr(torch.cuda, "Stream", object)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    return captures
