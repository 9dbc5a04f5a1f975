"""The grids that come with the package: each can be asked by name, and its small edition cuts rows, never seeds."""

from pathlib import Path

import pytest

from peftbench.core.registry import UserError
from peftbench.core.spec import RunSpec
from peftbench.grid.expand import expand, load_grid, ready
from peftbench.tuning import search

NAMES = "paper stability pu2023 scale layers tuned rank retention zoo".split()
DOCS = Path(__file__).parent.parent / "docs" / "grids"


def asked(name: str, size: str | None) -> list[RunSpec]:
    return search(name, {}, size=size).whole()


@pytest.mark.parametrize("name", sorted(ready()))
def test_it_can_be_asked_and_says_what_it_is_about(name: str) -> None:
    grid = load_grid(name)
    assert grid.about
    for size in (None, *grid.size):
        assert asked(name, size)


@pytest.mark.parametrize("name", NAMES)
def test_the_small_edition_has_the_seeds_of_the_large_one(name: str) -> None:
    large, small = load_grid(name), load_grid(name, "pocket")
    assert small.seeds == large.seeds
    assert small.name == f"{name}-pocket"
    assert set(small.models) <= {"pocket", "pocket-t5"}
    assert {spec.model.name for spec in asked(name, "pocket")} <= {"pocket", "pocket-t5"}


@pytest.mark.parametrize("name", NAMES)
def test_it_has_a_page(name: str) -> None:
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    assert f"peftbench run {name} --size pocket" in page


def test_a_file_of_that_name_is_named_by_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo").write_text('methods = ["none"]\ntasks = ["pocket_topic"]\n')
    assert len(expand("demo")) > 1
    assert len(expand("./demo")) == 1


def test_keys_of_an_edition_take_the_place_of_the_grids_own() -> None:
    asked = {"methods": ["none"], "tasks": ["pocket_topic"], "seeds": [0, 1], "eval": {"test_rows": 9, "latency": True}}
    (first, second) = expand(asked | {"size": {"small": {"eval": {"test_rows": 3}}}}, size="small")
    assert (first.seed, second.seed) == (0, 1)
    assert first.eval.test_rows == 3
    assert not first.eval.latency
    assert expand(asked | {"size": {"small": {}}}) == expand(asked)


@pytest.mark.parametrize(
    ("source", "size", "message"),
    [
        ("papr", None, "no such file, and unknown ready grid 'papr': did you mean 'paper'?"),
        ("paper", "poket", "unknown size 'poket': did you mean 'pocket'?"),
        ("demo", "pocket", "it has one size only"),
        ({"methods": ["none"], "tasks": ["cb"], "size": {"x": {"metods": []}}}, "x", "did you mean 'methods'"),
    ],
)
def test_what_is_not_known_is_said(source: object, size: str | None, message: str) -> None:
    with pytest.raises(UserError) as error:
        expand(source, size=size)  # type: ignore[arg-type]
    assert message in str(error.value)
