"""Advice: what is expected from pooled cells, what limits allow, and how much is lost on tasks that were not seen."""

import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from peftbench.advisor.evidence_similarity import (
    EvidenceCell,
    KnownFacts,
    Place,
    ScoredMethod,
    evidence_cells,
    nearness,
)
from peftbench.advisor.presentation import advice_section, data
from peftbench.advisor.recommend import PREFERENCES, Advice, Predicted, Question, known_methods, recommend
from peftbench.advisor.regret import ADVISOR, ALWAYS, ORACLE, OVERALL, RANDOM, SEEDS, RegretReport, leave_one_task_out
from peftbench.advisor.score_prediction import ADVANTAGES, GaussianProcess, Series, learn
from peftbench.cli import app
from peftbench.core.costs import LIMITS
from peftbench.core.number_parsing import quantity
from peftbench.core.registry import UserError
from peftbench.results import published
from peftbench.studies._pscp_weights import weight_set
from peftbench.studies.pscp import penalised_score
from synthetic_table import run

KINDS = {f"{kind}{n}": kind for kind in ("classification", "math") for n in range(5)}
KNOWN = KnownFacts(kinds=KINDS)
OVERALL_EFFECTS = {"lora": 3.0, "ia3": 1.0, "bitfit": 0.0, "prompt-tuning": -4.0}
CHEAP = Predicted({"peak_memory_bytes": 1e9, "train_seconds": 60, "adapter_bytes": 1e6, "trainable_parameters": 1e6})


def planted(
    effects: dict[str, dict[str, float]], noise: float = 0.3, sizes: tuple[str, ...] = ("100",)
) -> pd.DataFrame:
    """Tasks of two kinds, of very different levels; `effects` by kind and method, in points."""
    rng = np.random.default_rng(7)
    rows = []
    for number, (task, kind) in enumerate(KINDS.items()):
        for size in sizes:
            for method, effect in effects[kind].items():
                for seed in range(3):
                    score = 20 + 6 * number + effect + float(rng.normal(0, noise))
                    rows.append(run(method, task, seed, size=size, score=score, score_error=0.2, trial=None))
    return pd.DataFrame(rows).assign(id=lambda t: t["id"] + "-" + t["size"])


def by_kind() -> pd.DataFrame:
    """LoRA is best on classification, IA3 on mathematics, and LoRA overall."""
    turned = OVERALL_EFFECTS | {"lora": 0.0, "ia3": 5.0}
    return planted({"classification": OVERALL_EFFECTS | {"lora": 8.0}, "math": turned})


def place(kind: str = "classification", task: str = "new", **changes: Any) -> Place:
    return replace(Place(task, kind, "qwen2.5-0.5b", "100", 100.0, 494_000_000.0), **changes)


def asked(table: pd.DataFrame, question: Question, predicted: dict[str, Predicted] | None = None) -> Advice:
    model = learn(evidence_cells(table, KNOWN))
    return recommend(model, question, predicted or dict.fromkeys(known_methods(model, question.place), CHEAP))


def regret(found: RegretReport | str, rule: str) -> float:
    assert isinstance(found, RegretReport)
    (policy,) = [policy for policy in found.policies if policy.name == rule]
    assert policy.regret
    return policy.regret.mean


def test_one_observation_is_shrunk_as_by_hand() -> None:
    here = place()
    process = GaussianProcess((here,), {"m": Series((0,), np.array([6.0]), np.array([1.0]))}, ADVANTAGES)
    own = process.own["m"]
    found = process.at(here)["m"]
    # One place shares all parts with itself: the posterior of a normal mean, worked by hand.
    assert found.mean == pytest.approx(6 * own.sum() / (own.sum() + 1))
    assert found.sd == pytest.approx(math.sqrt(own.sum() / (own.sum() + 1)))
    # Another model and kind shares the first part, and half of the second.
    there = process.at(place("math", "other", model="else"))["m"]
    assert there.mean == pytest.approx(6 * (own[0] + own[1] / 2) / (own.sum() + 1))


def test_variances_have_the_highest_density() -> None:
    model = learn(evidence_cells(by_kind(), KNOWN))
    process, centre = model.advantages, 2 * np.log(np.array(ADVANTAGES))
    best, slope = process._loss(np.log(process.variances), centre)
    assert np.abs(slope).max() < 0.05
    for part in range(5):
        for step in (-0.5, 0.5):
            logs = np.log(process.variances)
            logs[part] += step
            assert process._loss(logs, centre)[0] > best


def test_a_cell_of_weak_methods_is_not_taken_for_a_hard_one() -> None:
    effects = {"strong": 10.0, "weak": -10.0, "plain": 0.0}

    def planted_cell(task: str, level: float, methods: tuple[str, ...]) -> EvidenceCell:
        held = {m: ScoredMethod(m, level + effects[m], 0.1, 2, (f"{task}-{m}",), {}) for m in methods}
        return EvidenceCell(place(task=task), held)

    found = learn(
        [
            planted_cell("a", 50, ("strong", "weak", "plain")),
            planted_cell("b", 50, ("weak", "plain")),
            planted_cell("c", 70, ("strong", "plain")),
        ]
    )
    levels = [found.levels.series["level"].values[n] for n in range(3)]
    assert levels[0] == pytest.approx(levels[1], abs=0.1)
    assert levels[2] - levels[0] == pytest.approx(20, abs=0.1)


def test_a_few_rows_more_are_nearly_the_same_cell() -> None:
    """What is known of a cell fades with the rows, and does not end with them."""
    table = pd.concat([by_kind(), by_kind().assign(model="other", score=lambda runs: runs["score"] - 20)])
    model = learn(evidence_cells(table, KNOWN))
    at = model.cells[0].place
    label = next(iter(model.cells[0].scores))
    known, near, far = (model.advantage(replace(at, size=str(n), rows=n))[label] for n in (at.rows, 1.1 * at.rows, 1e9))
    assert known.sd < near.sd < far.sd
    assert near.sd - known.sd < 0.5 * (far.sd - known.sd)


def test_nearness_is_of_rows_model_and_shape() -> None:
    here = place()
    assert nearness(here, here) == 1
    assert nearness(here, place(rows=1000.0)) == pytest.approx(math.exp(-1))
    assert nearness(here, place(model="other")) == pytest.approx(0.5)
    assert nearness(here, place(model="other", shape="encoder-decoder")) == pytest.approx(0.25)


def test_what_is_best_on_the_kind_is_ranked_first() -> None:
    assert asked(by_kind(), Question(place("classification"))).ranked[0].method == "lora"
    first = asked(by_kind(), Question(place("math"))).ranked[0]
    assert first.method == "ia3"
    assert (first.support.first, first.support.of_kind, first.support.cells) == (5, 5, 10)
    # Nearest cell first: rows of the kind that was asked about.
    assert first.support.ids[0].startswith("ia3-math")


def test_the_untouched_base_is_recommended_where_nothing_beats_it() -> None:
    effects = {"none": 2.0, "lora": 0.0, "prompt-tuning": -5.0}
    found = asked(planted(dict.fromkeys(("classification", "math"), effects)), Question(place()))
    assert found.ranked[0].method == "none"
    assert "higher than the base model" in data(found, {method: {} for method in effects})["methods"][0]["reason"]


def test_regret_where_the_best_depends_on_the_kind() -> None:
    found = leave_one_task_out(evidence_cells(by_kind(), KNOWN))
    assert regret(found, ADVISOR) < 0.3
    assert regret(found, ADVISOR) < min(regret(found, ALWAYS), regret(found, OVERALL)) - 1
    assert regret(found, ORACLE) == 0
    assert regret(found, RANDOM) > regret(found, ALWAYS)


def test_regret_where_one_method_is_best_everywhere() -> None:
    effects = dict.fromkeys(("classification", "math"), OVERALL_EFFECTS)
    found = leave_one_task_out(evidence_cells(planted(effects, noise=2.0), KNOWN))
    assert regret(found, ADVISOR) <= regret(found, OVERALL) + 0.3
    # Where seeds decide, whoever knows the other seeds loses points too.
    assert regret(found, SEEDS) > 0


def test_regret_needs_tasks() -> None:
    table = by_kind()
    assert "three tasks" in str(
        leave_one_task_out(evidence_cells(table[table["task"].isin(["math0", "math1"])], KNOWN))
    )


def test_intervals_cover_what_was_left_out() -> None:
    rng = np.random.default_rng(3)
    held = []
    for number in range(24):
        kind = ("classification", "math", "qa")[number % 3]
        scores = {
            m: ScoredMethod(
                m, 50 + effect + 3 * math.sin(2 * k + len(kind)) + float(rng.normal(0, 2)), 0.5, 3, (m,), {}
            )
            for k, (m, effect) in enumerate(OVERALL_EFFECTS.items())
        }
        held.append(EvidenceCell(place(kind, f"t{number}"), scores))
    found = leave_one_task_out(held)
    assert isinstance(found, RegretReport)
    assert found.covered is not None
    assert 0.88 <= found.covered <= 1


numbers = st.floats(min_value=0.1, max_value=100)


@settings(deadline=None, max_examples=60)
@given(
    scores=st.dictionaries(st.sampled_from("abcdef"), st.lists(st.floats(0, 100), min_size=3, max_size=3), min_size=1),
    costs=st.dictionaries(st.sampled_from("abcdef"), st.dictionaries(st.sampled_from(list(LIMITS)), numbers)),
    limits=st.dictionaries(st.sampled_from(list(LIMITS)), numbers),
    prefer=st.sampled_from([*PREFERENCES, "paper"]),
    refused=st.sets(st.sampled_from("abcdef")),
)
def test_nothing_is_recommended_that_is_not_known_to_fit(
    scores: dict[str, list[float]],
    costs: dict[str, dict[str, float]],
    limits: dict[str, float],
    prefer: str,
    refused: set[str],
) -> None:
    held = [
        EvidenceCell(
            place(task=f"t{n}"),
            {m: ScoredMethod(m, values[n], 1.0, 1, (f"{m}{n}",), {}) for m, values in scores.items()},
        )
        for n in range(3)
    ]
    predicted = {m: Predicted(costs.get(m, {}), "no" if m in refused else "") for m in scores}
    preferred = weight_set(prefer) if prefer == "paper" else prefer
    found = recommend(learn(held), Question(place(), limits, preferred), predicted)
    assert sorted(option.method for option in found.options) == sorted(scores)
    fitting = {
        m
        for m in scores
        if m not in refused and all(costs.get(m, {}).get(cost, math.inf) <= most for cost, most in limits.items())
    }
    assert {option.method for option in found.ranked} == fitting
    assert [option.rank for option in found.ranked] == list(range(1, len(fitting) + 1))
    verdicts = {option.method: option.verdict for option in found.options if not option.rank}
    for method, verdict in verdicts.items():
        over = any(cost in limits and value > limits[cost] for cost, value in costs.get(method, {}).items())
        assert verdict == ("refused" if method in refused else "does not fit" if over else "not known")


def test_a_cost_that_is_no_number_is_not_known_to_fit() -> None:
    predicted = {"lora": Predicted({"peak_memory_bytes": math.nan}), "ia3": CHEAP}
    found = asked(by_kind(), Question(place(), {"peak_memory_bytes": 1e10}), predicted)
    assert [option.method for option in found.ranked] == ["ia3"]


def test_a_cost_first_among_the_good_ones() -> None:
    effects = dict.fromkeys(("classification", "math"), OVERALL_EFFECTS)
    predicted = {
        "lora": Predicted({"peak_memory_bytes": 9e9}),
        "ia3": Predicted({"peak_memory_bytes": 5e9}),
        "bitfit": Predicted({"peak_memory_bytes": 6e9}),
        "prompt-tuning": Predicted({"peak_memory_bytes": 1e9}),
    }
    near = asked(planted(effects), Question(place(), prefer="memory", within=2.5), predicted)
    assert [option.method for option in near.ranked] == ["ia3", "lora", "bitfit", "prompt-tuning"]
    exact = asked(planted(effects), Question(place(), prefer="memory", within=0), predicted)
    assert exact.ranked[0].method == "lora"


def test_weights_of_pscp_decide() -> None:
    costs = {"trainable_parameters": 5e8, "extra_forward_flops_512": 0.0, "peak_memory_bytes": 94e9}
    predicted = {"lora": Predicted(costs), "ia3": Predicted(dict.fromkeys(costs, 0.0))}
    found = asked(by_kind(), Question(place(), prefer=weight_set("paper")), predicted)
    assert [option.method for option in found.ranked] == ["ia3", "lora"]
    second = found.ranked[1]
    in_units = {"trainable_parameters": 5e8, "extra_forward_tflops": 0.0, "peak_memory_gb": 94.0}
    assert second.pscp == pytest.approx(penalised_score(second.score.mean, in_units))
    assert second.pscp == pytest.approx(second.score.mean / 4)


def test_order_of_rows_does_not_matter() -> None:
    table = by_kind()
    question = Question(place("math"), {"peak_memory_bytes": 2e9})
    shuffled = table.sample(frac=1, random_state=1).reset_index(drop=True)
    assert repr(asked(table, question)) == repr(asked(table, question)) == repr(asked(shuffled, question))
    assert repr(leave_one_task_out(evidence_cells(table, KNOWN))) == repr(
        leave_one_task_out(evidence_cells(shuffled, KNOWN))
    )


def test_little_evidence_is_wide_and_said() -> None:
    table = by_kind()
    rare = run("vera", "math0", 0, score=99.0, trial=None, size="100", id="rare")
    found = asked(pd.concat([table, pd.DataFrame([rare])]), Question(place("classification", model="llama-3-8b")))
    options = {option.method: option for option in found.options}
    assert options["vera"].score.half > options["lora"].score.half
    assert options["vera"].support.of_kind == 0
    told = "\n".join(data(found, {method: {} for method in options})["unknown"])
    assert "scores on llama-3-8b: the evidence and its learning rates are from qwen2.5-0.5b" in told
    assert "one seed" in told


def test_published_and_measured_are_told_apart() -> None:
    figures = published.published_frame(published.gather(["peft-bench"]).rows["peft-bench"])
    both = pd.concat([by_kind(), figures], ignore_index=True)
    assert evidence_cells(both, KNOWN) == evidence_cells(by_kind(), KNOWN)
    found = evidence_cells(both, KNOWN, published=True)
    assert {cell.place.model for cell in found} == {"meta-llama/Meta-Llama-3-8B-Instruct"}
    assert len(found) == 27
    assert all("arXiv 2511.21285" in cell.place.size for cell in found)


def test_trials_and_failures_are_no_scores() -> None:
    table = by_kind()
    trial = run("lora", "math0", 0, size="100", score=100.0, id="trial", trial=3)
    failed = run("lora", "math0", 9, size="100", score=math.nan, id="failed", status="diverged", trial=None)
    (here,) = [
        c for c in evidence_cells(pd.concat([table, pd.DataFrame([trial, failed])]), KNOWN) if c.place.task == "math0"
    ]
    lora = here.scores["lora"]
    assert (lora.seeds, lora.failed) == (3, 1)
    assert lora.score < 50
    assert {"trial", "failed"}.isdisjoint(lora.ids)


def test_words_say_what_was_asked_and_what_does_not_fit() -> None:
    predicted = {"lora": Predicted({"peak_memory_bytes": 30e9}), "ia3": CHEAP, "bitfit": Predicted(why="no shapes")}
    found = asked(by_kind(), Question(place(), {"peak_memory_bytes": 24e9}), predicted)
    told = advice_section(
        found, {"lora": {}, "ia3": {"use": "ia3", "modules": ["q", "v"], "learning_rate": 0.01}, "bitfit": {}}
    )
    assert "peak memory at most 24 GB" in told.title
    assert '{ use = "ia3", modules = ["q", "v"], learning_rate = 0.01 }' in told.remarks[0]
    lines = {line[0]: line[1:3] for line in told.sheets[1].lines}
    assert lines["lora"] == ("does not fit", "peak memory (30 GB)")
    assert lines["bitfit"] == ("not known", "peak memory: no shapes")
    json.dumps(data(found, {method: {} for method in predicted}), allow_nan=False)


@pytest.mark.parametrize(
    ("given_", "kind", "value"),
    [("24GB", "bytes", 24e9), ("1.5h", "seconds", 5400), ("30 ms", "ms", 30), ("2M", "count", 2e6), ("7", "count", 7)],
)
def test_quantities(given_: str, kind: str, value: float) -> None:
    assert quantity("--it", given_, kind) == value


@pytest.mark.parametrize("wrong", ["24", "24 parsecs", "GB", "-1GB", "0GB", "1.2.3GB"])
def test_quantities_that_are_none(wrong: str) -> None:
    with pytest.raises(UserError, match="--memory"):
        quantity("--memory", wrong, "bytes")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--task NAME, --kind KIND, or --file"),
        (["--kind", "maths", "--rows", "5"], "did you mean 'math'"),
        (["--kind", "math"], "--rows"),
        (["--task", "glue"], "8 tasks"),
        (["--task", "cola", "--prefer", "cheap"], "unknown preference"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, options: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["advise", "--store", str(tmp_path), *options])
    assert isinstance(done.exception, UserError)
    assert message in str(done.exception)


def test_from_published_figures_alone(tmp_path: Path) -> None:
    question = ["--task", "pocket_topic", "--rows", "64", "--top", "2", "--adapter-size", "100MB"]
    done = CliRunner().invoke(app, ["advise", "--store", str(tmp_path), *question, "--json"], catch_exceptions=False)
    content = json.loads(done.stdout)
    (advice,) = content["advice"]
    assert advice["evidence"] == "published"
    first = advice["methods"][0]
    assert first["rank"] == 1
    assert first["costs"]["adapter_bytes"] <= 100e6
    assert first["costs"]["trainable_parameters"] > 0
    assert first["start"]["use"] == first["method"].partition("(")[0]
    assert all(id_.startswith("published-") for id_ in first["evidence"])
    assert any("pocket" in line for line in advice["unknown"])


@pytest.mark.slow
def test_regret_of_published_figures(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["advise", "--store", str(tmp_path), "--evaluate", "--json"], catch_exceptions=False)
    found = json.loads(done.stdout)["published"]
    lost = {policy["name"]: policy["regret"]["mean"] for policy in found["policies"]}
    assert lost[ADVISOR] <= lost[ALWAYS] + 0.5
    assert lost[ADVISOR] < lost[RANDOM] / 4
    assert 0.85 <= found["covered"] <= 1


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"method": "peft:lora", "method_arguments": "r=14", "published_as": "lora/M-rank14-target-mlp-bdlora"}, "mlp"),
        ({"method": "peft:lora", "method_arguments": "r=32", "published_as": "lora/M-rank32-mica"}, "mica"),
        ({"method": "lora", "method_arguments": "rank=8", "published_as": "lora/M-rank16"}, "rank16"),
        ({"method": "ia3", "method_arguments": "", "published_as": "ia3/M-lr_0.005"}, "lr_0.005"),
        ({"method": "LORA", "method_arguments": "r=32", "published_as": "lora/M-rank32-lorafa"}, "not a known method"),
        ({"method": "lora", "method_arguments": "ranks=8", "published_as": ""}, "not a known method: .*did you mean"),
        ({"method": "lora", "method_arguments": "rank=16", "published_as": "lora/M-rank16-lr_0.001"}, ""),
        ({"method": "rslora", "method_arguments": "rank=64", "published_as": "lora/M-rank64-rslora"}, ""),
        ({"method": "peft:miss", "method_arguments": 'init_weights="bat"', "published_as": "miss/M-bat"}, ""),
        ({"method": "lora", "method_arguments": "", "published_as": ""}, ""),
    ],
)
def test_whether_settings_are_those_of_the_experiment(row: dict[str, str], why: str) -> None:
    from peftbench.results.published.required_settings import unlike

    found = unlike(row | {"model": "org/M", "learning_rate": 0.001})
    assert bool(found) == bool(why), found
    assert not why or re.search(why, found)


@pytest.mark.slow
def test_no_method_is_credited_with_the_runs_of_another(tmp_path: Path) -> None:
    """Every entry that is ranked is the method and the settings that its source had; the others are refused."""
    question = ["--task", "gsm8k", "--rows", "1000", "--top", "6", "--model", "smollm2-135m", "--device", "h100-80gb"]
    done = CliRunner().invoke(app, ["advise", "--store", str(tmp_path), *question, "--json"], catch_exceptions=False)
    (advice,) = json.loads(done.stdout)["advice"]
    rows = [row for held in published.gather(published.bundled()).rows.values() for row in held]
    by_id = dict(zip(published.published_frame(rows)["id"], rows, strict=True))
    ranked = [option for option in advice["methods"] if option["rank"]]
    assert ranked
    for option in ranked:
        for row in map(by_id.__getitem__, option["evidence"]):
            assert row.method == option["start"]["use"]
            assert not re.search("bdlora|mica|lorafa|para$|fast$|vector", row.published_as)
            if "learning_rate" in option["start"]:
                assert row.learning_rate == option["start"]["learning_rate"]
    foreign = [option for option in advice["methods"] if "published_as" in option["start"]]
    assert all(option["verdict"] == "refused" for option in foreign)


def test_what_is_refused_for_want_of_positions_is_not_recommended(tmp_path: Path) -> None:
    """On the bundled model, whose rows are known: a prompt longer than its context."""
    (tmp_path / "grid.toml").write_text(
        'models = ["pocket"]\nmethods = [{ use = "prompt-tuning", tokens = [10, 2000] }]\n'
        'tasks = ["pocket_topic"]\nsizes = [16]\n'
    )
    done = CliRunner().invoke(app, ["plan", str(tmp_path / "grid.toml"), "--json"], catch_exceptions=False)
    short, long = sorted(json.loads(done.stdout)["cells"], key=lambda cell: len(cell["method"]))
    assert short["status"] == "fits"
    assert long["status"] == "refused"
    assert "2000 virtual tokens, and the model has" in long["why"]


def test_where_nothing_fits_the_least_is_said() -> None:
    predicted = {"lora": Predicted({"peak_memory_bytes": 30e9}), "ia3": Predicted({"peak_memory_bytes": 26e9})}
    found = asked(by_kind(), Question(place(), {"peak_memory_bytes": 24e9}), predicted)
    assert found.ranked == ()
    assert data(found, {"lora": {}, "ia3": {}})["least"] == {"method": "ia3", "needed": {"peak_memory_bytes": 26e9}}
    told = advice_section(found, {"lora": {}, "ia3": {}}).remarks[0]
    assert told.endswith("Nearest to the limits is ia3: it needs peak memory of 26 GB, not 24 GB.")
    fits = asked(by_kind(), Question(place(), {"peak_memory_bytes": 27e9}), predicted)
    assert fits.least is None


def test_advice_is_plain_values() -> None:
    asdict(asked(by_kind(), Question(place())))
