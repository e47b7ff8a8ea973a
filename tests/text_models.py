"""Tiny models of texts with their tokenizers, and texts with a tail."""

import json

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2Model,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "ship", "grain", "gold", "price", "of", "the", "rose", "fell", "today"]
SUBJECTS = {"crops": "grain", "metal": "gold", "trade": "ship"}  # class -> the word that tells it
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 13}
WIDE = {"initializer_range": 0.5}  # so that few steps teach them


def tokenizer(**special):
    words = Tokenizer(models.WordLevel({word: c for c, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", **special)


def save_encoder(folder, kind="bert", positions=32, width=16):
    """A pretrained encoder without a classifier."""
    sizes = {**SIZES, "hidden_size": width, "intermediate_size": width}
    made = {
        "bert": lambda: BertModel(BertConfig(**sizes, **WIDE, max_position_embeddings=positions)),
        "roberta": lambda: RobertaModel(
            RobertaConfig(**SIZES, **WIDE, max_position_embeddings=positions, pad_token_id=0)
        ),
        "distilbert": lambda: DistilBertModel(
            DistilBertConfig(
                dim=16, n_layers=2, n_heads=2, hidden_dim=16, vocab_size=13, max_position_embeddings=positions
            )
        ),
    }[kind]()
    made.save_pretrained(folder)
    tokenizer(pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]").save_pretrained(folder)
    return folder


def save_decoder(folder):
    """A GPT-2, whose tokenizer has no pad token."""
    config = GPT2Config(
        **WIDE, n_embd=16, n_layer=1, n_head=2, vocab_size=13, n_positions=32, bos_token_id=3, eos_token_id=3
    )
    GPT2Model(config).save_pretrained(folder)
    tokenizer(eos_token="[SEP]").save_pretrained(folder)
    return folder


def texts(counts, seed=0):
    """Rows {"text", "label"}, the word of a class among others."""
    fill = WORDS[7:]
    return [
        {"text": " ".join([fill[(row + seed) % 6], word, *fill[: 1 + row % 4]]), "label": name}
        for (name, word), count in zip(SUBJECTS.items(), counts)
        for row in range(count)
    ]


def write_lines(folder, **splits):
    """A file of JSON lines for each split."""
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
