"""Prompts and targets for tokenizers and chat templates as people have them, to the token; or one line that refuses.

The tokenizers are the bundled one with other parts. That of the bundled decoder has the tokens `<|pad|>` (0), `<|end|>`
(1) and those of two turns; it adds nothing to a text.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, normalizers
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

from conftest import SHARED
from peftbench.core.registry import UserError
from peftbench.core.spec import RunResult
from peftbench.engine.tokenization import (
    Encoder,
    SourceEncoder,
    answer_text,
    check_choices,
    check_vocabulary,
    encode_examples,
    unwritable,
)
from peftbench.grid.expand import expand
from peftbench.models import find
from peftbench.single_run import Worker, run
from peftbench.tasks import TASKS, Example, TaskFacts

FACTS = TaskFacts(
    source=TASKS["pocket_sentiment"].facts.source,
    kind="qa",
    instruction="Answer the question.",
    metrics=("exact_match",),
    max_new_tokens=16,
)
QUESTION = {"question": "who has the boat?"}
ASKED = "Answer the question.\nquestion: who has the boat?"
END, BEGIN = 1, 2
CHATML = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
USER = f"<|user|>\n{ASKED}\n<|assistant|>\n"
NEEDS_SYSTEM = "{% if messages[0]['role'] != 'system' %}{{ raise_exception('a system turn is first') }}{% endif %}"
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
PARTS = CHATML.replace("{{ m['content'] }}", "{% for c in m['content'] %}{{ c['text'] }}{% endfor +%}")
THINKS = CHATML.replace(
    "<|assistant|>\n",
    "<|assistant|>\n{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}",
)


def tokenizer(**parts: Any) -> Any:
    """The bundled one with another template, or with a post-processor that adds these tokens before and after."""
    made = AutoTokenizer.from_pretrained(find("pocket").source)
    made.chat_template = parts.get("template")
    names = {token: made.convert_ids_to_tokens(token) for token in (END, BEGIN)}
    around: Any = (
        [names[token] for token in parts.get("before", ())],
        [names[token] for token in parts.get("after", ())],
    )
    if any(around):
        single = " ".join([*around[0], "$A", *around[1]])
        special = [(name, token) for token, name in names.items()]
        made.backend_tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=special)
    if parts.get("begin"):
        made.bos_token = names[BEGIN]
    if parts.get("lower"):
        made.backend_tokenizer.normalizer = normalizers.Lowercase()
    return made


def words_only() -> Any:
    """As sentence-piece tokenizers of T5: what is not among its words, such as a brace, is unknown; lines are lost."""
    words = ["<pad>", "</s>", "<unk>", "Ann", "Bo", "print", "(", ")", "x", "who", "?", ":"]
    made = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = Whitespace()
    made.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


def bare(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize(
    ("before", "after"), [((), ()), ((), (END,)), ((BEGIN,), ()), ((BEGIN,), (END,)), ((BEGIN,), (END, END))]
)
def test_a_plain_prompt_begins_as_texts_do_and_does_not_end(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    made = tokenizer(before=before, after=after)
    encoder = Encoder(made, FACTS, 128)
    row = encoder(Example(QUESTION, "Ann"))
    assert row.prompt == [*before, *bare(made, f"{ASKED}\nAnswer:")]
    assert row.target == [*bare(made, " Ann"), END]
    passage = Encoder.passage(made, "a boat with no oars", 50)
    assert [*passage.prompt, *passage.target] == [*before, *bare(made, "a boat with no oars")]


@pytest.mark.parametrize("after", [(END,), (END, BEGIN), (BEGIN,), ()])
def test_the_target_of_an_encoder_decoder_ends_once(after: tuple[int, ...]) -> None:
    """Some write more after the end, such as the code of a language."""
    made = tokenizer(before=(BEGIN,), after=after)
    row = SourceEncoder(made, FACTS, 128)(Example(QUESTION, "Ann"))
    assert row.target == [BEGIN, *bare(made, "Ann"), END]
    assert row.prompt == [BEGIN, *bare(made, ASKED), *after]


@pytest.mark.parametrize(
    ("template", "shown", "form"),
    [
        (CHATML, USER, {}),
        ({"default": CHATML, "tool_use": "tools", "rag": "rag"}, USER, {}),
        ({"chatml": CHATML}, USER, {"chat_template": "chatml"}),
        (NO_SYSTEM + CHATML, USER, {}),
        (NEEDS_SYSTEM + CHATML, f"<|system|>\n\n{USER}", {"system_turn": "empty"}),
        (PARTS, USER, {"content": "parts"}),
        (NEEDS_SYSTEM + PARTS, f"<|system|>\n\n{USER}", {"content": "parts", "system_turn": "empty"}),
        (THINKS, f"{USER}<think></think>", {"enable_thinking": False}),
        (THINKS.replace("enable_thinking", "thinking"), f"{USER}<think></think>", {"thinking": False}),
        (CHATML + "<think>\n", f"{USER}<think>", {"opens_thought": True}),
        ("{{ strftime_now('%d %B %Y') }}\n" + CHATML, f"26 July 2024\n{USER}", {}),
        ('{{ strftime_now("%Y-%m-%d") if strftime_now is defined else 2 }}\n' + CHATML, f"2024-07-26\n{USER}", {}),
        (
            "{% set form = '%H:%M:%S, %-d %b' %}{{ strftime_now(form) }}\n" + CHATML,
            f"00:00:00, 26 Jul\n{USER}",
            {},
        ),
        ("{% macro day() %}{{ strftime_now('%j') }}{% endmacro %}{{ day() }} " + CHATML, f"208 {USER}", {}),
        ("\n  {% if true %}{% endif %}" + CHATML, f"\n{USER}", {}),
    ],
)
def test_a_question_is_put_as_the_template_takes_it(template: Any, shown: str, form: dict[str, Any]) -> None:
    made = tokenizer(template=template)
    encoder = Encoder(made, FACTS, 128)
    row = encoder(Example(QUESTION, "Ann"))
    assert row.prompt == bare(made, shown)
    assert row.target == [*bare(made, "Ann"), END]
    assert encoder.form == {"chat_template": "default"} | form


def test_the_beginning_that_a_template_writes_is_not_doubled() -> None:
    made = tokenizer(template="{{ bos_token }}" + CHATML, before=(BEGIN,), after=(END,), begin=True)
    row = Encoder(made, FACTS, 128)(Example(QUESTION, "Ann"))
    assert row.prompt == [BEGIN, *bare(made, USER)]
    assert row.target == [*bare(made, "Ann"), END]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ({"tool_use": CHATML, "rag": CHATML}, r"several chat templates \(rag, tool_use\) and none is called default"),
        (CHATML.replace("{{ m['content'] }}", ""), "does not contain the question"),
        ("{{ raise_exception('only tools') }}", "only tools"),
        ("{% if %}", "cannot be asked a question"),
    ],
)
def test_a_template_that_cannot_be_asked_is_refused_in_a_line(template: Any, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        Encoder(tokenizer(template=template), FACTS, 128)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_that_is_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFTBENCH_CACHE", str(tmp_path))
    made = ByT5Tokenizer()
    (row,) = encode_examples(SourceEncoder(made, FACTS, 128), [Example(QUESTION, "Zoë")])
    assert row.prompt == [*(byte + 3 for byte in ASKED.encode()), 1]
    assert row.target == [*(byte + 3 for byte in "Zoë".encode()), 1]
    assert not row.unwritable
    # It has rows for more tokens than its tokenizer knows.
    assert answer_text(made, [*row.target, 500, 10_000]) == "Zoë"


@pytest.mark.parametrize(
    ("make", "encoder", "target", "back"),
    [
        (words_only, SourceEncoder, "print(x)\nx", "print ( x ) x"),
        (words_only, SourceEncoder, "{ x }", "x"),
        (lambda: tokenizer(lower=True), Encoder, "Ann", "ann"),
        (tokenizer, Encoder, "a<|end|>", "a"),
    ],
)
def test_targets_that_cannot_be_written_are_counted(
    make: Callable[[], Any], encoder: type[Encoder], target: str, back: str
) -> None:
    one = encoder(make(), FACTS, 128)
    examples = [Example(QUESTION, target), Example(QUESTION, "x"), Example(QUESTION, f" {target} ")]
    first = encode_examples(one, examples)
    # Again, from disk.
    assert (
        [row.unwritable for row in encode_examples(one, examples)]
        == [row.unwritable for row in first]
        == [True, False, True]
    )
    assert f"2 of 3 targets cannot be written with the model's tokenizer, which makes {back!r} of {target!r}" in (
        unwritable(one, examples, first)
    )
    assert unwritable(one, examples[1:2], first[1:2]) == ""


@pytest.mark.parametrize(
    ("make", "labels", "words"),
    [
        (words_only, ("{", "}"), "does not tell the choices '{' and '}' apart"),
        (words_only, ("Ann", "\n"), r"makes nothing of the choice '\\n'"),
        (lambda: tokenizer(lower=True), ("Bo", "Ann", "ann"), "'Ann' and 'ann' apart"),
    ],
)
def test_choices_that_are_the_same_or_nothing_are_refused(
    make: Callable[[], Any], labels: tuple[str, ...], words: str
) -> None:
    encoder = SourceEncoder(make(), replace(FACTS, labels=labels), 128)
    with pytest.raises(UserError, match=words):
        check_choices(encoder, encode_examples(encoder, [Example(QUESTION, labels[0])]))
    same = Example(QUESTION, labels[0], choices=(labels[0], labels[0]))
    plain = SourceEncoder(tokenizer(after=(END,)), FACTS, 128)
    check_choices(plain, encode_examples(plain, [replace(same, choices=("Ann", "Ann"))]))


def test_a_token_without_an_embedding_is_refused_by_name() -> None:
    made = tokenizer()
    made.add_special_tokens({"additional_special_tokens": ["<|new|>"]})
    encoder = Encoder(made, FACTS, 128)
    rows = encode_examples(encoder, [Example({"question": "what is <|new|>?"}, "x")])
    check_vocabulary(encoder, rows, len(made))
    with pytest.raises(UserError, match=rf"has {len(made) - 1} embeddings.*token {len(made) - 1} \('<\|new\|>'\)"):
        check_vocabulary(encoder, rows, len(made) - 1)


# Long rows


@pytest.mark.parametrize("template", [None, CHATML])
@pytest.mark.parametrize("room", [220, 300, 400])
def test_fields_are_shortened_evenly_and_nothing_else_is(template: str | None, room: int) -> None:
    made, facts = tokenizer(template=template), replace(FACTS, labels=("yes", "no"))
    lengths = {f"c{i}": 3 * i + 1 for i in range(20)}
    fields = {name: " ".join(f"{name}w{j}" for j in range(n)) for name, n in lengths.items()}
    row = Encoder(made, facts, room)(Example(fields, "yes"))
    shown = str(made.decode(row.prompt))
    assert row.truncated
    assert room - 16 - 24 < len(row.prompt) <= room - 16
    head = "" if template is None else "<|user|>"
    assert shown.replace("\n", " ").replace("  ", " ").strip().startswith(f"{head} Answer the question.".strip())
    assert "Answer with one of: yes, no." in shown
    assert shown.split()[-1] == ("Answer:" if template is None else "<|assistant|>")
    kept = {name: shown.split(f"\n{name}: ")[1].split("\n")[0] for name in fields}
    whole = [name for name in fields if kept[name] == fields[name]]
    cut = [name for name in fields if name not in whole]
    assert all("..." in kept[name] for name in cut)
    sizes = [len(bare(made, kept[name])) for name in cut]
    # Those that were cut are of one length, give or take the seams, and none that is whole is longer.
    assert max(sizes) - min(sizes) <= 6
    assert max((len(bare(made, fields[name])) for name in whole), default=0) <= max(sizes) + 3


def test_a_prompt_without_room_for_its_fields_is_refused() -> None:
    fields = {f"column{i}": "word " * 40 for i in range(20)}
    with pytest.raises(UserError, match=r"max_length = 64 leaves 48 tokens .* raise max_length over \d+"):
        Encoder(tokenizer(), FACTS, 64)(Example(fields, "x"))


# Whole runs


def done(model: Path, task: str, folder: Path) -> RunResult:
    grid: dict[str, Any] = {"models": [str(model)], "methods": ["none"], "tasks": [task], "sizes": [16]}
    (spec,) = expand(grid | {"eval": {"test_rows": 4}})
    folder.mkdir()
    return run(spec, Worker(), folder, lambda _: None)[0]


def test_a_result_says_how_it_was_asked_and_what_cannot_be_answered(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(tiny_models["llama"], tmp_path / "model")
    tokenizer(lower=True, template=NEEDS_SYSTEM + THINKS).save_pretrained(tmp_path / "model")
    found = {task: done(tmp_path / "model", task, tmp_path / task) for task in ("pocket_data_to_text", "pocket_topic")}
    for task, result in found.items():
        assert result.status == "ok", result.error
        assert result.data is not None
        assert result.data.prompt_form == {
            "chat_template": "default",
            "system_turn": "empty",
            "enable_thinking": False,
        }
        rows = result.data.train_rows + result.data.validation_rows + result.data.test_rows
        said = [note for note in result.notes if "cannot be written" in note]
        if task == "pocket_data_to_text":
            assert result.data.unwritable_targets == rows
            assert [note.partition(":")[0] for note in said] == ["training", "test"]
        else:
            # Ranked choices are answered letter for letter.
            assert not said


def test_labels_that_a_tokenizer_does_not_tell_apart_refuse_the_run(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(tiny_models["llama"], tmp_path / "model")
    made = tokenizer(template=CHATML)
    made.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    made.save_pretrained(tmp_path / "model")
    data = tmp_path / "rows.csv"
    data.write_text("text,verdict\n" + "".join(f"row {i},{'pâté' if i % 2 else 'pate'}\n" for i in range(40)))
    entry = {"data": str(data), "fields": ["text"], "target": "verdict", "labels": ["pate", "pâté"]}
    (spec,) = expand({"models": [str(tmp_path / "model")], "methods": ["none"], "tasks": [entry], "sizes": [8]})
    result, _ = run(spec, Worker(), tmp_path, lambda _: None)
    assert result.status == "refused"
    assert "does not tell the choices 'pate' and 'pâté' apart" in str(result.error)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="the odd models are made by a script beside the repository")
def test_odd_models_run_or_are_refused_in_a_line(tmp_path: Path) -> None:
    script = SHARED / "cases" / "models" / "odd_models.py"
    subprocess.run(
        [sys.executable, str(script)], env={**os.environ, "CASES_OUT": str(tmp_path)}, check=True, capture_output=True
    )
    models = [path for path in sorted((tmp_path / "odd").iterdir()) if path.name.startswith(("chat", *PLAIN))]
    grid = {"models": [str(path) for path in models], "methods": ["none"], "tasks": ["pocket_data_to_text"]}
    (tmp_path / "grid.toml").write_text(
        "".join(f"{key} = {json.dumps(value)}\n" for key, value in grid.items())
        + "sizes = [8]\n[eval]\ntest_rows = 2\n"
    )
    command = [sys.executable, "-m", "peftbench", "run", str(tmp_path / "grid.toml"), "--store", str(tmp_path / "s")]
    subprocess.run(command, check=False, capture_output=True)
    results = {path.parents[3].name: json.loads(path.read_text()) for path in (tmp_path / "s").rglob("result.json")}
    assert set(results) == {path.name for path in models}
    for name, result in results.items():
        if name in UNUSABLE:
            assert result["status"] in ("refused", "failed"), name
            assert UNUSABLE[name] in result["error"]
            assert "\n" not in result["error"]
        else:
            assert result["status"] == "ok", (name, result.get("error"))
            expected = {"chat_template": "default"} if name.startswith("chat") else {}
            assert result["data"]["prompt_form"] == expected | FORMS.get(name, {})


PLAIN = ("adds_eos", "bos", "byt5", "more_", "no_eos", "no_pad", "pad_is_eos")
UNUSABLE = {"chat_dict_no_default": "none is called default", "no_eos": "no end-of-sequence token"}
FORMS = {"chat_needs_system": {"system_turn": "empty"}, "chat_parts": {"content": "parts"}}
