"""Files of settings in YAML, whose faults are told in one line with their place, whoever wrote them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

LARGEST = 1_000_000  # characters
DEEPEST = 20  # lists and mappings in each other
MOST = 100_000  # values, each as often as anchors repeat it

_MERGE = "tag:yaml.org,2002:merge"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # the fast one where libyaml is there
    """YAML 1.2 numbers: YAML 1.1, PyYAML's language, takes 1e-3 for a word."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load_mapping(path: Path) -> dict[str, Any]:
    """What a YAML file sets, without what it inherits.

    Raises:
        ValueError: not a YAML mapping, with file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a YAML file: it is not UTF-8 text (at byte {error.start}).") from error
    return parse_mapping(text, str(path))


def parse_mapping(text: str, place: str) -> dict[str, Any]:
    """What a YAML text sets.

    Args:
        place: the file, for messages.

    Raises:
        ValueError: no mapping of names to values, a key given twice, or more than any recipe holds (`LARGEST`, `DEEPEST`,
            `MOST`), with the line.
    """
    if len(text) > LARGEST:
        raise ValueError(f"{place} has {len(text):,} characters, and a file of settings has {LARGEST:,} at most.")
    try:
        _check_depth(text, place)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            _check(node, place, {}, frozenset())
            values = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # ValueError: a date such as 2020-13-45
        if str(error).startswith(place):
            raise
        raise ValueError(f"{place} is not a YAML file: {_in_one_line(error)}.") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{place} must hold settings, `name: value` on each line, got a {type(values).__name__}.")
    return values


def _check_depth(text: str, place: str) -> None:
    """Event by event, so that nothing deep is ever built."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            line = 1 + (event.start_mark.line if event.start_mark else 0)
            raise ValueError(f"{place}, line {line}: nested more than {DEEPEST} deep.")


def _check(node: Any, place: str, sizes: dict[int, int], above: frozenset[int]) -> int:
    """The number of values in a node, each as often as anchors repeat it; refuses keys that are no names or given twice.

    An anchor stands before what repeats it, so the recursion is as deep as the text.
    """
    if not isinstance(node, yaml.CollectionNode):
        return 1
    where = f"{place}, line {node.start_mark.line + 1}"
    if id(node) in above:
        raise ValueError(f"{where}: what an anchor stands for contains itself.")
    if id(node) not in sizes:
        if isinstance(node, yaml.MappingNode):
            _check_keys(node, place)
        children = [child for item in node.value for child in (item if isinstance(item, tuple) else (item,))]
        sizes[id(node)] = 1 + sum(_check(child, place, sizes, above | {id(node)}) for child in children)
        if sizes[id(node)] > MOST:
            raise ValueError(f"{where}: anchors multiply it to more than {MOST:,} values.")
    return sizes[id(node)]


def _check_keys(node: yaml.MappingNode, place: str) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if key.tag == _MERGE:
            continue
        if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
            shown = f"{key.value} " if isinstance(key, yaml.ScalarNode) else ""
            raise ValueError(f"{place}, line {line}: the key {shown}is no name: settings are `name: value`.")
        if key.value in lines:
            raise ValueError(
                f"{place}, line {line}: {key.value} is set twice (line {lines[key.value]}): take one away."
            )
        lines[key.value] = line


def _in_one_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    line = "" if mark is None else f"line {mark.line + 1}: "
    return line + " ".join(str(problem).split()).rstrip(".")
