"""What is perturbed and given a gradient is what the optimizer holds; what it should hold and does not is said."""

import logging

import pytest
import torch
from adapters.tiny import NUM_CLASSES, with_head
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.optim import SGD
from training.toy import STATISTICS, Toy, ToyBatches

from hf_ltsam import ClassStatistics, LTSamConfig, LTSamTrainer
from hf_ltsam.landscape.weights import TrainableWeights
from hf_ltsam.models.classifier import frozen_head
from hf_ltsam.models.trained_weights import check_optimizer_of

LAYERS = ("fc1.weight", "fc1.bias", "classifier.weight", "classifier.bias")


def groups(model, *names, lr=0.1):
    chosen = dict(model.named_parameters())
    return SGD([{"params": [chosen[name]], "lr": lr / (k + 1)} for k, name in enumerate(names)], lr=lr)


def train(folder, model, optimizers=(None, None), kind=LTSamTrainer, callbacks=(), **settings):
    args = {"max_steps": 2, "per_device_train_batch_size": 8, "learning_rate": 0.1, "logging_steps": 1, **settings}
    quiet = {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True, "tail_threshold": 20}
    config = LTSamConfig(str(folder), **{**quiet, **args})
    trainer = kind(
        model,
        config,
        train_dataset=ToyBatches(),
        class_statistics=STATISTICS,
        optimizers=optimizers,
        callbacks=list(callbacks),
    )
    moved = []
    swap, move = TrainableWeights._swap, TrainableWeights._move

    def watching(of):
        def moving(self, offset):
            names = {id(p): name for name, p in model.named_parameters()}
            moved.append({names[id(p)] for p in self.parameters})
            return of(self, offset)

        return moving

    TrainableWeights._swap, TrainableWeights._move = watching(swap), watching(move)
    try:
        trainer.train()
    finally:
        TrainableWeights._swap, TrainableWeights._move = swap, move
    return trainer, moved


class Rebuilding(LTSamTrainer):
    """Makes its own optimizer, over the classifier alone."""

    def create_optimizer(self, model=None):
        self.optimizer = groups(self.model, "classifier.weight", "classifier.bias")
        return self.optimizer


def of_layers(*names):
    return lambda model: {"optimizers": (groups(model, *names), None)}


CASES = {  # what makes the optimizer -> what it holds
    "stock": (lambda model: {}, LAYERS),
    "a group for each layer": (of_layers(*LAYERS), LAYERS),
    "the last layer": (of_layers("classifier.weight", "classifier.bias"), LAYERS[2:]),
    "weights without biases": (of_layers("fc1.weight", "classifier.weight"), (LAYERS[0], LAYERS[2])),
    "create_optimizer": (lambda model: {"kind": Rebuilding}, LAYERS[2:]),
}


@pytest.mark.parametrize("case", CASES)
def test_only_what_the_optimizer_holds_is_perturbed(case, tmp_path):
    model, before = Toy(), Toy().state_dict()
    make, held = CASES[case]
    trainer, moved = train(tmp_path, model, method="sam", method_args={"rho": 0.05}, **make(model))
    assert moved == [set(held)] * 2
    assert {name for name, p in model.named_parameters() if not torch.equal(p, before[name])} == set(held)
    assert all(log["sam_eps_norm"] == pytest.approx(0.05) for log in trainer.state.log_history if "sam_eps_norm" in log)


def test_an_optimizer_that_is_made_anew_between_steps(tmp_path):
    """It is asked before every step, as which weights are frozen is."""
    from transformers import TrainerCallback

    class Other(TrainerCallback):
        def on_step_end(self, args, state, control, model, optimizer, **_):
            for group in optimizer.param_groups:
                group["params"] = [p for p in group["params"] if p is model.classifier.weight]

    _, moved = train(tmp_path, Toy(), method="sam", callbacks=[Other()])
    assert moved == [set(LAYERS), {"classifier.weight"}]


def test_a_part_of_the_weights_is_that_part_frozen_elsewhere(tmp_path):
    """With the others frozen instead, the training is the same to the last bit."""
    states = []
    for freeze in (False, True):
        model = Toy()
        model.fc1.requires_grad_(not freeze)
        held = {"optimizers": (groups(model, "classifier.weight", "classifier.bias"), None)}
        train(tmp_path, model, method="sam", **held)
        states.append(model.flat())
    assert torch.equal(*states)


@pytest.mark.parametrize("exact_rows", [True, False])
def test_a_classifier_that_is_to_be_perturbed_must_be_held(exact_rows, tmp_path):
    model = Toy()
    with pytest.raises(ValueError, match=r"optimizer does not hold it.*parameters='all'"):
        train(tmp_path, model, (groups(model, "fc1.weight"), None), method="cc_sam", exact_rows=exact_rows)


def test_an_adapter_and_what_is_saved_with_it(tmp_path):
    model = get_peft_model(with_head("vit"), LoraConfig(target_modules=["q_proj"], modules_to_save=["classifier"]))
    adapters = [p for n, p in model.named_parameters() if "lora_" in n]
    assert len(TrainableWeights(model).parameters) == len(adapters) + 2
    weights = TrainableWeights(model)
    weights.follow(SGD(adapters, lr=0.1))
    assert {id(p) for p in weights.parameters} == {id(p) for p in adapters}
    weights.follow(None)
    assert len(weights.parameters) == len(adapters) + 2


# An optimizer that was made from something else.


def before_peft():
    model = with_head("vit")
    optimizer = SGD(model.parameters(), lr=0.1)
    return get_peft_model(model, LoraConfig(target_modules=["q_proj"], modules_to_save=["classifier"])), optimizer


def with_a_loss_of_its_own():
    model = Toy()
    return model, SGD([*model.parameters(), nn.Parameter(torch.zeros(4, 5))], lr=0.1)


def of_a_part():
    model = Toy()
    return model, SGD(model.classifier.parameters(), lr=0.1)


@pytest.mark.parametrize(
    "make, remarks",
    [
        (lambda: (m := Toy(), SGD(m.parameters(), lr=0.1)), []),
        (of_a_part, ["holds 2 of 4 trainable tensors.*fc1.weight, fc1.bias"]),
        (with_a_loss_of_its_own, ["holds 1 tensors that are not weights of Toy"]),
    ],
)
def test_warnings_of_an_optimizer(make, remarks):
    import re

    said = check_optimizer_of(*reversed(make()))
    assert len(said) == len(remarks) and all(re.search(pattern, text) for pattern, text in zip(remarks, said))


@pytest.mark.parametrize("make", [before_peft, lambda: (Toy(), SGD(Toy().parameters(), lr=0.1))])
def test_an_optimizer_of_another_model_is_refused(make):
    model, optimizer = make()
    with pytest.raises(
        ValueError, match=r"holds none of the .* trainable tensors .*the model that the trainer is given"
    ):
        check_optimizer_of(optimizer, model)


def test_the_trainer_refuses_it_when_it_is_made_and_warns_when_it_starts(tmp_path, caplog):
    logging.getLogger("transformers").propagate = True
    of_another = (SGD(Toy().parameters(), lr=0.1), None)
    settings = LTSamConfig(str(tmp_path), report_to="none", use_cpu=True, max_steps=1)
    with pytest.raises(ValueError, match="holds none of the 4"):
        LTSamTrainer(Toy(), settings, train_dataset=ToyBatches(), class_statistics=STATISTICS, optimizers=of_another)
    model = Toy()
    with caplog.at_level("WARNING"):
        train(tmp_path, model, (groups(model, "fc1.weight"), None), max_steps=1)
    assert sum("holds 1 of 4" in r.getMessage() for r in caplog.records) == 1


# A classifier that an adapter leaves frozen.


@pytest.mark.parametrize(
    "config, frozen",
    [
        ({"target_modules": ["q_proj"]}, "classifier"),
        ({"target_modules": "all-linear"}, None),  # for peft the last layer is one like the others here
        ({"target_modules": ["q_proj"], "modules_to_save": ["classifier"]}, None),
        ({"target_modules": ["q_proj", "classifier"]}, None),
    ],
    ids=str,
)
def test_a_frozen_classifier_is_warned_of_by_name(config, frozen, tmp_path, caplog):
    logging.getLogger("transformers").propagate = True
    model = get_peft_model(with_head("vit"), LoraConfig(**config))
    statistics = ClassStatistics([40, 20, 9, 5, 3], tail_threshold=10)
    settings = LTSamConfig(str(tmp_path), report_to="none", use_cpu=True, learning_rate=0.1, max_steps=1)
    with caplog.at_level("WARNING"):
        LTSamTrainer(model, settings, train_dataset=ToyBatches(), class_statistics=statistics)
    said = [r.getMessage() for r in caplog.records if "modules_to_save" in r.getMessage()]
    assert len(said) == (frozen is not None) and all(f"modules_to_save=['{frozen}']" in text for text in said)
    assert frozen_head(with_head("vit").requires_grad_(False), NUM_CLASSES) is None  # somebody's own doing
