"""Make the bundled pocket model from text: `python -m peftbench.models.pocket --corpus DIR --out DIR`.

Deterministic by seed on one machine and thread count. `--budget small` is what one CPU core does in an hour and a
quarter, `--budget large` a GPU in minutes; `--tokens` sets any other length.
"""

import argparse
import json
import platform
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from peftbench.engine.load import device
from peftbench.engine.pretrain import Schedule, held_out_loss, pretrain
from peftbench.models.pocket import text
from peftbench.models.pocket.card import model_card
from peftbench.models.pocket.network import VOCABULARY, new_model
from peftbench.models.pocket.world import ASSISTANT, END, USER, documents

BUDGETS = {"small": 18_000_000, "large": 1_000_000_000}
"""Training tokens of each budget."""


SHARES = (0.68, 0.29, 0.03)
"""Of the rows, those that are of the world, of books and of repeated tokens."""
ROW_LENGTH, HELD_OUT_ROWS = 256, 64
CHAT_TEMPLATE = (
    "{% for m in messages %}"
    f"{{% if m['role'] == 'assistant' %}}{{{{ '{ASSISTANT}' + m['content'] + '{END}' }}}}"
    f"{{% else %}}{{{{ '{USER}' + m['content'] }}}}{{% endif %}}"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{{{{ '{ASSISTANT}' }}}}{{% endif %}}"
)


def mixed_rows(books: text.Books, tokenizer: Tokenizer, seed: int) -> Iterator[list[int]]:
    """Rows of the world, of books and of repeated tokens, in their shares."""
    world = text.rows(lambda: text.token_stream(documents(seed), tokenizer), ROW_LENGTH)
    prose = text.rows(lambda: text.token_stream(iter(books), tokenizer), ROW_LENGTH)
    repeats = text.repeats(seed, tokenizer.get_vocab_size(), ROW_LENGTH)
    rng = random.Random(f"mix-{seed}")
    while True:
        yield next(rng.choices((world, prose, repeats), SHARES)[0])


def held_out(texts: Callable[[], Iterator[str]], tokenizer: Tokenizer) -> torch.Tensor:
    """The first rows of texts that are not trained on."""
    rows = text.rows(lambda: text.token_stream(texts(), tokenizer), ROW_LENGTH)
    return torch.tensor([next(rows) for _ in range(HELD_OUT_ROWS)])


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
    tokenizer = text.fit_tokenizer(text.sample_for_tokenizer(books, seed, 12_000_000), VOCABULARY)
    model = new_model(seed).to(device())
    unseen = held_out(partial(documents, seed + 1), tokenizer)
    rows = mixed_rows(books, tokenizer, seed)
    report = pretrain(model, rows, Schedule(tokens), {"held_out_world_loss": unseen}, out / "pretraining.jsonl")
    report["held_out_books_loss"] = held_out_loss(model, held_out(books.held_out, tokenizer))
    report |= {"seed": seed, "dropped_paragraphs": books.dropped_paragraphs, "threads": torch.get_num_threads()}
    save(model, tokenizer, out)
    hardware = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.machine()})"
    asked = {"asked": tokens, "parameters": model.num_parameters(), "hardware": hardware}
    card = model_card(report | asked | dict(zip(("world", "books", "repeats"), SHARES, strict=True)))
    (out / "README.md").write_text(card)
    (out / "pretraining.json").write_text(json.dumps(report, indent=1) + "\n")
    return report


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m peftbench.models.pocket", description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder of books-*.txt.xz")
    parser.add_argument("--out", type=Path, required=True, help="where model, tokenizer and card are written")
    parser.add_argument("--budget", choices=BUDGETS, default="small")
    parser.add_argument("--tokens", type=int, help="training tokens, instead of a named budget")
    parser.add_argument("--mirror", type=Path, help="local data mirror whose test rows must not overlap the corpus")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    report = make(asked.corpus, asked.out, asked.tokens or BUDGETS[asked.budget], asked.seed, asked.mirror)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
