"""The model card of a pocket model: what it is, what it was made from, how well it fits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CARD = """\
---
license: apache-2.0
language: en
library_name: transformers
---
# {about.title}

{about.what}

## Data

- Public-domain English books (a folder of `books-*.txt.xz`); paragraphs that share a run of eight words with a test row
  of the benchmark's data sets are left out ({dropped_paragraphs:,} were met and dropped).
- Short generated texts about a small closed world (`pretraining.world`), whose sentences, names and
  answers differ from those of the pocket suite; the words whose meaning the suite asks about (adjectives of one
  polarity, numbers, common nouns) are shared on purpose.
{about.mix}

## Recipe

`python -m {about.module} --tokens {asked} --seed {seed}`: one command, deterministic by seed on one machine.

| what | value |
|---|---|
| training tokens | {tokens:,} |
| tokens scored | {scored:,} |
| steps | {step:,} |
| optimiser | Muon for matrices, AdamW for the rest; warm-up, constant, linear to zero over the last third |
| start | {about.start} |
| precision | float32 weights, bfloat16 autocast; shipped as bfloat16 |
| seconds | {seconds:,.0f} |
| hardware | {hardware}, {threads} threads |
| held-out loss, world | {held_out_world_loss:.3f} nats per token |
| held-out loss, books | {held_out_books_loss:.3f} nats per token |

The losses at every hundredth of the training (of each stage, where there are several) are in `pretraining.jsonl`.
"""


@dataclass(frozen=True)
class About:
    """What a card says of a kind of model; `what` and `mix` may name facts of the training in braces."""

    title: str
    module: str
    what: str
    mix: str
    start: str


def model_card(about: About, facts: Mapping[str, Any]) -> str:
    """The card as Markdown; `facts` are the report of the training and what the recipe was asked for."""
    facts = {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in facts.items()}
    said = About(about.title, about.module, about.what.format(**facts), about.mix.format(**facts), about.start)
    return CARD.format(about=said, **facts)
