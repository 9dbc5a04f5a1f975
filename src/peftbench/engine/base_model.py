"""The resident base model: loaded once, lent to many runs, proved unchanged after each."""

import gc
import time
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import logging

from peftbench.core import device
from peftbench.core.registry import UserError
from peftbench.engine.base_integrity import ModelState, model_checksum, tensor_digest
from peftbench.engine.bf16_cpu_attention import use_bf16_cpu_attention
from peftbench.engine.decode_strategy import Decoding
from peftbench.engine.families import max_positions, model_family
from peftbench.engine.precision import Precision
from peftbench.engine.quantization import Quantise, keep_exact, loading
from peftbench.engine.tokenization import Encoded, Encoder
from peftbench.methods import Adapted
from peftbench.models import Model, is_commit
from peftbench.models.weight_loading import cannot_load, read_network
from peftbench.tasks import TaskFacts

logging.set_verbosity_error()
logging.disable_progress_bar()

ANSWERS = "what it says"
"""Of a model of which nothing else is known to have changed."""


class NotRestoredError(Exception):
    """A base model that was loaded anew is not what it was before."""


class Base:
    """A base model with its tokenizer, kept in memory.

    `checksum` covers every weight (bits, type, shape) and the type of every module. `restore` proves that a run left
    them, and all else that calls depend on, as they were, or loads the model anew. `canary` is a digest of what it says
    to fixed tokens, if it says the same twice.
    """

    def __init__(self, ref: Model, precision: Precision = "fp32", quantise: Quantise | None = None) -> None:
        self.ref, self.precision, self.quantise = ref, precision, quantise
        asked: dict[str, Any] = {"revision": ref.revision, "trust_remote_code": False}
        try:
            self.config = AutoConfig.from_pretrained(ref.source, **asked)
            self.tokenizer = AutoTokenizer.from_pretrained(ref.source, **asked)
        except Exception as error:
            raise cannot_load(f"model {ref.name} in {ref.source}", error) from error
        self.shape = model_family(self.config)
        if type(self.config) not in self.shape.auto._model_mapping:
            raise UserError(f"model {ref.name}: transformers has no language model of type '{self.config.model_type}'")
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        if self.tokenizer.eos_token_id is None:
            raise UserError(f"model {ref.name}: its tokenizer has no end-of-sequence token, so no answer could end")
        self.load_seconds = 0.0
        self.text_losses: dict[str, float] = {}
        """What `peftbench.profiling.retention` measured of it, by text."""
        self.decodings: dict[tuple[Any, ...], Decoding] = {}
        """How what is on it answers (`peftbench.engine.generation.decoding`)."""
        self.model = self._load()
        self.left: tuple[str, ...] = ()
        self.canary: str | None = ""
        self.canary = first if (first := self._sung()) == self._sung() else None
        self.checksum, self.state = model_checksum(self.model), ModelState(self.model)

    def _load(self) -> Any:
        started = time.perf_counter()
        quantised = loading(self.quantise, self.dtype, device.current_device())
        asked = {"revision": self.ref.revision, "dtype": self.dtype, **quantised}
        model = read_network(self.shape.auto, self.ref.source, self.config, f"model {self.ref.name}", **asked)
        model = (model if quantised else model.to(device.current_device())).requires_grad_(False).eval()
        keep_exact(model)
        if self.dtype == torch.bfloat16 and not device.has_gpu():
            use_bf16_cpu_attention(model)
        # What adapters say they were made for, in place of a path of this machine.
        model.name_or_path = self.ref.address
        self.load_seconds = time.perf_counter() - started
        return model

    def encoder(self, facts: TaskFacts, max_length: int) -> Encoder:
        """What makes rows of a task into tokens for this model."""
        return self.shape.encoder(self.tokenizer, facts, max_length)

    def facts(self) -> dict[str, Any]:
        """What a result should say of the model it was made with."""
        return {
            "checksum": self.checksum,
            "precision": self.precision,
            **({"quantised": self.quantise} if self.quantise else {}),
            "attention": self.model.config._attn_implementation,
            "commit": self.ref.revision if is_commit(self.ref.revision) else getattr(self.config, "_commit_hash", None),
        }

    @property
    def exact(self) -> bool:
        """Whether all that the model computes is computed in float32."""
        return self.dtype == torch.float32 and self.quantise is None

    @property
    def ends(self) -> list[int]:
        """The tokens that end an answer: the tokenizer's own, then those the model's makers name for generation."""
        named = self.model.generation_config.eos_token_id
        others = named if isinstance(named, list) else [] if named is None else [named]
        return list(dict.fromkeys([self.tokenizer.eos_token_id, *others]))

    def restore(self) -> bool:
        """Make sure the model is as it was loaded. Returns whether it had to be loaded anew; `left` says why.

        Raises `NotRestoredError` if that does not help: something else than the model has changed.
        """
        self.decodings.clear()
        self.left = ()
        trained = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        self.model.requires_grad_(False).eval()
        if self.model.is_activation_checkpointing:
            self.model.gradient_checkpointing_disable()
            self.model.disable_input_require_grads()
        sung = self._sung()
        changed = self.state.changed(self.model)
        if not changed and sung == self.canary:
            return False
        # What a method trains in place it says by asking for gradients; what else it changes its user should know.
        self.left = tuple(name for name in changed if name not in trained) if changed else (ANSWERS,)
        # The old one goes before the new one comes: there may be no room for two.
        self.model = None
        gc.collect()
        device.empty_cache()
        self.model = self._load()
        if self._sung() != self.canary or model_checksum(self.model) != self.checksum:
            raise NotRestoredError("loaded anew, the base model is not what it was")
        self.state = ModelState(self.model)
        return True

    def _sung(self) -> str | None:
        """A digest of the logits of a few fixed tokens; none for a model that does not give the same twice."""
        if self.canary is None:
            return None
        # A short and a long row, so that one is padded and windows of attention are passed.
        longest = min(64, (max_positions(self.config) or 64) - 2)
        rows = [
            Encoded([token % len(self.tokenizer) for token in range(11, 11 + length)], [3, 5])
            for length in (min(7, longest), longest)
        ]
        try:
            with torch.no_grad(), device.autocast(self.dtype == torch.bfloat16):
                return tensor_digest(self.shape.target_logits(Adapted(self.model, self.model), rows))
        except Exception as error:
            # What is wrong with it, a run will say; but what could be called must go on to be.
            return type(error).__name__
