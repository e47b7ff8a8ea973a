"""`ltsam mistakes RUN`: the test samples that a run got wrong and was surest of, class by class, the rarest class first.

A page with pictures (or texts) and file names, and a table of the same: a wrong label, a cropped object or two classes that
look alike are seen at a glance. Both stay in the run's folder and are never uploaded.
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset
from jinja2 import Environment, StrictUndefined

from hf_ltsam.cli.options.parser import OptionParser
from hf_ltsam.cli.train.saved_run import open_run
from hf_ltsam.data.decoding import decode_image, encoded_images
from hf_ltsam.data.pixel_values import PixelValues
from hf_ltsam.hyperparameters import COUNT, require
from hf_ltsam.runs.escaping import visible, visible_value
from hf_ltsam.runs.files import write_whole
from hf_ltsam.runs.folder import PREDICTIONS

FOLDER = "mistakes"  # in that of the run
SIDE = 160  # pixels of a picture
LONGEST = 400  # characters of a text

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{{ title }}</title>
<style>
body { margin: 0 auto; max-width: 62rem; padding: 1rem; font: 1rem/1.4 system-ui, sans-serif; color-scheme: light dark; }
ul { display: flex; flex-wrap: wrap; gap: 1rem; padding: 0; list-style: none; }
li { width: 10rem; font-size: .85rem; overflow-wrap: anywhere; } li.text { width: 100%; }
img { max-width: 100%; } h2 { font-size: 1.1rem; margin-top: 2rem; }
</style></head><body><h1>{{ title }}</h1>
<p>Test samples that were taken for another class, the surest first; the rarest class first.</p>
{% for name, count, wrong, tested, shown in classes %}
<h2>{{ name }} ({{ count }} training samples): {{ wrong }} of {{ tested }} wrong</h2>
<ul>{% for m in shown %}
<li{% if m.text %} class="text"{% endif %}>
{% if m.picture %}<img alt="" src="data:image/jpeg;base64,{{ m.picture }}">{% endif %}
{% if m.text %}<blockquote>{{ m.text }}</blockquote>{% endif %}
taken for <strong>{{ m.taken_for }}</strong>, {{ "%.1f" | format(100 * m.confidence) }} %<br>{{ m.file }}</li>{% endfor %}
</ul>{% endfor %}
</body></html>
"""


@dataclass(frozen=True)
class Mistake:
    """A test sample that was taken for another class.

    Args:
        true_class: its class.
        taken_for: the predicted one.
        confidence: probability of that, in [0, 1].
        file: its file, or its row (from 0) in the test split where it has none.
        picture: JPEG in base64; empty for a text.
        text: empty for an image.
    """

    true_class: str
    taken_for: str
    confidence: float
    file: str
    picture: str = ""
    text: str = ""


def mistakes(run: str | Path, per_class: int = 8, dataset: str | None = None) -> list[Mistake]:
    """The surest mistakes of a run, and `mistakes/mistakes.html` and `.csv` in its folder.

    Args:
        run: its folder.
        per_class: at most so many of every class.
        dataset: where the data are now; None: where they were.

    Raises:
        FileNotFoundError: no such run, no predictions.json in it, or the data are not where they were.
        ValueError: the test split is not that of the predictions.
    """
    require(COUNT, "mistakes", per_class=per_class)
    saved = open_run(run, dataset)
    predictions, splits = saved.root.predictions, saved.splits
    if predictions is None:
        raise FileNotFoundError(f"{run} has no {PREDICTIONS}: `ltsam train` writes it after the last epoch.")
    if not np.array_equal(predictions.labels, splits.test_labels.numpy()):
        raise ValueError(
            f"{run}: the test split has changed since the training. --dataset PATH names that of the training."
        )
    names, classes, found = predictions.class_names, [], []
    images = None if splits.text_columns else encoded_images(splits.test, saved.run.data.image_column)
    values = saved.run.data.pixel_values
    for c in np.argsort(saved.statistics.counts, kind="stable").tolist():
        wrong = np.flatnonzero((predictions.labels == c) & ~predictions.right & (predictions.predicted >= 0))
        rows = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:per_class].tolist()
        shown = []
        for row in rows:
            taken_for, confidence = names[predictions.predicted[row]], float(predictions.confidence[row])
            sample = _text(splits.test, splits.text_columns, row) if images is None else _image(images, row, values)
            shown.append(Mistake(names[c], taken_for, confidence, **sample))
        tested = int((predictions.labels == c).sum())
        classes.append((names[c], saved.statistics.counts[c], len(wrong), tested, shown))
        found += shown
    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=visible_value)
    page = environment.from_string(_PAGE).render(title=f"Mistakes of {saved.root.path}", classes=classes)
    write_whole(saved.root.path / FOLDER / "mistakes.html", page)
    write_whole(saved.root.path / FOLDER / "mistakes.csv", _table(found))
    return found


def _image(images: Dataset, row: int, values: PixelValues) -> dict[str, str]:
    entry = images[row]["image"]
    picture = decode_image(entry, row=row, values=values)
    picture.thumbnail((SIDE, SIDE))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=85)
    return {"file": entry["path"] or f"row {row}", "picture": base64.b64encode(content.getvalue()).decode()}


def _text(test: Dataset, columns: Sequence[str], row: int) -> dict[str, str]:
    text = " | ".join(str(test[row][column]) for column in columns)
    return {"file": f"row {row}", "text": text if len(text) <= LONGEST else f"{text[:LONGEST]}…"}


def _table(found: Sequence[Mistake]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["file", "class", "taken_for", "confidence"])
    rows.writerows([m.file, m.true_class, m.taken_for, f"{m.confidence:.4f}"] for m in found)
    return text.getvalue()


def main(words: Sequence[str]) -> None:
    """`ltsam mistakes RUN`."""
    parser = OptionParser(prog="ltsam mistakes", description=(__doc__ or "").partition("\n")[2])
    parser.add_argument("run", metavar="RUN", help="the output folder of a training run")
    parser.add_argument("--per_class", type=int, default=8, help="at most so many of each class (default: %(default)s)")
    parser.add_argument("--dataset", help="where the data are now; default: where they were")
    options = parser.parse_args(words)
    found = mistakes(options.run, options.per_class, options.dataset)
    for m in found:
        print(visible(f"{m.true_class} taken for {m.taken_for}, {100 * m.confidence:.1f} %: {m.file}"))
    kind = "texts" if any(m.text for m in found) else "pictures"
    print(f"{len(found)} mistakes, with {kind}: {visible(str(Path(options.run) / FOLDER / 'mistakes.html'))}")
