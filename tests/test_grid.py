"""Grids: what they multiply out to, which runs are the same run, and one clear line for each mistake."""

import hashlib
import json
import subprocess
import sys
import typing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftbench.core.registry import Unit, UserError, load_plugin
from peftbench.core.spec import Choice, Evaluation, RunSpec, Training
from peftbench.grid.expand import Grid, expand, load_grid
from peftbench.methods import METHODS, Method
from peftbench.metrics import METRICS
from peftbench.tasks import TASKS, suite

SPEC = RunSpec(
    model=Choice(name="pocket"),
    method=Choice(name="lora", arguments={"rank": 8}),
    task=Choice(name="rte"),
    size=100,
    seed=3,
    train=Training(learning_rate=1e-3),
    eval=Evaluation(test_rows=50),
)
PLUGIN = """
from __future__ import annotations
from collections.abc import Sequence
from typing import Any
from peftbench.methods import method
from peftbench.tasks import Example, Source, task

@method(learning_rate=1e-3)
def planted(model: Any, *, layers: Sequence[int] | None = None, depth: int = 2) -> Any:
    "A method of a file outside the package."

@task(source=Source("a/b"), kind="qa", instruction="?", metrics=("acuracy",), max_new_tokens=4)
def planted_task(row: Any) -> Example:
    "A task with a misspelt metric."
"""


def grid(**changes: Any) -> dict[str, Any]:
    return {"methods": ["lora"], "tasks": ["pocket_sentiment"], **changes}


def ids(**changes: Any) -> list[str]:
    return [spec.id for spec in expand(grid(**changes))]


def changed(**changes: Any) -> RunSpec:
    return RunSpec(**{name: getattr(SPEC, name) for name in RunSpec.model_fields} | changes)


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[None]:
    """A file of units of one's own; taken out again, so that other tests do not see it."""
    path = tmp_path_factory.mktemp("plugin") / "garden.py"
    path.write_text(PLUGIN)
    list(METHODS), list(TASKS)
    load_plugin(path)
    yield
    del METHODS._units["planted"], TASKS._units["planted_task"]


# Ids


def test_golden_id() -> None:
    """Results are found again by their id: if this fails, every result ever written is orphaned."""
    assert SPEC.id == "19861441ca78"


OTHER: dict[type[Any], dict[str, st.SearchStrategy[Any]]] = {
    Training: {
        "learning_rate": st.floats(1e-6, 1),
        "num_train_epochs": st.floats(0.1, 9),
        "max_steps": st.integers(0, 99),
        "per_device_train_batch_size": st.integers(1, 99),
        "gradient_accumulation_steps": st.integers(1, 99),
        "warmup_steps": st.floats(0, 0.99) | st.integers(1, 99).map(float),
        "lr_scheduler_type": st.sampled_from(["cosine", "constant"]),
        "weight_decay": st.floats(0, 1),
        "max_grad_norm": st.floats(0.1, 9),
        "eval_steps": st.floats(0.01, 99),
        "early_stopping_patience": st.integers(1, 99),
        "max_length": st.integers(1, 2048),
        "validation_rows": st.integers(1, 2048),
        "gradient_checkpointing": st.booleans(),
        "precision": st.sampled_from(["fp32", "bf16"]),
    },
    Evaluation: {
        "answer": st.sampled_from(["generate", "rank"]),
        "test_rows": st.integers(1, 99),
        "per_device_eval_batch_size": st.integers(1, 99),
        "merge_fidelity": st.booleans(),
        "latency": st.booleans(),
        "retention": st.booleans(),
        "retention_version": st.sampled_from(["a1", "b2"]),
    },
}
PLACES = ("retention_text",)
"""Settings that say where something is; what it is stands in another."""


@pytest.mark.parametrize(("noun", "place"), [(Training, "train"), (Evaluation, "eval")])
@given(data=st.data())
def test_settings_and_ids(noun: type[Any], place: str, data: st.DataObject) -> None:
    """A default given is the same run; two ids are equal where, and only where, the settings are."""
    defaults = {name: field.default for name, field in noun.model_fields.items() if name not in PLACES}
    assert set(OTHER[noun]) == set(defaults), "a new setting: say here which other values it takes"
    given_defaults = {name: defaults[name] for name in data.draw(st.sets(st.sampled_from(sorted(defaults))))}
    assert changed(**{place: noun(**given_defaults)}).id == changed(**{place: noun()}).id
    name = data.draw(st.sampled_from(sorted(defaults)))
    one, two = (data.draw(OTHER[noun][name] | st.just(defaults[name])) for _ in range(2))
    same = changed(**{place: noun(**{name: one})}).id == changed(**{place: noun(**{name: two})}).id
    assert same == (one == two)


def arguments() -> list[tuple[Method, str]]:
    units = [unit for unit in METHODS if not unit.facts.folder]
    return [(unit, name) for unit in units for name, p in unit.parameters.items() if p.default is not p.empty]


def another(unit: Unit[Any], name: str) -> Any:
    """A value that is not the default."""
    parameter = unit.parameters[name]
    default, allowed = parameter.default, typing.get_args(parameter.annotation)
    if name == "layers" and isinstance(default, str):
        return "first-half"
    if isinstance(default, bool):
        return not default
    if isinstance(default, int | float):
        return default + 1
    if isinstance(default, str):
        literals = [value for value in allowed if isinstance(value, str)]
        return next(value for value in (*literals, f"{default}x") if value != default)
    if default is None:
        plain = [typing.get_args(each)[0] if typing.get_origin(each) is typing.Annotated else each for each in allowed]
        return 1 if {int, float} & set(plain) else ["q"]
    return [*default, "q"]


@given(st.sampled_from(arguments()), st.randoms(use_true_random=False))
def test_arguments_and_ids(picked: tuple[Method, str], rng: Any) -> None:
    """A default given in a grid file is the same run, in whatever order keys stand; another value is another run."""
    unit, name = picked
    default = unit.parameters[name].default
    written = list(default) if isinstance(default, tuple) else default
    plain = ids(methods=[unit.name], models=["pocket"], seeds=[0])
    if written is not None:
        assert ids(methods=[{"use": unit.name, name: written}]) == plain
        items = [("use", unit.name), (name, written), ("learning_rate", unit.facts.learning_rate)]
        rng.shuffle(items)
        outer = list(grid(methods=[dict(items)], models=["pocket"], seeds=[0]).items())
        rng.shuffle(outer)
        assert [spec.id for spec in expand(dict(outer))] == plain
    assert ids(methods=[{"use": unit.name, name: another(unit, name)}]) != plain


def test_the_same_number_written_otherwise_is_the_same_run() -> None:
    one = {"use": "lora", "rank": 8, "alpha": 32, "dropout": 0}
    two = {"dropout": 0.0, "alpha": 32.0, "rank": 8, "use": "lora"}
    assert ids(methods=[one], train={"num_train_epochs": 5, "weight_decay": 0}) == ids(
        methods=[two], train={"weight_decay": 0.0, "num_train_epochs": 5.0}
    )


@pytest.mark.parametrize("part", ["model", "method", "task"])
def test_ids_include_versions(part: str) -> None:
    choice: Choice = getattr(SPEC, part)
    assert changed(**{part: choice.model_copy(update={"version": 2})}).id != SPEC.id
    assert changed(**{part: choice.model_copy(update={"version": "0a1b2c3d"})}).id != SPEC.id
    assert changed(**{part: choice.model_copy(update={"version": 1})}).id == SPEC.id


def test_a_raised_version_is_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    before = ids()
    unit = METHODS["lora"]
    raised = replace(unit.facts, version=int(unit.facts.version) + 1)
    monkeypatch.setitem(METHODS._units, "lora", replace(unit, facts=raised))
    assert ids() != before


def test_a_model_directory_is_known_by_its_content(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    llama, qwen = tiny_models["llama"], tiny_models["qwen"]
    (spec,) = expand(grid(models=[str(llama)]))
    assert spec.model.name == str(llama)
    assert ids(models=[str(qwen)]) != [spec.id]
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in llama.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    before = expand(grid(models=[str(copy)]))[0].model.version
    assert before == spec.model.version
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert expand(grid(models=[str(copy)]))[0].model.version != before


# Expansion


def test_counts_and_order() -> None:
    asked = grid(
        models=["pocket", "org/name"],
        methods=["lora", "ia3"],
        tasks=["rte", "sst2"],
        sizes=[10, "all"],
        seeds=[1, 0],
    )
    specs = expand(asked)
    order = [(s.model.name, s.task.name, s.size, s.method.name, s.seed) for s in specs]
    assert order == [
        (model, task, size, method, seed)
        for model in ("pocket", "org/name")
        for task in ("rte", "sst2")
        for size in (10, "all")
        for method in ("lora", "ia3")
        for seed in (1, 0)
    ]
    assert len({spec.id for spec in specs}) == 32
    assert expand(asked) == specs


def test_defaults_of_a_grid() -> None:
    (spec,) = expand(grid())
    assert (spec.model.name, spec.size, spec.seed) == ("pocket", "all", 0)
    assert spec.train == Training()
    assert spec.eval == Evaluation()


def test_the_same_run_asked_twice_is_done_once() -> None:
    assert len(ids(methods=["lora", {"use": "lora", "rank": 16}, {"use": "lora", "rank": [16, 8]}], seeds=[0, 0])) == 2


def test_sweeps_of_arguments() -> None:
    specs = expand(grid(methods=[{"use": "lora", "rank": [4, 8], "dropout": [0.0, 0.1]}]))
    assert [spec.method.arguments for spec in specs] == [
        {"rank": 4, "dropout": 0.0},
        {"rank": 4, "dropout": 0.1},
        {"rank": 8, "dropout": 0.0},
        {"rank": 8, "dropout": 0.1},
    ]


def test_sweeps_of_training() -> None:
    specs = expand(grid(train={"learning_rate": [1e-3, 1e-2], "max_steps": [5, 6], "max_length": 64}))
    assert [(s.train.learning_rate, s.train.max_steps) for s in specs] == [(1e-3, 5), (1e-3, 6), (1e-2, 5), (1e-2, 6)]
    assert {spec.train.max_length for spec in specs} == {64}


def test_an_argument_that_is_a_list_is_not_swept_unless_nested() -> None:
    (one,) = expand(grid(methods=[{"use": "lora", "modules": ["q", "v"]}]))
    assert one.method.arguments == {"modules": ["q", "v"]}
    two = expand(grid(methods=[{"use": "lora", "modules": [["q"], ["k", "v"]]}]))
    assert [spec.method.arguments["modules"] for spec in two] == [["q"], ["k", "v"]]


@pytest.mark.parametrize(
    ("value", "choices"),
    [
        ("last-half", ["last-half"]),
        ([0, 3], [[0, 3]]),
        ([[0, 3], [1]], [[0, 3], [1]]),
        (["first-half", "encoder:0,-1 + decoder"], ["first-half", "encoder:0,-1 + decoder"]),
        ([[0], "every-other"], [[0], "every-other"]),
    ],
)
def test_a_list_that_the_argument_does_not_take_is_a_sweep(value: Any, choices: list[Any]) -> None:
    specs = expand(grid(methods=[{"use": "lora", "layers": value}]))
    assert [spec.method.arguments["layers"] for spec in specs] == choices


def test_modules_by_one_name_or_several() -> None:
    specs = expand(grid(methods=[{"use": "lora", "modules": ["attention", "up"]}, {"use": "lora", "modules": "mlp"}]))
    assert [spec.method.arguments["modules"] for spec in specs] == [["attention", "up"], "mlp"]
    specs = expand(grid(methods=[{"use": "lora", "modules": [["attention"], "mlp"]}]))
    assert [spec.method.arguments["modules"] for spec in specs] == [["attention"], "mlp"]


@pytest.mark.usefixtures("plugin")
def test_annotations_of_a_plugin_may_be_text_and_optional() -> None:
    (one,) = expand(grid(methods=[{"use": "planted", "layers": [1, 2], "depth": 2}]))
    assert one.method.arguments == {"layers": [1, 2]}


def test_a_learning_rate_among_arguments_is_training() -> None:
    specs = expand(
        grid(methods=["ia3", {"use": "lora", "rank": 4, "learning_rate": [1e-3, 2e-3]}], train={"max_steps": 7})
    )
    assert [(s.method.name, s.train.learning_rate, s.train.max_steps) for s in specs] == [
        ("ia3", None, 7),
        ("lora", 1e-3, 7),
        ("lora", 2e-3, 7),
    ]
    assert specs[1].method.arguments == {"rank": 4}


def test_a_method_overrides_the_training_settings() -> None:
    (spec,) = expand(grid(methods=[{"use": "lora", "learning_rate": 1e-3}], train={"learning_rate": [1e-4, 1e-5]}))
    assert spec.train.learning_rate == 1e-3


def test_a_method_that_trains_nothing_is_not_swept_over_training() -> None:
    sweep = {"learning_rate": [1e-3, 1e-2], "num_train_epochs": [1, 2], "max_length": 128}
    specs = expand(grid(methods=["none", "lora"], train=sweep))
    assert [spec.method.name for spec in specs].count("none") == 1
    assert [spec.method.name for spec in specs].count("lora") == 4
    assert next(s.train for s in specs if s.method.name == "none") == Training(max_length=128)


def test_a_suite_stands_for_its_tasks() -> None:
    assert len(suite("pocket")) >= 4
    assert [spec.task.name for spec in expand(grid(tasks=["pocket"]))] == suite("pocket")
    assert len(ids(tasks=["pocket", "pocket_sentiment"])) == len(suite("pocket"))
    assert [spec.task.name for spec in expand(grid(tasks=[{"use": "pocket"}]))] == suite("pocket")


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        ({"method": "lo*"}, 8),
        ({"method": "lora"}, 8),
        ({"method": ["lora", "ia3"]}, 0),
        ({"task": "pocket_*", "size": 10}, 12),
        ({"size": [10, "all"], "seed": 1}, 8),
        ({"model": "poc*", "method": "*", "task": "rte", "size": "all", "seed": 0}, 14),
    ],
)
def test_except(rule: dict[str, Any], left: int) -> None:
    asked = grid(methods=["lora", "ia3"], tasks=["rte", "pocket_sentiment"], sizes=[10, "all"], seeds=[0, 1])
    assert len(expand(asked)) == 16
    kept = expand(asked | {"except": [rule]})
    assert len(kept) == left
    assert [spec for spec in expand(asked) if spec in kept] == kept


def test_an_exception_may_name_a_model_that_others_replace(tiny_models: dict[str, Path]) -> None:
    asked = grid(methods=["lora", "ia3"]) | {"except": [{"model": "pocket", "method": "ia3"}]}
    assert [spec.method.name for spec in expand(asked)] == ["lora"]
    replaced = expand(asked, [str(tiny_models["llama"])])
    assert [spec.method.name for spec in replaced] == ["lora", "ia3"]
    assert {spec.model.name for spec in replaced} == {str(tiny_models["llama"])}


def test_a_limit_cuts_training_and_test_rows() -> None:
    asked = grid(sizes=[8, 16, 32, "all"], eval={"test_rows": 20})
    assert [(spec.size, spec.eval.test_rows) for spec in expand(asked, limit=16)] == [(8, 16), (16, 16)]
    assert [(spec.size, spec.eval.test_rows) for spec in expand(asked, limit=100)][-1] == (100, 20)
    rules = [{"size": 32}]
    assert [spec.size for spec in expand(asked | {"except": rules}, limit=16)] == [8, 16]
    assert expand(asked | {"except": rules}, limit=8) == expand(grid(sizes=[8], eval={"test_rows": 8}))


def test_exceptions_add_up() -> None:
    rules = [{"method": "lora", "seed": 0}, {"method": "ia3", "seed": 1}]
    specs = expand(grid(methods=["lora", "ia3"], seeds=[0, 1]) | {"except": rules})
    assert [(spec.method.name, spec.seed) for spec in specs] == [("lora", 1), ("ia3", 0)]


def test_a_file_is_the_same_as_a_mapping(tmp_path: Path) -> None:
    path = tmp_path / "garden.toml"
    path.write_text(
        'methods = ["none", { use = "lora", rank = [4, 8] }]\ntasks = ["rte"]\nseeds = [0, 1]\n'
        '[train]\nmax_steps = 5\n[eval]\ntest_rows = 9\n[[except]]\nmethod = "none"\nseed = 1\n'
    )
    asked = {
        "methods": ["none", {"use": "lora", "rank": [4, 8]}],
        "tasks": ["rte"],
        "seeds": [0, 1],
        "train": {"max_steps": 5},
        "eval": {"test_rows": 9},
        "except": [{"method": "none", "seed": 1}],
    }
    assert expand(path) == expand(str(path)) == expand(load_grid(path)) == expand(asked)
    assert len(expand(path)) == 5
    assert load_grid(path).name == "garden"


# Mistakes

MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"models": ["pockett"]}, "unknown model .*'pockett': did you mean 'pocket'"),
    ({"models": ["./nowhere"]}, r"model \./nowhere: no such directory"),
    ({"models": [{"use": "pocket", "size": 3}]}, "unknown argument of model 'pocket' 'size'"),
    ({"models": [{}]}, "an entry of models needs a name"),
    ({"methods": ["lorra"]}, "unknown method 'lorra': did you mean 'lora'"),
    ({"methods": [{"rank": 8}]}, "an entry of methods needs a name"),
    ({"methods": [{"use": ["lora", "ia3"]}]}, "an entry of methods needs a name"),
    ({"methods": [{"use": "lora", "rnak": 8}]}, "argument of method 'lora' 'rnak': did you mean 'rank'"),
    ({"methods": [{"use": "lora", "learning_rat": 1}]}, "'learning_rat': did you mean 'learning_rate'"),
    (
        {"methods": [{"use": "lora", "rank": "eight"}]},
        "method 'lora', argument 'rank': must be a whole number, not 'eight'",
    ),
    (
        {"methods": [{"use": "lora", "rank": [8, "eight"]}]},
        "method 'lora', argument 'rank': must be a whole number, not 'eight'",
    ),
    ({"methods": [{"use": "lora", "rank": []}]}, "rank: an empty list"),
    ({"methods": [{"use": "lora", "layers": "frist-half"}]}, "unknown choice of layers .*did you mean 'first-half'"),
    ({"methods": [{"use": "lora", "layers": "encodr:all"}]}, "unknown stack of layers .*did you mean 'encoder'"),
    ({"methods": [{"use": "lora", "layers": []}]}, "layers: an empty list leaves nothing to adapt"),
    ({"methods": [{"use": "lora", "modules": 3}]}, "method 'lora', argument 'modules"),
    ({"methods": [{"use": "lora", "learning_rate": -1}]}, "learning_rate: must be above 0, not -1"),
    ({"methods": [3]}, "methods.0: "),
    ({"methods": []}, "methods: .*at least 1"),
    ({"methods": "lora"}, "methods: "),
    ({"tasks": ["rtee"]}, "unknown task 'rtee': did you mean 'rte'"),
    ({"tasks": ["gluee"]}, "unknown task 'gluee': did you mean 'glue'"),
    ({"tasks": [{"use": "rte", "shots": 1}]}, "unknown argument of task 'rte' 'shots'"),
    ({"tasks": ["planted_task"]}, "unknown metric 'acuracy': did you mean 'accuracy'"),
    ({"sizes": [-1]}, r"sizes\.0: must be above 0 or 'all', not -1"),
    ({"sizes": [10, "al"]}, r"sizes\.1: "),
    ({"sizes": 10}, "sizes: "),
    ({"sizes": []}, "sizes: .*at least 1"),
    ({"seeds": [0, -1]}, r"seeds\.1: must be at least 0, not -1"),
    ({"seeds": ["zero"]}, r"seeds\.0: must be a whole number, not 'zero'"),
    ({"seed": [0]}, "unknown key 'seed': did you mean 'seeds'"),
    ({"train": {"epochs": 3}}, r"unknown key of \[train\] 'epochs': did you mean 'num_train_epochs'"),
    ({"train": {"max_steps": "many"}}, r"\[train\]: max_steps: must be a whole number, not 'many'"),
    ({"train": {"max_steps": [1, -2]}}, r"\[train\]: max_steps: "),
    ({"train": {"learning_rate": float("nan")}}, r"\[train\]: learning_rate: "),
    ({"train": {"learning_rate": float("inf")}}, r"\[train\]: learning_rate: .*finite"),
    ({"train": {"max_steps": []}}, r"\[train\] max_steps: an empty list"),
    ({"train": {"lr_scheduler_type": "linar"}}, r"\[train\]: lr_scheduler_type: .*'linear'"),
    ({"train": 3}, "train: "),
    ({"eval": {"rows": 3}}, r"unknown key of \[eval\] 'rows': did you mean 'test_rows'"),
    ({"eval": {"test_rows": 0}}, r"\[eval\]: test_rows: "),
    ({"except": [{"method": "*"}, {"metod": "lora"}]}, r"key of \[\[except\]\] 'metod': did you mean 'method'"),
    ({"except": [{}]}, r"\[\[except\]\] needs at least one of model, method, task, size, seed"),
    ({"except": {"method": "lora"}}, "except: "),
    (
        {"methods": ["none", "lora"], "except": [{"method": "lorra"}]},
        r"an \[\[except\]\] leaves out nothing: unknown method of this grid 'lorra': did you mean 'lora'",
    ),
    ({"except": [{"method": ["lora", "none"]}]}, r"unknown method of this grid 'none': known: lora"),
    ({"except": [{"task": "rte", "method": "lora"}]}, r"unknown task of this grid 'rte': known: pocket_sentiment"),
    ({"except": [{"model": "llama*"}]}, r"unknown model of this grid 'llama\*': known: pocket"),
    ({"except": [{"size": 7}]}, r"unknown size of this grid '7': "),
    ({"except": [{"seed": 7}]}, r"unknown seed of this grid '7': known: 0"),
]


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(("changes", "message"), MISTAKES, ids=lambda value: str(value)[:50])
def test_a_mistake_is_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        expand(grid(**changes))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("grid")


def test_an_unknown_metric() -> None:
    with pytest.raises(UserError, match=r"^unknown metric 'rougel': did you mean 'rouge_l'\?$"):
        METRICS["rougel"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"methods = [", "not TOML: "),
        (b"methods = ['l\xf6ra']\ntasks = ['rte']", "not TOML: "),
        (b"methods = ['lora']\n", "tasks: is missing"),
        (b"methods = ['lora']\ntask = ['rte']\n", "unknown key 'task': did you mean 'tasks'"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        expand(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.toml: cannot be read: No such file"):
        expand(tmp_path / "nowhere.toml")
    with pytest.raises(UserError, match="a folder; give a grid file"):
        expand(tmp_path)


def test_a_grid_is_frozen_and_may_be_given_as_it_is() -> None:
    asked = Grid(methods=("lora",), tasks=("rte",))
    assert [spec.id for spec in expand(asked)] == ids(tasks=["rte"])


def test_expanding_imports_nothing_heavy() -> None:
    code = (
        "import sys; from peftbench.grid.expand import expand;"
        "expand({'methods': ['none', 'lora', 'adapter'], 'tasks': ['pocket', 'paper'], 'sizes': [10, 'all']});"
        "print([m for m in ('torch', 'transformers', 'peft', 'datasets', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Old names


def warmed(**train: Any) -> RunSpec:
    grid: dict[str, Any] = {"methods": ["lora"], "tasks": ["pocket_sentiment"], "sizes": [16], "train": train}
    (spec,) = expand(grid)
    return spec


def test_a_share_of_warm_up_has_the_id_that_it_had_under_its_old_name() -> None:
    """`warmup_ratio` became `warmup_steps`, as in `transformers` 5; the ids are those that results already have."""
    assert warmed().id == warmed(warmup_ratio=0.06).id == warmed(warmup_steps=0.06).id
    for share in (0.0, 0.1):
        old = warmed(warmup_ratio=share)
        assert old == warmed(warmup_steps=share)
        content = old.model_dump(mode="json", exclude_defaults=True, exclude={"method": {"called", "place"}})
        content["train"] = {"warmup_ratio": share}
        asked = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
        assert old.id == asked
    assert len({warmed(warmup_steps=steps).id for steps in (0, 0.1, 1, 2, 50)}) == 5


def test_results_with_the_old_name_are_read() -> None:
    spec = warmed(warmup_steps=0.1)
    written = spec.model_dump(mode="json")
    written["train"]["warmup_ratio"] = written["train"].pop("warmup_steps")
    assert RunSpec.model_validate(written) == spec


def test_warm_up_by_its_old_name_is_swept_and_given_to_methods() -> None:
    grid: dict[str, Any] = {"tasks": ["pocket_sentiment"], "sizes": [16]}
    swept = expand(grid | {"methods": ["lora"], "train": {"warmup_ratio": [0.0, 0.1]}})
    own = expand(grid | {"methods": [{"use": "lora", "warmup_ratio": [0.0, 0.1]}], "train": {"warmup_steps": 5}})
    assert swept == own
    assert [spec.train.warmup_steps for spec in swept] == [0.0, 0.1]


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ({"warmup_ratio": 0.1, "warmup_steps": 5}, "old name of warmup_steps: set only one"),
        ({"warmup_ratio": 1}, "must be below 1"),
        ({"warmup_ratio": [0.5, 1.0]}, "must be below 1"),
        ({"warmup_steps": 1.5}, "neither a whole number of steps nor a share"),
        ({"warmup_steps": -1}, "must be at least 0"),
        ({"warmup_step": 5}, "did you mean 'warmup_steps'"),
    ],
)
def test_wrong_warm_ups_are_refused_in_a_line(train: dict[str, Any], words: str) -> None:
    grid = {"methods": ["lora"], "tasks": ["pocket_sentiment"], "train": train}
    with pytest.raises(UserError, match=words) as caught:
        expand(grid)
    assert "\n" not in str(caught.value)


@given(st.integers(0, 2**40), st.integers(0, 2**40))
def test_a_run_with_another_seed_has_the_id_of_a_new_one(one: int, other: int) -> None:
    first = changed(seed=one)
    spec = first.with_seed(other)
    assert spec == changed(seed=other)
    assert spec.id == changed(seed=other).id
    assert first.id == changed(seed=one).id
    assert spec.model_copy(update={"size": 7}).id == changed(seed=other, size=7).id
    assert spec.with_seed(one).id == first.id
