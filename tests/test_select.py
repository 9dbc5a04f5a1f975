"""Training settings are chosen by validation, one for all seeds, never by test score."""

import pandas as pd

from peftbench.analysis.leaderboard import leaderboards
from peftbench.analysis.select import CELL, select
from peftbench.report.tables import remarks
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
    assert any("2 for each method" in said for said in remarks(board))
    (board,) = leaderboards(pd.concat([runs, planted({"ia3": (70, 71)})], ignore_index=True))
    assert any("unequal numbers: 1 for ia3, 2 for lora" in said for said in remarks(board))
