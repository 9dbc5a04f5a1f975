"""Small things tests share: tiny models made on the spot, and a quick grid."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("peftbench", deadline=None)
settings.load_profile("peftbench")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

SHARED = Path(__file__).parent.parent.parent / "shared"
"""Data, corpus and tools beside the repository; tests that need them are skipped where they are not."""


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["PEFTBENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random models of three architectures, in Hugging Face format, with the pocket tokenizer."""
    import torch
    from transformers import (
        AutoTokenizer,
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
    )

    from peftbench.models import find

    tokenizer = AutoTokenizer.from_pretrained(find("pocket").source)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    size: dict[str, Any] = {"vocab_size": len(tokenizer), "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    wide: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    models = {
        "llama": LlamaForCausalLM(LlamaConfig(**size, **wide, tie_word_embeddings=False)),
        "qwen": Qwen2ForCausalLM(Qwen2Config(**size, **wide, tie_word_embeddings=True)),
        "gpt2": GPT2LMHeadModel(GPT2Config(**size, n_embd=64, n_layer=2, n_head=4, n_positions=512)),
    }
    folder = tmp_path_factory.mktemp("models")
    for name, model in models.items():
        # Larger weights than usual, so that the answers of a random model differ from prompt to prompt.
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.data *= 3
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return {name: folder / name for name in models}
