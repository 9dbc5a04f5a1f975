"""The worked example of the documentation works as it stands there; what is wrong with a method is one line."""

import inspect
import re
from pathlib import Path

import pytest
import torch

from peftbench.core.registry import load_plugin
from peftbench.engine.base_model import Base
from peftbench.methods import METHODS, Adapted
from peftbench.models import find
from test_cli import assert_one_line, call
from test_methods import finish, logits, rows

DOCUMENT = (Path(__file__).parent.parent / "docs" / "methods-from-outside.md").read_text()


def block(starts: str) -> str:
    (found,) = [code for code in re.findall(r"```\w+\n(.*?)```", DOCUMENT, re.DOTALL) if code.startswith(starts)]
    return str(found)


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("outside") / "gate.py"
    path.write_text(block("# gate.py"))
    return path


@pytest.mark.slow
def test_the_grid_of_the_example(plugin: Path, tmp_path: Path) -> None:
    """Both blocks as printed, in fewer steps: planned, run, resumed, kept, evaluated, reported."""
    grid, store = tmp_path / "gate.toml", ("--store", str(tmp_path / "r"), "--plugin", str(plugin))
    text = block("# gate.toml").replace("[256]", "[16]").replace("[0, 1]", "[0]")
    grid.write_text(text + "[train]\nmax_steps = 3\nvalidation_rows = 4\n[eval]\ntest_rows = 8\n")
    assert "low-rank-gate" in call("list", "methods", "--plugin", plugin).out
    assert call("plan", grid, *store, "--json").json["runs"] == 4
    done = call("run", grid, *store, "--workers", "1", "--keep-adapters", "--json")
    assert done.code == 0, done.err
    gates = [run for run in done.json["runs"] if run["method"] == "low-rank-gate"]
    assert {run["method_arguments"]: run["trainable_parameters"] for run in gates} == {
        f"rank={rank}": 2 * 256 * rank * 5 for rank in (2, 8)
    }
    assert all(run["status"] == "ok" and not run["base_reloaded"] for run in gates)
    assert "4 done before" in call("run", grid, *store).err
    assert "low-rank-gate" in call("report", grid, *store).out
    (kept,) = (tmp_path / "r").glob(f"*/*/*/*/*{gates[0]['id']}/adapter")
    asked = ("evaluate", "--adapter", kept, "--model", "pocket", "--tasks", "pocket_sentiment", "--test-rows", "8")
    again = call(*asked, "--size", "16", "--workers", "1", *store, "--json")
    assert again.code == 0, again.err
    (found,) = again.json["runs"]
    for name in ("score", "trainable_parameters", "extra_forward_flops_512", "adapter_bytes"):
        assert found[name] == gates[0][name]


@pytest.mark.parametrize("model", ["llama", "gpt2"])
def test_the_example_keeps_the_contract(model: str, plugin: Path, tiny_models: dict[str, Path]) -> None:
    """It starts at the base model, computes what its docstring says, and leaves nothing behind."""
    load_plugin(plugin)
    base = Base(find(str(tiny_models[model])), "fp32")
    data = rows(base)[:4]
    untouched = logits(Adapted(base.model, base.model), data)
    adapted: Adapted = METHODS["low-rank-gate"].function(base.model)
    assert torch.equal(logits(adapted, data), untouched)
    for module in adapted.model.modules():
        if hasattr(module, "gate") and isinstance(module.gate, torch.nn.Sequential):
            host = module
    host.gate[1].weight.data.normal_()
    down, up = host.gate[0].weight, host.gate[1].weight
    x = torch.randn(2, host.weight.shape[0 if model == "gpt2" else 1])
    with torch.no_grad():
        out = type(host).forward(host, x)
        assert torch.allclose(host(x), out * (1 + out @ down.T @ up.T), atol=1e-5)
    assert finish(base, adapted) is False


def test_the_example_is_short() -> None:
    function = block("# gate.py").partition("def low_rank_gate")[2]
    assert len([line for line in function.splitlines() if line.strip()]) <= 18


WRONG = {
    "model, rank=4": "put * before its argument 'rank' to make it keyword-only",
    "model, *, rank=4": "its argument 'rank' needs a type, as in n: int = 4",
    "model, *, rank: int": "argument 'rank': is missing",
}


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_a_signature_that_cannot_be_set_is_one_line(number: int, tmp_path: Path) -> None:
    signature, message = list(WRONG.items())[number]
    plugin, grid = tmp_path / "wrong.py", tmp_path / "g.toml"
    head = "from peftbench.methods import Adapted, method\n\n\n@method(learning_rate=1e-3)\n"
    plugin.write_text(f"{head}def wrong_{number}({signature}):\n    return Adapted(model, model)\n")
    grid.write_text(f'methods = ["wrong-{number}"]\ntasks = ["pocket_sentiment"]\n')
    try:
        assert_one_line(call("plan", grid, "--plugin", plugin, "--store", tmp_path / "r"), message)
    finally:
        METHODS._units.pop(f"wrong-{number}", None)


def test_what_a_method_must_return(tmp_path: Path) -> None:
    plugin, grid = tmp_path / "wrong.py", tmp_path / "g.toml"
    plugin.write_text(
        inspect.cleandoc(
            """
            from peftbench.methods import method


            @method(learning_rate=1e-3)
            def forgetful(model):
                model.requires_grad_(True)
            """
        )
    )
    grid.write_text('methods = ["forgetful"]\ntasks = ["pocket_sentiment"]\nsizes = [8]\n')
    done = call("run", grid, "--plugin", plugin, "--store", tmp_path / "r", "--workers", "1")
    METHODS._units.pop("forgetful")
    assert done.code == 2
    assert "error: method forgetful returned NoneType, not an Adapted" in done.err
