"""Models trained elsewhere: the row of a run, from files; and our files, for those who use `peft` alone."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from peftbench.core.registry import UserError
from peftbench.core.spec import RunResult, RunSpec
from peftbench.engine.base_model import Base
from peftbench.engine.checkpoint import save_checkpoint
from peftbench.engine.families.decoder import forward
from peftbench.grid.expand import expand
from peftbench.methods import METHODS, Adapted
from peftbench.methods._saved_files import describe, examine
from peftbench.models import find
from peftbench.single_run import Worker, run
from test_cli import assert_one_line, call

METHODS_KEPT: list[Any] = [
    {"use": "lora", "rank": 4},
    "ia3",
    "lntuning",
    "adapter",
    "bitfit",
    "full",
    {"use": "prompt-tuning", "tokens": 4},
    {"use": "p-tuning", "tokens": 4, "hidden": 16},
    {"use": "prefix-tuning", "tokens": 4, "hidden": 16},
    {"use": "pissa", "rank": 4},
    {"use": "adalora", "rank": 2, "initial_rank": 4},
    {"use": "svft", "layers": "random-half"},
    {"use": "layers", "layers": "random-half"},
    {"use": "peft:vera", "r": 8},
    "peft:loha",
]
SAME = "trainable_parameters total_parameters forward_flops_512 extra_forward_flops_512 adapter_bytes".split()
NOT_MEASURED = "train_seconds tokens_per_second peak_memory_bytes peak_memory_source validation_seconds".split()


def specs(model: Path | str, methods: list[Any], **train: Any) -> list[RunSpec]:
    return expand(
        {
            "models": [str(model)],
            "methods": methods,
            "tasks": ["pocket_sentiment"],
            "sizes": [16],
            "train": {"max_steps": 4, "learning_rate": 1e-2, "validation_rows": 4} | train,
            "eval": {"test_rows": 24},
        }
    )


def do(spec: RunSpec, worker: Worker, folder: Path) -> tuple[RunResult, list[dict[str, Any]]]:
    folder.mkdir(parents=True, exist_ok=True)
    return run(spec, worker, folder, lambda _event: None)


SLOWER = (("llama", "bf16"), ("flan", "fp32"))


@pytest.mark.parametrize(
    ("model", "precision"), [("llama", "fp32"), *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOWER)]
)
def test_a_kept_adapter_gives_the_row_of_its_run(
    model: str, precision: str, tiny_models: dict[str, Path], tiny_seq2seq: dict[str, Path], tmp_path: Path
) -> None:
    """The same answers, scores and counted costs; nothing that was not measured; the base as it was."""
    worker, place = Worker(keep_adapters=True), (tiny_models | tiny_seq2seq)[model]
    for trained in specs(place, METHODS_KEPT, precision=precision):
        folder = tmp_path / trained.id
        first, answers = do(trained, worker, folder)
        assert first.status == "ok", first.error
        kept = {"use": "saved", "folder": str(folder / "adapter")}
        (again,) = specs(place, [kept], precision=precision)
        second, same_answers = do(again, worker, tmp_path / "again")
        assert second.status == "ok", second.error
        assert (second.scores, same_answers) == (first.scores, answers)
        costs, before = second.costs.model_dump(), first.costs.model_dump()
        assert {name: costs[name] for name in SAME} == {name: before[name] for name in SAME}, trained.method
        assert {name: costs[name] for name in NOT_MEASURED} == dict.fromkeys(NOT_MEASURED)
        assert (second.learning_rate, second.steps, second.curve) == (None, None, ())
        assert not second.base_reloaded
        assert str(again.method) == f"saved {trained.method} {trained.id}"


def test_the_content_is_what_a_run_is_known_by(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    worker = Worker(keep_adapters=True)
    (trained,) = specs(tiny_models["llama"], ["ia3"])
    do(trained, worker, tmp_path / "run")
    here, there = tmp_path / "run" / "adapter", tmp_path / "moved"
    shutil.copytree(here, there)
    one, two = (specs(tiny_models["llama"], [{"use": "saved", "folder": str(place)}])[0] for place in (here, there))
    assert one.id == two.id
    assert one.method.place != two.method.place
    both = specs(tiny_models["llama"], [{"use": "saved", "folder": [str(here), str(there)]}])
    assert [spec.id for spec in both] == [one.id]
    weights = there / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    changed, _ = do(two, worker, tmp_path / "again")
    assert (changed.status, "moved has changed since" in str(changed.error)) == ("failed", True)
    assert specs(tiny_models["llama"], [{"use": "saved", "folder": str(there)}])[0].id != one.id


def test_a_grid_names_a_folder_from_its_own(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    do(specs(tiny_models["llama"], ["ia3"])[0], Worker(keep_adapters=True), tmp_path / "run")
    grid = tmp_path / "g.toml"
    grid.write_text('methods = [{ use = "saved", folder = "run/adapter" }]\ntasks = ["pocket_topic"]\n')
    (spec,) = expand(grid)
    assert spec.method.place == str(tmp_path / "run" / "adapter")


def lora_of_peft(model: Path, folder: Path, seed: int) -> Path:
    """An adapter as `peft` alone leaves it, with weights that change the answers."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    asked = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(model), asked).save_pretrained(str(folder))
    return folder


SMALL = ("--tasks", "pocket_sentiment,pocket_topic", "--test-rows", "8", "--size", "16", "--workers", "1")


def test_adapters_trained_elsewhere(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """Two adapters of `peft` alone in one call: one table; resumed; listed; reported beside the store's runs."""
    one, two = (lora_of_peft(tiny_models["llama"], tmp_path / name, i) for i, name in enumerate(("red", "blue")))
    model, store = str(tiny_models["llama"]), ("--store", str(tmp_path / "r"))
    asked = ("evaluate", "--adapter", one, "--adapter", two, "--model", model, *SMALL, *store)
    done = call(*asked, "--json")
    assert done.code == 0, done.err
    (board,) = done.json["leaderboards"]
    assert {row["method"] for row in board["rows"]} == {"saved red", "saved blue"}
    assert set(board["tasks"]) == {"pocket_sentiment", "pocket_topic"}
    assert all(row["mean"] is not None for row in board["rows"])
    assert {run["trainable_parameters"] for run in done.json["runs"]} == {2 * (4 * (64 + 64) + 4 * (96 + 64))}
    assert all(run["train_seconds"] is None and run["eval_seconds"] > 0 for run in done.json["runs"])
    assert "4 done before" in call(*asked).err
    assert {row["method"] for row in call("list", "runs", *store, "--json").json} == {"saved red", "saved blue"}
    assert "saved red" in call("report", *store).out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "no such directory"),
        ("empty", "neither adapter_config.json (peft), config.json (a whole model) nor trained.safetensors"),
        ("base", "was made for other/model, not for"),
        ("json", "its adapter_config.json cannot be read"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(
    change: str | None, message: str, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "red"
    if change == "empty":
        folder.mkdir()
    elif change:
        config = lora_of_peft(tiny_models["llama"], folder, 0) / "adapter_config.json"
        facts = json.loads(config.read_text()) | {"base_model_name_or_path": "other/model"}
        config.write_text(json.dumps(facts) if change == "base" else "{")
    model = str(tiny_models["llama"])
    asked = ("evaluate", "--adapter", folder, "--model", model, *SMALL, "--store", tmp_path / "r")
    assert_one_line(call(*asked), message)
    if change == "base":
        assert call(*asked, "--any-base").code == 0


def unfit(folder: Path, model: Path, tmp_path: Path) -> str:
    (spec,) = specs(model, [{"use": "saved", "folder": str(folder), "any_base": True}])
    worker = Worker()
    result, _ = do(spec, worker, tmp_path / "run")
    assert result.status == "refused"
    assert result.costs.adapter_bytes is None
    after, _ = do(specs(model, ["none"])[0], worker, tmp_path / "run")
    assert after.status == "ok"
    assert "\n" not in str(result.error)
    return str(result.error)


def test_shapes_that_do_not_fit(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = lora_of_peft(tiny_models["llama"], tmp_path / "red", 0)
    assert "does not fit this base model: Target modules" in unfit(folder, tiny_models["gpt2"], tmp_path)
    file = folder / "adapter_model.safetensors"
    whole = load_file(file)
    first = next(iter(whole))
    for tensors, message in (
        (whole | {first: torch.zeros(3, 3)}, "size mismatch"),
        ({name: tensor for name, tensor in whole.items() if name != first}, "missing adapter keys"),
        (whole | {"base_model.model.nose.weight": torch.zeros(3)}, "1 of its tensors have no place there"),
    ):
        save_file(tensors, file)
        assert message in unfit(folder, tiny_models["llama"], tmp_path)
    wrong = tiny_models["gpt2"]
    assert "its model_type is gpt2, not llama" in unfit(wrong, tiny_models["llama"], tmp_path)


def test_files_of_our_own_format(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    worker, model = Worker(keep_adapters=True), tiny_models["llama"]
    do(specs(model, ["adapter"])[0], worker, tmp_path / "run")
    folder = tmp_path / "run" / "adapter"
    whole = load_file(folder / "trained.safetensors")
    first = next(iter(whole))
    save_file({first: whole[first]}, folder / "trained.safetensors")
    assert "is absent there" in unfit(folder, model, tmp_path / "part")
    origin = json.loads((folder / "peftbench.json").read_text())
    for change, message in (
        (
            {"name": "adapters"},
            "unknown method 'adapters': did you mean 'adapter'? (a method of your own needs --plugin",
        ),
        ({"name": "adapter", "version": 9}, "was made by version 9 of adapter"),
    ):
        (folder / "peftbench.json").write_text(json.dumps(origin | {"method": change}))
        assert message in unfit(folder, model, tmp_path / "changed")
    (folder / "peftbench.json").unlink()
    assert "no peftbench.json that says which method" in unfit(folder, model, tmp_path / "bare")


def test_other_weights_of_the_same_name_are_another_base(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    worker = Worker(keep_adapters=True)
    do(specs(tiny_models["llama"], ["ia3"])[0], worker, tmp_path / "run")
    folder = tmp_path / "run" / "adapter"
    copy = tmp_path / "any" / "name"
    shutil.copytree(tiny_models["llama"], copy)
    (spec,) = specs(copy, [{"use": "saved", "folder": str(folder)}])
    assert do(spec, worker, tmp_path / "run")[0].status == "ok"
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.1}))
    (spec,) = specs(copy, [{"use": "saved", "folder": str(folder)}])
    assert "was made for other weights of" in str(do(spec, worker, tmp_path / "run")[0].error)


# ---- our adapters in plain peft -------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["llama", "gpt2"])
def test_our_adapters_load_in_plain_peft(model: str, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """What a method of `peft` wrote gives the same logits through the library alone."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = Base(find(str(tiny_models[model])), "fp32")
    ids = torch.randint(5, 1000, (3, 12), generator=torch.Generator().manual_seed(0))
    for entry in METHODS_KEPT:
        if (entry, model) == ("peft:loha", "gpt2"):
            continue
        (asked,) = specs(tiny_models[model], [entry])
        unit = METHODS[asked.method.name]
        adapted: Adapted = unit.function(base.model, **asked.method.arguments)
        if adapted.save is None or unit.name == "full":
            assert unit.name in ("adapter", "bitfit", "svft", "layers", "full")
        else:
            torch.manual_seed(1)
            for parameter in adapted.model.parameters():
                if parameter.requires_grad:
                    parameter.data += 0.1 * torch.randn_like(parameter)
            adapted.model.eval()
            virtual = adapted.virtual_tokens if adapted.soft_prompt else 0
            with torch.no_grad():
                ours = forward(adapted, ids, torch.ones_like(ids))[0][:, virtual:]
            folder = tmp_path / unit.name
            save_checkpoint(adapted, folder, origin=describe(asked, base.ref, None))
            plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_models[model]), folder).eval()
            with torch.no_grad():
                theirs = plain(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, virtual:]
            assert torch.allclose(ours, theirs, atol=1e-5), unit.name
        if adapted.remove is not None:
            adapted.remove()
        base.restore()


def test_an_adapter_names_its_base_as_others_know_it(tmp_path: Path) -> None:
    base = Base(find("pocket"), "fp32")
    adapted: Adapted = METHODS["ia3"].function(base.model)
    save_checkpoint(adapted, tmp_path / "a")
    config = (tmp_path / "a" / "adapter_config.json").read_text()
    assert json.loads(config)["base_model_name_or_path"] == "pocket"
    assert examine(tmp_path / "a").base == "pocket"
    assert find("llama-3-8b").address == "meta-llama/Meta-Llama-3-8B"
    assert find("org/name").address == "org/name"


def test_nothing_is_asked_of_the_hub_to_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import peft.utils.save_and_load as theirs

    def fail(*_args: Any, **_more: Any) -> None:
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr(theirs, "check_file_exists_on_hf_hub", fail)
    base = Base(find("pocket"), "fp32")
    save_checkpoint(METHODS["ia3"].function(base.model), tmp_path / "a")


def test_an_unknown_folder_is_an_error_of_the_grid() -> None:
    with pytest.raises(UserError, match="no such directory"):
        specs("pocket", [{"use": "saved", "folder": "nowhere"}])
