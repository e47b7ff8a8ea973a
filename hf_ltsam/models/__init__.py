"""Models; importing them teaches transformers' Auto classes their names."""

from transformers import AutoConfig, AutoModelForImageClassification

from .cosine_classifier import CosineClassifier
from .resnet_cifar import CifarResNetConfig, CifarResNetForImageClassification

# exist_ok: a module may be imported anew, in a notebook say
AutoConfig.register(CifarResNetConfig.model_type, CifarResNetConfig, exist_ok=True)
AutoModelForImageClassification.register(CifarResNetConfig, CifarResNetForImageClassification, exist_ok=True)

__all__ = ["CifarResNetConfig", "CifarResNetForImageClassification", "CosineClassifier"]
