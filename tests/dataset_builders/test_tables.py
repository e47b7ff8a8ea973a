"""People's own tables: which splits and columns they have, and where the images lie that they name."""

import csv
import gzip
import json
import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from datasets import Image as ImageColumn
from PIL import Image

from dataset_builders.folders import check_file_names
from dataset_builders.tables import describe_images, images_of, load_tables, read_rows, split_named, table_files
from hf_ltsam.data.decoding import encoded_images


def picture(file, level=0):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (level, 0, 0)).save(file)
    return file


def write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def rows(table):
    """Values, an image by its level of red."""
    return [
        {name: v.getpixel((0, 0))[0] if isinstance(v, Image.Image) else v for name, v in row.items()} for row in table
    ]


@pytest.mark.parametrize(
    ("name", "lines", "line"),
    [
        ("a.tsv", ["text\tlabel", "good\tpos", '"odd, he said\tneg', "a bore\tneg", 'it is "fine"\tpos'], 3),
        ("a.tsv", ["text\tlabel", '"never closed\tneg', "a bore\tneg"], 2),
        ("a.csv", ["text,label", '"good, film",pos', '"odd,neg', "bore,neg", '"x",neg'], 3),
        ("a.csv", ["text,label", '"two', 'lines",pos', r'"he said \"no\"",neg'], 4),
        ("a.csv.gz", ["text;label", '"odd;neg', '"x";neg'], 2),
    ],
)
def test_a_quotation_mark_that_would_swallow_rows(name, lines, line, tmp_path):
    content = "\n".join(lines).encode() + b"\n"
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(ValueError, match=rf"Line {line} of .*{name} has a field that begins with a quotation mark"):
        read_rows([tmp_path / name])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "text,label\nhello, world,pos\nfoo, bar,neg\n", "Line 2 of .*a.csv has 3 fields, .* names 2 columns"),
        ("a.csv", "text,label\nhello,pos,\nfoo,neg,\n", "Line 2 of .*a.csv has 3 fields"),
        ("a.csv", 'text,label\n\n"two\nlines",neg\nhello, world,pos\n', "Line 5 of .*a.csv has 3 fields"),
        (
            "a.csv",
            "text\nhello, world\nfoo, bar\n",
            "Line 2 of .*a.csv has 2 fields, and the first line names 1 column. A field",
        ),
        ("a.tsv", "text\tlabel\nhello\tpos\nfoo\tbar\tneg\n", "Line 3 of .*a.tsv has 3 fields"),
    ],
)
def test_fields_without_a_column(name, text, message, tmp_path):
    """Read by pandas, the first of them would be lost, and the others move by one column."""
    with pytest.raises(ValueError, match=message):
        read_rows([write(tmp_path / name, text)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text,label\nhello,pos,\n", "names 2 columns. Leave out the ',' at its end"),
        ("text,label\na,pos\n1,hello,pos\n", "names 2 columns. A field that holds ',' .* and every column has a name"),
        ('text,label\n"Great" film,pos\n', "Line 2 of .*no column follows: it would be read without these marks"),
        ('text,label\n"odd,neg\n"x",neg\n', "Line 2 of .*no column follows: rows behind it would become a part"),
        ('text,label\nodd,neg\n"x,neg\n', "Line 3 of .*no column follows: rows behind it would become a part"),
    ],
)
def test_what_is_wrong_with_a_line_and_what_to_do(text, message, tmp_path):
    before = csv.field_size_limit()
    with pytest.raises(ValueError, match=message):
        read_rows([write(tmp_path / "a.csv", text)])
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", b"text,label\na,pos\ncaf\xe9,neg\n", "'utf-8' codec can't decode byte 0xe9"),
        ("a.csv.gz", gzip.compress(b"text,label\n" + bytes(range(48, 91)) * 99 + b",pos\n")[:-9], "ended before"),
    ],
)
def test_a_damaged_file_is_named(name, content, reason, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} cannot be read: .*{reason}.*\. Correct it there"):
        read_rows([tmp_path / name])


def test_every_file_of_a_split_is_checked(tmp_path):
    files = [write(tmp_path / "a.csv", "text,label\na,pos\n"), write(tmp_path / "b.csv", "text,label\nb,c,neg\n")]
    with pytest.raises(ValueError, match=r"Line 2 of .*b\.csv has 3 fields"):
        read_rows(files)


def test_rows_that_two_quotation_marks_join_are_named(tmp_path):
    file = write(tmp_path / "a.tsv", 'text\tlabel\ngood\tpos\n"odd\tneg\na bore\tneg\nfine"\tpos\n')
    with pytest.warns(UserWarning, match=r"Lines 3 to 5 of .*a.tsv are read as one row"):
        assert len(read_rows([file])) == 2


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.csv", 'text,label\n"one ""two""",a\n5" disc,b\n', ['one "two"', '5" disc']),
        ("a.csv", 'text,label\n"over\ntwo, lines",a\n', ["over\ntwo, lines"]),
        ("a.csv", 'text,label\r\n"over\r\ntwo",a\r\none,b\r\n', ["over\r\ntwo", "one"]),
        ("a.csv", 'text,label\r"one",a\rtwo,b\r', ["one", "two"]),
        ("a.tsv", 'text\tlabel\nhe said "no"\ta\n"a\tb"\tb\n', ['he said "no"', "a\tb"]),
        ("a.csv", f'text,label\n"{"long " * 40000}",a\n', ["long " * 40000]),
        ("a.csv", 'text,label\n"one, two" ,a\n"three" ,"b, c"  \n', ["one, two ", "three "]),  # spaces behind a mark
        ("a.csv", 'text,label\n" ,",a\n"he said ""no"" ,\nthen",b \n', [" ,", 'he said "no" ,\nthen']),
        ("a.csv", 'text,label\n"a\ttab\nand lines",a\n', ["a\ttab\nand lines"]),
    ],
)
def test_quotation_marks_in_their_places(name, text, expected, tmp_path, recwarn):
    (tmp_path / name).write_bytes(text.encode())
    assert read_rows([tmp_path / name])["text"][:] == expected
    assert not [w for w in recwarn if "one row" in str(w.message)]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.csv", "train"),
        ("my-test_01.csv", "test"),
        ("val", "validation"),
        ("TRAINING", "train"),
        ("contest", None),
    ],
)
def test_what_a_name_says_of_a_split(name, split):
    assert split_named(name) == split


FILES = {  # file -> text: the same rows in every format
    "a.csv": "text,label\none,007\ntwo,None\n",
    "b.csv": '\ufefftext;label\n"one";007\n"two";None\n',
    "c.tsv": "text\tlabel\none\t007\ntwo\tNone\n",
    "d.jsonl": '{"text": "one", "label": "007"}\n{"text": "two", "label": "None"}\n',
    "e.json": '[{"text": "one", "label": "007"}, {"text": "two", "label": "None"}]',
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_every_format_holds_the_same(tmp_path, file, packed):
    """Words stay as they are written, also those that others take for numbers or for nothing."""
    place = tmp_path / (file + ".gz" * packed)
    place.write_bytes(gzip.compress(FILES[file].encode()) if packed else FILES[file].encode())
    assert rows(load_tables(place)["train"]) == [{"text": "one", "label": "007"}, {"text": "two", "label": "None"}]


def test_parquet(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"text": ["one"], "label": [3]}), tmp_path / "x.parquet")
    assert rows(load_tables(tmp_path / "x.parquet")["train"]) == [{"text": "one", "label": 3}]


def test_splits_by_file_by_folder_and_by_column(tmp_path):
    for name in (
        "by_file/news-train.csv",
        "by_file/news-test.csv",
        "by_folder/train/data.csv",
        "by_folder/val/data.csv",
    ):
        write(tmp_path / name, f"text,label\n{name},x\n")
    assert rows(load_tables(tmp_path / "by_file")["test"])[0]["text"] == "by_file/news-test.csv"
    assert set(load_tables(tmp_path / "by_folder")) == {"train", "validation"}
    column = write(tmp_path / "one.csv", "text,label,split\na,x,train\nb,y,test\nc,x,Train\n")
    splits = load_tables(column)
    assert {name: [row["text"] for row in rows(split)] for name, split in splits.items()} == {
        "train": ["a", "c"],
        "test": ["b"],
    }
    assert splits["train"].column_names == ["text", "label"]
    assert set(load_tables(write(tmp_path / "two.csv", "text,split\na,warm\nb,cold\n"))) == {"train"}  # no splits


LAYOUTS = {  # table -> paths in it -> where those images lie
    "beside": ("labels.csv", ["0.png", "1.png"], ["0.png", "1.png"]),
    "with folders": ("labels.csv", ["owls/0.png", "cats\\1.png"], ["owls/0.png", "cats/1.png"]),
    "below, by name": ("labels.csv", ["0.png", "1.png"], ["images/a/0.png", "images/b/1.png"]),
    "metadata": ("metadata.csv", ["0.png", "1.png"], ["0.png", "1.png"]),
}


@pytest.mark.parametrize(("table", "paths", "places"), LAYOUTS.values(), ids=LAYOUTS)
def test_where_images_lie(tmp_path, table, paths, places):
    for level, place in enumerate(places):
        picture(tmp_path / place, 10 * level)
    write(tmp_path / table, "file_name,label\n" + "".join(f"{path},x\n" for path in paths))
    for source in (tmp_path, tmp_path / table):
        read = load_tables(source)["train"]
        assert rows(read) == [{"label": "x", "image": 0}, {"label": "x", "image": 10}]
    assert isinstance(read.features["image"], ImageColumn) and describe_images(tmp_path, table_files(tmp_path))


def test_absolute_paths_and_names_without_suffix(tmp_path):
    file = picture(tmp_path / "far" / "0a1b.png", 30)
    table = write(tmp_path / "here" / "labels.csv", f"path,kind\n{file},x\n")
    assert rows(load_tables(table)["train"]) == [{"kind": "x", "path": 30}]
    picture(tmp_path / "here" / "photos" / "0a1b.png", 40)
    table = write(tmp_path / "here" / "labels.csv", "image_id,kind\n0a1b,x\n")
    assert (
        "image_id" in load_tables(table)["train"].features
        and rows(load_tables(table, "image_id")["train"])[0]["image_id"] == 40
    )


def test_metadata_of_split_folders(tmp_path):
    for split in ("train", "test"):
        picture(tmp_path / split / "0.png", 7 if split == "test" else 0)
    lines = "".join(
        json.dumps({"file_name": f"{split}/0.png", "label": split[:2]}) + "\n" for split in ("train", "test")
    )
    write(tmp_path / "metadata.jsonl", lines)
    splits = load_tables(tmp_path)  # `datasets` by itself gives the labels train and test, or none
    assert {name: rows(split) for name, split in splits.items()} == {
        "train": [{"label": "tr", "image": 0}],
        "test": [{"label": "te", "image": 7}],
    }
    (tmp_path / "metadata.jsonl").unlink()
    for split in ("train", "test"):
        write(tmp_path / split / "metadata.csv", "file_name,label\n0.png,x\n")
    assert rows(load_tables(tmp_path)["test"]) == [{"label": "x", "image": 7}]


def test_notes_beside_class_folders_are_no_data(tmp_path):
    picture(tmp_path / "train" / "owl" / "0.png")
    write(tmp_path / "classes.csv", "name,colour\nowl,grey\n")
    write(tmp_path / "train" / "owl" / "0.json", '{"imagePath": "0.png"}')
    assert [file.name for file in table_files(tmp_path)] == ["classes.csv"]
    assert not describe_images(tmp_path, table_files(tmp_path))


@pytest.mark.parametrize("name", ["empty.csv", "0.png,owl.csv", "latin.csv", "cut.json", "cut.jsonl.gz", "cut.csv.gz"])
def test_notes_that_are_no_table_are_no_data_either(tmp_path, name):
    picture(tmp_path / "train" / "owl" / "0.png")
    text = {"latin.csv": "größe\n".encode("latin-1"), "0.png,owl.csv": b"0.png,owl\n", "empty.csv": b""}
    (tmp_path / name).write_bytes(text.get(name, b'{"images": [{"id": 1,'))
    assert not describe_images(tmp_path, table_files(tmp_path))


@pytest.mark.parametrize("name", ["cut.json", "cut.jsonl.gz", "cut.csv.gz", "cut.parquet"])
def test_a_damaged_table_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b'{"images": [{"id": 1,')
    with pytest.raises((ValueError, OSError)) as raised:
        load_tables(tmp_path / name)
    assert name in str(raised.value) and "An error occurred" not in str(raised.value), raised.value


WRONG = [
    (
        "path,label\n0.png,x\n9.png,x\n",
        "1 of 2 images that the column 'path' names are not there: '9.png' (row 3 of labels.csv). They were",
    ),
    ("0.png,x\n", "The first line of"),
    ("text,text\na,b\n", "has two columns 'text': give every column a name"),
    ("path,label\n", "has no rows"),
    (
        "path,label\n,x\n0.png,y\n",
        "1 of 2 images that the column 'path' names are not there: None (row 2 of labels.csv)",
    ),
    ("path,label\ntwice.png,x\n", "'twice.png' of the column 'path' could be"),
    ("text,label\na,x\nb, with a comma,y\n", "labels.csv has 3 fields, and the first line names 2 columns"),
]


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_what_is_wrong_is_named(tmp_path, text, said):
    for place in ("0.png", "a/twice.png", "b/twice.png"):
        picture(tmp_path / place)
    with pytest.raises((ValueError, FileNotFoundError)) as raised:
        load_tables(write(tmp_path / "labels.csv", text))
    assert said in str(raised.value)


ROWS = [  # a table of one split or of two, whose image 3.png is not there, and where
    ("labels.csv", "image,label\n0.png,a\n3.png,b\n", "'3.png' (row 3 of labels.csv)"),
    ("labels.tsv", "image\tlabel\n0.png\ta\n3.png\tb\n", "'3.png' (row 3 of labels.tsv)"),
    ("labels.csv", "image,label,split\n0.png,a,train\n0.png,a,test\n3.png,b,train\n", "'3.png' (row 4 of labels.csv)"),
    ("labels.csv", "image,label,split\n0.png,a,train\n0.png,a,train\n3.png,b,test\n", "'3.png' (row 4 of labels.csv)"),
    ("labels.csv", "image,label\ntrain/0.png,a\ntest/3.png,b\n", "'test/3.png' (row 3 of labels.csv)"),
    ("labels.jsonl", '{"image": "0.png", "label": "a"}\n{"image": "3.png", "label": "b"}\n', "'3.png' (row 2 of labels.jsonl)"),
    ("test.csv", "image,label\n0.png,a\n3.png,b\n", "'3.png' (row 3 of test.csv)"),
    ("train-2.csv", "image,label\n0.png,a\n3.png,b\n", "'3.png' (row 2 of 4 in train-2.csv, train.csv)"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "said"), ROWS)
def test_rows_are_numbered_as_in_the_file(tmp_path, name, text, said):
    """Whatever splits a table is parted into; `ltsam predict` says the same."""
    for place in ("0.png", "train/0.png", "test/x.png"):
        picture(tmp_path / place)
    file = write(tmp_path / name, text)
    if name in ("test.csv", "train-2.csv"):
        write(tmp_path / "train.csv", "image,label\n0.png,a\n0.png,b\n")
    with pytest.raises(FileNotFoundError) as raised:
        load_tables(tmp_path if name in ("test.csv", "train-2.csv") else file)
    assert said in str(raised.value)
    if "train.csv" not in said:
        with pytest.raises(FileNotFoundError) as raised:
            images_of(read_rows([file]), file)
        assert said in str(raised.value)


def test_splits_that_a_column_names_keep_their_images_and_order(tmp_path):
    for k in range(4):
        picture(tmp_path / f"{k}.png")
    rows = ["3.png,a,test", "1.png,b,train", "0.png,a,test", "2.png,a,train"]
    write(tmp_path / "labels.csv", "\n".join(["image,label,split", *rows]))
    splits = load_tables(tmp_path / "labels.csv")
    files = {
        split: [Path(entry["path"]).name for entry in encoded_images(rows)["image"]] for split, rows in splits.items()
    }
    assert files == {"train": ["1.png", "2.png"], "test": ["3.png", "0.png"]}
    assert splits["test"]["label"][:] == ["a", "a"]


def test_tables_of_two_kinds_and_another_encoding(tmp_path):
    write(tmp_path / "train.csv", "text,label\na,b\n")
    write(tmp_path / "test.jsonl", '{"text": "a", "label": "b"}\n')
    with pytest.raises(ValueError, match=r"several kinds, .*(csv|jsonl) and .*: name the file"):
        load_tables(tmp_path)
    (tmp_path / "latin.csv").write_bytes("größe,label\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.csv is no UTF-8 text"):
        load_tables(tmp_path / "latin.csv")
    with pytest.raises(FileNotFoundError, match="holds no table"):
        load_tables(picture(tmp_path / "alone" / "0.png").parent)


def test_tables_of_one_split_may_part_their_columns_differently(tmp_path):
    write(tmp_path / "train_1.csv", "text,label\none,a\n")
    write(tmp_path / "train_2.csv", "label;text\nb;two, and more\n")
    write(tmp_path / "train_3.tsv", "text\tlabel\nthree\tc\n")
    assert rows(load_tables(tmp_path)["train"]) == [
        {"text": "one", "label": "a"},
        {"text": "two, and more", "label": "b"},
        {"text": "three", "label": "c"},
    ]


def test_tables_of_one_split_with_other_columns_are_named(tmp_path):
    write(tmp_path / "train_1.csv", "text,label\none,a\n")
    write(tmp_path / "train_2.csv", "title,label\ntwo,b\n")
    with pytest.raises(
        ValueError, match=r"train_1\.csv has the columns text, label, and .*train_2\.csv .* title, label"
    ):
        load_tables(tmp_path)


def test_an_image_whose_name_is_no_text_is_named(tmp_path):
    """Names of an archive from another system: Latin-1 bytes, which neither Arrow nor JSON can hold."""
    bad = picture(tmp_path / "images" / "a.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/images/caf\xe9.png"))
    with pytest.raises(ValueError, match=r"caf\\xe9\.png' is no UTF-8: rename it"):
        check_file_names(["plain.png", str(bad)])
    write(tmp_path / "labels.csv", "path,label\nimages/caf\u00e9.png,a\n")
    with pytest.raises(FileNotFoundError, match="caf\u00e9"):
        load_tables(tmp_path / "labels.csv")
