"""Weights that do not arrive are an error that names them; folders that cannot be loaded say why in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from peftbench.core.registry import UserError
from peftbench.engine.base_model import Base
from peftbench.grid.expand import expand
from peftbench.methods import METHODS
from peftbench.models import find
from peftbench.single_run import Worker, adapt, run

State = dict[str, torch.Tensor]
Q = "model.layers.0.self_attn.q_proj.weight"


def renamed(state: State, old: str, new: str) -> State:
    return {name.replace(old, new): tensor for name, tensor in state.items()}


BROKEN: dict[str, tuple[Callable[[State], State], str]] = {
    "lacks a layer": (
        lambda state: {name: tensor for name, tensor in state.items() if "layers.1." not in name},
        r"9 weights missing from its files: model\.layers\.1\.input_layernorm\.weight, .+ and 6 more\. Save",
    ),
    "lacks the head": (
        lambda state: {name: tensor for name, tensor in state.items() if name != "lm_head.weight"},
        r"1 weights missing from its files: lm_head\.weight\. Save or download the whole model again",
    ),
    "within peft": (
        lambda state: renamed(state, "", "") and {f"base_model.model.{name}": each for name, each in state.items()},
        r"21 weights without a place in it: base_model\.model\..+It was saved from within peft: save it by merge_and",
    ),
    "wrapped layers": (
        lambda state: renamed(state, "q_proj.weight", "q_proj.base_layer.weight"),
        r"2 weights without a place in it: .+q_proj\.base_layer\.weight.+It was saved from within peft",
    ),
    "another shape": (
        lambda state: state | {Q: state[Q][:32].clone()},
        r"1 weights of another shape in its files: model\.layers\.0\.self_attn\.q_proj\.weight \[32, 64\]",
    ),
    "one too many": (
        lambda state: state | {"model.layers.2.mlp.up_proj.weight": state[Q].clone()},
        r"1 weights without a place in it: model\.layers\.2\.mlp\.up_proj\.weight",
    ),
}


def changed(llama: Path, folder: Path, change: Callable[[State], State]) -> Path:
    shutil.copytree(llama, folder)
    state = load_file(folder / "model.safetensors")
    save_file(change(state), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("kind", BROKEN)
def test_weights_that_do_not_arrive_are_named(kind: str, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    change, said = BROKEN[kind]
    folder = changed(tiny_models["llama"], tmp_path / "broken", change)
    with pytest.raises(UserError, match=said) as raised:
        Base(find(str(folder)), "fp32")
    assert str(raised.value).startswith("model broken: ")
    assert "\n" not in str(raised.value)


def test_a_run_on_weights_that_did_not_arrive_fails_with_their_names(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    folder = changed(tiny_models["llama"], tmp_path / "broken", BROKEN["lacks a layer"][0])
    (asked,) = expand({"name": "x", "models": [str(folder)], "methods": ["none"], "tasks": ["pocket_topic"]})
    result, predictions = run(asked, Worker(), tmp_path, lambda _event: None)
    assert (result.status, predictions) == ("failed", [])
    assert result.error is not None
    assert result.error.startswith("model broken: 9 weights missing from its files: ")
    assert not (tmp_path / "error.txt").exists(), "an error of the user's files has no traceback"


@pytest.mark.parametrize("kind", ["lacks a layer", "wrapped layers", "another shape"])
def test_a_fully_trained_model_lacks_no_weights_either(kind: str, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    folder = changed(tiny_models["llama"], tmp_path / "trained", BROKEN[kind][0])
    base = Base(find(str(tiny_models["llama"])), "fp32")
    entry = {"use": "saved", "folder": str(folder), "any_base": True}
    (asked,) = expand({"name": "x", "models": [base.ref.source], "methods": [entry], "tasks": ["pocket_topic"]})
    with pytest.raises(UserError, match=rf"adapter {folder}: \d weights (missing|of another shape)"):
        adapt(base, METHODS["saved"], asked)


def test_what_older_releases_saved_with_the_weights_is_passed_over(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    stale = {f"model.layers.0.self_attn.{name}": torch.ones(1) for name in ("masked_bias", "rotary_emb.inv_freq")}
    folder = changed(tiny_models["llama"], tmp_path / "old", lambda state: state | stale)
    assert Base(find(str(folder)), "fp32").checksum == Base(find(str(tiny_models["llama"])), "fp32").checksum


@pytest.mark.parametrize("kept", ["sharded", "half", "pickled", "tied"])
def test_other_kinds_of_weight_files_arrive_whole(kept: str, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    source = tiny_models["qwen" if kept == "tied" else "llama"]
    shutil.copytree(source, tmp_path / kept)
    (tmp_path / kept / "model.safetensors").unlink()
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    if kept == "sharded":
        model.save_pretrained(tmp_path / kept, max_shard_size="200KB")
    elif kept == "half":
        model.half().save_pretrained(tmp_path / kept)
    else:
        torch.save(model.half().state_dict(), tmp_path / kept / "pytorch_model.bin")
    arrived = dict(Base(find(str(tmp_path / kept)), "fp32").model.named_parameters())
    for name, parameter in model.named_parameters():
        assert arrived[name].equal(parameter.float()), name


def test_a_classifier_is_no_language_model(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

    config = LlamaConfig.from_pretrained(tiny_models["llama"])
    LlamaForSequenceClassification(config).save_pretrained(tmp_path / "judge")
    AutoTokenizer.from_pretrained(tiny_models["llama"]).save_pretrained(tmp_path / "judge")
    said = "It was saved as LlamaForSequenceClassification, which is no LlamaForCausalLM: give a language model"
    with pytest.raises(UserError, match=said):
        Base(find(str(tmp_path / "judge")), "fp32")


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded: Error no file named"),
    "cut short": (
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000]),
        "cannot be loaded: SafetensorError",
    ),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{}"), "cannot be loaded: "),
    "code of its own": (
        lambda folder: configured(folder, model_type="mine", auto_map={"AutoConfig": "mine.Mine"}),
        "it needs code of its own; only architectures that transformers has are supported",
    ),
    "no architecture": (lambda folder: configured(folder, model_type="nothing"), "cannot be loaded: .+nothing"),
    "no language": (lambda folder: configured(folder, model_type="vit"), "has no language model of type 'vit'"),
    "wrong sizes": (lambda folder: configured(folder, num_attention_heads=0), "cannot be loaded: ZeroDivisionError"),
    "wrong types": (lambda folder: configured(folder, hidden_size="wide"), "cannot be loaded: "),
}


def configured(folder: Path, **facts: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | facts))
    (folder / "mine.py").write_text("raise SystemExit('code of a model folder was run')\n")


@pytest.mark.parametrize("kind", ODD)
def test_a_folder_that_cannot_be_loaded_says_why_in_a_line(
    kind: str, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(tiny_models["llama"], tmp_path / "odd")
    change, said = ODD[kind]
    change(tmp_path / "odd")
    with pytest.raises(UserError, match=said) as raised:
        Base(find(str(tmp_path / "odd")), "fp32")
    assert "\n" not in str(raised.value)
