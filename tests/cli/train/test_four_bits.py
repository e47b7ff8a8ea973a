"""QLoRA: 4-bit weights below LoRA, on the CPU. Steps against a loop by hand, resumed, evaluated, predicted."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from text_models import save_encoder, texts, write_lines
from transformers import AutoModelForSequenceClassification

from hf_ltsam import LTSamConfig, LTSamTrainer, load_run, predict
from hf_ltsam.cli.evaluate.command import main as evaluate
from hf_ltsam.cli.train import train
from hf_ltsam.cli.train.arguments import parse
from hf_ltsam.cli.train.splits import load_splits
from hf_ltsam.models.text_classifier import four_bits
from hf_ltsam.runs.folder import RunFolder

pytest.importorskip("bitsandbytes", reason="4-bit weights need bitsandbytes: pip install bitsandbytes")

QLORA = "--adapter lora --load_in_4bit true --use_cpu true --optim sgd --learning_rate 0.3 --lr_scheduler_type constant"
QLORA += " --per_device_train_batch_size 4 --disable_tqdm true --logging_strategy no"
SIX = (
    "--max_steps",
    "6",
    "--save_strategy",
    "steps",
    "--save_steps",
    "3",
    "--eval_strategy",
    "steps",
    "--eval_steps",
    "3",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("texts")
    torch.manual_seed(0)
    save_encoder(place / "bert", width=64)  # whole blocks of 64 weights
    write_lines(place / "news", train=texts((12, 8, 6)), test=texts((4, 4, 4), seed=1))
    return place


def words(folder, out, method, *more):
    places = ["--dataset", str(folder / "news"), "--model", str(folder / "bert"), "--output_dir", str(out)]
    return [*places, *QLORA.split(), "--method", method, *more]


@pytest.fixture(scope="module", params=["sgd", "sam"])
def trained(request, folder, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.param) / "run"
    train.main(words(folder, out, request.param, *SIX))
    return request.param, RunFolder(out)


def trainable(model):
    return {name: weights for name, weights in model.named_parameters() if weights.requires_grad}


def test_adapter_and_head_are_trained_above_weights_of_four_bits(folder, tmp_path):
    settings = parse(words(folder, tmp_path, "sam", "--max_steps", "3"))
    trainer = train.build_trainer(settings, load_splits(settings.data))
    before = {name: weights.detach().clone() for name, weights in trainer.model.named_parameters()}
    packed = [name for name, weights in before.items() if weights.dtype == torch.uint8]
    assert len(packed) == 7 and not any("classifier" in name for name in packed)  # of attention, of the MLP, the pooler
    trainer.train()
    moved = {name for name, w in trainer.model.named_parameters() if not torch.equal(w, before[name])}
    assert moved == {name for name in before if "lora_" in name or "modules_to_save" in name}


def test_gradients_after_an_evaluation_are_those_before_it(folder, tmp_path):
    settings = parse(words(folder, tmp_path, "sgd", "--max_steps", "1"))
    model = train.build_trainer(settings, load_splits(settings.data)).model

    def gradients():
        model.train()
        torch.manual_seed(0)
        model.zero_grad()
        model(input_ids=torch.tensor([[2, 5, 3]]), labels=torch.tensor([0])).loss.backward()
        return {name: w.grad.clone() for name, w in trainable(model).items()}

    before = gradients()
    with torch.no_grad():
        model.eval()(input_ids=torch.tensor([[2, 5, 3]]))
    after = gradients()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("method", ["sgd", "sam"])
def test_a_step_is_that_of_the_equation(folder, tmp_path, method):
    """SGD: w - lr g(w). SAM: w - lr g(w + rho g / ||g||), over what is trained alone; a loop without ours."""
    settings = parse(
        words(folder, tmp_path, method, "--max_steps", "1", "--weight_decay", "0", "--optim_args", "momentum=0")
    )
    trainer = train.build_trainer(settings, load_splits(settings.data))
    model, rho = trainer.model, getattr(trainer.method, "rho", None)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    batch = next(iter(trainer.get_train_dataloader()))
    weights = trainable(model)
    start = {name: w.detach().clone() for name, w in weights.items()}

    def gradients():
        model.zero_grad()
        logits = model(**{name: values for name, values in batch.items() if name in ("input_ids", "attention_mask", "token_type_ids")}).logits  # fmt: skip
        torch.nn.functional.cross_entropy(logits, batch["labels"]).backward()
        return {name: w.grad.detach().clone() for name, w in weights.items()}

    g = gradients()
    if method == "sam":
        norm = torch.sqrt(sum((v.double() ** 2).sum() for v in g.values()))
        with torch.no_grad():
            for name, w in weights.items():
                w += rho * g[name] / norm.float()
        g = gradients()
        with torch.no_grad():
            for name, w in weights.items():
                w.copy_(start[name])
    model.zero_grad()
    trainer.train()
    for name, w in trainable(model).items():
        torch.testing.assert_close(w.detach(), start[name] - 0.3 * g[name], rtol=1e-4, atol=1e-6)


def test_evaluate_and_predict_say_what_the_training_said(folder, trained):
    _, saved = trained
    expected = [saved.predictions.class_names[c] for c in saved.predictions.predicted]
    assert [row.classes[0] for row in predict(saved.path, [folder / "news" / "test.jsonl"], use_cpu=True)] == expected
    evaluate(["--model", str(saved.path), "--sets", str(folder / "news"), "--use_cpu"])
    results = json.loads((saved.path / "evaluation" / "ood_results.json").read_text())["sets"]
    assert results[str(folder / "news")]["result"]["overall"] == saved.finished_record().results["test"]["overall"]
    loaded = load_run(saved.path)
    assert any(weights.dtype == torch.uint8 for weights in loaded.parameters())


def test_resumed_to_the_last_bit(folder, trained, tmp_path):
    """An evaluation before the checkpoint changes nothing of the steps after it."""
    method, whole = trained
    more = ["--max_steps", "6", "--save_strategy", "steps", "--save_steps", "3"]
    resumed = words(
        folder, tmp_path / "run", method, *more, "--resume_from_checkpoint", str(whole.path / "checkpoint-3")
    )
    train.main(resumed)
    first, second = (trainable(load_run(place, trainable=True)) for place in (whole.path, tmp_path / "run"))
    assert list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


def test_a_model_that_was_built_in_python_learns_on_after_an_evaluation(folder, tmp_path):
    """Its weights of four bits are not repacked there, from whose product no gradient comes."""
    lines = [{"input_ids": [2, 5, 3 + c], "attention_mask": [1, 1, 1], "labels": c} for c in (0, 0, 0, 1, 1, 2)]

    def trained(out, evaluated):
        torch.manual_seed(0)
        kept = four_bits(torch.float32, ["classifier"])
        still = {
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        }  # an evaluation draws random numbers too
        bert = AutoModelForSequenceClassification.from_pretrained(
            folder / "bert", num_labels=3, quantization_config=kept, **still
        )
        lora = LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"], init_lora_weights="gaussian")
        args = LTSamConfig(str(out), use_cpu=True, max_steps=4, learning_rate=0.1, disable_tqdm=True, save_strategy="no",
                           eval_strategy="steps" if evaluated else "no", eval_steps=1)  # fmt: skip
        trainer = LTSamTrainer(get_peft_model(bert, lora), args, train_dataset=lines, eval_dataset=lines)
        if evaluated:
            trainer.evaluate()
        trainer.train()
        return trainable(trainer.model)

    plain, evaluated = (trained(tmp_path / str(often), often) for often in (False, True))
    assert all(torch.equal(plain[name], evaluated[name]) for name in plain)
