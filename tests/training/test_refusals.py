"""Bad input: what was wrong, with which value, and what to do, before a training step is made."""

import dataclasses
import inspect
import logging

import pytest
import torch
from datasets import Dataset
from torch import nn
from training.own_losses import text_classifier
from transformers import Trainer, TrainingArguments

from hf_ltsam import (
    CifarResNetConfig,
    CifarResNetForImageClassification,
    ClassStatistics,
    LTSamConfig,
    LTSamTrainer,
    SamTrainerMixin,
)
from hf_ltsam.losses import LogitAdjustment
from hf_ltsam.methods import SAM
from hf_ltsam.training.second_stage import SecondStageTrainer

DATA = [{"input": torch.randn(4), "labels": c} for c, n in enumerate([6, 3, 1]) for _ in range(n)]


def trainer(folder, model=None, data=DATA, method=None, loss=None, statistics=None, **settings):
    args = LTSamConfig(
        **{
            "output_dir": str(folder),
            "report_to": "none",
            "use_cpu": True,
            "max_steps": 1,
            "save_strategy": "no",
            "disable_tqdm": True,
            "learning_rate": 0.1,
            **settings,
        }
    )
    return LTSamTrainer(
        nn.Linear(4, 3) if model is None else model,
        args,
        train_dataset=data,
        method=method,
        loss=loss,
        class_statistics=statistics,
    )


# settings of the config -> what the message must contain
SETTINGS = [
    ({"method": "focalsamm"}, ["'focalsamm'", "focal_sam"]),
    ({"loss": "logit_adjusment"}, ["'logit_adjusment'", "logit_adjustment"]),
    ({"method": "sam", "method_args": {"roh": 0.1}}, ["'sam'", "'roh'", "rho"]),
    ({"method": "sam", "method_args": '{"rho": -0.05}'}, ["SAM(rho=...)", "-0.05"]),
    ({"method": "sse_sam", "method_args": {"gamma": 1.5}, "tail_threshold": 2}, ["gamma", "1.5", "[0, 1]"]),
    ({"method": "sse_sam", "method_args": {"normalizer": "totall"}, "tail_threshold": 2}, ["totall", "total"]),
    ({"reweighting": "inverze"}, ["inverze", "inverse"]),
    ({"reweighting_start": 2.0}, ["start", "2.0"]),
    ({"method": "imbsam"}, ["tail_threshold", "6, 3, 1", "tail_threshold=3"]),
    ({"method": "sse_sam"}, ["tail_threshold", "6, 3, 1"]),
    ({"loss": "ldam"}, ["LDAM", "cosine head", "CosineClassifier"]),
    ({"loss": "gaussian_clouded"}, ["GaussianClouded", "cosine head", "CosineClassifier"]),
    ({"auto_find_batch_size": True}, ["auto_find_batch_size", "ascent_size", "gradient_accumulation_steps"]),
    ({"optim": "galore_adamw_layerwise", "optim_target_modules": ["all"]}, ["galore_adamw_layerwise", "adamw_torch"]),
    (
        {"optim": "apollo_adamw_layerwise", "optim_target_modules": ["all"]},
        ["apollo_adamw_layerwise", "without _layer"],
    ),
    ({"optim": "lomo"}, ["lomo", "sgd"]),
    ({"use_liger_kernel": True}, ["use_liger_kernel", "loss per sample"]),
    ({"label_names": ["a", "b"]}, ["label_names", "exactly one"]),
    ({"lr_milestones": [160, 180]}, ["160", "0.8"]),
    ({"lr_gamma": 0.0}, ["lr_gamma", "0.0"]),
    ({"method_args": "rho=0.1"}, ["method_args", "rho=0.1"]),
    ({"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}, ["use_reentrant"]),
]


@pytest.mark.parametrize(("settings", "parts"), SETTINGS, ids=[str(s) for s, _ in SETTINGS])
def test_a_setting_that_cannot_work_is_named(settings, parts, tmp_path):
    with pytest.raises(ValueError) as error:
        trainer(tmp_path, **settings)
    for part in parts:
        assert part in str(error.value)


def test_deepspeed_is_refused_from_the_settings_alone(tmp_path):
    """Set after construction, since transformers itself asks for the package in `__post_init__`."""
    from hf_ltsam.training.refusals.settings import check_arguments

    args = LTSamConfig(output_dir=str(tmp_path), use_cpu=True)
    check_arguments(args)
    args.deepspeed = {"zero_optimization": {"stage": 2}}
    with pytest.raises(ValueError, match=r"deepspeed=.*accelerate launch"):
        check_arguments(args)


def test_data_parallel_is_refused(tmp_path):
    from hf_ltsam.training.refusals.settings import check_arguments

    args = LTSamConfig(output_dir=str(tmp_path), use_cpu=True)
    args._n_gpu = 4
    with pytest.raises(ValueError, match=r"4 GPUs .*DataParallel.*accelerate launch"):
        check_arguments(args)


def test_compute_loss_func_and_foreign_arguments(tmp_path):
    from transformers import TrainingArguments

    with pytest.raises(ValueError, match=r"compute_loss_func is refused.*loss="):
        LTSamTrainer(nn.Linear(4, 3), LTSamConfig(str(tmp_path), use_cpu=True), compute_loss_func=lambda *_, **__: 0)
    with pytest.raises(TypeError, match="must be an LTSamConfig, got TrainingArguments"):
        LTSamTrainer(nn.Linear(4, 3), TrainingArguments(str(tmp_path), use_cpu=True))
    with pytest.raises(TypeError, match="got type"):
        trainer(tmp_path, method=int)
    with pytest.raises(ValueError, match="use one"):
        from hf_ltsam.methods import SAM

        trainer(tmp_path, method=SAM(), method_args={"rho": 0.1})


def test_labels_outside_the_class_range(tmp_path):
    model = CifarResNetForImageClassification(CifarResNetConfig(depth=8, num_labels=3))
    with pytest.raises(ValueError, match=r"Label 5 \(first at position 10\) is outside the class range 0 to 2"):
        trainer(tmp_path, model, [*DATA, {"input": DATA[0]["input"], "labels": 5}])
    with pytest.raises(ValueError, match=r"Label -1"):
        trainer(tmp_path, data=[*DATA, {"input": DATA[0]["input"], "labels": -1}])
    with pytest.raises(ValueError, match=r"Label 2 .*range 0 to 1"):
        trainer(tmp_path, nn.Linear(4, 2), statistics=ClassStatistics([5, 5]))


def test_a_class_without_a_training_image(tmp_path):
    model = CifarResNetForImageClassification(CifarResNetConfig(depth=8, num_labels=4))
    with pytest.raises(ValueError, match="class 3 has no training sample"):
        trainer(tmp_path, model)


def test_counts_that_do_not_match_the_logits(tmp_path):
    model = CifarResNetForImageClassification(CifarResNetConfig(depth=8, num_labels=4))
    with pytest.raises(ValueError, match=r"4 logits .* 3 classes.*num_labels=3"):
        trainer(tmp_path, model, statistics=ClassStatistics([6, 3, 1]))
    with pytest.raises(ValueError, match=r"2 logits .* 3 classes"):  # known only from the first forward pass
        trainer(tmp_path, nn.Linear(4, 2)).train()


def test_a_pretrained_head_of_other_classes(tmp_path):
    model = CifarResNetForImageClassification(CifarResNetConfig(depth=8, num_labels=1000))
    with pytest.raises(ValueError, match=r"1000 outputs.*classes 3 to 999.*num_labels=3.*ignore_mismatched_sizes=True"):
        trainer(tmp_path, model)


class Margin(nn.Linear):
    def forward(self, input, labels):
        return super().forward(input)


class TwoInputs(nn.Linear):
    def forward(self, input, mask):
        return super().forward(input)


def test_what_forward_asks_for(tmp_path):
    with pytest.raises(ValueError, match=r"Margin\.forward asks for 'labels'.*labels=None.*margins belong to the loss"):
        trainer(tmp_path, Margin(4, 3))
    with pytest.raises(ValueError, match=r"TwoInputs\.forward asks for 'mask'.*it has 'input'.*data_collator"):
        trainer(tmp_path, TwoInputs(4, 3)).train()


PAIRS = {
    "tensors": torch.utils.data.TensorDataset(
        torch.stack([d["input"] for d in DATA]), torch.tensor([d["labels"] for d in DATA])
    ),
    "tuples": [(d["input"], d["labels"]) for d in DATA],
}


@pytest.mark.parametrize("data", PAIRS.values(), ids=PAIRS)
def test_samples_without_names(data, tmp_path):
    """As torchvision's data sets give them; the collator that the message proposes works."""
    with pytest.raises(ValueError, match=r"A sample .* is a tuple.*data_collator.*'pixel_values'"):
        trainer(tmp_path, data=data, statistics=ClassStatistics([6, 3, 1])).train()
    with pytest.raises(ValueError, match="is a tuple"):
        trainer(tmp_path).evaluate(data)
    made = trainer(tmp_path, data=data, statistics=ClassStatistics([6, 3, 1]))
    made.data_collator = lambda samples: {
        "input": torch.stack([x for x, _ in samples]),
        "labels": torch.tensor([y for _, y in samples]),
    }
    made.train()


def test_labels_that_are_no_shares_of_classes(tmp_path):
    several = [{"input": torch.randn(4), "labels": torch.tensor([1.0, 1.0, 0.0])} for _ in range(4)]
    with pytest.raises(ValueError, match=r"Soft labels must be shares of classes.*adds up to 2"):
        trainer(tmp_path, data=several, statistics=ClassStatistics([6, 3, 1])).train()
    with pytest.raises(ValueError, match=r"Labels must be class indices \(n,\).*or shares.*torch.float32"):
        trainer(
            tmp_path, data=[{**d, "labels": torch.tensor(0.5)} for d in several], statistics=ClassStatistics([6, 3, 1])
        ).train()


def test_a_column_that_the_model_does_not_take(tmp_path):
    data = [{**d, "file_name": torch.zeros(1)} for d in DATA]
    with pytest.raises(ValueError, match=r"'file_name'.*Linear.forward.*input.*remove_unused_columns=True"):
        trainer(tmp_path, data=data, remove_unused_columns=False).train()
    trainer(tmp_path, data=data).train()


def test_labels_under_another_name(tmp_path):
    data = [{"input": d["input"], "target": d["labels"]} for d in DATA]
    for kept, columns in ((True, r"\['input'\]"), (False, r"\['input', 'target'\]")):
        with pytest.raises(ValueError, match=rf"no 'labels', only {columns}.*label_names.*remove_unused_columns"):
            given = {"statistics": ClassStatistics([6, 3, 1]), "remove_unused_columns": kept}
            trainer(tmp_path, data=data, **given).train()
    trainer(tmp_path, data=data, label_names=["target"]).train()


@pytest.mark.parametrize(("threshold", "empty"), [(0, "tail"), (100, "head")])
def test_a_split_with_an_empty_side_warns(threshold, empty, tmp_path, caplog):
    logging.getLogger("transformers").propagate = True
    with caplog.at_level("WARNING"):
        trainer(tmp_path, method="imbsam", tail_threshold=threshold)
    assert f"no class in the {empty}" in caplog.text and "6, 3, 1" in caplog.text and f"={threshold}" in caplog.text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"optim": "sgd"}, "learning_rate=5e-05 is one for AdamW, and the optimizer is SGD"),
        ({"optim": "sgd", "learning_rate": 1e-4}, "learning_rate=0.0001 is one for AdamW, and the optimizer is SGD"),
        ({"learning_rate": 0.1}, "learning_rate=0.1 is one for SGD, and the optimizer is adamw"),
        ({}, None),
        ({"optim": "sgd", "learning_rate": 0.1}, None),
        ({"optim": "adafactor", "learning_rate": 0.1}, None),
    ],
)
def test_a_learning_rate_of_another_optimizer_warns(settings, words, tmp_path, caplog):
    logging.getLogger("transformers").propagate = True
    with caplog.at_level("WARNING"):
        trainer(tmp_path, **{"learning_rate": 5e-5, **settings})
    assert words in caplog.text if words else "learning_rate" not in caplog.text


def test_an_output_folder_that_cannot_be_written(tmp_path):
    occupied = tmp_path / "file"
    occupied.write_text("here")
    with pytest.raises(ValueError, match=r"output_dir=.*cannot be written"):
        trainer(occupied)


def test_two_different_tail_thresholds(tmp_path):
    with pytest.raises(ValueError, match="tail_threshold is 2 in LTSamConfig and 3 in class_statistics"):
        trainer(tmp_path, statistics=ClassStatistics([6, 3, 1], tail_threshold=3), tail_threshold=2)


def test_statistics_that_are_given_are_trusted(tmp_path):
    made = trainer(tmp_path, statistics=ClassStatistics([60, 30, 10], tail_threshold=10), method="imbsam")
    made.train()
    assert made.class_statistics.counts == (60, 30, 10)
    assert (
        trainer(tmp_path, statistics=ClassStatistics([60, 30, 10]), tail_threshold=7).class_statistics.tail_threshold
        == 7
    )


def test_a_data_set_whose_labels_cannot_be_read_says_what_to_pass(tmp_path):
    class Opaque(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            raise RuntimeError("an image would be decoded here")

    with pytest.raises(TypeError, match="class_statistics="):
        trainer(tmp_path, data=Opaque())


def test_cosine_head_and_ldam_agree_on_the_scale(tmp_path):
    def model(scale):
        return CifarResNetForImageClassification(
            CifarResNetConfig(depth=8, num_labels=3, head="cosine", cosine_scale=scale)
        )

    trainer(tmp_path, model(30.0), loss="ldam")
    with pytest.raises(ValueError, match=r"s=30.*scale 16"):
        trainer(tmp_path, model(16.0), loss="ldam")


@pytest.mark.parametrize("shape", [lambda losses: losses.mean(), lambda losses: losses.unsqueeze(1)])
def test_a_loss_that_reduces_or_broadcasts(shape, tmp_path):
    def loss(logits, labels, statistics):
        return shape(nn.functional.cross_entropy(logits, labels, reduction="none"))

    with pytest.raises(ValueError, match=r"one value per sample.*reduction='none'"):
        trainer(tmp_path, loss=loss).train()


NO_OBJECTS = [  # what people pass, and what is said
    (
        {"loss": nn.CrossEntropyLoss()},
        "loss=CrossEntropyLoss cannot be called as loss.*lambda logits, labels, statistics",
    ),
    ({"loss": lambda logits, labels: 0}, "loss=<lambda> cannot be called as loss"),
    ({"loss": LogitAdjustment}, "loss=LogitAdjustment is a class: pass an object, LogitAdjustment"),
    ({"method": SAM}, "method.*SAM is a class: pass an object, SAM"),
]


@pytest.mark.parametrize(("given", "said"), NO_OBJECTS)
def test_a_class_or_a_loss_of_two_arguments(given, said, tmp_path):
    with pytest.raises(TypeError, match=said):
        trainer(tmp_path, **given)


class Renamed(LTSamTrainer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


@pytest.mark.parametrize("kind", [LTSamTrainer, SecondStageTrainer, Renamed])
def test_a_setting_that_is_given_to_the_trainer_is_told_where_it_belongs(kind):
    """Every one of the settings, and in a class of one's own; what is none is Python's to refuse."""
    taken = set(inspect.signature(LTSamTrainer.__init__).parameters)
    settings = {field.name for field in dataclasses.fields(LTSamConfig) if field.init} - taken
    assert settings >= {"method_args", "output_dir", "learning_rate", "loss_args"} and len(settings) > 100
    for name in settings:
        said = rf"^{kind.__name__}\({name}=\.\.\.\): {name} is a setting. Pass args=LTSamConfig\({name}=\.\.\.\)\.$"
        with pytest.raises(TypeError, match=said):
            kind(nn.Linear(4, 3), **{name: None})
    with pytest.raises(TypeError, match=r"__init__\(\) got an unexpected keyword argument 'method_arg'"):
        kind(nn.Linear(4, 3), method_arg={"rho": 0.1})


@pytest.mark.parametrize("kind", [LTSamTrainer, SecondStageTrainer])
def test_the_signature_stays_without_room_for_other_names(kind):
    kinds = {p.kind for p in inspect.signature(kind.__init__).parameters.values()}
    assert not kinds & {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}


def test_evaluation_labels_outside_the_range_are_found_before_training(tmp_path):
    bad = [{"input": torch.randn(4), "labels": 7}]
    args = LTSamConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    for eval_dataset in (bad, {"good": DATA, "bad": bad}):
        with pytest.raises(ValueError, match=r"eval_dataset: label 7 is outside the class range 0 to 2"):
            LTSamTrainer(nn.Linear(4, 3), args, train_dataset=DATA, eval_dataset=eval_dataset)


def test_labels_of_the_batch_outside_the_range(tmp_path):
    class Opaque(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return {"input": torch.randn(4), "labels": 5}

    with pytest.raises(ValueError, match=r"Labels from 5 to 5 are outside the class range 0 to 2"):
        trainer(tmp_path, data=Opaque(), statistics=ClassStatistics([6, 3, 1])).train()


def test_labels_of_any_integer_type(tmp_path):
    data = [{"input": d["input"], "labels": torch.tensor(d["labels"], dtype=torch.int32)} for d in DATA]
    trainer(tmp_path, data=data).train()


def test_numbers_as_text(tmp_path):
    """YAML reads 1e-3 as text."""
    assert trainer(tmp_path, method="sam", method_args={"rho": "1e-3"}).method.rho == 1e-3
    assert trainer(tmp_path, loss="logit_adjustment", loss_args={"tau": "5e-1"}).loss.tau == 0.5


def test_what_only_the_launcher_says():
    from types import SimpleNamespace

    from accelerate.parallelism_config import ParallelismConfig

    from hf_ltsam.training.refusals.settings import check_launcher

    def launched(
        deepspeed=False,
        fsdp=0,
        compiled=False,
        processes=1,
        size=None,
        scope="micro",
        swa=None,
        wanted=None,
        last=False,
        parallel=None,
        split_model=False,
    ):
        plugin = SimpleNamespace(fsdp_version=fsdp)
        accelerator = SimpleNamespace(
            num_processes=processes, parallelism_config=parallel, state=SimpleNamespace(fsdp_plugin=plugin)
        )
        args = SimpleNamespace(
            torch_compile=compiled,
            ascent_size=size,
            ascent_scope=scope,
            swa_start=swa,
            fsdp=wanted or bool(fsdp),
            channels_last=last,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
        )
        return SimpleNamespace(
            is_deepspeed_enabled=deepspeed,
            is_fsdp_enabled=bool(fsdp),
            accelerator=accelerator,
            model=SimpleNamespace(is_distributed_loading_by_transformers=split_model),
            args=args,
            step_settings=args,
        )

    check_launcher(launched(processes=2))
    check_launcher(launched(compiled=True))
    check_launcher(launched(compiled=True, processes=2))
    check_launcher(launched(fsdp=2, processes=2, size=8))
    check_launcher(launched(processes=2, size=3))
    check_launcher(launched(processes=2, size=4))
    check_launcher(launched(processes=2, size=16, scope="step"))
    check_launcher(launched(processes=2, last=True))
    check_launcher(launched(processes=2, parallel=ParallelismConfig(dp_replicate_size=2)))
    for setting, named in [
        ({"deepspeed": True}, "deepspeed"),
        ({"fsdp": 1}, "fsdp_version: 2"),
        ({"fsdp": 2, "swa": 0.5}, "swa_start"),
        ({"wanted": True}, "fsdp is set, but"),
        ({"fsdp": 2, "last": True}, "channels_last=True"),
        ({"parallel": ParallelismConfig(cp_size=2)}, "cp_size"),
        ({"parallel": ParallelismConfig(tp_size=2)}, "tp_size"),
        ({"split_model": True}, "distributed_config"),
        ({"compiled": True, "processes": 2, "fsdp": 2}, "torch_compile"),
        ({"processes": 2, "size": 7, "scope": "step"}, "ascent_size=7.*multiple of 2"),
        ({"processes": 2, "size": 7, "fsdp": 2}, "ascent_size=7.*multiple of 2"),
        ({"size": 5}, "ascent_size=5 .* those are 4: leave it out"),
        ({"size": 9, "scope": "step"}, "ascent_size=9 .* those are 8"),
        ({"processes": 2, "size": 6}, "ascent_size=6 .* those are 4"),  # each of its own
        ({"processes": 2, "size": 18, "scope": "step"}, "ascent_size=18 .* those are 16"),
        ({"processes": 2, "size": 10, "fsdp": 2}, "ascent_size=10 .* those are 8"),
    ]:
        with pytest.raises(ValueError, match=named):
            check_launcher(launched(**setting))


def test_a_model_without_trainable_weights_is_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match="nothing can be trained"):
        trainer(tmp_path, nn.Linear(4, 3).requires_grad_(False))


def test_the_proposed_threshold_leaves_a_head():
    assert ClassStatistics([500, 500, 500, 20]).proposed_tail_threshold == 20
    assert ClassStatistics([6, 3, 1]).proposed_tail_threshold == 3
    assert ClassStatistics([4, 4, 4]).proposed_tail_threshold == 4  # equal classes cannot be split


def test_classes_without_an_image_are_called_by_name():
    from hf_ltsam.training.refusals.problem import check_num_labels

    with pytest.raises(ValueError, match=r"'dog' \(1 of 3 classes\) have no training sample"):
        check_num_labels(torch.tensor([0, 2, 2]), 3, ["cat", "dog", "owl"])
    with pytest.raises(ValueError, match=r"labels of the training set end at 0: 'dog', 'owl' have no training sample"):
        check_num_labels(torch.tensor([0, 0]), 3, ["cat", "dog", "owl"])
    check_num_labels(torch.tensor([0, 1, 2]), 3, ["cat", "dog", "owl"])


class Bag(nn.Module):
    """Sums of embeddings, and a linear classifier."""

    def __init__(self, layer, sparse):
        super().__init__()
        self.words, self.head = layer(9, 4, sparse=sparse), nn.Linear(4, 3)

    def forward(self, input, labels=None):
        found = self.words(input)
        logits = self.head(found if found.ndim == 2 else found.sum(1))
        return {"logits": logits} if labels is None else {"loss": nn.functional.cross_entropy(logits, labels)}


class SamPlain(SamTrainerMixin, Trainer):
    pass


# loss; None: of a Trainer behind the mixin
@pytest.mark.parametrize("loss", ["cross_entropy", "model", None])
@pytest.mark.parametrize("layer", [nn.Embedding, nn.EmbeddingBag])
def test_sparse_gradients(layer, loss, tmp_path):
    """Torch would end the first step without a word of the layer."""
    words = [{"input": torch.randint(0, 9, (5,)), "labels": c} for c in range(3)]

    def made(model):
        if loss is not None:
            return trainer(tmp_path, model, words, "sam", loss, optim="sgd", max_grad_norm=0.0)
        args = TrainingArguments(str(tmp_path), use_cpu=True, max_steps=1, optim="sgd", report_to="none")
        return SamPlain(model, args, train_dataset=words)

    with pytest.raises(ValueError, match=rf"'words'.*{layer.__name__}\(sparse=True\).*sparse=False"):
        made(Bag(layer, sparse=True)).train()
    for trained in (Bag(layer, sparse=False), Bag(layer, sparse=True)):
        trained.words.weight.requires_grad_(not trained.words.sparse)
        made(trained).train()


class OfTokens(nn.Module):
    """One row of logits for each token."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(11, 3)

    def forward(self, input_ids, labels=None):
        return self.words(input_ids)


TOKENS = torch.randint(0, 11, (12, 5))


def in_columns(targets):
    return Dataset.from_dict({"input_ids": TOKENS.tolist(), "labels": targets})


def in_rows(targets):
    return [{"input_ids": x, "labels": y} for x, y in zip(TOKENS, targets)]


class WithTargets(torch.utils.data.Dataset):
    targets = torch.rand(12)

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return {"input_ids": TOKENS[index], "labels": self.targets[index]}


# number of outputs, None: for each token; data; statistics -> what the message must contain
NO_CLASSES = {
    "numbers in a column": (3, in_columns([0.5 * i for i in range(12)]), None, "holds double"),
    "numbers in a column, one output": (1, in_columns([0.5 * i for i in range(12)]), None, "num_labels=1"),
    "a number in a list in a column": (1, in_columns([[0.5 * i] for i in range(12)]), None, "num_labels=1"),
    "whole numbers in a column": (1, in_columns([i % 5 for i in range(12)]), None, "num_labels=1"),
    "numbers in rows": (3, in_rows([0.5 * i for i in range(12)]), None, "to an integer"),
    "tensors in rows": (3, in_rows([torch.tensor(0.5 * i) for i in range(12)]), None, "to an integer"),
    "whole numbers in rows": (1, in_rows(range(12)), None, "num_labels=1"),
    "numbers of an attribute": (3, WithTargets(), None, "float32"),
    "numbers and statistics": (1, in_rows([0.5 * i for i in range(12)]), [6, 6], "num_labels=1"),
    "numbers, more outputs": (3, in_rows([torch.tensor(0.5) for _ in range(12)]), [6, 3, 3], "must be class indices"),
    "tokens in a column": (None, in_columns(TOKENS.tolist()), None, "lists of floats"),
    "tokens in rows": (None, in_rows(TOKENS), None, "to an integer"),
    "logits of tokens": (None, in_rows([c % 3 for c in range(12)]), None, r"got \(8, 5, 3\)"),
}


@pytest.mark.parametrize("name", NO_CLASSES)
def test_targets_that_are_no_classes_are_led_to_the_model_s_own_loss(name, tmp_path):
    outputs, data, counts, words = NO_CLASSES[name]
    model = OfTokens() if outputs is None else text_classifier(None, outputs)
    with pytest.raises((ValueError, TypeError), match=rf"{words}.*loss='model'") as error:
        trainer(tmp_path, model, data, statistics=counts and ClassStatistics(counts)).train()
    assert "class_encode_column" not in str(error.value) and len(str(error.value)) < 400
    said = str(error.value)
    assert "from_labels" not in said or said.index("loss='model'") < said.index("from_labels"), (
        "the likely way out first"
    )


def test_a_model_of_regression_is_led_to_its_own_loss_before_labels_are_read(tmp_path):
    model = text_classifier(None, 3)
    model.config.problem_type = "regression"
    with pytest.raises(ValueError, match=r"problem_type='regression'.*loss='model' is the model's own"):
        trainer(tmp_path, model, in_columns([0.5 * i for i in range(12)]))


NAMES = ["owl", "cat", "dog"] * 4


class WithNames(WithTargets):
    targets = NAMES


@pytest.mark.parametrize("counts", [None, [4, 4, 4]])
@pytest.mark.parametrize("data", [in_columns(NAMES), in_rows(NAMES), WithNames()])
def test_names_in_the_place_of_class_numbers_are_led_to_a_mapping(data, counts, tmp_path):
    """Also where the statistics are given: no name could go into a loss."""
    words = "'owl'.*must be mapped to 0 to C-1.*class_encode_column.*enumerate"
    if isinstance(data, WithNames) and counts:
        words = "The batch has no 'labels'.*must be mapped to 0 to C-1"
    with pytest.raises((TypeError, ValueError), match=words) as error:
        trainer(tmp_path, text_classifier(None, 3), data, statistics=counts and ClassStatistics(counts)).train()
    assert "from_labels" not in str(error.value), "which takes no names either"


def test_names_that_a_transform_or_a_collator_numbers_are_trained_on(tmp_path):
    number = {name: c for c, name in enumerate(sorted(set(NAMES)))}

    def numbered(rows):
        return {**rows, "labels": [number[name] for name in rows["labels"]]}

    made = trainer(tmp_path, text_classifier(None, 3), in_columns(NAMES).with_transform(numbered))
    assert made.class_statistics.counts == (4, 4, 4)
    made.train()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (in_columns(["a"] * 12), "holds string.*class_encode_column"),
        (in_columns([None, 0] * 6), "6 of the labels .* are missing"),
        (in_rows([None, 0] * 6), "entry 0 has the label None"),
    ],
)
def test_classes_that_cannot_be_read_are_not_led_there(data, words, tmp_path):
    with pytest.raises(TypeError, match=words) as error:
        trainer(tmp_path, OfTokens(), data)
    assert "loss='model'" not in str(error.value)
