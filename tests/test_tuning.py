"""Tuning: the same number of trials for every method, nothing lost or repeated, the winner by validation alone."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drawn import data_rows, texts
from peftbench.core.registry import UserError
from peftbench.core.spec import Costs, DataFacts, Point, RunResult, RunSpec, Score, Trial
from peftbench.engine.exceptions import PrunedError
from peftbench.grid.expand import expand
from peftbench.launch import Event, Options, local
from peftbench.launch.reproduce import reproduce_run
from peftbench.report.hub_model_card import model_index
from peftbench.report.tables import board_remarks, failures
from peftbench.results.runs_table import table_row
from peftbench.results.store import Store
from peftbench.studies.leaderboard import leaderboards
from peftbench.studies.study_input import run_data
from peftbench.studies.tuning_trials import searches
from peftbench.tuning import STARTUP, Search, ceilings_after, search

GRID: dict[str, Any] = {
    "name": "tuned",
    "methods": ["none", "lora", {"use": "ia3"}, {"use": "lora", "rank": {"low": 2, "high": 64, "log": True}}],
    "tasks": ["pocket_topic", "pocket_sentiment"],
    "seeds": [0, 1],
    "train": {"max_steps": 4},
    "tune": {"trials": 6},
}
STUDIES, PLAIN = 6, 4
FACTS = {"source": "planted", "fingerprint": "ab", "train_rows": 9, "validation_rows": 3, "test_rows": 5}


def result(spec: RunSpec, status: Any = "ok", loss: float | None = None, score: float = 50.0) -> RunResult:
    """A planted result; without a loss, a number that depends on the settings alone."""
    loss = int(spec.id, 16) % 1000 / 1000 if loss is None else loss
    curve = tuple(Point(step=s, tokens=s, seconds=s, validation_loss=loss + 1 / s) for s in (1, 2, 4))
    found = {"scores": {"accuracy": Score(value=score, standard_error=1.0)}} if status == "ok" else {}
    ended = status in ("ok", "pruned")
    return RunResult(
        id=spec.id,
        spec=spec,
        status=status,
        validation_loss=loss if ended else None,
        learning_rate=spec.train.learning_rate or 1e-4,
        curve=curve if ended else (),
        costs=Costs(trainable_parameters=0 if spec.method.name == "none" else 9),
        data=DataFacts(**FACTS),
        **found,
    )


def done(found: Search, find: Callable[[RunSpec], RunResult] = result, limit: int = 10**6) -> list[RunResult]:
    """Do what a search asks for, as a launcher would; stop after so many runs."""
    queue, ended = found.missing(), list[RunResult]()
    while queue and len(ended) < limit:
        ended.append(find(queue.pop(0)))
        queue += found.after(ended[-1])
    return ended


def known(results: Sequence[RunResult]) -> dict[str, RunResult]:
    return {one.id: one for one in results}


def table(results: Sequence[RunResult]) -> pd.DataFrame:
    return pd.DataFrame([table_row(one, Path("s/here/model/method/task/run")) for one in results])


# Equal budgets


def test_every_method_gets_the_same_number_of_trials() -> None:
    found = search(GRID, {})
    ended = done(found)
    trials = Counter((str(r.spec.method), r.spec.task.name) for r in ended if r.spec.trial)
    assert len(trials) == STUDIES
    assert set(trials.values()) == {6}
    assert {r.spec.seed for r in ended if r.spec.trial} == {1000}
    finals = Counter((str(r.spec.method), r.spec.task.name) for r in ended if not r.spec.trial)
    assert set(finals.values()) == {2}
    assert len(finals) == STUDIES + PLAIN / 2
    assert len(ended) == found.total == len(found.whole()) == STUDIES * (6 + 2) + PLAIN
    assert [spec.id for spec in search(GRID, known(ended)).asked()] == [spec.id for spec in found.asked()]


def test_trials_stay_in_their_ranges_and_the_first_is_the_default() -> None:
    ended = done(search(GRID, {}))
    for one in ended:
        if one.spec.method.name == "lora" and one.spec.trial:
            rate = one.spec.train.learning_rate or 2e-4
            assert 2e-5 <= rate <= 2e-2
            assert rate == float(f"{rate:.4g}")
            assert 2 <= one.spec.method.arguments.get("rank", 16) <= 64
    first = [one.spec for one in ended if one.spec.trial and one.spec.trial.number == 0]
    assert all(spec.train.learning_rate is None and not spec.method.arguments for spec in first)
    assert len({one.spec.method.arguments.get("rank") for one in ended if one.spec.method.tuned}) > 3


def test_more_trials_begin_with_those_there_are() -> None:
    before = done(search(GRID, {}))
    more = GRID | {"tune": {"trials": 9}}
    again = search(more, known(before))
    ended = done(again)
    assert {r.spec.trial.number for r in ended if r.spec.trial} == {6, 7, 8}
    fresh = done(search(more, {}))
    assert {r.id for r in fresh} <= {r.id for r in [*before, *ended]}


def test_a_trial_runs_on_every_seed_of_trials_and_is_judged_by_their_mean() -> None:
    grid = GRID | {"methods": ["none", "ia3"], "tasks": ["pocket_topic"]}
    grid |= {"tune": {"trials": 6, "seeds": [1000, 7]}}
    losses = {0: (0.5, 0.5), 1: (0.1, 1.1), 2: (0.4, 0.4), 3: (0.7, 0.3), 4: (0.2, None), 5: (0.6, 0.6)}

    def find(spec: RunSpec) -> RunResult:
        if not spec.trial:
            return result(spec, loss=0.4)
        loss = losses[spec.trial.number][spec.seed == 7]
        return result(spec, "ok" if loss else "pruned", loss or 0.01, 80.0 if spec.seed == 7 else 60.0)

    found = search(grid, {})
    ended = done(found, find)
    assert len(ended) == found.total == len(found.stand_ins()) == 6 * 2 + 2 + 2
    trials = [r.spec for r in ended if r.spec.trial]
    assert Counter((spec.trial.number, spec.seed) for spec in trials if spec.trial) == dict.fromkeys(
        [(number, seed) for number in range(6) for seed in (1000, 7)], 1
    )
    for number in range(6):
        one, other = (spec for spec in trials if spec.trial and spec.trial.number == number)
        assert (one.method, one.train) == (other.method, other.train)
    best = next(spec for spec in trials if spec.trial and spec.trial.number == 2)
    assert {r.spec.train for r in ended if not r.spec.trial and r.spec.method.name == "ia3"} == {best.train}
    assert [spec.id for spec in search(grid, known(ended)).asked()] == [spec.id for spec in found.asked()]
    (shown,) = searches(table(ended))
    assert (shown.seeds, shown.trials, len(shown.log)) == ((7, 1000), {"ia3": 6}, 12)
    (chosen,) = shown.chosen
    assert (chosen.trial, chosen.score) == (3, 70.0)
    assert chosen.validation_loss == pytest.approx(0.4)
    assert chosen.endings == {"ok": 5, "pruned": 1}
    (board,) = leaderboards(table(ended))
    assert board.trials == {"none": 1, "ia3": 6}


def test_a_run_of_a_trial_is_stopped_by_what_went_before_on_its_own_seed() -> None:
    grid = GRID | {"methods": ["ia3"], "tasks": ["pocket_topic"], "tune": {"trials": 6, "seeds": [1000, 7]}}
    ended = done(search(grid, {}), lambda spec: result(spec, loss=9.0 if spec.seed == 7 else 1.0))
    last = {r.spec.seed: r.spec.trial.ceilings for r in ended if r.spec.trial and r.spec.trial.number == 5}
    assert last == {1000: ((1, 2.0), (2, 1.5), (4, 1.25)), 7: ((1, 10.0), (2, 9.5), (4, 9.25))}


# Resuming


@settings(max_examples=15)
@given(st.integers(0, 50))
def test_stopped_anywhere_nothing_is_lost_or_repeated(cut: int) -> None:
    grid = GRID | {"methods": ["lora", "ia3"], "tasks": ["pocket_topic"], "tune": {"trials": 6, "seeds": [8, 9]}}
    whole = [r.id for r in done(search(grid, {}))]
    first = done(search(grid, {}), limit=cut)
    second = done(search(grid, known(first)))
    assert not {r.id for r in first} & {r.id for r in second}
    assert sorted(r.id for r in [*first, *second]) == sorted(whole)


def test_trials_done_again_lead_to_the_same_search_if_they_end_as_before() -> None:
    def find(spec: RunSpec) -> RunResult:
        return result(spec, "diverged" if spec.trial and spec.trial.number == 2 else "ok")

    ended = done(search(GRID, {}), find)
    kept = {r.id: r for r in ended if r.status == "ok"}
    assert {r.id for r in done(search(GRID, kept), find)} == {r.id for r in ended if r.status != "ok"}


# The winner


def planted(spec: RunSpec) -> RunResult:
    """The lower the validation loss, the lower the test score; the lowest loss of all is of a trial that was pruned."""
    number = spec.trial.number if spec.trial else -1
    if number == 5:
        return result(spec, "pruned", loss=0.01)
    losses = [0.9, 0.5, 0.2, 0.7, 0.8]
    return result(spec, loss=losses[number] if spec.trial else 0.3, score=100 * losses[number] if spec.trial else 40.0)


def test_the_winner_is_chosen_by_validation_whatever_the_test_scores() -> None:
    ended = done(search(GRID, {}), planted)
    trials = {
        (str(r.spec.method), r.spec.task.name): (r.spec.train, r.spec.method)
        for r in ended
        if r.spec.trial and r.spec.trial.number == 2
    }
    finals = [r.spec for r in ended if not r.spec.trial and r.spec.method.name != "none"]
    assert len(finals) == 2 * STUDIES
    for spec in finals:
        assert (spec.train, spec.method) == trials[str(spec.method), spec.task.name]
    (found,) = searches(table(ended))
    assert {one.trial for one in found.chosen} == {3}
    assert [one.scores["ia3"] for one in found.bought] == pytest.approx([90, 50, 20, 20, 20, 20])


def test_without_a_good_trial_there_is_no_final_and_it_is_said() -> None:
    grid = GRID | {"methods": ["lora", "ia3"], "tasks": ["pocket_topic"]}
    found = search(grid, {})
    ended = done(found, lambda spec: result(spec, "diverged" if spec.method.name == "ia3" else "ok"))
    counts = Counter((r.spec.method.name, r.spec.trial is None) for r in ended)
    assert counts == {("lora", False): 6, ("lora", True): 2, ("ia3", False): 6}
    assert found.fruitless() == ["ia3 on pocket_topic (pocket, all rows)"]
    rows = table(ended)
    (section,) = [s for s in run_data(rows, curves(ended)).sections if s.name == "trials"]
    assert any("no trial ended well" in remark and "ia3" in remark for remark in section.remarks)


def curves(results: Sequence[RunResult]) -> pd.DataFrame:
    points = [{"id": one.id} | point.model_dump() for one in results for point in one.curve]
    return pd.DataFrame(points, columns=["id", "step", "tokens", "seconds", "train_loss", "validation_loss"])


# Pruning


LOSS = st.floats(0, 10, allow_nan=False)
HISTORY = st.lists(
    st.tuples(st.sampled_from(["ok", "ok", "pruned", "diverged", "failed"]), st.lists(LOSS, min_size=1, max_size=6)),
    max_size=9,
)


@settings(max_examples=150)
@given(HISTORY, st.lists(LOSS, min_size=1, max_size=6))
def test_ceilings_are_the_median_pruner(history: list[tuple[Any, list[float]]], now: list[float]) -> None:
    import optuna
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    spec = expand({"methods": ["lora"], "tasks": ["pocket_topic"]})[0]
    past, study = [], optuna.create_study(pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP))
    states = {"ok": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
    for status, losses in history:
        points = tuple(Point(step=i, tokens=1, seconds=1, validation_loss=x) for i, x in enumerate(losses, 1))
        loss = min(losses) if status == "ok" else None
        past.append(RunResult(id=spec.id, spec=spec, status=status, validation_loss=loss, curve=points))
        state, values = states.get(status, TrialState.FAIL), dict(enumerate(losses, 1))
        study.add_trial(create_trial(state=state, value=loss, intermediate_values=values))
    ceilings, trial = dict(ceilings_after(past)), study.ask()
    for step, loss in enumerate(now, 1):
        trial.report(loss, step)
        ours = min(now[:step]) > ceilings.get(step, float("inf"))
        assert ours == trial.should_prune()


def test_ceilings_stand_in_the_spec_unless_pruning_is_off() -> None:
    for prune in (True, False):
        ended = done(search(GRID | {"tune": {"trials": 6, "prune": prune}}, {}))
        held = {r.spec.trial.number for r in ended if r.spec.trial and r.spec.trial.ceilings}
        assert held == ({4, 5} if prune else set())


@pytest.mark.slow
def test_training_stops_above_a_ceiling_and_keeps_what_it_had(tmp_path: Path) -> None:
    import peftbench

    grid = {
        "methods": ["bitfit"],
        "tasks": ["pocket_topic"],
        "sizes": [16],
        "train": {"max_steps": 4, "eval_steps": 1, "max_length": 96},
        "eval": {"test_rows": 4},
    }
    (spec,) = expand(grid)
    ceilings = ((1, 100.0), (2, 100.0), (3, 1e-3), (4, 100.0))
    place = Store(tmp_path)
    tried = spec.model_copy(update={"seed": 1000, "trial": Trial(number=4, ceilings=ceilings)})
    local.launch([tried], place, Options(workers=1), lambda _: None)
    found, _ = place.find(tried.id)
    assert found.status == "pruned"
    assert [point.step for point in found.curve] == [1, 2, 3]
    assert found.validation_loss == min(point.validation_loss for point in found.curve)
    assert found.scores == {}
    assert "median" in str(found.error)
    assert PrunedError.status == "pruned"
    assert peftbench.table(tmp_path)["trial"].tolist() == [4]
    again = reproduce_run(found, place, Store(tmp_path / "again"), Options())
    assert again.same, "what stops a trial is part of its spec"


# Leaderboards


def test_trials_never_stand_on_a_leaderboard_and_are_counted() -> None:
    ended = done(search(GRID, {}), planted)
    (board,) = leaderboards(table(ended))
    assert board.seeds == (0, 1)
    assert {row.method for row in board.rows} == {"none", "ia3", "lora", 'lora(rank="tuned")'}
    assert {row.mean.mean for row in board.rows if row.mean} == {40.0}
    assert board.trials == {"none": 1, "ia3": 6, "lora": 6, 'lora(rank="tuned")': 6}
    assert any("from 6 for each method" in said for said in board_remarks(board))
    without = leaderboards(table([r for r in ended if not r.spec.trial]))[0]
    assert [(row.method, row.mean, row.rank) for row in without.rows] == [
        (row.method, row.mean, row.rank) for row in board.rows
    ]


def test_of_trials_alone_there_is_a_section_and_no_leaderboard() -> None:
    ended = [one for one in done(search(GRID, {}), planted) if one.spec.trial]
    shown = run_data(table(ended), curves(ended))
    assert shown.leaderboards == ()
    assert [section.name for section in shown.sections] == ["trials"]


def test_a_trial_that_failed_is_told_as_one() -> None:
    ended = done(search(GRID, {}), lambda spec: result(spec, "diverged" if spec.trial else "ok"))
    told = failures(table(ended))
    assert len(told) == 6 * STUDIES
    assert all(re.search(r"seed 1000 \(trial [1-6]\), .*: diverged", line) for line in told)


def test_a_card_says_what_the_search_gave() -> None:
    finals = [one for one in done(search(GRID, {}), planted) if not one.spec.trial and one.spec.method.tuned]
    assert finals
    for one in finals:
        card = str(model_index(one))
        assert "tuned" not in card
        assert all(f"{name}={value}" in card for name, value in one.spec.method.arguments.items())


def test_the_section_has_ranks_settings_log_and_a_figure() -> None:
    ended = done(search(GRID, {}), planted)
    (section,) = [s for s in run_data(table(ended), curves(ended)).sections if s.name == "trials"]
    ranks, chosen = section.sheets
    assert ranks.headings == ("Method", "1 trial", *(f"{n} trials" for n in (2, 3, 4, 6)))
    assert ranks.lines[0][1:] == ("90.0 (1)", "50.0 (1)", "20.0 (1)", "20.0 (1)", "20.0 (1)")
    assert len(chosen.lines) == STUDIES
    tuned = [line for line in chosen.lines if "tuned" in line[0]]
    assert all("rank=" in line[2] and "learning_rate=" in line[2] for line in tuned)
    assert not any("max_steps" in line[2] for line in chosen.lines)
    assert chosen.lines[0][3:] == ("3", "0.200", "5 ok, 1 pruned")
    assert len(section.data[0]["log"]) == STUDIES * 6
    (figure,) = section.figures
    assert {line[0] for line in ranks.lines} <= set(texts(figure))
    scores = {(row["method"], row["trials"]): f"{row['score']:.1f}" for row in data_rows(figure, "trials")}
    for line in ranks.lines:
        told = {
            int(heading.split()[0]): cell.split()[0] for heading, cell in zip(ranks.headings[1:], line[1:], strict=True)
        }
        assert told == {count: scores[line[0], count] for count in told}


def test_tuned_runs_have_ids_of_their_own_and_plain_runs_those_they_had() -> None:
    ended = done(search(GRID, {}), planted)
    plain = expand(GRID | {"methods": ["none"], "tune": None})
    assert {spec.id for spec in plain} <= {r.id for r in ended}
    spec = expand({"methods": [{"use": "lora", "rank": 8}], "tasks": ["pocket_topic"]})[0]
    tuned = spec.model_copy(update={"method": spec.method.model_copy(update={"tuned": ("rank",)})})
    assert tuned.id != spec.id
    assert str(tuned.method) == "lora(rank=tuned)"


# Grids that are wrong


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tune": None}, "lora.*rank has a range, and the grid no \\[tune\\]"),
        ({"seeds": [0, 1000]}, "seeds: 1000 is one of the grid's seeds"),
        ({"tune": {"trials": 0}}, "tune.trials"),
        ({"tune": {"tirals": 4}}, "unknown key of \\[tune\\] 'tirals': did you mean 'trials'"),
        ({"tune": {"trials": 4, "learning_rate": {"low": 1, "high": 0.1}}}, "not below"),
        ({"methods": [{"use": "lora", "learning_rate": 1e-3}]}, "lora.*fixed.*nothing to search"),
        ({"methods": [{"use": "none", "rank": {"low": 1, "high": 2}}]}, "rank"),
        ({"methods": [{"use": "lora", "rank": {"low": 8, "high": 8}}]}, "low = 8 is not below"),
        ({"methods": [{"use": "lora", "rank": {"low": 2, "high": 8, "logs": True}}]}, "did you mean 'log'"),
        ({"methods": [{"use": "lora", "rank": {"low": 0, "high": 8, "log": True}}]}, "no logarithm"),
        ({"methods": [{"use": "lora", "rank": {"among": [4]}}]}, "two or more different values"),
        ({"methods": [{"use": "lora", "rank": {"among": [4, "many"]}}]}, "rank"),
        ({"methods": [{"use": "lora", "rnak": {"low": 2, "high": 8}}]}, "did you mean 'rank'"),
        ({"methods": [{"use": "lora", "max_length": {"low": 64, "high": 128}}]}, "cannot be searched"),
        ({"methods": [{"use": "lora", "warmup_steps": {"low": -1.0, "high": 0.5}}]}, "warmup_steps: -1.0"),
        ({"methods": [{"use": "lora", "warmup_steps": {"low": 0.1, "high": 20}}]}, "0.1 is a share .* 20 a number"),
        ({"methods": [{"use": "lora", "warmup_ratio": {"low": 0.1, "high": 1.0}}]}, "0.1 is a share .* 1.0 a number"),
        ({"train": {"weight_decay": {"low": 0.0, "high": 1.0}}}, "belongs in an entry of methods"),
        ({"train": {"learning_rate": 1e-3}, "methods": ["ia3"]}, "ia3.*nothing to search"),
    ],
)
def test_wrong_grids_are_refused_in_one_line(changes: dict[str, Any], words: str) -> None:
    grid = {key: value for key, value in (GRID | changes).items() if value is not None}
    with pytest.raises(UserError, match=words) as caught:
        search(grid, {})
    assert "\n" not in str(caught.value)


def test_a_plain_grid_is_what_it_was() -> None:
    grid = {key: value for key, value in GRID.items() if key != "tune"} | {"methods": ["none", "lora"]}
    assert search(grid, {}).asked() == expand(grid)
    with pytest.raises(UserError, match=r"peftbench\.tuning\.search"):
        expand(GRID)


def test_lists_are_sweeps_each_with_a_search_and_values_may_be_lists() -> None:
    entry = {"use": "lora", "rank": [4, 8], "modules": {"among": [["q", "v"], "mlp"]}}
    found = search(GRID | {"methods": [entry], "tasks": ["pocket_topic"]}, {})
    assert len(found.studies) == 2
    values = [r.spec.method.arguments.get("modules") for r in done(found)]
    assert ["q", "v"] in values
    assert "mlp" in values


# Launching


class Quick:
    """In the place of a worker process: a thread whose runs find planted results at once."""

    def __init__(self, theirs: Any) -> None:
        self.pipe, self.pid = Connection(os.dup(theirs.fileno())), os.getpid()
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self) -> None:
        setup = self.pipe.recv()
        place = Store(setup.root, setup.owner)
        self.pipe.send(("ready", {}))
        with contextlib.suppress(EOFError):
            while True:
                spec = self.pipe.recv().spec
                found = result(spec)
                place.finish(place.begin(spec), found, [])
                self.pipe.send(("done", {"status": "ok", "score": 50.0, "error": None, "result": found, "last": False}))

    def wait(self, seconds: float) -> int | None:
        self.thread.join(seconds)
        return None if self.thread.is_alive() else 0

    def stop(self, number: int) -> None: ...


def test_workers_wait_for_what_results_bring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "start_worker", Quick)
    grid = GRID | {"methods": ["lora"], "tasks": ["pocket_topic"], "tune": {"trials": 3}}
    found, seen = search(grid, {}), list[Event]()
    local.launch(found.missing(), Store(tmp_path), Options(workers=2), seen.append, found.after)
    started = [event.spec for event in seen if event.kind == "start"]
    assert [spec.trial.number for spec in started if spec.trial] == [0, 1, 2]
    assert [spec.seed for spec in started[3:]] == [0, 1]
    # One trial after the other is work for one; the runs of the winner are for two.
    assert {event.worker for event in seen} == {0, 1}
    kinds = [(event.kind, event.spec.trial) for event in seen if event.spec.trial]
    assert all(a[0] == "start" and b == ("done", a[1]) for a, b in list(pairwise(kinds))[::2])
    assert search(grid, {id_: r for id_, (r, _) in Store(tmp_path).results().items()}).missing() == []


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on(tmp_path: Path) -> None:
    """SIGKILL of all its processes in the middle, then the same command again."""
    grid = tmp_path / "grid.toml"
    grid.write_text(
        'methods = ["lora", "bitfit"]\ntasks = ["pocket_topic"]\nsizes = [16]\nseeds = [0]\n'
        "[tune]\ntrials = 6\n[train]\nmax_steps = 3\neval_steps = 1\nmax_length = 96\n[eval]\ntest_rows = 4\n"
    )
    place = Store(tmp_path / "results")
    command = [sys.executable, "-m", "peftbench", "run", str(grid), "--store", str(place.root), "--workers", "2"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    first = subprocess.Popen(command, start_new_session=True, **quiet)
    until = time.monotonic() + 240
    while len(place.results()) < 5 and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = {id_: (folder / "result.json").stat().st_mtime_ns for id_, (_, folder) in place.results().items()}
    assert 5 <= len(before) < 14
    subprocess.run(command, check=True, timeout=300, **quiet)
    results = place.results()
    assert {id_: (results[id_][1] / "result.json").stat().st_mtime_ns for id_ in before} == before
    trials = Counter((r.spec.method.name, r.spec.trial.number) for r, _ in results.values() if r.spec.trial)
    assert trials == Counter({(name, number): 1 for name in ("lora", "bitfit") for number in range(6)})
    assert Counter(r.spec.method.name for r, _ in results.values() if not r.spec.trial) == {"lora": 1, "bitfit": 1}
    assert len(results) == 14
