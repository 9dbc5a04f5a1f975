"""The generic door: every tuner of the installed peft as a method of a grid."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import peftbench
from peftbench.core.registry import UserError
from peftbench.core.spec import RunSpec
from peftbench.engine.base_model import Base
from peftbench.grid.expand import expand
from peftbench.methods import METHODS, Adapted
from peftbench.methods._peft_types import types
from peftbench.models import find
from peftbench.single_run import Worker, run


def specs(*entries: Any, **keys: Any) -> list[RunSpec]:
    return expand({"methods": list(entries), "tasks": ["pocket_topic"], **keys})


@pytest.fixture(scope="module")
def base(tiny_models: dict[str, Path]) -> Base:
    return Base(find(str(tiny_models["llama"])), "fp32")


def trained(base: Base, name: str, **arguments: Any) -> tuple[list[str], Adapted]:
    """Names of what a method trains, and the method, taken off again."""
    adapted: Adapted = METHODS[name].function(base.model, **arguments)
    names = [n for n, p in adapted.model.named_parameters() if p.requires_grad]
    if adapted.remove is not None:
        adapted.remove()
    base.restore()
    return names, adapted


# In a grid


def test_types_are_the_librarys_own() -> None:
    from peft import PeftType

    assert types() == sorted(kind.value.lower() for kind in PeftType)


def test_a_type_is_a_method_of_its_own_name_with_its_own_runs() -> None:
    by_key, by_name, other = specs({"use": "peft", "type": "VERA", "r": [8, 16]}, "peft:loha")
    assert [str(s.method) for s in (by_key, by_name, other)] == ["peft:vera(r=8)", "peft:vera(r=16)", "peft:loha"]
    assert len({by_key.id, by_name.id, other.id}) == 3
    assert specs({"use": "peft:VERA", "r": 8}) == [by_key]
    assert str(by_key.method.version).startswith("peft 0.")


def test_defaults_of_the_library_are_no_arguments() -> None:
    (spec,) = specs({"use": "peft", "type": "vera", "r": 256, "d_initial": 0.1})
    assert spec.method.arguments == {}


def test_types_are_swept_and_settings_stand_among_arguments() -> None:
    found = specs({"use": "peft", "type": ["VERA", "LOHA"], "r": [4, 8], "learning_rate": 0.01})
    assert [str(s.method) for s in found] == ["peft:vera(r=4)", "peft:vera(r=8)", "peft:loha(r=4)", "peft:loha"]
    assert {s.train.learning_rate for s in found} == {0.01}


def test_all_types_are_runs_even_those_that_will_be_refused() -> None:
    assert [s.method.name for s in specs({"use": "peft", "type": "all"})] == [f"peft:{kind}" for kind in types()]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"use": "peft"}, r"method 'peft' needs type: \"all\", or one or more of adalora, .*xlora"),
        ({"use": "peft", "type": 3}, "method 'peft' needs type"),
        ({"use": "peft", "type": []}, "method 'peft' needs type"),
        ({"use": "peft", "type": "VERRA"}, "unknown type of peft 'verra': did you mean 'vera'"),
        ({"use": "peft", "type": "VERA", "rr": 8}, "unknown argument of method 'peft:vera' 'rr': did you mean 'r'"),
        ({"use": "peft", "type": "VERA", "r": "many"}, "method 'peft:vera', argument 'r': must be a whole number"),
        ({"use": "peft", "type": "VERA", "layers": "frist-half"}, "did you mean 'first-half'"),
        (
            {"use": "peft", "type": "LORA", "init_lora_weights": "pisa"},
            r"init_lora_weights': must be true or false or one of .*'pissa'",
        ),
        ({"use": "peft", "type": "OFT", "r": 4}, "peft:oft: You can only specify either r"),
        ({"use": "peft", "type": "XLORA"}, "peft:xlora cannot be run here: it mixes"),
        ({"use": "peft", "type": "SHADOW", "auxiliary_loss_weight": 0.1}, "auxiliary_loss_weight must be 0"),
        ({"use": "pefft", "type": "VERA"}, "unknown method 'pefft': did you mean 'peft'"),
        ({"use": "peft:vera", "type": "VERA"}, "unknown argument of method 'peft:vera' 'type'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(entry: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as problem:
        specs(entry)
    assert "\n" not in str(problem.value)


def test_rules_may_name_types() -> None:
    found = specs("lora", {"use": "peft", "type": ["VERA", "LOHA"]}, **{"except": [{"method": "peft:*a"}]})
    assert [s.method.name for s in found] == ["lora"]


def test_a_grid_without_it_needs_no_library() -> None:
    code = (
        "import sys; from peftbench.grid.expand import expand;"
        "expand({'methods': ['lora'], 'tasks': ['pocket_topic']});"
        "print([name for name in ('torch', 'peft') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# On a model


def test_where_it_goes(base: Base) -> None:
    names, adapted = trained(base, "peft:vera")
    assert {name.split(".")[-3] for name in names if "lambda_b" in name} == {"q_proj", "v_proj"}
    assert "put on q, v" in adapted.notes
    for asked in (["mlp"], "mlp", r".*\.(gate|up|down)_proj"):
        names, adapted = trained(base, "peft:loha", target_modules=asked)
        assert {name.split(".")[-3] for name in names} == {"gate_proj", "up_proj", "down_proj"}
        assert adapted.notes == ()
    with pytest.raises(UserError, match="no layer 'nose' in this model"):
        trained(base, "peft:loha", target_modules=["nose"])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("peft:loha", {}),
        ("peft:ia3", {}),
        ("peft:ln_tuning", {}),
        ("peft:ln_tuning", {"target_modules": ["input_layernorm"]}),
        ("peft:road", {"target_modules": r".*_proj"}),
    ],
)
def test_layers_are_chosen_for_every_kind_of_type(name: str, arguments: dict[str, Any], base: Base) -> None:
    everywhere, _ = trained(base, name, **arguments)
    one, _ = trained(base, name, layers=[1], **arguments)
    assert one == [each for each in everywhere if ".layers.1." in each]
    assert len(one) < len(everywhere)


def test_ia3_scales_the_inputs_of_the_feed_forward(base: Base) -> None:
    shapes = {
        tuple(p.shape)
        for n, p in METHODS["peft:ia3"].function(base.model).model.named_parameters()
        if "down_proj.ia3" in n
    }
    assert shapes == {(1, 96)}
    base.restore()


def test_sizes_that_do_not_fit_are_made_to_and_said(base: Base) -> None:
    _, adapted = trained(base, "peft:c3a")
    assert "block_size = 32: the library's default does not fit this model" in adapted.notes
    with pytest.raises(UserError, match="peft:c3a on this llama model: The block size should be a factor"):
        METHODS["peft:c3a"].function(base.model, block_size=48)
    base.restore()


def test_what_the_library_refuses_is_a_reason(tiny_models: dict[str, Path]) -> None:
    gpt2 = Base(find(str(tiny_models["gpt2"])), "fp32")
    with pytest.raises(UserError, match=r"peft:hra on this gpt2 model: Target module Conv1D.*not supported"):
        METHODS["peft:hra"].function(gpt2.model)
    qwen = Base(find(str(tiny_models["qwen"])), "fp32")
    with pytest.raises(UserError, match="Unsupported model type for adaption prompt: 'qwen2'"):
        METHODS["peft:adaption_prompt"].function(qwen.model)
    assert qwen.restore() is False


def test_parameters_without_weights(tiny_models: dict[str, Path]) -> None:
    """`estimate` takes the names that grids take."""
    model = str(tiny_models["llama"])
    found = peftbench.estimate(model, "peft:lora", r=16, target_modules=["k", "v", "down"])
    assert found == peftbench.estimate(model, "lora", dropout=0.0)


# As a run


def result(entry: Any, model: Path, tmp_path: Path) -> Any:
    settings = {"max_steps": 2, "eval_steps": 1.0, "validation_rows": 8, "learning_rate": 0.01}
    (spec, *_) = specs(entry, models=[str(model)], sizes=[16], train=settings, eval={"test_rows": 8})
    return run(spec, Worker(), tmp_path, lambda _event: None)[0]


def test_a_type_that_is_refused_is_a_row_with_its_reason(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    every = specs({"use": "peft", "type": "all"}, models=[str(tiny_models["llama"])], sizes=[16], eval={"test_rows": 8})
    (xlora,) = [spec for spec in every if spec.method.name == "peft:xlora"]
    found = run(xlora, Worker(), tmp_path, lambda _event: None)[0]
    assert found.status == "refused"
    assert found.error is not None
    assert re.match("peft:xlora cannot be run here: it mixes", found.error)


@pytest.mark.parametrize("name", ["peft:boft", "peft:shira", "peft:adalora", "peft:poly"])
def test_types_with_needs_of_their_own_run(name: str, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    found = result(name, tiny_models["llama"], tmp_path)
    assert found.status == "ok", found.error
    assert found.costs.trainable_parameters
    # Two of these cannot be counted on meta tensors, and are counted on the model.
    assert found.costs.forward_flops_512
    assert found.costs.extra_forward_flops_512 is not None
    assert found.costs.extra_forward_flops_512 >= 0
    assert found.base_reloaded is False


def test_operations_that_cannot_be_counted_are_missing(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peftbench.profiling import parameters_and_flops

    def refuse(*_arguments: object) -> int:
        raise RuntimeError("no formula")

    monkeypatch.setattr(parameters_and_flops, "operations", refuse)
    found = result("peft:vera", tiny_models["llama"], tmp_path)
    assert found.status == "ok"
    assert found.costs.forward_flops_512 is None
    assert found.costs.extra_forward_flops_512 is None
    assert "floating-point operations cannot be counted: RuntimeError: no formula" in found.notes
