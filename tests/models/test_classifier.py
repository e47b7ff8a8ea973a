"""The classifier of a model is identified by its type and size, or refused with names."""

import pytest
import torch
from methods.problems import MODELS
from torch import nn

from hf_ltsam import CifarResNetConfig, CifarResNetForImageClassification
from hf_ltsam.landscape.weights import TrainableWeights
from hf_ltsam.models import CosineClassifier
from hf_ltsam.models.classifier import classifier_of


@pytest.mark.parametrize("model", MODELS)
def test_found_in_every_small_model(model):
    classifier = classifier_of(MODELS[model](), 4)
    assert isinstance(classifier, nn.Linear) and classifier.out_features == 4


@pytest.mark.parametrize(("head", "kind"), [("linear", nn.Linear), ("cosine", CosineClassifier)])
def test_found_in_our_resnets(head, kind):
    model = CifarResNetForImageClassification(CifarResNetConfig(depth=8, num_labels=5, head=head))
    assert type(classifier_of(model, 5)) is kind


def test_found_in_a_vision_transformer():
    from transformers import ViTConfig, ViTForImageClassification

    model = ViTForImageClassification(
        ViTConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=8,
            patch_size=4,
            num_labels=5,
        )
    )
    assert classifier_of(model, 5) is model.classifier


def test_a_frozen_copy_is_not_the_classifier():
    """PEFT keeps the original head beside the one that is trained."""
    model = nn.ModuleDict({"original": nn.Linear(6, 4).requires_grad_(False), "trained": nn.Linear(6, 4)})
    assert classifier_of(model, 4) is model["trained"]


def test_ambiguous_is_refused_by_name():
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 4))
    with pytest.raises(
        ValueError, match=r"Sequential cannot be told .*: '0' and '2' could each be it.*parameters='all'"
    ):
        classifier_of(model, 4)


@pytest.mark.parametrize(
    "model", [nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten()), nn.Linear(6, 4).requires_grad_(False)]
)
def test_none_is_refused(model):
    with pytest.raises(ValueError, match=r"no trainable nn\.Linear or CosineClassifier has 4 outputs.*thaw"):
        classifier_of(model, 4)


def test_parameters_of_a_module_among_the_trained_ones():
    model = MODELS["tied"]()
    model.classifier.weight.requires_grad_(False)
    weights = TrainableWeights(model)
    assert weights.of_module(model.classifier) == [False, False, False, True]
    assert weights.of_module(model.second) == [True, False, True, False]  # the weight is the first layer's too


def test_only_and_normal_like():
    from hf_ltsam.landscape.vector import WeightVector

    v = WeightVector([torch.ones(2), torch.ones(3)], 2.0)
    assert [t.tolist() for t in v.only([False, True]).materialize()] == [[0, 0], [2, 2, 2]]
    first, again = (v.normal_like(torch.Generator().manual_seed(1)) for _ in range(2))
    assert all(map(torch.equal, first.tensors, again.tensors)) and first.tensors[0].shape == (2,)
    many = WeightVector([torch.empty(20_000)]).normal_like(torch.Generator().manual_seed(1)).tensors[0]
    assert abs(many.mean()) < 0.03 and abs(many.std() - 1) < 0.03
