"""Classifiers of images and texts; importing this package registers them with transformers' Auto classes."""

from transformers import AutoConfig, AutoModelForImageClassification, AutoModelForSequenceClassification

from hf_ltsam.models.clip_classifier import ClipForLongTail
from hf_ltsam.models.clip_config import ClipForLongTailConfig
from hf_ltsam.models.cosine_classifier import CosineClassifier
from hf_ltsam.models.cosine_head import (
    CosineHeadConfig,
    CosineHeadForImageClassification,
    CosineHeadForSequenceClassification,
    CosineHeadForTextsConfig,
)
from hf_ltsam.models.resnet_cifar import CifarResNetConfig, CifarResNetForImageClassification

# exist_ok: a notebook may import the package again
for _config, _model, _auto_class in (
    (CifarResNetConfig, CifarResNetForImageClassification, AutoModelForImageClassification),
    (ClipForLongTailConfig, ClipForLongTail, AutoModelForImageClassification),
    (CosineHeadConfig, CosineHeadForImageClassification, AutoModelForImageClassification),
    (CosineHeadForTextsConfig, CosineHeadForSequenceClassification, AutoModelForSequenceClassification),
):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    _auto_class.register(_config, _model, exist_ok=True)

__all__ = [
    "CifarResNetConfig",
    "CifarResNetForImageClassification",
    "ClipForLongTail",
    "ClipForLongTailConfig",
    "CosineClassifier",
    "CosineHeadConfig",
    "CosineHeadForImageClassification",
    "CosineHeadForSequenceClassification",
    "CosineHeadForTextsConfig",
]
