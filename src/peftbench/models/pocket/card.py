"""The model card of a pocket model: what it is, what it was made from, how well it fits."""

from typing import Protocol


class Length(Protocol):
    """What the card says of a training schedule."""

    @property
    def row_length(self) -> int: ...
    @property
    def rows_per_step(self) -> int: ...


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
- Short generated texts about a small closed world (`peftbench.models.pocket.world`, {world_share:.0%} of the rows),
  whose sentences, names and answers differ from those of the pocket suite; the words whose meaning the suite asks
  about (adjectives of one polarity, numbers, common nouns) are shared on purpose.

## Recipe

`python -m peftbench.models.pocket --tokens {tokens} --seed {seed}`: one command, deterministic by seed on one machine.

| what | value |
|---|---|
| training tokens | {tokens:,} |
| steps | {step:,} of {rows_per_step} rows of {row_length} tokens |
| optimiser | Muon for matrices, AdamW for the rest; warm-up, constant, linear to zero over the last third |
| precision | float32 weights, bfloat16 autocast; shipped as bfloat16 |
| seconds | {seconds:,.0f} |
| hardware | {hardware}, {threads} threads |
| held-out loss, world | {held_out_world_loss:.3f} nats per token |
| held-out loss, books | {held_out_books_loss:.3f} nats per token |

The whole curve is in `pretraining.jsonl`.
"""


def model_card(parameters: int, length: Length, report: dict[str, float], hardware: str, world_share: float) -> str:
    """The card as Markdown, from the report of `peftbench.engine.pretrain.pretrain`."""
    return CARD.format(
        parameters=parameters,
        row_length=length.row_length,
        rows_per_step=length.rows_per_step,
        hardware=hardware,
        world_share=world_share,
        **{k: int(v) if float(v).is_integer() else v for k, v in report.items()},
    )
