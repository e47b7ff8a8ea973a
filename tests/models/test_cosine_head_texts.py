"""Any encoder or decoder of texts with a cosine head instead of its linear one."""

import pytest
import torch
from text_models import SIZES
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForSequenceClassification

from hf_ltsam.models import CosineClassifier, CosineHeadForSequenceClassification

LABELS = {"id2label": dict(enumerate("abcde")), "label2id": {c: n for n, c in enumerate("abcde")}, "pad_token_id": 0}
LLAMA = {**SIZES, "num_key_value_heads": 1, "max_position_embeddings": 32}
KINDS = {
    "bert": SIZES,
    "roberta": SIZES,
    "electra": {**SIZES, "embedding_size": 16},
    "albert": {**SIZES, "embedding_size": 16},
    "mpnet": SIZES,
    "deberta-v2": SIZES,
    "xlm-roberta": SIZES,
    "distilbert": {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16, "vocab_size": 13},
    "modernbert": {**SIZES, "reference_compile": False},
    "gpt2": {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 13, "n_positions": 32},
    "opt": {**LLAMA, "ffn_dim": 16, "word_embed_proj_dim": 16},
    "llama": LLAMA,
    "qwen2": LLAMA,
}
TOKENS = {
    "input_ids": torch.tensor([[2, 6, 7, 3, 0, 0], [2, 4, 5, 8, 11, 3]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]),
}


def linear_model(kind):
    torch.manual_seed(0)
    special = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    config = CONFIG_MAPPING[kind](**KINDS[kind], **LABELS, **special)
    return AutoModelForSequenceClassification.from_config(config).eval()


def logits_by_hand(linear, weight, scale):
    """The linear layer's input, taken where it enters; a decoder's is that of every token, its last one counts."""
    (last,) = [m for m in linear.modules() if isinstance(m, nn.Linear) and m.out_features == 5]
    inputs = []
    hook = last.register_forward_pre_hook(lambda _, x: inputs.append(x[0]))
    linear(**TOKENS)
    hook.remove()
    x = inputs[0]
    if x.ndim == 3:
        x = torch.stack([x[0, 3], x[1, 5]])
    return torch.stack([torch.stack([scale * (v @ w) / (v.norm() * w.norm()) for w in weight]) for v in x])


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_features_another_head_and_a_round_trip(kind, tmp_path):
    linear = linear_model(kind)
    model = CosineHeadForSequenceClassification.of(linear, cosine_scale=12.0, learnable_scale=True).eval()
    (head,) = [m for m in model.modules() if isinstance(m, CosineClassifier)]
    expected = logits_by_hand(linear, head.weight, 12)
    torch.testing.assert_close(model(**TOKENS).logits, expected, rtol=1e-4, atol=1e-4)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(loaded) is CosineHeadForSequenceClassification and loaded.config.id2label == LABELS["id2label"]
    assert torch.equal(loaded(**TOKENS).logits, model(**TOKENS).logits)
    loss = loaded(**TOKENS, labels=torch.tensor([1, 4])).loss
    torch.testing.assert_close(loss, nn.functional.cross_entropy(expected, torch.tensor([1, 4])), rtol=1e-4, atol=1e-4)


def test_what_callers_of_text_models_ask_for():
    model = CosineHeadForSequenceClassification.of(linear_model("bert")).eval()
    outputs = model(**TOKENS, output_hidden_states=True, token_type_ids=torch.zeros(2, 6, dtype=torch.long))
    assert len(outputs.hidden_states) == 2 and outputs.loss is None
    assert torch.equal(model(**TOKENS, return_dict=False)[0], outputs.logits)
