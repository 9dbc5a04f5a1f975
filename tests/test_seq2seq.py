"""Encoder–decoders: what they are fed, that their answers are right, and that prompts go where `peft` puts them."""

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import peftbench
from peftbench.core.registry import UserError
from peftbench.core.spec import Training
from peftbench.engine.base_model import Base
from peftbench.engine.families import encoder_decoder
from peftbench.engine.generation import generate, rank_choices
from peftbench.engine.phase_meter import Meter
from peftbench.engine.tokenization import Encoded, Encoder, SourceEncoder, encode_examples
from peftbench.engine.train import Trainer, summed_loss
from peftbench.methods import METHODS, Adapted
from peftbench.methods._peft_model import with_peft
from peftbench.models import find
from peftbench.tasks import TASKS
from peftbench.tasks._prompt import prompt
from peftbench.tasks._splits import RowLimits, split

TASK = TASKS["pocket_sentiment"]
PROMPTS: dict[str, dict[str, Any]] = {
    "prompt-tuning": {"tokens": 4},
    "p-tuning": {"tokens": 4, "hidden": 16},
    "prefix-tuning": {"tokens": 4, "hidden": 16},
}


@pytest.fixture(scope="module")
def bases(tiny_seq2seq: dict[str, Path]) -> dict[str, Base]:
    return {name: Base(find(str(folder)), "fp32") for name, folder in tiny_seq2seq.items()}


@pytest.fixture(params=["t5", "flan", "bart"])
def base(request: pytest.FixtureRequest, bases: dict[str, Base]) -> Iterator[Base]:
    yield bases[request.param]
    assert bases[request.param].restore() is False


def rows(base: Base, count: int = 12) -> list[Encoded]:
    return encode_examples(base.encoder(TASK.facts, 128), split(TASK, {}, count, 0, RowLimits(8, 8), root=None).train)


def plain(base: Base) -> Adapted:
    return Adapted(base.model, base.model)


def applied(model: Any, method: str) -> Adapted:
    torch.manual_seed(0)
    adapted: Adapted = METHODS[method].function(model, **PROMPTS.get(method, {}))
    adapted.model.eval()
    return adapted


def test_prompts_and_answers_are_as_the_tokenizer_has_them(bases: dict[str, Base]) -> None:
    """No cue, no chat template (which this tokenizer has); the end, and BART's beginning, come from the tokenizer."""
    (example, *_) = split(TASK, {}, 12, 0, RowLimits(8, 8), root=None).train
    text = prompt(TASK.facts, example.fields)
    for name, begin in (("t5", []), ("bart", [2])):
        tokenizer = bases[name].tokenizer
        assert tokenizer.chat_template is not None
        row = bases[name].encoder(TASK.facts, 128)(example)
        source, target = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in (text, example.target))
        assert row.prompt == [*begin, *source, 1]
        assert row.target == [*begin, *target, 1]


def test_a_target_ends_even_where_the_tokenizer_adds_nothing() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(find("pocket").source)
    assert SourceEncoder(tokenizer, TASK.facts, 128).answer("joy")[-1] == tokenizer.eos_token_id


def test_kept_tokens_of_one_shape_are_not_those_of_the_other(bases: dict[str, Base]) -> None:
    examples = split(TASK, {}, 4, 0, RowLimits(4, 4), root=None).train
    tokenizer = bases["t5"].tokenizer
    decoder, source = (encode_examples(kind(tokenizer, TASK.facts, 128), examples) for kind in (Encoder, SourceEncoder))
    assert [row.prompt for row in decoder] != [row.prompt for row in source]
    assert encode_examples(SourceEncoder(tokenizer, TASK.facts, 128), examples) == source


def test_the_loss_is_that_of_the_library(base: Base) -> None:
    """Rows of unequal length in one batch against the library's own loss of each row alone."""
    data, expected = rows(base, 6), 0.0
    data = [replace(row, prompt=row.prompt[i:], target=row.target * (1 + i % 3)) for i, row in enumerate(data)]
    with torch.no_grad():
        for row in data:
            loss = base.model(input_ids=torch.tensor([row.prompt]), labels=torch.tensor([row.target])).loss
            expected += loss.item() * len(row.target)
        assert summed_loss(plain(base), data).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("method", sorted(PROMPTS))
def test_prompts_stand_where_the_library_puts_them(method: str, base: Base) -> None:
    """One row without padding through `PeftModel.forward` gives the logits that ours has of it in a padded batch.

    In double precision: random networks multiply the rounding of single, on some inputs a thousandfold.
    """
    data = rows(base, 4)
    data = [replace(row, prompt=row.prompt[4 * i :]) for i, row in enumerate(data)]
    model = copy.deepcopy(base.model).double()
    adapted = applied(model, method)
    adapted.model.double()
    with torch.no_grad():
        ours = encoder_decoder.target_logits(adapted, data)
        theirs = [
            adapted.model(
                input_ids=torch.tensor([row.prompt]),
                attention_mask=torch.ones(1, len(row.prompt)),
                decoder_input_ids=torch.tensor([[encoder_decoder.start_token(base.model), *row.target[:-1]]]),
            ).logits[0]
            for row in data
        ]
    assert torch.allclose(ours, torch.cat(theirs), atol=1e-8)
    untouched = encoder_decoder.target_logits(Adapted(model, model), data)
    assert not torch.allclose(ours, untouched, atol=1e-2)


def test_of_two_prompts_the_library_uses_the_encoders(base: Base) -> None:
    """A configuration that leaves `num_transformer_submodules` open: twice the tokens are made, half of them stand."""
    from peft import PromptTuningConfig

    row = rows(base, 1)[0]
    adapted = with_peft(base.model, PromptTuningConfig(num_virtual_tokens=3))
    adapted.model.eval()
    assert sum(p.numel() for p in adapted.model.parameters() if p.requires_grad) == 2 * 3 * 64
    assert adapted.virtual_tokens == 3
    before = torch.tensor([[encoder_decoder.start_token(base.model), *row.target[:-1]]])
    with torch.no_grad():
        theirs = adapted.model(input_ids=torch.tensor([row.prompt]), decoder_input_ids=before).logits[0]
        assert torch.allclose(encoder_decoder.target_logits(adapted, [row]), theirs, atol=1e-5)
    assert adapted.remove is not None
    adapted.remove()
    assert sum(p.numel() for p in applied(base.model, "prompt-tuning").model.parameters() if p.requires_grad) == 4 * 64


@pytest.mark.parametrize(
    "method",
    [
        "none",
        "lora",
        "prefix-tuning",
        *(pytest.param(m, marks=pytest.mark.slow) for m in ("p-tuning", "prompt-tuning")),
    ],
)
def test_the_batch_changes_no_answer(method: str, base: Base) -> None:
    """Generated and ranked answers, one row at a time and in batches whose rows differ in length and choices."""
    data = [replace(row, prompt=row.prompt[2 * i :]) for i, row in enumerate(rows(base))]
    words = [base.tokenizer(text_target=text)["input_ids"] for text in ("joy", "very great anger", "a", "no fear")]
    data = [replace(row, choices=tuple(words[: 2 + i % 3])) for i, row in enumerate(data)]
    adapted = applied(base.model, method)
    alone = [generate(adapted, [row], base.ends, 6)[0] for row in data]
    assert len({tuple(answer) for answer in alone}) > 1
    for size in (5, 12):
        parts = [data[i : i + size] for i in range(0, len(data), size)]
        assert [answer for part in parts for answer in generate(adapted, part, base.ends, 6)] == alone
        with torch.no_grad():
            brute = [
                min(
                    range(len(row.choices)),
                    key=lambda i: float(summed_loss(adapted, [Encoded(row.prompt, row.choices[i])])),
                )
                for row in data
            ]
        assert [best for part in parts for best in rank_choices(adapted, part)] == brute
    if adapted.remove is not None:
        adapted.remove()


def test_ranking_reads_each_prompt_once(base: Base) -> None:
    data, seen = rows(base, 6), []
    encoder = base.model.get_encoder()
    hook = encoder.register_forward_hook(lambda _module, _inputs, output: seen.append(len(output.last_hidden_state)))
    rank_choices(plain(base), data)
    hook.remove()
    assert seen == [6]


def test_gradient_checkpointing_changes_nothing_but_memory(base: Base) -> None:
    data, losses = rows(base), []
    for checkpointing in (False, True):
        adapted = applied(base.model, "lora")
        if checkpointing:
            base.model.gradient_checkpointing_enable({"use_reentrant": False})
        trainer = Trainer(adapted, Training(max_steps=4, per_device_train_batch_size=4), 1e-2, "fp32", 0)
        found = trainer.fit(data, data, Meter(), lambda _event: None)
        losses.append([point.train_loss for point in found.curve])
        assert adapted.remove is not None
        adapted.remove()
        assert base.restore() is False
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_positions_are_counted_in_the_longer_stack(bases: dict[str, Base]) -> None:
    base, row = bases["bart"], Encoded([5] * 20, [5] * 3)
    assert encoder_decoder.positions(plain(base), [row], 8) == 20
    assert encoder_decoder.positions(plain(base), [row], 30) == 30
    for method, most, expected in (("prompt-tuning", 8, 24), ("prefix-tuning", 8, 20), ("prefix-tuning", 30, 34)):
        adapted = applied(base.model, method)
        assert encoder_decoder.positions(adapted, [row], most) == expected
        assert adapted.remove is not None
        adapted.remove()
    base.restore()


def test_a_model_without_a_start_token_is_refused(tiny_seq2seq: dict[str, Path]) -> None:
    base = Base(find(str(tiny_seq2seq["t5"])), "fp32")
    for config in (base.model.config, base.model.generation_config):
        config.decoder_start_token_id = None
    with pytest.raises(UserError, match="no decoder_start_token_id"):
        generate(plain(base), rows(base, 2), base.ends, 4)


def test_a_head_of_its_own_is_loaded_and_counted(bases: dict[str, Base], tiny_seq2seq: dict[str, Path]) -> None:
    """`flan` is T5 v1.1: transformers builds it with a tied head and loads it with the one that was saved."""
    for name, base in bases.items():
        apart = base.model.get_output_embeddings().weight is not base.model.get_input_embeddings().weight
        assert apart is (name == "flan")
        total = sum(p.numel() for p in base.model.parameters())
        for model in (str(tiny_seq2seq[name]), base.config):
            assert peftbench.estimate(model, "full").trainable_parameters == total


def test_a_configuration_with_a_head_of_its_own_is_counted_as_one() -> None:
    from transformers import MT5Config, T5Config

    sizes: dict[str, Any] = {"vocab_size": 50, "d_model": 16, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    totals: list[Any] = [
        peftbench.estimate(config, "none").total_parameters
        for config in (T5Config(**sizes), T5Config(**(sizes | {"tie_word_embeddings": False})), MT5Config(**sizes))
    ]
    assert totals[1] == totals[0] + 50 * 16
    # mT5 has the gated feed-forward as well: one more matrix in each of two layers.
    assert totals[2] == totals[1] + 2 * 16 * 8


def test_closed_form_of_the_forward_pass() -> None:
    """512 tokens through the encoder, one through the decoder, the head for that one."""
    wide, inner, ff, layers, vocabulary, length = 768, 768, 3072, 12, 32128, 512
    encoder = 4 * length * wide * inner + 2 * length * length * inner + 2 * length * wide * ff
    self_attention = 4 * wide * inner + 2 * inner
    cross_attention = 2 * wide * inner + 2 * length * wide * inner + 2 * length * inner
    decoder = self_attention + cross_attention + 2 * wide * ff
    expected = 2 * (layers * (encoder + decoder) + wide * vocabulary)
    assert peftbench.estimate("t5-base", "none").forward_flops_512 == expected


@pytest.mark.slow
def test_a_grid_from_end_to_end(tiny_seq2seq: dict[str, Path], tmp_path: Path) -> None:
    """Both ways of answering, and every way in which a method can be applied."""
    lora = {"use": "lora", "rank": 4, "learning_rate": 1e-2}
    prefix = {"use": "prefix-tuning", **PROMPTS["prefix-tuning"], "learning_rate": 1e-2}
    grid = {
        "models": [str(tiny_seq2seq["flan"])],
        "methods": [
            "none",
            {"use": "full", "learning_rate": 1e-3},
            lora,
            prefix,
            {"use": "prompt-tuning", "tokens": 4},
        ],
        "tasks": ["pocket_sentiment", "pocket_data_to_text"],
        "sizes": [16],
        "train": {"max_steps": 4, "validation_rows": 4, "learning_rate": 1e-2},
        "eval": {"test_rows": 8},
    }
    peftbench.run(grid, store=tmp_path, workers=1)
    results = [json.loads(path.read_text()) for path in tmp_path.rglob("result.json")]
    assert len(results) == 10
    for result in results:
        assert result["status"] == "ok", result["error"]
        assert all(score["value"] is not None for score in result["scores"].values())
        assert result["costs"]["forward_flops_512"] > 0
        assert result["base_reloaded"] is (result["spec"]["method"]["name"] == "full")
        if result["spec"]["method"]["name"] != "none":
            assert result["costs"]["adapter_bytes"] > 0
