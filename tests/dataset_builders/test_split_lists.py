"""Split lists: read, recognised, fetched once; a wrong one is described."""

import functools
import gzip
import hashlib
import http.server
import json
import tarfile
import threading

import numpy as np
import pytest

from dataset_builders.catalogue import SETS
from dataset_builders.sources.class_table import ClassTable, class_table
from dataset_builders.sources.download import download
from dataset_builders.sources.published_lists import PublishedList, check_published, obtain, table_of_own_lists
from dataset_builders.sources.split_lists import read_split_list

TABLE = ClassTable(("n1", "n2"), ("cat", "dog"), (2, 1))
TEXT = "train/n1/a.jpg 0\ntrain/n1/b c.jpg 0\ntrain/n2/d.jpg 1\n"
SHA256 = hashlib.sha256(TEXT.encode()).hexdigest()
PUBLISHED = PublishedList(("train.txt",), (2, 1), ("http://127.0.0.1:1/train.txt",), f"sha256:{SHA256}", SHA256)
WAY_OUT = "Take the published list, or pass own_lists=True if this one is meant."


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_text_plain_and_compressed(tmp_path):
    for file in (written(tmp_path / "a.txt", TEXT), written(tmp_path / "a.txt.gz", gzip.compress(TEXT.encode()))):
        listed = read_split_list(file)
        assert listed.paths == ("train/n1/a.jpg", "train/n1/b c.jpg", "train/n2/d.jpg")
        assert listed.labels.tolist() == [0, 0, 1] and listed.labels.dtype == np.int64 and listed.sha256 == SHA256
        check_published(listed, PUBLISHED, TABLE)


def test_the_json_of_inaturalist_also_as_published(tmp_path):
    annotations = {
        "images": [
            {"id": 7, "file_name": "train_val2018/Fungi/3/x.jpg"},
            {"id": 5, "file_name": "train_val2018/Aves/0/y.jpg"},
        ],
        "annotations": [{"id": 5, "image_id": 5, "category_id": 0}, {"id": 7, "image_id": 7, "category_id": 3}],
        "categories": [],
    }
    plain = written(tmp_path / "train2018.json", json.dumps(annotations))
    with tarfile.open(tmp_path / "train2018.json.tar.gz", "w:gz") as archive:
        archive.add(plain, "train2018.json")
    for file in (plain, tmp_path / "train2018.json.tar.gz"):
        listed = read_split_list(file)
        assert listed.paths == ("train_val2018/Fungi/3/x.jpg", "train_val2018/Aves/0/y.jpg")
        assert listed.labels.tolist() == [3, 0]
    with pytest.raises(ValueError, match=r"t\.json is not iNaturalist's JSON.*'annotations'"):
        read_split_list(written(tmp_path / "t.json", "{}"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            TEXT.replace("\n", "\r\n"),
            "{file} has Windows line ends (CRLF), so it is not byte for byte what was published. Convert it: "
            "sed -i 's/\\r$//' list.txt; and switch off autocrlf where git made them.",
        ),
        ("train/n1/a.jpg 0\ntrain/n1/b.jpg\n", "{file}, line 2: 'train/n1/b.jpg' is not `path label`."),
        ("train/n1/a.jpg 0\n../x.jpg 0\n", "{file}, line 2: '../x.jpg' points outside the data set's folder."),
        ("/etc/x.jpg 0\n", "{file}, line 1: '/etc/x.jpg' points outside the data set's folder."),
        ("train/a.jpg -1\n", "{file}, line 1: 'train/a.jpg -1' is not `path label`."),
        ("", "{file} names no image."),
    ],
)
def test_what_is_wrong_with_a_file_is_said_exactly(tmp_path, content, message):
    file = written(tmp_path / "list.txt", content)
    with pytest.raises(ValueError) as error:
        read_split_list(file)
    assert str(error.value) == message.format(file=file)


def test_files_that_are_no_lists(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no split list .*nowhere\.txt"):
        read_split_list(tmp_path / "nowhere.txt")
    with pytest.raises(ValueError, match=r"a\.txt\.gz cannot be decompressed"):
        read_split_list(written(tmp_path / "a.txt.gz", gzip.compress(TEXT.encode())[:-9]))
    with pytest.raises(ValueError, match=r"b\.txt is no text"):
        read_split_list(written(tmp_path / "b.txt", b"\xff\xfe\x00"))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("train/n1/a.jpg 0\ntrain/n2/d.jpg 1\n", "it names 2 images and not 3; n1 (cat) has 1 and not 2"),
        (
            TEXT.replace("b c.jpg 0", "b c.jpg 1"),
            "it names 3 images and not 3; n1 (cat) has 1 and not 2, n2 (dog) has 2 and not 1",
        ),
        (TEXT + "train/n3/e.jpg 2\n", "label 2 is outside 0 to 1"),
    ],
)
def test_a_wrong_list_is_described_by_its_classes(tmp_path, text, wrong):
    file = written(tmp_path / "list.txt", text)
    with pytest.raises(ValueError) as error:
        check_published(read_split_list(file), PUBLISHED, TABLE)
    assert str(error.value) == f"{file} is not the published list: {wrong}. {WAY_OUT}"


def test_a_list_of_other_images_is_told_by_its_digest(tmp_path):
    file = written(tmp_path / "list.txt", TEXT.replace("b c.jpg", "e.jpg"))
    listed = read_split_list(file)
    with pytest.raises(ValueError) as error:
        check_published(listed, PUBLISHED, TABLE)
    assert str(error.value) == (
        f"{file} has as many images of every class as the published list, but they are others or in another order: "
        f"SHA-256 {listed.sha256}, published {SHA256}. {WAY_OUT}"
    )


def test_own_lists_define_their_classes(tmp_path):
    train = read_split_list(written(tmp_path / "a.txt", "train/n9/a.jpg 1\ntrain/n1/b.jpg 0\ntrain/n9/c.jpg 1\n"))
    table = table_of_own_lists({"train": train}, TABLE)
    assert (table.keys, table.names, table.counts) == (("n1", "n9"), ("cat", "n9"), (1, 2))
    for text, message in (
        ("t/n1/a.jpg 0\nt/n2/b.jpg 0\n", "gives label 0 to n1 and to n2"),
        ("t/n1/a.jpg 0\nt/n2/b.jpg 2\n", "skip 1"),
        ("t/n1/a.jpg 0\nt/n2/b.jpg 1000000000\n", "skip 1"),
        ("t/n1/a.jpg 0\nt/n1/b.jpg 1\n", "give n1 several labels"),
    ):
        with pytest.raises(ValueError, match=message):
            table_of_own_lists({"train": read_split_list(written(tmp_path / "b.txt", text))}, TABLE)


@pytest.fixture
def server(tmp_path):
    """(address, requests) of a server of the files in tmp_path/public."""
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            requests.append(self.path)

    (tmp_path / "public").mkdir()
    handler = functools.partial(Handler, directory=str(tmp_path / "public"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", requests
        running.shutdown()


def test_offline_nothing_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(
        FileNotFoundError, match=r"https://lists.example/t: HF_HUB_OFFLINE=1 forbids the network.*lists=FOLDER"
    ):
        download(tmp_path / "train.txt", ["https://lists.example/t"], f"sha256:{SHA256}")


def test_a_list_is_fetched_once_from_the_first_address_that_has_it(tmp_path, server):
    address, requests = server
    written(tmp_path / "public" / "other.txt", "another file")
    written(tmp_path / "public" / "train.txt", TEXT)
    addresses = (f"{address}/gone.txt", f"{address}/other.txt", f"{address}/train.txt")
    published = PublishedList(("train.txt",), (2, 1), addresses, f"sha256:{SHA256}", SHA256)
    for _ in range(2):
        assert obtain("train", published, None, None, tmp_path / "cache").sha256 == SHA256
    assert [path for path in requests if path == "/train.txt"] == ["/train.txt"]
    assert [file.name for file in (tmp_path / "cache" / "lists").iterdir()] == ["train.txt"]  # nothing left aside


def test_without_an_address_that_answers_the_way_out_is_told(tmp_path, server):
    written(tmp_path / "public" / "train.txt", "another file")
    wrong = hashlib.sha256(b"another file").hexdigest()
    address = f"{server[0]}/train.txt"
    with pytest.raises(FileNotFoundError) as error:
        download(tmp_path / "cache" / "train.txt", ["http://127.0.0.1:1/train.txt", address], f"sha256:{SHA256}")
    assert str(error.value) == (
        "The split list train.txt could not be fetched. http://127.0.0.1:1/train.txt: <urlopen error [Errno 111] Connection "
        f"refused>; {address}: its SHA256 is {wrong} and not {SHA256}, so it is another file. Without the network: fetch it "
        "elsewhere and pass lists=FOLDER with train.txt in it."
    ).replace("111", "61" if "Errno 61" in str(error.value) else "111")  # macOS numbers errors differently
    assert not list((tmp_path / "cache").iterdir())


def test_lists_given_by_path_come_first_then_those_beside_the_images(tmp_path):
    for folder, text in (
        ("given", "a/given/x.jpg 0\n"),
        ("copy", "a/copy/x.jpg 0\n"),
        ("cache/lists", "a/cache/x.jpg 0\n"),
    ):
        (tmp_path / folder).mkdir(parents=True)
        written(tmp_path / folder / "train.txt", text)
    copy, cache = tmp_path / "copy", tmp_path / "cache"
    assert obtain("train", PUBLISHED, tmp_path / "given", copy, cache).paths == ("a/given/x.jpg",)
    assert obtain("train", PUBLISHED, None, copy, cache).paths == ("a/copy/x.jpg",)
    assert obtain("train", PUBLISHED, None, None, cache).paths == ("a/cache/x.jpg",)
    with pytest.raises(FileNotFoundError, match=r"lists=.*cache holds no list of train: train\.txt"):
        obtain("train", PUBLISHED, cache, copy, cache)


def test_the_tables_of_the_package_are_consistent():
    for name, total, classes in (
        ("imagenet", 115_846, 1000),
        ("inaturalist2018", 437_513, 8142),
        ("places365", 62_500, 365),
    ):
        table = class_table(name)
        assert (len(table.keys), sum(table.counts)) == (classes, total)
        assert len(set(table.keys)) == len(set(table.names)) == classes and all(table.names)
    assert list(class_table("imagenet").keys) == sorted(class_table("imagenet").keys)
    assert list(class_table("inaturalist2018").keys) == [str(c) for c in range(8142)]


@pytest.mark.parametrize(
    ("name", "split", "file"),
    [
        ("imagenet_lt", "validation", "ImageNet_LT/ImageNet_LT_val.txt.gz"),
        ("imagenet_lt", "test", "ImageNet_LT/ImageNet_LT_test.txt.gz"),
        ("places_lt", "train", "Places_LT/Places_LT_train.txt.gz"),
        ("places_lt", "validation", "Places_LT/Places_LT_val.txt.gz"),
        ("places_lt", "test", "Places_LT/Places_LT_test.txt.gz"),
        ("inaturalist2018", "test", "iNaturalist18/iNaturalist18_val.txt.gz"),
    ],
)
def test_the_published_lists_are_recognised(shared, name, split, file):
    table = class_table(SETS[name].builder.TABLE)
    listed = read_split_list(shared / "lists" / file)
    check_published(listed, SETS[name].builder.LISTS[split], table)
    folders = [path.split("/")[-2] for path in listed.paths]
    assert folders == [table.keys[label] for label in listed.labels]  # the table is in the order of the labels


def test_class_counts_and_names_are_those_published(shared):
    lists = shared / "lists"
    for name, file in (("imagenet", "ImageNet_LT/ImageNet_LT"), ("inaturalist2018", "iNaturalist18/iNaturalist18")):
        assert class_table(name).counts == tuple(json.loads((lists / f"{file}_train_class_counts.json").read_text()))
    with gzip.open(lists / "iNaturalist18" / "categories.json.gz") as file:
        assert class_table("inaturalist2018").names == tuple(category["name"] for category in json.load(file))
    rows = [line.split(" ", 1) for line in (lists / "ImageNet_LT" / "classnames.txt").read_text().splitlines()]
    table = class_table("imagenet")
    assert table.keys == tuple(wnid for wnid, _ in rows)
    changed = {wnid: ours for (wnid, name), ours in zip(rows, table.names) if name != ours}
    assert changed == {"n04008634": "projectile", "n04355933": "sunglass"}  # two names stood there twice
