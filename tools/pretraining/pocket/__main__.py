"""Make the bundled pocket model from text: `python -m pretraining.pocket --corpus DIR --out DIR`.

Deterministic by seed on one machine and thread count. `--budget small` is what one CPU core does in an hour and a
half, `--budget large` a GPU in minutes; `--tokens` sets any other length.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from peftbench.core import device
from pretraining.pocket import recipe, text
from pretraining.pocket.card import About
from pretraining.pocket.network import VOCABULARY, new_model
from pretraining.trainer import Schedule, Text, held_out_loss, pretrain
from pretraining.world import ASKING, ASSISTANT, END, MEANING, USER, Mix, documents

ABOUT = About(
    title="peftbench pocket model",
    module="pretraining.pocket",
    what="""\
A Llama-architecture decoder of {parameters:,} parameters with its own byte-level BPE tokenizer and chat template. It
is the bundled base model of peftbench: small enough to adapt in seconds on a laptop, strong enough that
parameter-efficient fine-tuning has something to adapt. It is a measuring instrument, not an assistant.""",
    mix="""\
- Rows of random tokens that come again and again.

The first stage is about what words mean and what a text says, the second asks for it in many ways.

{stages}""",
    start="random, but for two heads that look up what followed a token the last time (`network.py`)",
)
BUDGETS = {"small": 21_000_000, "large": 1_000_000_000}
"""Training tokens of each budget."""


@dataclass(frozen=True)
class Stage:
    """A part of the training: its share of the tokens, its rates, and the shares of its rows that are of the world, of
    books and of repeated tokens.
    """

    tokens: float
    rates: tuple[float, float]
    mix: Mix
    shares: tuple[float, float, float]


STAGES = (
    Stage(18 / 21, (0.008, 3e-3), MEANING, (0.68, 0.29, 0.03)),
    Stage(3 / 21, (0.004, 1.5e-3), ASKING, (0.75, 0.23, 0.02)),
)
ROW_LENGTH, HELD_OUT_ROWS = 256, 64
SUMS = "step", "seconds", "tokens", "scored"
"""What adds up over the stages."""
CHAT_TEMPLATE = (
    "{% for m in messages %}"
    f"{{% if m['role'] == 'assistant' %}}{{{{ '{ASSISTANT}' + m['content'] + '{END}' }}}}"
    f"{{% else %}}{{{{ '{USER}' + m['content'] }}}}{{% endif %}}"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{{{{ '{ASSISTANT}' }}}}{{% endif %}}"
)


def mixed_rows(books: text.Books, tokenizer: Tokenizer, stage: Stage, seed: int) -> Iterator[list[int]]:
    """Rows of the world, of books and of repeated tokens, in the shares of a stage."""
    world = text.rows(lambda: text.token_stream(documents(seed, stage.mix), tokenizer), ROW_LENGTH)
    prose = text.rows(lambda: text.token_stream(iter(books), tokenizer), ROW_LENGTH)
    repeats = text.repeats(seed, tokenizer.get_vocab_size(), ROW_LENGTH)
    rng = random.Random(f"mix-{seed}")
    while True:
        yield next(rng.choices((world, prose, repeats), stage.shares)[0])


def held_out(texts: Iterator[str], tokenizer: Tokenizer) -> list[Text]:
    """The first rows of texts that are not trained on."""
    rows = text.rows(lambda: text.token_stream(texts, tokenizer), ROW_LENGTH)
    tokens = torch.tensor([next(rows) for _ in range(HELD_OUT_ROWS)])
    return [Text(chunk) for chunk in tokens.split(HELD_OUT_ROWS // 2)]


def save(model: Any, tokenizer: Tokenizer, out: Path) -> None:
    """Write model (bfloat16) and tokenizer in Hugging Face format."""
    model.bfloat16().save_pretrained(out)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=text.PAD,
        eos_token=END,
        extra_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    ).save_pretrained(out)


def make(corpus: Path, out: Path, tokens: int, seed: int = 0, mirror: Path | None = None) -> dict[str, float]:
    """Fit the tokenizer, pretrain, save model and card to `out`; returns the report that the card shows."""
    out.mkdir(parents=True, exist_ok=True)
    books = text.Books(corpus, text.test_shingles(mirror) if mirror else set())
    sample = text.sample_for_tokenizer(iter(books), documents(seed), 12_000_000)
    tokenizer = text.fit_tokenizer(sample, VOCABULARY, [text.PAD, END, USER, ASSISTANT])
    model = new_model(seed).to(device.current_device())
    report: dict[str, float] = dict.fromkeys(SUMS, 0)
    for i, stage in enumerate(STAGES):
        schedule = Schedule(
            round(tokens * stage.tokens), ROW_LENGTH, matrix_rate=stage.rates[0], other_rate=stage.rates[1]
        )
        batches = Text.batches(mixed_rows(books, tokenizer, stage, seed + 2 * i), schedule.rows_per_step)
        unseen = held_out(documents(seed + 2 * i + 1, stage.mix), tokenizer)
        done = pretrain(model, batches, schedule, {"held_out_world_loss": unseen}, out / "pretraining.jsonl")
        # A stage goes on from what would be shipped of the one before.
        model.bfloat16().float()
        report = done | {name: report[name] + done[name] for name in SUMS}
    report["held_out_books_loss"] = held_out_loss(model, held_out(books.held_out(), tokenizer))
    report |= {"seed": seed, "dropped_paragraphs": books.dropped_paragraphs}
    save(model, tokenizer, out)
    return recipe.tell(
        out, ABOUT, report, {"asked": tokens, "parameters": model.num_parameters(), "stages": _stages(tokens)}
    )


def _stages(tokens: int) -> str:
    """The stages as a table."""
    rows = ["| stage | tokens | rows of the world | of books | of repeated tokens |", "|---|---|---|---|---|"]
    for i, stage in enumerate(STAGES, 1):
        shares = " | ".join(f"{share:.0%}" for share in stage.shares)
        rows.append(f"| {i} | {round(tokens * stage.tokens):,} | {shares} |")
    return "\n".join(rows)


if __name__ == "__main__":
    recipe.command(ABOUT, __doc__, BUDGETS, make)
