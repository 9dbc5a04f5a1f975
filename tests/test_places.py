"""Where methods are applied: the very layers and modules that are meant, whatever a model calls them."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from peftbench.core.registry import UserError
from peftbench.methods import METHODS
from peftbench.models.target_modules import Layers, Modules, norms, stacks, target_module_names

SIZE: dict[str, Any] = {"vocab_size": 64, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
WIDE = SIZE | {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2}
T5 = SIZE | {"d_model": 16, "d_ff": 24, "d_kv": 4, "num_heads": 4, "decoder_start_token_id": 0}
BART = SIZE | {"d_model": 16, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 32}
BART |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "decoder_start_token_id": 0}
OPT = SIZE | {"hidden_size": 16, "ffn_dim": 24, "num_attention_heads": 4, "max_position_embeddings": 32}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": WIDE | {"num_hidden_layers": 5},
    "qwen2": WIDE | {"num_hidden_layers": 5},
    "mistral": WIDE | {"num_hidden_layers": 5},
    "gemma": WIDE | {"num_hidden_layers": 5, "head_dim": 4},
    "gpt2": SIZE | {"n_embd": 16, "n_layer": 5, "n_head": 4, "n_positions": 32},
    "opt": OPT | {"num_hidden_layers": 5, "word_embed_proj_dim": 8},
    "t5": T5 | {"num_layers": 4, "num_decoder_layers": 3},
    "mt5": T5 | {"num_layers": 4, "num_decoder_layers": 3},
    "bart": BART | {"encoder_layers": 4, "decoder_layers": 3},
}
DECODERS = ("llama", "qwen2", "mistral", "gemma", "gpt2", "opt")
SEQ2SEQ = ("t5", "mt5", "bart")
LLAMA_LIKE = ("llama", "qwen2", "mistral", "gemma")


def build(shape: str, device: str = "meta", **changes: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = AutoConfig.for_model(shape, **(CONFIGS[shape] | changes))
    kind: Any = AutoModelForSeq2SeqLM if shape in SEQ2SEQ else AutoModelForCausalLM
    with torch.device(device):
        return kind.from_config(config).requires_grad_(False).eval()


@cache
def model(shape: str) -> Any:
    return build(shape)


def ends(names: Sequence[str]) -> Counter[str]:
    """How many names end in each part."""
    return Counter(name.rpartition(".")[2] for name in names)


def numbers(shape: str, layers: Layers, modules: Modules = "all-linear") -> dict[str, list[int]]:
    """The numbers of the layers that have a place, by stack."""
    found = target_module_names(model(shape), modules, layers)
    return {
        stack: [i for i, member in enumerate(members) if any(name.startswith(f"{member}.") for name in found)]
        for stack, members in stacks(model(shape)).items()
    }


# Modules


@pytest.mark.parametrize("shape", LLAMA_LIKE)
@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        ("attention", "q_proj k_proj v_proj o_proj"),
        ("self-attention", "q_proj k_proj v_proj o_proj"),
        ("mlp", "gate_proj up_proj down_proj"),
        ("all-linear", "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj"),
        (["k", "v", "down"], "k_proj v_proj down_proj"),
        (["k_proj", "mlp"], "k_proj gate_proj up_proj down_proj"),
        ("mlp.up_proj", "up_proj"),
        ("o", "o_proj"),
    ],
)
def test_modules_of_llama_and_its_like(shape: str, modules: Modules, expected: str) -> None:
    assert ends(target_module_names(model(shape), modules)) == dict.fromkeys(expected.split(), 5)


@pytest.mark.parametrize(
    ("shape", "modules", "expected"),
    [
        ("gpt2", "attention", ["attn.c_attn", "attn.c_proj"]),
        ("gpt2", "mlp", ["mlp.c_fc", "mlp.c_proj"]),
        ("gpt2", ["q", "v"], ["attn.c_attn"]),
        ("gpt2", "all-linear", ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]),
        ("opt", "attention", [f"self_attn.{name}" for name in ("k_proj", "v_proj", "q_proj", "out_proj")]),
        ("opt", "mlp", ["fc1", "fc2"]),
    ],
)
def test_modules_of_other_decoders(shape: str, modules: Modules, expected: list[str]) -> None:
    start = {"gpt2": "transformer.h", "opt": "model.decoder.layers"}[shape]
    found = set(target_module_names(model(shape), modules))
    wider = {"model.decoder.project_in", "model.decoder.project_out"} if shape == "opt" else set()
    assert found - wider == {f"{start}.{i}.{name}" for i in range(5) for name in expected}


def test_linear_layers_outside_of_the_stack_are_of_all_layers_alone() -> None:
    outside = {"model.decoder.project_in", "model.decoder.project_out"}
    assert outside <= set(target_module_names(model("opt"), "all-linear"))
    assert not outside & set(target_module_names(model("opt"), "all-linear", "first-half"))


T5_SELF = [f"layer.0.SelfAttention.{name}" for name in "qkvo"]
T5_CROSS = [f"layer.1.EncDecAttention.{name}" for name in "qkvo"]
BART_ATTENTION = ("k_proj", "v_proj", "q_proj", "out_proj")
SEQ2SEQ_MODULES = [
    ("t5", "self-attention", T5_SELF, T5_SELF),
    ("t5", "cross-attention", [], T5_CROSS),
    ("t5", "attention", T5_SELF, T5_SELF + T5_CROSS),
    ("t5", "mlp", ["layer.1.DenseReluDense.wi", "layer.1.DenseReluDense.wo"], None),
    ("mt5", "mlp", [f"layer.1.DenseReluDense.{name}" for name in ("wi_0", "wi_1", "wo")], None),
    ("bart", "self-attention", [f"self_attn.{name}" for name in BART_ATTENTION], None),
    ("bart", "cross-attention", [], [f"encoder_attn.{name}" for name in BART_ATTENTION]),
    ("bart", "mlp", ["fc1", "fc2"], None),
]


@pytest.mark.parametrize(("shape", "modules", "encoder", "decoder"), SEQ2SEQ_MODULES)
def test_modules_of_encoder_decoders(shape: str, modules: str, encoder: list[str], decoder: list[str] | None) -> None:
    """Where the decoder's are not given, they are the encoder's; T5's decoder has its feed-forward a place later."""
    decoder = [name.replace("layer.1.Dense", "layer.2.Dense") for name in encoder] if decoder is None else decoder
    start = "model." if shape == "bart" else ""
    stack = "layers" if shape == "bart" else "block"
    expected = {f"{start}encoder.{stack}.{i}.{name}" for i in range(4) for name in encoder}
    expected |= {f"{start}decoder.{stack}.{i}.{name}" for i in range(3) for name in decoder}
    assert set(target_module_names(model(shape), modules)) == expected


@pytest.mark.parametrize("shape", CONFIGS)
def test_groups_are_parts_of_a_whole(shape: str) -> None:
    """Attention and feed-forward share nothing, and are all linear layers of the stacks."""
    attention, mlp = (set(target_module_names(model(shape), group)) for group in ("attention", "mlp"))
    assert not attention & mlp
    assert attention | mlp == {
        name for name in target_module_names(model(shape), "all-linear") if "project" not in name
    }
    if shape in SEQ2SEQ:
        own, cross = (set(target_module_names(model(shape), group)) for group in ("self-attention", "cross-attention"))
        assert own | cross == attention
        assert not own & cross


# Layers


@pytest.mark.parametrize("shape", DECODERS)
@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("all", [0, 1, 2, 3, 4]),
        ("first-half", [0, 1, 2]),
        ("last-half", [2, 3, 4]),
        ("every-other", [0, 2, 4]),
        ([0, 3], [0, 3]),
        ([-1], [4]),
        ("decoder:first-half", [0, 1, 2]),
        ("0,-1", [0, 4]),
        ("decoder:1 + last-half", [1, 2, 3, 4]),
    ],
)
def test_layers_of_decoders(shape: str, layers: Layers, expected: list[int]) -> None:
    assert numbers(shape, layers) == {"decoder": expected}


@pytest.mark.parametrize("shape", SEQ2SEQ)
@pytest.mark.parametrize(
    ("layers", "encoder", "decoder"),
    [
        ("all", [0, 1, 2, 3], [0, 1, 2]),
        ("first-half", [0, 1], [0, 1]),
        ("last-half", [2, 3], [1, 2]),
        ("encoder", [0, 1, 2, 3], []),
        ("decoder", [], [0, 1, 2]),
        ("encoder:last-half", [2, 3], []),
        ("decoder:every-other", [], [0, 2]),
        ("encoder:0,-1+decoder:first-half", [0, 3], [0, 1]),
        ("encoder:3 + decoder", [3], [0, 1, 2]),
        ([0, 2], [0, 2], [0, 2]),
    ],
)
def test_stacks_are_chosen_apart(shape: str, layers: Layers, encoder: list[int], decoder: list[int]) -> None:
    assert numbers(shape, layers) == {"encoder": encoder, "decoder": decoder}


@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_the_random_half_is_of_the_seed(shape: str) -> None:
    def drawn(seed: int, modules: Modules) -> dict[str, list[int]]:
        torch.manual_seed(seed)
        torch.rand(seed % 3)
        return numbers(shape, "random-half", modules)

    for seed in range(5):
        assert drawn(seed, "attention") == drawn(seed, ["up"])
        assert {stack: len(found) for stack, found in drawn(seed, "mlp").items()} == {
            stack: (len(members) + 1) // 2 for stack, members in stacks(model(shape)).items()
        }
    assert len({str(drawn(seed, "mlp")) for seed in range(20)}) > 5


def test_the_random_half_is_the_same_for_all_methods_of_a_seed() -> None:
    def where(method: str, **arguments: Any) -> set[str]:
        torch.manual_seed(7)
        adapted = METHODS[method].function(build("llama"), layers="random-half", **arguments)
        names = [name for name, p in adapted.model.named_parameters() if p.requires_grad]
        return {number for name in names for number in re.findall(r"\.layers\.(\d+)\.", name)}

    found = {method: where(method) for method in ("lora", "ia3", "adapter", "bitfit", "lntuning", "svft", "layers")}
    assert all(layers == found["lora"] for layers in found.values())
    assert len(found["lora"]) == 3


@given(st.sampled_from(sorted(CONFIGS)), st.lists(st.integers(-3, 2), min_size=1))
def test_numbers_are_those_of_the_layers(shape: str, chosen: list[int]) -> None:
    found = numbers(shape, chosen)
    for stack, members in stacks(model(shape)).items():
        assert found[stack] == sorted({number % len(members) for number in chosen})
    assert numbers(shape, ",".join(map(str, chosen))) == found


@pytest.mark.parametrize("shape", CONFIGS)
def test_two_complementary_choices_are_all(shape: str) -> None:
    one = target_module_names(model(shape), "attention", "every-other")
    other = target_module_names(model(shape), "attention", [1])
    more = target_module_names(model(shape), "attention", "decoder:1") if shape in SEQ2SEQ else []
    assert not set(one) & set(other)
    assert set(more) <= set(other)
    assert set(norms(model(shape), "every-other")) < set(norms(model(shape)))


# Methods: a half of the layers has a half of the parameters


EVEN = {"num_hidden_layers": 4, "n_layer": 4, "num_layers": 4, "num_decoder_layers": 4}
EVEN |= {"encoder_layers": 4, "decoder_layers": 4}
HALVED: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"modules": "mlp"},
    "pissa": {"rank": 4},
    "adalora": {},
    "ia3": {},
    "adapter": {},
    "bitfit": {"modules": "mlp"},
    "svft": {"modules": "attention"},
}


def trained(shape: str, method: str, **arguments: Any) -> int:
    changes: dict[str, Any] = {name: value for name, value in EVEN.items() if name in CONFIGS[shape]}
    with torch.device("meta"):
        adapted = METHODS[method].function(build(shape, **changes), **arguments)
    return sum(p.numel() for p in adapted.model.parameters() if p.requires_grad)


@pytest.mark.parametrize("shape", CONFIGS)
@pytest.mark.parametrize("method", HALVED)
def test_half_of_the_layers_is_half_of_the_parameters(shape: str, method: str) -> None:
    whole = trained(shape, method, **HALVED[method])
    for layers in ("first-half", "random-half", [0, 3]):
        assert trained(shape, method, layers=layers, **HALVED[method]) * 2 == whole
    if shape in SEQ2SEQ:
        parts = [trained(shape, method, layers=stack, **HALVED[method]) for stack in ("encoder", "decoder")]
        assert sum(parts) == whole
        assert min(parts) > 0


@pytest.mark.parametrize("shape", CONFIGS)
def test_normalisation_and_own_layers(shape: str) -> None:
    halves = [trained(shape, "lntuning", layers=half) for half in ("first-half", "last-half")]
    assert halves[0] == halves[1]
    assert sum(halves) < trained(shape, "lntuning")
    one, two = ({n for n, p in own(shape, half)} for half in ("first-half", "last-half"))
    assert not one & two
    assert one | two == {n for n, _ in own(shape, "all") if re.search(r"\.(layers|h|block)\.\d", n)}


def own(shape: str, layers: Layers) -> list[tuple[str, Any]]:
    """The parameters that the method `layers` trains."""
    changes: dict[str, Any] = {name: value for name, value in EVEN.items() if name in CONFIGS[shape]}
    adapted = METHODS["layers"].function(build(shape, **changes), layers=layers)
    return [(name, p) for name, p in adapted.model.named_parameters() if p.requires_grad]


@pytest.mark.parametrize("shape", CONFIGS)
@pytest.mark.parametrize("method", ["lora", "ia3", "adapter", "bitfit", "svft", "dora", "adalora"])
def test_all_shapes_run_with_a_choice(shape: str, method: str) -> None:
    """Put on real tensors, the network still computes, and taken off it is as it was."""
    network = build(shape, "cpu")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    ids = torch.tensor([[5, 6, 7]])
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if shape in SEQ2SEQ else {})
    untouched = network(**inputs).logits
    adapted = METHODS[method].function(network, layers="last-half", modules=["attention", "mlp"])
    for name, parameter in adapted.model.named_parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, 1.0 if "ia3" in name else 0.0, 0.5)
    adapted.model.eval()
    assert not torch.allclose(network(**inputs).logits, untouched)
    adapted.remove()
    assert torch.equal(network(**inputs).logits, untouched)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


# Mistakes


@pytest.mark.parametrize(
    ("shape", "modules", "layers", "message"),
    [
        ("llama", "nose", "all", r"no layer 'nose' in this model.*decoder 0 to 4: choose from attention.*down.*q_proj"),
        (
            "llama",
            "cross-attention",
            "all",
            "no layer 'cross-attention' in this model.*choose from attention, self-att",
        ),
        ("t5", "cross-attention", "encoder", "no layer 'cross-attention' in the layers 'encoder' of this model"),
        ("t5", ["q", "gate"], "all", "no layer 'gate'.*the layers encoder 0 to 3, decoder 0 to 2"),
        ("opt", "project_in", "first-half", "no layer 'project_in' in the layers 'first-half'"),
        ("llama", [], "all", "modules: none are given: choose from attention"),
        ("llama", "q", "encoder", "layers 'encoder': no encoder in this model, which has the layers decoder 0 to 4"),
        ("llama", "q", [0, 5, -6], "no decoder layer 5,-6 in this model, which has the layers decoder 0 to 4"),
        ("bart", "q", [3], "no decoder layer 3 in this model, which has the layers encoder 0 to 3, decoder 0 to 2"),
        ("bart", "q", "third-half", "did you mean 'first-half'"),
        ("bart", "q", "encoder:", "unknown choice of layers ''"),
        ("bart", "q", [], "an empty list leaves nothing to adapt"),
    ],
)
def test_mistakes_list_what_could_be_chosen(shape: str, modules: Modules, layers: Layers, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        target_module_names(model(shape), modules, layers)
    assert "\n" not in str(caught.value)
