"""Faults as a user of the command line meets them."""

import json

import pytest
from cli.train.test_train_script import large_images, refused, words  # noqa: F401 (a fixture)
from training.test_folder_lock import held

from hf_ltsam.cli.train import train


@pytest.mark.parametrize("folder, size", [("images", 12), ("large_images", 80)])
def test_corrupt_training_images_are_left_out_and_counted(request, folder, size, tmp_path, capsys):
    root = request.getfixturevalue(folder)
    broken = root / "train" / "dog" / "1.png"
    broken.write_bytes(b"no image")
    command = words(root, tmp_path / "run", "--on_bad_image", "skip", "--num_train_epochs", "1")
    command += [] if size == 12 else ["--image_size", "72"]
    with pytest.warns(UserWarning, match="1 of .* training images are left out") as warned:
        train.main(command)
    assert any(str(broken) in str(warning.message) for warning in warned)
    before = {"images": [12, 6, 3], "large_images": [4, 3, 2]}[folder]
    counts = json.loads((tmp_path / "run" / "ltsam.json").read_text())["class_counts"]
    assert counts == [before[0], before[1] - 1, before[2]]


def test_without_the_check_they_are_left_out_when_they_are_read(large_images, tmp_path, capsys):  # noqa: F811
    (large_images / "train" / "dog" / "1.png").write_bytes(b"no image")
    train.main(
        words(
            large_images,
            tmp_path / "run",
            "--on_bad_image",
            "skip",
            "--check_images",
            "false",
            "--image_size",
            "72",
            "--num_train_epochs",
            "1",
            "--logging_steps",
            "1",
        )
    )
    logs = [
        entry
        for entry in json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
        if "loss" in entry
    ]
    assert logs[-1]["bad_images"] == 1


SKIP, UNCHECKED = ["--on_bad_image", "skip"], ["--check_images", "false"]
TRAIN_WITHOUT = "train without those of the training split by --on_bad_image skip"


@pytest.mark.parametrize(
    ("size", "more", "said", "unsaid"),
    [
        ("72", SKIP, "no test image: replace or remove these files. --check_images false skips", TRAIN_WITHOUT),
        ("12", SKIP, "no test image: replace or remove these files.", "--check_images"),
        ("72", [], f"{TRAIN_WITHOUT}. --check_images false skips", "needs"),
        ("12", [], f"{TRAIN_WITHOUT}.", "--check_images"),
        ("12", UNCHECKED, f"{TRAIN_WITHOUT} with --check_images true.", "needs"),
        ("12", [*SKIP, *UNCHECKED], "--on_bad_image skip needs --check_images true", TRAIN_WITHOUT),
    ],
)
def test_corrupt_test_images_are_refused_all_the_same(request, size, more, said, unsaid, tmp_path, capsys):
    """What has been given already is not recommended."""
    root = request.getfixturevalue("images" if size == "12" else "large_images")
    broken = root / "test" / "dog" / "1.png"
    broken.write_bytes(b"no image")
    message = refused(capsys, *words(root, tmp_path / "run", "--image_size", size, *more))
    assert str(broken) in message and said in message and unsaid not in message


@pytest.mark.slow
def test_a_folder_in_use_is_refused_before_data_are_loaded(images, tmp_path, capsys):
    with held(tmp_path / "run") as number:
        message = refused(capsys, *words(images, tmp_path / "run"))
    assert f"in use by another run (process {number} on " in message and "another --output_dir" in message


def test_a_full_disk_is_one_message(images, tmp_path, capsys, monkeypatch):
    from hf_ltsam.training import checkpoint_folders

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_folders, "_flush", full)
    message = refused(capsys, *words(images, tmp_path / "run", "--save_steps", "2"))
    assert (
        "checkpoint-2 could not be written" in message
        and "No space left on device" in message
        and "Traceback" not in message
    )
