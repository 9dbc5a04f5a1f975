"""The model card of a pocket model: what it is, what it was made from, how well it fits."""

from typing import Any

CARD = """\
---
license: apache-2.0
language: en
library_name: transformers
---
# peftbench pocket model

A Llama-architecture decoder of {parameters:,} parameters with its own byte-level BPE tokenizer and chat template. It
is the bundled base model of peftbench: small enough to adapt in seconds on a laptop, strong enough that
parameter-efficient fine-tuning has something to adapt. It is a measuring instrument, not an assistant.

## Data

- Public-domain English books (a folder of `books-*.txt.xz`); paragraphs that share a run of eight words with a test row
  of the benchmark's data sets are left out ({dropped_paragraphs:,} were met and dropped).
- Short generated texts about a small closed world (`peftbench.models.pocket.world`, most of the rows),
  whose sentences, names and answers differ from those of the pocket suite; the words whose meaning the suite asks
  about (adjectives of one polarity, numbers, common nouns) are shared on purpose.

## Recipe

`python -m peftbench.models.pocket --corpus DIR --mirror DIR --out DIR --tokens {budget} --seed {seed}`: one command,
deterministic by seed on one machine and thread count. Two stages: all skills of the world and books, then more practice
of facts, sums and records.

| what | value |
|---|---|
| training tokens | {tokens:,} |
| steps | {first_steps:,} of 16 rows, then {second_steps:,} of 8 rows, of 512 tokens each |
| optimiser | Muon for matrices, AdamW for the rest; each stage: warm-up, constant, linear to zero over the last third |
| precision | float32 weights, bfloat16 autocast; shipped as bfloat16 |
| seconds | {seconds:,.0f} |
| hardware | {hardware}, {threads} threads |
| held-out loss, world | {held_out_world_loss:.3f} nats per token |
| held-out loss, practice | {held_out_practice_loss:.3f} nats per token |
| held-out loss, books | {held_out_books_loss:.3f} nats per token |

The whole curve is in `pretraining.jsonl`.
"""


def model_card(parameters: int, budget: int, report: dict[str, Any]) -> str:
    """The card as Markdown, from the report of `python -m peftbench.models.pocket`."""
    first, second = report["steps"]
    return CARD.format(parameters=parameters, budget=budget, first_steps=first, second_steps=second, **report)
