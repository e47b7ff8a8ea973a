"""Small copies of the published sets, in folders and in archives as they are published."""

import io
import tarfile

import numpy as np
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image

from dataset_builders.sets.cifar_lt import CIFAR10_NAMES

WNIDS = ("n01440764", "n01443537", "n01484850")  # tench, goldfish, great white shark
COUNTS = (4, 2, 1)


def jpeg(colour, mode="RGB", size=(9, 6)):
    """The bytes of a picture of one colour."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0], 3), colour, np.uint8)).convert(mode).save(buffer, "JPEG")
    return buffer.getvalue()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def ilsvrc(root, counts=COUNTS, flat_val=True):
    """ILSVRC 2012 with three classes, one test image each, and its lists in root/lists."""
    train = [(wnid, f"{wnid}_{k}.JPEG", c) for c, (wnid, count) in enumerate(zip(WNIDS, counts)) for k in range(count)]
    val = [(wnid, f"ILSVRC2012_val_{c:08}.JPEG", c) for c, wnid in enumerate(WNIDS)]
    for wnid, name, c in train:
        write(root / "train" / wnid / name, jpeg(50 * c + 20))
    for wnid, name, c in val:
        write(root / "val" / ("" if flat_val else wnid) / name, jpeg(50 * c + 30))
    write(
        root / "lists" / "ImageNet_LT_train.txt",
        b"".join(b"train/%s/%s %d\n" % (w.encode(), n.encode(), c) for w, n, c in train),
    )
    write(
        root / "lists" / "ImageNet_LT_test.txt",
        b"".join(b"val/%s/%s %d\n" % (w.encode(), n.encode(), c) for w, n, c in val),
    )
    return root


def tar(path, files):
    """An archive of {name: bytes}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def packed(folder):
    """The bytes of an archive of the files right in a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for file in sorted(folder.iterdir()):
            archive.add(file, file.name)
    return buffer.getvalue()


def as_archives(folders, root):
    """ILSVRC's archives: training images in an archive per class inside another, validation images side by side."""
    classes = {f"{folder.name}.tar": packed(folder) for folder in sorted((folders / "train").iterdir())}
    tar(root / "ILSVRC2012_img_train.tar", classes)
    tar(root / "ILSVRC2012_img_val.tar", {file.name: file.read_bytes() for file in sorted((folders / "val").iterdir())})
    return root


def tiny_cifar10(folder, per_class=12):
    """CIFAR-10's Parquet files with few images."""
    labels = [c for c in range(10) for _ in range(per_class)]
    images = [Image.new("RGB", (32, 32), (c * 20, k, 0)) for c in range(10) for k in range(per_class)]
    features = Features(img=ImageFeature(), label=ClassLabel(names=list(CIFAR10_NAMES)))
    for split in ("train", "test"):
        Dataset.from_dict({"img": images, "label": labels}, features=features).to_parquet(folder / f"{split}.parquet")
    return folder
