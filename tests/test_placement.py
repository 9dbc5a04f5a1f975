"""Methods stand where they are asked to, on every kind of network, or are refused: what is trained is looked at."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from conftest import SHARED
from peftbench.core.registry import UserError
from peftbench.engine.base_model import Base
from peftbench.grid.expand import expand
from peftbench.methods import METHODS, Adapted, method
from peftbench.models import find
from peftbench.single_run import Worker, adapt, run

SIZE: dict[str, Any] = {"vocab_size": 64, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
WIDE = SIZE | {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
GQA = WIDE | {"num_key_value_heads": 2}
MOE = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
DEEPSEEK: dict[str, Any] = {
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
}
DEEPSEEK |= {"q_lora_rank": None, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
DEEPSEEK |= {"n_group": 1, "topk_group": 1, "num_key_value_heads": 4}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
GEMMA = GQA | {"head_dim": 8, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
SSM = {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 16}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": GQA,
    "mixtral": GQA | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": GQA | MOE | {"head_dim": 8, "num_experts": 4, "decoder_sparse_step": 1},
    "qwen2_moe": GQA | MOE | {"num_experts": 4, "shared_expert_intermediate_size": 16},
    "deepseek_v2": WIDE | MOE | DEEPSEEK,
    "phi3": GQA,
    "bloom": SIZE | {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "gpt2": SIZE | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "mamba": SIZE | {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "falcon_h1": GQA | SSM,
    "rwkv": SIZE | {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32, "intermediate_size": 64},
    "bert": WIDE | {"is_decoder": True},
    "gemma3": {
        "text_config": GEMMA,
        "vision_config": VISION | {"image_size": 28, "patch_size": 14, "model_type": "siglip_vision_model"},
        "mm_tokens_per_image": 4,
    },
    "switch_transformers": SIZE
    | {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4}
    | {"num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1, "num_experts": 2, "decoder_start_token_id": 0},
}
QKV, LAYER = ["q_proj", "k_proj", "v_proj"], {"llama": "model.layers.0."}
DEFAULT: dict[str, str] = {
    "llama": "k_proj v_proj down_proj",
    "mixtral": "k_proj v_proj",
    "qwen3_moe": "k_proj v_proj",
    "qwen2_moe": "k_proj v_proj shared_expert.down_proj",
    "deepseek_v2": "kv_b_proj mlp.down_proj shared_experts.down_proj",
    "phi3": "qkv_proj mlp.down_proj",
    "bloom": "query_key_value dense_4h_to_h",
    "gpt2": "attn.c_attn mlp.c_proj",
    "falcon_h1": "self_attn.k_proj self_attn.v_proj feed_forward.down_proj",
    "bert": "self.key self.value layer.0.output.dense layer.1.output.dense",
    "gemma3": "k_proj v_proj mlp.down_proj",
    "switch_transformers": "SelfAttention.k SelfAttention.v EncDecAttention.k EncDecAttention.v mlp.wo expert_0.wo "
    "expert_1.wo",
}
"""Where key, value and the feed-forward's last matrix are, by the makers' names: defaults of LoRA, IA3 and SVFT."""


def build(kind: str, config: Any = None, device: str = "meta") -> Any:
    """A model as its makers build it, by the class that text is read with."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = config or AutoConfig.for_model(kind, **CONFIGS[kind])
    auto: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.device(device):
        return auto.from_config(config).requires_grad_(False).eval()


def put(model: Any, entry: Any) -> Adapted:
    (spec,) = expand({"methods": [entry], "tasks": ["pocket_topic"]})
    base: Any = SimpleNamespace(model=model)
    with torch.device(model.device):
        return adapt(base, METHODS[spec.method.name], spec)


def put_or_told(model: Any, entry: Any) -> Adapted | str:
    """A method on a model, or in a line why not: never because it would stand elsewhere."""
    told = ""
    try:
        return put(model, entry)
    except UserError as problem:
        told = str(problem)
    assert "\n" not in told
    assert "it would not stand" not in told, (model.config.model_type, entry, told)
    return told


def stands(adapted: Adapted, known: set[str]) -> set[str]:
    """The modules of the base that parameters which are trained belong to, by nothing but their names."""
    found = set()
    for name, parameter in adapted.model.named_parameters():
        if parameter.requires_grad:
            parts = name.removeprefix("base_model.model.").replace(".base_layer", "").split(".")
            found.add(next(".".join(parts[:n]) for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in known))
    return found


@cache
def modules(kind: str) -> Mapping[str, str]:
    """Names of modules, with the kind of each."""
    return {name: type(module).__name__ for name, module in build(kind).named_modules()}


def ending(kind: str, ends: str) -> set[str]:
    """The modules of the part that reads text that have one of these ends."""
    chosen = tuple(f".{end}" for end in ends.split())
    return {name for name in modules(kind) if name.endswith(chosen) and "vision" not in name}


@pytest.mark.parametrize("kind", DEFAULT)
@pytest.mark.parametrize("name", ["lora", "ia3", "svft"])
def test_defaults_stand_at_key_value_and_down(kind: str, name: str) -> None:
    adapted, expected = put(build(kind), name), ending(kind, DEFAULT[kind])
    assert stands(adapted, set(modules(kind))) == expected
    if kind in ("mixtral", "qwen3_moe"):
        assert any("no linear layer plays down here: put on k, v" in note for note in adapted.notes)
        assert any("target_parameters" in note for note in adapted.notes)


@pytest.mark.parametrize("kind", [kind for kind in DEFAULT if kind != "switch_transformers"])
@pytest.mark.parametrize("name", ["lora", "ia3", "lntuning", "bitfit", "adapter", "svft"])
def test_a_layer_is_that_layer(kind: str, name: str) -> None:
    """Nothing stands in the second layer, nor outside of the layers."""
    found = stands(put(build(kind), {"use": name, "layers": [0]}), set(modules(kind)))
    assert found
    assert all(re.search(r"\.(layers|layer|h|blocks)\.0(\.|$)", each) and "vision" not in each for each in found)


@pytest.mark.parametrize(
    ("kind", "group", "expected"),
    [
        ("mixtral", "attention", "q_proj k_proj v_proj o_proj"),
        ("mixtral", "all-linear", "q_proj k_proj v_proj o_proj"),
        (
            "deepseek_v2",
            "mlp",
            "mlp.gate_proj mlp.up_proj mlp.down_proj "
            "shared_experts.gate_proj shared_experts.up_proj shared_experts.down_proj",
        ),
        ("deepseek_v2", "attention", "q_proj kv_a_proj_with_mqa kv_b_proj o_proj"),
        ("qwen2_moe", "mlp", "shared_expert.gate_proj shared_expert.up_proj shared_expert.down_proj"),
        ("phi3", "gate", "gate_up_proj"),
        ("falcon_h1", "attention", "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj"),
        ("bert", "attention", "self.query self.key self.value attention.output.dense"),
        ("gemma3", "mlp", "mlp.gate_proj mlp.up_proj mlp.down_proj"),
    ],
)
def test_groups_are_parts_of_the_network(kind: str, group: str, expected: str) -> None:
    for name in ("lora", "ia3"):
        adapted = put(build(kind), {"use": name, "modules": group})
        assert stands(adapted, set(modules(kind))) == ending(kind, expected)


@pytest.mark.parametrize(
    ("kind", "entry", "said"),
    [
        ("mamba", "lora", r"no layer 'k' in this model, .*: choose from all-linear, in_proj, out_proj, x_proj$"),
        ("mamba", "adapter", "no layer 'o' in this model"),
        ("rwkv", "ia3", "choose from all-linear, key, output, receptance, value$"),
        ("mixtral", {"use": "lora", "modules": "mlp"}, "no layer 'mlp' .* its experts are the weights down_proj, gate"),
        ("mixtral", {"use": "lora", "modules": ["k", "v", "down", "o"]}, "no layer 'down'"),
        ("llama", {"use": "peft", "type": "LORA", "target_parameters": ["experts"]}, "no weight 'experts'"),
        ("llama", {"use": "peft", "type": "LORA", "target_modules": []}, "target_parameters names no weight"),
        ("llama", {"use": "peft", "type": "LORA", "target_modules": ".*nose"}, "fits no module"),
        ("falcon_h1", {"use": "lora", "modules": "all-linear"}, "Module 'out_proj' is incompatible"),
    ],
)  # fmt: skip
def test_what_does_not_fit_says_what_to_choose(kind: str, entry: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as problem:
        put(build(kind), entry)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe", "deepseek_v2"])
def test_experts_alone(kind: str) -> None:
    entry = {"use": "peft", "type": "LORA", "target_modules": [], "target_parameters": ["experts"]}
    weights = {name: p for name, p in build(kind).named_parameters() if p.ndim == 3}
    for layers, expected in (("all", set(weights)), ([1], {name for name in weights if ".1." in name})):
        adapted = put(build(kind), entry | {"layers": layers})
        assert set(adapted.places or ()) == expected
        counted = sum(p.numel() for p in adapted.model.parameters() if p.requires_grad)
        assert counted == sum(8 * w.shape[0] * (w.shape[1] + w.shape[2]) for w in weights.values() if w is not None) * (
            len(expected) / len(weights)
        )
    one = put(build(kind), entry | {"target_parameters": ["experts.down_proj"]})
    assert set(one.places or ()) == {name for name in weights if name.endswith("down_proj")}


def test_the_layers_of_the_library_are_layers_too() -> None:
    for entry in ({}, {"target_modules": ["q_proj"]}, {"target_modules": ["attention"]}):
        adapted = put(build("llama"), {"use": "peft", "type": "LORA", "layers_to_transform": [1], **entry})
        assert {name.split(".")[2] for name in stands(adapted, set(modules("llama")))} == {"1"}


@pytest.mark.slow
def test_every_type_that_takes_layers_stands_in_them() -> None:
    from peftbench.methods._peft_types import REFUSED, types

    tried = 0
    for kind in types():
        if kind.upper() in REFUSED or "layers" not in METHODS[f"peft:{kind}"].parameters:
            continue
        model = build("llama", device="cpu")
        adapted = put_or_told(model, {"use": f"peft:{kind}", "layers": [0]})
        if isinstance(adapted, str):
            continue
        tried += 1
        assert adapted.places
        assert all(".layers.0." in name for name in adapted.places)
    assert tried > 30


def test_a_method_that_stands_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wrote it: what is trained counts, not what it says; and it is taken off again."""
    from peftbench.models.target_modules import Layers, Modules

    monkeypatch.setattr(METHODS, "_units", dict(METHODS._units))

    @method(learning_rate=1e-3)
    def deaf(model: Any, *, modules: Modules = ("q",), layers: Layers = "all") -> Adapted:  # noqa: ARG001
        """It hears nothing."""
        chosen = [layer.self_attn.v_proj for layer in model.model.layers]
        for each in chosen:
            each.requires_grad_(True)
        return Adapted(model, model, remove=lambda: model.requires_grad_(False))

    model = build("llama")
    message = r"asked for 1 \(model.layers.0.self_attn.v_proj\); beside them it trains 1 \(model.layers.1.self_attn.v"
    with pytest.raises(UserError, match=message):
        put(model, {"use": "deaf", "modules": ["v"], "layers": [0]})
    assert not any(p.requires_grad for p in model.parameters())
    with pytest.raises(UserError, match=r"asked for 2 \(model.layers.0.self_attn.q_proj"):
        put(model, "deaf")
    assert put(model, {"use": "deaf", "modules": ["v"]})


# With values


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from transformers import AutoConfig, AutoTokenizer

    folder, found = tmp_path_factory.mktemp("mixtures"), {}
    tokenizer = AutoTokenizer.from_pretrained(find("pocket").source)
    for kind in ("mixtral", "deepseek_v2"):
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, **(CONFIGS[kind] | {"vocab_size": len(tokenizer), "bos_token_id": None}))
        model = build(kind, config, "cpu")
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.data.normal_(0, 0.1)
        model.save_pretrained(folder / kind)
        tokenizer.save_pretrained(folder / kind)
        found[kind] = folder / kind
    return found


EXPERTS = {"use": "peft", "type": "LORA", "target_parameters": ["experts"], "r": 2}


@pytest.mark.parametrize(
    ("kind", "entry"), [("mixtral", EXPERTS), ("deepseek_v2", "lora"), ("deepseek_v2", {"use": "lora", "layers": [1]})]
)
def test_what_is_kept_of_a_mixture_is_read_by_the_library_alone(
    kind: str, entry: Any, mixtures: dict[str, Path], tmp_path: Path
) -> None:
    """Which would take the name of a shared or dense feed-forward for that of the experts of every layer."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from peftbench.engine.checkpoint import load_checkpoint, save_checkpoint

    base, ids = Base(find(str(mixtures[kind])), "fp32"), torch.tensor([[5, 6, 7, 8]])
    before = base.model(input_ids=ids).logits
    adapted = put(base.model, entry)
    for parameter in adapted.model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, 0, 0.3)
    adapted.model.eval()
    trained = base.model(input_ids=ids).logits
    assert not torch.allclose(trained, before)
    save_checkpoint(adapted, tmp_path / "adapter")
    assert adapted.remove is not None
    adapted.remove()
    assert torch.equal(base.model(input_ids=ids).logits, before)
    alone = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(mixtures[kind]), tmp_path / "adapter")
    assert torch.allclose(alone(input_ids=ids).logits, trained, atol=1e-5)
    (spec,) = expand({"methods": [entry], "tasks": ["pocket_topic"]})
    again = load_checkpoint(base, spec.method, tmp_path / "adapter")
    assert torch.allclose(again.network(input_ids=ids).logits, trained, atol=1e-5)


def test_experts_are_trained_in_a_run(mixtures: dict[str, Path], tmp_path: Path) -> None:
    settings = {"max_steps": 2, "eval_steps": 1.0, "validation_rows": 4, "learning_rate": 0.01}
    (spec,) = expand(
        {"methods": [EXPERTS], "tasks": ["pocket_topic"], "models": [str(mixtures["mixtral"])], "sizes": [8]}
        | {"train": settings, "eval": {"test_rows": 4}}
    )
    found = run(spec, Worker(), tmp_path, lambda _event: None)[0]
    assert found.status == "ok", found.error
    assert found.costs.trainable_parameters == 2 * 2 * 4 * ((32 + 64 + 64) + (64 + 32))


# All architectures


ENTRIES: list[dict[str, Any]] = [
    *({"use": name} for name in ("lora", "ia3", "lntuning", "bitfit", "adapter", "svft")),
    *({"use": name, "layers": [0]} for name in ("lora", "ia3", "lntuning", "bitfit", "adapter", "svft")),
    *({"use": name, "modules": group} for name in ("lora", "ia3", "bitfit", "svft") for group in ("mlp", "attention")),
    {"use": "peft", "type": "LORA", "target_modules": "all-linear"},
    {"use": "peft", "type": "LORA", "target_parameters": ["experts"]},
]


@pytest.fixture(scope="module")
def architectures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models of every architecture at hand, one folder each."""
    folder = tmp_path_factory.mktemp("architectures")
    script = SHARED / "cases" / "models" / "make_models.py"
    subprocess.run([sys.executable, script], env=os.environ | {"CASES_OUT": str(folder)}, check=True)
    return folder / "models"


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "cases").is_dir(), reason="needs the architectures")
def test_every_architecture_is_adapted_where_asked_or_refused_in_a_line(architectures: Path) -> None:
    from transformers import AutoConfig

    from peftbench.models.target_modules import stacks

    told: dict[str, int] = {}
    for folder in sorted(architectures.iterdir()):
        config = AutoConfig.from_pretrained(folder)
        for entry in ENTRIES:
            model = build("", config)
            known = {name for name, _ in model.named_modules()}
            first = tuple(f"{members[0]}." for members in stacks(model).values())
            adapted = put_or_told(model, entry)
            if isinstance(adapted, str):
                continue
            found = stands(adapted, known)
            assert found, (folder.name, entry)
            assert not any("vision" in name for name in found), (folder.name, entry)
            if "layers" in entry:
                assert all(name.startswith(first) for name in found), (folder.name, entry, found)
            if entry.get("modules") == "mlp":
                assert not any(re.search(r"(q|k|v|o|qkv)_proj$|query|c_attn", name) for name in found), (
                    folder.name,
                    found,
                )
            told[folder.name] = told.get(folder.name, 0) + 1
    assert len(told) >= 50
    # Where attention and feed-forward are linear layers, everything fits but the experts.
    assert all(told[name] >= len(ENTRIES) - 1 for name in ("llama_tied", "gpt2", "bloom", "phi3", "t5", "gemma3"))
