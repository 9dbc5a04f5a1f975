"""Whether merging is exact is proved in each run, and decides answers, latency, memory, FLOPs and merge fidelity."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from peftbench.core.registry import load_plugin
from peftbench.core.spec import RunResult
from peftbench.engine.base_model import Base
from peftbench.engine.merging import decide, exactly
from peftbench.engine.tokenization import Encoded
from peftbench.grid.expand import expand
from peftbench.methods import METHODS, Adapted
from peftbench.models import find
from peftbench.single_run import Worker, run

PLUGIN = '''
"""A low-rank update of one layer, with merges that are right or wrong in several ways."""
from contextlib import contextmanager
from typing import Any, Literal

from peftbench.methods import Adapted, method


@method(learning_rate=5e-2)
def own_update(
    model: Any,
    *,
    merging: Literal["right", "none", "raises", "another", "leaves", "elsewhere"] = "right",
    host: str = "model.layers.1.mlp.down_proj",
) -> Adapted:
    """One layer's update."""
    import torch

    layer = model.get_submodule(host)
    layer.down = torch.nn.Linear(layer.weight.shape[1], 4, bias=False, device=layer.weight.device)
    layer.up = torch.nn.Linear(4, layer.weight.shape[0], bias=False, device=layer.weight.device)
    torch.nn.init.normal_(layer.up.weight)
    folded = [False]
    hook = layer.register_forward_hook(
        lambda layer, x, out: out if folded[0] else out + layer.up(layer.down(x[0].to(layer.down.weight.dtype)))
    )

    @contextmanager
    def merge():
        update = (layer.up.weight @ layer.down.weight).detach()
        before = layer.weight.detach().clone()
        layer.weight.data.add_(update * (0.5 if merging == "another" else 1))
        if merging == "elsewhere":
            model.get_input_embeddings().weight.data += 1e-3
        if merging == "raises":
            raise RuntimeError("no such merge")
        folded[0] = True
        yield
        folded[0] = False
        if merging == "right":
            layer.weight.data.copy_(before)
        elif merging != "leaves":
            layer.weight.data.sub_(update)

    def remove():
        hook.remove()
        del layer.down, layer.up

    return Adapted(model, model, merge=None if merging == "none" else merge, remove=remove)
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[None]:
    path = tmp_path / "own_update.py"
    path.write_text(PLUGIN)
    load_plugin(path)
    yield
    METHODS._units.pop("own-update")


def do(model: Path, how: str, worker: Worker, folder: Path, precision: str, **measured: Any) -> tuple[RunResult, Any]:
    """A run of a few steps that measures what depends on merging."""
    (spec,) = expand(
        {
            "models": [str(model)],
            "methods": [{"use": "own-update", "merging": how}],
            "tasks": ["pocket_sentiment"],
            "sizes": [16],
            "train": {"max_steps": 2, "validation_rows": 2, "precision": precision},
            "eval": {"test_rows": 8, "merge_fidelity": True, "per_device_eval_batch_size": 1} | measured,
        }
    )
    result, predictions = run(spec, worker, folder, lambda _event: None)
    assert result.status == "ok", result.error
    assert not result.base_reloaded, "the base is as it was, bit for bit"
    return result, predictions


def decided(result: RunResult, exact: bool) -> None:
    """All that depends on the decision says the same."""
    assert result.merging is not None
    assert result.merging.exact is exact
    assert result.costs.forward_flops_512
    assert (result.costs.extra_forward_flops_512 == 0) is exact
    assert any(note.startswith("answered unmerged: ") for note in result.notes) is not exact
    for latency in result.latency:
        assert (latency.merged_median_ms is not None) is exact
        assert (latency.median_ms == latency.merged_median_ms) is exact


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("precision", "how"), [("fp32", "raises"), ("fp32", "elsewhere"), ("bf16", "another"), ("bf16", "elsewhere")]
)
def test_a_claim_that_does_not_hold_changes_nothing(
    precision: str, how: str, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    """Answers and costs are as if the method had not claimed that it can be merged; and the run says why."""
    worker, model = Worker(), tiny_models["llama"]
    plain, answers = do(model, "none", worker, tmp_path, precision)
    assert plain.merging is None
    assert plain.costs.extra_forward_flops_512
    assert not any("unmerged" in note for note in plain.notes)
    found, same = do(model, how, worker, tmp_path, precision, latency=how == "another")
    decided(found, exact=False)
    assert found.merging is not None
    assert same == answers
    assert found.costs.extra_forward_flops_512 == plain.costs.extra_forward_flops_512
    assert found.costs.eval_peak_memory_bytes == plain.costs.eval_peak_memory_bytes
    if how == "raises":
        assert found.merging.why == "RuntimeError: no such merge"
        assert found.merged is None
    else:
        # It can be merged, with a loss: that is measured, and not what is answered.
        difference, limit = found.merging.max_logit_difference, found.merging.tolerance
        assert difference is not None
        assert limit is not None
        assert difference > limit > 0
        assert f"logits differ by {difference:.2g} where rounding explains {limit:.2g}" in " ".join(found.notes)
        assert found.merged is not None
        assert found.merged.max_logit_difference > 0


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(("precision", "how"), [("fp32", "right"), ("fp32", "leaves"), ("bf16", "leaves")])
def test_a_claim_that_holds_is_used_for_all(
    precision: str, how: str, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    """Also of a method that does not put the weights back: that is done for it."""
    found, _ = do(tiny_models["llama"], how, Worker(), tmp_path, precision, latency=precision == "bf16")
    decided(found, exact=True)
    assert found.merging is not None
    assert found.merged is not None
    assert found.merged.scores == found.scores


ROWS = [Encoded(list(range(5, 5 + length)), [7, 9, 1]) for length in (4, 9, 6)]


def perturbed(base: Base, **asked: Any) -> Adapted:
    """LoRA with weights that change the answers."""
    adapted: Adapted = METHODS["peft:lora"].function(base.model, r=4, **asked)
    torch.manual_seed(1)
    for parameter in adapted.model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return adapted


@pytest.mark.parametrize(
    ("model", "asked", "exact"),
    [
        ("llama", {"target_modules": r"lm_head|.*(embed_tokens|q_proj)"}, True),
        ("qwen", {"target_modules": r"lm_head|.*q_proj"}, False),
        ("qwen", {"target_modules": r".*embed_tokens|.*q_proj"}, False),
        ("gpt2", {"target_modules": r".*c_attn"}, True),
        ("llama", {"layer_replication": [(0, 2), (1, 2)]}, False),
        ("llama", {"lora_bias": True}, False),
        ("qwen", {"lora_bias": True}, True),
    ],
)
def test_weights_that_modules_share(
    model: str, asked: dict[str, Any], exact: bool, tiny_models: dict[str, Path]
) -> None:
    """A merge into a weight that another module uses changes that module as well: it is found out and put back."""
    base = Base(find(str(tiny_models[model])), "fp32")
    adapted = perturbed(base, **asked)
    before = {name: tensor.clone() for name, tensor in adapted.model.state_dict().items()}
    ready, found = decide(adapted, base, ROWS)
    assert found is not None
    assert (found.exact, ready.merge is not None) == (exact, exact), found
    after = adapted.model.state_dict()
    assert before.keys() == after.keys()
    assert all(tensor.equal(after[name]) for name, tensor in before.items())


def test_layers_of_one_module_list_that_are_one_module(tiny_models: dict[str, Path]) -> None:
    """Two places that hold the same layer have one adapter: merging it is exact."""
    base = Base(find(str(tiny_models["llama"])), "fp32")
    layers = base.model.model.layers
    layers[1].self_attn.q_proj = layers[0].self_attn.q_proj
    ready, found = decide(perturbed(base, target_modules=["q_proj"]), base, ROWS)
    assert found is not None
    assert found.exact is (ready.merge is not None)


def test_what_merging_leaves_behind_is_put_back(tiny_models: dict[str, Path]) -> None:
    """Tensors written to in every way, replaced, added and removed; attributes; and after an error too."""
    base = Base(find(str(tiny_models["llama"])), "fp32")
    model = base.model
    layer = model.model.layers[0].mlp.down_proj
    layer.marks = ["whole"]
    original, bias = layer.weight, torch.nn.Parameter(torch.zeros(64))

    def fold() -> Any:
        layer.weight.data += 1
        layer.weight.data[0].mul_(2)
        torch.add(original.data, 1, out=original.data)
        torch._foreach_add_([model.lm_head.weight.data], 1.0)
        model.model.norm.weight.data = torch.zeros(64)
        layer.bias = bias
        layer.marks.append("merged")
        layer.more = 1
        layer.weight = torch.nn.Parameter(torch.zeros(64, 96))
        del model.model.layers[1].mlp.up_proj
        raise RuntimeError("in the middle")

    before = base.checksum
    with pytest.raises(RuntimeError, match="in the middle"), exactly(Adapted(model, model), fold):
        pass
    assert layer.weight is original
    assert (layer.bias, layer.marks, hasattr(layer, "more")) == (None, ["whole"], False)
    from peftbench.engine.base_integrity import model_checksum

    assert model_checksum(model) == before
