"""One run after another in one worker: what a run must not leave to the next, and what it must refuse."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from peftbench import single_run
from peftbench.core.spec import RunResult, RunSpec
from peftbench.engine.base_integrity import model_checksum
from peftbench.engine.base_model import Base
from peftbench.engine.generation import in_batches
from peftbench.engine.tokenization import Encoded, Encoder, encode_examples
from peftbench.grid.expand import expand
from peftbench.models import find
from peftbench.results.run_diff import compare_runs
from peftbench.results.runs_table import table_row
from peftbench.results.schema import COLUMNS
from peftbench.single_run import Worker, run
from peftbench.studies.leaderboard import leaderboards
from peftbench.tasks import TASKS
from peftbench.tasks._splits import RowLimits, split


def specs(model: Path, methods: list[Any], **train: Any) -> list[RunSpec]:
    return expand(
        {
            "models": [str(model)],
            "methods": methods,
            "tasks": ["pocket_sentiment"],
            "sizes": [16],
            "train": {"max_steps": 4, "validation_rows": 4} | train,
            "eval": {"test_rows": 12},
        }
    )


def do(spec: RunSpec, worker: Worker, folder: Path) -> tuple[RunResult, list[str]]:
    result, predictions = run(spec, worker, folder, lambda _event: None)
    return result, [str(row["prediction"]) for row in predictions]


@pytest.mark.parametrize(
    "methods",
    [
        ["none", "lora", "full", "prefix-tuning"],
        pytest.param(
            "p-tuning ia3 bitfit adapter full lntuning prompt-tuning lora".split(),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_run_does_not_depend_on_what_ran_before(
    methods: list[str], tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    """Methods forwards and backwards in two workers: the same answers, memory to the byte, the same base."""
    asked = specs(tiny_models["llama"], methods)

    def in_order(order: list[RunSpec], name: str) -> dict[str, tuple[RunResult, list[dict[str, Any]]]]:
        worker, found = Worker(), {}
        (tmp_path / name).mkdir()
        for spec in order:
            found[spec.id] = run(spec, worker, tmp_path / name, lambda _event: None)
            assert found[spec.id][0].status == "ok", found[spec.id][0].error
        return found

    forwards, backwards = in_order(asked, "forwards"), in_order(asked[::-1], "backwards")
    for spec in asked:
        (one, answers), (other, others) = forwards[spec.id], backwards[spec.id]
        compared = compare_runs(one, other, (answers, others))
        assert compared.same, [line for line in compared.lines if not line.same]
        assert (one.costs.peak_memory_bytes is None) == (spec.method.name == "none")
        assert one.costs.peak_memory_bytes == other.costs.peak_memory_bytes
        assert one.base["checksum"] == other.base["checksum"]


def test_gradient_checkpointing_leaves_nothing_behind(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    worker = Worker()
    plain = specs(tiny_models["llama"], ["bitfit"])[0]
    before, _ = do(plain, worker, tmp_path)
    checkpointed, _ = do(specs(tiny_models["llama"], ["lora"], gradient_checkpointing=True)[0], worker, tmp_path)
    assert checkpointed.status == "ok"
    assert not checkpointed.base_reloaded
    after, _ = do(plain, worker, tmp_path)
    assert after.costs.peak_memory_bytes == before.costs.peak_memory_bytes


def test_a_base_that_cannot_be_restored_is_not_used_again(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker()
    full, none = specs(tiny_models["llama"], ["full", "none"], learning_rate=1e-2)
    _, answers = do(none, worker, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Base, "_load", lambda _self: (_ for _ in ()).throw(MemoryError("no room")))
        spoilt, _ = do(full, worker, tmp_path)
    assert spoilt.status == "ok"
    assert "could not be loaded again" in spoilt.notes[-1]
    after, again = do(none, worker, tmp_path)
    assert (after.status, again) == ("ok", answers)


@pytest.mark.slow
def test_precisions_may_follow_each_other(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    worker = Worker()
    for precision in ("fp32", "bf16", "fp32"):
        for spec in specs(tiny_models["llama"], ["lora", "lntuning", "full", "prefix-tuning"], precision=precision):
            result, _ = do(spec, worker, tmp_path)
            assert result.status == "ok", (precision, spec.method.name, result.error)
            assert result.base["precision"] == precision


def test_a_model_that_changes_under_a_grid_is_refused(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(tiny_models["llama"], folder)
    (spec,) = specs(folder, ["none"])
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(bytes(content))
    assert expand({"models": [str(folder)], "methods": ["none"], "tasks": ["pocket_sentiment"]})
    result, _ = do(spec, Worker(), tmp_path)
    assert result.status == "failed"
    assert "has changed since" in str(result.error)


def test_what_does_not_fit_the_positions_is_refused(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    (spec,) = specs(tiny_models["gpt2"], [{"use": "prompt-tuning", "tokens": 500}])
    result, _ = do(spec, Worker(), tmp_path)
    assert result.status == "refused"
    assert "500 virtual tokens, but the model has 512 positions" in str(result.error)


def test_a_run_that_diverges_keeps_what_it_had(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    (spec,) = specs(
        tiny_models["llama"],
        ["full"],
        learning_rate=1e20,
        max_grad_norm=1e9,
        warmup_steps=0,
        eval_steps=1,
        max_steps=30,
    )
    result, _ = do(spec, Worker(), tmp_path)
    assert result.status == "diverged"
    assert result.scores == {}
    assert result.costs.trainable_parameters
    assert result.learning_rate == 1e20


def test_an_unforeseen_error_is_a_row_with_its_traceback(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single_run, "answer_rows", lambda *_, **__: 1 / 0)
    (spec,) = specs(tiny_models["llama"], ["lora"])
    result, predictions = do(spec, Worker(), tmp_path)
    assert (result.status, result.error, predictions) == ("failed", "ZeroDivisionError: division by zero", [])
    assert "Traceback" in (tmp_path / "error.txt").read_text()


def test_memory_that_runs_out_in_answering_is_a_status(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, (spec,) = Worker(), specs(tiny_models["llama"], ["lora"])
    with monkeypatch.context() as patch:
        patch.setattr(single_run, "answer_rows", lambda *_, **__: torch.empty(1 << 60, dtype=torch.uint8, device="cpu"))
        result, predictions = do(spec, worker, tmp_path)
    assert (result.status, predictions) == ("out-of-memory", [])
    assert "can't allocate memory" in str(result.error)
    assert not (tmp_path / "error.txt").exists()
    assert do(spec, worker, tmp_path)[0].status == "ok"


def test_kept_tokens_are_those_of_the_same_end(tiny_models: dict[str, Path]) -> None:
    base = Base(find(str(tiny_models["llama"])), "fp32")
    task = TASKS["pocket_sentiment"]
    examples = split(task, {}, 4, 0, RowLimits(4, 4), root=None).train
    assert all(row.target[-1] == 1 for row in encode_examples(Encoder(base.tokenizer, task.facts, 128), examples))
    base.tokenizer.eos_token = "<|user|>"
    assert all(row.target[-1] == 2 for row in encode_examples(Encoder(base.tokenizer, task.facts, 128), examples))


def test_a_chat_template_shows_the_same_date_every_day(tiny_models: dict[str, Path]) -> None:
    base = Base(find(str(tiny_models["llama"])), "fp32")
    base.tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }} {{ date_string }} {{ messages[0].content }}"
    ids = Encoder(base.tokenizer, TASKS["pocket_sentiment"].facts, 128).prompt({"text": "x"})
    assert str(base.tokenizer.decode(ids)).startswith("26 Jul 2024 26 Jul 2024")


def test_a_batch_that_does_not_fit_is_halved() -> None:
    rows = [Encoded([1] * i, [1]) for i in range(1, 12)]
    sizes = []

    def hungry(batch: list[Encoded]) -> list[int]:
        if len(batch) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        sizes.append(len(batch))
        return [len(row.prompt) for row in batch]

    assert in_batches(rows, 8, hungry) == list(range(1, 12))
    assert sorted(sizes) == [2, 2, 2, 2, 3]

    def starved(_batch: list[Encoded]) -> list[int]:
        raise MemoryError

    with pytest.raises(MemoryError):
        in_batches(rows, 8, starved)


def test_the_checksum_sees_what_an_exclusive_or_does_not() -> None:
    norm = torch.nn.LayerNorm(64)
    seen = {model_checksum(norm)}
    torch.nn.init.constant_(norm.weight, 2.0)
    seen.add(model_checksum(norm))
    norm.weight.data[0] = 3.0
    seen.add(model_checksum(norm))
    norm.weight.data = norm.weight.data.flip(0)
    seen.add(model_checksum(norm))
    norm.register_forward_hook(lambda *_: None)
    seen.add(model_checksum(norm))
    assert len(seen) == 5


def test_held_out_rows_share_no_question_with_training_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peftbench.tasks import _splits
    from peftbench.tasks._loading import LoadedRows

    rows = [{"meaning_representation": f"name[{i // 8}]", "human_reference": f"text {i}"} for i in range(800)]
    monkeypatch.setattr(_splits, "read_rows", lambda *_: LoadedRows(rows, "mirror", None, json.dumps(len(rows))))
    found = split(TASKS["e2e_nlg"], {}, "all", 0, RowLimits(50, None), root=tmp_path)
    asked = [{tuple(example.fields.values()) for example in part} for part in (found.train, found.validation)]
    assert not asked[0] & asked[1]
    assert len(found.validation) == 56
    assert len(found.train) == 744
    assert len(found.test) == 100
    assert all(len(example.references) == 8 for example in found.test)


def test_a_score_that_cannot_be_had_is_missing_and_said_to_be(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a sandbox, programs are not run: no pass@1, not even 0, and the other metrics as ever."""
    monkeypatch.delenv("PEFTBENCH_SANDBOX", raising=False)
    monkeypatch.setattr("shutil.which", lambda _name: None)
    asked = expand(
        {"models": [str(tiny_models["llama"])], "methods": ["none"], "tasks": ["pocket_code"], "sizes": [16]}
        | {"train": {"validation_rows": 4}, "eval": {"test_rows": 8}}
    )[0]
    result, _ = do(asked, Worker(), tmp_path)
    assert result.status == "ok", result.error
    assert list(result.scores) == ["pass_at_1", "exact_match"]
    assert result.scores["pass_at_1"].value is None
    assert result.scores["exact_match"].value is not None
    assert str(result.scores["pass_at_1"].why).startswith("no program is run: bubblewrap")
    again = RunResult.model_validate_json(result.model_dump_json(exclude_none=True))
    assert list(again.scores) == ["pass_at_1", "exact_match"]
    (board,) = leaderboards(pd.DataFrame([table_row(again, tmp_path / "m" / "a" / "b" / "c" / "d")], columns=COLUMNS))
    (cell,) = board.unscored
    assert (cell.task, cell.why) == ("pocket_code", "no score")
    assert cell.error is not None
    assert cell.error.startswith("no program is run")
