"""Make the bundled pocket model from text: `python -m peftbench.models.pocket --corpus DIR --out DIR`.

Deterministic by seed on one machine and thread count. `--budget small` is what two CPU cores do in about an hour,
`--budget large` a GPU in minutes; `--tokens` sets any other length.
"""

import argparse
import json
import platform
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from peftbench.engine.load import device
from peftbench.engine.pretrain import Schedule, pretrain
from peftbench.models.pocket import text
from peftbench.models.pocket.card import model_card
from peftbench.models.pocket.world import ASSISTANT, END, USER, documents

BUDGETS = {"small": 20_000_000, "large": 1_000_000_000}
"""Training tokens of each budget."""
VOCABULARY = 3072
WORLD_SHARE = 0.7
HELD_OUT_ROWS = 64
CHAT_TEMPLATE = (
    "{% for m in messages %}"
    f"{{% if m['role'] == 'assistant' %}}{{{{ '{ASSISTANT}' + m['content'] + '{END}' }}}}"
    f"{{% else %}}{{{{ '{USER}' + m['content'] }}}}{{% endif %}}"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{{{{ '{ASSISTANT}' }}}}{{% endif %}}"
)


def new_model(seed: int) -> Any:
    """A Llama-shaped decoder of 4.2 M parameters with random weights."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=640,
            num_hidden_layers=5,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
        )
    )


def mixed_rows(books: text.Books, tokenizer: Tokenizer, length: int, seed: int) -> Iterator[list[int]]:
    """Rows of books and of the world, drawn in fixed shares."""
    world = text.rows(lambda: text.token_stream(documents(seed), tokenizer), length)
    prose = text.rows(lambda: text.token_stream(iter(books), tokenizer), length)
    rng = random.Random(f"mix-{seed}")
    while True:
        yield next(world if rng.random() < WORLD_SHARE else prose)


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
    schedule = Schedule(tokens=tokens)
    rows = mixed_rows(books, tokenizer, schedule.row_length, seed)
    world = text.rows(lambda: text.token_stream(documents(seed + 1), tokenizer), schedule.row_length)
    unseen = text.rows(lambda: text.token_stream(books.held_out(), tokenizer), schedule.row_length)
    held_out = {
        "held_out_world_loss": torch.tensor([next(world) for _ in range(HELD_OUT_ROWS)]),
        "held_out_books_loss": torch.tensor([next(unseen) for _ in range(HELD_OUT_ROWS)]),
    }
    model = new_model(seed).to(device())
    report = pretrain(model, rows, schedule, held_out, out / "pretraining.jsonl")
    report |= {"seed": seed, "dropped_paragraphs": books.dropped_paragraphs, "threads": torch.get_num_threads()}
    save(model, tokenizer, out)
    hardware = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.machine()})"
    (out / "README.md").write_text(model_card(model.num_parameters(), schedule, report, hardware, WORLD_SHARE))
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
