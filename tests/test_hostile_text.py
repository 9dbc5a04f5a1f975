"""Names, errors and files of others: what they hold is shown, never obeyed, and a broken file is one line."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from made_store import failed, result, store
from peftbench.core.registry import UserError
from peftbench.core.spec import Choice, RunResult
from peftbench.methods._saved_files import examine
from peftbench.report.figures import runtime
from test_cli import assert_one_line, call

EVIL = "\x1b[2J\x1b]0;pwned\x07[red]\x9b31m \u202eabc\r:bug:"
PLAIN = r"\x1b[2J\x1b]0;pwned\x07[red]\x9b31m \u202eabc\r:bug:"
CONTROLS = {chr(n) for n in (*range(32), *range(127, 160))} - {"\n"} | set("\u202e\u2028")


def hostile(method: str, seed: int = 0, **more: Any) -> RunResult:
    made = result(method, seed=seed, model=Choice(name=f"/tmp/{EVIL}"), **more)
    return made.model_copy(update={"notes": (EVIL,)})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile") / "results"
    lost = failed(f"x{EVIL}", error=EVIL, model=Choice(name=f"/tmp/{EVIL}"))
    store(root, *[hostile(f"=cmd{EVIL}", seed) for seed in (0, 1)], *[hostile("lora", seed) for seed in (0, 1)], lost)
    return root


@pytest.mark.parametrize("verb", ["status", "list runs", "report", "export"])
def test_no_verb_prints_a_control_character(verb: str, place: Path, tmp_path: Path) -> None:
    options = {"report": ("--out", tmp_path), "export": ("--to", tmp_path / "runs.csv")}.get(verb, ())
    done = call(*verb.split(), "--store", place, *options)
    assert done.code == 0, done.err
    assert not CONTROLS & set(done.out + done.err)
    assert verb == "export" or PLAIN in done.out, "and markup and emoji are text"
    as_json = call(*verb.split(), "--store", place, *options, "--json")
    assert not CONTROLS & set(as_json.out)
    assert verb == "export" or EVIL in _texts(as_json.json), "programs get what is there"
    for path in tmp_path.iterdir():
        # What draws the figures is no text of others.
        text = path.read_text("utf-8").replace(runtime(), "")
        assert not (CONTROLS - {"\r"}) & set(text), path
        assert "pwned" in text


def _texts(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(map(_texts, value.values()))
    return " ".join(map(_texts, value)) if isinstance(value, list) else str(value)


def test_a_spreadsheet_runs_no_name(place: Path, tmp_path: Path) -> None:
    assert call("export", "--to", tmp_path / "runs.csv", "--store", place).code == 0
    assert call("report", "--out", tmp_path, "--store", place).code == 0
    for name in ("runs.csv", "leaderboard.csv"):
        rows = list(csv.DictReader((tmp_path / name).open(newline="")))
        assert any(row["method"].startswith("'=cmd") for row in rows)
        for row in rows:
            for text in row.values():
                assert not text.startswith(("=", "@", "\t", "\r")), text
                assert not text.startswith(("+", "-")) or float(text) is not None


def test_latex_of_hostile_names(place: Path, tmp_path: Path) -> None:
    assert call("export", "--to", tmp_path / "runs.tex", "--store", place).code == 0
    text = (tmp_path / "runs.tex").read_text("utf-8")
    assert not CONTROLS & set(text)
    assert r"\textbackslash{}x1b" in text


def test_an_error_is_one_line_without_control_characters(tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_text('methods = ["lo\\u001b[31m\\nrra"]\ntasks = ["rte"]\n')
    assert_one_line(call("plan", tmp_path / "g.toml", "--no-costs"), r"unknown method 'lo\x1b[31m\nrra'")
    assert_one_line(call("show", "lorr\x1b[0m"), r"\x1b[0m")


BROKEN: dict[str, str | bytes] = {
    "a list": "[1, 2]",
    "a number": "7",
    "a text": '"x"',
    "null": "null",
    "no JSON": "{",
    "no UTF-8": b"\xff\xfe",
    "deep": "[" * 100_000,
    "wrong types": '{"run": 1, "method": "lora", "base_model_name_or_path": ["x"]}',
    "wrong values": '{"run": "x", "seed": "y", "method": {"name": 3}, "base_model_name_or_path": {"a": 1}}',
    "incomplete": '{"run": "x", "base_model_name_or_path": 3}',
}


@pytest.mark.parametrize("file", ["adapter_config.json", "peftbench.json"])
@pytest.mark.parametrize("kind", BROKEN)
def test_a_malformed_file_of_an_adapter_is_one_line(kind: str, file: str, tmp_path: Path) -> None:
    content = BROKEN[kind]
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "pocket", "peft_type": "LORA"}')
    (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        examine(tmp_path)
    assert file in str(error.value)
    assert "\n" not in str(error.value)
    assert "Input should" not in str(error.value)
    if kind == "a list":
        given = ("--adapter", tmp_path, "--model", "pocket", "--tasks", "pocket_topic", "--store", tmp_path / "r")
        assert_one_line(call("evaluate", *given), file)


@pytest.mark.parametrize("kind", [None, "NOPE", ["LORA"]])
def test_an_adapter_of_no_type_is_one_line(kind: Any, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": kind}))
    given = ("--adapter", tmp_path, "--model", "pocket", "--tasks", "pocket_topic", "--store", tmp_path / "r")
    assert_one_line(call("evaluate", *given), "peft_type")


@pytest.mark.parametrize("content", ["[]", "{", "[" * 100_000, "3"])
def test_a_malformed_config_of_a_model_is_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text(content)
    (tmp_path / "g.toml").write_text('methods = ["none"]\ntasks = ["pocket_topic"]\n')
    assert_one_line(call("plan", tmp_path / "g.toml", "--model", tmp_path / "m", "--no-costs"), "its config.json")


SAVE = """
import sys
from pathlib import Path
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM
from peftbench.methods._peft_model import with_peft
from peftbench.models import fingerprint

model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
torch.manual_seed(0)
config = LoraConfig(target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj", "gate_proj"])
adapted = with_peft(model, config)
Path(sys.argv[2]).mkdir()
adapted.save(Path(sys.argv[2]))
print(fingerprint(Path(sys.argv[2])))
"""


@pytest.mark.slow
def test_what_is_saved_is_the_same_in_every_process(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """Python's order of a set of texts is by a hash that differs from process to process."""
    found = [
        subprocess.run(
            [sys.executable, "-c", SAVE, str(tiny_models["llama"]), str(tmp_path / seed)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert found[0] == found[1]
    held = json.loads((tmp_path / "1" / "adapter_config.json").read_text())["target_modules"]
    assert held == sorted(held)
    assert len(held) == 7
