"""Training and answers on every architecture are those of `transformers` on each row alone and without a cache."""

import datetime as dt
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

import cases
from peftbench.checks import method_check
from peftbench.core.registry import UserError
from peftbench.core.spec import Evaluation, RunResult, RunSpec
from peftbench.engine.base_model import Base
from peftbench.engine.decode_strategy import choose
from peftbench.engine.families import max_positions
from peftbench.engine.generation import answer_rows, check_fits
from peftbench.engine.tokenization import Encoded, encode_examples
from peftbench.grid.expand import expand
from peftbench.methods import METHODS, Adapted
from peftbench.models import find
from peftbench.single_run import Worker, adapt, run
from peftbench.tasks import TASKS
from peftbench.tasks._splits import RowLimits, split

pytestmark = pytest.mark.skipif(not cases.CASES.is_dir(), reason="needs the cases beside the repository")
ALL = cases.architectures()
UNLIKE = ["mamba", "jamba", "gemma3", "bloom", "mixtral"]
"""Recurrent, hybrid, composite with a sliding window, without positions, with experts."""
DAY = int(os.environ.get("PEFTBENCH_ROTATION", dt.date.today().timetuple().tm_yday))
TASK = "pocket_sentiment"
ROWS = 4


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("architectures")


def made(folder: Path, name: str) -> Path:
    """The model of an architecture, made once."""
    there = folder / "models" / name
    return there if there.is_dir() else cases.make(folder, [name])[name]


def targets(model: Path) -> list[str]:
    """Ends of names of a few linear layers that the library's LoRA can be put on, whatever the architecture."""
    network = Base(find(str(model)), "fp32").model
    linear = [
        name.rpartition(".")[2]
        for name, module in network.named_modules()
        if (isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D") and "vision" not in name
    ]
    # The library refuses the last layer of recurrent blocks, and one of the two that are fused in experts.
    refused = {"dt_proj", "out_proj", "gate_proj", "up_proj", "down_proj"}
    return sorted({*linear} - {"lm_head", "head", "embed_out", "output", "decoder"} - refused)[:3]


def spec(model: Path, how: str, size: int = 3) -> RunSpec:
    entry = {"use": "lora", "modules": targets(model), "dropout": 0.0, "learning_rate": 1e-2}
    train = {"max_steps": 2, "validation_rows": ROWS, "per_device_train_batch_size": 4, "max_length": 256}
    asked = {"answer": how, "test_rows": ROWS, "per_device_eval_batch_size": size}
    grid = {"name": "x", "models": [str(model)], "methods": [entry], "tasks": [TASK], "sizes": [8], "seeds": [0]}
    (found,) = expand({**grid, "train": train, "eval": asked})
    return found


def done(asked: RunSpec, folder: Path) -> tuple[RunResult, list[str]]:
    folder.mkdir()
    result, predictions = run(asked, Worker(keep_adapters=True), folder, lambda _event: None)
    return result, [str(row["prediction"]) for row in predictions]


@torch.no_grad()
def logits(network: Any, row: Encoded, answer: list[int]) -> torch.Tensor:
    """Log-probabilities [answer and one, vocabulary] of what follows a prompt, by one call of the network alone."""
    prompt, start = torch.tensor([row.prompt]), network.config
    if network.config.is_encoder_decoder:
        before = torch.tensor([[start.decoder_start_token_id, *answer]])
        found = network(input_ids=prompt, decoder_input_ids=before, use_cache=False).logits[0]
    else:
        found = network(input_ids=torch.tensor([[*row.prompt, *answer]]), use_cache=False).logits[0]
    last: torch.Tensor = found[-len(answer) - 1 :].float().log_softmax(-1)
    return last


def likelihood(network: Any, row: Encoded, answer: list[int]) -> float:
    each = logits(network, row, answer[:-1])
    return float(each[range(len(answer)), answer].sum())


def generated(network: Any, row: Encoded, most: int, ends: list[int]) -> list[int]:
    found: list[int] = []
    while len(found) < most and (token := int(logits(network, row, found)[-1].argmax())) not in ends:
        found.append(token)
    return found


def right(model: Path, kept: Path) -> tuple[list[str], list[str], float]:
    """Ranked answers, generated ones and the validation loss, by `transformers` and `peft` alone, one row at a time."""
    from peft import PeftModel

    base, task = Base(find(str(model)), "fp32"), TASKS[TASK]
    splits = split(task, {}, 8, 0, RowLimits(ROWS, ROWS), root=None)
    encoder = base.encoder(task.facts, 256)
    network = PeftModel.from_pretrained(base.model, str(kept)).eval().get_base_model()
    rows, held = encode_examples(encoder, splits.test), encode_examples(encoder, splits.validation)
    ranked = [
        row.words[max(range(len(row.choices)), key=lambda i: likelihood(network, row, row.choices[i]))] for row in rows
    ]
    texts = [generated(network, row, task.facts.max_new_tokens, base.ends) for row in rows]
    loss = -sum(likelihood(network, row, row.target) for row in held) / sum(len(row.target) for row in held)
    return ranked, [str(base.tokenizer.decode(ids, skip_special_tokens=True)).strip() for ids in texts], loss


def light_check(model: Path, tmp_path: Path) -> None:
    found = {how: done(spec(model, how), tmp_path / how) for how in ("rank", "generate")}
    for result, _ in found.values():
        assert result.status == "ok", result.error
        assert not result.base_reloaded, result.notes
    kept = tmp_path / "rank" / "adapter"
    ranked, texts, loss = right(model, kept)
    assert found["rank"][1] == ranked
    assert found["generate"][1] == texts
    assert found["rank"][0].validation_loss == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("name", UNLIKE)
def test_unlike_architectures_answer_as_each_row_alone(name: str, folder: Path, tmp_path: Path) -> None:
    light_check(made(folder, name), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ALL if name not in UNLIKE])
def test_every_architecture_answers_as_each_row_alone(name: str, folder: Path, tmp_path: Path) -> None:
    light_check(made(folder, name), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL[DAY % 3 :: 3])
def test_a_third_of_the_architectures_keep_the_contract_of_methods(name: str, folder: Path) -> None:
    """Another third each day; PEFTBENCH_ROTATION=0, 1 or 2 chooses one."""
    print(f"PEFTBENCH_ROTATION={DAY % 3}")
    model = made(folder, name)
    asked: list[tuple[str, dict[str, Any]]] = [("lora", {"modules": targets(model)})]
    # A window of attention that is shorter than the rows forgets virtual tokens: there is nothing to train.
    if not getattr(AutoConfig.from_pretrained(model).get_text_config(), "sliding_window", None):
        asked.append(("prompt-tuning", {"tokens": 4}))
    for method, arguments in asked:
        findings = list(method_check.on(model, method_check.tiny_spec(method, arguments), abilities=False))
        assert not [finding for finding in findings if finding.problem], (method, findings)


@pytest.mark.parametrize(("name", "how"), [("gemma3", "rank"), ("gemma3", "generate"), ("mpt", "rank")])
def test_answers_after_a_prefix_do_not_depend_on_the_batch(name: str, how: str, folder: Path) -> None:
    """Padding stands between a prefix and its text: it uses up a sliding window, and moves what is told by distance."""
    base, task = Base(find(str(made(folder, name))), "fp32"), TASKS[TASK]
    rows = encode_examples(base.encoder(task.facts, 256), split(task, {}, 8, 0, RowLimits(ROWS, 12), root=None).test)
    for adapted in with_method(base, "prefix-tuning", tokens=12):
        found = []
        for size in (32, 1):
            base.decodings.clear()
            asked = Evaluation.model_validate({"answer": how, "per_device_eval_batch_size": size})
            found.append(answer_rows(adapted, base, task, asked, rows))
        assert found[0] == found[1]
        assert choose(adapted, rows, how == "rank", True) == "same-length"


def with_method(base: Base, name: str, **arguments: Any) -> Iterator[Adapted]:
    asked = expand({"name": "x", "methods": [{"use": name, **arguments}], "tasks": [TASK]})[0]
    torch.manual_seed(0)
    adapted = adapt(base, METHODS[name], asked)
    with torch.no_grad():
        for parameter in adapted.model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    yield adapted
    assert adapted.remove is not None
    adapted.remove()


@pytest.mark.parametrize(
    ("name", "method", "why"),
    [
        ("mamba2", "prefix-tuning", "a prefix cannot be used on this model .mamba2.: it has no effect"),
        ("jamba", "prefix-tuning", "a prefix cannot be used on this model .jamba."),
        ("gemma4_text", "prompt-tuning", "a soft prompt cannot be used on this model .gemma4_text."),
    ],
)
def test_virtual_tokens_that_a_model_cannot_read_are_refused(name: str, method: str, why: str, folder: Path) -> None:
    base, task = Base(find(str(made(folder, name))), "fp32"), TASKS[TASK]
    rows = encode_examples(base.encoder(task.facts, 256), split(task, {}, 8, 0, RowLimits(ROWS, ROWS), root=None).test)
    for adapted in with_method(base, method, tokens=4):
        with pytest.raises(UserError, match=why):
            check_fits(base, adapted, task, rows)


def test_measures_of_a_composite_model_are_those_of_its_text(folder: Path) -> None:
    base = Base(find(str(made(folder, "gemma3"))), "fp32")
    assert not hasattr(base.config, "max_position_embeddings")
    assert max_positions(base.config) == 1024
    task = TASKS[TASK]
    row = encode_examples(base.encoder(task.facts, 256), split(task, {}, 8, 0, RowLimits(ROWS, ROWS), root=None).test)[
        0
    ]
    long = Encoded(row.prompt * math.ceil(1100 / len(row.prompt)), row.target, row.choices, words=row.words)
    with pytest.raises(UserError, match="but the model has 1024 positions"):
        check_fits(base, Adapted(base.model, base.model), task, [long])
