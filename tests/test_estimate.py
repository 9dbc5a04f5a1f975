"""Parameters and FLOPs from configurations alone, against published and known-good figures."""

import csv
import json
from pathlib import Path

import pytest

import peftbench
from conftest import SHARED

COUNTS = SHARED / "reference" / "param_counts.csv"
NOT_EXPRESSED = {
    ("bert-large-uncased", "BitFit"): "sequence classification: no language model",
    ("bert-base-uncased", "prompt tuning"): "sequence classification: no language model",
    ("google/flan-t5-base", "BitFit"): "it trains the biases there are, which are none; ours adds some instead",
}
"""Rows of the file that neither our methods nor a configuration of peft can say here, and why."""


def row_of(row: dict[str, str]) -> tuple[str, str]:
    return row["model"], row["method"]


def known_good() -> list[dict[str, str]]:
    if not COUNTS.is_file():
        return []
    with COUNTS.open(newline="") as lines:
        return list(csv.DictReader(lines))


def estimated(row: dict[str, str]) -> tuple[int, int]:
    """Trainable and total parameters of a row: our own `full` and `bitfit`, else peft's configuration as given."""
    methods = {"full fine-tuning": "full", "BitFit": "bitfit"}
    asked = json.loads(row["config_json"])
    kind = row["method"].upper().replace(" ", "_").replace("-", "_")
    asked["peft_type"] = {"LNTUNING": "LN_TUNING"}.get(kind, kind)
    if asked.get("target_modules") == "default":
        # The name that file has for all normalisation layers.
        asked["target_modules"] = r".*norm"
    if kind == "ADALORA":
        # When to prune, which the library demands and which changes no count.
        asked["total_step"] = 1
    found = peftbench.estimate(row["model"], methods.get(row["method"], asked))
    assert found.trainable_parameters is not None
    assert found.total_parameters is not None
    return found.trainable_parameters, found.total_parameters


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id="-".join(row_of(row)), marks=[pytest.mark.slow] if number % 4 else [])
        for number, row in enumerate(row for row in known_good() if row_of(row) not in NOT_EXPRESSED)
    ],
)
def test_known_good_counts(row: dict[str, str]) -> None:
    """From configurations alone, by the names that models have on the Hub and without a network."""
    assert estimated(row) == (int(row["trainable_params"]), int(row["total_params"]))


@pytest.mark.skipif(not COUNTS.is_file(), reason="needs the known-good counts")
def test_what_cannot_be_expressed_is_listed() -> None:
    listed = {row_of(row): row for row in known_good() if row_of(row) in NOT_EXPRESSED}
    assert set(listed) == set(NOT_EXPRESSED)
    for (model, _), row in listed.items():
        if model.startswith("bert"):
            with pytest.raises(peftbench.UserError, match="unknown model"):
                estimated(row)
        else:
            assert estimated(row)[0] > 0 == int(row["trainable_params"])
            assert peftbench.estimate(model, "none").total_parameters == int(row["total_params"])


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
    assert found.forward_flops_512 is not None
    assert found.extra_forward_flops_512 is not None
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
    from transformers import ViTConfig

    with pytest.raises(peftbench.UserError, match="did you mean 'llama-3-8b'"):
        peftbench.estimate("llama-3-8", "lora")
    with pytest.raises(peftbench.UserError, match="did you mean 'lora'"):
        peftbench.estimate("llama-3-8b", "lara")
    with pytest.raises(peftbench.UserError, match="did you mean 'rank'"):
        peftbench.estimate("llama-3-8b", "lora", ranks=4)
    with pytest.raises(peftbench.UserError, match="no such file"):
        peftbench.estimate("nowhere/config.json")
    with pytest.raises(peftbench.UserError, match="type vit is no language model"):
        peftbench.estimate(ViTConfig(), "lora")


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("llama-3.1-8b", 8_030_261_248),
        ("smollm2-135m", 134_515_008),
        pytest.param("smollm2-360m", 361_821_120, marks=pytest.mark.slow),
        pytest.param("smollm2-1.7b", 1_711_376_384, marks=pytest.mark.slow),
        ("qwen3-0.6b", 596_049_920),
        pytest.param("qwen3-1.7b", 1_720_574_976, marks=pytest.mark.slow),
        pytest.param("qwen3-4b", 4_022_468_096, marks=pytest.mark.slow),
        pytest.param("qwen3-8b", 8_190_735_360, marks=pytest.mark.slow),
        pytest.param("gemma-2-2b", 2_614_341_888, marks=pytest.mark.slow),
        ("gemma-2-9b", 9_241_705_984),
        pytest.param("gemma-3-1b", 999_885_952, marks=pytest.mark.slow),
        ("gpt2", 124_439_808),
    ],
)
def test_facts_of_well_known_models(model: str, parameters: int) -> None:
    """Parameters as published with the weights; tied ones once."""
    assert peftbench.estimate(model).total_parameters == parameters
