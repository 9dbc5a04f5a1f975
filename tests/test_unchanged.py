"""What a run leaves changed is found, whatever it is, and does not reach the next run."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import modeling_utils

import peftbench.single_run
from cases import CASES
from peftbench.engine.base_integrity import ProcessState
from peftbench.engine.base_model import Base
from peftbench.models import find
from peftbench.results.store import Store
from peftbench.single_run import RunFindings, Worker

Change = Callable[[Any], Any]


@pytest.fixture(scope="module")
def base(tiny_models: dict[str, Path]) -> Base:
    return Base(find(str(tiny_models["llama"])), "fp32")


def swap(model: Any) -> None:
    layers = model.model.layers
    first, second = layers[0], layers[1]
    layers[0], layers[1] = second, first


def listing(model: Any) -> None:
    model.model.norm.widths = [1, 2]


CHANGES: dict[str, tuple[Change, str]] = {
    "weight": (lambda model: model.model.embed_tokens.weight.data.mul_(1.5), "model.embed_tokens.weight"),
    "buffer": (lambda model: model.model.rotary_emb.inv_freq.mul_(0.25), "model.rotary_emb.inv_freq"),
    "order": (swap, "model.layers.0.self_attn.q_proj.weight"),
    "forward": (lambda model: setattr(model.model.norm, "forward", lambda x: x), "model.norm.forward"),
    "attribute": (lambda model: setattr(model.model.norm, "variance_epsilon", 9.0), "model.norm.variance_epsilon"),
    "list": (listing, "model.norm.widths"),
    "hook": (lambda model: model.lm_head.register_forward_hook(lambda *_: None), "lm_head: hooks"),
    "backward hook": (lambda model: model.lm_head.register_full_backward_hook(lambda *_: None), "lm_head: hooks"),
    "config": (lambda model: setattr(model.config, "rms_norm_eps", 10.0), "config"),
    "attention": (lambda model: setattr(model.config, "_attn_implementation_internal", "eager"), "config"),
    "generation": (lambda model: setattr(model.generation_config, "do_sample", True), "generation_config"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_what_a_run_leaves_on_the_base_is_found_and_undone(kind: str, base: Base) -> None:
    change, name = CHANGES[kind]
    ids = torch.arange(5, 12)[None]
    with torch.no_grad():
        before = base.model(ids).logits
        change(base.model)
        assert base.restore() is True
        assert name in base.left
        assert base.model(ids).logits.equal(before)
    assert base.restore() is False
    assert base.left == ()


def test_what_is_trained_in_place_by_asking_for_gradients_is_no_surprise(base: Base) -> None:
    weight = base.model.model.norm.weight.requires_grad_(True)
    weight.data.mul_(2.0)
    assert base.restore() is True
    assert base.left == ()


def test_a_hook_on_a_weight_is_found_and_undone(base: Base) -> None:
    weight = base.model.model.norm.weight.requires_grad_(True)
    weight.register_hook(lambda gradient: 100 * gradient)
    assert base.restore() is True
    assert base.left == ("model.norm.weight: hooks",)


def no_op(*_arguments: Any, **_named: Any) -> None:
    """Something else than what it stands for."""


PROCESS: dict[str, tuple[Callable[[pytest.MonkeyPatch], Any], str]] = {
    "table of functions": (
        lambda patch: patch.setitem(modeling_utils.ALL_ATTENTION_FUNCTIONS, "sdpa", no_op),
        "ALL_ATTENTION_FUNCTIONS.sdpa",
    ),
    "class of a model": (
        lambda patch: patch.setattr("transformers.models.llama.modeling_llama.LlamaMLP.forward", no_op),
        "transformers.models.llama.modeling_llama.LlamaMLP.forward",
    ),
    "function of a model": (
        lambda patch: patch.setattr("transformers.models.llama.modeling_llama.rotate_half", no_op),
        "transformers.models.llama.modeling_llama.rotate_half",
    ),
    "function of torch": (lambda patch: patch.setattr("torch.nn.functional.silu", no_op), "torch.nn.functional.silu"),
    "class of torch": (
        lambda patch: patch.setattr("torch.nn.modules.linear.Linear.forward", no_op),
        "torch.nn.modules.linear.Linear.forward",
    ),
    "scoring": (
        lambda patch: patch.setattr(peftbench.single_run, "score_task", no_op),
        "peftbench.single_run.score_task",
    ),
    "clock": (lambda patch: patch.setattr("time.perf_counter", no_op), "time.perf_counter"),
    "directory": (lambda patch: patch.chdir("/"), "working directory"),
    "variable": (lambda patch: patch.setenv("OMP_NUM_THREADS", "7"), "environment variable OMP_NUM_THREADS"),
    "new variable": (lambda patch: patch.setenv("HF_HOME", "/nowhere"), "environment variable HF_HOME"),
}


@pytest.mark.parametrize("kind", PROCESS)
def test_what_a_run_leaves_in_the_process_costs_the_process(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers.models.llama.modeling_llama  # noqa: F401

    monkeypatch.delenv("HF_HOME", raising=False)
    worker, found = Worker(), RunFindings()
    worker.watch()
    change, name = PROCESS[kind]
    with monkeypatch.context() as patch:
        change(patch)
        worker.restore(found)
    assert worker.broken
    assert name in found.notes[0]
    assert "changed its process, which was replaced" in found.notes[0]


SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "torch threads": (lambda: torch.set_num_threads(2), lambda: torch.set_num_threads(1)),
    "torch default type": (
        lambda: torch.set_default_dtype(torch.float64),
        lambda: torch.set_default_dtype(torch.float32),
    ),
    "torch gradients": (lambda: torch.set_grad_enabled(False), lambda: torch.set_grad_enabled(True)),
    "torch anomaly detection": (
        lambda: torch.autograd.set_detect_anomaly(True),
        lambda: torch.autograd.set_detect_anomaly(False),
    ),
    "torch deterministic algorithms": (
        lambda: torch.use_deterministic_algorithms(True),
        lambda: torch.use_deterministic_algorithms(False),
    ),
    "torch matmul precision": (
        lambda: torch.set_float32_matmul_precision("medium"),
        lambda: torch.set_float32_matmul_precision("highest"),
    ),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_settings_of_torch_that_a_run_leaves_are_found(kind: str) -> None:
    torch.set_num_threads(1)
    state = ProcessState()
    change, undo = SETTINGS[kind]
    try:
        change()
        assert kind in state.changed()
    finally:
        undo()
    assert state.changed() == []


def test_a_closed_pipe_is_found() -> None:
    reading, writing = os.pipe()
    state = ProcessState()
    os.close(reading)
    assert state.changed() == ["closed files"]
    os.close(writing)


LEAVE = [
    *("changes-base", "patches-world", "closes-fds", "chdirs", "patch-class", "global-torch", "config-change"),
    *("config-clean", "rope-scale", "nan-weights", "remove-raises"),
]


@pytest.mark.slow
@pytest.mark.skipif(not CASES.is_dir(), reason="needs the cases beside the repository")
def test_a_run_after_one_that_left_things_changed_answers_as_in_a_fresh_store(tmp_path: Path) -> None:
    """Each of the bad methods and an ordinary one by turns, in one worker."""
    # One of them patches a function of ours, by the name that it had when the case was written.
    text = (CASES / "faults" / "bad_methods.py").read_text()
    for then, now in (
        ("peftbench.tasks.scoring", "peftbench.tasks._scoring"),
        ("peftbench.experiment", "peftbench.single_run"),
        ("e.scored", "e.score_task"),
    ):
        assert then in text
        text = text.replace(then, now)
    plugin = tmp_path / "bad_methods.py"
    plugin.write_text(text)
    grid = (
        'models = ["pocket"]\ntasks = ["pocket_topic"]\nsizes = [16]\nseeds = [0]\n'
        "methods = [{methods}]\n[train]\nmax_steps = 2\nvalidation_rows = 8\n[eval]\ntest_rows = 24\n"
    )
    turns = [f'"{bad}", {{ use = "lora", rank = {rank} }}' for rank, bad in enumerate(LEAVE, 1)]
    ranks = ", ".join(map(str, range(1, len(LEAVE) + 1)))
    stores = {}
    for name, methods in (("mixed", ", ".join(turns)), ("calm", f'{{ use = "lora", rank = [{ranks}] }}')):
        (tmp_path / f"{name}.toml").write_text(grid.format(methods=methods))
        stores[name] = Store(tmp_path / name)
        command = [sys.executable, "-m", "peftbench", "run", str(tmp_path / f"{name}.toml"), "--workers", "1"]
        command += ["--store", str(tmp_path / name), "--plugin", str(plugin)]
        subprocess.run(command, check=False, capture_output=True, text=True, timeout=900)
    calm, mixed = ({run: result for run, (result, _) in stores[name].results().items()} for name in ("calm", "mixed"))
    assert len(calm) == len(LEAVE)
    for run in calm:
        assert mixed[run].status == "ok", mixed[run].error
        assert stores["mixed"].predictions(run) == stores["calm"].predictions(run)
        assert mixed[run].scores == calm[run].scores
    bad = {result.spec.method.name: result for result in mixed.values() if result.id not in calm}
    for name in ("patches-world", "chdirs", "patch-class", "global-torch"):
        assert any("changed its process" in note for note in bad[name].notes), name
    for name in ("changes-base", "config-change", "config-clean", "rope-scale"):
        assert any("changed the base model" in note for note in bad[name].notes), name
