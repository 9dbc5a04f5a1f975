"""Stores of earlier versions open, and give the tables that they gave: kept stores, and tables of the code of then.

`demo-60` is the demo's store before the modules got their present names; `first-version-12` was made by the first
version of the code (result schema 1) from `first-version-12.toml`.
"""

import subprocess
import sys
import tarfile
from pathlib import Path

import pandas as pd
import pytest

import peftbench
from peftbench.core.spec import SCHEMA
from peftbench.grid.expand import expand
from peftbench.results.store import Store

KEPT = Path(__file__).parent / "golden" / "stores"
NAMES = ("demo-60", "first-version-12")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for name in NAMES:
        found[name] = tmp_path_factory.mktemp(name)
        with tarfile.open(KEPT / f"{name}.tar.xz") as archive:
            archive.extractall(found[name], filter="data")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_table_is_what_it_was(name: str, stores: dict[str, Path], tmp_path: Path) -> None:
    wanted = (KEPT / f"{name}.csv").read_text()
    table = peftbench.table(stores[name])
    table[wanted.partition("\n")[0].split(",")].to_csv(tmp_path / "table.csv", index=False)
    assert (tmp_path / "table.csv").read_text() == wanted


def test_the_leaderboard_is_what_it_was(stores: dict[str, Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "peftbench", "report", "--store", str(stores["demo-60"]), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "leaderboard.csv"), pd.read_csv(KEPT / "demo-60-leaderboard.csv"), rtol=1e-12
    )


def test_ids_of_ready_grids_are_those_of_kept_runs(stores: dict[str, Path]) -> None:
    assert {spec.id for spec in expand("demo")} == set(Store(stores["demo-60"]).results())


def test_a_store_of_the_first_version_has_the_runs_that_the_same_grid_asks_for_now(stores: dict[str, Path]) -> None:
    store = stores["first-version-12"]
    results = Store(store).results()
    assert {result.result_schema for result, _ in results.values()} == {SCHEMA}
    plan = peftbench.plan(KEPT / "first-version-12.toml", store)
    assert (plan["cells"], plan["done"], plan["missing"]) == (12, 12, 0)


def test_a_run_whose_meaning_has_changed_since_counts_as_missing(
    stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that was raised is another run: it is not averaged with the kept ones, and its rows say so."""
    from dataclasses import replace

    from peftbench.tasks import TASKS

    store = stores["first-version-12"]
    unit = TASKS["pocket_topic"]
    monkeypatch.setitem(TASKS._units, "pocket_topic", replace(unit, facts=replace(unit.facts, version=99)))
    plan = peftbench.plan(KEPT / "first-version-12.toml", store)
    assert (plan["done"], plan["missing"]) == (6, 6)
    changed = [spec for spec in plan["specs"] if spec.task.version == 99]
    assert {spec.task.name for spec in changed} == {"pocket_topic"}
    assert not {spec.id for spec in changed} & set(Store(store).results())
