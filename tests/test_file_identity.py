"""A run is known by the content of its files and by what was asked of them, not by where they lie."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import peftbench
from peftbench.studies._run_labels import distinct
from peftbench.studies.leaderboard import leaderboards

ROWS = [{"text": f"note {i}", "label": i % 2, "other": i} for i in range(24)]
GRID = """
models = ["{model}"]
methods = ["none"]
[[tasks]]
data = "mine.jsonl"
fields = ["text"]
target = "label"
labels = ["no", "yes"]
"""


def write(path: Path, rows: Any = ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def entry(path: Path, **given: Any) -> dict[str, Any]:
    return {"data": str(path), "fields": ["text"], "target": "label", "labels": ["no", "yes"]} | given


def run_ids(*tasks: Mapping[str, Any]) -> list[str]:
    return [spec.id for spec in peftbench.plan({"methods": ["none"], "tasks": [dict(task) for task in tasks]})["specs"]]


def test_a_moved_copied_or_renamed_file_keeps_its_runs(tmp_path: Path) -> None:
    here = write(tmp_path / "here" / "mine.jsonl")
    later = write(tmp_path / "here" / "later.jsonl", ROWS[:4])
    (alone,), (tested,) = run_ids(entry(here)), run_ids(entry(here, test=str(later)))
    shutil.copytree(tmp_path / "here", tmp_path / "copy")
    assert run_ids(entry(tmp_path / "copy" / "mine.jsonl")) == [alone]
    assert run_ids(entry(tmp_path / "copy" / "mine.jsonl", test=str(tmp_path / "copy" / "later.jsonl"))) == [tested]
    # The same content twice in a grid is one task.
    assert run_ids(entry(here), entry(tmp_path / "copy" / "mine.jsonl")) == [alone]
    (tmp_path / "here" / "mine.jsonl").rename(tmp_path / "here" / "theirs.jsonl")
    assert run_ids(entry(tmp_path / "here" / "theirs.jsonl")) == [alone]


def test_other_content_or_another_question_is_another_run(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl")
    later = write(tmp_path / "later.jsonl", ROWS[:4])
    (first,) = run_ids(entry(path))
    others: list[dict[str, Any]] = [
        {"fields": ["other"]},
        {"labels": ["yes", "no"]},
        {"instruction": "Well?"},
        {"test": str(later)},
    ]
    found = [first, *(run_ids(entry(path, **other))[0] for other in others)]
    write(later, ROWS[:5])
    found += run_ids(entry(path, test=str(later)))
    # Train and test the other way round.
    write(later)
    write(path, ROWS[:20])
    found += [*run_ids(entry(path, test=str(later))), *run_ids(entry(later, test=str(path)))]
    assert len(set(found)) == len(found) == 8


@pytest.mark.slow
def test_a_grid_whose_folder_has_moved_has_nothing_to_do(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    write(tmp_path / "one" / "mine.jsonl")
    (tmp_path / "one" / "grid.toml").write_text(GRID.format(model=tiny_models["llama"]))
    store = tmp_path / "results"
    assert list(peftbench.run(tmp_path / "one" / "grid.toml", store, workers=1)["status"]) == ["ok"]
    (tmp_path / "one").rename(tmp_path / "two")
    assert peftbench.plan(tmp_path / "two" / "grid.toml", store)["missing"] == 0
    # A file of the same name with other content stands beside it.
    write(tmp_path / "three" / "mine.jsonl", ROWS[::-1])
    shutil.copy(tmp_path / "two" / "grid.toml", tmp_path / "three")
    assert peftbench.plan(tmp_path / "three" / "grid.toml", store)["missing"] == 1
    peftbench.run(tmp_path / "three" / "grid.toml", store, workers=1)
    (board,) = leaderboards(distinct(peftbench.table(store)))
    assert len(board.tasks) == 2
    assert all(name.startswith("mine [") for name in board.tasks)
    # One that was renamed between its runs is one task.
    (tmp_path / "two" / "mine.jsonl").rename(tmp_path / "two" / "new.jsonl")
    text = (tmp_path / "two" / "grid.toml").read_text()
    (tmp_path / "two" / "grid.toml").write_text(
        text.replace("mine.jsonl", "new.jsonl").replace('["none"]', '["none", "bitfit"]') + "[train]\nmax_steps = 1\n"
    )
    both = distinct(peftbench.run(tmp_path / "two" / "grid.toml", store, workers=1))
    assert both["task"].nunique() == 1
    assert set(both["method"]) == {"none", "bitfit"}


def test_files_of_one_name_are_told_apart_in_a_grid(tmp_path: Path) -> None:
    one, other = write(tmp_path / "a" / "mine.jsonl"), write(tmp_path / "b" / "mine.jsonl", ROWS[::-1])
    specs = peftbench.plan({"methods": ["none"], "tasks": [entry(one), entry(other)]})["specs"]
    names = [str(spec.task) for spec in specs]
    assert len(set(names)) == 2
    assert all(name.startswith("mine-") and len(name) == 13 for name in names)
    # The name is no part of what a run is known by.
    assert [spec.id for spec in specs] == [*run_ids(entry(one)), *run_ids(entry(other))]
    with pytest.raises(peftbench.UserError, match="two tasks are called 'mine': give each a name of its own"):
        run_ids(entry(one), entry(one, instruction="Well?"))


PLUGIN = '''
from pathlib import Path

from peftbench.methods import Adapted, method
from peftbench.tasks import Example, Source, task


@method(learning_rate=1e-3)
def moved_method(model, *, layers: int = 1) -> Adapted:
    """Train the last layers."""
    return Adapted(model, model)


@task(
    source=Source("lines", generator=lambda split, count: ({"text": f"{split} {i}"} for i in range(count))),
    kind="qa",
    instruction="Say it again.",
    metrics=("exact_match",),
    max_new_tokens=8,
    files=("words",),
)
def moved_task(row, *, words: str) -> Example:
    """Rows that depend on a file."""
    return Example({"text": row["text"] + Path(words).read_text()}, row["text"])
'''


IDS = """
import json, sys
from pathlib import Path
import peftbench
from peftbench.core.registry import load_plugin
load_plugin(Path(sys.argv[1]))
grid = {"methods": ["moved-method"], "tasks": [{"use": "moved_task", "words": sys.argv[2]}]}
print(json.dumps([spec.id for spec in peftbench.plan(grid)["specs"]]))
"""


def test_a_task_of_ones_own_may_name_its_files(tmp_path: Path) -> None:
    """And where a plugin lies is no part of what a run is known by, either."""
    for folder, words in (("a", "the same"), ("b", "the same"), ("c", "others")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(PLUGIN)
        (tmp_path / folder / "words.txt").write_text(words)

    def ids(folder: str) -> str:
        command = [sys.executable, "-c", IDS, str(tmp_path / folder / "mine.py"), str(tmp_path / folder / "words.txt")]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout

    assert ids("a") == ids("b") != ids("c")
