"""Prompt templates that turn class names into texts for a text tower."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

ONE = ("a photo of a {}.",)  # LIFT (Shi et al. 2024)

# Radford et al. 2021, the ensemble for ImageNet, in the order in which it was published.
CLIP80 = (
    "a bad photo of a {}.",
    "a photo of many {}.",
    "a sculpture of a {}.",
    "a photo of the hard to see {}.",
    "a low resolution photo of the {}.",
    "a rendering of a {}.",
    "graffiti of a {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a tattoo of a {}.",
    "the embroidered {}.",
    "a photo of a hard to see {}.",
    "a bright photo of a {}.",
    "a photo of a clean {}.",
    "a photo of a dirty {}.",
    "a dark photo of the {}.",
    "a drawing of a {}.",
    "a photo of my {}.",
    "the plastic {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a painting of the {}.",
    "a painting of a {}.",
    "a pixelated photo of the {}.",
    "a sculpture of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a plastic {}.",
    "a photo of the dirty {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a rendering of the {}.",
    "a {} in a video game.",
    "a photo of one {}.",
    "a doodle of a {}.",
    "a close-up photo of the {}.",
    "a photo of a {}.",
    "the origami {}.",
    "the {} in a video game.",
    "a sketch of a {}.",
    "a doodle of the {}.",
    "a origami {}.",
    "a low resolution photo of a {}.",
    "the toy {}.",
    "a rendition of the {}.",
    "a photo of the clean {}.",
    "a photo of a large {}.",
    "a rendition of a {}.",
    "a photo of a nice {}.",
    "a photo of a weird {}.",
    "a blurry photo of a {}.",
    "a cartoon {}.",
    "art of a {}.",
    "a sketch of the {}.",
    "a embroidered {}.",
    "a pixelated photo of a {}.",
    "itap of the {}.",
    "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.",
    "a plushie {}.",
    "a photo of the nice {}.",
    "a photo of the small {}.",
    "a photo of the weird {}.",
    "the cartoon {}.",
    "art of the {}.",
    "a drawing of the {}.",
    "a photo of the large {}.",
    "a black and white photo of a {}.",
    "the plushie {}.",
    "a dark photo of a {}.",
    "itap of a {}.",
    "graffiti of the {}.",
    "a toy {}.",
    "itap of my {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
    "a tattoo of the {}.",
)

TEMPLATES = {"one": ONE, "clip80": CLIP80}


def templates_named(name: str) -> tuple[str, ...]:
    """The templates of a name in `TEMPLATES`, or of a text file with one template on each line.

    Raises:
        FileNotFoundError: there is neither such a name nor such a file.
        ValueError: a line without {}.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]
    if not Path(name).is_file():
        raise FileNotFoundError(
            f"Templates {name}: there is no such file, and the known names are {', '.join(TEMPLATES)}."
        )
    templates = tuple(line.strip() for line in Path(name).read_text(encoding="utf-8").splitlines() if line.strip())
    check_templates(templates, f"The file {name}")
    return templates


def check_templates(templates: Sequence[str], owner: str) -> None:
    """Refuse templates without {}.

    Args:
        owner: of the templates, for the error message.

    Raises:
        ValueError: naming the template.
    """
    if isinstance(templates, str) or not len(templates):
        raise ValueError(f"{owner} must hold one or more templates such as {ONE[0]!r}, got {templates!r}.")
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(
                f"{owner} holds the template {template!r}: it needs {{}} once, in the place of the class name."
            )


def prompts(class_name: str, templates: Sequence[str]) -> list[str]:
    """The templates with the class name for {}; its underscores, as in names of folders, become spaces."""
    return [template.replace("{}", class_name.replace("_", " ")) for template in templates]
