"""The house rules: floors, sizes, and what may be imported where."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "peftbench"
FILES = sorted(SOURCE.rglob("*.py"))

FLOORS = {
    "core": 0,
    "text": -1,
    "registry": 0,
    "spec": 0,
    "seeds": 0,
    "results": 1,
    "faults": 2,
    "cache": 0,
    "sandbox": 0,
    "metrics": 1,
    "models": 1,
    "machine": 1,
    "ranges": 1,
    "environment": 2,
    "methods": 2,
    "tasks": 2,
    "engine": 3,
    "store": 3,
    "mirror": 3,
    "choices": 3,
    "experiment": 4,
    "grid": 4,
    "analysis": 4,
    "authoring": 4,
    "evidence": 4,
    "rescoring": 4,
    "checking": 5,
    "launch": 5,
    "tuning": 5,
    "planning": 5,
    "catalogue": 6,
    "report": 6,
    "reproduction": 6,
    "verification": 6,
    "gating": 6,
    "cli": 7,
    "__init__": 8,
}
"""A room imports from lower floors and from itself. `__main__` scripts stand on the roof."""
FILE_LINES, UNIT_LINES, BODY_LINES = 500, 100, 60
SHARED = {
    "methods": {
        "files",
        "in_place",
        "low_rank",
        "merging",
        "peft_model",
        "peft_options",
        "peft_types",
        "placement",
        "singular",
    },
    "tasks": {
        *("cells", "delimited", "door", "encodings", "files", "long_context"),
        *("own", "pocket", "scoring", "split_checks", "splits"),
    },
    "metrics": {"codebleu", "confusion", "numerals", "rouge", "scripts"},
}
"""What the units of a folder may import from it, beside its `__init__`."""
HEAVY = {"torch", "transformers", "peft", "accelerate", "safetensors"}
TORCH_ROOMS = {"engine", "experiment", "planning"}
"""`experiment` is the engine's caller and is imported by worker processes alone."""


def room(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return parts[0]


def top_imports(tree: ast.Module) -> list[str]:
    """Modules imported when the file is, type checking apart."""
    found = []
    for node in tree.body:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def all_imports(tree: ast.Module) -> list[str]:
    return [
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for name in [f"{node.module}.{alias.name}" for alias in node.names]
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_floors_sizes_and_imports(path: Path) -> None:
    tree = ast.parse(path.read_text())
    here = room(path)
    for name in all_imports(tree):
        parts = name.split(".")
        if parts[0] != "peftbench" or len(parts) < 2 or path.name == "__main__.py":
            continue
        there = parts[1]
        assert there in FLOORS, f"{path}: what is peftbench.{there}?"
        if here in FLOORS and there != here:
            assert FLOORS[there] < FLOORS[here], f"{path}: {here} imports {there}, which is not below it"
    if here not in TORCH_ROOMS and path.name != "__main__.py":
        heavy = {name.split(".")[0] for name in top_imports(tree)} & HEAVY
        assert not heavy, f"{path} imports {heavy} when it is imported"
    assert len(path.read_text().splitlines()) <= FILE_LINES
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            first = node.body[1:] if ast.get_docstring(node) else node.body
            lines = node.body[-1].end_lineno - first[0].lineno + 1 if first and node.body[-1].end_lineno else 0
            assert lines <= BODY_LINES, f"{path}: {node.name} has a body of {lines} lines"


@pytest.mark.parametrize("folder", ["methods", "tasks", "metrics"])
def test_units_are_small_and_do_not_know_each_other(folder: str) -> None:
    shared = SHARED[folder]
    for path in (SOURCE / folder).rglob("*.py"):
        if path.name == "__init__.py" or path.stem in shared:
            continue
        assert len(path.read_text().splitlines()) <= UNIT_LINES, path
        for name in all_imports(ast.parse(path.read_text())):
            if name.startswith(f"peftbench.{folder}."):
                rest = name.removeprefix(f"peftbench.{folder}.").split(".")
                assert len(rest) == 1 or rest[0] in shared, f"{path} imports its neighbour {name}"


def test_no_vague_rooms() -> None:
    assert not {path.stem for path in FILES} & {"utils", "helpers", "common", "base", "misc"}


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; import peftbench.cli, peftbench.grid.expand, peftbench.results.store, peftbench.cli.listing as c;"
        "[c.listing(k) for k in c.KINDS[:-1]];"
        "print([m for m in ('torch', 'transformers', 'peft', 'datasets', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
