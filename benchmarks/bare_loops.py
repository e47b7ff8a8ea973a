"""Training loops written by hand in plain PyTorch, one pass after another, as one would without any library of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

Batches = Callable[[], Iterator[tuple[Tensor, Tensor]]]


@dataclass(frozen=True)
class Images:
    """uint8 (N, C, H, W) and labels (N,), on the host; mean and deviation per channel."""

    pixels: Tensor
    labels: Tensor
    mean: Sequence[float]
    std: Sequence[float]


def in_memory_batches(images: Images, size: int, device: torch.device) -> Batches:
    """Everything on the device; random crops, flips and normalisation of a batch at a time."""
    pixels, labels = images.pixels.to(device), images.labels.to(device)
    padded = F.pad(pixels, (4, 4, 4, 4))
    mean, std = (torch.tensor(v, device=device).view(-1, 1, 1) for v in (images.mean, images.std))
    side = torch.arange(pixels.shape[-1], device=device)
    channels = torch.arange(pixels.shape[1], device=device).view(1, -1, 1, 1)

    def epoch() -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(len(labels), device=device).split(size):
            top, left = torch.randint(0, 9, (2, len(rows), 1), device=device)
            y, x = top + side, left + side
            x = torch.where(torch.rand(len(rows), 1, device=device) < 0.5, x, x.flip(1))
            batch = padded[rows.view(-1, 1, 1, 1), channels, y[:, None, :, None], x[:, None, None, :]]
            yield (batch.float() / 255 - mean) / std, labels[rows]

    return epoch


class _OneByOne(Dataset[tuple[Tensor, int]]):
    def __init__(self, images: Images) -> None:
        self.pixels, self.labels = images.pixels.permute(0, 2, 3, 1).numpy(), images.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.ToPILImage(),
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(images.mean, images.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.pixels[index]), self.labels[index]


def loader_batches(images: Images, size: int, device: torch.device, workers: int) -> Batches:
    """torchvision's transforms, image by image, in a DataLoader."""
    loader = DataLoader(
        _OneByOne(images),
        size,
        shuffle=True,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
    )

    def epoch() -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in loader:
            yield x.to(device, non_blocking=True), y.to(device, non_blocking=True)

    return epoch


# ---- the passes of a step, each leaving its gradient in `.grad` ----

Passes = Callable[[nn.Module, list[nn.Parameter], Tensor, Tensor], None]
RHO = 0.05


def sgd(model: nn.Module, parameters: list[nn.Parameter], x: Tensor, y: Tensor) -> None:
    F.cross_entropy(_logits(model, x), y).backward()


def sam(model: nn.Module, parameters: list[nn.Parameter], x: Tensor, y: Tensor) -> None:
    gradients = torch.autograd.grad(F.cross_entropy(_logits(model, x), y), parameters)
    _perturbed(parameters, gradients, lambda: F.cross_entropy(_logits(model, x), y).backward())


def focal_sam(prior: Tensor) -> Passes:
    """Li et al. 2025 Alg. 1 with gamma = lam = 1: G(1 - f) + G(f, rho unit(G(f))), f = 1 - pi_y."""

    def passes(model: nn.Module, parameters: list[nn.Parameter], x: Tensor, y: Tensor) -> None:
        f = 1 - prior[y]
        losses = _losses(model, x, y)
        gradients = torch.autograd.grad((f * losses).mean(), parameters, retain_graph=True)
        ((1 - f) * losses).mean().backward()
        _perturbed(parameters, gradients, lambda: (f * _losses(model, x, y)).mean().backward())

    return passes


def imbsam(is_tail: Tensor) -> Passes:
    """Zhou et al. 2023a: G(head) + G(tail, rho unit(G(tail)))."""

    def passes(model: nn.Module, parameters: list[nn.Parameter], x: Tensor, y: Tensor) -> None:
        tail = is_tail[y].float()
        losses = _losses(model, x, y)
        gradients = torch.autograd.grad((tail * losses).mean(), parameters, retain_graph=True)
        ((1 - tail) * losses).mean().backward()
        _perturbed(parameters, gradients, lambda: (tail * _losses(model, x, y)).mean().backward())

    return passes


def _logits(model: nn.Module, x: Tensor) -> Tensor:
    return model(pixel_values=x).logits


def _losses(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(_logits(model, x), y, reduction="none")


@torch.no_grad()
def _perturbed(parameters: list[nn.Parameter], gradients: Sequence[Tensor], backward: Callable[[], None]) -> None:
    """A backward pass at w + rho g / |g|, added to what is in `.grad`."""
    kept = [p.clone() for p in parameters]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(gradients))))
    torch._foreach_add_(parameters, torch._foreach_mul(list(gradients), RHO / (norm + 1e-12)))
    with torch.enable_grad():
        backward()
    torch._foreach_copy_(parameters, kept)


def epoch_of(model: nn.Module, passes: Passes, batches: Batches, steps_in_all: int) -> Callable[[], None]:
    """One epoch: SGD with momentum and weight decay, cosine schedule."""
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps_in_all)

    def epoch() -> None:
        for x, y in batches():
            passes(model, parameters, x, y)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()

    return epoch
