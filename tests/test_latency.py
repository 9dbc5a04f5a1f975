"""Latency per new token by a clock that only the models turn, the base's twin, and memory of answering."""

from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from peftbench.core.spec import Evaluation
from peftbench.engine.base_model import Base
from peftbench.engine.merging import decide
from peftbench.engine.peak_memory import tensor_bytes
from peftbench.engine.quantization import Quantise, quantization_constants
from peftbench.engine.tokenization import Encoded
from peftbench.grid.expand import expand
from peftbench.methods import METHODS, Adapted
from peftbench.models import find
from peftbench.profiling import latency
from peftbench.profiling.latency import Twin, by_turns, measure_latencies, middling, summed_up, token_times
from peftbench.profiling.post_training_measurements import peak_memory
from peftbench.single_run import Worker, run
from peftbench.tasks import TASKS

ROWS = [Encoded(list(range(3, 3 + length)), [5, 1]) for length in (4, 9, 6, 5, 30)]


@dataclass
class Clock:
    """Stands still but for what models take."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now

    def takes(self, network: Any, seconds: float) -> None:
        def pass_time(*_: Any) -> None:
            self.now += seconds

        network.register_forward_hook(pass_time)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(latency, "clock", made)
    return made


@pytest.fixture(params=["llama", "t5"])
def base(request: pytest.FixtureRequest, tiny_models: dict[str, Path], tiny_seq2seq: dict[str, Path]) -> Base:
    models = tiny_models | tiny_seq2seq
    return Base(find(str(models[request.param])), "fp32")


def test_times_are_those_from_token_to_token(base: Base, clock: Clock) -> None:
    """The prompt's own pass is not among them."""
    clock.takes(base.model, 0.25)
    for count in (1, 3):
        times = token_times(Adapted(base.model, base.model), middling([row.prompt for row in ROWS], count), tokens=4)
        assert times == [0.25] * 4
    assert clock.now == 2 * 5 * 0.25


def test_base_and_adapted_are_told_apart(base: Base, clock: Clock) -> None:
    """The same tensors, another set of modules: what is put on the base takes no time on its twin."""
    before = tensor_bytes(base.model.parameters())
    twin = Twin(base.model)
    assert tensor_bytes(iter([*base.model.parameters(), *twin.model.parameters()])) == before
    # Fractions that sums of floats keep exactly.
    clock.takes(twin.model, 1 / 128)
    adapted: Adapted = METHODS["lora"].function(base.model, modules=("q", "v"))
    clock.takes(adapted.network, 3 / 256)
    adapted, merging = decide(adapted, base, ROWS)
    assert merging is not None
    assert merging.exact
    clock.now = 0.0
    (one, many), notes = measure_latencies(adapted, twin, base, Evaluation(per_device_eval_batch_size=3), ROWS)
    assert notes == []
    assert (one.rows, many.rows) == (1, 3)
    for found in (one, many):
        assert found.base_median_ms == found.base_p95_ms == 1000 / 128
        assert found.unmerged_median_ms == found.merged_median_ms == found.median_ms == 3000 / 256
        assert found.unmerged_over_base == found.merged_over_base == 1.5


def test_turns_alternate_and_the_first_round_is_not_kept() -> None:
    order = []

    def turn(name: str) -> list[float]:
        order.append(name)
        return [float(len(order))]

    found = by_turns({"base": lambda: turn("base"), "unmerged": lambda: turn("unmerged")}, rounds=2)
    assert order == ["base", "unmerged", "unmerged", "base", "base", "unmerged"]
    assert found == {"unmerged": [[3.0], [6.0]], "base": [[4.0], [5.0]]}


def test_summing_up() -> None:
    """A slow round slows both, and leaves their ratio as it is."""
    base = [[0.001] * 10, [0.004] * 10, [0.001] * 10]
    found = summed_up(1, {"base": base, "unmerged": [[2 * each for each in times] for times in base]})
    assert found.base_median_ms == pytest.approx(1)
    assert found.base_p95_ms == pytest.approx(4)
    assert found.unmerged_over_base == pytest.approx(2)
    assert found.merged_median_ms is None
    assert found.median_ms == pytest.approx(2)


def test_prompts_of_middling_length() -> None:
    prompts = [row.prompt for row in ROWS]
    assert [len(prompt) for prompt in middling(prompts, 1)] == [6]
    assert [len(prompt) for prompt in middling(prompts, 3)] == [5, 6, 9]
    assert [len(prompt) for prompt in middling(prompts[:2], 5)] == [4, 9, 4, 9, 4]


def test_the_twin_of_a_base_that_is_trained_has_its_old_types(tiny_models: dict[str, Path]) -> None:
    base = Base(find(str(tiny_models["qwen"])), "bf16")
    twin = Twin(base.model)
    for parameter in base.model.parameters():
        parameter.data = parameter.data.float()
    plain = twin.plain()
    assert {p.dtype for p in plain.model.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in base.model.parameters()} == {torch.float32}
    tied = plain.model.get_input_embeddings().weight
    assert tied is plain.model.get_output_embeddings().weight


@pytest.mark.parametrize("how", ["nf4", "int8"])
def test_a_quantised_base_and_its_twin_share_their_bytes(how: Quantise, tiny_models: dict[str, Path]) -> None:
    base = Base(find(str(tiny_models["llama"])), "fp32", how)
    twin = Twin(base.model)
    both = [
        (*model.parameters(), *model.buffers(), *quantization_constants(model)) for model in (base.model, twin.model)
    ]
    assert tensor_bytes(chain(*both)) == tensor_bytes(iter(both[0]))
    adapted: Adapted = METHODS["lora"].function(base.model, modules=("q", "v"))
    one_row = Evaluation(per_device_eval_batch_size=1)
    (one, _), _ = measure_latencies(adapted, twin, base, one_row, ROWS)
    assert one.merged_median_ms is None
    assert adapted.remove is not None
    adapted.remove()
    assert not base.restore(), "what was measured left the base as it was"


def test_what_does_not_fit_is_missing_with_a_note(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Base(find(str(tiny_models["llama"])), "fp32")
    times = latency.token_times

    def full(adapted: Adapted, prompts: list[list[int]]) -> list[float]:
        if len(prompts) > 1:
            raise MemoryError("no room")
        return times(adapted, prompts, 1)

    monkeypatch.setattr(latency, "token_times", full)
    twin = Twin(base.model)
    found, notes = measure_latencies(Adapted(base.model, base.model), twin, base, Evaluation(), ROWS)
    assert [each.rows for each in found] == [1]
    assert notes == ["latency: 32 rows at once did not fit in memory"]


def test_prompts_leave_room_for_the_new_tokens(tiny_models: dict[str, Path]) -> None:
    """A model of 512 positions that are learned: one too many would be an error."""
    base = Base(find(str(tiny_models["gpt2"])), "fp32")
    rows = [Encoded([5] * 511, [1])]
    one_row = Evaluation(per_device_eval_batch_size=1)
    (one, same), _ = measure_latencies(Adapted(base.model, base.model), Twin(base.model), base, one_row, rows)
    assert one == same, "a batch of one is measured once"
    assert one.base_median_ms > 0


def test_memory_of_answering_grows_with_the_batch_and_has_no_copies_of_merged_weights(base: Base) -> None:
    task = TASKS["pocket_sentiment"]
    adapted: Adapted = METHODS["lora"].function(base.model, modules=("q", "v"))
    adapted, _ = decide(adapted, base, ROWS)
    assert adapted.merge is not None
    weights = tensor_bytes(adapted.model.parameters())

    def peak(rows: int, of: Adapted = adapted) -> int:
        asked = Evaluation(per_device_eval_batch_size=rows, answer="generate")
        return peak_memory(of, base, task, asked, ROWS)

    assert weights < peak(1) < peak(5)
    assert peak(5) == peak(64), "to the byte, and no more rows than there are"
    unmerged = peak(5, replace(adapted, merge=None))
    # Of the update of a layer, which is not computed apart when it is merged.
    assert 0 <= unmerged - peak(5) < weights / 10


@pytest.mark.parametrize("method", ["none", "lora", "full", "prompt-tuning"])
def test_a_run_that_asks_for_it(method: str, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """And a run that does not is the same run as before there was anything to ask for."""
    grid: dict[str, Any] = {
        "models": [str(tiny_models["llama"])],
        "methods": [method],
        "tasks": ["pocket_sentiment"],
        "sizes": [8],
        "train": {"max_steps": 1, "validation_rows": 2},
        "eval": {"test_rows": 4, "per_device_eval_batch_size": 2},
    }
    (plain,) = expand(grid)
    grid["eval"]["latency"] = True
    (asked,) = expand(grid)
    assert asked.id != plain.id
    worker = Worker()
    results = [run(spec, worker, tmp_path, lambda _: None)[0] for spec in (plain, asked, plain)]
    assert [result.status for result in results] == ["ok"] * 3, [result.error for result in results]
    assert [len(result.latency) for result in results] == [0, 2, 0]
    assert [each.rows for each in results[1].latency] == [1, 2]
    assert (results[1].latency[0].merged_median_ms is not None) == (method == "lora")
    losses = [result.validation_loss for result in results]
    assert losses == [losses[0]] * 3
    assert {result.base["checksum"] for result in results} == {results[0].base["checksum"]}
    assert results[0].costs.eval_peak_memory_bytes == results[2].costs.eval_peak_memory_bytes


def test_tables_show_what_was_measured_and_no_empty_columns() -> None:
    import pandas as pd

    from peftbench.report.columns import columns
    from peftbench.studies.leaderboard import leaderboards
    from synthetic_table import run as planted

    def titles(**measured: float) -> dict[str, list[str]]:
        rows = [
            planted(method, task, 0, **measured) for method in ("lora", "none") for task in ("emotions", "arithmetic")
        ]
        (board,) = leaderboards(pd.DataFrame(rows))
        return {column.title: [column.text(row) for row in board.rows] for column in columns(board)}

    assert not {"ms/tok", "Train J", "Forgets"} & titles().keys()
    shown = titles(latency_ms=12.345, retention_loss_change=0.25)
    assert (shown["ms/tok"], shown["Forgets"]) == (["12.35"] * 2, ["+0.250"] * 2)
    assert "Train J" not in shown
