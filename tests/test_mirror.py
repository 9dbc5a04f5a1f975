"""Mirrors of data sets: what is fetched, what is kept, and what a check finds wrong."""

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest

from conftest import SHARED
from peftbench.core.registry import UserError
from peftbench.tasks import TASKS, Source, suite
from peftbench.tasks._loading import HubError, first, manifest, read_rows
from peftbench.tasks._mirror_download import COLUMNS, MirrorFinding, check_mirror, fetch_mirror, sha256_of_file, wanted
from test_cli import assert_one_line, call

MIRROR = SHARED / "data"
COMMIT = TASKS["sst2"].facts.source.revision or ""
TRAIN, TEST = (f"nyu-mll/glue/sst2/{split}.parquet" for split in ("train", "validation"))
KEY = ("nyu-mll/glue", "sst2", "train")
FEATURES = datasets.Features(
    {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["negative", "positive"])}
)
Calls = list[tuple[str, str]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Replaces what the door gets from the Hub: twelve rows of our own a split. The calls made are kept."""
    calls: Calls = []

    def load(source: Source, split: str) -> tuple[Any, str | None]:
        calls.append((source.name, split))
        rows = [{"sentence": f"{split} film {n}", "label": n % 2} for n in range(12)]
        return datasets.Dataset.from_list(rows, features=FEATURES), source.revision

    monkeypatch.setattr("peftbench.tasks._mirror_download.load_split", load)
    monkeypatch.delenv("PEFTBENCH_DATA", raising=False)
    return calls


@pytest.fixture
def mirror(tmp_path: Path, hub: Calls) -> Path:
    """A mirror of one set, as it is fetched."""
    asked, _ = wanted(["sst2"])
    assert [done.status for done in fetch_mirror(asked, tmp_path / "mirror")] == ["fetched", "fetched"]
    hub.clear()
    return tmp_path / "mirror"


def statuses(names: Sequence[str], root: Path) -> list[str]:
    return [done.status for done in fetch_mirror(wanted(names)[0], root)]


def findings(root: Path) -> dict[str, MirrorFinding]:
    return {found.name: found for found in check_mirror(root)}


def rewrite(root: Path, name: str, **changes: str) -> None:
    """Change columns of a file's line in the manifest."""
    lines = list(manifest(root).values())
    for line in lines:
        if f"{line['hub_id']}/{line['config']}/{line['split']}.parquet" == name:
            line.update(changes)
    with (root / "MANIFEST.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


# ---- what is wanted -------------------------------------------------------------------------------------------------


def test_the_splits_of_a_suite_each_once() -> None:
    asked, made = wanted(["glue", "cola", "pocket"])
    places = [(each.source.config, each.split) for each in asked]
    assert len(places) == len(set(places))
    assert {("cola", "train"), ("cola", "validation"), ("sst2", "train"), ("rte", "validation")} <= set(places)
    assert made == suite("pocket")
    with pytest.raises(UserError, match="unknown task 'glu': did you mean 'glue'"):
        wanted(["glu"])


# ---- fetch ----------------------------------------------------------------------------------------------------------


def test_a_fetched_file_is_read_as_from_the_hub(mirror: Path) -> None:
    found = read_rows(TASKS["sst2"].facts.source, "train", mirror)
    assert found.rows[:2] == [{"sentence": "train film 0", "label": 0}, {"sentence": "train film 1", "label": 1}]
    assert (found.origin, found.revision) == ("mirror", COMMIT)
    assert first(TASKS["sst2"].facts.source, "train", mirror) == found.rows[0]
    typed = datasets.load_dataset("parquet", data_files=str(mirror / TRAIN), cache_dir=str(mirror.parent))["train"]
    assert typed.features["label"].names == ["negative", "positive"]
    line = manifest(mirror)[KEY]
    assert tuple(line) == COLUMNS
    assert (line["rows"], line["columns"], line["label_names"]) == ("12", "sentence|label", "label=negative|positive")
    assert (line["revision"], line["sha256"]) == (COMMIT, sha256_of_file(mirror / TRAIN))
    assert not [path for path in mirror.rglob("*") if path.is_file() and path.suffix not in (".parquet", ".csv")]


def test_what_is_whole_is_kept(mirror: Path, hub: Calls) -> None:
    assert statuses(["sst2"], mirror) == ["kept", "kept"]
    assert hub == []
    (mirror / TEST).write_bytes((mirror / TEST).read_bytes() + b" ")
    assert statuses(["sst2"], mirror) == ["kept", "fetched"]
    (mirror / TRAIN).unlink()
    assert statuses(["sst2"], mirror) == ["fetched", "kept"]
    rewrite(mirror, TRAIN, revision="0" * 40)
    assert statuses(["sst2"], mirror) == ["fetched", "kept"]
    rewrite(mirror, TEST, sha256="")
    assert statuses(["sst2"], mirror) == ["kept", "fetched"]
    assert statuses(["sst2"], mirror) == ["kept", "kept"]


def test_lines_and_columns_of_others_stay(mirror: Path) -> None:
    rewrite(mirror, TRAIN, sha256="")
    text = (mirror / "MANIFEST.csv").read_text().splitlines()
    ours = [f"{line},{'reader' if n == 0 else ''}" for n, line in enumerate(text)]
    ours.append("some/notes,default,train" + "," * (len(COLUMNS) - 3) + ",me")
    (mirror / "MANIFEST.csv").write_text("\n".join(ours) + "\n")
    assert statuses(["sst2"], mirror) == ["fetched", "kept"]
    lines = manifest(mirror)
    assert lines[("some/notes", "default", "train")]["reader"] == "me"
    assert lines[KEY]["sha256"] == sha256_of_file(mirror / TRAIN)


def test_a_failure_does_not_stop_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: Calls = []

    def load(source: Source, split: str) -> tuple[Any, str | None]:
        asked.append((source.config or "", split))
        if source.config == "cola":
            raise HubError(source, split, ConnectionError("Couldn't reach it"))
        if source.config == "rte" and split == "train":
            raise HubError(source, split, ValueError('Unknown split "train".'))
        return datasets.Dataset.from_list([{"sentence": "a", "label": 1}], features=FEATURES), None

    monkeypatch.setattr("peftbench.tasks._mirror_download.load_split", load)
    done = list(fetch_mirror(wanted(["cola", "rte", "sst2"])[0], tmp_path))
    assert [each.status for each in done] == ["failed", "failed", "failed", "fetched", "fetched", "fetched"]
    assert asked.count(("cola", "validation")) == 0, "a set that cannot be reached is not waited for twice"
    assert "split 'validation': from the Hub: ConnectionError: Couldn't reach it. To load it, connect" in done[1].why
    assert sorted(path.parent.name for path in tmp_path.rglob("*.parquet")) == ["rte", "sst2", "sst2"]
    assert sum(each.status != "failed" for each in done) == len(manifest(tmp_path))


@pytest.mark.usefixtures("hub")
def test_a_file_that_breaks_off_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def to_parquet(_data: Any, path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(datasets.Dataset, "to_parquet", to_parquet)
    with pytest.raises(UserError, match=r"cannot be written: No space left on device\. Make room, then repeat"):
        list(fetch_mirror(wanted(["sst2"])[0], tmp_path))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.usefixtures("hub")
def test_fetch_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ("fetch", "sst2", "pocket", "--to", tmp_path / "mirror")
    done = call(*given, "--json")
    assert done.code == 0
    assert [(one["file"], one["status"], one["rows"]) for one in done.json["files"]] == [
        (TRAIN, "fetched", 12),
        (TEST, "fetched", 12),
    ]
    assert done.json["made_by_rule"] == suite("pocket")
    assert "generated by rule" in done.err
    again = call(*given)
    assert (again.code, [line.split()[4] for line in again.out.splitlines()[1:]]) == (0, ["kept", "kept"])
    only = call("fetch", "pocket_topic", "--to", tmp_path / "nothing")
    assert (only.code, only.out, (tmp_path / "nothing").exists()) == (0, "", False)

    def fail(source: Source, split: str) -> tuple[Any, str | None]:
        raise HubError(source, split, ConnectionError("Couldn't reach it"))

    monkeypatch.setattr("peftbench.tasks._mirror_download.load_split", fail)
    some = call("fetch", "sst2", "cola", "--to", tmp_path / "mirror")
    assert (some.code, some.out.count("kept"), some.out.count("Couldn't reach it")) == (1, 2, 2)
    assert call("fetch", "cola", "--to", tmp_path / "mirror").code == 2
    assert_one_line(call("fetch", "sst", "--to", tmp_path), "unknown task 'sst': did you mean 'sst2'?")


# ---- check ----------------------------------------------------------------------------------------------------------


def test_a_good_mirror(mirror: Path) -> None:
    found = findings(mirror)
    assert found == {
        TRAIN: MirrorFinding("file", TRAIN, 12, "agrees"),
        TEST: MirrorFinding("file", TEST, 12, "agrees"),
        "sst2": MirrorFinding("task", "sst2"),
    }
    done = call("data", "check", "--data", mirror, "--json")
    assert (done.code, done.json["ok"]) == (0, True)
    assert [one["name"] for one in done.json["findings"]] == list(found)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"rows": "13"}, "the manifest says 13 rows"),
        ({"sha256": "0" * 64}, "its content is not what was fetched: remove it and fetch again"),
    ],
)
def test_a_line_that_does_not_agree(mirror: Path, changes: dict[str, str], problem: str) -> None:
    rewrite(mirror, TRAIN, **changes)
    assert findings(mirror)[TRAIN].problem == problem
    done = call("data", "check", mirror)
    assert done.code == 1
    assert problem in done.out


def test_files_that_are_missing_broken_or_strangers(mirror: Path) -> None:
    (mirror / TRAIN).unlink()
    (mirror / TEST).write_bytes((mirror / TEST).read_bytes()[:-20])
    stranger = mirror / "nyu-mll/glue/cola/train.parquet"
    datasets.Dataset.from_list([{"text": "a", "label": 1}]).to_parquet(stranger)
    found = findings(mirror)
    assert found[TRAIN].problem == "in the manifest, but not there"
    assert found[TEST].problem.startswith("cannot be read: ")
    assert found["nyu-mll/glue/cola/train.parquet"].note == "not in the manifest"
    assert "no column 'sentence'; its columns are text, label" in found["cola"].problem
    assert found["cola"].note == "no validation split"
    assert "sst2" not in found


def test_a_mirror_without_checksums_or_manifest(mirror: Path) -> None:
    rewrite(mirror, TRAIN, sha256="")
    assert findings(mirror)[TRAIN] == MirrorFinding("file", TRAIN, 12, "not recorded")
    rewrite(mirror, TRAIN, revision="0" * 40)
    assert findings(mirror)["sst2"].note == f"of another commit than the {COMMIT} that the task pins"
    (mirror / "MANIFEST.csv").unlink()
    assert findings(mirror)[TRAIN] == MirrorFinding("file", TRAIN, 12, "not recorded", note="not in the manifest")
    assert call("data", "check", mirror).code == 0


def test_no_mirror_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PEFTBENCH_DATA", raising=False)
    assert_one_line(call("data", "check"), "no mirror was given: give its folder, or set PEFTBENCH_DATA")
    assert_one_line(call("data", "check", tmp_path), f"data folder {tmp_path} holds no data: fetch some with ")
    assert_one_line(call("data", "check", tmp_path / "nowhere"), "nowhere does not exist")
    (tmp_path / "MANIFEST.csv").write_bytes(b"\xff\xfe\xfa")
    assert_one_line(call("data", "check", tmp_path), "MANIFEST.csv cannot be read: ")


@pytest.mark.skipif(not MIRROR.is_dir(), reason="no local mirror")
def test_the_sample_mirror_is_what_it_says() -> None:
    done = call("data", "check", MIRROR, "--json")
    assert done.code == 0, [one for one in json.loads(done.out)["findings"] if one["problem"]]
    assert {one["checksum"] for one in done.json["findings"] if one["kind"] == "file"} == {"not recorded"}
    tasks = {one["name"] for one in done.json["findings"] if one["kind"] == "task"}
    assert {"sst2", "cola", "rte", "boolq", "ag_news", "gsm8k", "e2e_nlg"} <= tasks
    assert re.search(r"\n\s*\"rows\": 600,", done.out)
