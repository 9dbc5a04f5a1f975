"""The contract every method keeps, on three decoders and three encoder–decoders."""

from pathlib import Path
from typing import Any

import pytest
import torch

from peftbench.checks import method_check
from peftbench.core.registry import UserError
from peftbench.core.seeds import stream
from peftbench.core.spec import Choice, RunSpec, Training
from peftbench.engine.base_model import Base
from peftbench.engine.families import model_family
from peftbench.engine.families.decoder import forward, pad
from peftbench.engine.generation import generate
from peftbench.engine.phase_meter import Meter
from peftbench.engine.tokenization import Encoded, encode_examples
from peftbench.engine.train import Trainer
from peftbench.methods import METHODS, Adapted
from peftbench.models import find
from peftbench.single_run import adapt
from peftbench.tasks import TASKS
from peftbench.tasks._splits import RowLimits, split

SMALL: dict[str, dict[str, Any]] = {
    "prompt-tuning": {"tokens": 4},
    "p-tuning": {"tokens": 4, "hidden": 16},
    "prefix-tuning": {"tokens": 4, "hidden": 16},
    "lora": {"rank": 4},
    **{name: {"rank": 4} for name in ("dora", "rslora", "pissa", "olora", "loraplus", "qlora")},
    "adalora": {"rank": 2, "initial_rank": 4},
}
TRAINED_PARTS = {
    **dict.fromkeys(("lora", "dora", "rslora", "pissa", "olora", "loraplus", "adalora", "qlora"), "lora_"),
    "svft": "svft",
    "layers": "",
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
ELSEWHERE = {"saved": "test_outside.py"}
"""Methods that need files, and where they are tested."""
REFUSED = {("olora", "gpt2"): "Conv1D"}
"""Methods that refuse a model, and a word of the reason."""
LATER = pytest.mark.contract
MODELS: dict[str, Any] = {"llama": (), "gpt2": LATER, "qwen": LATER, "t5": LATER, "flan": LATER, "bart": LATER}
"""Shapes of models; the default suite has no time for all."""
VARIANTS = ("dora", "rslora", "olora", "loraplus", "svft")
"""Methods that differ from others by a detail, for which the default suite has no time either."""
CELLS = [
    pytest.param(name, model, marks=LATER if name in VARIANTS else marks)
    for name in sorted({unit.name for unit in METHODS} - {*ELSEWHERE})
    for model, marks in MODELS.items()
]
TRAINING = Training(max_steps=12, eval_steps=0.25, per_device_train_batch_size=4, warmup_steps=0)


@pytest.fixture(scope="module")
def folders(tiny_models: dict[str, Path], tiny_seq2seq: dict[str, Path]) -> dict[str, Path]:
    return tiny_models | tiny_seq2seq


@pytest.fixture(scope="module")
def bases(folders: dict[str, Path]) -> dict[str, Base]:
    return {name: Base(find(str(folder)), "fp32") for name, folder in folders.items()}


def rows(base: Base, count: int = 24) -> list[Encoded]:
    task = TASKS["pocket_sentiment"]
    splits = split(task, {}, count, 0, RowLimits(8, 8), root=None)
    return encode_examples(base.encoder(task.facts, 128), splits.train)


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
    adapted.model.eval()
    with torch.no_grad():
        return model_family(adapted.network.config).read(adapted, [row.prompt for row in data])[0]


def finish(base: Base, adapted: Adapted) -> bool:
    if adapted.remove is not None:
        adapted.remove()
    return base.restore()


@pytest.mark.parametrize(("method", "model"), CELLS)
def test_contract(method: str, model: str, folders: dict[str, Path]) -> None:
    """The contract is `peftbench.checks.method_contract`; here: it is kept, and what is trained and left."""
    asked = method_check.tiny_spec(method, SMALL.get(method, {}))
    found = list(method_check.on(folders[model], asked, abilities=model in ("llama", "flan")))
    if (method, model) in REFUSED:
        assert REFUSED[method, model] in found[0].facts["refused"]
        return
    assert not [finding for finding in found if finding.problem]
    facts = {finding.about: finding.facts for finding in found}
    if method != "none":
        assert all(TRAINED_PARTS[method] in name for name in facts["trains"]["names"])
        assert facts["base"]["base"] == ("reloaded" if method == "full" else "unchanged")


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


@pytest.mark.parametrize("model", ["gpt2", "bart", "t5"])
@pytest.mark.parametrize("method", ["bitfit", "lntuning", "adapter", "prefix-tuning", "prompt-tuning"])
def test_a_base_of_low_precision_is_trained_in_full(method: str, model: str, bases: dict[str, Base]) -> None:
    """What is trained is float32 beside weights in bfloat16; the base is then as it was."""
    base = Base(bases[model].ref, "bf16")
    data, adapted = rows(base, 8), applied(base, method)
    assert all(p.dtype == torch.float32 for p in adapted.model.parameters() if p.requires_grad)
    trainer = Trainer(adapted, TRAINING.model_copy(update={"max_steps": 2}), 1e-2, "bf16", seed=0)
    assert trainer.fit(data, data, Meter(), lambda _event: None).steps == 2
    with torch.autocast("cpu", torch.bfloat16):
        assert len(generate(adapted, data, base.ends, 3)) == 8
    assert finish(base, adapted) is False


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


@pytest.mark.parametrize("model", ["llama", "gpt2", "t5", "flan", "bart"])
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
