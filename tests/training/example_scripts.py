"""What transformers' and peft's example scripts do, small and in our own words; the two names are arguments.

After examples/pytorch/image-classification/run_image_classification.py and text-classification/run_classification.py of
transformers, and examples/image_classification of peft.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from peft import LoraConfig, get_peft_model
from PIL import Image as Pictures
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torchvision.transforms import CenterCrop, Compose, Normalize, RandomHorizontalFlip, Resize, ToTensor
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    HfArgumentParser,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

BIRDS = ("finch", "heron", "owl")
TONES = ("bad", "good", "plain")
WORDS = {"bad": ("dull", "slow"), "good": ("fine", "quick"), "plain": ("some", "thing")}


def pictures(counts, seed, column="label"):
    """Images of 20 x 16 pixels, each class around a grey of its own."""
    noise = np.random.default_rng(seed)
    labels = [c for c, n in enumerate(counts) for _ in range(n)]
    greys = [np.clip(noise.normal(60 + 60 * c, 20, (20, 16, 3)), 0, 255).astype(np.uint8) for c in labels]
    features = Features({"image": Image(), column: ClassLabel(names=list(BIRDS))})
    return Dataset.from_dict({"image": list(map(Pictures.fromarray, greys)), column: labels}, features=features)


def vit(names):
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=16,
        patch_size=8,
        hidden_dropout_prob=0.1,
        id2label={str(i): name for i, name in enumerate(names)},
        label2id={name: str(i) for i, name in enumerate(names)},
    )
    return ViTForImageClassification(config)


@dataclass
class ScriptArguments:
    label_column_name: str = "label"
    max_train_samples: int | None = None
    random_flips: bool = field(default=False, metadata={"help": "Else the transforms are the same for every epoch."})


def accuracy(prediction):
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    return {"accuracy": float((np.argmax(logits, axis=1) == prediction.label_ids).mean())}


def image_classification(trainer_class, arguments_class, words):
    """run_image_classification.py."""
    script, args = HfArgumentParser((ScriptArguments, arguments_class)).parse_args_into_dataclasses(words)
    column = script.label_column_name
    data = DatasetDict({"train": pictures((9, 5, 2), 0, column), "validation": pictures((3, 3, 3), 1, column)})

    def collate(examples):
        pixels = torch.stack([example["pixel_values"] for example in examples])
        return {"pixel_values": pixels, "labels": torch.tensor([example[column] for example in examples])}

    processor = ViTImageProcessor(size={"height": 16, "width": 16})
    end = [ToTensor(), Normalize(mean=processor.image_mean, std=processor.image_std)]
    flips = [RandomHorizontalFlip()] if script.random_flips else []
    for_training, for_test = (
        Compose([Resize(16), CenterCrop(16), *flips, *end]),
        Compose([Resize(16), CenterCrop(16), *end]),
    )

    def train_transforms(batch):
        batch["pixel_values"] = [for_training(picture.convert("RGB")) for picture in batch["image"]]
        return batch

    def test_transforms(batch):
        batch["pixel_values"] = [for_test(picture.convert("RGB")) for picture in batch["image"]]
        return batch

    if script.max_train_samples is not None:
        data["train"] = data["train"].shuffle(seed=args.seed).select(range(script.max_train_samples))
    data["train"].set_transform(train_transforms)
    data["validation"].set_transform(test_transforms)
    trainer = trainer_class(
        model=vit(data["train"].features[column].names),
        args=args,
        train_dataset=data["train"] if args.do_train else None,
        eval_dataset=data["validation"] if args.do_eval else None,
        compute_metrics=accuracy,
        processing_class=processor,
        data_collator=collate,
    )
    result = trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_model()
    trainer.log_metrics("train", result.metrics)
    trainer.save_metrics("train", result.metrics)
    trainer.save_state()
    metrics = trainer.evaluate()
    trainer.log_metrics("eval", metrics)
    trainer.save_metrics("eval", metrics)
    trainer.create_model_card(finetuned_from="tiny/vit", tasks="image-classification", dataset="birds", tags=["vision"])
    return trainer, metrics


def sentences(per_class, seed):
    noise = np.random.default_rng(seed)
    rows = [
        {"idx": 10 * c + i, "sentence": " ".join(noise.choice(WORDS[tone], 2 + i % 3)), "label": c}
        for c, tone in enumerate(TONES)
        for i in range(per_class[c])
    ]
    features = Features({"idx": Value("int32"), "sentence": Value("string"), "label": ClassLabel(names=list(TONES))})
    return Dataset.from_list(rows, features=features)


def word_tokenizer():
    words = ["[PAD]", "[UNK]", *(word for pair in WORDS.values() for word in pair)]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


def text_classification(trainer_class, arguments_class, words):
    """run_classification.py: sentences beside what the tokenizer makes of them, batches padded as they come."""
    _, args = HfArgumentParser((ScriptArguments, arguments_class)).parse_args_into_dataclasses(words)
    raw = DatasetDict(train=sentences((9, 5, 2), 0), validation=sentences((3, 3, 3), 1), test=sentences((2, 2, 2), 2))
    tokenizer = word_tokenizer()
    data = raw.map(lambda batch: tokenizer(batch["sentence"], max_length=8, truncation=True), batched=True)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        id2label=dict(enumerate(TONES)),
        label2id={tone: c for c, tone in enumerate(TONES)},
    )
    trainer = trainer_class(
        model=BertForSequenceClassification(config),
        args=args,
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        compute_metrics=accuracy,
        processing_class=tokenizer,
    )
    trainer.train()
    metrics = trainer.evaluate(eval_dataset=data["validation"])
    unlabelled = data["test"].remove_columns("label")
    predicted = trainer.predict(unlabelled, metric_key_prefix="predict").predictions
    return trainer, {**metrics, "predicted": np.argmax(predicted, axis=1).tolist()}


def lora_image_classification(trainer_class, arguments_class, words):
    """peft's example: LoRA in the attention, the classifier trained and saved as a whole, the best checkpoint kept."""
    _, args = HfArgumentParser((ScriptArguments, arguments_class)).parse_args_into_dataclasses(words)
    processor = ViTImageProcessor(size={"height": 16, "width": 16})
    see = Compose([Resize((16, 16)), ToTensor(), Normalize(mean=processor.image_mean, std=processor.image_std)])

    def transformed(batch):
        batch["pixel_values"] = [see(picture.convert("RGB")) for picture in batch["image"]]
        return batch

    train, test = pictures((9, 5, 2), 0), pictures((3, 3, 3), 1)
    train.set_transform(transformed)
    test.set_transform(transformed)
    layers = ["q_proj", "v_proj", "query", "value"]
    low_rank = LoraConfig(r=4, lora_alpha=4, target_modules=layers, lora_dropout=0.1, modules_to_save=["classifier"])

    def collate(examples):
        pixels = torch.stack([example["pixel_values"] for example in examples])
        return {"pixel_values": pixels, "labels": torch.tensor([example["label"] for example in examples])}

    trainer = trainer_class(
        get_peft_model(vit(BIRDS), low_rank),
        args,
        train_dataset=train,
        eval_dataset=test,
        processing_class=processor,
        compute_metrics=accuracy,
        data_collator=collate,
    )
    trainer.train()
    return trainer, trainer.evaluate(test)
