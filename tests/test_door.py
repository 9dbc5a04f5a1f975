"""The door: a mirror, the Hub's real client against a stand-in, and one clear error for each thing that goes wrong."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from peftbench.tasks import TASKS, Row, Source
from peftbench.tasks._loading import DataError, example_of, read_rows

TOOLS = Path(__file__).parents[2] / "shared" / "tools"
SOURCE = Source("somewhere/sentences", "short")
ROWS = [{"sentence": "a b", "label": 0}, {"sentence": "c d", "label": 1}]


def fill(root: Path, split: str = "train", rows: list[dict[str, Any]] = ROWS) -> Path:
    """A mirror with one split of `SOURCE`."""
    file = root / "somewhere" / "sentences" / "short" / f"{split}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), file)
    return root


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PEFTBENCH_DATA", raising=False)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Replaces `load_dataset`: each call takes the next of the given outcomes. Returns the calls made."""

    def prepare(*outcomes: Any) -> list[Any]:
        calls: list[Any] = []

        def load_dataset(*given: Any, **named: Any) -> Any:
            calls.append((given, named))
            outcome = outcomes[min(len(calls), len(outcomes)) - 1]
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        monkeypatch.setattr("peftbench.tasks._loading.WAITS", (0.0, 0.0))
        return calls

    return prepare


class Loaded:
    """What the door needs of a loaded data set."""

    def __init__(self, commit: str) -> None:
        self.cache_files = [{"filename": f"cache/{commit}/train.arrow"}]

    def to_list(self) -> list[dict[str, Any]]:
        return ROWS


# ---- mirror ---------------------------------------------------------------------------------------------------------


def test_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read_rows(SOURCE, "train", fill(tmp_path))
    assert (found.rows, found.origin, found.revision) == (ROWS, "mirror", "mirror")
    assert len(found.fingerprint) == 16
    monkeypatch.setenv("PEFTBENCH_DATA", str(tmp_path))
    assert read_rows(SOURCE, "train") == found


def test_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    first = read_rows(SOURCE, "train", fill(tmp_path / "a")).fingerprint
    turned = [dict(reversed(row.items())) for row in ROWS]
    assert read_rows(SOURCE, "train", fill(tmp_path / "b", rows=turned)).fingerprint == first
    assert read_rows(SOURCE, "train", fill(tmp_path / "c", rows=ROWS[::-1])).fingerprint != first


@pytest.mark.parametrize(("split", "revision"), [("train", "abc"), ("test", "mirror")])
def test_revision_of_a_manifest(tmp_path: Path, split: str, revision: str) -> None:
    lines = "hub_id,config,split,revision\nsomewhere/other,short,train,x\nsomewhere/sentences,short,train,abc\n"
    fill(tmp_path, split).joinpath("MANIFEST.csv").write_text(lines)
    assert read_rows(SOURCE, split, tmp_path).revision == revision


def test_unreadable_file(tmp_path: Path) -> None:
    file = fill(tmp_path) / "somewhere" / "sentences" / "short" / "train.parquet"
    file.write_text("no parquet")
    with pytest.raises(DataError, match=r"train\.parquet cannot be read: .+ or remove it") as raised:
        read_rows(SOURCE, "train", tmp_path)
    assert "\n" not in str(raised.value)


def test_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere does not exist"):
        read_rows(SOURCE, "train", tmp_path / "nowhere")


# ---- generator ------------------------------------------------------------------------------------------------------


def test_generator() -> None:
    def count_up(split: str, count: int) -> Iterator[Row]:
        yield from ({"split": split, "n": n} for n in range(count))

    source = Source("numbers", generator=count_up)
    found = read_rows(source, "test", count=2)
    assert (found.rows[1], found.origin, found.revision) == ({"split": "test", "n": 1}, "generator", None)
    with pytest.raises(DataError, match="request a number of rows"):
        read_rows(source, "test")


# ---- the Hub, its client replaced -----------------------------------------------------------------------------------


def test_passing_failures_are_tried_again(hub: Callable[..., list[Any]]) -> None:
    odd = FileNotFoundError("Couldn't find any data file at somewhere. LocalEntryNotFoundError: check your connection")
    calls = hub(odd, OSError("503 Service Unavailable"), Loaded("c" * 40))
    found = read_rows(SOURCE, "train")
    assert (found.rows, found.origin, found.revision) == (ROWS, "hub", "c" * 40)
    assert calls == 3 * [(("somewhere/sentences", "short"), {"split": "train", "revision": None})]


@pytest.mark.parametrize(
    ("error", "attempts", "way_out"),
    [
        (OSError("503\n\nService Unavailable"), 3, "or connect to the Hub"),
        (ConnectionError("Couldn't reach it"), 1, "or connect to the Hub"),
        (ValueError("Unknown split \"train\". Should be one of ['test']."), 1, "or correct the task's source"),
        (datasets.exceptions.DatasetNotFoundError("It is a gated dataset on the Hub."), 1, "or ask for access"),
        (datasets.exceptions.DatasetNotFoundError("No such revision."), 1, "or correct the task's source"),
    ],
)
def test_one_line_for_each_failure(
    hub: Callable[..., list[Any]], error: Exception, attempts: int, way_out: str, tmp_path: Path
) -> None:
    calls = hub(error)
    with pytest.raises(DataError) as raised:
        read_rows(SOURCE, "train", fill(tmp_path, split="test"))
    message = str(raised.value)
    assert len(calls) == attempts
    assert "\n" not in message
    assert message.startswith(f"data set somewhere/sentences (short), split 'train': not in {tmp_path}; from the Hub: ")
    assert " ".join(str(error).split()) in message
    assert "--data DIR where DIR holds somewhere/sentences/short/train.parquet" in message
    assert way_out in message


def test_another_commit_of_the_cache_is_refused(hub: Callable[..., list[Any]]) -> None:
    hub(Loaded("c" * 40))
    pinned = replace(SOURCE, revision="a" * 40)
    with pytest.raises(DataError, match=f"the cache holds commit {'c' * 40}, not {'a' * 40}"):
        read_rows(pinned, "train")
    assert read_rows(replace(SOURCE, revision="c" * 40), "train").revision == "c" * 40


# ---- rows that do not fit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"text": "a b", "label": 0}, "no column 'sentence'; its columns are text, label"),
        (
            {"sentence": "a b", "label": -1},
            "label -1 has no name (is it hidden?), in a row with the columns sentence, label",
        ),
        ({"sentence": None, "label": 1}, "in a row with the columns sentence, label"),
        (
            {"sentence": "a b", "label": "positive"},
            "label 'positive' has no name (is it hidden?), in a row with the columns sentence, label",
        ),
    ],
)
def test_a_row_that_does_not_fit(row: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DataError) as raised:
        example_of(TASKS["sst2"], row)
    assert str(raised.value).startswith("task 'sst2', data set nyu-mll/glue (sst2): ")
    assert complaint in str(raised.value)


# ---- the Hub's real client, against a stand-in ----------------------------------------------------------------------

READ = """
import dataclasses, json, sys
from peftbench.tasks import Source
from peftbench.tasks._loading import DataError, read_rows
for source, split in json.loads(sys.argv[1]):
    try:
        print(json.dumps(dataclasses.asdict(read_rows(Source(**source), split))))
    except DataError as error:
        print(json.dumps(str(error)))
"""


def ask(url: str, home: Path, *questions: tuple[dict[str, Any], str], **environment: str) -> list[Any]:
    """Rows or error of each question, from a new process: the client reads its environment at import."""
    settings = os.environ | {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"} | environment
    command = [sys.executable, "-c", READ, json.dumps(questions)]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=True, timeout=120)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.skipif(not (TOOLS / "hub_standin.py").is_file(), reason="no stand-in for the Hub")
def test_real_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    from hub_standin import Hub

    for name in ("sentences", "locked"):
        folder = tmp_path / "datasets" / "somewhere" / name / "short"
        folder.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(ROWS), folder / "train.parquet")
    short = {"name": "somewhere/sentences", "config": "short"}
    with Hub(datasets=tmp_path / "datasets", gated=["somewhere/locked"]) as hub:
        found, split, config, revision, gated, missing = ask(
            hub.url,
            tmp_path / "home",
            (short, "train"),
            (short, "validation"),
            (short | {"config": "long"}, "train"),
            (short | {"revision": "0" * 40}, "train"),
            (short | {"name": "somewhere/locked"}, "train"),
            (short | {"name": "somewhere/else"}, "train"),
        )
        hub.faults["fail-first"] = 1
        (late,) = ask(hub.url, tmp_path / "second home", (short, "train"))
    mirror = read_rows(SOURCE, "train", fill(tmp_path / "mirror"))
    assert (found["rows"], found["origin"]) == (mirror.rows, "hub")
    assert found["fingerprint"] == mirror.fingerprint
    assert len(found["revision"]) == 40
    assert late == found
    assert 'Unknown split "validation"' in split
    assert "BuilderConfig 'long' not found" in config
    assert f"Revision '{'0' * 40}' doesn't exist" in revision
    assert "gated dataset" in gated
    assert "HF_TOKEN" in gated
    assert "'somewhere/else' doesn't exist on the Hub" in missing
    offline, other = ask(
        hub.url, tmp_path / "home", (short, "train"), (short | {"revision": "0" * 40}, "train"), HF_HUB_OFFLINE="1"
    )
    assert offline == found
    assert f"the cache holds commit {found['revision']}, not {'0' * 40}" in other
