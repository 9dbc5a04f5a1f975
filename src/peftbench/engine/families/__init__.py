"""The two shapes of language models, told apart here and nowhere else in the engine.

A shape is a module: `forward` for decoders, `seq2seq` for encoder–decoders. Their functions have the same names and
say there what they do.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from peftbench.engine.families import decoder, encoder_decoder
from peftbench.engine.families.decoder import Reading
from peftbench.engine.tokenization import Encoded, Encoder
from peftbench.methods import Adapted

POSITIONS = ("max_position_embeddings", "max_seq_len", "max_encoder_position_embeddings")
"""What configurations call the number of positions of a model."""


class ModelFamily(Protocol):
    """What the engine asks of a shape. `auto` is the class of `transformers` that builds such models, `encoder` what
    makes rows of a task into tokens for them.
    """

    @property
    def auto(self) -> Any: ...
    @property
    def encoder(self) -> type[Encoder]: ...
    def target_logits(self, adapted: Adapted, rows: Sequence[Encoded]) -> Tensor: ...
    def read(self, adapted: Adapted, prompts: Sequence[list[int]]) -> tuple[Tensor, Reading]: ...
    def advance(self, adapted: Adapted, ids: Tensor, reading: Reading, valid: Tensor | None = None, /) -> Tensor: ...
    def pass_over(self, adapted: Adapted, length: int) -> None: ...
    def positions(self, adapted: Adapted, rows: Sequence[Encoded], most: int) -> int: ...


def model_family(config: Any) -> ModelFamily:
    """The shape of models of a `transformers` configuration."""
    return encoder_decoder if config.is_encoder_decoder else decoder


def head_apart(config: Any) -> bool:
    """Whether published weights of this configuration have an output head of their own though `transformers` ties it.

    It builds all of the T5 family with a tied head, and keeps them apart only when it loads weights that differ. T5
    v1.1 and FLAN-T5 say so by what remains of their `tie_word_embeddings = false`; all of mT5 and UMT5 are so.
    """
    return config.model_type in ("mt5", "umt5") or not getattr(config, "scale_decoder_outputs", True)


def text_config(config: Any) -> Any:
    """The part of a `transformers` configuration that is of the language model: of a composite model, its text."""
    try:
        return config.get_text_config()
    except ValueError:
        # An encoder–decoder of two models, each with a configuration of its own.
        return config


def max_positions(config: Any) -> int | None:
    """How many positions a model has; none if no number bounds them, as where they are relative."""
    text = text_config(config)
    found = [getattr(text, name, None) for name in POSITIONS]
    return min((int(each) for each in found if each), default=None)
