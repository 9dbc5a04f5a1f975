"""Bases quantised by bitsandbytes: what can be trained on them, what they cost, and what merging into them loses."""

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from peftbench.core.registry import UserError
from peftbench.core.spec import RunResult, RunSpec
from peftbench.engine.base_integrity import model_checksum
from peftbench.engine.base_model import Base
from peftbench.engine.families.decoder import forward
from peftbench.engine.peak_memory import tracked
from peftbench.engine.phase_meter import Meter
from peftbench.engine.quantization import quantization_constants
from peftbench.engine.train import Trainer
from peftbench.grid.expand import expand
from peftbench.methods import METHODS, Adapted
from peftbench.models import find
from peftbench.results.runs_table import table_row
from peftbench.single_run import Worker, run
from test_methods import ELSEWHERE, SMALL, TRAINING, rows

bitsandbytes = pytest.importorskip("bitsandbytes", reason="the extra `quantised` is not installed")
ALL = ("q", "k", "v", "o", "gate", "up", "down")
TRAINED = sorted({unit.name for unit in METHODS if unit.facts.trains and not unit.facts.quantised} - {*ELSEWHERE})


def specs(models: list[Any], methods: list[Any], evaluation: dict[str, Any] | None = None) -> list[RunSpec]:
    return expand(
        {
            "models": models,
            "methods": methods,
            "tasks": ["pocket_sentiment"],
            "sizes": [16],
            "train": {"max_steps": 4, "learning_rate": 1e-2, "validation_rows": 4},
            "eval": {"test_rows": 16} | (evaluation or {}),
        }
    )


def do(spec: RunSpec, worker: Worker, folder: Path) -> tuple[RunResult, list[dict[str, Any]]]:
    folder.mkdir(parents=True, exist_ok=True)
    return run(spec, worker, folder, lambda _event: None)


@pytest.fixture(scope="module", params=["nf4", "int8"])
def base(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> Base:
    return Base(find(str(tiny_models["llama"])), "fp32", request.param)


def logits(adapted: Adapted, ids: torch.Tensor) -> torch.Tensor:
    adapted.model.eval()
    with torch.no_grad():
        return forward(adapted, ids, torch.ones_like(ids))[0]


IDS = torch.arange(24).reshape(2, 12) + 5


@pytest.mark.parametrize("method", TRAINED)
def test_methods_train_on_it_and_leave_it_as_it_was(method: str, base: Base) -> None:
    data, untouched = rows(base), logits(Adapted(base.model, base.model), IDS)
    torch.manual_seed(0)
    if (method, base.quantise) == ("dora", "int8"):
        with pytest.raises(UserError, match="weights of eight bits"):
            METHODS[method].function(base.model)
        return
    adapted: Adapted = METHODS[method].function(base.model, **SMALL.get(method, {}))
    assert all(p.dtype == torch.float32 for p in adapted.model.parameters() if p.requires_grad)
    # Nothing is merged into weights that cannot hold the sum.
    assert adapted.merge is None
    trainer = Trainer(adapted, TRAINING, 3e-2, "fp32", seed=0)
    start = trainer.loss(data)
    trainer.fit(data, data, Meter(), lambda _event: None)
    assert trainer.loss(data) < start
    if adapted.remove is not None:
        adapted.remove()
    assert base.restore() is False
    assert torch.equal(logits(Adapted(base.model, base.model), IDS), untouched)


def test_answering_does_not_change_it(base: Base) -> None:
    """Where a processor invites bitsandbytes to pack four-bit weights anew, their scales would be rounded."""
    for training in (True, False, True):
        base.model.train(training)
        base.model(input_ids=IDS)
        assert model_checksum(base.model) == base.checksum
    base.model.eval()


def stands_for(layer: Any) -> torch.Tensor:
    """The weights of a quantised layer as floats."""
    if isinstance(layer, bitsandbytes.nn.Linear4bit):
        found: torch.Tensor = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    else:
        found = layer.weight.data.float() * layer.state.SCB[:, None] / 127
    return found.float()


def test_lora_is_added_to_what_the_weights_stand_for(base: Base, tiny_models: dict[str, Path]) -> None:
    """The same LoRA on a float model that holds the dequantised weights gives the same logits."""
    plain = Base(find(str(tiny_models["llama"])), "fp32")
    adapters: list[Adapted] = []
    for one in (base, plain):
        torch.manual_seed(0)
        adapters.append(METHODS["lora"].function(one.model, rank=4, modules=ALL))
        for parameter in adapters[-1].model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn_like(parameter)
    # An eight-bit layer has its scales in its state once it was called.
    base.model(input_ids=IDS)
    for name, module in plain.model.named_modules():
        if type(module) is torch.nn.Linear and name.endswith("base_layer"):
            module.weight.data = stands_for(base.model.get_submodule(name))
    theirs, ours = (logits(adapted, IDS) for adapted in adapters)
    # LLM.int8 rounds the inputs of a layer too.
    tolerance = 1e-4 if base.quantise == "nf4" else 0.05 * ours.abs().max()
    assert torch.allclose(theirs, ours, atol=float(tolerance))
    for adapted in adapters:
        assert adapted.remove is not None
        adapted.remove()
    assert base.restore() is False


def test_memory_is_that_of_the_real_bytes(base: Base) -> None:
    """By hand: weights, scales and codes of seven matrices a layer; the rest is as it was."""
    shapes = [(64, 64), (32, 64), (32, 64), (64, 64), (96, 64), (96, 64), (64, 96)] * 2
    if base.quantise == "nf4":
        blocks = [n * k // 64 for n, k in shapes]
        packed = sum(n * k // 2 for n, k in shapes)
        # A byte a block; 16 numbers of the code; a scale for 256 blocks, 256 numbers of its code, an offset.
        beside = sum(b + 4 * 16 + 4 * math.ceil(b / 256) + 4 * 256 + 4 for b in blocks)
    else:
        packed, beside = sum(n * k for n, k in shapes), sum(4 * n for n, _ in shapes)
    plain = sum(p.numel() * 4 for p in base.model.parameters() if p.is_floating_point())
    buffers = sum(b.numel() * b.element_size() for b in base.model.buffers())
    with tracked(base.model) as tracker:
        assert tracker.bytes == packed + beside + plain + buffers
    held = {tensor.data_ptr() for tensor in quantization_constants(base.model)}
    assert len(held) >= len(shapes)


def test_qlora_brings_its_base_along(tmp_path: Path) -> None:
    """On the board of the plain model, with the parameters of LoRA and the memory of a quantised base."""
    worker = Worker(keep_adapters=True)
    size = {"rank": 4, "dropout": 0.1, "alpha": 16}
    weights = Base(find("pocket"), "fp32").model
    lora, qlora = specs(["pocket"], [{"use": "lora", "modules": list(ALL), **size}, {"use": "qlora", **size}])
    plain, _ = do(lora, worker, tmp_path / "lora")
    small, answers = do(qlora, worker, tmp_path / "qlora")
    assert (plain.status, small.status) == ("ok", "ok"), (plain.error, small.error)
    assert (plain.base.get("quantised"), small.base["quantised"]) == (None, "nf4")
    assert table_row(small, tmp_path / "m/a/b/c/d")["model"] == "pocket"
    for cost in ("trainable_parameters", "total_parameters", "forward_flops_512"):
        assert getattr(small.costs, cost) == getattr(plain.costs, cost)
    # It is not merged, so its matrices are there in every forward pass.
    assert plain.costs.extra_forward_flops_512 == 0
    assert small.costs.extra_forward_flops_512
    assert small.costs.peak_memory_bytes
    assert plain.costs.peak_memory_bytes
    saved_bytes = sum(p.numel() for n, p in weights.named_parameters() if "proj" in n) * (4 - 0.5)
    assert 0.9 * saved_bytes < plain.costs.peak_memory_bytes - small.costs.peak_memory_bytes < saved_bytes
    assert small.merged is None
    (saved,) = specs(["pocket"], [{"use": "saved", "folder": str(tmp_path / "qlora" / "adapter")}])
    again, same_answers = do(saved, worker, tmp_path / "again")
    assert (again.status, again.scores, same_answers) == ("ok", small.scores, answers)
    assert again.base["quantised"] == "nf4"


def test_an_adapter_may_answer_on_another_base_and_says_so(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    worker, llama = Worker(keep_adapters=True), str(tiny_models["llama"])
    (trained,) = specs([{"use": llama, "quantise": "nf4"}], [{"use": "lora", "rank": 4}])
    do(trained, worker, tmp_path / "run")
    (saved,) = specs([llama], [{"use": "saved", "folder": str(tmp_path / "run" / "adapter")}])
    result, _ = do(saved, worker, tmp_path / "again")
    assert result.status == "ok"
    assert "trained on a base with nf4 quantisation, answering on one with no quantisation" in result.notes


def test_merging_is_measured_and_never_done(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    worker, llama = Worker(), str(tiny_models["llama"])
    models = [llama, {"use": llama, "quantise": ["nf4", "int8"]}]
    plain, *quantised = specs(models, [{"use": "lora", "rank": 4}], {"merge_fidelity": True})
    exact, _ = do(plain, worker, tmp_path)
    assert exact.merged
    assert exact.merged.scores == exact.scores
    assert exact.merged.max_logit_difference < 1e-3
    for spec, without in zip(quantised, specs(models, [{"use": "lora", "rank": 4}])[1:], strict=True):
        found, answers = do(spec, worker, tmp_path)
        assert found.status == "ok", found.error
        assert found.merged
        assert found.merged.max_logit_difference > 10 * exact.merged.max_logit_difference
        assert found.merged.scores.keys() == found.scores.keys()
        assert not found.base_reloaded
        row = table_row(found, tmp_path / "m/a/b/c/d")
        assert row["merged_score"] == found.merged.scores["accuracy"].value
        assert row["merged_logit_difference"] == found.merged.max_logit_difference
        # The run's own answers are those of the unmerged model.
        assert do(without, worker, tmp_path)[1] == answers
        assert found.costs.extra_forward_flops_512
    (prompt,) = specs([llama], [{"use": "prompt-tuning", "tokens": 4}], {"merge_fidelity": True})
    found, _ = do(prompt, worker, tmp_path)
    assert found.merged is None
    assert "cannot be merged" in found.notes[-1]


def test_what_cannot_be_is_said(tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker, llama = Worker(), str(tiny_models["llama"])
    full, qlora = specs([{"use": llama, "quantise": "int8"}], ["full", "qlora"])
    for spec, message in (
        (full, "full cannot be used on a quantised base: quantised weights are integers"),
        (qlora, "qlora needs a base quantised to nf4, not int8"),
    ):
        result, _ = do(spec, worker, tmp_path)
        assert (result.status, message in str(result.error)) == ("refused", True), result.error
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    (spec,) = specs([{"use": llama, "quantise": "nf4"}], ["none"])
    result, _ = do(spec, Worker(), tmp_path)
    assert result.error == "a base quantised to nf4 needs bitsandbytes: pip install 'peftbench[quantised]'"


def test_in_a_grid() -> None:
    plain, four, eight = specs(["pocket", {"use": "pocket", "quantise": ["nf4", "int8"]}], ["none"])
    assert [spec.model_name for spec in (plain, four, eight)] == ["pocket", "pocket (nf4)", "pocket (int8)"]
    assert len({plain.id, four.id, eight.id}) == 3
    with pytest.raises(UserError, match="unknown value of quantise of model 'pocket' 'nf5': did you mean 'nf4'"):
        specs([{"use": "pocket", "quantise": "nf5"}], ["none"])
    with pytest.raises(UserError, match="unknown argument of model 'pocket' 'quantize': did you mean 'quantise'"):
        specs([{"use": "pocket", "quantize": "nf4"}], ["none"])
    left = expand(
        {
            "models": ["pocket", {"use": "pocket", "quantise": "nf4"}],
            "methods": ["none"],
            "tasks": ["pocket_sentiment"],
            "except": [{"model": "*(nf4)"}],
        }
    )
    assert [spec.model_name for spec in left] == ["pocket"]


def test_a_model_of_conv_layers(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    (spec,) = specs([str(tiny_models["gpt2"])], [{"use": "qlora", "rank": 4}])
    result, _ = do(spec, Worker(), tmp_path)
    assert result.status == "ok", result.error
    assert result.costs.trainable_parameters == 2 * 4 * ((64 + 192) + (64 + 64) + (64 + 256) + (256 + 64))


@pytest.mark.parametrize("settings", [{"precision": "bf16"}, {"gradient_checkpointing": True}], ids=str)
def test_with_other_settings(settings: dict[str, Any], tiny_models: dict[str, Path], tmp_path: Path) -> None:
    (spec,) = specs([str(tiny_models["llama"])], [{"use": "qlora", "rank": 4, **settings}])
    result, _ = do(spec, Worker(), tmp_path)
    assert result.status == "ok", result.error
    assert not result.base_reloaded


@pytest.mark.slow
@pytest.mark.parametrize("how", ["nf4", "int8"])
@pytest.mark.parametrize("model", ["flan", "bart"])
def test_encoder_decoders(model: str, how: str, tiny_seq2seq: dict[str, Path], tmp_path: Path) -> None:
    """Trained, measured and answered as decoders are; kept, read back; parameters are those of the plain base."""
    worker, place = Worker(keep_adapters=True), str(tiny_seq2seq[model])
    models = [{"use": place, "quantise": how}, place]
    small, plain = specs(models, [{"use": "lora", "rank": 4}])
    found, answers = do(small, worker, tmp_path / "run")
    assert found.status == "ok", found.error
    assert not found.base_reloaded
    (again,) = specs(models[:1], [{"use": "saved", "folder": str(tmp_path / "run" / "adapter")}])
    assert do(again, worker, tmp_path / "again")[1] == answers
    other, _ = do(plain, Worker(), tmp_path / "plain")
    assert found.costs.total_parameters == other.costs.total_parameters
    assert found.costs.forward_flops_512 == other.costs.forward_flops_512


def test_types_that_were_measured_to_fail_are_refused_with_what_was_measured(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    worker = Worker()
    models = [{"use": str(tiny_models["llama"]), "quantise": "nf4"}]
    bad, good = specs(models, ["peft:hra", "peft:vera"])
    refused = do(bad, worker, tmp_path / "bad")[0].error
    assert str(refused).startswith("peft:hra cannot be used on a quantised base: 4-bit base: ")
    assert do(good, worker, tmp_path / "good")[0].status == "ok"
