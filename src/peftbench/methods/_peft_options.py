"""Options of `peft` configurations that are refused because they have no effect or are not supported.

`tests/test_peft_options.py` checks every field of every configuration of the installed library: each changes the
training, is refused here, or is on the test's list of exceptions.
"""

from collections.abc import Mapping
from typing import Any

from peftbench.core.registry import UserError

ANSWERS = {
    "LILY": "its layers mix experts by the mean over all tokens of a call, padding too: an answer would depend on the "
    "rows that it shares a batch with, and on the key-value cache",
    "XLORA": "it mixes trained LoRA adapters by a pass of its own before every call, without a key-value cache, which "
    "answering in batches needs",
}
"""Types that cannot generate answers in batches with a key–value cache."""
UNUSED = "peft does not have it for this type"
QALORA = "it is for a base quantised by GPTQ, which cannot be loaded here"
MEGATRON = "it needs the parallel layers of Megatron-LM"
ALORA = (
    "its adapter acts from these tokens on, which the library looks for in a forward pass of its own; prompts here do "
    "not have them"
)
ARROW = "it chooses among adapters that were trained before; here there is one"
SAMPLED = "its own term of the loss needs the same backward pass as the loss, which here are two"
SAMPLING = "answers would be drawn at random, and no two runs be alike"
MEASURE = "it is a measure of the model, and is taken from it"
SOURCES = "it starts from prompts that were trained before; here there are none"
OTHER_STEPS = "it needs a pass of the library's own over data before training"
STARTS = {
    "eva": f"{OTHER_STEPS}, by which layers exchange ranks",
    "corda": OTHER_STEPS,
    "lora_ga": OTHER_STEPS,
    "loftq": "it is for a base that is quantised afterwards: use a quantised model",
}
OTHER_STARTS = ("gaussian", "pissa", "olora", "orthogonal", "mica")
"""Supported initialisations of LoRA; `STARTS` has the refused ones with reasons."""
VALUES: dict[str, dict[str, Mapping[Any, str]]] = {
    "LORA": {"init_lora_weights": STARTS},
    "ADALORA": {"init_lora_weights": dict.fromkeys((*STARTS, *OTHER_STARTS), UNUSED)},
    "TINYLORA": {"init_weights": {False: "what is trained would start at whatever is in memory"}},
}
"""Reasons for refused values, by type, option and value."""
SHARED = {"layers_pattern": "layers are counted in the order of the model: layers_to_transform is enough"}
OPTIONS: dict[str, dict[str, str]] = {
    "LORA": {
        "alora_invocation_tokens": ALORA,
        "arrow_config": ARROW,
        "monteclora_config": SAMPLED,
        **dict.fromkeys(("megatron_config", "megatron_core"), MEGATRON),
        **dict.fromkeys(("use_qalora", "qalora_group_size"), QALORA),
        "loftq_config": STARTS["loftq"],
        **{f"{start}_config": f"init_lora_weights = {start}: {STARTS[start]}" for start in ("eva", "corda", "lora_ga")},
    },
    "ADALORA": dict.fromkeys(
        (
            *("r", "rank_pattern", "alpha_pattern", "use_rslora", "lora_bias", "use_qalora", "qalora_group_size"),
            *("megatron_config", "megatron_core", "alora_invocation_tokens", "use_bdlora"),
            *("arrow_config", "loftq_config", "eva_config", "corda_config", "lora_ga_config"),
            *("velora_config", "monteclora_config", "kasa_config", "use_dora", "target_parameters"),
        ),
        UNUSED,
    ),
    "HIRA": {"rank_pattern": UNUSED},
    "BOFT": {"boft_n_butterfly_factor": "peft takes 1 where its CUDA extension is not built, which is not done here"},
    "OFT": {"module_dropout": UNUSED},
    "PVERA": dict.fromkeys(("sample_at_inference", "generator_seed"), SAMPLING),
    "OSF": {"target_svd_config": UNUSED},
    "SHADOW": {"layers_to_transform": UNUSED},
    **{
        kind: dict.fromkeys(("token_dim", "num_attention_heads", "num_layers", "num_transformer_submodules"), MEASURE)
        for kind in ("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CARTRIDGE", "MULTITASK_PROMPT_TUNING")
    },
}
"""Reasons for refused options, by type and option."""
OPTIONS["MULTITASK_PROMPT_TUNING"] |= dict.fromkeys(
    ("prompt_tuning_init_state_dict_path", "prompt_tuning_init_task"), SOURCES
)


def check_options(kind: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raise `UserError` for a refused option or value that differs from the default."""
    reasons = SHARED | OPTIONS.get(kind, {})
    for name, value in given.items():
        if name in reasons and value != defaults.get(name):
            raise UserError(f"peft:{kind.lower()} cannot be run with {name}: {reasons[name]}")
    for name, values in VALUES.get(kind, {}).items():
        value = given.get(name)
        if isinstance(value, str | bool) and value in values:
            raise UserError(f"peft:{kind.lower()} cannot be run with {name} = {value}: {values[value]}")


def check_saved(config: Any) -> None:
    """Raise `ValueError` for a saved adapter that uses an unsupported type or option."""
    if config.peft_type in ANSWERS:
        raise ValueError(f"peft:{config.peft_type.lower()}: {ANSWERS[config.peft_type]}")
    for name, reason in (
        ("alora_invocation_tokens", ALORA),
        ("arrow_config", ARROW),
        ("sample_at_inference", SAMPLING),
    ):
        if getattr(config, name, None):
            raise ValueError(f"it has {name}: {reason}")
    start = getattr(config, "init_lora_weights", None)
    if start in ("corda", "lora_ga"):
        raise ValueError(
            f"init_lora_weights = {start} changed its base, which its files do not have: save it with "
            "path_initial_model_for_weight_conversion"
        )
