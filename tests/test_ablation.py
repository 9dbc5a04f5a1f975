"""Where it pays to adapt: placements against the full one, gains for parameters."""

import re
from itertools import product
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drawn import data_rows, texts
from peftbench.report.tables import section_markdown
from peftbench.results.runs_table import arguments, arguments_text
from peftbench.studies import study
from peftbench.studies._comparable_groups import groups
from peftbench.studies.ablation import Ablation, ablations
from peftbench.studies.study_input import run_data
from synthetic_table import TASKS, curves, run

SEEDS = (0, 1, 2)


def placed(text: str, score: float, parameters: int, method: str = "lora", **changes: Any) -> list[dict[str, Any]]:
    """Runs on all tasks and seeds: one score, seeds a tenth of a point apart."""
    return [
        run(
            method,
            task,
            seed,
            id=f"{method}-{text}-{task}-{seed}",
            **{"method_arguments": text, "score": score + seed / 10, "score_error": 0.1} | changes,
            trainable_parameters=parameters,
        )
        for task, seed in product(TASKS, SEEDS)
    ]


def planted() -> pd.DataFrame:
    rows = placed("", 70.0, 4_000_000) + placed("", 50.0, 0, method="none")
    rows += placed('layers="first-half"', 60.0, 2_000_000) + placed('layers="last-half"', 70.05, 2_000_000)
    rows += placed('modules=["q", "v"]', 72.0, 1_000_000)
    return pd.DataFrame(rows + placed('layers="last-half", modules=["q", "v"]', 66.0, 500_000))


def only(runs: pd.DataFrame) -> Ablation:
    (group,) = groups(runs)
    (one,) = ablations(group.runs)
    return one


def test_by_hand() -> None:
    """None has 50.1 in the mean; half of the layers with 70.15 is a gain of 20.05 for two millions."""
    one = only(planted())
    assert (one.method, one.base, str(one.full)) == ("lora", True, "all: k, v, down")
    found = {str(place): place for place in one.placements}
    assert list(found) == [
        "all: k, v, down",
        "all: q, v",
        "first-half: k, v, down",
        "last-half: k, v, down",
        "last-half: q, v",
    ]
    assert {name: place.verdict for name, place in found.items()} == {
        "all: k, v, down": None,
        "all: q, v": "win",
        "first-half: k, v, down": "loss",
        "last-half: k, v, down": "tie",
        "last-half: q, v": "loss",
    }
    gains = {name: place.per_million and place.per_million.mean for name, place in found.items()}
    assert gains == pytest.approx(dict(zip(found, (5.0, 22.0, 5.0, 10.025, 32.0), strict=True)))
    half = found["last-half: k, v, down"]
    assert half.to_full is not None
    assert half.to_full.mean == pytest.approx(0.05)
    # Three tasks, row errors of both sides, no spread of the differences: 1.96 * sqrt(2 * 0.01 / 3).
    assert half.to_full.sides[1] == pytest.approx(0.16, abs=1e-3)
    assert half.per_million is not None
    assert half.per_million.sides[1] == pytest.approx(0.08, abs=1e-3)
    assert half.score is not None
    assert half.score.mean == pytest.approx(70.15)


def test_without_none_nothing_is_said_for_a_million() -> None:
    runs = planted()
    for lacking in (runs[runs["method"] != "none"], runs[(runs["method"] != "none") | (runs["seed"] != 1)]):
        one = only(lacking)
        assert not one.base
        assert {place.per_million for place in one.placements} == {None}
        made = study("ablation").section(run_data(lacking, curves(lacking)))
        assert made is not None
        assert "Points per million" not in made.sheets[0].headings
        assert "none was not run on all these tasks and seeds" in made.sheets[0].note


def test_a_placement_with_a_gap_is_compared_with_nothing() -> None:
    runs = planted()
    gap = (runs["method_arguments"] == 'layers="first-half"') & (runs["seed"] == 2) & (runs["task"] == "emotions")
    one = only(runs[~gap])
    place = next(place for place in one.placements if place.layers == "first-half")
    assert (place.score, place.per_million, place.to_full, place.verdict) == (None,) * 4
    assert [str(cell) for cell in place.missing] == ["emotions, seed 2: absent"]
    made = study("ablation").section(run_data(runs[~gap], curves(runs)))
    assert made is not None
    where = "lora, qwen2.5-0.5b, 1000 training rows, cpu-16"
    assert made.remarks == (f"{where}: first-half: k, v, down lacks emotions seed 2: absent",)


def test_what_one_placement_alone_was_asked_is_not_compared() -> None:
    """A store holds grids with more tasks and seeds for one of the placements; those cells change nothing."""
    runs = planted()
    alone = pd.DataFrame(placed("", 10.0, 4_000_000)).drop_duplicates("seed").assign(task="elsewhere")
    later = pd.DataFrame(placed("", 10.0, 4_000_000)).assign(seed=lambda rows: rows["seed"] + 100)
    assert only(pd.concat([runs, alone, later], ignore_index=True)) == only(runs)
    tried = alone.assign(method_arguments='layers="first-half"', status="diverged", score=None)
    places = only(pd.concat([runs, alone, tried], ignore_index=True)).placements
    lacking = {str(place): {cell.why for cell in place.missing} for place in places}
    assert lacking["first-half: k, v, down"] == {"diverged"}
    assert lacking["last-half: k, v, down"] == {"absent"}
    assert not lacking["all: k, v, down"]


def test_other_arguments_are_tables_of_their_own() -> None:
    runs = placed("rank=4", 60.0, 1_000) + placed("layers=[0, 3], rank=4", 61.0, 500)
    runs += placed("rank=8", 62.0, 2_000) + placed('layers="first-half", parameters=500', 63.0, 500)
    runs += placed('layers="last-half", parameters=500', 64.0, 500)
    (group,) = groups(pd.DataFrame(runs))
    found = {one.method: [str(p) for p in one.placements] for one in ablations(group.runs)}
    assert found == {
        "lora(parameters=500)": ["first-half: k, v, down", "last-half: k, v, down"],
        "lora(rank=4)": ["all: k, v, down", "0, 3: k, v, down"],
    }
    matched = ablations(group.runs)[0]
    assert matched.full is None
    assert {place.to_full for place in matched.placements} == {None}


def test_the_full_placement_of_several_on_all_layers() -> None:
    texts = ('modules=["q", "v"]', 'modules="all-linear"', "")
    for kept, full in (
        (texts, "all-linear"),
        ((texts[0], texts[2]), "k, v, down"),
        ((texts[0], 'modules="mlp"'), "mlp"),
    ):
        one = only(pd.DataFrame([row for text in kept for row in placed(text, 60.0, 100)]))
        assert one.full is not None
        assert one.full.modules == full


def test_a_method_from_elsewhere_has_default_places() -> None:
    runs = placed("", 60.0, 100, "mine") + placed('layers="last-half"', 61.0, 50, "mine")
    assert [str(place) for place in only(pd.DataFrame(runs)).placements] == ["default: default", "last-half: default"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(['a, b="c', "x=1, y"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=6,
)


@settings(deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z_]{1,6}", fullmatch=True), JSON, max_size=4))
def test_arguments_are_read_as_the_table_writes_them(given: dict[str, Any]) -> None:
    assert arguments(arguments_text(given)) == given


@pytest.mark.parametrize("text", ["rank", "rank=4,alpha=2", "rank=4 alpha=2", "=4"])
def test_other_texts_are_no_arguments(text: str) -> None:
    with pytest.raises(ValueError, match="not arguments"):
        arguments(text)


def test_the_section() -> None:
    runs = pd.concat([planted(), planted().assign(size="all")], ignore_index=True)
    made = study("ablation").section(run_data(runs, curves(runs)))
    assert made is not None
    assert [sheet.title for sheet in made.sheets[:2]] == [
        "lora, qwen2.5-0.5b, 1000 training rows, cpu-16",
        "Layers by modules: lora, qwen2.5-0.5b, 1000 training rows, cpu-16",
    ]
    assert len(made.sheets) == 4
    text = section_markdown(made)
    plain = text.replace("\\", "")
    line = r"\| last-half \| k, v, down \| 70\.1 \[70\.\d, 70\.\d\] \| 2\.00M \| \+10 \[\+9\.9\d*, \+10(\.\d)?\] \| "
    assert re.search(line + r"\+0\.05 \[-0\.1\d*, \+0\.2\d*\] \| not shown to differ \|", plain)
    assert re.search(r"\| first-half \| 60\.1 \[60\.\d, 60\.\d\] \| – \|", plain)
    assert made.data[0]["placements"][3]["verdict"] == "tie"
    for figure in made.figures:
        assert {"all", "first-half", "last-half", "k", "v", "down", "4.00M"} <= set(texts(figure))
        said = {(row["layers"], row["modules"]): row["said"].split("\n") for row in data_rows(figure, "said")}
        assert said == {(line[0], line[1]): [line[2], line[3]] for line in made.sheets[0].lines}


def test_one_placement_is_no_ablation() -> None:
    runs = pd.DataFrame(placed("", 60.0, 100))
    assert study("ablation").section(run_data(runs, curves(runs))) is None
