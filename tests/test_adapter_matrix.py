"""Adapters that peft alone saved give the logits and answers of `PeftModel.from_pretrained`, merged or not.

Every type of the installed library, and every option of its configuration that is not refused.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import SHARED
from peftbench.checks import tiny_models as tiny
from peftbench.core.registry import UserError
from peftbench.engine.base_model import Base
from peftbench.engine.decode_strategy import choose
from peftbench.engine.generation import answers_in_order, generate
from peftbench.engine.merging import decide
from peftbench.engine.tokenization import Encoded
from peftbench.methods import METHODS, Adapted
from peftbench.methods._peft_types import REFUSED, types
from peftbench.models import find
from test_peft_options import INERT, ONE_BY_ONE, other_values, own_options

NOISE, MERGED = 3e-5, 1e-4
"""Differences of a logit that rounding explains, as shares of the largest: of two forward passes, and of merging."""
ROWS = [
    Encoded([5, 6, 7], [8, 1]),
    Encoded([9, 30, 31, 12, 40, 5, 77], [6, 1]),
    Encoded([60, 61, 62, 63, 64, 65, 66, 67, 68, 30, 31], [7, 1]),
]
"""Some of whose tokens are those that adapters train."""
TOKENS = 3


def plain_model(base: Base) -> Any:
    return base.shape.auto.from_pretrained(base.ref.source).eval()


def saved_by_peft(base: Base, config: Any, folder: Path, steps: int = 0) -> Path:
    """An adapter with weights that change the answers; `steps` of training first, where its type works by them."""
    from peft import get_peft_model

    torch.manual_seed(0)
    model = get_peft_model(plain_model(base), config)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for step in range(steps):
        ids = torch.randint(5, 1000, (2, 8))
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        model.base_model.update_and_allocate(step)
        optimizer.zero_grad()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and not steps and "ranknum" not in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(str(folder))
    return folder


def theirs(base: Base, folder: Path) -> Callable[[Sequence[int], Sequence[int]], Tensor]:
    """Logits [vocabulary] after a prompt and the beginning of its answer, by the library, without cache and padding."""
    from peft import PeftModel

    model = PeftModel.from_pretrained(plain_model(base), str(folder)).eval()
    more = {}
    if str(model.active_peft_config.peft_type) in ("PeftType.POLY", "PeftType.MULTITASK_PROMPT_TUNING"):
        more["task_ids"] = torch.zeros(1, dtype=torch.long)

    @torch.no_grad()
    def logits(prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
        apart = base.config.is_encoder_decoder
        text = torch.tensor([[*prompt] if apart else [*prompt, *answer]])
        inputs = {"input_ids": text, "attention_mask": torch.ones_like(text), **more}
        if apart:
            inputs["decoder_input_ids"] = torch.tensor([[base.config.decoder_start_token_id, *answer]])
        found: Tensor = model(**inputs).logits[0, -1]
        return found

    return logits


def greedy(logits: Callable[[Sequence[int], Sequence[int]], Tensor], prompt: Sequence[int], ends: Sequence[int]) -> Any:
    found: list[int] = []
    while len(found) < TOKENS:
        token = int(logits(prompt, found).argmax())
        if token in ends:
            break
        found.append(token)
    return found


def answers_of(model: Adapted, base: Base, batch: list[Encoded], cached: bool) -> list[list[int]]:
    return generate(model, batch, base.ends, TOKENS, cached)


def compare(base: Base, folder: Path) -> str:
    """How an adapter is answered, `merged` or `unmerged`; fails unless both ways give what the library gives."""
    unit = METHODS["saved"]
    adapted: Adapted = unit.function(base.model, folder=str(folder), any_base=True)
    try:
        expected = theirs(base, folder)
        right = torch.stack([expected(row.prompt, []) for row in ROWS])
        answers = [greedy(expected, row.prompt, base.ends) for row in ROWS]
        ready, found = decide(adapted, base, ROWS)
        for model, noise in ((adapted, NOISE), (ready, MERGED)):
            model.model.eval()
            merge = model.merge if model is ready else None
            with merge() if merge is not None else nullcontext(), torch.no_grad():
                ours = torch.cat([base.shape.read(model, [row.prompt])[0] for row in ROWS])
                how = choose(model, ROWS, ranked=False, exact=base.exact)
                said = answers_in_order(ROWS, how, len(ROWS), partial(answers_of, model, base))
            apart = float((ours - right).abs().max() / right.abs().max())
            assert apart < noise, f"{'merged' if merge else 'unmerged'}: {apart:.1e}"
            assert said == answers
        return "merged" if found is not None and found.exact else "unmerged"
    finally:
        if adapted.remove is not None:
            adapted.remove()
        base.restore()


@pytest.fixture(scope="module")
def bases(
    tiny_models: dict[str, Path], tiny_seq2seq: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Base]:
    """A Llama with biases; a Qwen whose embeddings are tied; a GPT-2, whose layers are Conv1D; a T5."""
    places = {"llama": tiny.build_tiny("decoder", tmp_path_factory.mktemp("matrix")), "t5": tiny_seq2seq["t5"]}
    places |= {"tied": tiny_models["qwen"], "gpt2": tiny_models["gpt2"], "plain": tiny_models["llama"]}
    return {name: Base(find(str(place)), "fp32") for name, place in places.items()}


def lora(**options: Any) -> Any:
    from peft import LoraConfig

    asked: dict[str, Any] = {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
    return LoraConfig(**asked | options)


def of(kind: str, **options: Any) -> Any:
    from peftbench.methods._peft_types import config_class

    return config_class(kind)(**options)


QV = ["q_proj", "v_proj"]
PROMPT = {"num_virtual_tokens": 4, "encoder_hidden_size": 8, "task_type": "CAUSAL_LM"}
SOME: dict[str, tuple[str, Callable[[], Any], str]] = {
    "patterns": ("llama", lambda: lora(rank_pattern={"q_proj": 2}, alpha_pattern={"v_proj": 3}), "merged"),
    "biases": ("tied", lambda: lora(bias="all", use_rslora=True), "merged"),
    "whole layers, tied": ("tied", lambda: lora(modules_to_save=["embed_tokens", "lm_head"]), "merged"),
    "tokens, tied": ("tied", lambda: lora(trainable_token_indices=[5, 6, 7]), "merged"),
    "head, tied": ("tied", lambda: lora(target_modules=["q_proj", "lm_head"]), "unmerged"),
    "embeddings, tied": ("tied", lambda: lora(target_modules=["q_proj", "embed_tokens"]), "unmerged"),
    "dora, turned": ("gpt2", lambda: lora(use_dora=True, target_modules=["c_attn"], fan_in_fan_out=True), "merged"),
    "pissa": ("plain", lambda: lora(init_lora_weights="pissa"), "merged"),
    "lora bias, none there": ("plain", lambda: lora(lora_bias=True), "unmerged"),
    "replicated layers": ("plain", lambda: lora(layer_replication=[[0, 2], [1, 2]]), "unmerged"),
    "projection left out": ("plain", lambda: of("VERA", r=4, target_modules=QV, save_projection=False), "merged"),
    "top weights": (
        "plain",
        lambda: of("VBLORA", num_vectors=16, vector_length=16, target_modules=QV, save_only_topk_weights=True),
        "merged",
    ),
    "prefix": (
        "plain",
        lambda: of("PREFIX_TUNING", prefix_projection=True, **PROMPT),
        "unmerged",
    ),
}
"""A base, a configuration, and how it is answered."""


@pytest.mark.parametrize("name", SOME)
def test_some_adapters(name: str, bases: dict[str, Base], tmp_path: Path) -> None:
    model, config, answered = SOME[name]
    base = bases[model]
    assert compare(base, saved_by_peft(base, config(), tmp_path / "a")) == answered


def test_adalora_as_training_by_peft_leaves_it(bases: dict[str, Base], tmp_path: Path) -> None:
    """With the ranks of its end in the configuration, and its tensors of these ranks."""
    import json

    config = of("ADALORA", init_r=6, target_r=2, tinit=1, tfinal=2, total_step=8, target_modules=QV)
    folder = saved_by_peft(bases["plain"], config, tmp_path / "a", steps=8)
    assert json.loads((folder / "adapter_config.json").read_text())["rank_pattern"]
    assert compare(bases["plain"], folder) == "merged"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (lambda: lora(alora_invocation_tokens=[5, 6], task_type="CAUSAL_LM"), "alora_invocation_tokens: its adapter"),
        (lambda: lora(init_lora_weights="pissa"), "init_lora_weights = corda changed its base"),
    ],
)
def test_what_would_be_left_out_is_refused(
    config: Callable[[], Any], said: str, bases: dict[str, Base], tmp_path: Path
) -> None:
    folder = saved_by_peft(bases["plain"], config(), tmp_path / "a")
    if "corda" in said:
        file = folder / "adapter_config.json"
        file.write_text(file.read_text().replace('"pissa"', '"corda"'))
    with pytest.raises(UserError, match=said) as problem:
        compare(bases["plain"], folder)
    assert "\n" not in str(problem.value)
    assert bases["plain"].restore() is False


def config_of(base: Base, kind: str, arguments: dict[str, Any]) -> Any:
    """The configuration that a method of ours would give the library for these arguments."""
    places = {"TOKENIZER": base.ref.source, "OTHER": find("pocket-t5").source, "MODEL": base.ref.source}
    given = {name: places.get(value, value) if isinstance(value, str) else value for name, value in arguments.items()}
    given.pop("STEPS", None)
    unit = METHODS[f"peft:{kind.lower()}"]
    adapted: Adapted = unit.function(base.model, **unit.check(given))
    config = adapted.model.active_peft_config
    if adapted.remove is not None:
        adapted.remove()
    base.restore()
    return config


def cases(kind: str) -> list[dict[str, Any]]:
    """The defaults of a type, and each option with another value."""
    found: list[dict[str, Any]] = [{}]
    for name in own_options(kind):
        if ("*", name) in INERT and name not in ("save_projection", "fan_in_fan_out"):
            continue
        if (kind, name) in INERT and not name.startswith("save_"):
            continue
        if (kind, name) in INERT or ("*", name) in INERT:
            default = METHODS[f"peft:{kind.lower()}"].parameters[name].default
            found.append({name: not default})
            continue
        known = ONE_BY_ONE.get(kind, {}).get(name)
        found += [context | {name: value} for context, value in ([known] if known else other_values(kind, name))]
    return found


NO_ORACLE = {
    ("MULTITASK_PROMPT_TUNING", "t5"): "the library's own forward pass gives T5 ids and embeddings, which it refuses"
}
"""Where there is nothing to compare with."""


@pytest.mark.slow
@pytest.mark.parametrize("model", ["llama", "t5"])
@pytest.mark.parametrize("kind", [kind.upper() for kind in types() if kind.upper() not in REFUSED])
def test_every_type_with_every_option(kind: str, model: str, bases: dict[str, Base], tmp_path: Path) -> None:
    """On an encoder–decoder the defaults alone."""
    if reason := NO_ORACLE.get((kind, model)):
        pytest.skip(reason)
    problems, done = [], 0
    for number, arguments in enumerate(cases(kind)[: 1 if model == "t5" else None]):
        base = bases["tied" if "ensure_weight_tying" in arguments else model]
        try:
            config = config_of(base, kind, arguments)
        except UserError:
            continue
        try:
            compare(base, saved_by_peft(base, config, tmp_path / str(number)))
            done += 1
        except Exception as error:
            problems.append(f"{arguments}: {type(error).__name__}: {str(error)[:300]}")
    assert not problems, "\n".join(problems)
    assert done or model == "t5"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and adapters of the scripts that stand beside the repository."""
    folder, scripts = tmp_path_factory.mktemp("cases"), SHARED / "cases" / "models"
    if not scripts.is_dir():
        pytest.skip("the cases beside the repository are not there")
    environment = {**os.environ, "CASES_OUT": str(folder), "PYTHONPATH": str(scripts)}

    def python(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    code = "import make_adapters as m; print(*sorted({model for model, _ in m.CASES.values()}))"
    python(str(scripts / "make_models.py"), *python("-c", code).split())
    python(str(scripts / "make_adapters.py"))
    return folder


@pytest.mark.slow
def test_adapters_of_users(made: Path) -> None:
    """All those that were made: as the library has them, or refused in a line."""
    folders = sorted((made / "adapters").iterdir())
    assert len(folders) > 50
    bases: dict[str, Base] = {}
    found: dict[str, str] = {}
    for folder in folders:
        model = (folder / "base.txt").read_text()
        base = bases.setdefault(model, Base(find(str(made / "models" / model)), "fp32"))
        try:
            found[folder.name] = compare(base, folder)
        except UserError as reason:
            found[folder.name] = f"refused: {reason}"
        except AssertionError as problem:
            raise AssertionError(f"{folder.name}: {problem}") from problem
    refused = {name: how for name, how in found.items() if how.startswith("refused: ")}
    assert refused.keys() == {"alora"}
    assert "\n" not in "".join(refused.values())
    assert {name for name, how in found.items() if how == "unmerged"} >= {"replicate", "lora_bias", "prompt", "poly"}
    assert {"lora_plain", "dora_gpt2", "experts", "vera", "hra", "bias_all"} <= {
        name for name, how in found.items() if how == "merged"
    }
