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

BUDGETS = {"small": 30_000_000, "large": 1_000_000_000}
"""Training tokens of each budget: two thirds in the first stage, one third in the second."""
VOCABULARY = 3072
WORLD_SHARE = {1: 0.7, 2: 0.85}
"""Share of rows that are of the generated world, by stage; the others are of books."""
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


def schedules(tokens: int) -> tuple[Schedule, Schedule]:
    """The two stages: a broad one, then practice of the skills that need the most of it, in smaller steps."""
    first = tokens * 2 // 3
    practice = Schedule(tokens - first, rows_per_step=8, matrix_rate=0.01, other_rate=2e-3)
    return Schedule(first), practice


def mixed_rows(books: text.Books, tokenizer: Tokenizer, length: int, seed: int, stage: int) -> Iterator[list[int]]:
    """Rows of books and of the world, drawn in fixed shares."""
    world = text.rows(lambda: text.token_stream(documents(seed, stage), tokenizer), length)
    prose = text.rows(lambda: text.token_stream(iter(books), tokenizer), length)
    rng = random.Random(f"mix-{seed}")
    while True:
        yield next(world if rng.random() < WORLD_SHARE[stage] else prose)


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


def make(
    corpus: Path, out: Path, tokens: int, seed: int = 0, mirror: Path | None = None, start: Path | None = None
) -> dict[str, Any]:
    """Fit the tokenizer, pretrain in two stages, save model and card to `out`; returns the report the card shows.

    The second stage starts from the weights as the first would be shipped, in bfloat16; with `start`, a model that was
    saved after the first stage, it alone is done.
    """
    out.mkdir(parents=True, exist_ok=True)
    log = out / "pretraining.jsonl"
    books = text.Books(corpus, text.test_shingles(mirror) if mirror else set())
    reports: list[dict[str, float]] = []
    if start is None:
        tokenizer = text.fit_tokenizer(text.sample_for_tokenizer(books, seed, 12_000_000), VOCABULARY)
        model = new_model(seed)
    else:
        tokenizer = Tokenizer.from_file(str(start / "tokenizer.json"))
        model = LlamaForCausalLM.from_pretrained(start)
        log.write_text((start / log.name).read_text())
        reports.append(json.loads((start / "pretraining.json").read_text()))
    model = model.to(device())
    for stage, schedule in list(enumerate(schedules(tokens), start=1))[len(reports) :]:
        model = model.bfloat16().float()
        rows = mixed_rows(books, tokenizer, schedule.row_length, seed, stage)
        reports.append(pretrain(model, rows, schedule, _held_out(books, tokenizer, schedule.row_length, seed), log))
    report: dict[str, Any] = reports[-1] | {
        "tokens": sum(int(stage["tokens"]) for stage in reports),
        "seconds": sum(stage["seconds"] for stage in reports),
        "steps": [int(stage["step"]) for stage in reports],
        "seed": seed,
        "dropped_paragraphs": books.dropped_paragraphs,
        "hardware": torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.machine()})",
        "threads": torch.get_num_threads(),
    }
    save(model, tokenizer, out)
    (out / "README.md").write_text(model_card(model.num_parameters(), tokens, report))
    (out / "pretraining.json").write_text(json.dumps(report, indent=1) + "\n")
    return report


def _held_out(books: text.Books, tokenizer: Tokenizer, length: int, seed: int) -> dict[str, torch.Tensor]:
    """Rows that are never trained on, of each kind of text."""
    kinds = {
        "world": lambda: text.token_stream(documents(seed + 1), tokenizer),
        "practice": lambda: text.token_stream(documents(seed + 1, stage=2), tokenizer),
        "books": lambda: text.token_stream(books.held_out(), tokenizer),
    }
    rows = {kind: text.rows(stream, length) for kind, stream in kinds.items()}
    return {f"held_out_{k}_loss": torch.tensor([next(r) for _ in range(HELD_OUT_ROWS)]) for k, r in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m peftbench.models.pocket", description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder of books-*.txt.xz")
    parser.add_argument("--out", type=Path, required=True, help="where model, tokenizer and card are written")
    parser.add_argument("--budget", choices=BUDGETS, default="small")
    parser.add_argument("--tokens", type=int, help="training tokens, instead of a named budget")
    parser.add_argument("--mirror", type=Path, help="local data mirror whose test rows must not overlap the corpus")
    parser.add_argument("--start", type=Path, help="a model of the first stage, to do the second alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    tokens = asked.tokens or BUDGETS[asked.budget]
    report = make(asked.corpus, asked.out, tokens, asked.seed, asked.mirror, asked.start)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
