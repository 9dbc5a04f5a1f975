"""The contract every method keeps, on three architectures."""

from pathlib import Path
from typing import Any

import pytest
import torch

from peftbench.engine.adapters import load, save
from peftbench.engine.forward import forward, pad
from peftbench.engine.load import Base, checksum
from peftbench.engine.meter import Meter
from peftbench.engine.predict import generate
from peftbench.engine.tokens import Encoded, Encoder, encode
from peftbench.engine.train import Trainer
from peftbench.experiment import adapt
from peftbench.methods import METHODS, Adapted
from peftbench.models import find
from peftbench.registry import UserError
from peftbench.seeds import stream
from peftbench.spec import Choice, RunSpec, Training
from peftbench.tasks import TASKS
from peftbench.tasks.splits import Limits, split

SMALL: dict[str, dict[str, Any]] = {
    "prompt-tuning": {"tokens": 4},
    "p-tuning": {"tokens": 4, "hidden": 16},
    "prefix-tuning": {"tokens": 4, "hidden": 16},
    "lora": {"rank": 4},
}
TRAINED_PARTS = {
    "lora": "lora_",
    "ia3": "ia3_",
    "adapter": "peft_adapter",
    "bitfit": "bias",
    "lntuning": "ln_tuning_layers",
    "prompt-tuning": "prompt_encoder",
    "p-tuning": "prompt_encoder",
    "prefix-tuning": "prompt_encoder",
    "full": "",
}
"""What stands in the name of every trained parameter."""
ELSEWHERE = {"saved": "test_outside.py", "qlora": "test_quantised.py"}
"""Methods that need files or another base, and where they are tested."""
CELLS = [
    (name, model) for name in sorted({u.name for u in METHODS} - {*ELSEWHERE}) for model in ("llama", "gpt2", "qwen")
]
TRAINING = Training(max_steps=12, eval_steps=0.25, per_device_train_batch_size=4, warmup_ratio=0.0)


@pytest.fixture(scope="module")
def bases(tiny_models: dict[str, Path]) -> dict[str, Base]:
    return {name: Base(find(str(folder)), "fp32") for name, folder in tiny_models.items()}


def rows(base: Base, count: int = 24) -> list[Encoded]:
    task = TASKS["pocket_sentiment"]
    splits = split(task, {}, count, 0, Limits(8, 8), None)
    return encode(Encoder(base.tokenizer, task.facts, 128), splits.train)


def spec(method: str, **train: Any) -> RunSpec:
    arguments = SMALL.get(method, {})
    choice = Choice(name=method, arguments=arguments)
    asked = TRAINING.model_copy(update=train)
    return RunSpec(
        model=Choice(name="x"), method=choice, task=Choice(name="pocket_sentiment"), size=24, seed=0, train=asked
    )


def applied(base: Base, method: str, seed: int = 0) -> Adapted:
    torch.manual_seed(stream(seed, "init"))
    return adapt(base, METHODS[method], spec(method))


def logits(adapted: Adapted, data: list[Encoded]) -> torch.Tensor:
    ids, mask = pad([row.prompt for row in data], 0, "left", torch.device("cpu"))
    adapted.model.eval()
    with torch.no_grad():
        return forward(adapted, ids, mask, cached=True)[0]


def by_hand(adapted: Adapted, row: Encoded, steps: int) -> list[int]:
    """Greedy answer of one row without padding and without a cache."""
    ids = list(row.prompt)
    for _ in range(steps):
        with torch.no_grad():
            out, _, _ = forward(adapted, torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long))
        ids.append(int(out[0, -1].argmax()))
        if ids[-1] == 1:
            break
    answer = ids[len(row.prompt) :]
    return answer[: answer.index(1)] if 1 in answer else answer


def finish(base: Base, adapted: Adapted) -> bool:
    if adapted.remove is not None:
        adapted.remove()
    return base.restore()


@pytest.mark.parametrize(("method", "model"), CELLS)
def test_contract(method: str, model: str, bases: dict[str, Base], tmp_path: Path) -> None:
    base = bases[model]
    data, before = rows(base), checksum(base.model)
    untouched = logits(Adapted(base.model, base.model), data[:6])
    adapted = applied(base, method)
    trained = {n: p.detach().clone() for n, p in adapted.model.named_parameters() if p.requires_grad}
    if method == "none":
        assert not trained
        assert torch.equal(logits(adapted, data[:6]), untouched)
        assert finish(base, adapted) is False
        return

    # Trains something, and only what it should.
    assert trained
    assert all(TRAINED_PARTS[method] in name for name in trained)
    frozen = {n: p.detach().clone() for n, p in adapted.model.named_parameters() if not p.requires_grad}

    # Loss falls; every trained tensor can move; nothing else does.
    trainer = Trainer(adapted, TRAINING, 3e-2 if method != "full" else 3e-3, "fp32", seed=0)
    start = trainer.loss(data)
    found = trainer.fit(data, data, Meter(), lambda _event: None)
    assert trainer.loss(data) < start
    after = dict(adapted.model.named_parameters())
    assert any(not torch.equal(after[n], tensor) for n, tensor in trained.items())
    assert all(torch.equal(after[n], tensor) for n, tensor in frozen.items())
    assert found.curve[-1].step == 12
    assert min(p.validation_loss for p in found.curve) == pytest.approx(trainer.loss(data), rel=1e-5)

    # Generates from a left-padded batch with a cache what one row alone gives without.
    adapted.model.eval()
    assert generate(adapted, data[:6], [1], 5) == [by_hand(adapted, row, 5) for row in data[:6]]

    # Merged, it computes the same; taken apart again, the very same.
    best = logits(adapted, data[:6])
    if adapted.merge is not None:
        with adapted.merge():
            assert torch.allclose(logits(adapted, data[:6]), best, atol=2e-4)
        assert torch.equal(logits(adapted, data[:6]), best)

    # Saved and loaded on a clean base, it gives the logits of the best step in memory; the base is as before.
    assert save(adapted, tmp_path / "adapter") > 0
    reloaded = finish(base, adapted)
    assert reloaded is (method == "full")
    assert checksum(base.model) == before
    again = load(base, spec(method).method, tmp_path / "adapter")
    assert torch.allclose(logits(again, data[:6]), best, atol=1e-5)
    assert finish(base, again) is False
    assert torch.equal(logits(Adapted(base.model, base.model), data[:6]), untouched)


@pytest.mark.parametrize(
    "method", [m for m in sorted(TRAINED_PARTS) if m not in ("prompt-tuning", "p-tuning", "prefix-tuning", "full")]
)
def test_additive_methods_start_at_the_base_model(method: str, bases: dict[str, Base]) -> None:
    base = bases["llama"]
    data = rows(base)[:6]
    untouched = logits(Adapted(base.model, base.model), data)
    adapted = applied(base, method)
    assert torch.allclose(logits(adapted, data), untouched, atol=1e-5)
    finish(base, adapted)


@pytest.mark.parametrize("method", ["lora", "p-tuning", "full", "adapter"])
def test_same_seed_same_numbers(method: str, bases: dict[str, Base]) -> None:
    base = bases["llama"]
    data = rows(base)

    def once(seed: int) -> torch.Tensor:
        adapted = applied(base, method, seed)
        Trainer(adapted, TRAINING, 1e-3, "fp32", seed).fit(data, data, Meter(), lambda _event: None)
        found = logits(adapted, data[:6]).clone()
        finish(base, adapted)
        return found

    assert torch.equal(once(0), once(0))
    assert not torch.equal(once(0), once(1))


def test_soft_prompts_stand_between_padding_and_text(bases: dict[str, Base]) -> None:
    """A row's logits do not depend on how far its batch is padded, nor on which side."""
    base = bases["llama"]
    row = rows(base)[0].prompt
    for method in ("prompt-tuning", "prefix-tuning"):
        adapted = applied(base, method)
        adapted.model.eval()
        alone = forward(adapted, torch.tensor([row]), torch.ones(1, len(row), dtype=torch.long))[0][0, -1]
        for side, last in (("left", -1), ("right", len(row) - 1)):
            ids, mask = pad([row, row + row], 0, side, torch.device("cpu"))
            virtual = 4 if method == "prompt-tuning" and side == "right" else 0
            found = forward(adapted, ids, mask)[0][0, last + virtual if last >= 0 else last]
            assert torch.allclose(found, alone, atol=1e-5)
        finish(base, adapted)


def test_bitfit_says_when_it_adds_biases(bases: dict[str, Base]) -> None:
    adapted = applied(bases["llama"], "bitfit")
    assert "no biases" in adapted.notes[0]
    finish(bases["llama"], adapted)
    adapted = applied(bases["gpt2"], "bitfit")
    assert adapted.notes == ()
    finish(bases["gpt2"], adapted)


def test_refusals_say_why(bases: dict[str, Base]) -> None:
    with pytest.raises(UserError, match="refuses gradient checkpointing: its prefix"):
        adapt(bases["llama"], METHODS["prefix-tuning"], spec("prefix-tuning", gradient_checkpointing=True))
    with pytest.raises(UserError, match=r"no layer 'nose'.*q_proj"):
        METHODS["lora"].function(bases["llama"].model, modules=["nose"])
    bases["llama"].restore()


def test_gradient_checkpointing_changes_nothing_but_memory(bases: dict[str, Base]) -> None:
    base = bases["llama"]
    data = rows(base)
    losses = []
    for checkpointing in (False, True):
        torch.manual_seed(stream(0, "init"))
        asked = spec("lora", gradient_checkpointing=checkpointing)
        adapted = adapt(base, METHODS["lora"], asked)
        trainer = Trainer(adapted, asked.train, 1e-2, "fp32", 0)
        found = trainer.fit(data, data, Meter(), lambda _event: None)
        losses.append([point.train_loss for point in found.curve])
        finish(base, adapted)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("model", ["llama", "gpt2"])
@pytest.mark.parametrize("form", ["pfeiffer", "parallel"])
def test_forms_of_the_adapter(form: str, model: str, bases: dict[str, Base]) -> None:
    base = bases[model]
    data = rows(base)
    untouched = logits(Adapted(base.model, base.model), data[:6])
    adapted = METHODS["adapter"].function(base.model, form=form)
    assert torch.allclose(logits(adapted, data[:6]), untouched, atol=1e-5)
    for name, parameter in adapted.model.named_parameters():
        parameter.requires_grad_("peft_adapter" in name)
    trainer = Trainer(adapted, TRAINING, 3e-2, "fp32", seed=0)
    start = trainer.loss(data)
    trainer.fit(data, data, Meter(), lambda _event: None)
    assert trainer.loss(data) < start
    assert finish(base, adapted) is False
