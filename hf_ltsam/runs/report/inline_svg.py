"""An SVG file of matplotlib's as a part of a page: named for screen readers, in the page's colours, without addresses."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from hf_ltsam.runs.report.style import PALETTE

# "currentColor" is the colour of the page's text; the others are variables in the page's style sheet.
_VARIABLES = {light: "currentColor" if name == "ink" else f"var(--{name})" for name, (light, _) in PALETTE.items()}
_REFERENCE = re.compile(r"(url\(#|^#)([^)]+)")
_COLOUR = re.compile("|".join(_VARIABLES), re.IGNORECASE)
_LONG = re.compile(r"-?\d+\.\d{3,}")  # coordinates, in points


def inline_svg(text: str, name: str, title: str, description: str) -> str:
    """Args:
    text: the file.
    name: put before every id, so that ids are unique on the page.
    title, description: what a screen reader says.
    """
    root = ET.fromstring(text)
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {_local(key): _value(_local(key), value, name) for key, value in element.attrib.items()}
    for figure in root.findall("g"):  # the page itself is the paper
        for background in figure.findall(f"g[@id='{name}-patch_1']"):
            figure.remove(background)
    root.attrib |= {"role": "img", "aria-labelledby": f"{name}-title {name}-description"}
    for tag, content in (("desc", description), ("title", title)):
        words = ET.Element(tag, {"id": f"{name}-{'title' if tag == 'title' else 'description'}"})
        words.text = content
        root.insert(0, words)
    return ET.tostring(root, encoding="unicode", short_empty_elements=True)


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _value(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "d" or key == "points":
        return _LONG.sub(lambda number: f"{float(number[0]):.2f}", re.sub(r"\s+", " ", value))
    if value.startswith("data:"):
        return re.sub(r"\s+", "", value)
    value = _REFERENCE.sub(rf"\g<1>{name}-\g<2>", value)
    return _COLOUR.sub(lambda colour: _VARIABLES[colour[0].lower()], value)
