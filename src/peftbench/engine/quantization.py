"""Base models whose linear layers are quantised, by the library bitsandbytes."""

import importlib.util
import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from peftbench.core.registry import UserError

Quantise = Literal["nf4", "int8"]


def loading(quantise: Quantise | None, dtype: torch.dtype, on: torch.device) -> dict[str, Any]:
    """What `from_pretrained` is told. nf4 is that of QLoRA (arXiv 2305.14314), its constants quantised too; int8 is
    that of LLM.int8 (arXiv 2208.07339). Embeddings, norms and the output head stay as they are, and so does what
    `transformers` keeps in full precision: of the T5 family the second matrix of each feed-forward.

    Raises `UserError` where the library is not there.
    """
    if quantise is None:
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"a base quantised to {quantise} needs bitsandbytes: pip install 'peftbench[quantised]'")
    from transformers import BitsAndBytesConfig

    four_bits = {
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": dtype,
    }
    asked = {"load_in_4bit": True, **four_bits} if quantise == "nf4" else {"load_in_8bit": True}
    return {"quantization_config": BitsAndBytesConfig(**asked), "device_map": {"": on}}


def keep_exact(model: torch.nn.Module) -> None:
    """Forbid four-bit layers on a CPU to pack their weights anew when they answer: it rounds their scales for good, and
    is done on some processors only.
    """
    module: Any
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def numbers(weight: Tensor) -> int:
    """How many numbers a weight stands for: four-bit ones lie two in a byte."""
    state = getattr(weight, "quant_state", None)
    return weight.numel() if state is None else math.prod(state.shape)


def packed_bytes(model: Any, quantise: Quantise) -> int:
    """How many bytes fewer a model holds once its linear layers are packed; see `loading` for which are."""
    exact = getattr(model, "_keep_in_fp32_modules", None) or ()
    head = model.get_output_embeddings()
    saved = 0
    for name, module in model.named_modules():
        if type(module) is torch.nn.Linear and module is not head and name.rpartition(".")[2] not in exact:
            count, blocks = module.weight.numel(), math.ceil(module.weight.numel() / 64)
            # A byte a block; 16 numbers of the code; a scale for 256 blocks, 256 numbers of its code, an offset.
            four = math.ceil(count / 2) + blocks + 4 * (16 + math.ceil(blocks / 256) + 256 + 1)
            packed = four if quantise == "nf4" else count + 4 * module.out_features
            saved += count * module.weight.element_size() - packed
    return saved


def quantization_constants(model: torch.nn.Module) -> Iterator[Tensor]:
    """The tensors that quantised layers keep beside their weights, which are neither parameters nor buffers."""
    for module in model.modules():
        weight, state = getattr(module, "weight", None), getattr(module, "state", None)
        for holder in (weight, getattr(weight, "quant_state", None), state):
            yield from _held(holder)


def _held(holder: Any) -> Iterator[Tensor]:
    # Of a four-bit layer: scales, code, offset, and the same of the scales; of an eight-bit layer: scales and rows.
    for name in ("absmax", "code", "offset", "SCB", "CB"):
        tensor = getattr(holder, name, None)
        if isinstance(tensor, Tensor):
            yield tensor
    if getattr(holder, "state2", None) is not None:
        yield from _held(holder.state2)
