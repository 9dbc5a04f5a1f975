"""Whether the settings of a published row are all that its experiment had, so that it can be run here as it was."""

import re
from collections.abc import Mapping
from typing import Any

from peftbench.core.registry import UserError
from peftbench.methods import METHODS
from peftbench.results.runs_table import arguments

PLAIN = {"default", "target", "init", "tuning", "finetuning", "full", "seed", "0"}
"""Words of an experiment's name that say nothing of a variant."""


def unlike(row: Mapping[str, Any]) -> str:
    """Why the method and the arguments of a published row are not the experiment that had its score; empty if they are.

    The row says which method it is here and which of its settings are known. What its source called the experiment may
    say more: another variant, which the settings do not tell.
    """
    try:
        unit = METHODS[str(row["method"])]
        given = arguments(str(row["method_arguments"]))
        unit.check(given)
    except (UserError, ValueError) as problem:
        return f"not a method here: {' '.join(str(problem).split())}"
    called = str(row.get("published_as") or "")
    settings = {name: each.default for name, each in unit.parameters.items()} | given
    said = _unsaid(called, str(row["model"]), unit.name, settings | {"learning_rate": row.get("learning_rate")})
    return f"published as {called}: these settings do not say '{said[0]}'" if said else ""


def _unsaid(called: str, model: str, method: str, settings: Mapping[str, Any]) -> list[str]:
    """Parts of an experiment's name that neither the method nor its settings have."""
    kind, _, name = called.lower().rpartition("/")
    name = re.sub(rf"^{re.escape(model.lower().rpartition('/')[2])}[-_]?", "", name)
    values = " ".join(str(value).lower() for value in settings.values())
    known = {*re.split(r"[-:_ ]", method), method.replace("-", ""), kind, *re.findall(r"[a-z]+", values), *PLAIN}
    parts = re.findall(r"[a-z_]*?lr[-_]?\d[\d.]*(?:e-?\d+)?|[a-z_]+[-_]?\d[\d.]*|[a-z]+|\d[\d.]*", name)
    return [part for part in parts if not _said(part, known, settings)]


def _said(part: str, known: set[str], settings: Mapping[str, Any]) -> bool:
    """Whether a part of a name is a known word, or a setting with its number."""
    if setting := re.fullmatch(r"_?([a-z_]+?)[-_]?(\d[\d.]*(?:e-?\d+)?)", part):
        return _set(setting[1].strip("_"), float(setting[2].rstrip(".")), settings)
    return set(filter(None, part.split("_"))) <= known


def _set(key: str, number: float, settings: Mapping[str, Any]) -> bool:
    """Whether a setting whose name has that word has that number."""
    names = {"lr": ("learning_rate",), "rank": ("r", "rank", "init_r"), "r": ("r", "rank")}.get(key)
    fitting = [value for name, value in settings.items() if (name in names if names else len(key) > 3 and key in name)]
    return any(isinstance(value, (int, float)) and not isinstance(value, bool) and value == number for value in fitting)
