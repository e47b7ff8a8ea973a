"""The results of `ltsam sharpness`, put together from parts that are written as they are finished: a killed run resumes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_ltsam.runs.files import plain, read_json, write_json

SCHEMA_VERSION = 1
_ADVICE = "Remove it: this part is then computed again."


class Parts:
    """The results of one model in one folder.

    Args:
        folder: made where it is not there.
        subject: what all parts have in common, such as model, loss and images.
        groups: the classes of each group: a run may be tested again with other bounds.

    Raises:
        ValueError: the folder holds results of another subject, or of groups that have other classes.
    """

    def __init__(self, folder: Path, subject: Mapping[str, Any], groups: Mapping[str, Sequence[int]]) -> None:
        self.folder = folder
        self._parts = folder / "parts"
        self._parts.mkdir(parents=True, exist_ok=True)
        self.subject: dict[str, Any] = plain(subject)
        saved = _read(self._parts / "subject.json")
        if saved is None:
            write_json(self._parts / "subject.json", self.subject)
        elif saved != self.subject:
            now = self.subject
            differing = [key for key in {**saved, **now} if saved.get(key) != now.get(key)]
            shown = "; ".join(f"{key}: {_shown(saved.get(key))} there, {_shown(now.get(key))} now" for key in differing)
            raise ValueError(f"{folder} holds results of something else ({shown}). Choose another --output.")
        self._check_groups(groups)

    def _check_groups(self, groups: Mapping[str, Sequence[int]]) -> None:
        """Of all parts, since `assemble` puts them all into one file with the groups that are now."""
        measured = [pair for part in self._all() for pair in _subsets_of(part).items()]
        others = [
            name
            for name, classes in measured
            if not name.startswith("class ") and classes != list(groups.get(name, ()))
        ]
        if others:
            raise ValueError(
                f"{self.folder} holds results of groups that have other classes now ({', '.join(dict.fromkeys(others))}). "
                f"Choose another --output, or remove {self.folder}."
            )

    def is_done(self, name: str, settings: Mapping[str, Any]) -> bool:
        """Whether this part is there, made with these settings."""
        saved = _read(self._file(name))
        return saved is not None and saved["settings"] == plain(settings)

    def make(self, name: str, settings: Mapping[str, Any], compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The part as it was saved with the same settings, or computed and saved now.

        Args:
            name: kind of quantity, a slash, and what distinguishes parts of that kind.
        """
        if not self.is_done(name, settings):
            write_json(self._file(name), {"name": name, "settings": settings, "values": compute()}, indent=1)
        saved = _read(self._file(name))
        if saved is None:
            raise OSError(f"{self._file(name)} vanished while it was read.")
        return saved["values"]

    def assemble(self, file: str, facts: Mapping[str, Any]) -> Path:
        """Write the results: the facts, and every part under its kind and name.

        Args:
            file: name of the file in the folder.
            facts: about all parts.
        """
        joined: dict[str, Any] = {"schema_version": SCHEMA_VERSION, **facts}
        for part in self._all():
            kind, _, name = part["name"].partition("/")
            joined.setdefault(kind, {})[name] = {**part["values"], "settings": part["settings"]}
        return write_json(self.folder / file, joined, indent=1)

    def _all(self) -> list[Any]:
        parts = map(_read, sorted(self._parts.glob("*.*.json")))
        return [part for part in parts if part is not None]

    def _file(self, name: str) -> Path:
        kind, _, rest = name.partition("/")
        return self._parts / f"{kind}.{rest.replace(' ', '_').replace('/', '_')}.json"


def check_sharpness(values: Any) -> dict[str, Any]:
    """The content of a file that `Parts` has assembled, as far as all its readers need it.

    Raises:
        ValueError, KeyError, TypeError: it is something else, or incomplete.
    """
    if not isinstance(values, dict) or values.get("schema_version") != SCHEMA_VERSION:
        raise ValueError("it does not hold results of `ltsam sharpness` that this release reads")
    _require(values, "weights_sha256", "loss")
    for record in values.get("spectra", {}).values():
        _require(record, "samples", "ratios")
        for name in ("lam_max", "lam_min", "trace"):
            float(record[name]["value"])
    return values


def _subsets_of(part: Mapping[str, Any]) -> Mapping[str, list[int]]:
    """The subsets of a part, with their classes where it says them; a suggestion of rho is of all classes."""
    kind, _, name = part["name"].partition("/")
    classes = part["values"].get("classes")
    if classes is None or kind == "sharpness":
        return {}
    return classes if kind == "surface" else {name.partition(" @ ")[0]: classes}


def _require(values: Mapping[str, Any], *names: str) -> None:
    missing = [name for name in names if name not in values]
    if missing:
        raise KeyError(missing[0])


def _read(path: Path) -> Any:
    return read_json(path, advice=_ADVICE)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else text[:100] + "..."
