"""Convergence of learning curves worked by hand, and beside full fine-tuning."""

import math
from itertools import product

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drawn import data_rows, texts
from peftbench.report.tables import section_markdown
from peftbench.studies import study
from peftbench.studies._setting_selection import compared_runs
from peftbench.studies.convergence import Convergence, Pace, convergences, geometric, reached
from peftbench.studies.study_input import run_data
from synthetic_table import run

EVIL = "<script>alert('x')</script>|$x$"
FALLING = (2.0, 1.5, 1.009, 1.0, 1.2)
"""Within 1 % at the third validation, lowest at the fourth."""


def points(losses: tuple[float, ...], every: int = 10) -> list[tuple[float, float, float, float]]:
    """A validation every so many steps, of 100 tokens and 0.5 seconds each."""
    return [(i * every, i * every * 100, i * every * 0.5, loss) for i, loss in enumerate(losses, start=1)]


def test_a_curve_worked_by_hand() -> None:
    found = reached(points(FALLING))
    assert found is not None
    assert found.near == {"steps": 30, "tokens": 3000, "seconds": 15}
    assert found.best == {"steps": 40, "tokens": 4000, "seconds": 20}
    assert (found.loss, found.last) == (1.0, False)


@pytest.mark.parametrize(
    ("losses", "near", "best", "last"),
    [
        ((1.0, 2.0, 3.0), 10, 10, False),
        ((3.0, 2.0, 1.0), 30, 30, True),
        ((2.0, 1.0, 1.0), 20, 20, False),
        ((1.01, 2.0, 1.0), 10, 30, True),
        ((1.011, 2.0, 1.0), 30, 30, True),
        ((1.0,), 10, 10, True),
        ((math.nan, 1.0, math.inf), 20, 20, True),
    ],
)
def test_where_it_is_near_and_where_lowest(losses: tuple[float, ...], near: int, best: int, last: bool) -> None:
    found = reached(points(losses))
    assert found is not None
    assert (found.near["steps"], found.best["steps"], found.last) == (near, best, last)


def test_no_finite_loss_is_no_figure() -> None:
    assert reached([]) is None
    assert reached(points((math.nan, math.inf))) is None


def test_a_geometric_mean_with_its_interval() -> None:
    """Logarithms -1, 0, 1 to the base of 2: mean 0, standard deviation 1, t of 2 degrees of freedom 4.3027."""
    found = geometric([0.5, 1, 2])
    assert found.cells == 3
    assert found.mean == pytest.approx(1)
    half = 4.302653 / math.sqrt(3)
    assert (found.low, found.high) == pytest.approx((2**-half, 2**half), rel=1e-6)
    assert geometric([3]).low is None
    assert geometric([3]).mean == pytest.approx(3)
    with pytest.raises(ValueError, match="at least one"):
        geometric([])


# Beside full fine-tuning


def grid(pace: dict[str, int], validations: int = 5, **changes: object) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs whose curves have a validation every so many steps, by method; the second task takes twice as long."""
    runs, held = [], []
    for (method, every), (slow, task), seed in product(pace.items(), enumerate(("cb", "qa"), start=1), (0, 1)):
        row = run(method, task, seed) | changes
        row["id"] = f"{method}-{task}-{seed}-{row['size']}-{row['model']}"
        runs.append(row)
        losses = FALLING[:validations]
        held += [(row["id"], *point[:3], 1.0, point[3]) for point in points(losses, every * slow)]
    names = ["id", "step", "tokens", "seconds", "train_loss", "validation_loss"]
    return pd.DataFrame(runs), pd.DataFrame(held, columns=names)


def paces(found: Convergence) -> dict[str, Pace]:
    return {pace.method: pace for pace in found.paces}


def only(runs: pd.DataFrame, curves: pd.DataFrame) -> Convergence:
    (found,) = convergences(compared_runs(runs), curves)
    return found


def test_ratios_are_paired_by_cell() -> None:
    found = only(*grid({"full": 10, "lora": 30, "ia3": 5}))
    assert (found.full, found.size, found.validations) == ("full", "1000", (5, 5))
    assert [pace.method for pace in found.paces] == ["ia3", "full", "lora"], "by the steps to come near"
    held = paces(found)
    for method, ratio in (("full", 1), ("lora", 3), ("ia3", 0.5)):
        for key in product(("near", "best"), ("steps", "tokens", "seconds")):
            mean = held[method].ratios[key]
            assert (mean.mean, mean.low, mean.high) == pytest.approx((ratio,) * 3), "the same in every cell"
    # 30 steps of cb and 60 of qa, each twice: √(30 · 60).
    assert held["full"].taken["near", "steps"] == pytest.approx(math.sqrt(1800))
    assert (held["lora"].runs, held["lora"].still) == (4, 0)
    assert held["lora"].loss is not None
    assert held["lora"].loss.mean == pytest.approx(1)


def test_the_interval_holds_the_spread_over_cells() -> None:
    runs, curves = grid({"full": 10, "lora": 10})
    slow = curves["id"].str.startswith("lora-qa")
    curves.loc[slow, "seconds"] *= 4
    ratio = paces(only(runs, curves))["lora"].ratios["near", "seconds"]
    assert ratio == geometric([1, 1, 4, 4])
    assert ratio.mean == pytest.approx(2)
    assert paces(only(runs, curves))["lora"].ratios["near", "steps"].high == pytest.approx(1)


def test_runs_that_were_still_improving_are_counted_and_make_bounds() -> None:
    runs, curves = grid({"full": 10, "lora": 10, "ia3": 10})
    ends = curves.groupby("id")["step"].transform("max") == curves["step"]
    curves.loc[ends & curves["id"].str.startswith("lora-cb"), "validation_loss"] = 0.9
    found = only(runs, curves)
    assert {name: pace.still for name, pace in paces(found).items()} == {"full": 0, "lora": 2, "ia3": 0}
    section = study("convergence").section(run_data(runs, curves))
    assert section is not None
    lines = {line[0]: line for line in section.sheets[0].lines}
    assert lines["lora"][2] == "≥ 1.29 (0.81 to 2.06)", "5 validations to 3 in two of four cells: √(5/3)"
    assert lines["ia3"][2] == "1.00 (1.00 to 1.00)"
    assert "5 validations per run; 2 of 12 runs were still improving when training ended." in section.remarks[0]
    curves.loc[ends & curves["id"].str.startswith("full"), "validation_loss"] = 0.9
    again = study("convergence").section(run_data(runs, curves))
    assert again is not None
    marks = {line[0]: line[2][:2] for line in again.sheets[0].lines}
    assert marks == {"lora": "? ", "ia3": "≤ "}


def test_a_method_that_lacks_a_cell_is_named_and_not_averaged() -> None:
    runs, curves = grid({"full": 10, "lora": 30, "ia3": 5, "dora": 5})
    runs.loc[runs["id"].str.startswith("lora-qa-1"), "status"] = "diverged"
    runs = runs[~runs["id"].str.startswith("ia3-cb-0")]
    curves = curves[~curves["id"].str.startswith("dora-cb-1")]
    held = paces(only(runs, curves))
    lacks = {name: list(map(str, pace.missing)) for name, pace in held.items() if pace.missing}
    assert lacks == {
        "lora": ["qa, seed 1: diverged"],
        "ia3": ["cb, seed 0: absent"],
        "dora": ["cb, seed 1: no learning curve"],
    }
    assert all(not held[name].ratios and not held[name].runs for name in lacks)
    section = study("convergence").section(run_data(runs, curves))
    assert section is not None
    assert any(remark.endswith("lora lacks qa seed 1: diverged") for remark in section.remarks)


def test_cells_that_full_lacks_are_not_compared() -> None:
    runs, curves = grid({"full": 10, "lora": 30})
    runs = runs[~runs["id"].str.startswith("full-qa")]
    held = paces(only(runs, curves))
    assert (held["full"].runs, held["lora"].runs) == (2, 2)
    assert list(map(str, held["full"].missing)) == ["qa, seed 0: absent", "qa, seed 1: absent"]
    assert held["lora"].taken["near", "steps"] == pytest.approx(90)
    without = only(runs[runs["method"] != "full"], curves)
    assert without.full is None
    assert paces(without)["lora"].ratios == {}
    assert paces(without)["lora"].runs == 4
    section = study("convergence").section(run_data(runs[runs["method"] != "full"], curves))
    assert section is not None
    assert section.figures == ()
    assert "there are no runs of full fine-tuning" in section.remarks[0]


def test_coarse_curves_and_methods_that_train_nothing_are_not_shown() -> None:
    runs, curves = grid({"full": 10, "lora": 30}, validations=4)
    assert convergences(compared_runs(runs), curves) == ()
    assert study("convergence").section(run_data(runs, curves)) is None
    runs, curves = grid({"full": 10, "none": 10})
    curves = curves[~curves["id"].str.startswith("none")]
    assert set(paces(only(runs, curves))) == {"full"}
    assert paces(only(runs, curves))["full"].missing == ()


def test_a_run_that_stopped_early_counts_though_its_curve_is_short() -> None:
    runs, curves = grid({"full": 10, "lora": 10})
    curves = curves[~curves["id"].str.startswith("lora") | (curves["validation_loss"] != 1.2)]
    found = only(runs, curves)
    assert found.validations == (4, 5)
    assert paces(found)["lora"].runs == 4


def test_it_does_not_depend_on_the_order_of_the_rows() -> None:
    runs, curves = grid({"full": 10, "lora": 30})
    expected = convergences(compared_runs(runs), curves)

    @settings(deadline=None, max_examples=10)
    @given(st.permutations(range(len(runs))), st.permutations(range(len(curves))))
    def any_order(order: list[int], other: list[int]) -> None:
        assert convergences(compared_runs(runs.iloc[order]), curves.iloc[other]) == expected

    any_order()


def test_the_section_shows_every_model_and_size_and_escapes_names() -> None:
    made = [
        grid({"full": 10, EVIL: 30}, model=model, size=size) for model, size in product(("m1", "m2"), ("100", "1000"))
    ]
    runs, curves = (pd.concat(held, ignore_index=True) for held in zip(*made, strict=True))
    (section,) = (each for each in run_data(runs, curves).sections if each.name == "convergence")
    assert [sheet.title for sheet in section.sheets] == [
        f"{model}, cpu-16: {what}"
        for model in ("m1", "m2")
        for what in ("multiples of full fine-tuning", "what training took")
    ]
    assert all(len(line) == len(sheet.headings) for sheet in section.sheets for line in sheet.lines)
    assert [line[:3] for line in section.sheets[0].lines] == [
        (EVIL, "100", "3.00 (3.00 to 3.00)"),
        (EVIL, "1000", "3.00 (3.00 to 3.00)"),
    ]
    assert len(section.figures) == 2
    for figure in section.figures:
        assert {EVIL, "100 rows", "1000 rows", "Steps", "Seconds"} <= set(texts(figure))
        steps = [row for row in data_rows(figure, "mean") if row["measure"] == "Steps"]
        assert [(row["method"], round(row["mean"], 6), round(row["high"], 6)) for row in steps] == [(EVIL, 3, 3)] * 2
    assert EVIL not in section_markdown(section)
    assert section.data[0]["seconds_to_near"] > 0
