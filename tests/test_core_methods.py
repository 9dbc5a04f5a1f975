"""What is particular to each method, against closed forms, dense matrices and the library's own numbers."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import peftbench
from peftbench.core.registry import UserError
from peftbench.core.seeds import stream
from peftbench.core.spec import Choice
from peftbench.engine.base_integrity import model_checksum
from peftbench.engine.base_model import Base
from peftbench.engine.checkpoint import load_checkpoint, save_checkpoint
from peftbench.engine.known_before_training import model_inputs
from peftbench.engine.merging import exactly
from peftbench.engine.phase_meter import Meter
from peftbench.engine.tokenization import Encoded
from peftbench.engine.train import Trainer, summed_loss
from peftbench.methods import METHODS, Adapted, TrainingContext
from peftbench.models import find
from test_methods import TRAINING, finish, logits, rows

LLAMA_3_8B = {"wide": 4096, "kv": 1024, "mlp": 14336, "layers": 32}


@pytest.fixture(scope="module")
def bases(tiny_models: dict[str, Path]) -> dict[str, Base]:
    return {name: Base(find(str(folder)), "fp32") for name, folder in tiny_models.items()}


def apply(base: Base, method: str, seed: int = 0, **arguments: Any) -> Adapted:
    torch.manual_seed(stream(seed, "init"))
    adapted: Adapted = METHODS[method].function(base.model, **arguments)
    return adapted


def trainer(adapted: Adapted, rate: float = 1e-2, **asked: Any) -> Trainer:
    return Trainer(adapted, TRAINING.model_copy(update=asked), rate, "fp32", seed=0)


def trained(adapted: Adapted) -> dict[str, torch.Tensor]:
    return {name: p for name, p in adapted.model.named_parameters() if p.requires_grad}


def fit(adapted: Adapted, base: Base, **asked: Any) -> Trainer:
    done = trainer(adapted, **asked)
    done.fit(rows(base), rows(base)[:8], Meter(), lambda _event: None)
    return done


# Counts


@pytest.mark.slow
def test_parameters_on_llama_3_8b() -> None:
    wide, kv, mlp, layers = LLAMA_3_8B.values()
    every = ("q", "k", "v", "o", "gate", "up", "down")
    # The row of DoRA in the list of known-good counts: 43,319,296.
    lengths = 2 * wide + 2 * kv + 2 * mlp + wide
    low_rank = 16 * (4 * wide + 2 * (wide + kv) + 3 * (wide + mlp))
    found = peftbench.estimate("llama-3-8b", "dora", modules=every).trainable_parameters
    assert found == layers * (lengths + low_rank) == 43_319_296
    band = 2 * (3 * kv - 2) + (3 * wide - 2)
    assert peftbench.estimate("llama-3-8b", "svft").trainable_parameters == layers * band
    half = peftbench.estimate("llama-3-8b", "pissa", layers="first-half").trainable_parameters
    assert half == 14_680_064 / 2


@pytest.mark.slow
def test_parameters_of_other_published_settings() -> None:
    """AdaLoRA on Llama-2-7B (q, v, rank 12), LoRA on T5-base (q, v, rank 8), all biases of Qwen2.5-7B."""
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    llama = AutoConfig.for_model("llama", hidden_size=4096, intermediate_size=11008, vocab_size=32000)
    found = peftbench.estimate(llama, "adalora", initial_rank=12, rank=8, modules=["q", "v"])
    assert found.trainable_parameters == 6_292_224
    facts = {"hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4}
    qwen = AutoConfig.for_model("qwen2", intermediate_size=18944, vocab_size=152064, **facts)
    assert peftbench.estimate(qwen, "bitfit").trainable_parameters == 129_024
    t5 = AutoConfig.for_model("t5", d_model=768, d_ff=3072, num_layers=12, num_heads=12, vocab_size=32128)
    with torch.device("meta"):
        network = AutoModelForSeq2SeqLM.from_config(t5).requires_grad_(False)
        adapted = METHODS["lora"].function(network, rank=8, modules=["q", "v"])
    assert sum(p.numel() for p in trained(adapted).values()) == 884_736


# LoRA and its variants


def test_rslora_is_lora_with_alpha_over_the_root_of_the_rank(bases: dict[str, Base]) -> None:
    base, found = bases["llama"], []
    for method, alpha in (("rslora", 16), ("lora", 32)):
        adapted = apply(base, method, rank=4, alpha=alpha, dropout=0.0)
        fit(adapted, base, max_steps=3)
        found.append(logits(adapted, rows(base)[:4]))
        finish(base, adapted)
    assert torch.equal(*found)


def test_dora_trains_a_length_of_each_output(bases: dict[str, Base]) -> None:
    adapted = apply(bases["llama"], "dora", rank=2, modules=["v", "down"])
    lengths = {name: p for name, p in trained(adapted).items() if "magnitude" in name}
    for name, length in lengths.items():
        weight = bases["llama"].model.get_submodule(name.split("model.", 2)[2].split(".lora_")[0]).weight
        assert torch.allclose(length, weight.norm(dim=1))
    assert sorted(len(length) for length in lengths.values()) == [32, 32, 64, 64]
    finish(bases["llama"], adapted)


def test_loraplus_has_two_rates(bases: dict[str, Base]) -> None:
    base = bases["llama"]
    adapted = apply(base, "loraplus", rank=2, ratio=8.0)
    optimizer, scheduler = trainer(adapted, 1e-3, warmup_steps=0.5).optimizer(10)
    rates = {id(p): group["initial_lr"] for group in optimizer.param_groups for p in group["params"]}
    expected = {id(p): 8e-3 if "lora_B" in name else 1e-3 for name, p in trained(adapted).items()}
    assert rates == pytest.approx(expected)
    optimizer.step()
    scheduler.step()
    slow, fast = (group["lr"] for group in optimizer.param_groups)
    assert 0 < fast < 8e-3
    assert fast == pytest.approx(8 * slow)
    finish(base, adapted)


def test_loraplus_of_ratio_1_is_lora(bases: dict[str, Base]) -> None:
    base, found = bases["llama"], []
    cases: list[tuple[str, dict[str, Any]]] = [("lora", {}), ("loraplus", {"ratio": 1.0}), ("loraplus", {"ratio": 4.0})]
    for method, arguments in cases:
        adapted = apply(base, method, rank=2, **arguments)
        fit(adapted, base, max_steps=4)
        found.append(logits(adapted, rows(base)[:4]))
        finish(base, adapted)
    assert torch.allclose(found[0], found[1], atol=1e-6)
    assert not torch.allclose(found[0], found[2], atol=1e-3)


@pytest.mark.parametrize(("method", "model"), [("pissa", "llama"), ("pissa", "gpt2"), ("olora", "llama")])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_starts_that_change_the_base(
    method: str, model: str, precision: Any, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    """The base holds the rest meanwhile and is given back; its adapter needs but the clean base, elsewhere too."""
    from peft import PeftModel

    base = Base(find(str(tiny_models[model])), precision)
    before, data = model_checksum(base.model), rows(base)
    host = "transformer.h.0.mlp.c_proj" if model == "gpt2" else "model.layers.0.mlp.down_proj"
    whole = base.model.get_submodule(host).weight.detach().clone()
    adapted = apply(base, method, rank=4, alpha=8)
    layer = adapted.network.get_submodule(host)
    assert not torch.equal(layer.get_base_layer().weight, whole)
    together = layer.get_base_layer().weight + layer.get_delta_weight("default")
    assert torch.allclose(together, whole.float(), atol=1e-6 if precision == "fp32" else 2e-2)
    asked = TRAINING.model_copy(update={"max_steps": 3})
    Trainer(adapted, asked, 1e-3, precision, 0).fit(data, data[:8], Meter(), lambda _event: None)

    def answers(adapted: Adapted) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return logits(adapted, data[:4])

    best = answers(adapted)
    save_checkpoint(adapted, tmp_path / "adapter")
    assert finish(base, adapted) is False
    assert model_checksum(base.model) == before
    again = load_checkpoint(base, Choice(name=method), tmp_path / "adapter")
    assert torch.equal(answers(again), best)
    assert finish(base, again) is False
    assert model_checksum(base.model) == before
    elsewhere = PeftModel.from_pretrained(base.model, str(tmp_path / "adapter"))
    assert torch.equal(answers(Adapted(elsewhere, elsewhere.get_base_model())), best)


def test_olora_starts_orthonormal_and_says_what_it_cannot_do(bases: dict[str, Base]) -> None:
    adapted = apply(bases["llama"], "olora", rank=4)
    for name, matrix in trained(adapted).items():
        if "lora_B" in name:
            assert torch.allclose(matrix.T @ matrix, torch.eye(4), atol=1e-5)
    finish(bases["llama"], adapted)
    with pytest.raises(UserError, match=r"Linear layers only.*c_attn is a Conv1D"):
        apply(bases["gpt2"], "olora")
    with pytest.raises(UserError, match=r"rank 33 is more than .*k_proj has, 32"):
        apply(bases["llama"], "olora", rank=33)


# AdaLoRA


def ranks(adapted: Adapted) -> int:
    """Singular values that are not zero."""
    return sum(int(p.count_nonzero()) for name, p in trained(adapted).items() if "lora_E" in name)


def test_the_budget_of_adalora_falls(bases: dict[str, Base], tmp_path: Path) -> None:
    base = bases["llama"]
    data = rows(base)
    adapted = apply(base, "adalora", rank=2, initial_rank=6, start=0.2, final=0.3)
    step, seen = adapted.after_step, []
    assert step is not None

    def watched(number: int) -> None:
        step(number)
        seen.append(ranks(adapted))

    adapted.after_step = watched
    fit(adapted, base, max_steps=20)
    matrices = 2 * 3
    assert len(seen) == 20
    # A fifth of the steps at the first rank, then as the cube of what remains, then at the last.
    asked = [6 * matrices] * 4 + [int((4 * (1 - (n - 4) / 10) ** 3 + 2) * matrices) for n in range(5, 15)]
    assert seen == [*asked, *[2 * matrices] * 6]
    # Whatever step was the best, it is what is saved, and what is merged.
    best = logits(adapted, data[:4])
    assert adapted.merge is not None
    with exactly(adapted, adapted.merge):
        assert torch.allclose(logits(adapted, data[:4]), best, atol=1e-4)
    save_checkpoint(adapted, tmp_path / "adapter")
    finish(base, adapted)
    again = load_checkpoint(base, Choice(name="adalora"), tmp_path / "adapter")
    assert torch.allclose(logits(again, data[:4]), best, atol=1e-6)
    finish(base, again)


def test_a_best_step_before_the_last_ranks_is_saved_whole(bases: dict[str, Base], tmp_path: Path) -> None:
    base = bases["llama"]
    data = rows(base)
    adapted = apply(base, "adalora", rank=1, initial_rank=4)
    fit(adapted, base, max_steps=10)
    for name, p in trained(adapted).items():
        if "lora_E" in name:
            torch.nn.init.constant_(p, 0.3)
    best = logits(adapted, data[:4])
    save_checkpoint(adapted, tmp_path / "adapter")
    finish(base, adapted)
    again = load_checkpoint(base, Choice(name="adalora"), tmp_path / "adapter")
    assert torch.allclose(logits(again, data[:4]), best, atol=1e-6)
    finish(base, again)


def test_the_penalty_of_adalora_is_the_librarys(bases: dict[str, Base]) -> None:
    base = bases["llama"]
    adapted = apply(base, "adalora", rank=2, initial_rank=4, orthogonality=0.3)
    inputs = model_inputs(base.model, rows(base)[:4])
    adapted.model.eval()
    with torch.no_grad():
        added = adapted.model.base_model(**inputs).loss - adapted.network(**inputs).loss
        assert adapted.penalty is not None
        assert float(adapted.penalty()) == pytest.approx(float(added), rel=1e-5)
    finish(base, adapted)


@pytest.mark.parametrize("steps", [2, 3, 5])
def test_adalora_in_few_steps(steps: int, bases: dict[str, Base]) -> None:
    adapted = apply(bases["llama"], "adalora", rank=2, initial_rank=4)
    fit(adapted, bases["llama"], max_steps=steps, eval_steps=float(steps))
    assert ranks(adapted) == 2 * 2 * 3
    finish(bases["llama"], adapted)


def test_adalora_says_what_it_cannot_do(bases: dict[str, Base]) -> None:
    for wrong in ({"rank": 12}, {"start": 0.6}, {"start": -0.1}, {"rank": 0}):
        with pytest.raises(UserError, match="rank must be less than initial_rank, and start and final"):
            apply(bases["llama"], "adalora", **wrong)
    adapted = apply(bases["llama"], "adalora")
    with pytest.raises(UserError, match="at least 2 steps"):
        fit(adapted, bases["llama"], max_steps=1)
    finish(bases["llama"], adapted)


# SVFT


@pytest.mark.parametrize(("model", "module"), [("llama", "model.layers.0.mlp.down_proj"), ("gpt2", "h.0.attn.c_attn")])
@pytest.mark.parametrize("reach", [0, 1, 3, 200])
def test_svft_is_the_dense_product(model: str, module: str, reach: int, bases: dict[str, Base]) -> None:
    """U (S + M) V' with M made dense by hand; 200 diagonals are all there are."""
    base = bases[model]
    host = base.model.get_submodule(module if model == "llama" else f"transformer.{module}")
    whole = host.weight.detach().clone()
    adapted = apply(base, "svft", modules=[module], off_diagonal=reach)
    diagonals = list(host.svft)
    for diagonal in diagonals:
        torch.nn.init.normal_(diagonal)
    weight = whole if model == "llama" else whole.T
    u, s, vt = torch.linalg.svd(weight, full_matrices=False)
    sign = torch.sign((u * host.svft.u).sum(0))
    u, vt, k = u * sign, vt * sign[:, None], len(s)
    m = sum(torch.diag(diagonal, len(diagonal) - k if i < len(diagonals) // 2 else k - len(diagonal))
            for i, diagonal in enumerate(diagonals))  # fmt: skip
    assert sum(map(len, diagonals)) == sum(k - abs(i) for i in range(-reach, reach + 1) if abs(i) < k)
    dense = u @ (torch.diag(s) + m) @ vt
    x = torch.randn(2, 5, weight.shape[1])
    expected = x @ dense.T + (0 if host.bias is None else host.bias)
    assert torch.allclose(host(x), expected, atol=2e-3, rtol=1e-3)
    assert adapted.merge is not None
    with adapted.merge():
        merged = host.weight if model == "llama" else host.weight.T
        assert torch.allclose(merged, dense, atol=1e-4)
        assert torch.allclose(host(x), expected, atol=2e-3, rtol=1e-3)
    assert torch.equal(host.weight, whole)
    assert finish(base, adapted) is False


def test_signs_of_singular_vectors_make_no_difference(bases: dict[str, Base], monkeypatch: pytest.MonkeyPatch) -> None:
    base, found = bases["llama"], []
    usual = torch.linalg.svd

    def turned(matrix: torch.Tensor, full_matrices: bool) -> Any:
        u, s, vt = usual(matrix, full_matrices=full_matrices)
        signs = torch.tensor([1.0, -1.0]).repeat(len(s))[: len(s)]
        return u * signs, s, vt * signs[:, None]

    for svd in (usual, turned):
        monkeypatch.setattr(torch.linalg, "svd", svd)
        adapted = apply(base, "svft")
        for number, p in enumerate(trained(adapted).values()):
            torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(number))
        found.append(logits(adapted, rows(base)[:4]))
        finish(base, adapted)
    assert torch.equal(*found)


# The model's own weights


def test_layers_trains_its_choice_and_gives_it_back(bases: dict[str, Base]) -> None:
    base = bases["llama"]
    before = model_checksum(base.model)
    for arguments, expected in (
        ({}, {"model.layers.1."}),
        ({"layers": [0]}, {"model.layers.0."}),
        ({"layers": "all", "modules": "mlp"}, {"model.layers.0.mlp.", "model.layers.1.mlp."}),
    ):
        adapted = apply(base, "layers", **arguments)
        assert {name for name, _ in base.model.named_parameters() if name.startswith(tuple(expected))} == set(
            trained(adapted)
        )
        fit(adapted, base, max_steps=2)
        assert model_checksum(base.model) != before
        assert finish(base, adapted) is False
        assert model_checksum(base.model) == before
    adapted = apply(base, "layers", layers="all", modules="mlp")
    assert sum(p.numel() for p in trained(adapted).values()) == 2 * 3 * 64 * 96
    finish(base, adapted)


@pytest.mark.parametrize(
    ("model", "arguments", "ends", "count", "note"),
    [
        ("gpt2", {}, {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj", "ln_1", "ln_2", "ln_f"}, 17 - 4, ""),
        ("gpt2", {"layers": [0]}, {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj", "ln_1", "ln_2"}, 6, ""),
        ("gpt2", {"modules": "mlp"}, {"mlp.c_fc", "mlp.c_proj"}, 4, ""),
        ("qwen", {}, {"q_proj", "k_proj", "v_proj"}, 6, ""),
        ("qwen", {"modules": ["q", "o"]}, {"q_proj", "o_proj"}, 4, "2 of the chosen layers have no biases: 2 zero"),
        ("llama", {}, {"q_proj", "v_proj"}, 4, "the model has no biases: 4 zero biases were added"),
        ("llama", {"modules": "mlp", "layers": "last-half"}, {"gate_proj", "up_proj", "down_proj"}, 3, "no biases"),
    ],
)
def test_biases(
    model: str, arguments: dict[str, Any], ends: set[str], count: int, note: str, bases: dict[str, Base]
) -> None:
    base = bases[model]
    before = model_checksum(base.model)
    adapted = apply(base, "bitfit", **arguments)
    names = [name.removesuffix(".bias") for name in trained(adapted)]
    assert len(names) == count
    assert {end for name in names for end in ends if name.endswith(end)} == ends
    assert all(name.endswith(tuple(ends)) for name in names)
    assert note in "".join(adapted.notes)
    assert bool(adapted.notes) == bool(note)
    fit(adapted, base, max_steps=2)
    assert finish(base, adapted) is False
    assert model_checksum(base.model) == before


@pytest.mark.parametrize("model", ["llama", "gpt2", "qwen"])
@pytest.mark.parametrize(
    ("form", "arguments", "places"),
    [
        ("houlsby", {}, 4),
        ("houlsby", {"modules": "attention"}, 2),
        ("houlsby", {"modules": "mlp", "layers": "first-half"}, 1),
        ("pfeiffer", {"layers": [1]}, 1),
        ("parallel", {"layers": "last-half"}, 1),
        ("parallel", {"modules": ["down"]}, 2),
    ],
)
def test_places_of_the_adapter(
    model: str, form: str, arguments: dict[str, Any], places: int, bases: dict[str, Base]
) -> None:
    base = bases[model]
    adapted = apply(base, "adapter", form=form, reduction=8, **arguments)
    assert sum(p.numel() for p in trained(adapted).values()) == places * (2 * 64 * 8 + 64 + 8)
    fit(adapted, base, max_steps=2)
    assert finish(base, adapted) is False


def test_the_adapter_says_where_it_stands(bases: dict[str, Base]) -> None:
    with pytest.raises(UserError, match="'pfeiffer' stand at down: put that into modules"):
        apply(bases["llama"], "adapter", form="pfeiffer", modules="attention")


# Hooks


def keep_loss(losses: list[float], event: dict[str, Any]) -> None:
    if "loss" in event:
        losses.append(event["loss"])


def test_what_lies_ahead_of_a_method(bases: dict[str, Base]) -> None:
    """`prepare` comes once, before the first step; its batches are the steps' rows, with the loss of the loop."""
    base = bases["llama"]
    data, seen = rows(base), list[TrainingContext]()
    adapted = apply(base, "lora", rank=2, dropout=0.0)
    untrained = {name: p.clone() for name, p in trained(adapted).items()}

    def prepare(ahead: TrainingContext) -> None:
        assert all(torch.equal(p, untrained[name]) for name, p in trained(adapted).items())
        seen.append(ahead)

    adapted.prepare = prepare
    losses: list[float] = []
    trainer(adapted, 1e-30, max_steps=8).fit(data, data[:8], Meter(), partial(keep_loss, losses))
    (ahead,) = seen
    batches = list(ahead.batches())
    assert ahead.steps == len(batches) == len(losses) == 8
    with torch.no_grad():
        assert [float(base.model(**batch).loss) for batch in batches] == pytest.approx(losses, rel=1e-4)
    assert torch.equal(next(ahead.batches())["input_ids"], batches[0]["input_ids"])
    finish(base, adapted)


def test_inputs_of_an_encoder_decoder() -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    facts: dict[str, Any] = {
        "d_model": 16,
        "d_ff": 16,
        "d_kv": 4,
        "num_heads": 4,
        "num_layers": 1,
        "decoder_start_token_id": 0,
    }
    network = T5ForConditionalGeneration(T5Config(**facts)).eval()
    made = [Encoded([5, 6, 7], [8, 1]), Encoded([5], [8, 9, 1])]
    inputs = model_inputs(network, made)
    assert inputs["input_ids"].tolist() == [[5, 6, 7], [5, 0, 0]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert inputs["labels"].tolist() == [[8, 1, -100], [8, 9, 1]]
    assert network(**inputs).loss > 0


def test_a_start_from_data(bases: dict[str, Base]) -> None:
    """EVA of the library: the first directions of what flows into each layer, by the hook alone."""
    from peft import EvaConfig, LoraConfig
    from peft.tuners.lora.eva import initialize_lora_eva_weights

    from peftbench.methods._peft_model import with_peft

    base = bases["llama"]
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["v_proj"], init_lora_weights="eva", eva_config=EvaConfig(rho=1.0))
    adapted = with_peft(base.model, config)

    def prepare(ahead: TrainingContext) -> None:
        initialize_lora_eva_weights(adapted.model, list(ahead.batches()), show_progress_bar=False)

    before = {name: p.clone() for name, p in trained(adapted).items() if "lora_A" in name}
    adapted.prepare = prepare
    fit(adapted, base, max_steps=6)
    for name, matrix in trained(adapted).items():
        if "lora_A" in name:
            assert not torch.allclose(matrix, before[name], atol=0.05)
            assert torch.allclose(matrix @ matrix.T, torch.eye(2), atol=0.2)
    assert finish(base, adapted) is False


def test_a_penalty_pulls_and_is_not_reported(bases: dict[str, Base]) -> None:
    base = bases["llama"]
    data, found = rows(base), dict[float, tuple[float, float]]()
    for weight in (0.0, 1e3):
        adapted = apply(base, "ia3")
        scales = list(trained(adapted).values())

        def penalty(weight: float = weight, scales: Any = scales) -> torch.Tensor:
            return weight * torch.stack([scale.square().sum() for scale in scales]).sum()

        adapted.penalty = penalty
        losses: list[float] = []
        trainer(adapted, 1e-2, max_steps=4).fit(data, data[:8], Meter(), partial(keep_loss, losses))
        found[weight] = losses[0], sum(float(scale.detach().square().mean()) for scale in scales)
        finish(base, adapted)
    assert found[0.0][0] == pytest.approx(found[1e3][0])
    assert found[1e3][1] < found[0.0][1]
    assert math.isfinite(found[1e3][0])


def test_gradients_are_still_there_after_a_step(bases: dict[str, Base]) -> None:
    base, steps = bases["llama"], list[int]()
    adapted = apply(base, "ia3")

    def after_step(step: int) -> None:
        assert all(p.grad is not None for p in trained(adapted).values())
        steps.append(step)

    adapted.after_step = after_step
    fit(adapted, base, max_steps=3)
    assert steps == [1, 2, 3]
    assert all(p.grad is None for p in trained(adapted).values())
    finish(base, adapted)


def test_an_adapter_goes_back_to_the_layers_of_its_seed(bases: dict[str, Base], tmp_path: Path) -> None:
    base = bases["llama"]
    method = Choice(name="svft", arguments={"layers": "random-half"})
    places = {}
    for seed in range(6):
        adapted = apply(base, "svft", seed, layers="random-half")
        places[seed] = frozenset(trained(adapted))
        finish(base, adapted)
    assert len(set(places.values())) == 2
    other = next(seed for seed in places if places[seed] != places[0])
    adapted = apply(base, "svft", layers="random-half")
    save_checkpoint(adapted, tmp_path)
    finish(base, adapted)
    with pytest.raises(UserError, match=rf"not what svft\(layers=random-half\) trains .* seed {other}"):
        load_checkpoint(base, method, tmp_path, seed=other)
    assert base.restore() is False
    finish(base, load_checkpoint(base, method, tmp_path))


def test_losses_of_micro_batches_have_one_penalty(bases: dict[str, Base]) -> None:
    """Cutting a step into smaller pieces changes neither the loss nor the gradient, the penalty's part included."""
    base = bases["llama"]
    data = rows(base)[:4]
    found = []
    for size in (4, 1):
        adapted = apply(base, "adalora", rank=1, initial_rank=2)
        for p in trained(adapted).values():
            torch.nn.init.constant_(p, 0.1)
        adapted.model.eval()
        one = trainer(adapted)
        one.micro_rows = size
        loss = one.backward(data)
        assert loss == pytest.approx(summed_loss(adapted, data).item() / sum(len(row.target) for row in data), rel=1e-5)
        found.append(torch.cat([p.grad.flatten() for p in trained(adapted).values() if p.grad is not None]))
        finish(base, adapted)
    assert torch.allclose(found[0], found[1], atol=1e-5)
