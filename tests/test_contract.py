"""The contract finds what is wrong with a method, and what it measured is what is written down."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from peftbench.checks import method_capabilities, method_check
from peftbench.cli import app
from peftbench.core.registry import UserError
from peftbench.methods import FOUR_BIT, METHODS
from peftbench.methods import capabilities as written
from peftbench.methods._peft_types import REFUSED, types

ROOT = Path(__file__).parent.parent
SAMPLE = ["prefix-tuning", "peft:xlora"]
GENERIC = """
from peftbench.methods import Adapted, method

@method(learning_rate=1e-3)
def {name}(model) -> Adapted:
    '''A method that breaks a promise.'''
    {body}
"""
BROKEN = {
    "moves-what-it-should-not": (
        "trains",
        "head = model.get_output_embeddings().weight.requires_grad_(True)\n"
        "    def after(step): model.get_input_embeddings().weight.data.add_(0.1)\n"
        "    return Adapted(model, model, after_step=after)",
    ),
    "does-not-learn": (
        "trains",
        "import torch\n"
        "    model.unused = torch.nn.Parameter(torch.zeros(3))\n"
        "    head = model.get_output_embeddings()\n"
        "    hook = head.register_forward_hook(lambda m, i, out: out + 0 * model.unused.sum())\n"
        "    def remove():\n"
        "        hook.remove()\n"
        "        del model.unused\n"
        "    return Adapted(model, model, remove=remove)",
    ),
    "forgets-its-seed": (
        "seed",
        "import time, torch\n"
        "    torch.manual_seed(time.perf_counter_ns())\n"
        "    weight = model.get_output_embeddings().weight.requires_grad_(True)\n"
        "    weight.data.add_(torch.randn_like(weight) * 0.1)\n"
        "    return Adapted(model, model)",
    ),
    "looks-at-its-batch": (
        "answers",
        "head = model.get_output_embeddings()\n"
        "    head.weight.requires_grad_(True)\n"
        "    hook = head.register_forward_hook(lambda m, i, out: out.roll(len(out), -1) if out.ndim == 3 else out)\n"
        "    return Adapted(model, model, remove=hook.remove)",
    ),
    "merges-wrongly": (
        "merge",
        "from contextlib import contextmanager\n"
        "    head = model.get_output_embeddings().weight.requires_grad_(True)\n"
        "    @contextmanager\n"
        "    def merge():\n"
        "        head.data.mul_(1.1)\n"
        "        yield\n"
        "        head.data.div_(1.1)\n"
        "    return Adapted(model, model, merge=merge)",
    ),
    "learns-half-when-checkpointed": (
        "checkpointing",
        "head = model.get_output_embeddings()\n"
        "    head.weight.requires_grad_(True)\n"
        "    def half(m, i, out): return (out + out.detach()) / 2 if model.is_gradient_checkpointing else out\n"
        "    return Adapted(model, model, remove=head.register_forward_hook(half).remove)",
    ),
    "saves-nothing-of-use": (
        "saved",
        "import torch\n"
        "    from safetensors.torch import save_file\n"
        "    names = [n for n, p in model.named_parameters() if p is model.get_output_embeddings().weight]\n"
        "    head = model.get_output_embeddings().weight.requires_grad_(True)\n"
        "    def save(folder): save_file({names[0]: torch.zeros_like(head)}, folder / 'trained.safetensors')\n"
        "    return Adapted(model, model, save=save)",
    ),
}
"""Methods by the promise that they break."""


@pytest.fixture
def units() -> Iterator[None]:
    list(METHODS)
    held = dict(METHODS._units)
    yield
    METHODS._units.clear()
    METHODS._units.update(held)


@pytest.mark.contract
@pytest.mark.usefixtures("units")
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_found(name: str, tmp_path: Path) -> None:
    about, body = BROKEN[name]
    plugin = tmp_path / f"{name.replace('-', '_')}.py"
    plugin.write_text(GENERIC.format(name=name.replace("-", "_"), body=body))
    done = CliRunner().invoke(app, ["check", "method", name, "--plugin", str(plugin), "--json"])
    assert done.exit_code == 1, done.output
    found = json.loads(done.stdout)
    problems = [one["about"] for one in found["findings"]["decoder"] if one["problem"]]
    # What does not repeat itself shows in more than one comparison.
    assert problems[0] == about
    assert len(problems) == 1 or about == "seed"


@pytest.mark.slow
def test_check_method_says_what_it_looked_at() -> None:
    done = CliRunner().invoke(app, ["check", "method", "peft", "--set", "type=VERA", "--set", "r=8"])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    for about in ("trains", "seed", "answers", "base", "saved", "merge", "checkpointing", "layers", "operations"):
        for shape in ("decoder", "encoder-decoder"):
            assert any(line.split()[:3] == ["ok", shape, about] for line in lines), (about, shape)
    assert lines[-1] == "peft:vera(r=8): no problems"


def test_a_method_that_no_model_takes_is_a_problem() -> None:
    done = CliRunner().invoke(app, ["check", "method", "peft:shadow", "--set", "target_modules=nowhere"])
    assert done.exit_code == 1
    assert "peft:shadow(target_modules=nowhere): 1 problem" in done.output


def test_check_method_asks_for_one_method() -> None:
    with pytest.raises(UserError, match="more than one method"):
        method_check.check_method("lora", {"rank": [2, 4]})
    with pytest.raises(UserError, match="peftbench evaluate"):
        method_check.check_method("saved", {"folder": "anywhere"})
    with pytest.raises(UserError, match="did you mean 'vera'"):
        method_check.check_method("peft", {"type": "VERRA"})


def test_the_table_has_every_method_and_every_type() -> None:
    """Of a later version of peft too: then measure again."""
    assert list(written()) == method_capabilities.capability_names()
    assert {f"peft:{kind}" for kind in types()} == {name for name in written() if name.startswith("peft:")}
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert page == method_capabilities.capabilities_page(written())


def test_what_is_refused_says_why() -> None:
    for name, row in written().items():
        for shape in ("decoder", "encoder-decoder"):
            assert isinstance(row[shape], bool)
            if not row[shape]:
                assert row["why"], name
        if not row["decoder"] and not row["encoder-decoder"]:
            assert [row[key] for key in ("merge", "gradient_checkpointing", "layers", "four_bit")] == [None] * 4, name
    for kind in REFUSED:
        assert written()[f"peft:{kind.lower()}"]["decoder"] is False


def comparable(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what is not measured where the library for quantised weights is not installed."""
    if importlib.util.find_spec("bitsandbytes"):
        return row
    return row | {"four_bit": None, "why": [why for why in row["why"] if not why.startswith(FOUR_BIT)]}


@pytest.mark.parametrize("name", SAMPLE)
def test_a_sample_measured_again(name: str) -> None:
    assert comparable(method_capabilities.measure_capabilities(name)) == comparable(written()[name])


@pytest.mark.contract
def test_everything_measured_again() -> None:
    there = importlib.util.find_spec("bitsandbytes")
    names = [name for name in method_capabilities.capability_names() if there or name != "qlora"]
    found = method_capabilities.measured_capabilities(names)
    assert {n: comparable(row) for n, row in found.items()} == {
        n: comparable(row) for n, row in written().items() if n in found
    }
