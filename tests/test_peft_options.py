"""Every option of every configuration of the installed peft: it changes what is trained or how, or it is refused."""

import dataclasses
import enum
import inspect
import typing
from pathlib import Path
from typing import Any

import pytest
import torch

from peftbench.checks import tiny_models as tiny
from peftbench.core.registry import UserError
from peftbench.core.spec import Training
from peftbench.engine.base_model import Base
from peftbench.engine.families import model_family
from peftbench.engine.phase_meter import Meter
from peftbench.engine.train import Trainer
from peftbench.methods import METHODS
from peftbench.methods._peft_types import REFUSED, types
from peftbench.models import find

EVERYWHERE: dict[str, Any] = {
    "target_modules": ["k"],
    "exclude_modules": r".*layers\.1.*",
    "modules_to_save": ["lm_head"],
    "layers_to_transform": [0],
    "layers_pattern": "layers",
    "bias": "all",
    "rank_pattern": {"q_proj": 2},
    "alpha_pattern": {"q_proj": 3},
    "trainable_token_indices": [5, 6],
    "num_virtual_tokens": 7,
    "token_dim": 32,
    "num_transformer_submodules": 2,
    "num_attention_heads": 2,
    "num_layers": 1,
    "target_parameters": ["mlp.up_proj.weight"],
    "layer_replication": [(0, 1), (0, 2)],
    "alora_invocation_tokens": [5, 6],
    "loftq_config": {"loftq_bits": 4},
    "use_bdlora": {"target_modules_bd_a": ["q_proj"], "target_modules_bd_b": ["v_proj"], "nblocks": 2},
    "n_frequency_pattern": {"q_proj": 20},
    **{name: {} for name in ("eva_config", "corda_config", "lora_ga_config", "velora_config", "kasa_config")},
    **{name: {} for name in ("monteclora_config", "arrow_config", "megatron_config")},
    "megatron_core": "other",
    "tokenizer_kwargs": {"use_fast": True},
    "module_dropout": 0.3,
    "prompt_tuning_init_state_dict_path": "prompts.bin",
}
"""Values of options by name, where none can be told from the default."""
Context = dict[str, Any]
TEXT = {"prompt_tuning_init": "TEXT", "tokenizer_name_or_path": "TOKENIZER", "prompt_tuning_init_text": "one word"}
ASA = {
    "use_asa": True,
    "asa_target_subspaces": 3,
    "init_warmup": 1,
    "final_warmup": 10,
    "mask_interval": 3,
    "STEPS": 12,
}
BUDGET = {"init_r": 6, "target_r": 3, "tfinal": 1, "STEPS": 12}
ONE_BY_ONE: dict[str, dict[str, tuple[Context, Any]]] = {
    "ADALORA": {
        "init_r": ({}, 16),
        "beta1": (BUDGET, 0.1),
        "beta2": (BUDGET, 0.1),
        "tinit": (BUDGET, 1),
        "tfinal": (BUDGET | {"tfinal": 0}, 2),
        "deltaT": (BUDGET, 2),
        "total_step": (BUDGET, 20),
        "target_r": (BUDGET, 2),
        "ensure_weight_tying": ({"modules_to_save": ["embed_tokens"]}, True),
    },
    "ADAMSS": {
        "use_asa": ({**ASA, "use_asa": False}, True),
        "init_weights": ({}, None),
        **{
            name: (ASA, value)
            for name, value in {
                "asa_target_subspaces": 6,
                "init_warmup": 2,
                "final_warmup": 30,
                "mask_interval": 2,
                "asa_schedule_exponent": 1.0,
            }.items()
        },
        "svd_threshold": ({"r": 16, "num_subspaces": 2, "subspace_rank": 4, "use_dynamic_rank": True}, 0.9),
    },
    "ADAPTION_PROMPT": {"adapter_len": ({}, 5), "adapter_layers": ({}, 1)},
    "BOFT": {"boft_block_num": ({"boft_block_size": 0, "boft_block_num": 4}, 8)},
    "C3A": {"block_size": ({}, 16), "block_size_pattern": ({}, {"q_proj": 16})},
    "DEFT": {
        "alpha": ({}, 3),
        "para": ({}, True),
        "init_scale": ({"init_weights": False}, 2.0),
    },
    "DELORA": {"lambda_pattern": ({}, {"q_proj": 3.0})},
    "IA3": {"feedforward_modules": ({"target_modules": ["k", "down"]}, [])},
    "LORA": {
        "velora_config": ({}, {"num_groups": 4}),
        "ensure_weight_tying": ({"modules_to_save": ["embed_tokens"]}, True),
    },
    "MULTITASK_PROMPT_TUNING": {
        "prompt_tuning_init_text": (TEXT, "another text"),
        "tokenizer_name_or_path": (TEXT, "OTHER"),
    },
    "PROMPT_TUNING": {
        "prompt_tuning_init_text": (TEXT, "another text"),
        "tokenizer_name_or_path": (TEXT, "OTHER"),
    },
    "OFT": {
        "r": ({"oft_block_size": 0, "r": 4}, 8),
        "eps": ({"coft": True}, 1e-6),
        "num_cayley_neumann_terms": ({}, 2),
    },
    "PREFIX_TUNING": {"encoder_hidden_size": ({"prefix_projection": True}, 24)},
    "PSOFT": {
        "random_seed": ({"psoft_svd": "lowrank"}, 3),
        "psoft_svd_lowrank_niter": ({"psoft_svd": "lowrank"}, 1),
        "num_cayley_neumann_terms": ({"use_cayley_neumann": True}, 1),
        "cayley_neumann_eps": ({"use_cayley_neumann": True}, 1e-3),
    },
    "PVERA": {"generator_seed": ({}, 2)},
    "P_TUNING": {
        "encoder_hidden_size": ({}, 24),
        "encoder_num_layers": ({"encoder_reparameterization_type": "LSTM", "encoder_hidden_size": 16}, 1),
        "encoder_dropout": ({"encoder_reparameterization_type": "LSTM", "encoder_hidden_size": 16}, 0.5),
    },
    "ROAD": {"group_size": ({}, 16)},
    "SHADOW": {
        "target_modules": ({}, r".*layers\.0"),
        "shadow_num_hidden_layers": ({}, 2),
        "shadow_hidden_size": ({}, 32),
        "shadow_num_attention_heads": ({}, 2),
        "shadow_intermediate_size": ({}, 48),
        "shadow_model": ({}, "MODEL"),
        "update_hidden_size": ({}, 16),
    },
    "SHIRA": {"random_seed": ({}, 3)},
    "SUPERTUNING": {
        "r": ({}, 4),
        "lora_alpha": ({"r": 4}, 3),
        "lora_dropout": ({"r": 4}, 0.5),
    },
    "TINYLORA": {
        "init_v_bound": ({"init_weights": "uniform"}, 0.5),
        "init_weights": ({}, "uniform"),
        "weight_tying": ({}, 1.0),
    },
    "TRAINABLE_TOKENS": {"target_modules": ({}, ["lm_head"]), "token_indices": ({}, [5, 6])},
    "MISS": {"mini_r": ({"init_weights": "mini", "r": 4}, 2)},
    "OSF": {"effective_rank": ({}, 4), "target_svd_config": ({}, {"model.layers.0.self_attn.q_proj": 3})},
    "PEANUT": {"act_fn": ({}, "gelu")},
    "WAVEFT": {"wavelet_family": ({}, "sym2")},
    "LN_TUNING": {"target_modules": ({}, ["input_layernorm"])},
    "LOKR": {
        "decompose_both": ({"r": 1, "decompose_factor": 4}, True),
        "rank_dropout_scale": ({"rank_dropout": 0.5}, True),
    },
}
"""Options that matter beside others: those others, and a value."""
KEEPS = "what is saved, not what is computed"
KERNEL = "the library sets it by the kind of the layer"
SMALL = "the library ranks parts by it, and in a model this small the same parts win"
INERT: dict[tuple[str, str], str] = {
    ("*", "fan_in_fan_out"): KERNEL,
    ("*", "save_projection"): KEEPS,
    ("*", "use_effective_conv2d"): "it is for convolutions",
    ("*", "runtime_config"): "where computations of the start are done",
    ("*", "tokenizer_kwargs"): "how the tokenizer of a first text is loaded",
    ("ADAMSS", "asa_importance_beta"): SMALL,
    ("ADAMSS", "asa_uncertainty_beta"): SMALL,
    ("VBLORA", "save_only_topk_weights"): KEEPS,
    ("UNILORA", "save_indices"): KEEPS,
    ("SUPERTUNING", "save_precomputed_indices"): KEEPS,
    ("FROD", "progressbar"): "what is shown",
    ("FROD", "runtime_offload_base_weight"): "where the base's weights are kept meanwhile",
    ("POLY", "poly_type"): "the library knows one value",
    ("SHIRA", "mask_type"): "the library knows one value",
}
"""Options that cannot change the function, here at least, and why."""
STEPS = Training(max_steps=4, eval_steps=1.0, per_device_train_batch_size=2, warmup_steps=0)


@pytest.fixture(scope="module")
def bases(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Base]:
    """A Llama with biases; of those whose embeddings are tied, a Qwen."""
    decoder = tiny.build_tiny("decoder", tmp_path_factory.mktemp("options"))
    return {"llama": Base(find(str(decoder)), "fp32"), "tied": Base(find(str(tiny_models["qwen"])), "fp32")}


def own_options(kind: str) -> list[str]:
    """The fields of a configuration that are its own."""
    from peft import PeftConfig

    from peftbench.methods._peft_types import config_class

    common = {field.name for field in dataclasses.fields(PeftConfig)}
    return [f.name for f in dataclasses.fields(config_class(kind)) if f.init and f.name not in common]


def other_values(kind: str, name: str) -> list[tuple[Context, Any]]:
    """Values that differ from the default, the first that can be tried first, with what is set beside them."""
    if (known := ONE_BY_ONE.get(kind, {}).get(name)) is not None:
        return [known]
    if name in EVERYWHERE:
        return [({}, EVERYWHERE[name])]
    parameter = METHODS[f"peft:{kind.lower()}"].parameters[name]
    default = parameter.default
    if isinstance(default, bool):
        return [({}, not default)]
    if isinstance(default, enum.Enum):
        return [({}, member.value) for member in type(default) if member != default]
    if isinstance(default, int):
        return [({}, value) for value in (max(1, default // 2), default * 2, default + 1) if value != default]
    if isinstance(default, float):
        return [({}, default / 2 if default else 0.5)]
    return [({}, word) for word in _words(parameter.annotation) if word != default]


def _words(annotation: Any) -> list[str]:
    found: list[str] = [annotation] if isinstance(annotation, str) else []
    for part in typing.get_args(annotation):
        found += _words(part)
    return found


def outcome(base: Base, kind: str, arguments: Context) -> tuple[dict[str, tuple[int, ...]], torch.Tensor]:
    """What is trained, and the logits after a short training with one seed."""
    unit, rows = METHODS[f"peft:{kind.lower()}"], tiny.tiny_rows(base, 4)
    places = {"TOKENIZER": base.ref.source, "OTHER": find("pocket-t5").source, "MODEL": base.ref.source}
    steps = STEPS.model_copy(update={"max_steps": arguments.get("STEPS", STEPS.max_steps)})
    arguments = {name: value for name, value in arguments.items() if name != "STEPS"}
    given = {name: places.get(value, value) if isinstance(value, str) else value for name, value in arguments.items()}
    torch.manual_seed(0)
    adapted = unit.function(base.model, **unit.check(given))
    try:
        for parameter in adapted.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        shapes = {name: tuple(p.shape) for name, p in adapted.model.named_parameters() if p.requires_grad}
        Trainer(adapted, steps, 1e-2, "fp32", 0).fit(rows, rows, Meter(), lambda _event: None)
        adapted.model.eval()
        with torch.no_grad():
            return shapes, model_family(base.config).target_logits(adapted, rows).clone()
    finally:
        if adapted.remove is not None:
            adapted.remove()
        base.restore()


UNCHANGED: dict[str, Any] = {}
"""Outcomes without an option, by what is set beside it."""


def differs(base: Base, kind: str, context: Context, name: str, value: Any) -> bool:
    key = f"{base.ref.source} {kind} {context}"
    if key not in UNCHANGED:
        UNCHANGED[key] = outcome(base, kind, context)
    shapes, logits = UNCHANGED[key]
    other_shapes, other_logits = outcome(base, kind, context | {name: value})
    return shapes != other_shapes or not logits.equal(other_logits)


def unexplained(base: Base, kind: str, name: str) -> str:
    """What is wrong with an option, empty if it changes something or is refused by its name."""
    said = []
    for context, value in other_values(kind, name):
        try:
            if differs(base, kind, context, name, value):
                return ""
            said.append(f"{name} = {value!r} changes nothing")
        except UserError as refused:
            if name in str(refused):
                return ""
            said.append(f"{name} = {value!r}: {refused}")
    return f"peft:{kind.lower()}: {'; '.join(said) or f'{name}: no value to try'}"


def test_options_that_cannot_matter_are_options() -> None:
    every = {(kind.upper(), name) for kind in types() for name in own_options(kind.upper())}
    names = {name for _, name in every}
    for kind, name in INERT:
        assert name in names if kind == "*" else (kind, name) in every
    for kind, options in ONE_BY_ONE.items():
        assert not {(kind, name) for name in options} - every


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind.upper() for kind in types() if kind.upper() not in REFUSED])
def test_every_option_changes_something_or_is_refused(kind: str, bases: dict[str, Base]) -> None:
    problems = []
    for name in own_options(kind):
        if (kind, name) in INERT or ("*", name) in INERT:
            continue
        base = bases["tied" if name == "ensure_weight_tying" else "llama"]
        if problem := unexplained(base, kind, name):
            problems.append(problem)
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("lora", {"alora_invocation_tokens": [5]}),
        ("lora", {"init_lora_weights": "eva"}),
        ("lora", {"init_lora_weights": "corda"}),
        ("lora", {"monteclora_config": {}}),
        ("lora", {"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}}),
        ("lora", {"use_qalora": True}),
        ("lora", {"arrow_config": {}}),
        ("lora", {"megatron_config": {}}),
        ("lora", {"layers_to_transform": [0], "layers_pattern": "layers"}),
        ("adalora", {"use_rslora": True}),
        ("adalora", {"init_lora_weights": "gaussian"}),
        ("tinylora", {"init_weights": False}),
        ("oft", {"module_dropout": 0.5}),
        ("pvera", {"sample_at_inference": True}),
        ("hira", {"rank_pattern": {"q_proj": 2}}),
        ("prompt_tuning", {"token_dim": 32}),
    ],
)
def test_what_is_not_done_here_is_refused_by_name(kind: str, arguments: Context) -> None:
    """When a grid is read, in one line."""
    from peftbench.grid.expand import expand

    with pytest.raises(UserError, match=f"peft:{kind} cannot be run with .*{list(arguments)[-1]}") as problem:
        expand({"methods": [{"use": f"peft:{kind}", **arguments}], "tasks": ["pocket_topic"]})
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("LORA", "layers_to_transform"),
        ("LORA", "kasa_config"),
        ("IA3", "target_modules"),
    ],
)
def test_an_option_changes_something(kind: str, name: str, bases: dict[str, Base]) -> None:
    """A part of the whole test, which is slow."""
    assert unexplained(bases["llama"], kind, name) == ""


def test_numbers_of_layers_are_those_layers(bases: dict[str, Base]) -> None:
    """As `layers` has it; the library would not look at them beside full names."""
    base = bases["llama"]
    for asked in ({"layers_to_transform": 1}, {"layers_to_transform": [1]}, {"layers": [1]}):
        adapted = METHODS["peft:lora"].function(base.model, **asked)
        names = [name for name, p in adapted.model.named_parameters() if p.requires_grad]
        assert adapted.remove is not None
        adapted.remove()
        assert names
        assert all(".layers.1." in name for name in names)
    with pytest.raises(UserError, match="both choose layers"):
        METHODS["peft:lora"].function(base.model, layers=[0], layers_to_transform=[1])
    base.restore()


def test_a_term_that_the_library_leaves_to_the_loop_is_in_the_loss(bases: dict[str, Base]) -> None:
    base = bases["llama"]
    adapted = METHODS["peft:lora"].function(base.model, kasa_config={"beta": 0.5})
    assert adapted.penalty is not None
    adapted.model.train()
    term = adapted.penalty()
    assert term.requires_grad
    assert float(term.detach()) != 0
    assert adapted.remove is not None
    adapted.remove()
    # What KaSA cuts off the base's weights is put back.
    assert base.restore() is False


def test_defaults_of_core_methods_are_arguments_of_their_own() -> None:
    """Arguments of core methods have names and meanings of ours: none is handed to the library unseen."""
    for unit in METHODS:
        if unit.function.__module__.startswith("peftbench.methods."):
            kinds = {p.kind for p in list(inspect.signature(unit.function).parameters.values())[1:]}
            assert kinds <= {inspect.Parameter.KEYWORD_ONLY}, unit.name
