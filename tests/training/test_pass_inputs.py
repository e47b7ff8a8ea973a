"""Every pass over a micro-batch sees the inputs that the loader gave, whatever the first one did to them."""

from collections import namedtuple

import pytest
import torch
from torch import nn
from training.toy import LABELS, Toy, toy_trainer
from transformers import default_data_collator

from hf_ltsam import LTSamConfig, LTSamTrainer
from hf_ltsam.landscape.batches import MicroBatch
from hf_ltsam.training.steps.pass_inputs import PassInputs


class Scaled(Toy):
    """Scales its input, in its own memory or in new one."""

    def __init__(self, in_place):
        super().__init__()
        self.in_place = in_place

    def forward(self, x, labels=None):
        logits = super().forward(x.mul_(0.1) if self.in_place else x * 0.1)
        return logits if labels is None else {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class WithDropout(Toy):
    def __init__(self, in_place):
        super().__init__()
        self.dropout = nn.Dropout(0.4, inplace=in_place)

    def forward(self, x, labels=None):
        logits = super().forward(self.dropout(x))
        return logits if labels is None else {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def rows():
    x = torch.sin(torch.arange(48, dtype=torch.float64)).view(16, 3)
    return [{"x": row.clone(), "labels": label} for row, label in zip(x, LABELS[0] + LABELS[1])]


def trained(folder, model, method="sam", **settings):
    torch.manual_seed(0)
    args = LTSamConfig(
        str(folder), num_train_epochs=2, per_device_train_batch_size=8, learning_rate=0.1, report_to="none",
        disable_tqdm=True, use_cpu=True, save_strategy="no", logging_steps=1, method=method, **settings,
    )  # fmt: skip
    trainer = LTSamTrainer(model, args, train_dataset=rows(), data_collator=default_data_collator)
    trainer.train()
    return trainer


@pytest.mark.parametrize("kind", [Scaled, WithDropout])
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("sam", {}),
        ("sam", {"loss": "model"}),
        ("imbsam", {"tail_threshold": 3}),
        ("focal_sam", {}),
        ("sam", {"gradient_accumulation_steps": 2, "ascent_scope": "step"}),
    ],
    ids=str,
)
def test_a_model_that_writes_into_its_input_is_trained_as_one_that_does_not(kind, method, settings, tmp_path):
    ours, theirs = (trained(tmp_path, kind(in_place), method, **settings) for in_place in (True, False))
    for (name, a), b in zip(ours.model.state_dict().items(), theirs.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_nested_part_that_compute_loss_takes_out_is_there_for_the_next_pass(tmp_path):
    class Taking(LTSamTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            labels = inputs["labels"].pop("a")
            return nn.functional.cross_entropy(model(x=inputs["x"]), labels)

    args = LTSamConfig(
        str(tmp_path), max_steps=2, report_to="none", disable_tqdm=True, use_cpu=True, save_strategy="no", method="sam",
        loss="model", remove_unused_columns=False,
    )  # fmt: skip

    def nested(samples):
        labels = torch.tensor([sample["labels"] for sample in samples])
        return {"x": torch.stack([sample["x"] for sample in samples]), "labels": {"a": labels}}

    Taking(Toy(), args, train_dataset=rows(), data_collator=nested).train()


@pytest.mark.parametrize("method", ["sgd", "sam"])
def test_a_pass_that_begins_to_write_later_is_told_of(method, tmp_path, caplog):
    class Later(Toy):
        passes = 0

        def forward(self, x):
            self.passes += 1
            return super().forward(x.mul_(0.1) if self.passes > 2 else x)

    toy_trainer(tmp_path, method, Later(), max_steps=2, num_train_epochs=2).train()
    told = [record.message for record in caplog.records if "written into its input 'x'" in record.message]
    assert len(told) == (method == "sam")  # plain training makes two passes here


def test_an_object_of_ones_own_is_copied_as_it_is(tmp_path):
    class Batch:
        def __init__(self):
            self.y = 1

    inputs = Batch()
    seen = passes_of(inputs, [lambda batch: vars(batch).pop("y"), nothing])
    assert inputs.y == 1 and seen[1].y == 1


def passes_of(inputs, forwards):
    """What each forward is given, by one batch after another."""
    kept, seen = PassInputs(), []

    for forward in forwards:

        def of(batch, forward=forward):
            seen.append(batch.inputs)
            forward(batch.inputs)
            return torch.zeros(1)

        kept.logits(of, MicroBatch(inputs, torch.zeros(1)))
    return seen


def nothing(inputs):
    pass


def test_tensors_are_copied_in_the_first_pass_alone():
    inputs = {"x": torch.ones(2), "nested": {"y": torch.ones(2)}, "parts": [torch.ones(1)], "name": "a"}
    first, second = passes_of(inputs, [nothing, nothing])
    for given, same in ((first, False), (second, True)):
        assert (given["x"] is inputs["x"]) == (given["nested"]["y"] is inputs["nested"]["y"]) == same
        assert (given["parts"][0] is inputs["parts"][0]) == same and given["name"] == "a"
        assert given is not inputs and given["nested"] is not inputs["nested"]


def test_what_is_written_into_stays_as_it_was():
    Pair = namedtuple("Pair", "a b")
    inputs = {"nested": {"y": torch.ones(2)}, "several": (torch.ones(2),), "pair": Pair(torch.ones(2), None)}
    places = [lambda i: i["nested"]["y"], lambda i: i["several"][0], lambda i: i["pair"].a]
    for place in places:
        seen = passes_of(inputs, [lambda inputs, place=place: place(inputs).zero_(), nothing, nothing])
        assert torch.equal(place(inputs), torch.ones(2))
        assert [float(place(given).sum()) for given in seen] == [0, 2, 2]


def test_tensors_of_inference_mode_keep_no_count():
    with torch.inference_mode():
        inputs = {"x": torch.ones(2)}
    passes_of(inputs, [nothing, nothing])
