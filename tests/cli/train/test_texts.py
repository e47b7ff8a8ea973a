"""Texts from the command line: encoders and decoders, adapters, every method, and what a finished run is good for."""

import gzip
import json
from dataclasses import fields

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from text_models import SUBJECTS, WORDS, save_decoder, save_encoder, texts, write_lines
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from hf_ltsam import METHODS, load_run, predict
from hf_ltsam.cli.card import main as card
from hf_ltsam.cli.decouple import main as decouple
from hf_ltsam.cli.evaluate.command import main as evaluate
from hf_ltsam.cli.export import main as export
from hf_ltsam.cli.report import main as report
from hf_ltsam.cli.sharpness.command import main as sharpness
from hf_ltsam.cli.train import train
from hf_ltsam.cli.train.arguments import parse
from hf_ltsam.cli.train.checks import OF_IMAGES, OF_TEXTS
from hf_ltsam.cli.train.model import build_text_model, start_from
from hf_ltsam.cli.train.settings import AUGMENTATION, DataArguments, ModelArguments
from hf_ltsam.cli.train.splits import load_splits
from hf_ltsam.data.texts import Tokenization
from hf_ltsam.models import CosineClassifier, CosineHeadForSequenceClassification
from hf_ltsam.models.class_vectors import nearest_mean
from hf_ltsam.models.classifier import classifier_of
from hf_ltsam.models.spectral_norm import normalise_spectrally
from hf_ltsam.runs.folder import RunFolder

QUICK = ["--use_cpu", "true", "--optim", "adamw_torch", "--learning_rate", "0.02", "--max_steps", "3"]
QUICK += [
    "--per_device_train_batch_size",
    "4",
    "--disable_tqdm",
    "true",
    "--save_strategy",
    "no",
    "--logging_strategy",
    "no",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models and texts, made once."""
    place = tmp_path_factory.mktemp("texts")
    torch.manual_seed(0)
    for kind in ("bert", "roberta", "distilbert"):
        save_encoder(place / kind, kind)
    save_decoder(place / "gpt2")
    write_lines(place / "news", train=texts((12, 8, 6)), test=texts((4, 4, 4), seed=1))
    return place


def run(folder, model, out, *more):
    train.main(
        ["--dataset", str(folder / "news"), "--model", str(folder / model), "--output_dir", str(out), *QUICK, *more]
    )
    return RunFolder(out)


def refused(capsys, *words):
    with pytest.raises(SystemExit) as exit_:
        train.main([str(word) for word in words])
    assert exit_.value.code == 2
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """A BERT that was trained on the texts until it knew them."""
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("trained")
    return run(folder, "bert", place / "run", "--method_args", '{"rho": 0.01}', "--max_steps", "42")


def test_a_run_of_texts(trained, folder):
    record = trained.finished_record()
    assert record.results["test"]["overall"] > 0.8 and record.data["task"] == "text" and record.samples == "texts"
    assert trained.config["id2label"] == {str(c): name for c, name in enumerate(sorted(SUBJECTS))}
    predictions = trained.predictions
    assert predictions.class_names == tuple(sorted(SUBJECTS)) and len(predictions.labels) == 12


def test_the_same_predictions_everywhere(trained, folder, tmp_path):
    """The test of the training, `ltsam evaluate`, `load_run` and transformers' pipeline."""
    rows = texts((4, 4, 4), seed=1)
    names = sorted(SUBJECTS)
    expected = [names[c] for c in trained.predictions.predicted]
    model, tokenizer = load_run(trained.path), AutoTokenizer.from_pretrained(trained.path)
    one_by_one = [model(**tokenizer(row["text"], return_tensors="pt", truncation=True)).logits.argmax() for row in rows]
    assert [names[int(c)] for c in one_by_one] == expected
    classify = pipeline("text-classification", model=str(trained.path), truncation=True)
    assert [classify(row["text"])[0]["label"] for row in rows] == expected
    for sets in (folder / "news", folder / "news" / "test.jsonl"):
        words = ["--model", str(trained.path), "--sets", str(sets), "--output_dir", str(tmp_path / "out"), "--use_cpu"]
        evaluate([*words, "--batch_size", "3"])
    results = json.loads((tmp_path / "out" / "ood_results.json").read_text())["sets"]
    for of_set in results.values():
        assert of_set["result"]["overall"] == pytest.approx(trained.finished_record().results["test"]["overall"])


def test_card_report_export_and_sharpness(trained, tmp_path, capsys):
    card([str(trained.path)])
    shown = capsys.readouterr().out
    assert (
        'pipeline("text-classification"' in shown and "truncation=True" in shown and "pipeline_tag: text-class" in shown
    )
    assert "26 training texts of 3 classes" in shown and "image" not in shown.lower()
    report([str(trained.path), "--output", str(tmp_path / "report")])
    assert (tmp_path / "report" / "report.html").is_file()
    export([str(trained.path), str(tmp_path / "whole")])
    before, after = (pipeline("text-classification", model=str(place)) for place in (trained.path, tmp_path / "whole"))
    assert before("gold rose") == after("gold rose")
    sharpness(
        [str(trained.path), "--output", str(tmp_path / "sharpness"), "--lanczos_steps", "2", "--max_samples", "2"]
    )
    assert (tmp_path / "sharpness" / "sharpness.json").is_file()


@pytest.mark.parametrize("more", [[], ["--cache_features", "true"]], ids=["texts", "features"])
def test_a_second_stage(trained, tmp_path, more):
    words = [str(trained.path), "--second_stage", "crt", "--output_dir", str(tmp_path), "--num_train_epochs", "1"]
    decouple([*words, "--use_cpu", "true", "--disable_tqdm", "true", *more])
    assert RunFolder(tmp_path).finished_record().second_stage["name"] == "crt"


@pytest.mark.parametrize("model", ["gpt2", "roberta", "distilbert"])
def test_any_encoder_or_decoder(folder, tmp_path, model):
    """A decoder's pad token is set in the model and beside it, so that batches of several texts work afterwards, too."""
    saved = run(folder, model, tmp_path / "run", "--method", "focal_sam", "--method_args", '{"rho": 0.01}')
    assert saved.config["pad_token_id"] == AutoTokenizer.from_pretrained(saved.path).pad_token_id is not None
    classify = pipeline("text-classification", model=str(saved.path), batch_size=2)
    alone, together = classify("gold rose today"), classify(["gold rose today", "the price of the ship"])
    assert alone[0]["score"] == pytest.approx(together[0]["score"], rel=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_on_texts(folder, tmp_path, method):
    words = ["--dataset", str(folder / "news"), "--model", str(folder / "bert"), "--output_dir", str(tmp_path), *QUICK]
    settings = parse([*words, "--method", method, "--max_steps", "2", "--tail_threshold", "6"])
    trainer = train.build_trainer(settings, load_splits(settings.data))
    before = {name: weights.clone() for name, weights in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, weights in trainer.model.named_parameters() if not torch.equal(weights, before[name])}
    assert {"classifier.weight", "bert.embeddings.word_embeddings.weight"} <= moved


@pytest.mark.parametrize(
    ("model", "adapter", "more"),
    [
        ("bert", "lora", ["--adapter_args", '{"r": 4, "lora_alpha": 16}']),
        ("gpt2", "lora", []),
        ("distilbert", "lora", []),
        ("roberta", "ia3", []),
        ("bert", "linear_probe", []),
        ("roberta", "dora", ["--adapter_args", '{"target_modules": "all-linear"}']),
    ],
)
def test_adapters(folder, tmp_path, capsys, model, adapter, more):
    """The head is new, so all of it is trained and saved: RoBERTa's and DistilBERT's have two layers."""
    saved = run(folder, model, tmp_path / "run", "--adapter", adapter, "--learning_rate", "0.1", *more)
    loaded = load_run(saved.path)
    new = {name for name in loaded.base_model.model.state_dict() if "modules_to_save" in name}
    heads = {name.split(".modules_to_save")[0] for name in new}
    assert heads == {"bert": {"classifier"}, "gpt2": {"score"}, "roberta": {"classifier"}}.get(
        model, {"classifier", "pre_classifier"}
    )
    rows, tokenizer = texts((4, 4, 4), seed=1), AutoTokenizer.from_pretrained(saved.path)
    guesses = [loaded(**tokenizer(row["text"], return_tensors="pt")).logits.argmax().item() for row in rows]
    assert guesses == saved.predictions.predicted.tolist()
    card([str(saved.path)])
    assert "load_run(" in capsys.readouterr().out


@pytest.mark.parametrize("model", ["bert", "gpt2"])
def test_a_classifier_that_starts_from_class_means(folder, tmp_path, model):
    """Of the frozen features; GPT-2's has no bias. A step of length zero leaves it as it started."""
    saved = run(folder, model, tmp_path / "run", "--init", "class_mean", "--learning_rate", "0", "--max_steps", "1")
    loaded, tokenizer = load_run(saved.path), AutoTokenizer.from_pretrained(saved.path)
    classifier, features, rows = classifier_of(loaded, 3), [], texts((12, 8, 6))
    classifier.register_forward_pre_hook(
        lambda _, x: features.append(x[0].detach().reshape(1, -1, x[0].shape[-1])[:, -1])
    )
    for row in rows:
        loaded(**tokenizer(row["text"], return_tensors="pt"))
    labels = torch.tensor([saved.predictions.class_names.index(row["label"]) for row in rows])
    weights, biases = nearest_mean(torch.cat(features), labels, 3, classifier.bias is not None)
    share = float((classifier.weight.detach() * weights).sum() / weights.square().sum())
    assert (share == pytest.approx(1)) == (
        model == "gpt2"
    )  # a BERT of random weights moves more by dropout than by texts
    torch.testing.assert_close(classifier.weight.detach(), share * weights, rtol=1e-3, atol=1e-3 * share)
    assert (classifier.bias is None) == (model == "gpt2")
    if classifier.bias is not None:
        torch.testing.assert_close(classifier.bias.detach(), share * biases, rtol=1e-3, atol=1e-3 * share)
    adapted = run(folder, model, tmp_path / "lora", "--init", "class_mean", "--adapter", "lora", "--learning_rate", "0")
    assert adapted.predictions.predicted.tolist() == saved.predictions.predicted.tolist()


@pytest.mark.parametrize(
    ("stored", "words", "start"),
    [
        ("bert", ["--init", "auto"], "class_mean"),
        ("roberta", ["--init", "auto"], "class_mean"),
        ("of_three", ["--init", "auto"], None),  # it has a classifier, trained perhaps
        ("of_three", ["--init", "class_mean"], "class_mean"),
        ("of_five", ["--init", "auto"], "class_mean"),
        ("bert", ["--init", "auto", "--pretrained", "false"], None),
        ("bert", ["--init", "auto", "--head", "cosine"], None),
        ("bert", ["--init", "auto", "--spectral_norm", "classifier"], None),  # its weight is a quotient
        ("bert", ["--init", "auto", "--spectral_norm", "bert.pooler.*"], "class_mean"),
        ("bert", ["--init", "random"], None),
        ("bert", [], None),
    ],
)
def test_which_classifiers_start_from_class_means_by_themselves(folder, tmp_path, stored, words, start):
    if stored.startswith("of_"):
        labels = {c: f"LABEL_{c}" for c in range({"of_three": 3, "of_five": 5}[stored])}
        AutoModelForSequenceClassification.from_pretrained(folder / "bert", id2label=labels).save_pretrained(
            tmp_path / stored
        )
    place = (tmp_path if stored.startswith("of_") else folder) / stored
    arguments = parse(["--dataset", "x", "--model", str(place), *QUICK, *words]).model
    model = build_text_model(arguments, ["crops", "metal", "trade"])
    normalise_spectrally(model, arguments.spectral_norm or [])
    assert start_from(arguments, model) == start
    assert start_from(arguments, model, sharded=True) == (start if "auto" not in words else None)


COSINE = ["--head", "cosine", "--loss", "ldam", "--cosine_scale", "30", "--method_args", '{"rho": 0.01}']


def same_everywhere(saved, folder, place):
    """The predictions of the training's test are those of `load_run`, `ltsam evaluate` and `ltsam predict`."""
    names, expected = saved.predictions.class_names, saved.predictions.predicted.tolist()
    loaded, tokenizer = load_run(saved.path), AutoTokenizer.from_pretrained(saved.path)
    rows = texts((4, 4, 4), seed=1)
    guesses = [loaded(**tokenizer(row["text"], return_tensors="pt")).logits.argmax().item() for row in rows]
    assert guesses == expected
    lines = folder / "news" / "test.jsonl"
    evaluate(["--model", str(saved.path), "--sets", str(lines), "--output_dir", str(place), "--use_cpu"])
    (found,) = json.loads((place / "ood_results.json").read_text())["sets"].values()
    assert found["result"]["overall"] == pytest.approx(saved.finished_record().results["test"]["overall"])
    assert [row.classes[0] for row in predict(saved.path, [lines], use_cpu=True)] == [names[c] for c in expected]


def test_ldam_with_a_cosine_head(folder, tmp_path, capsys):
    saved = run(folder, "bert", tmp_path / "run", *COSINE, "--max_steps", "30")
    assert saved.finished_record().results["test"]["overall"] > 0.6
    same_everywhere(saved, folder, tmp_path / "evaluated")
    loaded = AutoModelForSequenceClassification.from_pretrained(saved.path)
    assert type(loaded) is CosineHeadForSequenceClassification and loaded.config.cosine_scale == 30
    classify = pipeline("text-classification", model=str(saved.path), truncation=True, batch_size=2)
    names = saved.predictions.class_names
    answers = classify([row["text"] for row in texts((4, 4, 4), seed=1)])
    assert [answer["label"] for answer in answers] == [names[c] for c in saved.predictions.predicted]
    card([str(saved.path)])
    shown = capsys.readouterr().out
    assert "pipeline_tag: text-class" in shown and "import hf_ltsam" in shown and "cosine" in shown
    again = run(folder, saved.path, tmp_path / "again", *COSINE, "--max_steps", "1")  # from one's own run
    assert again.config["model_type"] == saved.config["model_type"]


@pytest.mark.parametrize(
    ("model", "adapter", "layer"),
    [
        ("bert", "lora", "query"),
        ("gpt2", "lora", "c_attn"),
        ("roberta", "ia3", "key"),
    ],
)
def test_adapters_below_a_cosine_head(folder, tmp_path, model, adapter, layer):
    """They go where they go below a linear head, and the cosine head is trained as a whole."""
    saved = run(folder, model, tmp_path / "run", "--adapter", adapter, *COSINE, "--learning_rate", "0.1")
    loaded = load_run(saved.path)
    tuned = {name.rpartition(".")[2] for name, part in loaded.named_modules() if isinstance(part, BaseTunerLayer)}
    whole = [part for name, part in loaded.named_modules() if "modules_to_save.default" in name]
    assert layer in tuned and any(isinstance(part, CosineClassifier) for part in whole)
    same_everywhere(saved, folder, tmp_path / "evaluated")


def test_columns_pairs_and_lengths(folder, tmp_path):
    """Two columns are a pair of texts; a text is cut where it is asked for, and by whoever uses the run."""
    rows = [{"first": row["text"], "second": "fell today", "kind": row["label"]} for row in texts((6, 4, 3))]
    with gzip.open(tmp_path / "pairs.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    words = ["--dataset", str(tmp_path / "pairs.jsonl.gz"), "--model", str(folder / "bert"), "--label_column", "kind"]
    words += ["--text_column", "first", "second", "--held_out_per_class", "1", "--max_length", "6"]
    train.main([*words, "--output_dir", str(tmp_path / "run"), *QUICK, "--max_steps", "1"])
    see = Tokenization.beside(str(tmp_path / "run"))
    cut = see(["gold " * 20], ["ship " * 20])
    assert see.tokenizer.model_max_length == 6 and len(cut["input_ids"][0]) == 6
    assert {WORDS.index("gold"), WORDS.index("ship")} <= set(cut["input_ids"][0])


def test_columns_of_any_name_are_those_of_the_training_for_every_command(folder, tmp_path, capsys):
    """`text` stands in the table too, and is another column: nothing may take it for the one that was trained on."""
    rows = [{"utterance": row["text"], "text": "fell", "label": row["label"]} for row in texts((6, 4, 3))]
    news = write_lines(tmp_path / "news", train=rows, test=rows)
    words = ["--dataset", str(news), "--model", str(folder / "bert"), *QUICK, "--text_column", "utterance"]
    train.main([*words, "--output_dir", str(tmp_path / "run")])
    saved = RunFolder(tmp_path / "run")
    evaluate(["--model", str(saved.path), "--sets", str(news), "--output_dir", str(tmp_path / "e"), "--use_cpu"])
    result = json.loads((tmp_path / "e" / "ood_results.json").read_text())["sets"][str(news)]["result"]
    assert result["overall"] == saved.finished_record().results["test"]["overall"]
    predicted = [row.classes[0] for row in predict(saved.path, [news / "test.jsonl"], use_cpu=True)]
    names = saved.predictions.class_names
    assert predicted == [names[c] for c in saved.predictions.predicted] and len(set(predicted)) > 1
    for name in ("utterance", "words"):  # found without being named, and not there at all
        alone = write_lines(tmp_path / name, test=[{name: row["utterance"], "label": row["label"]} for row in rows])
        again = [str(alone / "test.jsonl"), "--output_dir", str(tmp_path / f"e_{name}"), "--use_cpu"]
        evaluate(["--model", str(saved.path), "--sets", *again])
        (found,) = json.loads((tmp_path / f"e_{name}" / "ood_results.json").read_text())["sets"].values()
        assert found["result"]["overall"] == result["overall"]


def test_a_test_split_whose_texts_are_called_otherwise(folder, tmp_path, capsys):
    rows = texts((6, 4, 3))
    others = [{"body": row["text"], "label": row["label"]} for row in rows]
    news = write_lines(tmp_path / "news", train=rows, test=others)
    said = refused(capsys, "--dataset", news, "--model", folder / "bert", "--output_dir", tmp_path / "run", *QUICK)
    assert "The test split has no column 'text', which is trained on, only body, label" in said


# Of models and data; a new option has to be put here or among those of one kind.
OF_BOTH = "model pretrained init max_per_class head cosine_scale learnable_scale adapter adapter_args train_only spectral_norm spectral_norm_iterations dataset "
OF_BOTH += "dataset_config_name dataset_revision task builder lists own_lists label_column train_split test_split held_out_per_class "
OF_BOTH += (
    "only_known_classes imbalance_ratio profile largest_class split_seed many_above few_below group_sizes reserve"
)


def test_every_option_is_of_images_of_texts_or_of_both():
    named = [*OF_IMAGES, *OF_TEXTS, *OF_BOTH.split()]
    assert len(set(named)) == len(named) and set(AUGMENTATION) < set(OF_IMAGES)
    options = {field.name for options in (ModelArguments, DataArguments) for field in fields(options)}
    assert set(named) == options | {"mixup_alpha", "cutmix_alpha", "on_bad_image"}


REFUSED = [
    ([], "are texts: name a model for them, such as --model distilbert"),
    (["--model", "BERT", "--flip", "false"], "--flip is for images, and the data are texts: leave it out."),
    (["--model", "BERT", "--init", "text"], "is no CLIP, so it has no text tower"),
    (["--model", "BERT", "--init", "linear_probe"], "class vectors of a cosine head: add --head cosine"),
    (
        ["--model", "BERT", "--init", "class_mean", "--spectral_norm", "classifier"],
        "--init class_mean: the classifier is spectrally normalised",
    ),
    (
        ["--model", "BERT", "--init", "class_mean", "--train_only", "bert.*"],
        "thaw it if it is frozen, or use --init random.",
    ),
    (["--model", "BERT", "--head", "cosine", "--loss", "ldam"], "expects logits of 30 times the cosine"),
    (
        ["--model", "BERT", "--head", "cosine", "--load_in_4bit", "true", "--adapter", "lora"],
        "a cosine head goes on weights of full precision alone",
    ),
    (["--model", "BERT", "--random_erasing", "0.5"], "--random_erasing is for images"),
    (["--model", "BERT", "--text_column", "txt"], "The data set has no column 'txt'. Did you mean 'text'"),
    (["--model", "BERT", "--max_length", "100"], "--max_length 100: the model takes 32 tokens at most."),
    (["--model", "BERT", "--adapter", "vpt_deep"], "It knows these vision encoders of transformers"),
    (["--model", "BERT", "--task", "image"], "no Image column among text, label"),
    (["--model", "BERT", "--task", "txt"], "--task txt does not exist. Did you mean 'text'"),
    (["--model", "VIT"], "(vit) is no model of texts, and the data are texts"),
    (
        ["--model", "BERT", "--load_in_4bit", "true"],
        "4-bit weights stay as they are, so an adapter is trained: --adapter lora",
    ),
    (["--model", "BERT", "--load_in_4bit", "true", "--adapter", "lora"], "needs bitsandbytes, which is not installed"),
]


@pytest.mark.parametrize(("more", "said"), REFUSED)
def test_what_does_not_go_with_texts(folder, tmp_path, capsys, more, said, monkeypatch):
    from transformers import ViTConfig

    ViTConfig().save_pretrained(tmp_path / "vit")
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, find=__import__("importlib.util").util.find_spec: None if name == "bitsandbytes" else find(name),
    )
    places = {"BERT": folder / "bert", "VIT": tmp_path / "vit"}
    given = [places.get(word, word) for word in more]
    message = refused(
        capsys, "--dataset", folder / "news", "--output_dir", tmp_path / "run", "--use_cpu", "true", *given
    )
    assert said in message


def test_a_text_without_a_word_and_one_of_a_single_class_alone(folder, tmp_path):
    """What is missing is an empty text."""
    rows = [*texts((4, 4, 4)), {"text": None, "label": "crops"}, {"text": "", "label": "metal"}]
    write_lines(tmp_path / "news", train=rows, test=rows)
    train.main(
        [
            "--dataset",
            str(tmp_path / "news"),
            "--model",
            str(folder / "bert"),
            "--output_dir",
            str(tmp_path / "run"),
            *QUICK,
            "--max_steps",
            "1",
        ]
    )
    assert len(RunFolder(tmp_path / "run").predictions.labels) == 14


@pytest.mark.parametrize("row", ["ce_sgd_twice", "la_late_sam", "la_sse_sam"])
def test_rows_of_the_table_of_news(folder, tmp_path, row):
    """`--dataset FOLDER` and `--model FOLDER` in the place of what the recipes name."""
    words = ["--config", f"news/{row}", "--dataset", str(folder / "news"), "--model", str(folder / "bert")]
    words += ["--train_only", "bert.encoder.layer.0.*", "classifier.*"]  # of six blocks, it has one
    train.main(
        [*words, "--output_dir", str(tmp_path), "--use_cpu", "true", "--max_steps", "1", "--save_strategy", "no"]
    )
    saved = RunFolder(tmp_path)
    assert saved.finished_record().class_statistics["tail_threshold"] == 20
    assert AutoTokenizer.from_pretrained(tmp_path).model_max_length == 32
