"""Image classifiers; importing this package registers them with transformers' Auto classes."""

from transformers import AutoConfig, AutoModelForImageClassification

from hf_ltsam.models.clip_classifier import ClipForLongTail
from hf_ltsam.models.clip_config import ClipForLongTailConfig
from hf_ltsam.models.cosine_classifier import CosineClassifier
from hf_ltsam.models.cosine_head import CosineHeadConfig, CosineHeadForImageClassification
from hf_ltsam.models.resnet_cifar import CifarResNetConfig, CifarResNetForImageClassification

# exist_ok: a notebook may import the package again
for _config, _model in (
    (CifarResNetConfig, CifarResNetForImageClassification),
    (ClipForLongTailConfig, ClipForLongTail),
    (CosineHeadConfig, CosineHeadForImageClassification),
):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModelForImageClassification.register(_config, _model, exist_ok=True)

__all__ = [
    "CifarResNetConfig",
    "CifarResNetForImageClassification",
    "ClipForLongTail",
    "ClipForLongTailConfig",
    "CosineClassifier",
    "CosineHeadConfig",
    "CosineHeadForImageClassification",
]
