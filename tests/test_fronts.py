"""The front of learning against forgetting."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drawn import data_rows, texts
from peftbench.report.tables import section_markdown
from peftbench.studies import study
from peftbench.studies._comparable_groups import groups
from peftbench.studies._setting_selection import compared_runs
from peftbench.studies.pareto import Front, dominated, front
from peftbench.studies.study_input import run_data
from synthetic_table import curves, run, table

POINTS = st.dictionaries(
    st.sampled_from("abcdefgh"), st.tuples(st.integers(0, 5).map(float), st.integers(0, 5).map(float)), min_size=1
)


def planted(held: dict[str, list[tuple[float, float]]], tasks: tuple[str, ...] = ("emotions",)) -> pd.DataFrame:
    """A run for each (score, rise of the loss) of a method."""
    return pd.DataFrame(
        run(method, task, seed, score=score, score_error=1.0, retention_loss_change=loss)
        for method, runs in held.items()
        for task in tasks
        for seed, (score, loss) in enumerate(runs)
    )


def of(runs: pd.DataFrame, seed: int = 0) -> Front:
    (group,) = groups(compared_runs(runs))
    return front(group.runs, np.random.default_rng(seed), 500)


FOUR = {
    "full": [(80.0, 0.9), (82.0, 1.1)],
    "lora": [(78.0, 0.1), (80.0, 0.3)],
    "ia3": [(70.0, 0.3), (70.0, 0.5)],
    "none": [(40.0, 0.0), (40.0, 0.0)],
}


def test_by_hand() -> None:
    """Means: full (81, 1.0), lora (79, 0.2), ia3 (70, 0.4), none (40, 0)."""
    found = {one.method: one for one in of(planted(FOUR)).standings}
    assert list(found) == ["full", "lora", "ia3", "none"]
    assert {name: one.dominated_by for name, one in found.items()} == {
        "full": (), "lora": (), "ia3": ("lora",), "none": ()
    }  # fmt: skip
    lora = found["lora"].forgetting
    assert lora.mean == pytest.approx(0.2)
    # Standard error 0.1 with one degree of freedom: t = 12.706.
    assert lora.sides[1] == pytest.approx(1.2706, abs=1e-4)
    assert found["none"].forgetting.sides == (0, 0)


def test_shares_by_hand() -> None:
    """Of two seeds drawn with repeats, a is at its first twice, its second twice, or at both, 1 : 1 : 2.

    Seed 0: a (50, 0.4), b (60, 0.2): b dominates. Seed 1: a (80, 0.4): a learns more. Both: a (65, 0.4) does too.
    """
    runs = planted({"a": [(50.0, 0.4), (80.0, 0.4)], "b": [(60.0, 0.2), (60.0, 0.2)]})
    (group,) = groups(compared_runs(runs))
    found = {one.method: one.share for one in front(group.runs, np.random.default_rng(1), 4000).standings}
    assert found["b"] == 1
    assert found["a"] == pytest.approx(0.75, abs=0.03)


def test_the_same_generator_gives_the_same_shares() -> None:
    runs = planted({"a": [(50.0, 0.4), (80.0, 0.4), (60.0, 0.1)], "b": [(60.0, 0.2), (70.0, 0.2), (50.0, 0.3)]})
    assert of(runs) == of(runs) == of(runs.sample(frac=1, random_state=3))
    assert of(runs) != of(runs, seed=1)


def test_twins_stand_together() -> None:
    assert dominated({"a": (50.0, 0.1), "b": (50.0, 0.1), "c": (50.0, 0.2), "d": (49.0, 0.1)}) == {
        "a": (),
        "b": (),
        "c": ("a", "b"),
        "d": ("a", "b"),
    }


@settings(deadline=None)
@given(POINTS, st.randoms())
def test_the_front_is_what_it_says(points: dict[str, tuple[float, float]], random: object) -> None:
    by = dominated(points)
    on = {name for name, others in by.items() if not others}
    assert on
    for name, (score, loss) in points.items():
        better = [o for o in on if points[o][0] >= score and points[o][1] <= loss and points[o] != (score, loss)]
        assert bool(better) == (name not in on), "who is not on the front is dominated by one that is"
    names = list(points)
    random.shuffle(names)  # type: ignore[attr-defined]
    assert dominated({name: points[name] for name in names}) == by


def test_one_seed_has_no_shares_and_no_interval() -> None:
    found = of(planted({"a": [(50.0, 0.4)], "b": [(60.0, 0.2)]}))
    assert {one.share for one in found.standings} == {None}
    assert {one.forgetting.high for one in found.standings} == {None}


def test_who_lacks_a_cell_is_left_out_by_name() -> None:
    runs = planted(FOUR)
    runs.loc[(runs["method"] == "ia3") & (runs["seed"] == 1), ["status", "score", "retention_loss_change"]] = (
        "diverged", np.nan, np.nan
    )  # fmt: skip
    runs = pd.concat([runs, pd.DataFrame([run("vera", "emotions", 0)])], ignore_index=True)
    found = of(runs)
    assert [one.method for one in found.standings] == ["full", "lora", "none"]
    assert {name: list(map(str, cells)) for name, cells in found.missing.items()} == {
        "ia3": ["emotions, seed 1: diverged"]
    }


def test_the_section() -> None:
    runs = pd.concat([planted(FOUR), planted(FOUR).assign(model="m2")], ignore_index=True)
    made = study("pareto").section(run_data(runs, curves(runs)))
    assert made is not None
    assert [sheet.title for sheet in made.sheets] == [
        f"{m}, 1000 training rows, cpu-16" for m in ("m2", "qwen2.5-0.5b")
    ]
    text = section_markdown(made)
    assert r"| ia3 | no | lora | 70.0 \[68.0, 72.0\] | +0.400 \[-0.871, +1.671\] |" in text
    assert r"| none | yes | – | 40.0 \[38.0, 42.0\] | +0.000 \[+0.000, +0.000\] | 100 % |" in text
    assert made.data[0]["on_front"] == ["full", "lora", "none"]
    for figure, one in zip(made.figures, made.data, strict=True):
        assert set(FOUR) <= set(texts(figure))
        points = {row["method"]: row for row in data_rows(figure, "on_front")}
        assert [name for name, row in points.items() if row["on_front"] == "yes"] == one["on_front"]
        for standing in one["standings"]:
            row = points[standing["method"]]
            for field, held in (("score", standing["score"]), ("loss", standing["forgetting"])):
                assert [row[f"{field}_{end}"] for end in ("mean", "low", "high")] == [
                    held[end] for end in ("mean", "low", "high")
                ]


def test_without_two_methods_there_is_none() -> None:
    for runs in (table(), planted({"lora": [(50.0, 0.1)]})):
        assert study("pareto").section(run_data(runs, curves(runs))) is None
