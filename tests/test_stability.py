"""Spread over seeds, the worst seed, runs that came to nothing."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from drawn import data_rows, texts
from peftbench.report.tables import section_markdown
from peftbench.studies import study
from peftbench.studies._comparable_groups import groups
from peftbench.studies._setting_selection import compared_runs
from peftbench.studies.presentation_blocks import Section
from peftbench.studies.stability import Spread, Stability, Worst, pooled_spread, stability
from peftbench.studies.study_input import run_data
from synthetic_table import curves, run, table

NAN = float("nan")


def planted() -> pd.DataFrame:
    """LoRA on two tasks with three seeds, of which one failed and two are at chance; IA3 never moves."""
    scores = {
        ("lora", "emotions"): (50.0, 54.0, 46.0),
        ("lora", "arithmetic"): (10.0, 12.0, 11.0),
        ("ia3", "emotions"): (40.0, 40.0, 40.0),
        ("ia3", "arithmetic"): (20.0, 20.0, NAN),
    }
    rows = []
    for (method, task), held in scores.items():
        for seed, score in enumerate(held):
            ended = {"status": "diverged", "error": "loss"} if math.isnan(score) else {}
            chance = 45.0 if task == "emotions" else None
            rows.append(run(method, task, seed, score=score, score_error=1.0, chance=chance, **ended))
    return pd.DataFrame(rows)


def found(runs: pd.DataFrame) -> dict[str, Stability]:
    (group,) = groups(compared_runs(runs))
    return {one.method: one for one in stability(group.runs)}


def shown(runs: pd.DataFrame) -> Section | None:
    return study("stability").section(run_data(runs, curves(runs)))


def test_by_hand() -> None:
    """Variances 16 and 1, two degrees of freedom each: 34 / 4. Means of the seeds 30, 33 and 28.5."""
    lora = found(planted())["lora"]
    assert lora.spread is not None
    assert lora.spread.df == 4
    assert lora.spread.sd == pytest.approx(math.sqrt(8.5))
    # Quantiles of chi-square with four degrees of freedom, from a printed table.
    assert lora.spread.low == pytest.approx(math.sqrt(34 / 11.143), abs=1e-3)
    assert lora.spread.high == pytest.approx(math.sqrt(34 / 0.484), abs=5e-3)
    assert lora.worst is not None
    assert (lora.worst.seed, lora.worst.mean) == (2, 28.5)
    assert lora.worst.below == pytest.approx(2.0)
    # Of emotions 46 and 45 + 1.645 are compared; arithmetic has no chance known.
    assert (lora.judged, lora.at_chance) == (3, 1)


def test_runs_without_a_score_count() -> None:
    ia3 = found(planted())["ia3"]
    assert ia3.spread == Spread(0.0, 0.0, 0.0, 3)
    assert ia3.worst == Worst(0, 30.0, 0.0)
    assert (ia3.runs, ia3.ended) == (6, {"diverged": 1, "ok": 5})
    assert (ia3.judged, ia3.at_chance) == (3, 3)


def test_one_seed_has_no_spread() -> None:
    one = found(planted().query("seed == 0"))["lora"]
    assert (one.spread, one.worst) == (None, None)
    assert pooled_spread([[1.0], []]) is None


def test_95_percent_intervals_cover_the_truth() -> None:
    """Five tasks of other means, three seeds each, a spread of 2 points."""
    rng = np.random.default_rng(5)
    inside = 0
    for _ in range(2000):
        cells = rng.normal(rng.uniform(0, 90, (5, 1)), 2.0, (5, 3))
        held = pooled_spread(cells.tolist())
        assert held is not None
        inside += held.low <= 2.0 <= held.high
    assert 0.935 <= inside / 2000 <= 0.965


@settings(deadline=None)
@given(st.lists(st.floats(0, 100), min_size=2, max_size=9), st.floats(-50, 50))
def test_of_one_cell_it_is_the_sample_deviation_wherever_it_lies(scores: list[float], shift: float) -> None:
    held, moved = pooled_spread([scores]), pooled_spread([[score + shift for score in scores]])
    assert held is not None
    assert moved is not None
    assert held.sd == pytest.approx(np.std(scores, ddof=1), abs=1e-6)
    assert moved.sd == pytest.approx(held.sd, abs=1e-6)
    factor = math.sqrt(held.df / scipy_stats.chi2.ppf(0.975, held.df))
    assert held.low == pytest.approx(held.sd * factor)


def test_the_section_stands_from_three_seeds_on() -> None:
    assert shown(table()) is None
    made = shown(planted())
    assert made is not None
    text = section_markdown(made)
    assert "| ia3 | 0.00 | 0.00 to 0.00 | 0 | 30.0 | 0.0 | 6 | 1 of 6 (17 %) | 3 of 3 (100 %) |" in text
    assert "| lora | 2.92 | 1.75 to 8.38 | 2 | 28.5 | 2.0 | 6 | 0 of 6 (0 %) | 1 of 3 (33 %) |" in text
    assert made.data[0]["methods"][1]["worst"] == {"seed": 2, "mean": 28.5, "below": pytest.approx(2.0)}


def test_a_sheet_and_a_figure_for_each_group() -> None:
    several = pd.concat([planted(), planted().assign(model="m2"), planted().assign(size="all")], ignore_index=True)
    made = shown(several)
    assert made is not None
    assert [sheet.title for sheet in made.sheets] == [
        "m2, 1000 training rows, cpu-16",
        "qwen2.5-0.5b, 1000 training rows, cpu-16",
        "qwen2.5-0.5b, all training rows, cpu-16",
    ]
    assert [figure.title for figure in made.figures] == [f"Every seed of {sheet.title}" for sheet in made.sheets]
    for figure in made.figures:
        assert {"lora", "ia3", "emotions", "arithmetic"} <= set(texts(figure))
        points = [row for row in data_rows(figure, "score") if (row["method"], row["panel"]) == ("lora", "emotions")]
        assert {row["seed"]: row["score"] for row in points} == {0: 50.0, 1: 54.0, 2: 46.0}
        assert {row["chance"] for row in points} == {45.0}
        assert {row["chance"] for row in data_rows(figure) if row["panel"] == "arithmetic"} == {None}


def test_many_tasks_are_drawn_as_their_mean() -> None:
    runs = [run("lora", f"t{task}", seed, score=10.0 * task + seed) for task in range(8) for seed in range(3)]
    made = shown(pd.DataFrame(runs))
    assert made is not None
    (figure,) = made.figures
    assert "Mean over the tasks" in texts(figure)
    assert [row["score"] for row in data_rows(figure, "score")] == [35.0, 36.0, 37.0]


def test_the_order_of_the_rows_makes_no_difference() -> None:
    runs = planted()
    assert found(runs) == found(runs.sample(frac=1, random_state=1))
