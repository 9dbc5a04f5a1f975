"""Parameters and FLOPs from configurations alone, against published and known-good figures."""

import csv
import json
from pathlib import Path

import pytest

import peftbench
from conftest import SHARED

COUNTS = SHARED / "reference" / "param_counts.csv"
OF_PEFT_BENCH = {
    "IA3": "IA3",
    "prompt tuning": "PROMPT_TUNING",
    "prefix tuning": "PREFIX_TUNING",
    "p-tuning": "P_TUNING",
    "LoRA": "LORA",
    "LNTuning": "LN_TUNING",
}


def rows_of_peft_bench() -> list[dict[str, str]]:
    """The rows of Llama-3-8B in the paper's own settings."""
    if not COUNTS.is_file():
        return []
    with COUNTS.open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["model"] == "meta-llama/Meta-Llama-3-8B"]
    return [row for row in rows if "use_dora" not in row["config_json"]]


@pytest.mark.parametrize("row", rows_of_peft_bench(), ids=lambda row: str(row["method"]))
def test_parameters_of_peft_bench(row: dict[str, str]) -> None:
    """Table of arXiv 2511.21285, from peft's own configuration as a dictionary."""
    if row["method"] == "full fine-tuning":
        found = peftbench.estimate("llama-3-8b", "full")
    else:
        asked = json.loads(row["config_json"]) | {"peft_type": OF_PEFT_BENCH[row["method"]]}
        if asked.get("target_modules") == "default":
            # The name that file has for all normalisation layers.
            asked["target_modules"] = r".*norm"
        found = peftbench.estimate("llama-3-8b", asked)
    assert found.trainable_parameters == int(row["trainable_params"])
    assert found.total_parameters == int(row["total_params"])


@pytest.mark.parametrize(
    ("method", "trainable", "extra_tflops"),
    [
        ("none", 0, 0.0),
        ("full", 8_030_261_248, 0.0),
        ("lora", 14_680_064, 0.015),
        ("ia3", 524_288, 0.0),
        ("bitfit", 163_840, 0.0),
        ("lntuning", 266_240, 0.0),
        ("prompt-tuning", 409_600, 1.560),
        ("p-tuning", 53_130_752, 1.570),
        ("prefix-tuning", 34_177_536, 0.009),
    ],
)
def test_our_methods_on_llama_3_8b(method: str, trainable: int, extra_tflops: float) -> None:
    """Our defaults are the paper's; FLOPs over the base forward pass of 7.822 TFLOP, to 0.01."""
    found = peftbench.estimate("llama-3-8b", method)
    assert found.trainable_parameters == trainable
    assert found.extra_forward_flops_512 / 1e12 == pytest.approx(extra_tflops, abs=0.01)
    assert (found.forward_flops_512 - found.extra_forward_flops_512) / 1e12 == pytest.approx(7.822, abs=5e-4)


def test_closed_forms_of_the_adapter() -> None:
    """Two matrices with biases, after attention and after the feed-forward of each of 32 layers."""
    wide, narrow = 4096, 4096 // 16
    each = 2 * wide * narrow + wide + narrow
    assert peftbench.estimate("llama-3-8b", "adapter").trainable_parameters == 64 * each
    assert peftbench.estimate("llama-3-8b", "adapter", form="pfeiffer").trainable_parameters == 32 * each


def test_every_way_to_name_a_model(tiny_models: dict[str, Path]) -> None:
    from transformers import AutoConfig

    folder = tiny_models["gpt2"]
    found = {
        peftbench.estimate(model, "lora", rank=2)
        for model in (str(folder), str(folder / "config.json"), AutoConfig.from_pretrained(folder))
    }
    assert len(found) == 1


def test_a_peft_configuration_and_its_dictionary_are_the_same(tiny_models: dict[str, Path]) -> None:
    from peft import VeraConfig

    folder = str(tiny_models["llama"])
    config = VeraConfig(r=8, target_modules=["q_proj", "v_proj"])
    as_dictionary = {"peft_type": "VERA", "r": 8, "target_modules": ["q_proj", "v_proj"]}
    assert peftbench.estimate(folder, config) == peftbench.estimate(folder, as_dictionary)


def test_what_is_not_known_is_said() -> None:
    with pytest.raises(peftbench.UserError, match="did you mean 'llama-3-8b'"):
        peftbench.estimate("llama-3-8", "lora")
    with pytest.raises(peftbench.UserError, match="did you mean 'lora'"):
        peftbench.estimate("llama-3-8b", "lara")
    with pytest.raises(peftbench.UserError, match="did you mean 'rank'"):
        peftbench.estimate("llama-3-8b", "lora", ranks=4)
    with pytest.raises(peftbench.UserError, match="no such file"):
        peftbench.estimate("nowhere/config.json")
