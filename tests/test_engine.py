"""The loop, the answers and the meter, against closed forms and slower ways to the same numbers."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peftbench.core.seeds import Stream, stream
from peftbench.core.spec import Evaluation, Training
from peftbench.engine import train as training
from peftbench.engine.base_integrity import model_checksum
from peftbench.engine.base_model import Base
from peftbench.engine.exceptions import DivergedError
from peftbench.engine.families.decoder import forward, pad
from peftbench.engine.generation import answer_rows, generate, in_batches, rank_choices
from peftbench.engine.peak_memory import tensor_bytes, tracked
from peftbench.engine.phase_meter import Meter
from peftbench.engine.tokenization import GAP, Encoded, Encoder, encode_examples
from peftbench.engine.train import Trainer, summed_loss
from peftbench.methods import METHODS, Adapted
from peftbench.models import find
from peftbench.profiling.parameters_and_flops import estimate_costs
from peftbench.tasks import TASKS, Example, TaskFacts
from peftbench.tasks._splits import RowLimits, split


@pytest.fixture(scope="module")
def base(tiny_models: dict[str, Path]) -> Base:
    return Base(find(str(tiny_models["llama"])), "fp32")


@pytest.fixture
def adapted(base: Base) -> Adapted:
    base.restore()
    return Adapted(base.model, base.model)


def data(base: Base, count: int = 16, task: str = "pocket_sentiment") -> list[Encoded]:
    unit = TASKS[task]
    splits = split(unit, {}, count, 0, RowLimits(8, 8), root=None)
    return encode_examples(Encoder(base.tokenizer, unit.facts, 128), splits.train)


def text(base: Base, row: list[int]) -> str:
    return str(base.tokenizer.decode(row))


def test_label_only_loss_is_the_loss_of_the_target_tokens(base: Base, adapted: Adapted) -> None:
    rows = data(base, 5)
    whole = 0.0
    for row in rows:
        ids = torch.tensor([row.prompt + row.target])
        with torch.no_grad():
            each = base.model(input_ids=ids).logits[0].log_softmax(-1)
        for place in range(len(row.prompt), ids.shape[1]):
            whole -= float(each[place - 1, ids[0, place]])
    assert summed_loss(adapted, rows).item() == pytest.approx(whole, rel=1e-5)


def test_rank_is_the_likelihood_of_each_choice_as_a_whole(base: Base, adapted: Adapted) -> None:
    rows = data(base, 12)
    assert rank_choices(adapted, rows) == likeliest(adapted, rows)


@torch.no_grad()
def likeliest(adapted: Adapted, rows: Sequence[Encoded]) -> list[int]:
    """What `rank` should say: each choice as if it were the target, one at a time."""

    def best(row: Encoded) -> int:
        losses = [summed_loss(adapted, [Encoded(row.prompt, choice)]).item() for choice in row.choices]
        return losses.index(min(losses))

    return [best(row) for row in rows]


NAMES = ("Ann", "Bo Bell", "the mill at Arle", "Cy", "a boat with no oars", "Di", "nobody", "Friday")


@pytest.mark.parametrize("counts", [(1, 2, 3, 8), (8, 1, 1, 5, 2, 2), (3, 3), (1, 1)])
def test_rows_may_have_different_numbers_of_choices(base: Base, adapted: Adapted, counts: tuple[int, ...]) -> None:
    encoder = Encoder(base.tokenizer, FACTS, 128)
    rows = [
        encoder(Example({"question": f"who has {'the red ' * i}boat?"}, "Ann", choices=NAMES[i:] + NAMES[:i]))
        for i, _ in enumerate(counts)
    ]
    rows = [replace(row, choices=row.choices[:n], words=row.words[:n]) for row, n in zip(rows, counts, strict=True)]
    found = rank_choices(adapted, rows)
    assert found == likeliest(adapted, rows)
    assert found == [rank_choices(adapted, [row])[0] for row in rows]


@pytest.mark.parametrize("labels", [("true", "true story"), ("A", "AB"), ("entailment", "not_entailment")])
def test_labels_that_begin_alike_are_told_apart(base: Base, adapted: Adapted, labels: tuple[str, ...]) -> None:
    encoder = Encoder(base.tokenizer, replace(FACTS, labels=labels), 128)
    rows = [encoder(Example({"question": f"is it {'so ' * i}?"}, labels[0])) for i in range(12)]
    assert [row.words for row in rows] == [labels] * 12
    assert rows[0].choices[0] != rows[0].choices[1]
    assert rows[0].target == rows[0].choices[0]
    assert rank_choices(adapted, rows) == likeliest(adapted, rows)


def test_a_ranked_answer_is_the_choice_letter_for_letter(base: Base, adapted: Adapted) -> None:
    """Whatever the tokenizer makes of it: outer white space and replaced signs would not come back."""
    encoder = Encoder(base.tokenizer, FACTS, 128)
    choices = (" Zoë  Bell\u2009", "貓 🚣", "Ann , Bo !")
    example = Example({"question": "who?"}, choices[0], choices=choices)
    for order in itertools.permutations(choices):
        rows = encode_examples(encoder, [replace(example, choices=order)])
        (given,) = answer_rows(adapted, base, TASKS["pocket_data_to_text"], Evaluation(answer="rank"), rows)
        assert given == order[rank_choices(adapted, rows)[0]]


def test_answers_do_not_depend_on_the_batch(base: Base, adapted: Adapted) -> None:
    rows = data(base, 16, "pocket_data_to_text")
    whole = generate(adapted, rows, [1], 6)
    for size in (1, 3, 16):
        assert in_batches(rows, size, lambda batch: generate(adapted, batch, [1], 6)) == whole


@pytest.mark.parametrize("micro", [1, 3, 4])
def test_micro_batches_change_nothing(base: Base, micro: int) -> None:
    rows = data(base, 8)
    found = []
    for smaller in (False, True):
        torch.manual_seed(0)
        lora = METHODS["lora"].function(base.model, rank=2, dropout=0.0)
        trainer = Trainer(lora, Training(max_steps=4, per_device_train_batch_size=8), 1e-2, "fp32", 0)
        trainer.micro_rows = micro if smaller else 8
        found.append([point.validation_loss for point in trainer.fit(rows, rows, Meter(), lambda _: None).curve])
        lora.remove()
        base.restore()
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_out_of_memory_halves_the_micro_batch_and_says_so(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = data(base, 8)
    real = training.summed_loss

    def hungry(adapted: Adapted, batch: Sequence[Encoded]) -> torch.Tensor:
        if len(batch) > 2 and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return real(adapted, batch)

    def curve() -> tuple[list[float], list[str]]:
        torch.manual_seed(0)
        lora = METHODS["lora"].function(base.model, rank=2, dropout=0.0)
        trainer = Trainer(lora, Training(max_steps=3, per_device_train_batch_size=8), 1e-2, "fp32", 0)
        found = trainer.fit(rows, rows, Meter(), lambda _: None)
        lora.remove()
        return [point.train_loss or 0.0 for point in found.curve], found.notes

    whole, _ = curve()
    monkeypatch.setattr(training, "summed_loss", hungry)
    cut, notes = curve()
    assert cut == pytest.approx(whole, rel=1e-4)
    assert notes == [f"out of memory: micro-batch cut to {n}, same effective batch" for n in (4, 2)]

    def starved(_adapted: Adapted, _batch: Sequence[Encoded]) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")

    monkeypatch.setattr(training, "summed_loss", starved)
    with pytest.raises(MemoryError, match="one row at a time"):
        curve()
    base.restore()


def test_a_loss_that_is_not_finite_ends_the_run(base: Base) -> None:
    rows = data(base, 8)
    full = METHODS["full"].function(base.model)
    trainer = Trainer(full, Training(max_steps=20, warmup_steps=0, max_grad_norm=1e9), 1e30, "fp32", 0)
    with pytest.raises(DivergedError, match="loss became"):
        trainer.fit(rows, rows, Meter(), lambda _: None)
    assert base.restore() is True


def test_the_best_step_is_kept_and_patience_stops(base: Base) -> None:
    rows = data(base, 16)
    # Held-out rows whose answers are the wrong ones: once the form is learned, more training makes them less likely.
    wrong = [replace(row, target=next(c for c in row.choices if c != row.target)) for row in rows]
    torch.manual_seed(0)
    lora = METHODS["lora"].function(base.model, rank=4)
    asked = Training(max_steps=200, eval_steps=2, early_stopping_patience=3, per_device_train_batch_size=4)
    trainer = Trainer(lora, asked, 3e-1, "fp32", 0)
    found = trainer.fit(rows, wrong, Meter(), lambda _: None)
    best = min(found.curve, key=lambda point: point.validation_loss)
    assert found.best_step == best.step
    assert found.steps == best.step + 6 < 200
    assert trainer.loss(wrong) == pytest.approx(best.validation_loss, rel=1e-6)
    lora.remove()
    base.restore()


def test_every_method_sees_the_same_rows_in_the_same_order(base: Base) -> None:
    rows = data(base, 10)

    def order(method: str, seed: int) -> list[list[int]]:
        adapted = METHODS[method].function(base.model)
        trainer = Trainer(adapted, Training(per_device_train_batch_size=4), 1e-3, "fp32", seed)
        found = [row.prompt for batch in trainer._batches(rows, 9) for row in batch]
        if adapted.remove:
            adapted.remove()
        base.restore()
        return found

    assert order("lora", 0) == order("full", 0) == order("prompt-tuning", 0)
    assert order("lora", 0) != order("lora", 1)
    first_epoch = order("lora", 0)[:10]
    assert sorted(first_epoch) == sorted(row.prompt for row in rows)


def test_tracked_peak_is_that_of_a_hand_counted_step() -> None:
    """The square of x W: weights, then input, product and square alive at once, then what backward needs."""
    linear = torch.nn.Linear(64, 64, bias=False)
    with tracked(linear) as tracker:
        assert tracker.bytes == 64 * 64 * 4
        x = torch.randn(32, 64)
        loss = linear(x).square().sum()
        held = 64 * 64 * 4 + 3 * 32 * 64 * 4 + 4
        assert tracker.peak == held
        loss.backward()
    assert linear.weight.grad is not None
    assert tracker.peak >= held + tensor_bytes(iter([linear.weight.grad]))
    assert tracker.peak <= held + 3 * tensor_bytes(iter([linear.weight.grad]))


def test_memory_does_not_depend_on_what_ran_before(base: Base) -> None:
    rows = data(base, 16)

    def peak(method: str) -> int:
        torch.manual_seed(0)
        adapted = METHODS[method].function(base.model)
        trainer = Trainer(adapted, Training(max_steps=1), 1e-3, "fp32", 0)
        found = trainer.fit(rows, rows, Meter(), lambda _: None).memory
        if adapted.remove:
            adapted.remove()
        base.restore()
        assert found is not None
        return found.total

    first = {method: peak(method) for method in ("lora", "full", "ia3")}
    second = {method: peak(method) for method in ("ia3", "full", "lora")}
    assert first == second
    assert first["full"] > first["lora"]


def test_measuring_memory_leaves_training_as_it_was(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = data(base, 8)

    def curve() -> list[float]:
        torch.manual_seed(0)
        lora = METHODS["lora"].function(base.model)
        found = Trainer(lora, Training(max_steps=3), 1e-2, "fp32", 0).fit(rows, rows, Meter(), lambda _: None)
        lora.remove()
        base.restore()
        return [point.validation_loss for point in found.curve]

    measured = curve()
    monkeypatch.setattr(Trainer, "_probe", lambda *_: None)
    assert curve() == measured


def test_flops_of_a_forward_pass_have_a_closed_form(tiny_models: dict[str, Path]) -> None:
    """2 · parameters of matrices · tokens, and 4 · tokens² · hidden of attention a layer."""
    found = estimate_costs(str(tiny_models["llama"]))
    model = Base(find(str(tiny_models["llama"])), "fp32").model
    matrices = sum(p.numel() for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n)
    assert found.forward_flops_512 == 2 * matrices * 512 + 2 * 4 * 512**2 * 64


def test_flops_on_meta_are_those_of_a_real_forward(adapted: Adapted, tiny_models: dict[str, Path]) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # The fused kernel of a CPU is one operation that the counter does not know.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        forward(adapted, torch.zeros((1, 512), dtype=torch.long), torch.ones((1, 512), dtype=torch.long))
    assert counter.get_total_flops() == estimate_costs(str(tiny_models["llama"])).forward_flops_512


def test_a_change_of_one_bit_is_seen(base: Base) -> None:
    before = model_checksum(base.model)
    weight = base.model.lm_head.weight
    kept = weight.data[3, 5].clone()
    weight.data[3, 5] = torch.nextafter(kept, torch.tensor(math.inf))
    assert model_checksum(base.model) != before
    weight.data[3, 5] = kept
    assert model_checksum(base.model) == before
    base.model.lm_head.add_module("guest", torch.nn.Identity())
    assert base.restore() is True
    assert model_checksum(base.model) == before


FACTS = TaskFacts(
    source=TASKS["pocket_sentiment"].facts.source,
    kind="qa",
    instruction="Answer the question.",
    metrics=("exact_match",),
    max_new_tokens=8,
)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 600), st.integers(0, 60), st.integers(40, 200))
def test_long_inputs_lose_the_middle_of_their_longest_field(base: Base, long: int, short: int, most: int) -> None:
    encoder = Encoder(base.tokenizer, FACTS, most)
    passage = " ".join(f"w{i}" for i in range(long))
    question = "why " * (short // 10) + "so?"
    row = encoder(Example({"passage": passage, "question": question}, "because"))
    shown = text(base, row.prompt)
    assert len(row.prompt) <= most - 8
    assert row.truncated == (GAP.strip() in shown)
    assert shown.strip().endswith("so?<|assistant|>")
    assert "Answer the question." in shown
    if not row.truncated:
        assert passage in shown


def test_a_field_that_is_not_the_longest_is_left_whole(base: Base) -> None:
    question = "which of the boats is it that Ann sold to Bo?"
    for passage, options in ((300, 40), (60, 50), (400, 0)):
        fields = {"passage": "mill " * passage, "question": question, "options": "oar " * options}
        row = Encoder(base.tokenizer, FACTS, 100)(Example(fields, "Ann"))
        assert row.truncated
        assert f"question: {question}" in text(base, row.prompt)


def test_an_empty_field_is_shown_empty(base: Base) -> None:
    shown = text(base, Encoder(base.tokenizer, FACTS, 128)(Example({"passage": "", "question": "why?"}, "so")).prompt)
    assert "passage: \nquestion: why?" in shown
    row = Encoder(base.tokenizer, FACTS, 60)(Example({"passage": "", "question": "why " * 100 + "so?"}, "so"))
    assert row.truncated
    assert "passage: \nquestion: why why" in text(base, row.prompt)
    assert "so?" in text(base, row.prompt)


@pytest.mark.parametrize("sign", ["🚣🏽", "貓", "é", "ก็", "\u0301"])
@pytest.mark.parametrize("lead", ["", "a", "ab", "abc"])
def test_a_cut_leaves_no_broken_signs(base: Base, sign: str, lead: str) -> None:
    """Signs of several tokens: a cut may fall inside one, of which nothing is to be left."""
    encoder = Encoder(base.tokenizer, replace(FACTS, max_new_tokens=16), 100)
    row = encoder(Example({"passage": lead + sign * 200, "question": "why?"}, sign))
    shown = text(base, row.prompt)
    assert row.truncated
    assert GAP.strip() in shown
    assert "\ufffd" not in shown
    assert "question: why?" in shown
    assert len(row.prompt) <= 84
    assert text(base, row.target[:-1]) == sign


def test_plain_models_get_a_cue_and_chat_models_their_template(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder(base.tokenizer, FACTS, 128)
    chat = text(base, encoder.prompt({"question": "why?"}))
    assert "<|user|>" in chat
    assert chat.endswith("<|assistant|>")
    monkeypatch.setattr(base.tokenizer, "chat_template", None)
    encoder = Encoder(base.tokenizer, FACTS, 128)
    assert text(base, encoder.prompt({"question": "why?"})).endswith("Answer:")


def test_tokens_are_kept_on_disk_and_a_broken_file_is_made_anew(base: Base, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("PEFTBENCH_CACHE", str(tmp_path))
    first = data(base, 6)
    (kept,) = (tmp_path / "tokens").glob("*.npz")
    monkeypatch.setattr(Encoder, "__call__", lambda *_: pytest.fail("encoded again"))
    assert data(base, 6) == first
    kept.write_bytes(kept.read_bytes()[:50])
    monkeypatch.undo()
    monkeypatch.setenv("PEFTBENCH_CACHE", str(tmp_path))
    assert data(base, 6) == first


def test_streams_of_a_seed_are_independent() -> None:
    names: tuple[Stream, ...] = ("subset", "order", "init", "dropout", "validation", "test")
    assert len({stream(seed, name) for seed in range(50) for name in names}) == 300


def test_padding_sides() -> None:
    ids, mask = pad([[5, 6], [7]], 0, "left", torch.device("cpu"))
    assert ids.tolist() == [[5, 6], [0, 7]]
    assert mask.tolist() == [[1, 1], [0, 1]]
