"""Measure the capabilities of each method with the contract: `python -m peftbench.checks.method_capabilities`.

Listings and the generic peft method read the data file in the package; the Markdown page is documentation.
"""

import argparse
import importlib.util
import json
import multiprocessing
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from peftbench import methods
from peftbench.checks import method_check, tiny_models
from peftbench.checks.static_checks import Finding
from peftbench.core.registry import UserError
from peftbench.core.spec import RunSpec
from peftbench.methods import FOUR_BIT, METHODS

FILE = Path(methods.__file__).parent / "capabilities.json"
WORKERS = 2
SMALL: dict[str, dict[str, Any]] = {
    "p-tuning": {"hidden": 16},
    "prefix-tuning": {"hidden": 16},
}
"""Arguments reduced for a tiny model; they do not affect capabilities."""
HEAD = """# What each method can do

Measured by the contract of methods on a tiny random decoder (Llama) and encoder–decoder (T5), not typed in:

    python -m peftbench.checks.method_capabilities --out docs/methods.md

A method works on a shape if it trains what it should and nothing else, lowers the loss, repeats its numbers with the
same seed, answers in a padded batch with a cache as one row alone without, and gives the logits of its best step when
it is read back on a clean base; `peftbench check method NAME` shows each. *Merges*: folded into the weights it is the
same function, and taking it apart restores every bit. *Layers*: takes a choice of the layers it goes to. *Base*:
unchanged bit for bit after the method is taken off, or changed, found out and loaded anew. *4-bit base*: works on a
decoder quantised to nf4 by bitsandbytes. `?` was not measured.

| Method | Decoder | Encoder–decoder | Merges | Gradient checkpointing | Layers | 4-bit base | Base | Why not |
|---|---|---|---|---|---|---|---|---|
"""
COLUMNS = (*tiny_models.SHAPES, "merge", "gradient_checkpointing", "layers", "four_bit")


def capability_names() -> list[str]:
    """Return the names of all core methods and all types of the installed peft."""
    from peftbench.methods._peft_types import types

    own = [unit.name for unit in METHODS if unit.function.__module__.startswith("peftbench.methods.")]
    own = [name for name in own if not METHODS[name].facts.folder]
    return [*own, *(f"peft:{kind}" for kind in types())]


def measure_capabilities(name: str) -> dict[str, Any]:
    """Measure the capabilities of one method, with the reason for each missing one."""
    unit = METHODS[name]
    about = unit.doc.split("\n\n")[0].replace("\n", " ")
    row: dict[str, Any] = {"about": about, "paper": unit.facts.paper, "learning_rate": unit.facts.learning_rate}
    row |= dict.fromkeys(COLUMNS) | {"base": "", "why": []}
    try:
        asked = method_check.tiny_spec(name, SMALL.get(name, {}))
    except UserError as problem:
        reason = str(problem).partition(": ")[2]
        return row | dict.fromkeys(tiny_models.SHAPES, False) | {"why": [reason]}
    for shape in tiny_models.SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            _take(row, shape, list(method_check.on(tiny_models.build_tiny(shape, Path(folder)), asked)))
    if importlib.util.find_spec("bitsandbytes") is not None and row["decoder"]:
        _take_four_bits(row, method_check.tiny_spec(name, SMALL.get(name, {}), "nf4"))
    return row


def _take_four_bits(row: dict[str, Any], asked: RunSpec) -> None:
    """Add whether the method fulfils the contract on a 4-bit decoder."""
    method = METHODS[asked.method.name]
    if asked.method.name.startswith("peft:"):
        # The known value of a peft type is the last measurement, so it is ignored here.
        method = replace(method, facts=replace(method.facts, quantised=""))
    with tempfile.TemporaryDirectory() as folder:
        found = list(method_check.on(tiny_models.build_tiny("decoder", Path(folder)), asked, False, method))
    wrong = [finding for finding in found if finding.problem or "refused" in finding.facts]
    row["four_bit"] = not wrong
    for finding in wrong[:1]:
        row["why"].append(FOUR_BIT + (finding.facts.get("refused") or f"{finding.about}: {finding.said}"))


def _take(row: dict[str, Any], shape: str, found: Iterable[Finding]) -> None:
    """Add the findings for one shape. A capability must be present on every shape that the method supports."""
    facts: dict[str, Any] = {}
    for finding in found:
        facts |= {key: value for key, value in finding.facts.items() if key != "why"}
        reason = finding.facts.get("refused") or (finding.said if finding.problem else finding.facts.get("why"))
        if reason and (said := f"{finding.about if 'refused' not in facts else shape}: {reason}") not in row["why"]:
            row["why"].append(said)
    row[shape] = "refused" not in facts and not any(finding.problem for finding in found)
    for key in ("merge", "gradient_checkpointing", "layers"):
        if key in facts:
            row[key] = facts[key] and row[key] is not False
    if "base" in facts:
        row["base"] = facts["base"] if row["base"] in ("", facts["base"]) else "reloaded"


def measured_capabilities(asked: Iterable[str], workers: int = WORKERS) -> dict[str, dict[str, Any]]:
    """Measure the capabilities of methods in separate processes."""
    asked = list(asked)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _one_thread) as pool:
        return dict(zip(asked, pool.map(measure_capabilities, asked), strict=True))


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def capabilities_page(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the Markdown page."""
    words = {True: "yes", False: "no", None: "?"}
    lines = [
        f"| `{name}` | {' | '.join(words[row[key]] for key in COLUMNS)} | {row['base']} | {_reasons(row)} |"
        for name, row in rows.items()
    ]
    return HEAD + "\n".join(lines) + "\n"


def _reasons(row: Mapping[str, Any]) -> str:
    return "; ".join(row["why"]).replace("|", "/").replace("\n", " ")


def main() -> None:
    """Measure all or the named methods and write the data file and the page."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/methods.md"))
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("names", nargs="*", help="methods to measure again; the others keep their rows")
    asked = parser.parse_args()
    rows = remeasure(asked.names or capability_names(), asked.workers)
    asked.out.write_text(capabilities_page(rows), encoding="utf-8")


def remeasure(asked: Iterable[str], workers: int = WORKERS) -> dict[str, dict[str, Any]]:
    """Measure methods, write the data file without rows of removed methods, and return all rows."""
    held = json.loads(FILE.read_text()) if FILE.is_file() else {}
    found = measured_capabilities(asked, workers)
    for name, row in found.items():
        # Without bitsandbytes, keep the previous measurement.
        if row["four_bit"] is None and row["decoder"]:
            known = held.get(name, {"four_bit": None, "why": []})
            row["four_bit"] = known["four_bit"]
            row["why"] += [reason for reason in known["why"] if reason.startswith(FOUR_BIT)]
    rows = {name: found.get(name) or held[name] for name in capability_names() if name in found or name in held}
    FILE.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return rows


if __name__ == "__main__":
    main()
