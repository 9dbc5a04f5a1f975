"""Sets of weights: the named ones, files and mappings of one's own, and what is wrong with some."""

from pathlib import Path

import numpy as np
import pytest

import peftbench
from peftbench.core.registry import UnknownNameError, UserError
from peftbench.studies._pscp_weights import ALL_COSTS, SETS, WeightsError, weight_set, weight_set_names, weight_sets

MINE = """
version = 3
source = "our cluster"
form = "exponential"
reference = "highest"

[peak_memory_gb]
constant = 80
exponent = 2

[latency_ms]
exponent = 0.5
"""
COSTS = {"peak_memory_gb": 40.0, "latency_ms": 10.0}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    return path


def test_the_named_sets() -> None:
    assert weight_set_names() == list(SETS) == ["paper", "relative", "exponential"]
    for name in weight_set_names():
        held = weight_set(name)
        assert (held.name, str(held)) == (name, f"{name} v{held.version}")
        assert all(exponent == 1 for _, exponent in held.terms.values())
    exponential = weight_set("exponential")
    assert set(exponential.terms) == {"trainable_parameters", "latency_ms", "peak_memory_gb"}
    assert (exponential.form, exponential.reference) == ("exponential", "highest")
    assert exponential.measured == tuple(exponential.terms)
    assert (weight_set("relative").form, weight_set("relative").reference) == ("power", "full")
    assert weight_set("paper").reference is None


def test_a_file_is_a_set(mine: Path) -> None:
    held = weight_set(mine)
    assert (str(held), held.source, held.measured) == ("mine v3", "our cluster", ("latency_ms",))
    assert held == weight_set(str(mine)) == weight_set(held)
    # 50 · exp(-(2 · 40/80 + 0.5 · 10/20)) = 50 · exp(-1.25)
    assert peftbench.pscp(50, COSTS, mine, {"latency_ms": 20.0}) == pytest.approx(50 * np.exp(-1.25))


def test_a_mapping_of_the_same_shape_is_one_too(mine: Path) -> None:
    import tomllib

    whole = {"name": "mine", **tomllib.loads(MINE)}
    assert weight_set(whole) == weight_set(mine)
    pairs = {"peak_memory_gb": (np.int64(80), 2), "latency_ms": [20, 0.5]}
    assert peftbench.pscp(50, COSTS, {**pairs, "form": "exponential"}) == pytest.approx(50 * np.exp(-1.25))
    # The power form, as before: 50 · (1 + 0.5)^-2 · (1 + 0.5)^-0.5
    assert peftbench.pscp(50, COSTS, pairs) == pytest.approx(50 * 1.5**-2.5)
    assert (weight_set(pairs).name, weight_set(pairs).version) == ("own", 1)


def test_several_sets(mine: Path, tmp_path: Path) -> None:
    assert [str(one) for one in weight_sets()] == ["paper v1", "relative v1", "exponential v1"]
    assert [str(one) for one in weight_sets([mine, "paper", "paper"])] == ["mine v3", "paper v1"]
    other = tmp_path / "other.toml"
    other.write_text(MINE.replace("version = 3", "version = 4\nname = 'mine'"))
    with pytest.raises(WeightsError, match="two weight sets are called 'mine'"):
        weight_sets([mine, other])
    other.write_text(MINE.replace("version = 3", "version = 3\nname = 'relative'"))
    with pytest.raises(WeightsError, match="two weight sets are called 'relative'"):
        weight_sets([other])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[latency_ms]", "[latency]", "unknown key 'latency': did you mean 'latency_ms'"),
        ("form =", "from =", "unknown key 'from': did you mean 'form'"),
        ('"exponential"', '"exponentail"', "unknown form 'exponentail': did you mean 'exponential'"),
        ('"exponential"', "['power']", "unknown form"),
        ('"highest"', '"higest"', "unknown reference 'higest': did you mean 'highest'"),
        ('reference = "highest"', "", 'no constant for latency_ms: give one, or reference = "full" or'),
        ("exponent = 0.5", "constant = 1\nexponent = 0.5", "all costs have a constant: remove reference"),
        ("version = 3", "", "version is missing or invalid: give a positive integer, such as version = 1"),
        ("version = 3", "version = '3'", "version is missing or invalid"),
        ("version = 3", "version = 3\nname = ' '", "name must not be empty"),
        ("exponent = 0.5", "expnent = 0.5", "unknown key of latency_ms 'expnent': did you mean 'exponent'"),
        ("exponent = 0.5", "", "latency_ms has no exponent"),
        ("exponent = 0.5", "exponent = -1", "the exponent of latency_ms is -1"),
        ("exponent = 0.5", "exponent = nan", "the exponent of latency_ms is nan"),
        ("exponent = 0.5", "exponent = true", "the exponent of latency_ms is True"),
        ("constant = 80", "constant = 0", "the constant of peak_memory_gb is 0"),
        ("constant = 80", "constant = '80'", "the constant of peak_memory_gb is '80'"),
        ("[latency_ms]\nexponent = 0.5", "latency_ms = 1", "unknown key of peak_memory_gb 'latency_ms'"),
        ("version = 3", "version = ", "not a TOML file"),
    ],
)
def test_a_file_that_is_wrong_says_where(mine: Path, old: str, new: str, message: str) -> None:
    assert old in MINE
    mine.write_text(MINE.replace(old, new))
    with pytest.raises(WeightsError) as caught:
        weight_set(mine)
    said = str(caught.value)
    assert message in said
    assert said.startswith(f"weights {mine}: ")
    assert "\n" not in said


def test_a_mapping_that_is_wrong() -> None:
    with pytest.raises(ValueError, match="weights: unknown key 'peak_memory': did you mean 'peak_memory_gb'"):
        peftbench.pscp(50, COSTS, {"peak_memory": (1.0, 1.0)})
    with pytest.raises(ValueError, match="weights: no cost is given: give one or more of trainable_parameters"):
        peftbench.pscp(50, COSTS, {})
    with pytest.raises(ValueError, match="peak_memory_gb must have a constant and an exponent, not 3"):
        peftbench.pscp(50, COSTS, {"peak_memory_gb": 3})


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.toml", tmp_path):
        with pytest.raises(UserError, match=f"weights {path}: .*; named sets: paper, relative, exponential"):
            weight_set(path)
    broken = tmp_path / "broken.toml"
    broken.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not a TOML file"):
        weight_set(broken)
    with pytest.raises(UnknownNameError, match="did you mean 'exponential'"):
        weight_set("exponental")


def test_the_set_of_the_documentation(tmp_path: Path) -> None:
    text = (Path(__file__).parent.parent / "docs" / "measures" / "pscp.md").read_text()
    path = tmp_path / "ours.toml"
    path.write_text(text.partition("```toml\n")[2].partition("```")[0])
    held = weight_set(path)
    assert held.terms == {"trainable_parameters": (None, 0.5), "peak_memory_gb": (24.0, 1.0)}
    costs = {"peak_memory_gb": 24.0, "trainable_parameters": 3e6}
    assert peftbench.pscp(80, costs, path, {"trainable_parameters": 1e6}) == pytest.approx(80 / 2 / 2)


def test_every_cost_may_be_weighed_alone() -> None:
    for cost in ALL_COSTS:
        assert peftbench.pscp(60, {cost: 4.0}, {cost: (2.0, 1.0)}) == pytest.approx(20)
