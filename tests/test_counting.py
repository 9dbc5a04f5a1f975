"""Parameters and operations of every type on every kind of network, without weights: as on one with weights."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoConfig

import peftbench
from peftbench.core.registry import UserError
from peftbench.grid.expand import expand
from peftbench.methods import METHODS, Adapted
from peftbench.methods._peft_types import REFUSED, types
from peftbench.profiling.parameters_and_flops import CostEstimate, estimate_costs, forward_flops
from peftbench.single_run import adapt
from test_cli import call
from test_placement import CONFIGS, build

MORE = {"num_hidden_layers": 4, "n_layer": 4, "num_layers": 3, "num_decoder_layers": 3, "n_layers": 4}
FOUR: dict[str, dict[str, Any]] = {
    **{kind: CONFIGS[kind] for kind in ("llama", "mixtral", "deepseek_v2", "gpt2", "mamba", "gemma3")},
    "bloom": CONFIGS["bloom"],
    "falcon": {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "bias": True}
    | {"multi_query": False, "parallel_attn": False, "alibi": True},
    "t5": {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 2}
    | {"num_heads": 4, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1},
}


def config(kind: str) -> Any:
    """A configuration of several layers, so that a sum over layers is not one over two."""

    def deeper(facts: dict[str, Any]) -> dict[str, Any]:
        found = {
            key: deeper(value) if isinstance(value, dict) else MORE.get(key, value) for key, value in facts.items()
        }
        if "layer_types" in found:
            found["layer_types"] = [*found["layer_types"], *found["layer_types"]]
        return found

    return AutoConfig.for_model(kind, **deeper(FOUR[kind]))


def applied(config: Any, name: str, **arguments: Any) -> int | str:
    """Trainable parameters of a method on a network with weights, or why it is refused there."""
    (spec,) = expand({"methods": [{"use": name, **arguments}], "tasks": ["pocket_topic"]})
    base: Any = SimpleNamespace(model=build("", config, "cpu"))
    try:
        adapted = adapt(base, METHODS[name], spec)
    except UserError as problem:
        return str(problem)
    return sum(int(p.numel()) for p in adapted.model.parameters() if p.requires_grad)


def estimated(config: Any, name: str, **arguments: Any) -> CostEstimate | str:
    try:
        return estimate_costs(config, name, **arguments)
    except UserError as problem:
        return str(problem)


def agree(config: Any, name: str, **arguments: Any) -> CostEstimate | str:
    """What is estimated, which is what is applied: the same number, or a refusal on either side."""
    known, real = estimated(config, name, **arguments), applied(config, name, **arguments)
    assert isinstance(known, str) == isinstance(real, str), (name, known, real)
    if isinstance(known, CostEstimate):
        assert known.trainable_parameters == real, name
        assert known.forward_flops_512 is not None or "cannot be counted without weights" in " ".join(known.notes)
    return known


READS = ("boft", "frod", "shira", "unilora", "waveft")
"""Types whose construction or pass reads values."""


@pytest.mark.parametrize("name", READS)
def test_types_that_read_values_are_counted(name: str) -> None:
    known = agree(config("llama"), f"peft:{name}")
    assert isinstance(known, CostEstimate)
    assert known.trainable_parameters


def test_a_choice_of_layers_is_made_in_the_whole_network() -> None:
    for layers in ("last-half", [0, -1]):
        assert isinstance(agree(config("deepseek_v2"), "peft:boft", layers=layers), CostEstimate)
    assert isinstance(agree(config("t5"), "peft:shira", layers="encoder:0+decoder"), CostEstimate)


def test_a_configuration_of_the_library_may_leave_out_what_no_count_depends_on() -> None:
    asked = {"peft_type": "ADALORA", "target_modules": ["q_proj"]}
    assert estimate_costs(config("llama"), asked).trainable_parameters == 4 * (12 * (32 + 32) + 12)


@pytest.mark.parametrize("kind", ["bloom", "falcon", "gemma3", "mixtral", "deepseek_v2"])
def test_operations_are_those_of_a_loaded_network(kind: str) -> None:
    model = build("", config(kind), "cpu")
    known = estimate_costs(config(kind))
    assert known.forward_flops_512 == forward_flops(Adapted(model, model))
    assert known.total_parameters == sum(p.numel() for p in model.parameters())


def test_operations_of_experts_by_hand() -> None:
    """Each token goes through two experts of four, whichever they are."""
    facts = config("mixtral")
    width, inner, length, layers = 32, 64, 512, 4
    projections = width * width * 2 + 2 * width * 16
    attention = 2 * width * length
    router, experts = width * 4, 2 * (width * 2 * inner + inner * width)
    expected = 2 * length * (layers * (projections + attention + router + experts) + width * facts.vocab_size)
    assert estimate_costs(facts).forward_flops_512 == expected


def test_the_configuration_that_is_asked_about_stays_as_it_is() -> None:
    facts = config("mixtral")
    before = (facts.to_json_string(use_diff=False), facts._experts_implementation)
    estimate_costs(facts, "lora")
    assert (facts.to_json_string(use_diff=False), facts._experts_implementation) == before


def test_infinity_in_a_configuration_is_no_fault() -> None:
    """Hybrids bound a time step by it."""
    assert estimate_costs(config_of("falcon_h1"), "lora").extra_forward_flops_512


def config_of(kind: str) -> Any:
    return AutoConfig.for_model(kind, **CONFIGS[kind])


@pytest.mark.parametrize(
    "kind", ["mixtral", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("bloom", "falcon", "deepseek_v2"))]
)
def test_what_training_will_hold_can_be_planned(kind: str, tmp_path: Path) -> None:
    """Of checkpoints of either precision, for a method that trains little and for one that trains all."""
    (tmp_path / "model").mkdir()
    config(kind).save_pretrained(tmp_path / "model")
    (tmp_path / "grid.toml").write_text(
        f'models = ["{tmp_path}/model"]\nmethods = ["lora", "full", "peft:shira"]\ntasks = ["pocket_topic"]\n'
        "sizes = [32]\n"
        '[train]\nprecision = "bf16"\nper_device_train_batch_size = 2\nmax_length = 64\n[eval]\ntest_rows = 8\n'
    )
    done = call("plan", tmp_path / "grid.toml", "--device", "a100-40gb", "--json")
    assert done.code == 0, done.err
    cells = {cell["method"]: cell for cell in done.json["cells"]}
    for name in ("lora", "full"):
        assert cells[name]["status"] == "fits", cells[name]["why"]
        assert cells[name]["peak_memory_bytes"] > cells[name]["peak_weights_bytes"] > 0
    # What reads weights cannot be rehearsed without them; its parameters are known all the same.
    shira = cells["peft:shira"]
    assert (shira["status"], shira["peak_memory_bytes"]) == ("not known", None)
    assert shira["trainable_parameters"] == applied(config(kind), "peft:shira")


def test_what_cannot_be_counted_is_missing_with_its_reason() -> None:
    """Where experts are chosen by values, no values tell which."""
    known = peftbench.estimate(config_of("switch_transformers"), "lora")
    assert known.trainable_parameters
    assert known.forward_flops_512 is None
    assert known.extra_forward_flops_512 is None
    assert any("nonzero" in note for note in known.notes)
    assert json.dumps(known.notes)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FOUR)
def test_every_type_is_counted_on_every_kind_of_network(kind: str) -> None:
    torch.manual_seed(0)
    facts, counted = config(kind), 0
    for name in [f"peft:{each}" for each in types() if each.upper() not in REFUSED]:
        inner = {"target_modules": ["in_proj"]} if kind == "mamba" else {}
        asked = inner if "layers" in METHODS[name].parameters and "ln_tuning" not in name else {}
        counted += isinstance(agree(facts, name, **asked), CostEstimate)
    assert counted >= 12
