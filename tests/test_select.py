"""Training settings are chosen by validation, one for all seeds, never by test score."""

import itertools

import pandas as pd
import pytest

from peftbench.report.tables import board_remarks
from peftbench.studies._run_labels import CELL, distinct
from peftbench.studies._setting_selection import compared_runs, select
from peftbench.studies.convergence import convergences
from peftbench.studies.leaderboard import leaderboards
from peftbench.studies.tuning_trials import searches
from synthetic_table import run


def planted(means: dict[str, tuple[float, ...]]) -> pd.DataFrame:
    """Runs of each method on one task, a score for each seed."""
    return pd.DataFrame(
        [
            run(m, "emotions", seed, score=float(score))
            for m, scores in means.items()
            for seed, score in enumerate(scores)
        ]
    )


def swept(losses: dict[str, tuple[float, ...]], scores: dict[str, tuple[float, ...]]) -> pd.DataFrame:
    """One method on one task: setting to validation losses and test scores, one for each seed."""
    parts = []
    for setting, values in scores.items():
        runs = planted({"lora": values})
        parts.append(runs.assign(training=setting, validation_loss=losses[setting], id=runs["id"] + setting))
    return pd.concat(parts, ignore_index=True)


def test_the_lowest_mean_validation_loss_wins_for_all_seeds() -> None:
    runs = swept({"a": (1.0, 3.0), "b": (2.5, 1.0)}, {"a": (90, 90), "b": (50, 50)})
    chosen = select(runs)
    # Seed by seed the choice would be mixed, and by test score it would be a.
    assert list(chosen["training"]) == ["b", "b"]
    assert set(chosen["trials"]) == {2}


def test_a_setting_that_lacks_a_seed_is_not_chosen() -> None:
    runs = swept({"a": (1.0, float("nan")), "b": (2.5, 2.5)}, {"a": (90, 90), "b": (50, 50)})
    assert list(select(runs)["training"]) == ["b", "b"]


def test_one_setting_is_left_alone() -> None:
    runs = planted({"lora": (80, 81), "ia3": (70, 71)})
    pd.testing.assert_frame_equal(select(runs).drop(columns="trials"), runs)
    assert not runs.duplicated([*CELL, "seed"]).any()


def test_the_leaderboard_says_so_and_says_when_trials_were_unequal() -> None:
    runs = swept({"a": (1.0, 1.0), "b": (2.0, 2.0)}, {"a": (60, 61), "b": (80, 81)})
    (board,) = leaderboards(runs)
    assert board.rows[0].mean is not None
    assert board.rows[0].mean.mean == 60.5
    assert any("2 for each method" in said for said in board_remarks(board))
    (board,) = leaderboards(pd.concat([runs, planted({"ia3": (70, 71)})], ignore_index=True))
    assert any("unequal numbers: 1 for ia3, 2 for lora" in said for said in board_remarks(board))


@pytest.mark.parametrize("name", ["max_length", "validation_rows"])
def test_settings_that_change_what_is_validated_are_never_chosen_among(name: str) -> None:
    """The lower loss is over other text: each setting has a row, in which learning rates are still chosen among."""
    short, long = f"{name}=64", f"{name}=128"
    settings = [f"learning_rate={rate}, {length}" for length in (short, long) for rate in (0.1, 0.2)]
    losses: dict[str, tuple[float, ...]] = dict(
        zip(settings, [(9.0, 9.0), (8.0, 8.0), (1.0, 1.0), (2.0, 2.0)], strict=True)
    )
    scores: dict[str, tuple[float, ...]] = dict(zip(settings, [(10, 11), (20, 21), (30, 31), (40, 41)], strict=True))
    (board,) = leaderboards(pd.concat([swept(losses, scores), planted({"ia3": (70, 71)})], ignore_index=True))
    found = {row.method: row.mean.mean for row in board.rows if row.mean}
    assert found == {"ia3": 70.5, f"lora [{short}]": 20.5, f"lora [{long}]": 30.5}
    assert board.trials == {"ia3": 1, f"lora [{short}]": 2, f"lora [{long}]": 2}
    assert any(f"different {name} are shown separately" in said for said in board_remarks(board))


def test_other_settings_on_other_tasks_are_one_row() -> None:
    """There is nothing to choose: no cell has runs of both."""
    parts = [run("lora", task, 0, score=50.0, training=f"max_length={n}") for task, n in (("a", 64), ("b", 128))]
    (board,) = leaderboards(pd.DataFrame(parts))
    assert [row.method for row in board.rows] == ["lora"]


def test_trials_of_searches_on_other_text_are_not_mixed() -> None:
    def trial(number: int, length: int, loss: float) -> dict[str, object]:
        training = f"learning_rate={0.1 * (number + 1)}, max_length={length}"
        made = run("lora", "a", 1000, score=loss, training=training, trial=number, validation_loss=loss)
        return made | {"id": f"{length}-{number}", "learning_rate": 0.1 * (number + 1)}

    table = pd.DataFrame([trial(n, length, loss) for (n, length), loss in zip(
        itertools.product((0, 1), (64, 128)), (5.0, 2.0, 4.0, 1.0), strict=True)])  # fmt: skip
    (found,) = searches(distinct(table))
    assert {chosen.method: chosen.validation_loss for chosen in found.chosen} == {
        "lora [max_length=64]": 4.0,
        "lora [max_length=128]": 1.0,
    }


def test_losses_on_other_text_have_no_ratio() -> None:
    table = pd.DataFrame(
        [
            run("full", "a", 0, training="max_length=128"),
            run("lora", "a", 0, training="max_length=128"),
            run("ia3", "a", 0, training="max_length=64"),
        ]
    )
    curves = pd.DataFrame(
        [
            {"id": id_, "step": step, "tokens": step, "seconds": float(step), "validation_loss": 10.0 - step}
            for id_ in table["id"]
            for step in range(1, 7)
        ]
    )
    (found,) = convergences(compared_runs(table), curves)
    assert {pace.method: pace.loss is not None for pace in found.paces} == {"full": True, "lora": True, "ia3": False}
