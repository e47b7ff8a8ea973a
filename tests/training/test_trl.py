"""`SamTrainerMixin` in front of trl's Trainers, where trl is installed."""

import copy

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from text_models import WORDS, tokenizer
from training.test_model_loss import assert_moved, assert_same_weights, settings
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from hf_ltsam import SamTrainerMixin

trl = pytest.importorskip("trl", reason="trl is not installed")
RHO = 0.1


def words(count, start):
    return " ".join(WORDS[4 + (start * 5 + k * k) % 9] for k in range(count))


def small(kind):
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return kind(LlamaConfig(vocab_size=len(WORDS), pad_token_id=0, eos_token_id=3, num_labels=1, **sizes)).double()


# trainer -> its settings, model and rows
TRAINERS = {
    "SFTTrainer": ("SFTConfig", LlamaForCausalLM, [{"text": words(4 + k % 4, k)} for k in range(12)]),
    "DPOTrainer": (
        "DPOConfig",
        LlamaForCausalLM,
        [{"prompt": words(3, k), "chosen": words(2 + k % 3, k), "rejected": words(2, k + 1)} for k in range(12)],
    ),
    "RewardTrainer": (
        "RewardConfig",
        LlamaForSequenceClassification,
        [{"chosen": words(4, k), "rejected": words(3, k + 1)} for k in range(12)],
    ),
}


@pytest.fixture(autouse=True)
def in_float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def trainer_of(name, folder, extras=None, mixed=True, **changes):
    config, kind, rows = TRAINERS[name]
    of_trl = getattr(trl, name)
    made = type(f"Sam{name}", (SamTrainerMixin, of_trl), {}) if mixed else of_trl
    given = {"max_steps": 3, "bf16": False, "gradient_checkpointing": False, **changes}
    args = getattr(trl, config)(**settings(folder, **given))
    extras = extras or {}
    if name == "DPOTrainer" and "peft_config" not in extras:
        extras = {**extras, "ref_model": small(kind)}
    texts = tokenizer(pad_token="[PAD]", eos_token="[SEP]")
    return made(small(kind), args=args, train_dataset=Dataset.from_list(rows), processing_class=texts, **extras)


@pytest.mark.parametrize("name", TRAINERS)
def test_without_a_perturbation_it_is_the_class_itself(name, tmp_path):
    changes = {"gradient_accumulation_steps": 2}
    stock = trainer_of(name, tmp_path, mixed=False, **changes)
    ours = trainer_of(name, tmp_path, {"method": "sgd"}, **changes)
    stock.train(), ours.train()
    assert_same_weights(stock.model, ours.model)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("name", TRAINERS)
def test_sam_by_hand(name, accumulation, tmp_path):
    changes = {"gradient_accumulation_steps": accumulation}
    ours = trainer_of(name, tmp_path, {"method": "sam", "method_args": {"rho": RHO}}, **changes)
    given, step = [], ours.training_step

    def recorded(model, inputs, num_items_in_batch=None):
        given.append((copy.deepcopy(dict(inputs)), num_items_in_batch))
        return step(model, inputs, num_items_in_batch)

    ours.training_step = recorded
    ours.train()
    naive = trainer_of(name, tmp_path, mixed=False, **changes)
    start = copy.deepcopy(naive.model)
    by_hand(naive, given, accumulation)
    assert_same_weights(naive.model, ours.model, atol=1e-12)
    assert_moved(ours.model, start)


def by_hand(trainer, given, accumulation):
    """SAM and SGD around the class's own `compute_loss`; SFT's losses add up, the others' mean is taken."""
    trainer.current_gradient_accumulation_steps = accumulation
    trainer.model.train()
    weights = [p for p in trainer.model.parameters() if p.requires_grad]

    def gradient(inputs, count):
        loss = trainer.compute_loss(trainer.model, dict(inputs), num_items_in_batch=count)
        return torch.autograd.grad(loss, weights, materialize_grads=True, allow_unused=True)

    for first in range(0, len(given), accumulation):
        total = [torch.zeros_like(p) for p in weights]
        for inputs, count in given[first : first + accumulation]:
            g = gradient(inputs, count)
            length = torch.cat([t.flatten() for t in g]).norm()
            with torch.no_grad():
                torch._foreach_add_(weights, [RHO / length * t for t in g])
            perturbed = gradient(inputs, count)
            with torch.no_grad():
                torch._foreach_sub_(weights, [RHO / length * t for t in g])
            adds_up = trainer.model_accepts_loss_kwargs and count is not None
            total = [t + p / (1 if adds_up else accumulation) for t, p in zip(total, perturbed)]
        with torch.no_grad():
            torch._foreach_sub_(weights, [trainer.args.learning_rate * t for t in total])


@pytest.mark.parametrize("name", TRAINERS)
def test_lora_resumes_bit_for_bit(name, tmp_path):
    """With what Momentum-SAM remembers. DPO's reference is the model without its adapter then."""
    changes = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "train_sampling_strategy": "random"}
    task = "SEQ_CLS" if name == "RewardTrainer" else "CAUSAL_LM"
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type=task)
    whole, resumed = (trainer_of(name, tmp_path, {"method": "msam", "peft_config": lora}, **changes) for _ in range(2))
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert_same_weights(whole.model, resumed.model)
