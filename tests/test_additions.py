"""A method, a task, a metric, a study or a launcher is one file that is written by hand; the rest is generated."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow

METHOD = '''from typing import Any

from peftbench.methods import Adapted, method


@method(learning_rate=1e-3)
def headonly(model: Any) -> Adapted:
    """Train the weights of the last normalisation."""
    names = [name for name, _ in model.named_parameters() if "norm" in name]
    last = names[-1]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name == last)
    return Adapted(model, model, places=[last])
'''
METRIC = '''from peftbench.metrics import Answers, metric


@metric(rowwise=True)
def first_letter(answers: Answers) -> list[float]:
    """Share of answers whose first letter is that of a reference."""
    pairs = zip(answers.predictions, answers.references, strict=True)
    return [100.0 * any(answer[:1] == one[:1] for one in wanted) for answer, wanted in pairs]
'''
STUDY = '''"""How many runs each method has."""

from collections.abc import Mapping

from peftbench.studies._figure_style import Style
from peftbench.studies.presentation_blocks import Section, Table
from peftbench.studies.study_input import RunData

ORDER = 90


def analyse(data: RunData) -> dict[str, int] | None:
    """Runs by method."""
    counts = data.compared["label"].value_counts().sort_index()
    return {str(label): int(count) for label, count in counts.items()} or None


def present(found: dict[str, int], _styles: Mapping[str, Style]) -> Section:
    """A table."""
    rows = tuple((label, str(count)) for label, count in found.items())
    return Section("counts", "Runs", "Runs of each method.", (Table("Runs", ("Method", "Runs"), 1, rows),), data=found)
'''
LAUNCHER = '''"""Runs in the order they are given, by the launcher of this machine."""

from collections.abc import Sequence

from peftbench.core.spec import RunSpec
from peftbench.launch import After, Options, Watch, launcher
from peftbench.results.store import Store


def launch(
    specs: Sequence[RunSpec], store: Store, options: Options, watch: Watch, after: After | None = None
) -> None:
    """Do the specs one by one."""
    for spec in specs:
        launcher("local")([spec], store, options, watch, after)
'''
FILES = {
    "methods/headonly.py": METHOD,
    "metrics/first_letter.py": METRIC,
    "studies/run_counts.py": STUDY,
    "launch/one_by_one.py": LAUNCHER,
}
LEFT_OUT_EVERYWHERE = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__")
LEFT_OUT_AT_THE_TOP = {"results", "build", "dist"}
GRID = """
methods = ["none", "headonly"]
tasks = ["pocket_topic"]
sizes = [16]
seeds = [0]
train = { max_steps = 2, validation_rows = 4 }
eval = { test_rows = 8 }
"""
USE = """
import json, sys
import peftbench
from peftbench.launch import launchers
from peftbench.methods import METHODS
from peftbench.metrics import METRICS
from peftbench.studies import studies
from peftbench.tasks import TASKS
print(json.dumps(["headonly" in METHODS, "first_letter" in METRICS, "run_counts" in studies(),
                  "one_by_one" in launchers(), "added" in TASKS]))
"""


def left_out(folder: str, names: list[str]) -> set[str]:
    """Environments, caches and outputs; `results` is also a package of the program."""
    outputs = LEFT_OUT_AT_THE_TOP if Path(folder) == ROOT else set()
    return LEFT_OUT_EVERYWHERE(folder, names) | outputs.intersection(names)


def test_each_is_one_file(tmp_path: Path) -> None:
    here = tmp_path / "checkout"
    shutil.copytree(ROOT, here, ignore=left_out)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here / "src"), str(here / "tools")])}

    def call(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False)

    for name, text in FILES.items():
        (here / "src" / "peftbench" / name).write_text(text)
    made = call(sys.executable, "-m", "peftbench", "new", "task", "added", "--to", "src/peftbench/tasks/added.py")
    assert made.returncode == 0, made.stderr
    used = call(sys.executable, "-c", USE)
    assert used.stdout.strip() == "[true, true, true, true, true]", used.stdout + used.stderr
    (here / "grid.toml").write_text(GRID)
    run = call(sys.executable, "-m", "peftbench", "run", "grid.toml", "--store", "store", "--launcher", "one_by_one")
    assert run.returncode == 0, run.stderr
    assert "2 runs in" in run.stderr
    stale = call(sys.executable, "tools/generate.py", "--check")
    assert stale.returncode == 1
    assert "capabilities.json" in stale.stderr
    generated = call(sys.executable, "tools/generate.py")
    assert generated.returncode == 0, generated.stdout + generated.stderr
    for command in (
        [sys.executable, "-m", "ruff", "check", "."],
        [sys.executable, "-m", "mypy"],
        [
            sys.executable,
            "-m",
            "pytest",
            "-n",
            "0",
            "tests/test_house.py",
            "tests/test_units.py",
            "tests/test_names.py",
        ],
        [sys.executable, "tools/generate.py", "--check"],
    ):
        done = call(*command)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert "| `headonly` |" in (here / "docs" / "methods.md").read_text()
