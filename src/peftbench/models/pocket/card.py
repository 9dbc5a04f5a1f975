"""The model card of a pocket model: what it is, what it was made from, how well it fits."""

from collections.abc import Mapping
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
- Short generated texts about a small closed world (`peftbench.models.pocket.world`), whose sentences, names and
  answers differ from those of the pocket suite; the words whose meaning the suite asks about (adjectives of one
  polarity, numbers, common nouns) are shared on purpose.
- Rows of random tokens that come again and again.

Of the rows, {books:.0%} are of books, {world:.0%} of the world and {repeats:.0%} of repeated tokens.

## Recipe

`python -m peftbench.models.pocket --tokens {asked} --seed {seed}`: one command, deterministic by seed on one machine.

| what | value |
|---|---|
| training tokens | {tokens:,} |
| steps | {step:,} |
| optimiser | Muon for matrices, AdamW for the rest; warm-up, constant, linear to zero over the last third |
| start | random, but for two heads that look up what followed a token the last time (`network.py`) |
| precision | float32 weights, bfloat16 autocast; shipped as bfloat16 |
| seconds | {seconds:,.0f} |
| hardware | {hardware}, {threads} threads |
| held-out loss, world | {held_out_world_loss:.3f} nats per token |
| held-out loss, books | {held_out_books_loss:.3f} nats per token |

The losses at every hundredth of the training are in `pretraining.jsonl`.
"""


def model_card(facts: Mapping[str, Any]) -> str:
    """The card as Markdown; `facts` are the report of the training and what the recipe was asked for."""
    return CARD.format(**{k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in facts.items()})
