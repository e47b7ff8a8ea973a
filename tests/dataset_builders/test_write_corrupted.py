"""Written -C sets: lossless, the same bytes whatever happens on the way, never two of them in one folder."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from corruption_pictures import labelled_scenes, png, scene
from corruption_writing import NAMES, write
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature

from dataset_builders.corruptions import corrupted, load_corrupted, write_corrupted
from dataset_builders.corruptions.manifest import FILE_NAME
from hf_ltsam.cli import corrupt as command
from hf_ltsam.cli import main as cli


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.parquet") if file.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """All corruptions at severity 4, written without interruption by this process."""
    folder = tmp_path_factory.mktemp("whole")
    write(folder, workers=1)
    return folder


@pytest.mark.slow
def test_a_killed_run_continues_to_the_same_bytes(whole, tmp_path):
    """A fresh interpreter with two workers is killed after the second file; two workers here write the rest."""
    folder = tmp_path / "killed"
    program = [sys.executable, str(Path(__file__).with_name("corruption_writing.py")), str(folder), "2"]
    running = subprocess.Popen(program, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    try:
        while len(contents(folder)) < 2 and running.poll() is None:
            time.sleep(0.002)
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
    finished = {name: (folder / name).stat().st_mtime_ns for name in contents(folder)}
    assert 2 <= len(finished) < len(NAMES)
    files = write(folder, workers=2)
    assert contents(folder) == contents(whole) and len(files) == len(NAMES) == len(set(files))
    assert {name: (folder / name).stat().st_mtime_ns for name in finished} == finished  # these were not written again
    assert not list(folder.rglob("*.part"))


def test_the_images_are_those_of_the_transform(whole, tmp_path):
    clean = labelled_scenes(204)
    for corruption in ("glass_blur", "frost"):
        read, made = load_corrupted(whole, corruption, 4, cache_dir=tmp_path), corrupted(clean, corruption, 4, seed=3)
        assert read.features == clean.features and len(read) == 204
        assert read[7]["img"].format == "PNG"
        for row in (0, 199, 200, 203):
            assert np.array_equal(np.asarray(read[row]["img"]), np.asarray(made[row]["img"]))
            assert (read[row]["label"], read[row]["note"]) == (clean[row]["label"], clean[row]["note"])


def test_the_set_says_what_it_is(whole):
    manifest = json.loads((whole / FILE_NAME).read_text())
    assert (manifest["rows"], manifest["seed"], manifest["size"], manifest["scale"]) == (204, 3, None, "auto")
    assert len(manifest["source"]) == 64
    assert pq.ParquetFile(whole / "fog" / "4.parquet").metadata.num_row_groups == 2


def small(**settings):
    return write_corrupted(
        labelled_scenes(5),
        **{"corruptions": ["contrast"], "severities": [1], "workers": 1, "progress": False, **settings},
    )


def test_another_source_seed_or_size_is_refused(tmp_path):
    small(folder=tmp_path)
    before = contents(tmp_path)
    for settings, message in [
        ({"seed": 1}, "seed 0 there, 1 wanted"),
        ({"size": 24}, "size None there, 24 wanted"),
        ({"scale": "imagenet"}, "scale 'auto' there"),
    ]:
        with pytest.raises(ValueError, match=message):
            small(folder=tmp_path, **settings)
    images, labels, order = labelled_scenes(5), labelled_scenes(5), labelled_scenes(5).select([1, 0, 2, 3, 4])
    images = images.map(lambda row, i: {"img": png(scene(16, 16, 99))} if i == 4 else row, with_indices=True)
    labels = labels.map(lambda row, i: {"label": 1} if i == 4 else row, with_indices=True)
    for other in (images, labels, order, labelled_scenes(6)):
        with pytest.raises(ValueError, match=r"made otherwise .*source"):
            write_corrupted(other, tmp_path, ["contrast"], [1], workers=1, progress=False)
    assert contents(tmp_path) == before


def test_a_later_call_adds_and_a_finished_set_is_left_alone(tmp_path):
    small(folder=tmp_path)
    first = (tmp_path / "contrast" / "1.parquet").stat().st_mtime_ns
    added = small(folder=tmp_path, corruptions=["contrast", "fog"], severities=[1, 5, 5])
    assert [str(file.relative_to(tmp_path)) for file in added] == [
        "contrast/1.parquet",
        "contrast/5.parquet",
        "fog/1.parquet",
        "fog/5.parquet",
    ]
    assert (tmp_path / "contrast" / "1.parquet").stat().st_mtime_ns == first
    assert {file.name for file in tmp_path.rglob("*") if file.is_file()} == {FILE_NAME, "1.parquet", "5.parquet"}


def test_the_same_data_in_another_form_are_the_same_source(tmp_path):
    small(folder=tmp_path)
    clean = labelled_scenes(6).select(range(5)).cast_column("img", ImageFeature(decode=False)).with_format("numpy")
    assert write_corrupted(clean, tmp_path, ["fog"], [1], workers=1, progress=False)


def test_folders_that_are_something_else(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds other files and no corruptions\.json"):
        small(folder=tmp_path)
    with pytest.raises(NotADirectoryError, match=r"notes\.txt is a file"):
        small(folder=tmp_path / "notes.txt")
    small(folder=tmp_path / "set")
    (tmp_path / "set" / "contrast" / "1.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"1\.parquet is damaged"):
        small(folder=tmp_path / "set")
    (tmp_path / "set" / FILE_NAME).write_text("{")
    with pytest.raises(ValueError, match=r"corruptions\.json is damaged"):
        small(folder=tmp_path / "set")


def test_wrong_settings_are_refused_before_anything_is_written(tmp_path):
    for settings, message in [
        ({"corruptions": ["snw"]}, "Did you mean 'snow'"),
        ({"severities": [1, 6]}, "got 6"),
        ({"workers": 0}, "workers.* whole number of at least 1"),
        ({"size": 3}, "at least 8 pixels"),
        ({"image_column": "image"}, "The data set has no column 'image'\\. Did you mean 'img'"),
    ]:
        with pytest.raises(ValueError, match=message):
            small(folder=tmp_path / "new", **settings)
        assert not (tmp_path / "new").exists(), settings
    with pytest.raises(ValueError, match="with rows"):
        write_corrupted(labelled_scenes(5).select([]), tmp_path / "new")


def test_two_runs_do_not_write_to_one_folder(tmp_path):
    small(folder=tmp_path)
    code = (
        "import fcntl, sys; file = open(sys.argv[1], 'r+'); fcntl.lockf(file, fcntl.LOCK_EX);"
        "print('locked', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / FILE_NAME)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(OSError, match="Another run is writing"):
            small(folder=tmp_path, severities=[2])
    finally:
        other.kill()
        other.communicate()


def test_a_broken_image_is_named_and_nothing_half_written_counts(tmp_path):
    features = Features({"img": ImageFeature()})
    dataset = Dataset.from_dict(
        {"img": [png(scene(16, 16)), {"bytes": b"no image", "path": "bad.png"}]}, features=features
    )
    for workers in (1, 2):
        with pytest.raises(ValueError, match=r"bad\.png \(row 1\) cannot be decoded"):
            write_corrupted(dataset, tmp_path / "set", ["fog", "contrast"], [1], workers=workers, progress=False)
    assert contents(tmp_path) == {}


def test_what_is_not_there_cannot_be_loaded(whole, tmp_path):
    with pytest.raises(FileNotFoundError, match="no fog of severity 1; there are brightness 4"):
        load_corrupted(whole, "fog", 1)
    with pytest.raises(FileNotFoundError, match="it is not a folder that write_corrupted made"):
        load_corrupted(tmp_path, "fog", 1)
    with pytest.raises(ValueError, match="Did you mean 'fog'"):
        load_corrupted(whole, "fgo", 1)


def test_a_set_that_was_made_anew_is_not_read_from_a_cache(tmp_path):
    import shutil

    def read():
        return np.asarray(load_corrupted(tmp_path / "set", "fog", 1, cache_dir=tmp_path / "cache")[0]["img"])

    small(folder=tmp_path / "set", corruptions=["fog"])
    first = read()
    shutil.rmtree(tmp_path / "set")
    small(folder=tmp_path / "set", corruptions=["fog"], seed=1)
    assert not np.array_equal(read(), first)


def test_the_command(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    labelled_scenes(4).to_parquet(tmp_path / "data" / "test.parquet")
    words = [
        "corrupt",
        "--dataset",
        str(tmp_path / "data"),
        "--output",
        str(tmp_path / "c"),
        "--corruptions",
        "fog",
        "spatter",
        "--severities",
        "2",
        "--workers",
        "1",
        "--seed",
        "4",
    ]
    cli.main(words)
    assert "2 files" in capsys.readouterr().out
    read = load_corrupted(tmp_path / "c", "spatter", 2, cache_dir=tmp_path / "cache")
    assert read.features["label"] == ClassLabel(names=["dog", "cat"])
    expected = corrupted(labelled_scenes(4), "spatter", 2, seed=4)
    assert np.array_equal(np.asarray(read[3]["img"]), np.asarray(expected[3]["img"]))
    for change, message in [
        (["--corruptions", "fgo"], "Did you mean 'fog'"),
        (["--dataset", "no/such/folder"], "no/such/folder"),
        (["--split", "train"], "--split train"),
        (["--seed", "5"], "seed 4 there, 5 wanted"),
    ]:
        with pytest.raises(SystemExit) as exit_:
            cli.main([*words, *change])
        assert exit_.value.code == 2 and message in capsys.readouterr().err


def test_the_command_reads_image_folders(tmp_path):
    from PIL import Image

    for name in ("ant", "bee"):
        (tmp_path / "images/test" / name).mkdir(parents=True)
        Image.fromarray(scene(20, 30)).save(tmp_path / "images/test" / name / "1.png")
    cli.main(
        [
            "corrupt",
            "--dataset",
            str(tmp_path / "images"),
            "--output",
            str(tmp_path / "c"),
            "--corruptions",
            "fog",
            "--severities",
            "1",
            "--workers",
            "1",
            "--size",
            "16",
        ]
    )
    read = load_corrupted(tmp_path / "c", "fog", 1, cache_dir=tmp_path / "cache")
    assert read.features["label"].names == ["ant", "bee"] and read[0]["image"].size == (16, 16)


def test_a_wrong_name_on_the_command_line_says_what_would_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.load_dataset", offline)
    with pytest.raises(
        FileNotFoundError,
        match="--dataset nope is neither a file or folder here nor a data set on the Hub that can be reached",
    ):
        command.main(["--dataset", "nope", "--output", "out"])


def offline(_):
    raise ConnectionError("Couldn't reach 'nope' on the Hub")
