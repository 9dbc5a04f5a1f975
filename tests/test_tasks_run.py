"""Every task of the Hub from its rows to its scores: an untrained tiny model on the rows of a local mirror."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from conftest import SHARED
from peftbench.core.spec import RunResult
from peftbench.grid.expand import expand
from peftbench.metrics import METRICS
from peftbench.single_run import Worker, run
from peftbench.tasks import TASKS

MIRROR = SHARED / "data"
pytestmark = pytest.mark.skipif(not MIRROR.is_dir(), reason="no local mirror")
HUB_TASKS = [unit.name for unit in TASKS if unit.facts.source.published]


@cache
def worker() -> Worker:
    return Worker(data=MIRROR)


def tried(task: str, model: Path, folder: Path, how: str = "auto", rows: int = 6) -> RunResult:
    (spec,) = expand(
        {
            "models": [str(model)],
            "methods": ["none"],
            "tasks": [task],
            "sizes": [8],
            "train": {"validation_rows": 4, "max_length": 256},
            "eval": {"test_rows": rows, "answer": how, "per_device_eval_batch_size": 3},
        }
    )
    return run(spec, worker(), folder, lambda _event: None)[0]


@pytest.mark.parametrize("task", HUB_TASKS)
def test_from_rows_to_scores(task: str, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    facts = TASKS[task].facts
    result = tried(task, tiny_models["llama"], tmp_path)
    place = MIRROR / facts.source.name / (facts.source.config or "default")
    missing = [name for name in (facts.source.train, facts.source.test) if not (place / f"{name}.parquet").is_file()]
    if missing:
        assert result.status == "failed"
        assert f"split '{missing[0]}'" in str(result.error)
        return
    assert result.status == "ok", result.error
    assert list(result.scores) == list(facts.metrics)
    for name, score in result.scores.items():
        assert score.value is not None
        assert METRICS[name].facts.lower <= score.value <= 100
    # What is ranked is always one of the labels; a random model writes no numbers of a scale.
    assert result.invalid_share == (0 if facts.labels else 1 if facts.scale else None)


def test_entities_are_ranked_or_written(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ReCoRD, whose rows have different numbers of choices; its training rows are the test where no others are."""
    facts = TASKS["record"].facts
    source = replace(facts.source, test="train", train="train")
    monkeypatch.setitem(TASKS._units, "record", replace(TASKS["record"], facts=replace(facts, source=source)))
    ranked, written = (tried("record", tiny_models["llama"], tmp_path, how, rows=8) for how in ("rank", "generate"))
    assert (ranked.status, written.status) == ("ok", "ok"), (ranked.error, written.error)
    assert (ranked.invalid_share, written.invalid_share) == (0, 1)
    assert written.scores["record_em"].value == 0
    assert (ranked.scores["record_f1"].value or 0) >= (ranked.scores["record_em"].value or 0)
