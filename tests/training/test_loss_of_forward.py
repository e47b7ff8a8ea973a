"""The loss inside a model's own forward, which no loss of samples reads: refused or told of, never passed over in silence."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from training.own_losses import text_classifier
from training.test_refusals import trainer

from hf_ltsam import ClassStatistics

TOKENS = torch.randint(0, 11, (12, 5), generator=torch.Generator().manual_seed(0))
CLASSES = [c % 3 for c in range(12)]
INDICES = [{"input_ids": x, "labels": c} for x, c in zip(TOKENS, CLASSES)]
ONE_HOT = [{"input_ids": x, "labels": torch.eye(3)[c]} for x, c in zip(TOKENS, CLASSES)]
SINGLE, SEVERAL, REGRESSION = "single_label_classification", "multi_label_classification", "regression"


def per_sample_bce(logits, labels, statistics):
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(1)


# ---- problem_type ----

# stated by the model, loss, data -> what the message must contain; None: it is trained
PROBLEM_TYPES = [
    (SEVERAL, "cross_entropy", ONE_HOT, ["loss='cross_entropy'", "'binary_cross_entropy'", "loss='model'", SINGLE]),
    (SEVERAL, "cross_entropy", INDICES, ["loss='cross_entropy'", "'binary_cross_entropy'", "loss='model'", SINGLE]),
    (SEVERAL, "focal", INDICES, ["loss='focal'", "'binary_cross_entropy'", "loss='model'", SINGLE]),
    (REGRESSION, "cross_entropy", ONE_HOT, ["loss='cross_entropy'", "loss='model'", SINGLE]),
    (REGRESSION, "binary_cross_entropy", ONE_HOT, ["loss='binary_cross_entropy'", "loss='model'", SEVERAL]),
    (SINGLE, "binary_cross_entropy", ONE_HOT, ["loss='binary_cross_entropy'", "'cross_entropy'", SEVERAL]),
    (SEVERAL, "binary_cross_entropy", ONE_HOT, None),
    (SINGLE, "cross_entropy", INDICES, None),
    (SINGLE, "cross_entropy", ONE_HOT, None),  # distillation
    (None, "cross_entropy", ONE_HOT, None),
    (None, "binary_cross_entropy", ONE_HOT, None),
    (SEVERAL, "model", ONE_HOT, None),
    (SEVERAL, per_sample_bce, ONE_HOT, None),  # a function of one's own says what it is
]


@pytest.mark.parametrize(("stated", "loss", "data", "parts"), PROBLEM_TYPES)
def test_a_problem_type_that_the_loss_is_not_of(stated, loss, data, parts, tmp_path):
    model = text_classifier(stated, 3)
    if parts is None:
        trainer(tmp_path, model, data, loss=loss, method="sam").train()
        assert model.config.problem_type in (stated, SEVERAL)  # stock's forward states one with loss='model'
        return
    with pytest.raises(ValueError, match=re.escape(f"problem_type='{stated}'")) as error:
        trainer(tmp_path, model, data, loss=loss)
    for part in parts:
        assert part in str(error.value)
    assert ("'binary_cross_entropy'" in str(error.value)) is ("'binary_cross_entropy'" in "".join(parts))


@pytest.mark.parametrize("adapted", [False, True])
def test_the_way_out_of_a_problem_type(adapted, tmp_path):
    model = text_classifier(SEVERAL, 3)
    if adapted:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(target_modules=["query"], modules_to_save=["classifier"]))
    with pytest.raises(ValueError, match="problem_type"):
        trainer(tmp_path, model, INDICES)
    model.config.problem_type = SINGLE
    trainer(tmp_path, model, INDICES).train()


def test_a_configuration_of_other_words_says_nothing(tmp_path):
    """Of a module that is none of transformers'."""
    model = nn.Linear(4, 3)
    model.config = type("Config", (), {"problem_type": "rare classes"})()
    data = [{"input": torch.randn(4), "labels": c} for c in CLASSES]
    trainer(tmp_path, model, data, statistics=ClassStatistics([4, 4, 4])).train()
