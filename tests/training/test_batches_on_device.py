"""The Trainer on in-memory images: whole batches, made where it trains; the same numbers as sample by sample."""

import gc
import pickle
import weakref
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Subset
from training.two_processes_in_memory import COUNTS, Flat, numbered, trainer_of
from training.two_ranks import results_of_two_ranks
from transformers import default_data_collator

from hf_ltsam.data.in_memory.images import InMemoryImages
from hf_ltsam.data.in_memory.randaugment import RandAugment
from hf_ltsam.data.in_memory.whole_batches import WholeBatches, in_memory_part

SCRIPT = Path(__file__).with_name("two_processes_in_memory.py")


def collated(samples):
    """A collator of the user's own."""
    return default_data_collator(samples)


def numbers(pixels):
    """Which images a batch of `numbered` holds, from a pixel of their centre."""
    return (pixels[:, 0, 3, 3].round() - 1).int().tolist()


def assert_same(a, b):
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(x, y), name


def trained(folder, dataset, **settings):
    trainer = trainer_of(folder, dataset, save_strategy="no", **settings)
    trainer.train()
    return trainer


@pytest.fixture
def no_samples(monkeypatch):
    """Fail where samples are made one by one."""

    def refused(self, indices):
        raise RuntimeError("a list of samples")

    monkeypatch.setattr(InMemoryImages, "__getitems__", refused)


@pytest.mark.parametrize("settings", [{}, {"remove_unused_columns": True}, {"sampling": "class_aware"}, {"bf16": True}])
def test_batches_come_whole_and_are_evaluated_so(settings, tmp_path, no_samples):
    trainer = trained(tmp_path, numbered(cutout=2), eval_dataset=numbered(augment=False), **settings)
    assert len(trainer.seen) == 10 and all(p.shape == (4, 3, 6, 6) for p in trainer.seen)
    assert "eval_balanced" in trainer.evaluate()
    assert trainer.predict(numbered(augment=False)).predictions.shape == (40, 3)


@pytest.mark.parametrize(
    "of", [lambda d: d, lambda d: Subset(Subset(d, range(1, 39)), list(range(30, -1, -2)))], ids=["all", "subset"]
)
def test_the_same_training_as_with_a_collator_of_ones_own(of, tmp_path):
    settings = {"cutout": 3, "randaugment": RandAugment(1, 9)}
    whole = trained(tmp_path, of(numbered(**settings)))
    listed = trained(tmp_path, of(numbered(**settings)), data_collator=collated)
    assert isinstance(whole.get_train_dataloader().dataset, WholeBatches)
    assert not isinstance(listed.get_train_dataloader().dataset, WholeBatches)
    for a, b in zip(whole.seen, listed.seen, strict=True):
        assert torch.equal(a, b)
    assert_same(whole.model, listed.model)


def test_an_evaluation_on_the_same_images_leaves_the_epoch_alone(tmp_path):
    """accelerate tells every loader that it starts its own epoch, which is 0 for an evaluation."""
    images = numbered()
    seen = []
    for eval_dataset, settings in ((None, {}), (Subset(images, range(8)), {"eval_strategy": "steps", "eval_steps": 3})):
        seen.append(
            trained(tmp_path, Subset(images, range(8, 40)), eval_dataset=eval_dataset, steps=16, **settings).seen
        )
    for a, b in zip(*seen, strict=True):
        assert torch.equal(a, b)


def test_every_epoch_shows_every_image_once_in_new_order_and_crops(tmp_path):
    seen = trained(tmp_path, numbered(), steps=20).seen
    epochs = [torch.cat(seen[:10]), torch.cat(seen[10:])]
    orders = [numbers(e) for e in epochs]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(40)) and orders[0] != orders[1]
    first, second = (e[torch.tensor(o).argsort()] for e, o in zip(epochs, orders))
    assert (first != second).any(dim=(1, 2, 3)).sum() > 20  # cropped elsewhere


def test_other_shares_of_the_classes(tmp_path):
    dataset = numbered()
    seen = trained(tmp_path, dataset, sampling="class_aware").seen
    labels = dataset.labels[numbers(torch.cat(seen))]
    assert (labels[:39].view(13, 3).sort(dim=1).values == torch.arange(3)).all()  # the classes in turn


@pytest.mark.parametrize("settings", [{}, {"sampling": "square_root"}, {"dataloader_num_workers": 2}])
def test_resumed_in_mid_epoch(settings, tmp_path):
    data = {"cutout": 2, "randaugment": RandAugment(2, 5)}
    whole, resumed = (trainer_of(tmp_path, numbered(**data), steps=12, **settings) for _ in range(2))
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-7"))
    assert all(torch.equal(a, b) for a, b in zip(whole.seen[7:], resumed.seen, strict=True))
    assert_same(whole.model, resumed.model)


def test_workers_make_the_same_batches_and_are_advised_against(tmp_path, caplog):
    here, there = trained(tmp_path, numbered()), trained(tmp_path, numbered(), dataloader_num_workers=1)
    assert all(torch.equal(a, b) for a, b in zip(here.seen, there.seen, strict=True))
    assert "dataloader_num_workers=1: the batches" in caplog.text and "dataloader_num_workers=0" in caplog.text


def test_workers_cannot_read_an_accelerator(tmp_path):
    images = InMemoryImages(
        torch.zeros(40, 3, 6, 6, dtype=torch.uint8, device="meta"),
        numbered().labels,
        [0.5] * 3,
        [0.5] * 3,
        augment=True,
    )
    trainer = trainer_of(tmp_path, images, dataloader_num_workers=1)
    with pytest.raises(ValueError, match=r"dataloader_num_workers=1.*on meta.*dataloader_num_workers=0"):
        trainer.get_train_dataloader()


def test_what_is_on_an_accelerator_is_not_pinned(tmp_path):
    dataset = numbered()
    trainer = trainer_of(tmp_path, dataset)
    trainer.args.dataloader_pin_memory = True  # as it is beside an accelerator
    assert trainer.get_train_dataloader().pin_memory
    trainer.batch_loaders.stores[dataset] = dataset.store.to("meta")  # in an accelerator's place
    loader = trainer.get_train_dataloader()
    assert not loader.pin_memory and trainer.args.dataloader_pin_memory
    assert loader.dataset.__getitems__([0, 1])["pixel_values"].device.type == "meta"


def test_images_go_to_the_device_once_and_leave_it_with_the_trainer(tmp_path, monkeypatch):
    from hf_ltsam.data.in_memory.image_store import ImageStore

    copies = []
    monkeypatch.setattr(
        ImageStore,
        "to",
        lambda self, device: (
            copies.append(device) or ImageStore(self.pixels.clone(), self.labels, self.mean, self.std, self.white)
        ),
    )
    dataset = numbered(augment=False)
    trainer = trainer_of(tmp_path, dataset, eval_dataset=dataset)
    copies.clear()
    loaders = [trainer.get_train_dataloader(), trainer.get_eval_dataloader(), trainer.get_eval_dataloader()]
    assert copies == [trainer.args.device]
    there = weakref.ref(loaders[0].dataset.store.pixels)
    del loaders, trainer
    gc.collect()
    assert there() is None


def test_settings_of_the_data_set_hold_from_the_next_batch(tmp_path):
    dataset = numbered()
    loader = trainer_of(tmp_path, dataset).get_train_dataloader()
    dataset.augment = False
    assert all((b["pixel_values"] == b["pixel_values"][:, :1, 3:4, 3:4]).all() for b in loader)  # no black border


def test_a_bad_batch_is_named(tmp_path):
    class Sensitive(Flat):
        def forward(self, pixel_values):
            number = pixel_values[:, 0, 3, 3].round() - 1
            return super().forward(pixel_values) + torch.where(number == 17, torch.nan, 0.0).unsqueeze(1)

    trainer = trainer_of(tmp_path, numbered(), batch_size=1, max_skipped_steps=1, steps=40)
    trainer.model = trainer.model_wrapped = Sensitive()
    with pytest.raises(FloatingPointError, match=r"for sample 17\b"):
        trainer.train()


def test_a_trained_data_set_can_be_pickled_and_read_without_the_trainer(tmp_path):
    dataset = numbered()
    size = len(pickle.dumps(dataset))
    trained(tmp_path, dataset)
    data = pickle.dumps(dataset)
    assert abs(len(data) - size) < 100
    batch = next(iter(DataLoader(pickle.loads(data), batch_size=5, collate_fn=default_data_collator)))
    assert torch.equal(batch["pixel_values"], dataset.batch(range(5))["pixel_values"])


def test_what_is_not_in_memory_is_not_recognised():
    class Own(InMemoryImages):
        pass

    class OwnSubset(Subset):
        def __getitem__(self, index):
            return {**super().__getitem__(index), "extra": 1}

        def __getitems__(self, indices):
            return [self[i] for i in indices]

    assert in_memory_part([1, 2]) is None and in_memory_part(Subset([1, 2], [0])) is None
    assert in_memory_part(OwnSubset(numbered(), [0])) is None
    assert in_memory_part(Own(numbered().images, numbered().labels, [0.5] * 3, [0.5] * 3, augment=True)) is None


@pytest.mark.slow
def test_two_processes_share_an_epoch(tmp_path):
    ranks = results_of_two_ranks(SCRIPT, tmp_path)
    first, second = (r["seen"] for r in ranks)
    assert sorted(numbers(torch.cat(first[:5])) + numbers(torch.cat(second[:5]))) == list(range(sum(COUNTS)))
    alone = trained(tmp_path / "alone", numbered(), batch_size=8)
    for a, b, both in zip(first, second, alone.seen, strict=True):
        assert torch.equal(torch.cat([a, b]), both)
    for rank in ranks:
        assert all(torch.equal(a, b) for a, b in zip(rank["seen"][7:], rank["resumed"], strict=True))
        for name, value in rank["state"].items():
            assert torch.equal(value, rank["resumed_state"][name]) and torch.equal(value, ranks[0]["state"][name]), name
            torch.testing.assert_close(rank["channels_last_state"][name], value, rtol=1e-4, atol=1e-6)
