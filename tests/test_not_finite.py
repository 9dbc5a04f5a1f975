"""Numbers that are not finite end a run as `diverged`, wherever they come up; they never rank."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from peftbench import single_run
from peftbench.core.spec import RunResult, Training
from peftbench.engine.base_model import Base
from peftbench.engine.checkpoint import save_checkpoint
from peftbench.engine.exceptions import DivergedError
from peftbench.engine.generation import generate, rank_choices
from peftbench.engine.phase_meter import Meter
from peftbench.engine.tokenization import Encoded, encode_examples
from peftbench.engine.train import Trainer, summed_loss
from peftbench.grid.expand import expand
from peftbench.methods import METHODS, Adapted
from peftbench.models import find
from peftbench.single_run import Worker
from peftbench.tasks import TASKS
from peftbench.tasks._splits import RowLimits, split

RANKED, GENERATED = "pocket_sentiment", "pocket_data_to_text"


@pytest.fixture(scope="module")
def base(tiny_models: dict[str, Path]) -> Base:
    return Base(find(str(tiny_models["llama"])), "fp32")


def rows(base: Base, task: str = RANKED, count: int = 8) -> list[Encoded]:
    unit = TASKS[task]
    return encode_examples(base.encoder(unit.facts, 128), split(unit, {}, count, 0, RowLimits(4, 4), root=None).train)


def done(model: Path, method: Any, task: str, folder: Path) -> RunResult:
    grid: dict[str, Any] = {"models": [str(model)], "methods": [method], "tasks": [task], "sizes": [16]}
    (spec,) = expand(grid | {"train": {"max_steps": 1}, "eval": {"test_rows": 4}})
    folder.mkdir(exist_ok=True)
    return single_run.run(spec, Worker(), folder, lambda _: None)[0]


def not_a_number(_name: str, tensor: torch.Tensor) -> torch.Tensor:
    return torch.full_like(tensor, math.nan)


def one_row(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if "lora_B" in name:
        tensor[1] = math.nan
    return tensor


def infinite(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if "layers.1" in name:
        tensor.flatten()[0] = math.inf
    return tensor


@pytest.mark.parametrize(
    ("method", "spoil"),
    [
        ("lora", not_a_number),
        ("prompt-tuning", not_a_number),
        *(
            pytest.param(method, spoil, marks=pytest.mark.slow)
            for method, spoil in (("lora", one_row), ("lora", infinite), ("ia3", not_a_number), ("ia3", infinite))
        ),
    ],
)
def test_a_saved_adapter_that_is_not_finite(
    method: str, spoil: Callable[[str, torch.Tensor], torch.Tensor], base: Base, tmp_path: Path
) -> None:
    adapted = METHODS[method].function(base.model)
    save_checkpoint(adapted, tmp_path / "kept")
    adapted.remove()
    (file,) = (tmp_path / "kept").glob("*.safetensors")
    save_file({name: spoil(name, tensor) for name, tensor in load_file(file).items()}, file)
    for task in (RANKED, GENERATED):
        found = done(Path(base.ref.source), {"use": "saved", "folder": str(tmp_path / "kept")}, task, tmp_path / task)
        assert found.status == "diverged", found.error
        assert "not finite" in str(found.error)
        assert found.scores == {}


@pytest.mark.parametrize("bad", [math.nan, pytest.param(math.inf, marks=pytest.mark.slow)])
def test_a_base_that_answers_what_is_not_finite(bad: float, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """One token's row of the head: all other logits are as ever."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_models["llama"], folder)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][3000] = bad
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for task in (RANKED, GENERATED):
        found = done(folder, "none", task, tmp_path / task)
        assert found.status == "diverged", found.error
        assert "answering: the logits of row " in str(found.error)


def test_tokens_that_may_never_come_are_no_fault(base: Base) -> None:
    """Some models give minus infinity to part of their vocabulary, which may be what a batch is padded with."""
    plain = Adapted(base.model, base.model)
    written = rows(base, GENERATED)
    # The shorter choice is padded.
    asked = [replace(row, choices=(row.choices[0], [*row.choices[1][:-1], 700, 701, 1])) for row in rows(base)]
    answers = generate(plain, written, base.ends, 6)
    used = {token for row in asked for choice in row.choices for token in choice} | {t for a in answers for t in a}
    masked = [token for token in range(len(base.tokenizer)) if token not in {*used, *base.ends}]
    assert 0 in masked

    def mask(_network: Any, _inputs: Any, output: Any) -> Any:
        output.logits[..., masked] = -math.inf
        return output

    hook = base.model.register_forward_hook(mask)
    try:
        with torch.no_grad():
            losses = [[summed_loss(plain, [Encoded(row.prompt, one)]).item() for one in row.choices] for row in asked]
        assert rank_choices(plain, asked) == [each.index(min(each)) for each in losses]
        assert generate(plain, written, base.ends, 6) == answers
        masked = list(range(len(base.tokenizer)))
        for ask in (lambda: rank_choices(plain, asked), lambda: generate(plain, written, base.ends, 6)):
            with pytest.raises(DivergedError, match="answering: the logits of row 1 are not finite"):
                ask()
    finally:
        hook.remove()


def fit(adapted: Adapted, base: Base, steps: int = 4, **training: Any) -> None:
    asked = Training(max_steps=steps, eval_steps=float(steps), warmup_steps=0, **training)
    Trainer(adapted, asked, 1e-3, "fp32", 0).fit(rows(base), rows(base)[:2], Meter(), lambda _: None)


def test_gradients_that_are_not_finite(base: Base) -> None:
    """The loss is; of the last step it would be seen nowhere else, as the weights are tested as they are."""
    adapted = METHODS["ia3"].function(base.model)
    scale = next(p for p in adapted.model.parameters() if p.requires_grad)
    steps = [0]

    def penalty() -> torch.Tensor:
        # Its value is zero and its slope infinite, from the third step on; the two before are those of the meter.
        steps[0] += 1
        total: torch.Tensor = (scale - scale.detach()).abs().sqrt().sum() if steps[0] >= 5 else 0 * scale.sum()
        return total

    adapted.penalty = penalty
    with pytest.raises(DivergedError, match=r"the norm of the gradients became (nan|inf) at step 3"):
        fit(adapted, base)
    adapted.remove()
    base.restore()


def test_a_trained_weight_that_is_not_finite_and_that_no_loss_shows(base: Base) -> None:
    adapted = METHODS["full"].function(base.model)
    unused = max(set(range(len(base.tokenizer))) - {t for row in rows(base) for t in (*row.prompt, *row.target)})

    def after_step(step: int) -> None:
        if step == 2:
            base.model.model.embed_tokens.weight.data[unused] = math.inf

    adapted.after_step = after_step
    with pytest.raises(DivergedError, match=r"after step 4: the weight model\.embed_tokens\.weight is not finite"):
        fit(adapted, base)
    base.restore()


@pytest.mark.parametrize("training", [True, False])
def test_a_loss_that_is_not_finite(training: bool, base: Base) -> None:
    adapted = METHODS["ia3"].function(base.model)

    def spoil(network: Any, _inputs: Any, output: Any) -> Any:
        if network.training == training:
            output.logits = output.logits * math.inf
        return output

    hook = base.model.register_forward_hook(spoil)
    loss = "training loss became nan at step 1" if training else "validation loss became nan at step 4"
    with pytest.raises(DivergedError, match=loss):
        fit(adapted, base)
    hook.remove()
    adapted.remove()
    base.restore()
