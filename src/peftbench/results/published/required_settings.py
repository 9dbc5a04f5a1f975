"""Check whether a published row contains all settings of its experiment, so that it can be reproduced."""

import re
from collections.abc import Mapping
from typing import Any

from peftbench.core.registry import UserError
from peftbench.methods import METHODS
from peftbench.results.runs_table import arguments

PLAIN = {"default", "target", "init", "tuning", "finetuning", "full", "seed", "0"}
"""Words of an experiment's name that do not identify a variant."""


def unlike(row: Mapping[str, Any]) -> str:
    """Return why the settings of a published row do not reproduce its experiment; empty if they do.

    The name of the experiment in its source may name a variant that the known settings do not contain.
    """
    try:
        unit = METHODS[str(row["method"])]
        given = arguments(str(row["method_arguments"]))
        unit.check(given)
    except (UserError, ValueError) as problem:
        return f"not a known method: {' '.join(str(problem).split())}"
    called = str(row.get("published_as") or "")
    settings = {name: each.default for name, each in unit.parameters.items()} | given
    lacking = _unsaid(called, str(row["model"]), unit.name, settings | {"learning_rate": row.get("learning_rate")})
    return f"published as {called}: these settings do not contain '{lacking[0]}'" if lacking else ""


def _unsaid(called: str, model: str, method: str, settings: Mapping[str, Any]) -> list[str]:
    """Return the parts of an experiment's name that match neither the method nor its settings."""
    kind, _, name = called.lower().rpartition("/")
    name = re.sub(rf"^{re.escape(model.lower().rpartition('/')[2])}[-_]?", "", name)
    values = " ".join(str(value).lower() for value in settings.values())
    known = {*re.split(r"[-:_ ]", method), method.replace("-", ""), kind, *re.findall(r"[a-z]+", values), *PLAIN}
    parts = re.findall(r"[a-z_]*?lr[-_]?\d[\d.]*(?:e-?\d+)?|[a-z_]+[-_]?\d[\d.]*|[a-z]+|\d[\d.]*", name)
    return [part for part in parts if not _said(part, known, settings)]


def _said(part: str, known: set[str], settings: Mapping[str, Any]) -> bool:
    """Return True if a part of a name is a known word, or a setting with its number."""
    if setting := re.fullmatch(r"_?([a-z_]+?)[-_]?(\d[\d.]*(?:e-?\d+)?)", part):
        return _set(setting[1].strip("_"), float(setting[2].rstrip(".")), settings)
    return set(filter(None, part.split("_"))) <= known


def _set(key: str, number: float, settings: Mapping[str, Any]) -> bool:
    """Return True if a setting whose name contains `key` has the value `number`."""
    names = {"lr": ("learning_rate",), "rank": ("r", "rank", "init_r"), "r": ("r", "rank")}.get(key)
    fitting = [value for name, value in settings.items() if (name in names if names else len(key) > 3 and key in name)]
    return any(isinstance(value, (int, float)) and not isinstance(value, bool) and value == number for value in fitting)
