"""A command looks at a store once, and chooses and labels its runs once, however many studies a report has."""

from collections import Counter
from pathlib import Path

import pytest

import made_store
from peftbench.grid.expand import expand
from peftbench.results.store import Store
from peftbench.studies import _setting_selection, studies, study_input
from test_cli import call


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    found: Counter[str] = Counter()
    look, compared = Store.look, _setting_selection.compared_runs

    def counted_look(self: Store) -> object:
        found["looks"] += 1
        return look(self)

    def counted(table: object) -> object:
        found["selections"] += 1
        return compared(table)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "look", counted_look)
    # Wherever it was imported to: a study that chooses by itself is counted too.
    for module in (
        _setting_selection,
        study_input,
        *(__import__(s.analyse.__module__, fromlist="x") for s in studies().values()),
    ):
        if hasattr(module, "compared_runs"):
            monkeypatch.setattr(module, "compared_runs", counted)
    return found


@pytest.fixture
def store(tmp_path: Path) -> Path:
    methods = ("none", "lora", "full", "ia3")
    results = [made_store.result(m, t, seed) for m in methods for t in ("sst2", "cola") for seed in (0, 1, 2)]
    made_store.store(tmp_path / "store", *results)
    return tmp_path / "store"


def test_a_report_chooses_its_runs_once(store: Path, counts: Counter[str], tmp_path: Path) -> None:
    done = call("report", "--store", store, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert counts == {"looks": 1, "selections": 1}


@pytest.mark.parametrize("command", ["status GRID", "list runs", "report", "plan GRID --no-costs"])
def test_a_command_reads_the_store_once(command: str, store: Path, counts: Counter[str], tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text('methods = ["none", "lora"]\ntasks = ["sst2"]\nsizes = [100]\nseeds = [0, 1, 2]\n')
    words = [str(grid) if word == "GRID" else word for word in command.split()]
    done = call(*words, "--store", store)
    assert done.code == 0, done.err
    assert counts["looks"] == 1


def test_a_run_with_nothing_to_do_looks_three_times(counts: Counter[str], tmp_path: Path) -> None:
    """Before the runs, for the table, and after them, when another launcher may have written more."""
    grid = tmp_path / "grid.toml"
    grid.write_text('methods = ["none", "lora"]\ntasks = ["sst2"]\nsizes = [100]\nseeds = [0, 1, 2]\n')
    made_store.store(tmp_path / "store", *map(made_store.of, expand(str(grid))))
    counts.clear()
    done = call("run", grid, "--store", tmp_path / "store")
    assert done.code == 0, done.err
    assert "6 runs in" in done.err
    assert "6 done before" in done.err
    assert counts["looks"] == 3
