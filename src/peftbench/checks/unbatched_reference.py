"""Reference answers of an adapted model, one row at a time without padding, cache or the engine; batch gradient."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from peftbench.methods import Adapted


def logits(adapted: "Adapted", prompt: Sequence[int], answer: Sequence[int]) -> "Tensor":
    """Return logits [1, vocabulary] of the token after a prompt and a partial answer."""
    import torch

    network, apart = adapted.network, adapted.network.config.is_encoder_decoder
    on = next(network.parameters()).device
    text = torch.tensor([[*prompt] if apart else [*prompt, *answer]], device=on)
    inputs: dict[str, Any] = {"input_ids": text}
    with torch.no_grad():
        if adapted.soft_prompt is not None:
            inputs = {"inputs_embeds": torch.cat([adapted.soft_prompt(1), network.get_input_embeddings()(text)], 1)}
        if adapted.prefix is not None:
            inputs["past_key_values"] = adapted.prefix(1)
        if apart:
            start = network.config.decoder_start_token_id
            inputs["decoder_input_ids"] = torch.tensor([[start, *answer]], device=on)
        found: Tensor = network(**inputs, use_cache=adapted.prefix is not None).logits[:, -1]
    return found


def reference_answer(adapted: "Adapted", prompt: Sequence[int], most: int, end: int) -> list[int]:
    """Return the greedy answer of at most `most` tokens, without the end token."""
    found: list[int] = []
    while len(found) < most:
        token = int(logits(adapted, prompt, found).argmax())
        if token == end:
            break
        found.append(token)
    return found


def gradient(adapted: "Adapted", rows: list[Any]) -> "Tensor":
    """Return the gradient of all trainable parameters, flat; every call has the same dropout."""
    import torch

    from peftbench.engine.train import summed_loss

    adapted.model.train()
    trained = [p for p in adapted.model.parameters() if p.requires_grad]
    torch.manual_seed(0)
    parts = torch.autograd.grad(summed_loss(adapted, rows), trained, allow_unused=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in parts])
