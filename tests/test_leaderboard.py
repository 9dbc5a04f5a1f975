"""Leaderboards: ties, equal cells, costs of one machine class, labels."""

import json
from collections.abc import Mapping, Sequence
from itertools import product

import pandas as pd
import pytest

from peftbench.analysis.leaderboard import Leaderboard, Row, leaderboards
from peftbench.analysis.pscp import pscp
from synthetic_table import TASKS, run, table


def only(runs: pd.DataFrame, pool_machines: bool = False) -> Leaderboard:
    boards = leaderboards(runs, pool_machines)
    assert len(boards) == 1
    return boards[0]


def rows(board: Leaderboard) -> Mapping[str, Row]:
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
    assert [str(cell) for cell in found["lora"].missing] == ["emotions, seed 0: 2 runs of one cell, select one"]
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
    assert found["lora"].pscp["paper"].value == pytest.approx(pscp(78, costs))
    assert found["lora"].pscp["relative"].value == pytest.approx(pscp(78, costs, "relative", reference))
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
    assert leaderboards(table()) == leaderboards(table().sample(frac=1, random_state=1))


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
