"""Retention on general text: what the text is, what is measured on it, and that an untouched model forgets nothing."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import SHARED
from peftbench.core.registry import UserError
from peftbench.core.spec import Evaluation, RunSpec
from peftbench.engine.base_model import Base
from peftbench.grid.expand import expand
from peftbench.methods import METHODS, Adapted
from peftbench.models import find
from peftbench.profiling import retention
from peftbench.profiling.retention import GENERAL, WORDS, base_loss, loss_change, passages
from peftbench.single_run import Worker, run

ASKED = Evaluation(retention=True)


@pytest.fixture(params=["llama", "t5"])
def base(request: pytest.FixtureRequest, tiny_models: dict[str, Path], tiny_seq2seq: dict[str, Path]) -> Base:
    return Base(find(str((tiny_models | tiny_seq2seq)[request.param])), "fp32")


def test_the_text_is_made_of_passages() -> None:
    found = passages(GENERAL.read_text(encoding="utf-8"))
    assert len(found) == 27
    assert {len(passage.split()) for passage in found} == {WORDS}
    assert "\n\n".join(found) + "\n" == GENERAL.read_text(encoding="utf-8"), "cut where one ends and the next begins"


def test_a_rest_of_less_than_half_is_left_out() -> None:
    words = [f"w{number}" for number in range(WORDS + 63)]
    assert passages("\n".join(words)) == ["\n".join(words[:WORDS])]
    assert len(passages(" ".join([*words, "more"]))) == 2
    assert passages("only  this ") == ["only  this"]


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "corpus").is_dir(), reason="the corpus of the pocket models is not there")
def test_no_pocket_model_was_trained_on_it() -> None:
    """Not on a run of eight of its words."""
    from pretraining.pocket.text import Books, shingles

    wanted = passages(GENERAL.read_text(encoding="utf-8"))
    books = Books(SHARED / "corpus", set())
    held_out = [" ".join(text.split()) for text in books.held_out()]
    assert all(any(" ".join(passage.split()) in text for text in held_out) for passage in wanted)
    runs = {run for passage in wanted for run in shingles(passage)}
    for text in books:
        assert runs.isdisjoint(shingles(text)), text[:80]


def test_the_loss_is_that_of_the_library(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    base = Base(find(str(tiny_models["llama"])), "fp32")
    text = "The cat sat on the mat, and the dog lay by the door."
    asked = own_text(tmp_path, text)
    ids = torch.tensor([base.tokenizer(text)["input_ids"]])
    with torch.no_grad():
        expected = base.model(input_ids=ids, labels=ids).loss.item()
    assert base_loss(base, asked) == pytest.approx(expected, rel=1e-5)


def test_an_encoder_decoder_reads_one_half_and_writes_the_other(tiny_seq2seq: dict[str, Path], tmp_path: Path) -> None:
    base = Base(find(str(tiny_seq2seq["t5"])), "fp32")
    asked = own_text(tmp_path, "The cat sat on the mat")
    source = base.tokenizer("The cat sat ", return_tensors="pt")["input_ids"]
    target = torch.tensor([base.tokenizer(text_target="on the mat")["input_ids"]])
    with torch.no_grad():
        expected = base.model(input_ids=source, labels=target).loss.item()
    assert base_loss(base, asked) == pytest.approx(expected, rel=1e-5)


def own_text(folder: Path, text: str) -> Evaluation:
    (folder / "mine.txt").write_text(text, encoding="utf-8")
    grid = {"methods": ["none"], "tasks": ["pocket_topic"], "eval": {"retention_text": str(folder / "mine.txt")}}
    return expand(grid)[0].eval


def test_a_model_that_was_not_changed_forgets_nothing(base: Base) -> None:
    """The base itself, and adapters that begin as what changes nothing."""
    before = base_loss(base, ASKED)
    assert math.isfinite(before)
    for method in ("none", "ia3", "lora", "adapter"):
        adapted: Adapted = METHODS[method].function(base.model)
        assert loss_change(adapted, base, ASKED) == (0.0, []), method
        if adapted.remove is not None:
            adapted.remove()
    with torch.no_grad():
        for parameter in base.model.parameters():
            parameter.mul_(3.0)
    change, _ = loss_change(Adapted(base.model, base.model), base, ASKED)
    assert change is not None
    assert abs(change) > 0.01


def test_no_room_for_virtual_tokens_is_said(tiny_models: dict[str, Path]) -> None:
    base = Base(find(str(tiny_models["gpt2"])), "fp32")
    adapted: Adapted = METHODS["prompt-tuning"].function(base.model, tokens=400)
    change, notes = loss_change(adapted, base, ASKED)
    assert change is None
    assert "400 virtual tokens" in notes[0]


def asked_of(model: Path, **evaluation: Any) -> list[RunSpec]:
    return expand(
        {
            "models": [str(model)],
            "methods": ["none", "lora"],
            "tasks": ["pocket_sentiment"],
            "sizes": [8],
            "train": {"max_steps": 3, "validation_rows": 2, "learning_rate": 0.05},
            "eval": {"test_rows": 2} | evaluation,
        }
    )


def test_in_runs_the_base_is_measured_once(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured, loss = [], retention.text_loss

    def counted(adapted: Adapted, *others: Any) -> float:
        measured.append(adapted)
        return loss(adapted, *others)

    monkeypatch.setattr(retention, "text_loss", counted)
    worker = Worker()
    none, lora = (
        run(spec, worker, tmp_path, lambda _: None)[0].costs for spec in asked_of(tiny_models["llama"], retention=True)
    )
    assert len(measured) == 3
    assert none.base_text_loss == lora.base_text_loss
    assert none.retention_loss_change == 0
    assert lora.retention_loss_change not in (None, 0)
    plain, _ = run(asked_of(tiny_models["llama"])[0], worker, tmp_path, lambda _: None)
    assert (plain.costs.base_text_loss, plain.costs.retention_loss_change) == (None, None)


def test_a_text_of_ones_own(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """Its content is part of what is asked, its place is not; one that has changed since is refused."""
    texts = {name: tmp_path / f"{name}.txt" for name in ("mine", "moved", "other")}
    for name, path in texts.items():
        path.write_text("Quite another text. " * (2 if name == "other" else 20))
    (mine, _), (moved, _), (other, _) = (asked_of(tiny_models["llama"], retention_text=str(p)) for p in texts.values())
    assert mine.eval.retention
    assert mine.id == moved.id != other.id
    result, _ = run(mine, Worker(), tmp_path, lambda _: None)
    assert result.costs.retention_loss_change == 0
    texts["mine"].write_text("changed since")
    result, _ = run(mine, Worker(), tmp_path, lambda _: None)
    assert result.status == "failed"
    assert "has changed since" in str(result.error)
    for content in (b"", b"\xff\xfe bad"):
        texts["mine"].write_bytes(content)
        with pytest.raises(UserError, match="retention_text"):
            asked_of(tiny_models["llama"], retention_text=str(texts["mine"]))
    with pytest.raises(UserError, match="retention_text"):
        asked_of(tiny_models["llama"], retention_text=str(tmp_path / "absent.txt"))
