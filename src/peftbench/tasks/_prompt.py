"""Prompt of an example, before the chat template is applied."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peftbench.tasks import TaskFacts


def prompt(facts: "TaskFacts", fields: Mapping[str, str]) -> str:
    """Return the prompt: the instruction, the labels, one field per line."""
    lines = [facts.instruction]
    if facts.labels:
        lines.append(f"Answer with one of: {', '.join(facts.labels)}.")
    return "\n".join(lines + [f"{name}: {text}" for name, text in fields.items()])
