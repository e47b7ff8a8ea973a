"""`SamTrainerMixin` in front of other classes of Trainers."""

import copy

import pytest
import torch
from training.own_losses import OWN_LOSSES, made, steps_of, train_by_hand
from training.test_model_loss import RHO, assert_moved, assert_same_weights, settings
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, Trainer, TrainingArguments

from hf_ltsam import DurableTrainer, LTSamConfig, SamTrainerMixin
from hf_ltsam.methods import SAM
from hf_ltsam.training.steps.sam_trainer import names_and_classes_behind


@pytest.fixture(autouse=True)
def in_float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class SamSeq2SeqTrainer(SamTrainerMixin, Seq2SeqTrainer):
    pass


class Weighted(Trainer):
    """As those of other libraries: a loss of its own, a step that goes on to the stock one, arguments of its own."""

    def __init__(self, *args, weight=1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.weight, self.inside, self.passes = weight, False, []

    def training_step(self, *args, **kwargs):
        self.inside = True
        try:
            return super().training_step(*args, **kwargs)
        finally:
            self.inside = False

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return self._compute_loss(model, inputs, return_outputs)

    def _compute_loss(self, model, inputs, return_outputs):  # trl's DPO, KTO, GRPO and RLOO have one of this name
        self.passes.append(self.inside)
        outputs = model(**inputs)
        return (self.weight * outputs.loss, outputs) if return_outputs else self.weight * outputs.loss


class SamWeighted(SamTrainerMixin, Weighted):
    pass


def sequences(folder, method=SAM(rho=RHO), extras=None, **changes):
    model, data = made("sequences")
    args = Seq2SeqTrainingArguments(**settings(folder, predict_with_generate=True, **changes))
    return SamSeq2SeqTrainer(model, args, train_dataset=data, eval_dataset=data, method=method, **(extras or {}))


@pytest.mark.parametrize("accumulation, scope", [(2, "micro"), (3, "step")])
def test_sequences_by_hand(accumulation, scope, tmp_path):
    ours = sequences(tmp_path, extras={"ascent_scope": scope}, gradient_accumulation_steps=accumulation)
    start = copy.deepcopy(ours.model)
    ours.train()
    steps = steps_of("sequences", ours.train_dataset, accumulation)
    assert_same_weights(train_by_hand(start, steps, OWN_LOSSES["sequences"].loss, RHO, scope), ours.model, atol=1e-12)
    assert_moved(ours.model, start)
    assert ours.state.log_history[0]["sam_eps_norm"] == pytest.approx(RHO)


def test_label_smoothing_is_part_of_the_loss(tmp_path):
    class SamTrainer(SamTrainerMixin, Trainer):
        pass

    model, data = made("language model")
    args = TrainingArguments(**settings(tmp_path, label_smoothing_factor=0.3))
    stock = Trainer(copy.deepcopy(model), args, train_dataset=data)
    ours = SamTrainer(copy.deepcopy(model), args, train_dataset=data, method="sgd")
    stock.train(), ours.train()
    assert_same_weights(stock.model, ours.model)
    assert ours.identity()["label_smoothing"] == 0.3  # another one is another training
    ours.save_model(str(tmp_path / "saved"))
    ours.args.label_smoothing_factor = 0.1
    with pytest.raises(ValueError, match=r"label_smoothing: 0\.3 in the checkpoint, 0\.1 now"):
        ours.check_checkpoint(tmp_path / "saved")


def test_what_the_class_adds_is_there(tmp_path):
    """Evaluation by generating, with its arguments."""
    ours = sequences(tmp_path)
    stock = Seq2SeqTrainer(ours.model, ours.args, eval_dataset=ours.eval_dataset)
    assert ours.evaluate(max_length=7)["eval_loss"] == stock.evaluate(max_length=7)["eval_loss"]
    a, b = (made.predict(ours.eval_dataset, max_length=7, num_beams=2).predictions for made in (ours, stock))
    assert (a == b).all()


def test_a_resumed_run_ends_like_an_uninterrupted_one(tmp_path):
    """What a method remembers is in the checkpoint, and which method it was."""
    changes = {"train_sampling_strategy": "random", "save_strategy": "steps", "save_steps": 2}
    whole, resumed, other = (sequences(tmp_path, method, **changes) for method in ("msam", "msam", "sam"))
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert_same_weights(whole.model, resumed.model)
    with pytest.raises(ValueError, match=r"cannot be resumed.*method.*msam"):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_a_step_and_a_loss_of_another_library(tmp_path):
    """Every pass is made by its `compute_loss`, inside of its `training_step`."""
    model, data = made("regression")
    own = OWN_LOSSES["regression"].loss
    expected = train_by_hand(model, steps_of("regression", data, 1), lambda m, b, s: 3 * own(m, b, s), RHO)
    args = TrainingArguments(**settings(tmp_path))
    ours = SamWeighted(model, args, train_dataset=data, weight=3.0, method="sam", method_args={"rho": RHO})
    ours.train()
    assert_same_weights(expected, ours.model, atol=1e-12)
    assert ours.passes == [True] * 10  # two in each of five steps
    ours.evaluate(data)
    assert ours.passes[10:] == [False] * 3


def test_without_a_perturbation_it_is_the_class_itself(tmp_path):
    model, data = made("regression")
    args = TrainingArguments(**settings(tmp_path))
    plain = Weighted(copy.deepcopy(model), args, train_dataset=data, weight=3.0)
    ours = SamWeighted(copy.deepcopy(model), args, train_dataset=data, weight=3.0, method="sgd")
    plain.train(), ours.train()
    assert_same_weights(plain.model, ours.model)
    assert isinstance(ours, DurableTrainer)


@pytest.mark.parametrize(
    "extras, message",
    [
        ({"method": "focal_sam"}, "FocalSAM weights samples by their classes.*sam"),
        ({"method": "cc_sam"}, "CCSAM weights"),
        ({"method": "sma"}, "Unknown method 'sma'.*sam"),
        ({"method": SAM(), "method_args": {"rho": 1}}, "passed as an object"),
        ({"ascent_scope": "batch"}, "ascent_scope='batch'.*micro, step"),
        ({"max_skipped_steps": 0}, "max_skipped_steps=.*at least 1"),
        ({"optimizers": (torch.optim.LBFGS([torch.nn.Parameter(torch.zeros(1))]), None)}, "LBFGS.*closure"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_work_is_refused(extras, message, tmp_path):
    with pytest.raises((ValueError, TypeError), match=message):
        sequences(tmp_path, **{"extras": extras, **({"method": extras.pop("method")} if "method" in extras else {})})


def test_a_class_in_the_place_of_a_method(tmp_path):
    with pytest.raises(TypeError, match=r"SAM is a class: pass an object, SAM\(\.\.\.\)"):
        sequences(tmp_path, method=SAM)


@pytest.mark.parametrize("optimizer", ["galore_adamw_layerwise", "apollo_adamw_layerwise", "lomo", "adalomo"])
def test_optimizers_that_step_in_a_backward_pass(optimizer, tmp_path):
    """Refused for any loss: SAM's ascent would step as well."""
    with pytest.raises(ValueError, match=f"optim='{optimizer}' does not go with .*inside the backward pass"):
        sequences(tmp_path, optim=optimizer, optim_target_modules=["all"])


@pytest.mark.parametrize(
    "name",
    ["gradient_step", "telemetry", "method", "identity", "_method_step", "_find_passes", "_save_aside", "make_loaders"],
)
def test_an_attribute_that_the_mixin_would_hide(name):
    """Found where the class is made: such a class would call ours in the place of its own."""
    other = type("Other", (Trainer,), {name: lambda self: None})
    with pytest.raises(TypeError, match=f"SamOther: Other.{name} would be hidden by SamTrainerMixin"):
        type("SamOther", (SamTrainerMixin, other), {})
    own = type("SamOther", (SamTrainerMixin, Trainer), {name: lambda self: None})  # which says what it wants
    assert own.__name__ == "SamOther"


OF_THE_OBJECT = (
    "telemetry method gradient_step identity max_skipped_steps batch_loaders _sigterm _resumed _writes_aside "
)
OF_THE_OBJECT += "_loaded_from _part_callbacks step_settings"


@pytest.mark.parametrize("name", OF_THE_OBJECT.split())
def test_an_attribute_of_the_object_that_the_mixin_would_replace(name, tmp_path):
    class Other(Trainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            setattr(self, name, lambda: "theirs")

    class SamOther(SamTrainerMixin, Other):
        pass

    model, data = made("regression")
    with pytest.raises(TypeError, match=f"SamOther: Other sets {name} on the trainer, where SamTrainerMixin has"):
        SamOther(model, TrainingArguments(**settings(tmp_path)), train_dataset=data)


def test_every_attribute_that_the_mixin_sets_is_known_to_its_refusals(tmp_path):
    """After a training and a resumed one: whatever a stock trainer has not."""

    def after_resuming(cls, args, folder, **more):
        model, data = made("sequences")
        for checkpoint in (None, True):
            arguments = args(**settings(folder, save_strategy="steps", save_steps=1, max_steps=2))
            trainer = cls(copy.deepcopy(model), arguments, train_dataset=data, **more)
            trainer.train(resume_from_checkpoint=checkpoint)
        return {name for name in vars(trainer) if not name.startswith("_MethodTrainer__")}

    stock = after_resuming(Trainer, TrainingArguments, tmp_path / "stock")
    ours = after_resuming(SamSeq2SeqTrainer, Seq2SeqTrainingArguments, tmp_path / "ours", method=SAM(rho=RHO))
    assert (
        {"batch_loaders", "gradient_step", "_resumed"} <= ours - stock <= names_and_classes_behind(SamSeq2SeqTrainer)[0]
    )


def test_a_loss_that_the_object_is_given_where_it_is_made(tmp_path):
    class Other(Weighted):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self._compute_loss = lambda model, inputs, return_outputs: 3 * model(**inputs).loss

    class SamOther(SamTrainerMixin, Other):
        pass

    model, data = made("regression")
    own = OWN_LOSSES["regression"].loss
    expected = train_by_hand(model, steps_of("regression", data, 1), lambda m, b, s: 3 * own(m, b, s), RHO)
    ours = SamOther(model, TrainingArguments(**settings(tmp_path)), train_dataset=data, method=SAM(rho=RHO))
    ours.train()
    assert_same_weights(expected, ours.model, atol=1e-12)


def test_callbacks_may_be_given_another_model(tmp_path):
    """As SetFit's trainer does it, whose model is no module."""

    class Other(Trainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            call = self.callback_handler.call_event

            def with_another_model(*given, **more):
                self.callback_handler.model, kept = object(), self.callback_handler.model
                try:
                    return call(*given, **more)
                finally:
                    self.callback_handler.model = kept

            self.callback_handler.call_event = with_another_model

    class SamOther(SamTrainerMixin, Other):
        pass

    model, data = made("regression")
    expected = train_by_hand(model, steps_of("regression", data, 1), OWN_LOSSES["regression"].loss, RHO)
    ours = SamOther(model, TrainingArguments(**settings(tmp_path)), train_dataset=data, method=SAM(rho=RHO))
    ours.train()
    assert_same_weights(expected, ours.model, atol=1e-12)


def test_settings_of_ours_belong_to_our_trainer(tmp_path):
    """Method and loss in an `LTSamConfig` would be passed over."""
    model, data = made("regression")
    args = LTSamConfig(**settings(tmp_path, method="asam"))
    with pytest.raises(TypeError, match=r"LTSamConfig.*LTSamTrainer\(\.\.\., loss='model'\)"):
        SamWeighted(model, args, train_dataset=data)


def test_a_step_that_does_not_go_on_to_ours(tmp_path):
    class Mine(SamWeighted):
        def training_step(self, model, inputs, num_items_in_batch=None):
            loss = self.compute_loss(model, inputs)
            loss.backward()
            return loss.detach()

    model, data = made("regression")
    with pytest.raises(ValueError, match="Mine overrides training_step without calling"):
        Mine(model, TrainingArguments(**settings(tmp_path)), train_dataset=data).train()
