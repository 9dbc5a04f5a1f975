"""Which precision runs have, and that attention in bfloat16 on a CPU is the same function."""

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

import peftbench
from peftbench.core import device
from peftbench.core.spec import RunSpec
from peftbench.engine import bf16_cpu_attention, precision
from peftbench.engine.base_model import Base
from peftbench.engine.precision import Precision, bf16_speed_up, decide_precision, decided_precision, layer_shape
from peftbench.engine.tokenization import Encoded
from peftbench.launch import Options, capacity
from peftbench.methods import Adapted
from peftbench.models import find, known_models

GRID: dict[str, Any] = {
    "methods": ["none", "bitfit"],
    "tasks": ["pocket_sentiment"],
    "sizes": [8],
    "train": {"max_steps": 2, "validation_rows": 4},
    "eval": {"test_rows": 4},
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("PEFTBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def decide(cache: Path, shape: tuple[int, int], what: str) -> None:
    """Write a decision into the cache."""
    cache.mkdir(exist_ok=True)
    (cache / "precision.json").write_text(json.dumps({precision._key(shape, 1): what}))


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 3),
    length=st.integers(1, 12),
    before=st.integers(0, 5),
    groups=st.sampled_from([1, 2]),
    mask=st.sampled_from(["none", "boolean", "added"]),
    seed=st.integers(0, 99),
)
def test_bf16_cpu_attention_is_the_function_of_torch(
    rows: int, length: int, before: int, groups: int, mask: str, seed: int
) -> None:
    torch.manual_seed(seed)
    # Without a mask `transformers` has keys before the queries in decoding alone, where each is seen.
    before = before if mask != "none" or length == 1 else 0
    module: Any = SimpleNamespace(num_key_value_groups=groups, is_causal=True)
    query = torch.randn(rows, 4, length, 8)
    key, value = (torch.randn(rows, 4 // groups, before + length, 8) for _ in range(2))
    seen = torch.ones(length, before + length, dtype=torch.bool).tril(before).expand(rows, 1, -1, -1).clone()
    given_mask = {"none": None, "boolean": seen, "added": torch.where(seen, 0.0, -1e9).bfloat16()}[mask]
    found = []
    for attend in (bf16_cpu_attention.bf16_cpu_attention, sdpa_attention_forward):
        inputs = [x.bfloat16().requires_grad_() for x in (query, key, value)]
        q, k, v = inputs
        out, _ = attend(module, q, k, v, given_mask, scaling=0.3)
        out.float().square().sum().backward()
        found.append([out.float(), *(x.grad.float() for x in inputs if x.grad is not None)])
    assert len(found[0]) == 4
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("dtype", "length", "more"),
    [
        (torch.float32, 4, {}),
        (torch.bfloat16, bf16_cpu_attention.LONGEST + 1, {}),
        (torch.bfloat16, 4, {"dropout": 0.5}),
    ],
)
def test_what_is_not_bf16_cpu_attention_in_bfloat16_goes_to_torch(
    dtype: torch.dtype, length: int, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bf16_cpu_attention, "sdpa_attention_forward", lambda *_args, **_asked: ("torch's", None))
    x = torch.randn(1, 2, length, 8, dtype=dtype)
    assert bf16_cpu_attention.bf16_cpu_attention(SimpleNamespace(), x, x, x, None, **more)[0] == "torch's"


def test_an_argument_that_is_not_known_goes_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a model of tomorrow asks of its attention is not left out."""
    monkeypatch.setattr(bf16_cpu_attention, "sdpa_attention_forward", lambda *_args, **_asked: ("torch's", None))
    x = torch.randn(1, 2, 4, 8, dtype=torch.bfloat16)
    assert bf16_cpu_attention.bf16_cpu_attention(SimpleNamespace(), x, x, x, None, position_bias=x)[0] == "torch's"


def test_every_known_model_tells_its_shape() -> None:
    for name, model in known_models().items():
        config = model.config or json.loads((Path(model.source) / "config.json").read_text())
        assert layer_shape(config), name
    assert layer_shape({"n_embd": 64, "n_inner": None}) == (64, 256)
    assert layer_shape({"text_config": {"hidden_size": 32, "intermediate_size": 48}}) == (32, 48)
    assert layer_shape({"hidden_size": 4096, "intermediate_size": 14336}) == (1024, 3584)
    assert layer_shape({}) is None


@pytest.mark.parametrize(("ratio", "expected"), [(1.69, "fp32"), (1.71, "bf16")])
def test_a_shape_is_measured_once(ratio: float, expected: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "has_gpu", lambda: False)
    monkeypatch.setattr(precision, "bf16_speed_up", lambda _shape: ratio)
    assert decided_precision((64, 96), 1) is None
    assert decide_precision((64, 96), 1) == expected
    monkeypatch.setattr(precision, "bf16_speed_up", lambda _shape: 1 / 0)
    assert decide_precision((64, 96), 1) == decided_precision((64, 96), 1) == expected
    assert decided_precision((64, 96), 2) is None, "other threads are another question"
    (cache / "precision.json").write_text("no JSON")
    assert decided_precision((64, 96), 1) is None


def test_the_measurement_is_the_ratio_of_float32_to_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {torch.float32: 0.02, torch.bfloat16: 0.005}
    monkeypatch.setattr(precision, "_layer_step", lambda _shape, dtype: lambda: time.sleep(seconds[dtype]))
    assert bf16_speed_up((64, 96)) == pytest.approx(4, rel=0.2)


def test_both_precisions_of_the_measured_layer_compute_the_same() -> None:
    gradients = {}
    for dtype in (torch.float32, torch.bfloat16):
        (found,) = cast("tuple[torch.Tensor]", precision._layer_step((64, 96), dtype)())
        gradients[dtype] = found.float()
    torch.testing.assert_close(gradients[torch.bfloat16], gradients[torch.float32], rtol=0.1, atol=0.2)


@pytest.mark.usefixtures("cache")
def test_a_configuration_that_leaves_out_its_defaults_has_a_shape(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    """As files of composite models do."""
    folder = shutil.copytree(tiny_models["llama"], tmp_path / "short")
    facts = json.loads((folder / "config.json").read_text())
    for name in ("hidden_size", "intermediate_size"):
        facts.pop(name)
    (folder / "config.json").write_text(json.dumps(facts))
    expected = layer_shape(AutoConfig.from_pretrained(folder).to_dict())
    assert expected is not None
    assert capacity._shape(str(folder), find(str(folder)).version) == expected


def test_a_board_of_two_precisions_says_so(cache: Path, tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    """A store that was begun in float32 is continued in bfloat16."""
    said = []
    for chosen, method in (("fp32", "none"), ("bf16", "bitfit")):
        decide(cache, (64, 96), chosen)
        peftbench.run(
            GRID | {"models": [str(tiny_models["llama"])], "methods": [method]},
            tmp_path / "store",
            workers=1,
            progress=False,
        )
        peftbench.load_results(tmp_path / "store").report(tmp_path / "out")
        said.append((tmp_path / "out" / "leaderboard.md").read_text())
    assert ["The runs differ in precision (bf16, fp32)" in text for text in said] == [False, True]


@pytest.mark.parametrize("chosen", ["fp32", "bf16"])
def test_the_launcher_chooses_for_every_worker(
    chosen: str, cache: Path, tmp_path: Path, tiny_models: dict[str, Path]
) -> None:
    decide(cache, (64, 96), chosen)
    grid = GRID | {"models": [str(tiny_models["llama"])]}
    table = peftbench.run(grid, tmp_path / "store", workers=1, progress=False)
    assert list(table["status"]) == ["ok", "ok"]
    assert set(table["precision"]) == {chosen}
    # Said by the run, so that it is done again in the same precision, whatever is chosen now.
    decide(cache, (64, 96), "fp32" if chosen == "bf16" else "bf16")
    assert peftbench.reproduce(table["id"][0], tmp_path / "store", progress=False).same


def test_what_a_grid_says_is_not_asked_of_the_machine(
    cache: Path, tmp_path: Path, tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "_measured", lambda *_: pytest.fail("measured"))
    decide(cache, (64, 96), "bf16")
    grid = GRID | {"models": [str(tiny_models["llama"])], "methods": ["none"]}
    grid["train"] = {**GRID["train"], "precision": "fp32"}
    assert set(peftbench.run(grid, tmp_path / "store", workers=1, progress=False)["precision"]) == {"fp32"}


def specs(model: Path) -> list[RunSpec]:
    return list(peftbench.plan(GRID | {"models": [str(model)]}, "nowhere")["specs"])


@pytest.mark.usefixtures("cache")
def test_a_measurement_that_fails_says_what_to_do(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(peftbench.UserError, match=r"could not be measured: exit code 1\. Set precision in \[train\]"):
        capacity.chosen_precisions(specs(tiny_models["llama"]), Options())


@pytest.mark.usefixtures("cache")
def test_the_real_measurement_is_kept(tiny_models: dict[str, Path]) -> None:
    chosen = capacity.chosen_precisions(specs(tiny_models["llama"]), Options())
    assert chosen == {str(tiny_models["llama"]): decided_precision((64, 96), 1)}


@pytest.mark.parametrize("architecture", ["llama", "qwen", "gpt2"])
def test_a_base_in_bfloat16_uses_bf16_cpu_attention_on_a_cpu(
    architecture: str, tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "has_gpu", lambda: False)
    used: list[torch.Tensor] = []
    by_products = bf16_cpu_attention.by_products

    def watched(query: torch.Tensor, *others: Any, causal: bool) -> torch.Tensor:
        used.append(query)
        return by_products(query, *others, causal=causal)

    monkeypatch.setattr(bf16_cpu_attention, "by_products", watched)
    rows = [Encoded([5, 6, 7, 8], [9, 1]), Encoded([5, 6], [9, 1])]
    found = {}
    asked: list[tuple[Precision, str]] = [("fp32", "sdpa"), ("bf16", bf16_cpu_attention.NAME)]
    for how, attention in asked:
        base = Base(find(str(tiny_models[architecture])), how)
        assert base.facts()["attention"] == attention
        used.clear()
        with torch.no_grad(), device.autocast(how == "bf16"):
            found[how] = base.shape.target_logits(Adapted(base.model, base.model), rows).float()
        assert len(used) == (2 if how == "bf16" else 0), "one call a layer"
    torch.testing.assert_close(found["bf16"], found["fp32"], rtol=0.1, atol=0.1 * float(found["fp32"].abs().max()))
