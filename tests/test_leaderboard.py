"""Leaderboards: ties, equal cells, costs of one machine class, labels."""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftbench.core.registry import UnknownNameError
from peftbench.studies._pscp_weights import SETS, weight_set
from peftbench.studies._run_labels import method_labels
from peftbench.studies.leaderboard import Leaderboard, LeaderboardRow, leaderboards
from peftbench.studies.pscp import penalised_score
from peftbench.studies.study_input import run_data
from synthetic_table import TASKS, run, table

CURVE = ["id", "step", "tokens", "seconds", "train_loss", "validation_loss"]


def only(runs: pd.DataFrame, pool_machines: bool = False) -> Leaderboard:
    boards = leaderboards(runs, pool_machines)
    assert len(boards) == 1
    return boards[0]


def rows(board: Leaderboard) -> Mapping[str, LeaderboardRow]:
    return {row.method: row for row in board.rows}


def planted(means: Mapping[str, Sequence[float]], error: float = 0.5, **changes: object) -> pd.DataFrame:
    """Runs of each method on all tasks, a score for each seed."""
    return pd.DataFrame(
        run(method, task, seed, score=score, score_error=error, **changes)
        for (method, scores), task in product(means.items(), TASKS)
        for seed, score in enumerate(scores)
    )


def test_methods_that_do_not_differ_are_tied() -> None:
    found = rows(only(planted({"lora": (80, 80.4), "dora": (80.2, 80), "ia3": (70, 70.2), "vera": (60, 61)})))
    assert [(row.method, row.rank, row.tied_with) for row in found.values()] == [
        ("lora", 1, ("dora",)),
        ("dora", 1, ("lora",)),
        ("ia3", 3, ()),
        ("vera", 4, ()),
    ]
    assert found["ia3"].beaten_by == ("dora", "lora")


@pytest.mark.slow
def test_rows_that_methods_share_are_paired_where_results_have_their_scores() -> None:
    """Five methods right on the same 80 of 100 rows, but for one that is wrong on 14 of them."""
    right = {f"m{i}": [100.0] * 80 + [0.0] * 20 for i in range(5)}
    right["m4"] = [0.0] * 14 + [100.0] * 66 + [0.0] * 20
    runs = pd.DataFrame(
        run(method, "emotions", seed, score=sum(own) / 100, score_error=4.0, row_scores=np.array(own))
        for method, own in right.items()
        for seed in (0, 1, 2)
    )
    found, bare = rows(only(runs)), rows(only(runs.drop(columns="row_scores")))
    assert [found[m].tied_with for m in ("m0", "m4")] == [("m1", "m2", "m3"), ()]
    assert bare["m4"].tied_with == ("m0", "m1", "m2", "m3")
    assert found["m4"].mean == bare["m4"].mean
    remarks = [
        next(s for s in run_data(table, runs[:0].reindex(columns=CURVE)).sections if s.name == "verdicts").remarks
        for table in (
            runs,
            runs.drop(columns="row_scores"),
            runs.assign(row_scores=pd.Series([None, *runs["row_scores"][1:]], dtype=object)),
        )
    ]
    assert not any("no scores per test row" in remark for remark in remarks[0])
    assert any("15 runs have no scores per test row" in remark for remark in remarks[1])
    assert any("1 run has no scores per test row" in remark for remark in remarks[2])


def test_a_wide_row_error_makes_everything_a_tie() -> None:
    assert {row.rank for row in only(planted({"lora": (80, 80.4), "ia3": (70, 70.2)}, error=20)).rows} == {1}


def test_without_row_errors_nothing_is_said_to_be_better() -> None:
    board = only(planted({"lora": (80, 80), "ia3": (70, 70)}, error=float("nan")))
    assert [(row.rank, row.mean and row.mean.low) for row in board.rows] == [(1, None), (1, None)]


def test_one_seed_is_compared_by_its_rows_and_says_so() -> None:
    board = only(planted({"lora": (80,), "ia3": (70,)}))
    assert [row.rank for row in board.rows] == [1, 2]
    assert all(row.mean and row.mean.seeds == 1 for row in board.rows)


def test_a_method_without_all_cells_is_not_averaged() -> None:
    found = rows(only(table()))
    diverged, absent = found["prefix-tuning"], found["vera"]
    for row in (diverged, absent):
        assert (row.rank, row.mean, row.tied_with, row.costs["train_seconds"]) == (None, None, (), None)
        gaps = "; ".join(map(str, row.missing))
        assert {score.reason for score in row.pscp.values()} == {f"not scored on every cell: {gaps}"}
    assert list(map(str, diverged.missing)) == ["arithmetic, seed 1: diverged (loss is not finite at step 41)"]
    assert list(map(str, absent.missing)) == ["emotions, seed 1: absent"]
    assert "emotions" not in absent.scores
    assert list(found)[-2:] == ["prefix-tuning", "vera"]
    assert all("vera" not in row.tied_with + row.beaten_by for row in found.values())


def test_two_runs_of_one_cell_are_not_averaged_either() -> None:
    runs = pd.concat([planted({"lora": (80, 81), "ia3": (70, 71)}), pd.DataFrame([run("lora", "emotions", 0)])])
    found = rows(only(runs))
    assert [str(cell) for cell in found["lora"].missing] == ["emotions, seed 0: 2 runs for one cell, select one"]
    assert found["ia3"].rank == 1


def test_a_failed_try_beside_a_good_run_does_not_matter() -> None:
    again = run("lora", "emotions", 0, status="failed", score=float("nan"), error="worker died")
    found = rows(only(pd.concat([planted({"lora": (80, 81)}), pd.DataFrame([again])])))
    assert found["lora"].missing == ()


def test_a_good_run_without_a_score_says_why() -> None:
    unscored = run("ia3", "emotions", 0, score=float("nan"), error="no program is run")
    found = rows(only(pd.concat([planted({"lora": (80, 81)}), pd.DataFrame([unscored])])))
    assert "emotions, seed 0: no score (no program is run)" in map(str, found["ia3"].missing)


def test_cells_that_no_method_has_count_for_nothing() -> None:
    failed = [run("lora", "qa", 0, status="out-of-memory", score=float("nan"), error=None)]
    board = only(pd.concat([planted({"lora": (80, 81)}), pd.DataFrame(failed)]))
    assert board.rows[0].rank == 1
    assert [str(cell) for cell in board.unscored] == ["qa, seed 0: out-of-memory"]
    nothing = only(pd.DataFrame(failed))
    assert (nothing.rows[0].rank, nothing.rows[0].mean, nothing.tasks) == (None, None, {})


def test_mixed_machine_classes_are_compared_by_score_alone() -> None:
    runs = pd.concat([planted({"lora": (80, 81)}), planted({"ia3": (70, 71)}, machine_class="h200")])
    assert [board.machine_classes for board in leaderboards(runs)] == [("cpu-16",), ("h200",)]
    board = only(runs, pool_machines=True)
    assert board.costs_refused == "costs of different machine classes: cpu-16, h200"
    assert [(row.method, row.rank) for row in board.rows] == [("lora", 1), ("ia3", 2)]
    for row in board.rows:
        assert row.costs["train_seconds"] is row.costs["peak_memory_bytes"] is None
        assert row.costs["trainable_parameters"] is not None
        assert {score.reason for score in row.pscp.values()} == {board.costs_refused}


def test_pscp_takes_the_highest_memory_and_the_models_own_full_fine_tuning() -> None:
    runs = planted({"full": (80, 80), "lora": (78, 78)})
    runs.loc[(runs["method"] == "lora") & (runs["task"] == "emotions"), "peak_memory_bytes"] = 4e9
    found = rows(only(runs))
    costs = {"trainable_parameters": 4_399_104.0, "extra_forward_tflops": 0.0, "peak_memory_gb": 4.0}
    reference = {"trainable_parameters": 494_032_768.0, "extra_forward_tflops": 0.51, "peak_memory_gb": 9.0}
    assert found["lora"].pscp["paper"].value == pytest.approx(penalised_score(78, costs))
    assert found["lora"].pscp["relative"].value == pytest.approx(penalised_score(78, costs, "relative", reference))
    assert found["full"].pscp["relative"].value == pytest.approx(20)


@pytest.mark.parametrize(
    ("changes", "weights", "reason"),
    [
        ({}, "relative", "full fine-tuning of this model was not run on this machine class"),
        ({"peak_memory_bytes": None}, "paper", "costs lack peak_memory_gb"),
        ({"extra_forward_flops_512": -1e9}, "paper", "extra_forward_tflops is -0.001"),
        ({"score": -2.0}, "paper", "score -2 is outside 0 to 100"),
    ],
)
def test_a_pscp_that_cannot_be_had_says_why(changes: dict[str, object], weights: str, reason: str) -> None:
    runs = pd.DataFrame(run("lora", task, 0, **changes) for task in TASKS)
    score = only(runs).rows[0].pscp[weights]
    assert score.value is None
    assert reason in (score.reason or "")


def test_full_fine_tuning_must_have_the_tasks() -> None:
    runs = pd.concat([planted({"lora": (80, 81)}), planted({"full": (80, 81)}).query("task != 'emotions'")])
    assert rows(only(runs))["lora"].pscp["relative"].reason == "full fine-tuning has no run of emotions"


def test_arguments_are_in_the_label_only_where_needed() -> None:
    ranks = [planted({"lora": (80, 81)}, method_arguments=f"rank={rank}" if rank else "") for rank in (0, 4, 16)]
    found = rows(only(pd.concat([*ranks, planted({"ia3": (70, 71)}, method_arguments="dropout=0.1")])))
    assert set(found) == {"lora", "lora(rank=4)", "lora(rank=16)", "ia3"}


def test_one_leaderboard_per_model_size_and_machine_class() -> None:
    grid = product(("m1", "m2"), ("1000", "100", "all"))
    runs = pd.concat([planted({"lora": (80, 81)}, model=model, size=size) for model, size in grid])
    runs["size"] = [100 if size == "100" else size for size in runs["size"]]
    order = ["100", "1000", "all"]
    assert [(b.model, b.size) for b in leaderboards(runs)] == [*product(("m1",), order), *product(("m2",), order)]


def test_it_does_not_depend_on_the_order_of_the_runs() -> None:
    runs = timed(table())
    boards = leaderboards(runs)
    assert {name for row in boards[0].rows if row.rank for name in row.pscp if row.pscp[name].value} == set(SETS)
    assert boards[0].sensitivity

    @settings(deadline=None, max_examples=5)
    @given(st.permutations(range(len(runs))))
    def any_order(order: list[int]) -> None:
        assert leaderboards(runs.iloc[order]) == boards

    any_order()


# PSCP: of every weight set, over equal cells of one machine class, or not at all


def timed(runs: pd.DataFrame) -> pd.DataFrame:
    """With a latency of each run: 20 ms and 4 for each letter of the method's name."""
    return runs.assign(latency_ms=20.0 + 4 * runs["method"].str.len())


def test_the_exponential_form_takes_the_highest_of_the_methods_compared() -> None:
    runs = timed(pd.concat([planted({"lora": (80, 80), "ia3": (70, 70)}), planted({"vera": (60, 60)}).iloc[1:]]))
    runs.loc[runs["method"] == "lora", "peak_memory_bytes"] = 4e9
    board = only(runs.assign(latency_ms=runs["latency_ms"].where(runs["seed"] == 0, runs["latency_ms"] + 2)))
    highest = {"trainable_parameters": 4_399_104.0, "latency_ms": 37.0, "peak_memory_gb": 4.0}
    assert board.constants["exponential"] == highest
    found = rows(board)
    # All three costs of lora are the highest: 80 · exp(-3).
    assert found["lora"].pscp["exponential"].value == pytest.approx(80 * math.exp(-3))
    memory = (found["ia3"].costs["peak_memory_bytes"] or 0) / 1e9
    share = 147_456 / 4_399_104 + 33 / 37 + memory / 4
    assert found["ia3"].pscp["exponential"].value == pytest.approx(70 * math.exp(-share))
    assert (found["vera"].pscp["exponential"].reason or "").startswith("not scored on every cell: ")


def test_a_latency_that_was_not_measured_says_how_to_measure_it() -> None:
    runs = planted({"lora": (80, 80), "ia3": (70, 70)})
    reason = "costs lack latency_ms: latency = true under [eval] of a grid measures it"
    for held in (runs, runs.assign(latency_ms=None)):
        board = only(held)
        assert {row.pscp["exponential"].reason for row in board.rows} == {reason}
        assert all(row.pscp["paper"].value for row in board.rows)
    half = rows(only(timed(runs).assign(latency_ms=lambda t: t["latency_ms"].where(t["method"] == "ia3"))))
    assert half["lora"].pscp["exponential"].reason == reason
    assert half["ia3"].pscp["exponential"].value == pytest.approx(70 * math.exp(-3))


def test_methods_that_cost_nothing_lose_nothing() -> None:
    runs = planted({"none": (40, 40)}, trainable_parameters=0, peak_memory_bytes=0.0)
    row = only(runs.assign(latency_ms=0.0)).rows[0]
    assert row.mean is not None
    assert row.pscp["exponential"].value == row.mean.mean


def test_own_weights_in_place_of_the_named_ones() -> None:
    mine = {"name": "mine", "version": 2, "peak_memory_gb": (1.0, 1.0)}
    (board,) = leaderboards(planted({"lora": (80, 80), "ia3": (70, 70)}, peak_memory_bytes=3e9), weights=[mine])
    assert [str(weights) for weights in board.weights] == ["mine v2"]
    assert [{name: score.value for name, score in row.pscp.items()} for row in board.rows] == [
        {"mine": pytest.approx(20)},
        {"mine": pytest.approx(17.5)},
    ]
    assert list(board.to_frame()["weights"]) == ["mine v2"] * 2
    held = json.loads(json.dumps(board.to_dict(), allow_nan=False))
    assert held["weights"][0]["version"] == 2
    assert held["sensitivity"][0]["spans"] == [{"low": 0.0, "high": 3.0, "winners": ["lora"]}]
    with pytest.raises(UnknownNameError, match="did you mean 'paper'"):
        leaderboards(table(), weights=["papr"])


@pytest.mark.parametrize("weights", SETS)
def test_pscp_is_missing_where_cells_are_missing_or_machines_are_mixed(weights: str) -> None:
    runs = timed(table())
    scores = {row.method: row.pscp[weights].value for row in only(runs).rows}
    assert {method for method, value in scores.items() if value is None} == {"prefix-tuning", "vera"}
    mixed = runs.assign(machine_class=runs["machine_class"].where(runs["method"] != "ia3", "h200"))
    (board,) = leaderboards(mixed, pool_machines=True)
    assert board.costs_refused == "costs of different machine classes: cpu-16, h200"
    assert all(row.pscp[weights].value is None for row in board.rows)


@settings(deadline=None, max_examples=8)
@given(st.sampled_from(SETS), st.sampled_from(["trainable_parameters", "peak_memory_bytes", "latency_ms"]))
def test_a_leaderboard_with_a_dearer_method_does_not_score_it_higher(weights: str, cost: str) -> None:
    runs = timed(planted({"full": (80, 80), "lora": (78, 78), "ia3": (70, 70)}))
    dearer = runs.assign(**{cost: runs[cost].where(runs["method"] != "ia3", runs[cost] * 1.5)})
    before, after = (
        next(row.pscp[weights].value for row in only(each).rows if row.method == "ia3") for each in (runs, dearer)
    )
    assert before is not None
    assert after is not None
    weighed = {"peak_memory_bytes": "peak_memory_gb"}.get(cost, cost) in weight_set(weights).terms
    assert after < before if weighed else after == before


def test_frame_and_dict_hold_the_same() -> None:
    board = only(table())
    held = json.loads(json.dumps(board.to_dict(), allow_nan=False))
    frame = board.to_frame()
    assert [row["method"] for row in held["rows"]] == list(frame["method"])
    assert held["rows"][0]["mean"]["low"] == frame["mean_low"][0]
    assert held["rows"][0]["pscp"]["paper"]["value"] == frame["pscp_paper"][0]
    assert frame["mean"].isna().tolist() == [row["mean"] is None for row in held["rows"]]


@pytest.mark.parametrize(
    ("column", "board"),
    [("model_version", 0), ("evaluation", 0), ("fingerprint", 1), ("task_version", 1), ("task_arguments", 1)],
)
def test_what_differs_is_not_mixed(column: str, board: int) -> None:
    """Runs of another version, other data or another way of testing are other models or tasks, never other seeds."""
    runs = pd.concat([planted({"lora": (80, 81)}), planted({"lora": (60, 61)}).assign(**{column: "other"})])
    boards = leaderboards(runs)
    if board == 0:
        assert sorted(found.model for found in boards) == names(runs, column)
    else:
        (found,) = boards
        assert len(found.tasks) == 2 * len(TASKS)


def names(runs: pd.DataFrame, column: str) -> list[str]:
    return sorted(f"qwen2.5-0.5b [{value}]" for value in set(runs[column]))


def test_a_failed_run_without_data_is_of_the_same_task() -> None:
    runs = planted({"lora": (80, 81), "ia3": (70, 71)})
    runs.loc[0, ["status", "fingerprint", "score"]] = ["failed", None, None]
    assert set(only(runs).tasks) == set(TASKS)


def test_only_arguments_that_differ_are_in_the_label() -> None:
    texts = ["alpha=32, rank=4", 'alpha=32, layers="first-half", rank=4', "alpha=32, layers=[0, 1], rank=4", "alpha=32"]
    table = pd.DataFrame({"method": ["lora"] * 4 + ["ia3"], "method_arguments": [*texts, "alpha=1"]})
    assert list(method_labels(table)) == [
        "lora(rank=4)",
        'lora(layers="first-half", rank=4)',
        "lora(layers=[0, 1], rank=4)",
        "lora",
        "ia3",
    ]
    published = pd.DataFrame({"method": ["lora"] * 2, "method_arguments": ["as in the paper", ""]})
    assert list(method_labels(published)) == ["lora(as in the paper)", "lora"]
