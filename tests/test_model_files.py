"""Which files of a folder are the trained model: they are counted as its size, and known by their content."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from peftbench.core.registry import UserError
from peftbench.engine.base_model import Base
from peftbench.grid.expand import expand
from peftbench.models import find
from peftbench.models.saved_model_files import identity, needed_files, weight_bytes
from peftbench.single_run import Worker, run


def adapter(model: Path, folder: Path, **more: Any) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    asked = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(model), asked).save_pretrained(str(folder), **more)
    return folder


def whole(model: Path, folder: Path, **more: Any) -> Path:
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(model).save_pretrained(folder, **more)
    return folder


def trained_there(folder: Path) -> None:
    """What a trainer leaves beside the model."""
    shutil.copytree(folder, folder / "checkpoint-5")
    for place in (folder, folder / "checkpoint-5"):
        for name in ("optimizer.pt", "scheduler.pt", "training_args.bin", "optimizer.bin", "tokenizer.json"):
            (place / name).write_bytes(bytes(1000))
        (place / "trainer_state.json").write_text("{}")
    (folder / "runs").mkdir()
    (folder / "runs" / "weights.safetensors").write_bytes(bytes(1000))
    (folder / "runs" / "events").write_text(str(folder))


@pytest.mark.parametrize("form", ["adapter", "adapter-bin", "whole", "sharded"])
def test_what_a_trainer_leaves_beside_a_model_does_not_count(
    form: str, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    llama, folder = tiny_models["llama"], tmp_path / "red"
    if form.startswith("adapter"):
        adapter(llama, folder, safe_serialization=form == "adapter")
    else:
        whole(llama, folder, **({"max_shard_size": "1MB"} if form == "sharded" else {}))
    weights = sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".safetensors", ".bin"))
    assert (len(list(folder.glob("*.safetensors"))) > 1) == (form == "sharded")
    size, known_by = weight_bytes(folder), identity(folder)
    assert size == weights > 0
    trained_there(folder)
    assert (weight_bytes(folder), identity(folder)) == (size, known_by)
    # In a grid, and as a run.
    (spec,) = expand(
        {
            "models": [str(llama)],
            "methods": [{"use": "saved", "folder": str(folder), "any_base": True}],
            "tasks": ["pocket_sentiment"],
            "eval": {"test_rows": 2},
        }
    )
    assert spec.method.arguments["folder"] == known_by
    if form == "adapter":
        result, _ = run(spec, Worker(), tmp_path, lambda _event: None)
        assert (result.status, result.costs.adapter_bytes) == ("ok", size), result.error
    # And what does count is known by its content.
    parts = [path for path in needed_files(folder) if path.suffix in (".safetensors", ".bin")]
    content = bytearray(parts[-1].read_bytes())
    content[-1] ^= 1
    parts[-1].write_bytes(bytes(content))
    assert identity(folder) != known_by


def test_weights_in_two_formats_count_once(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    folder = adapter(tiny_models["llama"], tmp_path / "red")
    size, known_by = weight_bytes(folder), identity(folder)
    adapter(tiny_models["llama"], tmp_path / "bin", safe_serialization=False)
    shutil.copy(tmp_path / "bin" / "adapter_model.bin", folder)
    assert (weight_bytes(folder), identity(folder)) == (size, known_by)


def test_a_missing_part_is_said(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    folder = whole(tiny_models["llama"], tmp_path / "red", max_shard_size="1MB")
    shard = min(folder.glob("*.safetensors"))
    shard.unlink()
    with pytest.raises(UserError, match=f"{shard.name} is not there"):
        identity(folder)
    (folder / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(UserError, match="cannot be read as an index of weights"):
        identity(folder)


def test_a_fully_trained_model_in_parts_answers(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    from peftbench.methods import METHODS

    base = Base(find(str(tiny_models["llama"])), "fp32")
    folder = whole(tiny_models["llama"], tmp_path / "red", max_shard_size="1MB")
    adapted = METHODS["saved"].function(base.model, folder=str(folder), any_base=True)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(adapted.network(ids).logits, base.model(ids).logits)
