"""House rules: which package may import which, what is imported when, and what the top of the package looks like.

Lengths are warnings (`make check` prints them): a ceiling is no reason to split a file or to bundle arguments.
"""

import ast
import subprocess
import sys
import tomllib
import warnings
from collections import defaultdict
from pathlib import Path

import pytest

import peftbench

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "peftbench"
FILES = sorted(SOURCE.rglob("*.py"))

LAYERS = (
    ("sandbox", "stats"),
    ("core",),
    ("metrics", "models"),
    ("methods", "tasks"),
    ("engine", "grid", "results"),
    ("profiling", "studies", "tuning"),
    ("advisor", "single_run", "report"),
    ("checks", "launch"),
    ("gating",),
    ("__init__",),
    ("cli",),
)
"""A package imports from the layers before its own, and from itself."""
LAYER = {package: number for number, layer in enumerate(LAYERS) for package in layer}
MOST_ENTRIES = 20
UNITS = ("methods", "tasks", "metrics")
"""Packages whose files without a leading underscore are units: they do not know each other."""
HEAVY = {"torch", "transformers", "peft", "accelerate", "safetensors"}
TORCH_PACKAGES = {"engine", "single_run", "profiling"}
"""`single_run` calls the engine and is imported by worker processes alone."""
FILE_LINES, UNIT_LINES, BODY_LINES = 500, 100, 60
"""Beyond these a warning is given."""


def package(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


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


def test_the_top_is_short_and_known() -> None:
    entries = {path.stem for path in SOURCE.iterdir() if path.name not in ("__pycache__", "py.typed")}
    entries -= {"__init__", "__main__"}
    assert len(entries) <= MOST_ENTRIES
    assert entries == set(LAYER) - {"__init__"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_down_only(path: Path) -> None:
    tree = ast.parse(path.read_text())
    here = package(path)
    for name in all_imports(tree):
        parts = name.split(".")
        if parts[0] != "peftbench" or len(parts) < 2 or path.name == "__main__.py":
            continue
        there = "__init__" if parts[1] in peftbench.__all__ else parts[1]
        assert there in LAYER, f"{path}: what is peftbench.{there}?"
        if here in LAYER and there != here:
            assert LAYER[there] < LAYER[here], f"{path}: {here} imports {there}, which is not below it"
    if here not in TORCH_PACKAGES and path.name != "__main__.py":
        heavy = {name.split(".")[0] for name in top_imports(tree)} & HEAVY
        assert not heavy, f"{path} imports {heavy} when it is imported"


def test_no_imports_in_a_circle() -> None:
    """By imports at the top of files: those inside functions come later."""
    names = {path: ".".join(("peftbench", *path.relative_to(SOURCE).with_suffix("").parts)) for path in FILES}
    modules = {name.removesuffix(".__init__"): path for path, name in names.items()}
    edges: dict[str, set[str]] = {}
    for name, path in modules.items():
        edges[name] = set()
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.module:
                # Of `from package import module` the module alone counts.
                found = {f"{node.module}.{alias.name}" for alias in node.names} & modules.keys()
                edges[name] |= found if len(found) == len(node.names) else found | {node.module}
    left = {name: to & modules.keys() - {name} for name, to in edges.items()}
    while free := [name for name, to in left.items() if not to & left.keys()]:
        for name in free:
            del left[name]
    assert not left, f"imported in circles, or by one that is: {sorted(left)}"


@pytest.mark.parametrize("folder", UNITS)
def test_units_do_not_know_each_other(folder: str) -> None:
    for path in sorted((SOURCE / folder).rglob("*.py")):
        if path.stem.startswith("_"):
            continue
        for name in all_imports(ast.parse(path.read_text())):
            if name.startswith(f"peftbench.{folder}."):
                rest = name.removeprefix(f"peftbench.{folder}.").split(".")
                shared = len(rest) == 1 or rest[0].startswith("_") or (SOURCE / folder / rest[0]).is_dir()
                assert shared, f"{path} imports its neighbour {name}"


def test_lengths_are_warnings() -> None:
    said = defaultdict(list)
    for path in FILES:
        text = path.read_text()
        lines = len(text.splitlines())
        unit = package(path) in UNITS and not path.stem.startswith("_")
        if lines > (UNIT_LINES if unit else FILE_LINES):
            said[path].append(f"{lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                first = node.body[1:] if ast.get_docstring(node) else node.body
                body = (node.body[-1].end_lineno or 0) - first[0].lineno + 1 if first else 0
                if body > BODY_LINES:
                    said[path].append(f"{node.name} has a body of {body} lines")
    for path, found in said.items():
        warnings.warn(f"{path.relative_to(ROOT)}: {'; '.join(found)}", stacklevel=1)


def test_no_vague_names() -> None:
    assert not {path.stem for path in FILES} & {"utils", "helpers", "common", "base", "misc"}


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; import peftbench.cli, peftbench.grid.expand, peftbench.results.store;"
        "import peftbench.cli.method_and_task_facts as c;"
        "[c.listing(k) for k in c.KINDS[:-1]];"
        "print([m for m in ('torch', 'transformers', 'peft', 'datasets', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_trained_the_bundled_models_is_not_installed() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["src/peftbench"]
    assert (ROOT / "tools" / "pretraining").is_dir()
    assert not [
        path for path in FILES if "import pretraining" in (text := path.read_text()) or "from pretraining" in text
    ]
