"""The chat template of a tokenizer: which of several it is, and how a question is put to it.

Templates differ in what they take. A question is put in the first of a few ways in which the template shows it: as a
user turn alone or after an empty system turn, its content as text or as a list of parts. What was found is part of a
run's result.
"""

import datetime as dt
import re
from dataclasses import dataclass
from itertools import product
from typing import Any

from jinja2 import TemplateError

from peftbench.core.registry import UserError

DAY = dt.datetime(2024, 7, 26)
"""The date of templates that show one: the same question must be the same text on every day."""
LETTERS = "aAbBcdDeFfGhHIjmMpRSTuUVwWxXyYzZ"
"""What follows a percent sign in the format of a date; after a dash, a number has no leading zeros."""
CLOCK = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f".replace('%{letter}', {DAY.strftime('%' + letter)!r})" for letter in LETTERS)
    + "".join(f".replace('%-{letter}', {DAY.strftime('%' + letter).lstrip('0') or '0'!r})" for letter in LETTERS)
    + " }}{% endmacro %}\n"
)
"""Stands before a template, in place of the library's clock, which no argument can replace. Its end is trimmed."""
PROBE = "Which of them is asked for?"
THINKING = ("enable_thinking", "thinking")
"""How templates call the switch for a thought before the answer. It is off: an answer is what is learned and scored."""
OPEN_THOUGHT = re.compile(r"<think(ing)?>\s*$")


@dataclass(frozen=True)
class Chat:
    """How questions are put to a tokenizer.

    `name`: which of its templates, empty where it has one only. `system`: an empty system turn comes first. `parts`: a
    content is a list of parts. `switches`: those of `THINKING` that the template knows.
    """

    tokenizer: Any
    template: str
    name: str = ""
    system: bool = False
    parts: bool = False
    switches: tuple[str, ...] = ()
    opens_thought: bool = False

    def __call__(self, question: str, **settings: Any) -> str:
        """The text that asks a question and leaves off where the answer begins."""
        turns = [("system", "")] * self.system + [("user", question)]
        chat = [{"role": role, "content": self._content(text)} for role, text in turns]
        told = {"date_string": f"{DAY:%d %b %Y}"} | dict.fromkeys(THINKING, False) | settings
        template = CLOCK + self.template
        return str(
            self.tokenizer.apply_chat_template(
                chat, chat_template=template, tokenize=False, add_generation_prompt=True, **told
            )
        )

    def _content(self, text: str) -> Any:
        return [{"type": "text", "text": text}] if self.parts else text

    @property
    def facts(self) -> dict[str, Any]:
        """What a result should say of it."""
        found: dict[str, Any] = {"chat_template": self.name or "default"}
        found |= {"system_turn": "empty"} if self.system else {}
        found |= {"content": "parts"} if self.parts else {}
        found |= {"opens_thought": True} if self.opens_thought else {}
        return found | dict.fromkeys(self.switches, False)


def chat_of(tokenizer: Any) -> Chat | None:
    """How questions are put to a tokenizer; `None` if it has no chat template.

    Raises `UserError` for several templates without a default, and for one that does not show a question.
    """
    templates, name = tokenizer.chat_template, ""
    if templates is None:
        return None
    if isinstance(templates, dict):
        name = next(iter(templates)) if len(templates) == 1 else "default"
        if name not in templates:
            raise UserError(
                f"its tokenizer has several chat templates ({', '.join(sorted(templates))}) and none is called "
                "default: copy the one that is meant to chat_template.jinja in the model's folder"
            )
        templates = templates[name]
    problem = "what it shows does not contain the question"
    for system, parts in product((False, True), repeat=2):
        chat = Chat(tokenizer, templates, name, system, parts)
        try:
            shown = chat(PROBE)
        except (TemplateError, AttributeError, LookupError, TypeError, ValueError) as error:
            problem = " ".join(str(error).split())[:200]
            continue
        if PROBE in shown:
            switches = tuple(switch for switch in THINKING if chat(PROBE, **{switch: True}) != shown)
            return Chat(tokenizer, templates, name, system, parts, switches, bool(OPEN_THOUGHT.search(shown)))
    raise UserError(f"its tokenizer's chat template cannot be asked a question: {problem}")
