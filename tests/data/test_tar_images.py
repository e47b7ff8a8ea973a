"""Images inside an archive: read at their offsets by any process; members that lead elsewhere are refused."""

import gzip
import io
import os
import pickle
import subprocess
import tarfile
from importlib.metadata import entry_points

import pytest
from copies import jpeg, packed, tar, write
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from forked import PYTHON
from torch.utils.data import DataLoader

from dataset_builders.sources.tar_index import index_of
from hf_ltsam.data.decoding import decode_images
from hf_ltsam.data.tar_members import member_address, read_member


def index(archive, tmp_path):
    return index_of(archive, tmp_path / "cache", progress=False)


def test_offsets_lead_to_the_bytes_even_of_nested_archives(tmp_path):
    for name in ("b/x.JPEG", "b/y.JPEG"):
        write(tmp_path / "in" / name, name.encode() * 400)
    archive = tar(tmp_path / "a.tar", {"README": b"text", "b.tar": packed(tmp_path / "in" / "b"), "c/z.JPEG": b"last"})
    members = index(archive, tmp_path)
    assert [member.name for member in members] == ["README", "b/x.JPEG", "b/y.JPEG", "c/z.JPEG"]
    contents = [read_member(member_address(archive, *member)) for member in members]
    assert contents == [b"text", b"b/x.JPEG" * 400, b"b/y.JPEG" * 400, b"last"]
    archive_bytes = archive.read_bytes()
    assert all(archive_bytes[m.offset : m.offset + m.size] == c for m, c in zip(members, contents))


def test_the_index_is_kept_until_the_archive_changes(tmp_path, monkeypatch):
    archive = tar(tmp_path / "a.tar", {"b/x.JPEG": b"one"})
    first = index(archive, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", None)  # a second reading would fail
        assert index(archive, tmp_path) == first
    tar(archive, {"b/x.JPEG": b"one", "b/y.JPEG": b"two"})
    assert len(index(archive, tmp_path)) == 2


def test_an_archive_without_files(tmp_path):
    archive = tar(tmp_path / "a.tar", {})
    assert index(archive, tmp_path) == index(archive, tmp_path) == []


def member(name, kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("info", "what"),
    [
        (member("../x.JPEG"), "the member '../x.JPEG' points outside the archive"),
        (member("a/../../x.JPEG"), "the member 'a/../../x.JPEG' points outside the archive"),
        (member("/etc/x.JPEG"), "the member '/etc/x.JPEG' points outside the archive"),
        (member("a/x.JPEG", tarfile.SYMTYPE, "/etc/passwd"), "the member 'a/x.JPEG' is a link (to '/etc/passwd')"),
        (member("a/x.JPEG", tarfile.LNKTYPE, "b"), "the member 'a/x.JPEG' is a link (to 'b')"),
        (member("a/x.JPEG", tarfile.CHRTYPE), "the member 'a/x.JPEG' is neither a plain file nor a folder"),
        (member("../a", tarfile.DIRTYPE), "the member '../a' points outside the archive"),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_members_that_lead_elsewhere_are_refused_by_name(tmp_path, info, what, inside):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as bad:
        bad.addfile(member("a/fine.JPEG"))
        bad.addfile(info)
    archive = tmp_path / "bad.tar"
    if inside:
        tar(archive, {"n01440764.tar": buffer.getvalue()})
    else:
        archive.write_bytes(buffer.getvalue())
    where = f"{archive} (n01440764.tar)" if inside else str(archive)
    with pytest.raises(ValueError) as error:
        index(archive, tmp_path)
    assert str(error.value) == f"{where}: {what}. Do not use this archive: no official one does so."
    assert not list((tmp_path / "cache").rglob("*.parquet"))


def test_compressed_and_broken_archives_are_named(tmp_path):
    whole = tar(tmp_path / "a.tar", {"b/x.JPEG": b"x" * 3000, "b/y.JPEG": b"y" * 3000}).read_bytes()
    packed_file = tmp_path / "a.tar.gz"
    packed_file.write_bytes(gzip.compress(whole))
    with pytest.raises(ValueError) as error:
        index(packed_file, tmp_path)
    assert str(error.value) == (
        f"{packed_file} is compressed (gzip), so no image in it can be reached without reading all before it: "
        "gunzip it once (gunzip -k FILE keeps the original), or unpack it and give the folder."
    )
    short = tmp_path / "short.tar"
    short.write_bytes(whole[:5000])
    with pytest.raises(
        ValueError, match=r"short\.tar is not a whole tar: it breaks off after b/y\.JPEG .*Download it again"
    ):
        index(short, tmp_path)
    text = tmp_path / "text.tar"
    text.write_text("no archive " * 100)
    with pytest.raises(ValueError, match=r"text\.tar is not a whole tar: it breaks off after its beginning"):
        index(text, tmp_path)


@pytest.fixture
def dataset(tmp_path):
    """Four images in an archive whose name needs quoting, as the paths of an Image column."""
    files = {f"a b/im!{k}?.JPEG": jpeg(40 * k) for k in range(4)}
    archive = tar(tmp_path / "we ird[1]!*?#%.tar", files)
    places = [member_address(archive, *member) for member in index(archive, tmp_path)]
    return Dataset.from_dict({"image": places}, features=Features(image=ImageFeature(mode="RGB")))


def test_datasets_and_our_decoder_read_addresses(dataset):
    decoded = decode_images(dataset, progress=False)
    assert decoded.shape == (4, 3, 6, 9) and decoded[:, 0, 0, 0].tolist() == [0, 40, 80, 120]
    assert [row["image"].getpixel((0, 0))[0] for row in dataset] == [0, 40, 80, 120]
    assert [row["image"].getpixel((0, 0))[0] for row in dataset.to_iterable_dataset()] == [0, 40, 80, 120]


def corner(rows):
    return [row["image"].getpixel((0, 0))[0] for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_read_the_same_archive(dataset, start, monkeypatch):
    monkeypatch.setattr("multiprocessing.spawn._python_exe", os.fsencode(PYTHON))
    loader = DataLoader(dataset, 1, num_workers=2, collate_fn=corner, multiprocessing_context=start)
    assert [value for batch in loader for value in batch] == [0, 40, 80, 120]


@pytest.mark.slow
def test_a_process_without_any_import_of_ours_reads_addresses(dataset, tmp_path):
    """By the entry point in pyproject.toml."""
    if "tarmember" not in entry_points(group="fsspec.specs").names:
        pytest.skip("hf_ltsam was installed before it registered its addresses: install it again")
    (tmp_path / "rows.pkl").write_bytes(pickle.dumps(dataset))
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb'))[2]['image'].getpixel((0, 0))[0])"
    done = subprocess.run([PYTHON, "-c", code, str(tmp_path / "rows.pkl")], capture_output=True, text=True)
    assert done.stdout.strip() == "80", done.stderr


def test_a_shortened_or_missing_archive_is_named(dataset, tmp_path):
    archive = next(tmp_path.glob("*.tar"))
    archive.write_bytes(archive.read_bytes()[:600])
    with pytest.raises(
        ValueError, match=r"The image tarmember://.* cannot be decoded \(.*ends before its member a b/im!0\?\.JPEG"
    ):
        decode_images(dataset, progress=False)
    archive.unlink()
    with pytest.raises(ValueError, match="No such file"):
        decode_images(dataset, progress=False)


def test_other_addresses_are_refused():
    with pytest.raises(ValueError, match="is not an address tarmember://OFFSET"):
        read_member("tarmember://12/x.tar!a")
