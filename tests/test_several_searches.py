"""Several searches for settings in one store: each is told apart, whatever it has in common with the others."""

from pathlib import Path
from typing import Any

import pytest

from made_store import result, store
from peftbench.core.spec import RunResult
from peftbench.results.store import Store
from peftbench.tuning import search
from test_cli import call

GRID: dict[str, Any] = {"methods": ["lora"], "tasks": ["sst2"], "sizes": [100], "seeds": [0, 1]}


def searched(place: Store, **changes: Any) -> int:
    """Do what a grid with [tune] asks for, as far as it goes, with results that are made up; how many runs it has."""
    grid = GRID | {"tune": {"trials": 3}} | changes
    found = search(grid, {id_: one for id_, (one, _) in place.results().items()})
    left = found.missing()
    while left:
        spec, *left = left
        rate = spec.train.learning_rate or 1e-3
        made = result("lora", validation_loss=1 + abs(rate - 0.002), learning_rate=rate)
        done = RunResult.model_validate(made.model_dump() | {"id": spec.id, "spec": spec.model_dump()})
        place.finish(place.begin(spec), done, [])
        left += found.after(done)
    return len(found.asked())


@pytest.mark.parametrize(
    ("second", "names"),
    [
        ({"tune": {"trials": 3, "seeds": [2000, 2001]}}, {"lora"}),
        ({"tune": {"trials": 3, "learning_rate": {"low": 1e-3, "high": 1e-1}}}, {"lora, search 1", "lora, search 2"}),
        ({"train": {"max_steps": 7}}, {"lora, search 1", "lora, search 2"}),
        pytest.param({"tune": {"trials": 3, "seeds": [1000, 1001]}}, {"lora"}, marks=pytest.mark.slow),
        pytest.param({"tune": {"trials": 5}}, {"lora"}, marks=pytest.mark.slow),
    ],
    ids=["other seeds", "other ranges", "other settings", "one seed more", "more trials"],
)
def test_two_searches_in_one_store(second: dict[str, Any], names: set[str], tmp_path: Path) -> None:
    place = store(tmp_path)
    assert searched(place) == 5
    searched(place, **second)
    done = call("report", "--store", tmp_path, "--json")
    assert done.code == 0, done.err
    found = done.json["trials"]
    assert {method for one in found for method in one["trials"]} == names
    wanted = second.get("tune", {}).get("trials", 3)
    assert max(count for one in found for count in one["trials"].values()) == wanted
    for one in found:
        of = {method: [line for line in one["log"] if line["method"] == method] for method in one["trials"]}
        for method, lines in of.items():
            numbers = sorted({(line["trial"], line["seed"]) for line in lines})
            assert numbers == [(n + 1, seed) for n in range(one["trials"][method]) for seed in one["seeds"]]
            assert len(lines) == len(numbers), "no trial of another search"
