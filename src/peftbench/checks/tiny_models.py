"""Random models of a few thousand parameters with the pocket tokenizer, for method checks."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peftbench.engine.base_model import Base
    from peftbench.engine.tokenization import Encoded

SHAPES = ("decoder", "encoder-decoder")
LARGER = {"decoder": 5.0, "encoder-decoder": 2.0}
"""Weight scale: large enough that answers of a random model differ between prompts, and small enough that a small step
has a small effect."""


def build_tiny(shape: str, folder: Path) -> Path:
    """Write a model in Hugging Face format: a Llama with attention biases, or a T5 without biases.

    The T5 has different numbers of encoder and decoder layers, and its heads together are narrower than the model.
    """
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration
    from transformers.utils import logging

    from peftbench.models import find

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(find("pocket").source)
    size: dict[str, Any] = {"vocab_size": len(tokenizer), "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    llama: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    llama |= {"num_attention_heads": 4, "num_key_value_heads": 2, "attention_bias": True}
    t5: dict[str, Any] = {"d_model": 64, "d_kv": 8, "d_ff": 96, "num_layers": 2, "num_decoder_layers": 3}
    t5 |= {"num_heads": 4, "decoder_start_token_id": 0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if shape == "decoder":
            model: Any = LlamaForCausalLM(LlamaConfig(**size, **llama))
        else:
            model = T5ForConditionalGeneration(T5Config(**size, **t5))
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.data *= LARGER[shape]
            elif shape == "decoder" and not parameter.any():
                parameter.data.normal_(std=0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_rows(base: "Base", count: int) -> list["Encoded"]:
    """Return encoded training rows of a pocket task."""
    from peftbench.engine.tokenization import encode_examples
    from peftbench.tasks import TASKS
    from peftbench.tasks._splits import RowLimits, split

    task = TASKS["pocket_sentiment"]
    return encode_examples(base.encoder(task.facts, 128), split(task, {}, count, 0, RowLimits(8, 8), root=None).train)
