"""Small things tests share: tiny models made on the spot, and a quick grid."""

import contextlib
import multiprocessing
import os
from collections.abc import Iterator
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first, so that no process is left alone with it in the end."""
    items.sort(key=lambda item: item.path.name != "test_story.py")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["PEFTBENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))


def in_environment(given: dict[str, str], theirs: Any) -> None:
    """The life of a forked worker."""
    from peftbench.launch import worker

    os.environ.clear()
    os.environ.update(given)
    worker.main(theirs, os.getppid())


class Forked:
    """A worker that is forked from a process that has imported what it needs."""

    def __init__(self, process: Any) -> None:
        self.process = process
        process.start()

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    def wait(self, seconds: float) -> int | None:
        self.process.join(seconds)
        code: int | None = self.process.exitcode
        return code

    def stop(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


@pytest.fixture(scope="session", autouse=True)
def _warm_workers() -> Iterator[None]:
    """Workers that this process starts are forked from one that has imported what they need, which takes seconds.

    They are as if started but for variables that libraries read when imported, and for their process group. What
    `peftbench run` starts in a process of its own is started as ever (`test_story.py`, `test_launch.py`).
    """
    from peftbench.launch import local

    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["peftbench.launch.worker", "peftbench.single_run", "conftest"])

    def start(theirs: Any) -> Forked:
        return Forked(server.Process(target=in_environment, args=(dict(os.environ), theirs), daemon=True))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "start_worker", start)
        yield


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


@pytest.fixture(scope="session")
def tiny_seq2seq(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random encoder–decoders: T5 as of 2019 (`t5`), as FLAN-T5 with a head of its own (`flan`), and BART.

    Their tokenizer is the pocket one with what theirs adds: an end, or a beginning and an end. Layers and heads of
    encoder and decoder differ in number, and keys are not as wide as the model, as in some of those published.
    """
    import torch
    from tokenizers.processors import TemplateProcessing
    from transformers import (
        AutoTokenizer,
        BartConfig,
        BartForConditionalGeneration,
        T5Config,
        T5ForConditionalGeneration,
    )

    from peftbench.models import find

    tokenizer = AutoTokenizer.from_pretrained(find("pocket").source)
    begin, end = ((tokenizer.convert_ids_to_tokens(token), token) for token in (2, 1))
    torch.manual_seed(0)
    torch.set_num_threads(1)
    size: dict[str, Any] = {"vocab_size": len(tokenizer), "d_model": 64, "pad_token_id": 0, "eos_token_id": 1}
    t5: dict[str, Any] = {
        "d_kv": 8,
        "d_ff": 96,
        "num_layers": 2,
        "num_decoder_layers": 3,
        "num_heads": 4,
        "dropout_rate": 0.0,
        "decoder_start_token_id": 0,
    }
    flan: dict[str, Any] = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    bart: dict[str, Any] = {"encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 96}
    bart |= {"decoder_layers": 3, "decoder_attention_heads": 2, "decoder_ffn_dim": 96, "max_position_embeddings": 256}
    bart |= {"init_std": 0.2, "bos_token_id": 2, "decoder_start_token_id": 1, "dropout": 0.0}
    models: dict[str, Any] = {
        "t5": T5ForConditionalGeneration(T5Config(**size, **t5)),
        "flan": T5ForConditionalGeneration(T5Config(**size, **t5, **flan)),
        "bart": BartForConditionalGeneration(BartConfig(**size, **bart)),
    }
    head = models["flan"].lm_head
    head.weight = torch.nn.Parameter(torch.randn_like(head.weight) / 24)
    folder = tmp_path_factory.mktemp("seq2seq")
    for name, model in models.items():
        # As above; but not the embeddings, with which a tied head would say again what was said last.
        for parameter in model.parameters():
            if parameter.ndim == 2 and parameter is not model.get_input_embeddings().weight:
                parameter.data *= 2
        added = (f"{begin[0]} $A {end[0]}", [begin, end]) if name == "bart" else (f"$A {end[0]}", [end])
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=added[0], special_tokens=added[1])
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return {name: folder / name for name in models}
