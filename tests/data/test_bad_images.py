"""Unreadable training images: named, or left out and counted, the same ones in every run."""

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image
from torch import nn
from training.killed_runs import log, run

from hf_ltsam import LTSamConfig, LTSamTrainer
from hf_ltsam.data.bad_images import BadImageError, GoodImages
from hf_ltsam.data.transforms import on_the_fly, on_the_fly_stream

BAD = (3, 9, 16, 17, 18, 19)  # of 20


@pytest.fixture
def pictures(tmp_path):
    """20 PNGs of 3 classes; some are truncated, one is no picture and one is missing."""
    paths = [tmp_path / f"{i}.png" for i in range(20)]
    for i, path in enumerate(paths):
        Image.fromarray(np.random.RandomState(i).randint(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
        if i in BAD:
            path.write_bytes(path.read_bytes()[:60])
    paths[9].write_text("no picture")
    paths[16].unlink()
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["a", "b", "c"])})
    return Dataset.from_dict({"image": [str(p) for p in paths], "label": [i % 3 for i in range(20)]}, features=features)


def noisy(image):
    """A random transform: skipping a sample must not shift the random numbers of others."""
    return torch.from_numpy(np.array(image)).float().permute(2, 0, 1) / 255 + torch.randn(3, 8, 8)


def trainer(folder, dataset, **settings):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Dropout(0.2), nn.ReLU(), nn.Linear(8, 3))
    args = {
        "output_dir": str(folder),
        "num_train_epochs": 2,
        "per_device_train_batch_size": 4,
        "optim": "sgd",
        "optim_args": "momentum=0.9",
        "max_grad_norm": 0.0,
        "learning_rate": 0.1,
        "logging_steps": 5,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "save_steps": 3,
        "on_bad_image": "skip",
        **settings,
    }
    return LTSamTrainer(RecordsBatches(model), LTSamConfig(**args), train_dataset=dataset)


class RecordsBatches(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model
        self.batches = []

    def forward(self, pixel_values):
        self.batches.append(len(pixel_values))
        return self.model(pixel_values)


def test_by_default_a_bad_image_is_an_error_that_names_it(pictures, tmp_path):
    with pytest.raises(BadImageError, match=r"3\.png cannot be decoded") as raised:
        trainer(tmp_path / "run", on_the_fly(pictures.select([0, 1, 2, 3]), noisy), on_bad_image="raise").train()
    assert raised.value.__notes__[0] == "This was sample 3 of the training set."


@pytest.mark.parametrize("workers", [0, 2])
def test_left_out_counted_and_named(pictures, workers, tmp_path, caplog):
    made = trainer(tmp_path / "run", on_the_fly(pictures, noisy), dataloader_num_workers=workers)
    made.train()
    counts = [entry["bad_images"] for entry in made.state.log_history if "loss" in entry]
    assert counts == [6, 6], "each is counted once over both epochs"
    assert made.state.global_step == 10
    assert sum(made.model.batches) == 2 * 2 * 14 and min(made.model.batches) > 0  # passes x epochs x good ones
    if workers == 0:  # workers write to the screen themselves
        assert caplog.text.count("is left out: The image") == 5, "warnings name the first five"


def test_the_batch_is_smaller_and_its_other_samples_are_unchanged(pictures):
    from hf_ltsam.data.keyed_randomness import KeyedRandomness

    keyed = KeyedRandomness(on_the_fly(pictures, noisy), seed=0)
    good = GoodImages(keyed)
    batch = good.__getitems__([2, 3, 4, 9])
    assert len(batch) == 2
    for sample, index in zip(batch, (2, 4)):
        assert torch.equal(sample["pixel_values"], keyed[index]["pixel_values"])
    (substitute,) = good.__getitems__([16, 17])  # 18 and 19 are bad too: the next one is 0
    assert torch.equal(substitute["pixel_values"], keyed[0]["pixel_values"])
    assert good.bad.nonzero().flatten().tolist() == [3, 9, 16, 17, 18, 19]
    assert len(good) == 20 and torch.equal(good[5]["pixel_values"], keyed[5]["pixel_values"])


def test_resumed_is_uninterrupted(pictures, tmp_path):
    whole, resumed = (trainer(tmp_path / "run", on_the_fly(pictures, noisy)) for _ in range(2))
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    for a, b in zip(whole.model.parameters(), resumed.model.parameters()):
        assert torch.equal(a, b)


def test_a_missing_drive_stops_the_training(tmp_path):
    class Missing(torch.utils.data.Dataset):
        labels = [0, 1, 2] * 100

        def __len__(self):
            return 300

        def __getitem__(self, index):
            raise OSError("Stale file handle")

    with pytest.raises(
        ValueError, match=r"No image of a batch and of the 100 samples after it can be read.*check that the folder"
    ):
        trainer(tmp_path, Missing()).train()


def test_other_errors_do_not_count_as_bad_images(pictures, tmp_path):
    def wrong(image):
        raise ValueError("a mistake in the transform")

    with pytest.raises(ValueError, match="a mistake in the transform"):
        trainer(tmp_path, on_the_fly(pictures, wrong)).train()


def test_test_images_are_never_left_out(pictures, tmp_path):
    """An accuracy over fewer images than stated would be worthless."""
    made = trainer(tmp_path, on_the_fly(pictures, noisy))
    with pytest.raises(BadImageError, match=r"3\.png cannot be decoded"):
        made.evaluate(on_the_fly(pictures.select(range(4)), noisy))


class SomeMissing(torch.utils.data.Dataset):
    def __init__(self):
        self.labels = [i % 3 for i in range(40)]

    def __len__(self):
        return 40

    def __getitem__(self, index):
        if index in (3, 9, 30):
            raise OSError("gone")
        return {"pixel_values": torch.full((3, 8, 8), index / 40), "labels": self.labels[index]}


def count(folder, death, settings):
    made = trainer(folder, SomeMissing(), **settings)
    made.train()
    if made.is_world_process_zero():
        (folder / "counts").write_text(
            str([entry["bad_images"] for entry in made.state.log_history if "loss" in entry])
        )


def test_two_ranks_count_together(tmp_path):
    assert run(tmp_path / "run", None, None, target=count, num_train_epochs=1) == [0, 0], log(tmp_path / "run")
    assert (tmp_path / "run" / "counts").read_text() == "[3]"


def test_streams(pictures, tmp_path, caplog):
    stream = pictures.to_iterable_dataset()
    with caplog.at_level("WARNING"):
        rows = list(on_the_fly_stream(stream, noisy, on_bad_image="skip"))
    assert [row["labels"] for row in rows] == [i % 3 for i in range(20) if i not in BAD]
    assert caplog.text.count("Left out of the stream: The image") == 6
    with pytest.raises(BadImageError, match=r"3\.png"):
        list(on_the_fly_stream(stream, noisy))
    with pytest.raises(ValueError, match=r"on_the_fly_stream\(\.\.\., on_bad_image='skip'\)"):
        trainer(tmp_path, on_the_fly_stream(stream, noisy), max_steps=2)


def test_an_unknown_policy_is_refused():
    with pytest.raises(ValueError, match=r"on_bad_image=...\) must be raise or skip, got 'ignore'"):
        LTSamConfig(on_bad_image="ignore")


@pytest.mark.parametrize(("samples", "tried"), [(300, 100), (30, 29)])
def test_the_number_of_samples_that_were_tried_is_the_one_that_is_named(samples, tried):
    read = []

    class Missing(torch.utils.data.Dataset):
        def __len__(self):
            return samples

        def __getitem__(self, index):
            read.append(index)
            raise OSError("Stale file handle")

    with pytest.raises(ValueError, match=f"of the {tried} samples after it"):
        GoodImages(Missing())[0]
    assert read == [*range(tried + 1)]
