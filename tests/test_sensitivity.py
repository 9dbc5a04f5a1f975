"""Who leads at which exponents: the published table, and that what is said of a crossing is so."""

import itertools
import math
from random import Random

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from peftbench.studies._pscp_costs import Paid, penalised, pscp_constants
from peftbench.studies._pscp_weights import ALL_COSTS, WeightSet, weight_set, weight_set_names
from peftbench.studies.leaderboard import Leaderboard, leaderboards
from peftbench.studies.pscp import penalised_score
from peftbench.studies.pscp_sensitivity import ALL, HIGHEST, LOWEST, LogPscpLine, Span, Sweep, sweeps, winners
from synthetic_table import TASKS, run, table

PAPER = {
    "ia3": (196_608, 0.31, 28.41, 74.7),
    "prompt-tuning": (409_600, 1.67, 42.47, 50.0),
    "prefix-tuning": (34_177_536, 0.01, 27.61, 45.9),
    "p-tuning": (53_130_752, 1.68, 34.53, 51.7),
    "lora": (14_680_064, 0.00, 27.75, 80.1),
    "lntuning": (266_240, 0.00, 27.43, 77.8),
}
FULL = {"trainable_parameters": 5e8, "extra_forward_tflops": 1.0, "peak_memory_gb": 40.0, "latency_ms": 30.0}


def published() -> pd.DataFrame:
    """Runs with the inputs of the published table."""
    return pd.DataFrame(
        run(
            method,
            task,
            seed,
            score=score,
            trainable_parameters=parameters,
            extra_forward_flops_512=tflops * 1e12,
            peak_memory_bytes=memory * 1e9,
        )
        for (method, (parameters, tflops, memory, score)), task, seed in itertools.product(PAPER.items(), TASKS, (0, 1))
    )


def found(board: Leaderboard, weights: str) -> dict[str, Sweep]:
    return {sweep.varied: sweep for sweep in board.sensitivity if sweep.weights == weights}


def test_the_published_order_flips_near_one() -> None:
    """By hand: ln(80.1 / 77.8) / (0.02894 + 0.25879 - 0.00053 - 0.25617) = 0.02913 / 0.03103 = 0.939."""
    (board,) = leaderboards(published())
    held = found(board, "paper")
    assert list(held) == [ALL, "trainable_parameters", "extra_forward_tflops", "peak_memory_gb"]
    (flip,) = held[ALL].crossings
    assert flip == pytest.approx(0.939, abs=0.001)
    assert flip == pytest.approx(0.95, abs=0.02)
    assert [span.winners for span in held[ALL].spans] == [("lora",), ("lntuning",)]
    assert held["extra_forward_tflops"].spans == (Span(LOWEST, HIGHEST, ("lntuning",)),)
    assert {row.method: round(row.pscp["paper"].value or 0, 1) for row in board.rows[:2]} == {
        "lora": 60.1,
        "lntuning": 60.2,
    }


def test_methods_without_a_pscp_are_not_in_it() -> None:
    (board,) = leaderboards(table())
    assert {sweep.weights for sweep in board.sensitivity} == {"paper", "relative"}
    for sweep in board.sensitivity:
        assert {"vera", "prefix-tuning"} & set(sweep.lines) == set()
        assert set(sweep.lines) == {row.method for row in board.rows if row.rank}
    (mixed,) = leaderboards(table().assign(machine_class=[f"m{i % 2}" for i in range(len(table()))]), True)
    assert mixed.sensitivity == ()


def test_equal_methods_lead_together() -> None:
    lines = {
        "b": LogPscpLine(1.0, 0.5),
        "a": LogPscpLine(1.0, 0.5),
        "flat": LogPscpLine(0.0, 0.0),
        "steep": LogPscpLine(1.0, 4.0),
    }
    assert winners(lines) == (Span(LOWEST, 2.0, ("a", "b")), Span(2.0, HIGHEST, ("flat",)))


def test_lines_through_one_point_change_the_lead_once() -> None:
    assert winners({"a": LogPscpLine(3.0, 3.0), "b": LogPscpLine(2.0, 2.0), "c": LogPscpLine(1.0, 1.0)}) == (
        Span(LOWEST, 1.0, ("a",)),
        Span(1.0, HIGHEST, ("c",)),
    )


share = st.floats(0.001, 3)
methods = st.dictionaries(
    st.sampled_from("abcdefg"),
    st.builds(
        lambda score, costs: Paid(score, {cost: costs[cost] * FULL[cost] for cost in costs}),
        st.floats(1, 100),
        st.fixed_dictionaries(dict.fromkeys(ALL_COSTS, share)),
    ),
    min_size=2,
)


def at(weights: WeightSet, varied: str, exponent: float, used: dict[str, float]) -> dict[str, tuple[float, float]]:
    """The weights of a sweep at one exponent, for `pscp`."""
    return {cost: (used[cost], exponent if varied in (ALL, cost) else own) for cost, (_, own) in weights.terms.items()}


@settings(deadline=None)
@given(methods, st.sampled_from(weight_set_names()))
def test_what_is_said_of_a_crossing_is_so(paid: dict[str, Paid], name: str) -> None:
    weights = weight_set(name)
    used = pscp_constants(weights, paid, FULL)
    assert not isinstance(used, str)

    def score(method: str, exponent: float, varied: str) -> float:
        own = at(weights, varied, exponent, used) | {"form": weights.form}
        return penalised_score(paid[method].score, paid[method].costs, own)

    for sweep in sweeps(weights, paid, used, penalised(weights, paid, used)):
        assert (sweep.spans[0].low, sweep.spans[-1].high) == (LOWEST, HIGHEST)
        for before, after in itertools.pairwise(sweep.spans):
            assert before.high == after.low
            assert before.winners != after.winners
            last, first = (score(span.winners[0], after.low, sweep.varied) for span in (before, after))
            assert last == pytest.approx(first, abs=1e-9)
        for span in sweep.spans:
            middle = (span.low + span.high) / 2
            held = {method: score(method, middle, sweep.varied) for method in paid}
            assert held[span.winners[0]] >= max(held.values()) - 1e-9
            assert held[span.winners[0]] == pytest.approx(sweep.lines[span.winners[0]].at(middle), rel=1e-9)


@settings(deadline=None)
@given(methods, st.sampled_from(weight_set_names()), st.randoms())
def test_it_does_not_depend_on_the_order_of_methods(paid: dict[str, Paid], name: str, random: Random) -> None:
    weights = weight_set(name)
    mixed = dict(random.sample(list(paid.items()), len(paid)))
    used = pscp_constants(weights, paid, FULL)
    assert used == pscp_constants(weights, mixed, FULL)
    scores = penalised(weights, paid, used)
    assert scores == penalised(weights, mixed, used)
    assert sweeps(weights, paid, used, scores) == sweeps(weights, mixed, used, scores)


@settings(deadline=None)
@given(methods)
def test_each_lead_is_by_a_smaller_burden(paid: dict[str, Paid]) -> None:
    """A method takes the lead only by losing less as the exponent grows."""
    weights = weight_set("paper")
    used = pscp_constants(weights, paid, FULL)
    held = sweeps(weights, paid, used, penalised(weights, paid, used))
    assume(any(sweep.crossings for sweep in held))
    for sweep in held:
        slopes = [sweep.lines[span.winners[0]].slope for span in sweep.spans]
        assert slopes == sorted(slopes, reverse=True)


def test_a_score_of_nothing_leads_nowhere() -> None:
    weights = weight_set("paper")
    paid = {"good": Paid(50.0, dict.fromkeys(ALL_COSTS, 1.0)), "bad": Paid(0.0, dict.fromkeys(ALL_COSTS, 0.0))}
    used = pscp_constants(weights, paid, FULL)
    (common, *_) = sweeps(weights, paid, used, penalised(weights, paid, used))
    assert common.spans == (Span(LOWEST, HIGHEST, ("good",)),)
    assert math.isclose(common.lines["good"].at(0), 50)
