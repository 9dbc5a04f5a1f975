"""PSCP: the published table, its properties, and what it refuses."""

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftbench.core.registry import UnknownNameError
from peftbench.studies._pscp_weights import ALL_COSTS, weight_set_names
from peftbench.studies.pscp import COSTS, penalised_score, weight_set

FREE = dict.fromkeys(ALL_COSTS, 0.0)
REFERENCE = {"trainable_parameters": 5e8, "extra_forward_tflops": 1.0, "peak_memory_gb": 9.0, "latency_ms": 20.0}

numbers = st.floats(0, 1e12)
some_costs = st.fixed_dictionaries(dict.fromkeys(ALL_COSTS, numbers))
scores = st.floats(0, 100)
sets = st.sampled_from(weight_set_names())


@pytest.mark.parametrize(
    ("parameters", "tflops", "memory", "score", "expected"),
    [
        (196_608, 0.31, 28.41, 74.7, 55.62),
        (409_600, 1.67, 42.47, 50.0, 29.49),
        (34_177_536, 0.01, 27.61, 45.9, 33.18),
        (53_130_752, 1.68, 34.53, 51.7, 29.26),
        (14_680_064, 0.00, 27.75, 80.1, 60.08),
        (266_240, 0.00, 27.43, 77.8, 60.19),
    ],
    ids=["ia3", "prompt-tuning", "prefix-tuning", "p-tuning", "lora", "lntuning"],
)
def test_the_published_table(parameters: float, tflops: float, memory: float, score: float, expected: float) -> None:
    costs = dict(zip(COSTS, (parameters, tflops, memory), strict=True))
    assert penalised_score(score, costs) == pytest.approx(expected, abs=0.01)


@given(scores, sets)
def test_without_costs_it_is_the_score(score: float, weights: str) -> None:
    assert penalised_score(score, FREE, weights, REFERENCE) == score


@given(scores, some_costs, st.sampled_from(ALL_COSTS), numbers, sets)
def test_a_higher_cost_never_helps(score: float, costs: dict[str, float], cost: str, more: float, weights: str) -> None:
    dearer = penalised_score(score, costs | {cost: costs[cost] + more}, weights, REFERENCE)
    assert dearer <= penalised_score(score, costs, weights, REFERENCE) * (1 + 1e-12)


@given(st.floats(1, 100), st.floats(0.5, 2), sets, st.data())
def test_a_cost_of_the_set_that_doubles_takes_its_toll(
    score: float, share: float, weights: str, data: st.DataObject
) -> None:
    cost = data.draw(st.sampled_from(list(weight_set(weights).terms)))
    costs = FREE | {cost: share * REFERENCE[cost]}
    assert penalised_score(score, costs | {cost: 2 * costs[cost]}, weights, REFERENCE) < penalised_score(
        score, costs, weights, REFERENCE
    )


@given(scores, scores, some_costs, sets)
def test_a_higher_score_never_hurts(one: float, other: float, costs: dict[str, float], weights: str) -> None:
    low, high = (penalised_score(score, costs, weights, REFERENCE) for score in sorted((one, other)))
    assert low <= high


def test_a_cost_at_its_constant_halves_the_score() -> None:
    for cost in COSTS:
        assert penalised_score(80, FREE | {cost: REFERENCE[cost]}, "relative", REFERENCE) == pytest.approx(40)
    assert penalised_score(80, FREE | {"peak_memory_gb": 94}) == pytest.approx(40)


def test_the_exponential_form_by_hand() -> None:
    """80 · exp(-(0.5 + 0.25 + 1)): half the highest parameters, a quarter of its latency, and the highest memory."""
    costs = {"trainable_parameters": 2.5e8, "latency_ms": 5.0, "peak_memory_gb": 9.0}
    assert penalised_score(80, costs, "exponential", REFERENCE) == pytest.approx(80 * math.exp(-1.75))
    assert penalised_score(80, costs, "exponential", REFERENCE) == pytest.approx(13.9019, abs=1e-4)


def test_a_cost_that_a_set_does_not_weigh_does_not_count() -> None:
    assert penalised_score(80, FREE | {"latency_ms": 50.0}) == 80
    assert penalised_score(80, FREE | {"extra_forward_tflops": 50.0}, "exponential", REFERENCE) == 80


def test_own_weights() -> None:
    weights = dict.fromkeys(COSTS, (1.0, 0.0)) | {"peak_memory_gb": (10.0, 2.0)}
    assert penalised_score(100, dict.fromkeys(COSTS, 10.0), weights) == pytest.approx(25)


@pytest.mark.parametrize(
    ("score", "costs", "message"),
    [
        (101, FREE, "score 101 is outside 0 to 100"),
        (float("nan"), FREE, "outside 0 to 100"),
        (50, FREE | {"extra_forward_tflops": -0.01}, "extra_forward_tflops is -0.01"),
        (50, FREE | {"peak_memory_gb": float("nan")}, "peak_memory_gb is nan"),
        (50, FREE | {"peak_memory": 1.0}, "unknown cost in costs 'peak_memory': did you mean 'peak_memory_gb'"),
        (50, {"peak_memory_gb": 1.0}, "costs lack trainable_parameters, extra_forward_tflops"),
    ],
)
def test_wrong_inputs_are_refused(score: float, costs: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        penalised_score(score, costs)


def test_wrong_weights_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'paper'"):
        penalised_score(50, FREE, "papers")
    with pytest.raises(ValueError, match="'relative' need a reference that gives trainable_parameters"):
        penalised_score(50, FREE, "relative")
    with pytest.raises(ValueError, match="reference lack peak_memory_gb"):
        penalised_score(50, FREE, "relative", dict.fromkeys(COSTS[:2], 1.0))
    with pytest.raises(ValueError, match="constant of peak_memory_gb is 0"):
        penalised_score(50, FREE, "relative", REFERENCE | {"peak_memory_gb": 0.0})
    with pytest.raises(ValueError, match="costs lack latency_ms"):
        penalised_score(50, dict.fromkeys(COSTS, 0.0), "exponential", REFERENCE)
    with pytest.raises(ValueError, match="exponent of peak_memory_gb is -1"):
        penalised_score(50, FREE, dict.fromkeys(COSTS, (1.0, 1.0)) | {"peak_memory_gb": (1.0, -1.0)})


def test_the_sets_say_where_they_come_from() -> None:
    assert weight_set("paper").source == "arXiv:2511.21285"
    assert weight_set("paper").version == 1
    assert [constant for constant, _ in weight_set("relative").terms.values()] == [None] * 3


def test_the_import_is_light() -> None:
    heavy = {"pandas", "numpy", "scipy", "altair", "jinja2", "torch"}
    code = f"import sys, peftbench.studies.pscp; print({heavy} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
