"""Tiny models with a loss of their own, in float64, and what their training does, once more from the equation.

A reference imports nothing of ours: it takes the batches of a step and a function that gives the loss of one, as the step
counts it, and steps by plain gradient descent.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForSequenceClassification,
    DetrConfig,
    DetrForObjectDetection,
    LlamaConfig,
    LlamaForCausalLM,
    ResNetConfig,
    SegformerConfig,
    SegformerForSemanticSegmentation,
)

Batch = dict[str, Any]
NUM_SAMPLES = 10
BATCH_SIZE = 2
LEARNING_RATE = 0.1


def language_model() -> nn.Module:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=11,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=16,
            use_cache=False,
        )
    )


def texts() -> list[Batch]:
    """Of six tokens; the first ones of each, another number every time, are a prompt without a loss."""
    tokens = torch.randint(3, 11, (NUM_SAMPLES, 6))
    labels = [torch.where(torch.arange(6) < i % 4 + 1, -100, row) for i, row in enumerate(tokens)]
    return [{"input_ids": row, "labels": y} for row, y in zip(tokens, labels)]


def token_loss(model: nn.Module, batch: Batch, step: list[Batch]) -> Tensor:
    """-log p of the tokens that have a label, over their number in the whole step. The model's own logits are float32 there."""
    logits = model(input_ids=batch["input_ids"]).logits.float()
    labels = [y[1:] for y in batch["labels"]]
    total = sum(F.cross_entropy(z[:-1], y, ignore_index=-100, reduction="sum") for z, y in zip(logits, labels))
    return total / sum(int((b["labels"][:, 1:] != -100).sum()) for b in step)


def detector() -> nn.Module:
    backbone = ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    return DetrForObjectDetection(
        DetrConfig(
            use_timm_backbone=False,
            backbone=None,
            backbone_config=backbone,
            d_model=8,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=8,
            decoder_ffn_dim=8,
            num_queries=3,
            num_labels=2,
            dropout=0.0,
        )
    )


def scenes() -> list[Batch]:
    boxes = torch.rand(NUM_SAMPLES, 2, 4) * 0.5 + 0.25
    return [
        {
            "pixel_values": torch.randn(3, 16, 16),
            "labels": {"class_labels": torch.tensor([i % 2, 1])[: 1 + i % 2], "boxes": boxes[i, : 1 + i % 2]},
        }
        for i in range(NUM_SAMPLES)
    ]


def with_lists(samples: list[Batch]) -> Batch:
    """Labels of a scene have another shape than those of the next."""
    return {
        "pixel_values": torch.stack([s["pixel_values"] for s in samples]),
        "labels": [s["labels"] for s in samples],
    }


def mean_of_model(model: nn.Module, batch: Batch, step: list[Batch]) -> Tensor:
    """Hungarian matching and all, as the model has it: the mean over the micro-batches."""
    return model(**batch).loss / len(step)


def segmenter() -> nn.Module:
    """With batch norm in its head."""
    return SegformerForSemanticSegmentation(
        SegformerConfig(
            num_encoder_blocks=1,
            depths=[1],
            sr_ratios=[1],
            hidden_sizes=[8],
            patch_sizes=[3],
            strides=[2],
            num_attention_heads=[1],
            mlp_ratios=[1],
            decoder_hidden_size=8,
            num_labels=3,
            classifier_dropout_prob=0.0,
            drop_path_rate=0.0,
            semantic_loss_ignore_index=255,
        )
    )


def maps() -> list[Batch]:
    labels = torch.randint(0, 3, (NUM_SAMPLES, 8, 8))
    labels[:, 0, :3] = 255
    return [{"pixel_values": torch.randn(3, 8, 8), "labels": y} for y in labels]


def pixel_loss(model: nn.Module, batch: Batch, step: list[Batch]) -> Tensor:
    """A mean over the pixels of the micro-batch."""
    logits = F.interpolate(model(pixel_values=batch["pixel_values"]).logits, size=(8, 8), mode="bilinear")
    return F.cross_entropy(logits, batch["labels"], ignore_index=255)


def text_classifier(problem: str, num_labels: int) -> nn.Module:
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=11,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
            max_position_embeddings=8,
            num_labels=num_labels,
            problem_type=problem,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )


def multi_labelled() -> list[Batch]:
    labels = (torch.rand(NUM_SAMPLES, 3) < 0.4).double()
    return [{"input_ids": torch.randint(0, 11, (5,)), "labels": y} for y in labels]


def multi_label_loss(model: nn.Module, batch: Batch, step: list[Batch]) -> Tensor:
    z, y = model(input_ids=batch["input_ids"]).logits, batch["labels"]
    return -(y * F.logsigmoid(z) + (1 - y) * F.logsigmoid(-z)).mean()


def measured() -> list[Batch]:
    return [{"input_ids": torch.randint(0, 11, (5,)), "labels": torch.randn(())} for _ in range(NUM_SAMPLES)]


def squared_error(model: nn.Module, batch: Batch, step: list[Batch]) -> Tensor:
    return (model(input_ids=batch["input_ids"]).logits[:, 0] - batch["labels"]).square().mean()


def translator() -> nn.Module:
    return BartForConditionalGeneration(
        BartConfig(
            vocab_size=13,
            d_model=8,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=8,
            decoder_ffn_dim=8,
            max_position_embeddings=16,
            dropout=0.0,
            pad_token_id=1,
            bos_token_id=0,
            eos_token_id=2,
            decoder_start_token_id=2,
            forced_eos_token_id=None,
        )
    )


def sentences() -> list[Batch]:
    targets = torch.randint(3, 13, (NUM_SAMPLES, 5))
    labels = [torch.where(torch.arange(5) > 1 + i % 4, -100, row) for i, row in enumerate(targets)]
    return [{"input_ids": torch.randint(3, 13, (4,)), "labels": y} for y in labels]


def sequence_loss(model: nn.Module, batch: Batch, step: list[Batch]) -> Tensor:
    """-log p of the target's tokens, a mean over those of the micro-batch."""
    start = torch.full((len(batch["labels"]), 1), 2)
    shifted = torch.cat([start, batch["labels"][:, :-1]], dim=1)
    logits = model(input_ids=batch["input_ids"], decoder_input_ids=shifted.where(shifted != -100, 1)).logits
    return F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=-100)


@dataclass(frozen=True)
class OwnLoss:
    """A model, its data, and what a micro-batch adds to the loss of its step.

    Many models take `num_items_in_batch` without using it, and the stock step then adds up the means of the micro-batches
    (transformers#47688): so do the losses here. Labels of a detector are lists, which are not counted: its step has the mean.
    """

    model: Callable[[], nn.Module]
    data: Callable[[], list[Batch]]
    loss: Callable[[nn.Module, Batch, list[Batch]], Tensor]
    collator: Callable[[list[Batch]], Batch] | None = None


OWN_LOSSES = {
    "language model": OwnLoss(language_model, texts, token_loss),
    "detector": OwnLoss(detector, scenes, mean_of_model, with_lists),
    "segmentation": OwnLoss(segmenter, maps, pixel_loss),
    "multi-label": OwnLoss(lambda: text_classifier("multi_label_classification", 3), multi_labelled, multi_label_loss),
    "regression": OwnLoss(lambda: text_classifier("regression", 1), measured, squared_error),
    "sequences": OwnLoss(translator, sentences, sequence_loss),
}


def made(name: str) -> tuple[nn.Module, list[Batch]]:
    torch.manual_seed(0)
    own = OWN_LOSSES[name]
    return own.model(), own.data()


def stacked(samples: list[Batch]) -> Batch:
    return {key: torch.stack([s[key] for s in samples]) for key in samples[0]}


def steps_of(name: str, data: list[Batch], accumulation: int) -> list[list[Batch]]:
    """The micro-batches of each step of an epoch, in the order of the data; the last step may have fewer."""
    collate = OWN_LOSSES[name].collator or stacked
    batches = [collate(data[i : i + BATCH_SIZE]) for i in range(0, len(data), BATCH_SIZE)]
    return [batches[i : i + accumulation] for i in range(0, len(batches), accumulation)]


def gradients_of(losses: list[Tensor], parameters: list[nn.Parameter]) -> list[Tensor]:
    found = torch.autograd.grad(sum(losses), parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found)]


def sam_step(model: nn.Module, losses: Callable[[nn.Module], list[Tensor]], rho: float) -> list[Tensor]:
    """Foret et al. 2021: the gradient at w + rho g / ||g||, of losses that count together."""
    moved = copy.deepcopy(model)
    parameters = [p for p in moved.parameters() if p.requires_grad]
    g = gradients_of(losses(moved), parameters)
    norm = float(sum(t.square().sum() for t in g)) ** 0.5
    with torch.no_grad():
        for p, t in zip(parameters, g):
            p.add_(rho / (norm + 1e-12) * t)
    return gradients_of(losses(moved), parameters)


def train_by_hand(
    model: nn.Module,
    steps: list[list[Batch]],
    loss: Callable[[nn.Module, Batch, list[Batch]], Tensor],
    rho: float,
    scope: str = "micro",
) -> nn.Module:
    """SAM with plain gradient descent; in each step the micro-batches are perturbed one by one, or all together."""
    model = copy.deepcopy(model).train()
    for step in steps:
        groups = [step] if scope == "step" else [[batch] for batch in step]
        found = [sam_step(model, lambda m, g=group, s=step: [loss(m, b, s) for b in g], rho) for group in groups]
        with torch.no_grad():
            for p, parts in zip([p for p in model.parameters() if p.requires_grad], zip(*found)):
                p.sub_(LEARNING_RATE * sum(parts))
    return model
