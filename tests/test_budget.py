"""Ranks from a budget of parameters: the largest that fits, of every LoRA-like method, on every place."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import peftbench
from peftbench.core.registry import UserError
from peftbench.core.spec import Choice
from peftbench.engine.base_model import Base
from peftbench.engine.checkpoint import load_checkpoint, save_checkpoint
from peftbench.methods import METHODS, Adapted
from peftbench.methods._low_rank import solved
from peftbench.models import find
from peftbench.models.target_modules import target_module_names
from test_methods import finish, logits, rows
from test_places import build, model

METHODS_OF_A_BUDGET = ("lora", "dora", "rslora", "loraplus", "qlora")
"""Those whose start does not need weights, which the models here lack."""


def applied(shape: str, method: str, **arguments: Any) -> Adapted:
    adapted: Adapted = METHODS[method].function(build(shape), **arguments)
    return adapted


def trained(adapted: Adapted) -> int:
    return sum(p.numel() for p in adapted.model.parameters() if p.requires_grad)


def ranks(adapted: Adapted) -> set[int]:
    return {len(p) for name, p in adapted.model.named_parameters() if "lora_A" in name}


def scales(adapted: Adapted) -> set[float]:
    return {module.scaling["default"] for module in adapted.model.modules() if hasattr(module, "lora_A")}


def test_the_rank_is_the_budget_over_inputs_and_outputs() -> None:
    """Llama of width 16: q is 16 to 16 and down 24 to 16, five layers of each: 5 * (32 + 40) = 360 a rank."""
    for budget, rank in ((360, 1), (719, 1), (720, 2), (3_000, 8)):
        adapted = applied("llama", "lora", modules=["q", "down"], parameters=budget)
        assert ranks(adapted) == {rank}
        assert trained(adapted) == 360 * rank
    with pytest.raises(UserError, match=r"parameters = 359 is too few for these 10 linear layers, .* trains 360: give"):
        applied("llama", "lora", modules=["q", "down"], parameters=359)


def test_fewer_layers_have_a_higher_rank_and_the_same_scale() -> None:
    """A layer has k and v, 16 to 8, and down: 24 + 24 + 40 = 88 a rank."""
    found = [applied("llama", "lora", layers=where, parameters=3_600) for where in ("all", [1], [0, 4])]
    assert list(map(ranks, found)) == [{8}, {40}, {20}]
    assert list(map(scales, found)) == [{1.0}] * 3
    assert found[0].notes == ("rank 8, alpha 8: the largest rank of at most 3,600 parameters",)


@pytest.mark.parametrize(("method", "scale"), [("lora", 4.0), ("rslora", 8.0), ("dora", 4.0), ("loraplus", 4.0)])
def test_the_scale_is_what_rank_and_alpha_say(method: str, scale: float) -> None:
    """Alpha 16 with rank 4: 16 / 4, and 16 / √4 in the rank-stabilised form."""
    for budget in (1_500, 20_000):
        (found,) = scales(applied("llama", method, rank=4, alpha=16, parameters=budget))
        assert found == pytest.approx(scale)


def test_the_lengths_of_dora_count() -> None:
    """Of q and down: 5 * (16 + 16) = 160 lengths beside 360 a rank."""
    adapted = applied("llama", "dora", modules=["q", "down"], parameters=879)
    assert (ranks(adapted), trained(adapted)) == ({1}, 520)
    assert trained(applied("llama", "dora", modules=["q", "down"], parameters=880)) == 880
    with pytest.raises(UserError, match="rank 1 trains 520"):
        applied("llama", "dora", modules=["q", "down"], parameters=519)


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(METHODS_OF_A_BUDGET),
    st.sampled_from(["llama", "gpt2", "t5"]),
    st.sampled_from(["all", "first-half", "every-other"]),
    st.sampled_from(["attention", "mlp", "all-linear"]),
    st.integers(3_000, 60_000),
)
def test_no_higher_rank_is_within_the_budget(method: str, shape: str, layers: str, modules: str, budget: int) -> None:
    where = {"layers": layers, "modules": modules}
    adapted = applied(shape, method, parameters=budget, **where)
    (rank,) = ranks(adapted)
    assert trained(adapted) <= budget < trained(applied(shape, method, rank=rank + 1, **where))


def test_without_a_budget_nothing_changes() -> None:
    assert solved(model("llama"), target_module_names(model("llama"), "q"), (3, 7, None)) == (3, 7)
    assert applied("llama", "lora").notes == ()


def test_a_budget_on_a_model_with_weights(tiny_models: dict[str, Path]) -> None:
    """PiSSA and OLoRA start from the weights; OLoRA is refused a rank that its layers do not have."""
    for method in ("pissa", "olora"):
        found = peftbench.estimate(str(tiny_models["llama"]), method, parameters=5_000).trainable_parameters
        one = peftbench.estimate(str(tiny_models["llama"]), method, rank=1).trainable_parameters
        assert found is not None
        assert one is not None
        assert found == 5_000 // one * one
    with pytest.raises(UserError, match=r"olora: rank \d+ is more than .* has, 32"):
        peftbench.estimate(str(tiny_models["llama"]), "olora", parameters=500_000)


@pytest.mark.parametrize("method", ["lora", "rslora"])
def test_an_alpha_that_is_no_whole_number_comes_back(method: str, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """Rank 7 of a scale that was said for rank 3: alpha is 5 * 7 / 3, or 5 * √(7 / 3)."""
    base = Base(find(str(tiny_models["llama"])), "fp32")
    one = trained(METHODS[method].function(base.model, rank=1, dropout=0.0))
    base = Base(find(str(tiny_models["llama"])), "fp32")
    adapted = METHODS[method].function(base.model, rank=3, alpha=5, dropout=0.0, parameters=7 * one)
    for name, parameter in adapted.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    before = logits(adapted, rows(base)[:2])
    save_checkpoint(adapted, tmp_path / "adapter")
    finish(base, adapted)
    again = load_checkpoint(base, Choice(name=method), tmp_path / "adapter")
    assert ranks(again) == {7}
    assert torch.allclose(logits(again, rows(base)[:2]), before, atol=1e-6)


@pytest.mark.parametrize("wrong", [0, -5, 2.5, "many"])
def test_a_budget_is_a_whole_number_above_0(wrong: object) -> None:
    with pytest.raises(UserError, match="argument 'parameters'"):
        METHODS["lora"].check({"parameters": wrong})


def test_a_run_without_a_budget_keeps_its_id() -> None:
    assert METHODS["lora"].check({"parameters": None, "rank": 8}) == {"rank": 8}
    assert METHODS["lora"].check({"parameters": 50_000}) == {"parameters": 50_000}
