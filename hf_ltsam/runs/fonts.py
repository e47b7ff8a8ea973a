"""Fonts for names of classes in scripts that matplotlib's own font does not have."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

# Of common systems, those of many scripts first; matplotlib takes each letter from the first font that has it.
_FONTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans JP", "Noto Sans SC", "Noto Sans KR", "Source Han Sans"),
    *("Arial Unicode MS", "Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic"),
    *("Malgun Gothic", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "IPAGothic", "IPAexGothic", "NanumGothic"),
    *("Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Bengali", "Noto Sans Tamil", "FreeSans", "Unifont"),
)
_MISSING = re.compile(r"Glyph (\d+) .*missing from font")
_SHOWN = 5  # letters that the warning shows


@contextmanager
def fonts_of_all_scripts() -> Iterator[None]:
    """Draw letters that matplotlib's font does not have by another installed one; those that none has are warned of once."""
    import matplotlib
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    families = [*matplotlib.rcParams["font.family"], *(name for name in _FONTS if name in installed)]
    with matplotlib.rc_context({"font.family": families}), warnings.catch_warnings(record=True) as caught:
        yield
    found = {int(match[1]) for w in caught if (match := _MISSING.match(str(w.message)))}
    for other in caught:
        if not _MISSING.match(str(other.message)):
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno, source=other.source)
    if found:
        _warn_once("".join(map(chr, sorted(found)[:_SHOWN])) + "..." * (len(found) > _SHOWN))


@cache
def _warn_once(letters: str) -> None:
    """A report draws the same names in many figures."""
    warnings.warn(
        f"No installed font has the letters {letters}: boxes stand for them in figures. Install one that does, such as "
        "Noto Sans CJK, and make the figures again.",
        stacklevel=4,
    )
