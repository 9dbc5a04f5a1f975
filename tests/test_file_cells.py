"""Users' files: whatever a file holds is read rightly, or refused in one line with its row and the way out."""

import csv
import datetime as dt
import decimal
import gzip
import io
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import peftbench
from conftest import SHARED
from peftbench.tasks import Example, _mirror_download, resolve
from peftbench.tasks._splits import RowLimits, split

CASES = SHARED / "cases" / "data"
YES_NO = ["no", "yes"]


def entry(path: Path, **given: Any) -> dict[str, Any]:
    return {"data": str(path), "fields": ["text"], "target": "y"} | given


def read(asked: Mapping[str, Any]) -> list[Example]:
    """Every row of the file of an entry, in the order of its first field."""
    (spec,) = peftbench.plan({"methods": ["none"], "tasks": [dict(asked)]})["specs"]
    task = resolve(spec.task.name, spec.task.arguments)
    found = split(task, spec.task.arguments, "all", 0, RowLimits(), root=None)
    return sorted([*found.train, *found.validation, *found.test], key=lambda one: next(iter(one.fields.values())))


def refused(asked: Mapping[str, Any]) -> str:
    """The one line that says why an entry is refused."""
    with pytest.raises(peftbench.UserError) as raised:
        read(asked)
    line = str(raised.value)
    assert "\n" not in line
    line.encode("utf-8")
    return line


def lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def twelve(**cells: Any) -> list[dict[str, Any]]:
    """Twelve rows with different texts; a cell that is a list is taken row by row, as often as it is long."""
    of = {name: cell if isinstance(cell, list) else [cell] for name, cell in cells.items()}
    return [{"text": f"t{i:02}"} | {name: cell[i % len(cell)] for name, cell in of.items()} for i in range(12)]


# ---- labels ---------------------------------------------------------------------------------------------------------

STARS = ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("labels", "cell", "target"),
    [
        (STARS, 1, "1"),
        (STARS, 5.0, "5"),
        (STARS, "3.0", "3"),
        (STARS, "03", "3"),
        (STARS, "+2", "2"),
        (STARS, "2e0", "2"),
        (["1.0", "2.0"], 1, "1.0"),
        (["-1", "0", "1"], -1, "-1"),
        (["-1", "0", "1"], "-1.0", "-1"),
        (["01", "02"], 2, "02"),
        (["0.5", "1"], 0.5, "0.5"),
        (["10", "20"], "1e1", "10"),
        (["none", "1"], "1", "1"),
        (YES_NO, 1, "yes"),
        (YES_NO, "0", "no"),
        (YES_NO, 1.0, "yes"),
        (["false", "true"], True, "true"),
        (["False", "True"], False, "False"),
        (["very good", "bad"], " very good ", "very good"),
        (["good", "bad"], "Good", "good"),
        (["GOOD", "bad"], "good", "GOOD"),
    ],
)
def test_a_label_is_what_its_cell_means(labels: list[str], cell: Any, target: str, tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", twelve(y=cell))
    assert {one.target for one in read(entry(path, labels=labels))} == {target}


@pytest.mark.parametrize(
    ("labels", "cell"),
    [
        (STARS, 0),
        (STARS, "0"),
        (STARS, 6),
        (STARS, 1.5),
        (STARS, "-1"),
        (STARS, True),
        (STARS, "one"),
        (STARS, "1,0"),
        (STARS, "\u0661"),
        (["0", "1", "many"], 2),
        (["2", "unknown"], 0),
        (["2", "unknown"], "1"),
        (["0", "1"], -1),
        (YES_NO, 2),
        (YES_NO, -1),
        (YES_NO, 0.5),
        (YES_NO, True),
        (YES_NO, "maybe"),
        (["very good", "bad"], "very  good"),
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_a_cell_that_is_no_label_is_refused_with_its_row(
    labels: list[str], cell: Any, ending: str, tmp_path: Path
) -> None:
    rows = twelve(y=labels[0])
    rows[6]["y"] = cell
    path = tmp_path / f"a.{ending}"
    if ending == "csv":
        with path.open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, ["text", "y"])
            writer.writeheader()
            writer.writerows(rows)
    else:
        lines(path, rows)
    said = refused(entry(path, labels=labels))
    assert f"{path}, row 7: " in said
    assert f"in y is not one of the labels {', '.join(labels)}" in said


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["1", "1.0"], "1 and 1.0 are the same number"),
        (["01", "1"], "01 and 1 are the same number"),
        (["good", " bad"], "' bad' begins or ends with a blank"),
        (["good", ""], "'' begins or ends with a blank"),
        (["ham", "HAM"], "no two may differ in case alone"),
    ],
)
def test_labels_that_cannot_be_told_apart_are_refused(labels: list[str], message: str, tmp_path: Path) -> None:
    assert message in refused(entry(lines(tmp_path / "a.jsonl", twelve(y=labels[0])), labels=labels))


@given(values=st.lists(st.integers(-50, 50), min_size=2, max_size=6, unique=True), stray=st.integers(-60, 60))
@settings(max_examples=15)
def test_numbers_are_labels_by_value_alone(
    values: list[int], stray: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    labels, path = list(map(str, values)), tmp_path_factory.mktemp("numbers") / "a.jsonl"
    lines(path, twelve(y=[float(stray), *values]))
    if stray in values:
        assert {one.target for one in read(entry(path, labels=labels))} <= set(labels)
    else:
        assert "row 1: " in refused(entry(path, labels=labels))


def class_label(path: Path, names: Sequence[str], values: Sequence[int | None]) -> Path:
    """A parquet file as `datasets` writes one with a column of class labels."""
    features = {"text": {"dtype": "string", "_type": "Value"}, "y": {"names": list(names), "_type": "ClassLabel"}}
    table = pa.table({"text": [f"t{i:02}" for i in range(len(values))], "y": pa.array(values, pa.int64())})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path)
    return path


def test_class_labels_are_read_by_the_names_of_the_file(tmp_path: Path) -> None:
    path = class_label(tmp_path / "a.parquet", ["pos", "neg"], [0, 1] * 6)
    for labels in (["neg", "pos"], ["pos", "neg"], ()):
        found = read(entry(path, labels=labels) if labels else entry(path))
        assert [one.target for one in found] == ["pos", "neg"] * 6
    said = refused(entry(path, labels=["bad", "good"]))
    assert "row 1: 'pos' in y is not one of the labels bad, good" in said
    assert "row 3: nothing in y" in refused(
        entry(class_label(tmp_path / "b.parquet", ["pos", "neg"], [0, 1, -1] * 4), labels=["neg", "pos"])
    )
    assert "row 2: 'y' is 7, and the file has names for 0 to 1: pos, neg" in refused(
        entry(class_label(tmp_path / "c.parquet", ["pos", "neg"], [0, 7] * 6), labels=["neg", "pos"])
    )


def test_a_mirror_that_counts_labels_in_another_order_is_refused(tmp_path: Path) -> None:
    wrong = "0 in its column 'label' is positive by the source, and negative by the task"
    for names, refused in ((["positive", "negative"], True), (["negative", "positive"], False), (["a", "b"], False)):
        for split_ in ("train", "validation"):
            path = tmp_path / "nyu-mll" / "glue" / "sst2" / f"{split_}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            features = {"label": {"names": names, "_type": "ClassLabel"}}
            table = pa.table({"sentence": [f"s{i}" for i in range(40)], "label": [0, 1] * 20})
            meta = {"huggingface": json.dumps({"info": {"features": features}})}
            pq.write_table(table.replace_schema_metadata(meta), path)
        problems = [finding.problem for finding in _mirror_download.check_mirror(tmp_path) if finding.name == "sst2"]
        if refused:
            with pytest.raises(peftbench.UserError, match=wrong):
                split(resolve("sst2", {}), {}, "all", 0, RowLimits(5), root=tmp_path)
            assert wrong in problems[0]
        else:
            assert problems == [""]


# ---- CSV and TSV ----------------------------------------------------------------------------------------------------


def delimited(path: Path, rows: Sequence[Sequence[str]], quoting: int | None) -> Path:
    """Rows as a writer of CSV writes them; with `None`, as they are."""
    mark = "\t" if path.suffix == ".tsv" else ","
    out = io.StringIO(newline="")
    if quoting is None:
        out.write("".join(mark.join(row) + "\n" for row in rows))
    else:
        csv.writer(out, delimiter=mark, quoting=quoting, lineterminator="\n").writerows(rows)  # type: ignore[arg-type]
    path.write_bytes(out.getvalue().encode())
    return path


RAW = [
    '"Good" film',
    '"Bad, he said',
    'he said bad"',
    '"It was fine." she said',
    '5" disk',
    "plain, with a comma",
    '"""',
    '"',
    '"opened and',
    'closed"',
    '"All of it is quoted."',
    "It's",
]


@pytest.mark.parametrize("labelled", [True, False])
def test_quotes_of_a_tsv_without_quoting_are_text(labelled: bool, tmp_path: Path) -> None:
    rows = [["text", "y"], *([f"{i:02} {text}" if labelled else text, str(i % 2)] for i, text in enumerate(RAW))]
    found = read(entry(delimited(tmp_path / "a.tsv", rows, None), labels=YES_NO))
    assert sorted(one.fields["text"] for one in found) == sorted(row[0] for row in rows[1:])
    assert len(found) == len(RAW)


def test_quotes_that_pair_up_over_lines_merge_no_rows(tmp_path: Path) -> None:
    rows = [["text", "y"], *([f'"begins {i}' if i % 2 == 0 else f'ends {i}"', str(i % 2)] for i in range(12))]
    found = read(entry(delimited(tmp_path / "a.tsv", rows, None), labels=YES_NO))
    assert len(found) == 12
    # In a CSV this may be six rows of two lines each, or twelve.
    path = delimited(tmp_path / "a.csv", rows, None)
    assert "row 1 is one of several lines" in (said := refused(entry(path, labels=YES_NO)))
    assert "quotes = false" in said
    assert len(read(entry(path, labels=YES_NO, quotes=False))) == 12


@pytest.mark.parametrize("ending", ["csv", "tsv"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
def test_quotes_that_a_program_wrote_enclose_cells(ending: str, quoting: int, tmp_path: Path) -> None:
    texts = ['He said "no"', "two\nlines", "a\ttab", "a, comma", '"all"', "plain", "", " x", "é", '"', "it's", "1"]
    rows = [["id", "text", "y"], *([f"n{i:02}", text, str(i % 2)] for i, text in enumerate(texts))]
    path = delimited(tmp_path / f"a.{ending}", rows, quoting)
    found = read(entry(path, fields=["id", "text"], labels=YES_NO))
    assert [one.fields["text"] for one in found] == [text.strip() for text in texts]


TEXT = st.text(st.sampled_from("ab \"',;é"), min_size=1, max_size=8).filter(str.strip)


@given(texts=st.lists(TEXT, min_size=12, max_size=14, unique_by=str.strip))
@settings(max_examples=12)
def test_a_tsv_has_as_many_rows_as_lines(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever its quotes mean: no cell of these has a line break."""
    rows = [["id", "text", "y"], *([f"n{i:02}", text, str(i % 2)] for i, text in enumerate(texts))]
    folder = tmp_path_factory.mktemp("tsv")
    for quoting in (None, csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
        asked = entry(delimited(folder / f"{quoting}.tsv", rows, quoting), fields=["id", "text"], labels=YES_NO)
        found = [one.fields["text"] for one in read(asked)]
        assert len(found) == len(texts)
        if quoting is not None:
            assert found == [text.strip() for text in texts]
        # A quote that encloses nothing is text.
        elif not all(text.startswith('"') for text in texts):
            assume(not any(text.startswith('"') and text.endswith('"') for text in texts))
            assert found == [text.strip() for text in texts]


@pytest.mark.parametrize("ending", ["csv", "tsv"])
@pytest.mark.parametrize("cells", [["short"], ["one", "1", "more"]])
def test_a_row_of_another_width_is_refused_with_its_number(cells: list[str], ending: str, tmp_path: Path) -> None:
    rows = [["text", "y"], *([f'"t" {i}' if ending == "tsv" else f"t{i}", "0"] for i in range(12))]
    rows[5] = cells
    said = refused(entry(delimited(tmp_path / f"a.{ending}", rows, None), labels=YES_NO))
    assert f"row 5 has not as many cells as the first line has names ({len(cells)}, not 2)" in said


def test_broken_quotes_of_a_csv_are_refused_with_the_row_and_two_ways_out(tmp_path: Path) -> None:
    rows = [["text", "y"], *([f"t{i}", "0"] for i in range(12))]
    rows[4][0] = '"Good" film'
    path = delimited(tmp_path / "a.csv", rows, None)
    said = refused(entry(path, labels=YES_NO))
    assert "row 4 (to line 5): its quotes: " in said
    assert "quotes = false" in said
    assert '"Good" film' in {one.fields["text"] for one in read(entry(path, labels=YES_NO, quotes=False))}


def test_line_ends_blank_lines_and_columns_without_a_name(tmp_path: Path) -> None:
    content = "text,y,\r\n" + "".join(f"t{i:02},{i % 2},\r\n\r\n" for i in range(12))
    (tmp_path / "a.csv").write_bytes(content.encode())
    assert [one.target for one in read(entry(tmp_path / "a.csv", labels=YES_NO))] == YES_NO * 6
    (tmp_path / "mac.tsv").write_bytes(content.replace(",\r\n", "\r").replace(",", "\t").replace("\n", "").encode())
    assert [one.target for one in read(entry(tmp_path / "mac.tsv", labels=YES_NO))] == YES_NO * 6


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("content", ["", "text,y\n", "\ufefftext,y\r\n", "\n\n"])
def test_a_file_without_rows_is_refused(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content.replace(",", "\t" if name == "a.tsv" else ","))
    assert f"{name} has 0 rows: at least 12 are needed" in refused(entry(tmp_path / name))


def test_rows_without_anything_are_refused_with_their_number(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,y\n" + "t,0\n" * 11 + " ,\n")
    assert "row 12: nothing in text" in refused(entry(tmp_path / "a.csv", labels=YES_NO))


def test_a_cell_may_be_long(tmp_path: Path) -> None:
    rows = [["text", "y"], *([f"{i:02} " + "x" * 200_000, "0"] for i in range(12))]
    for ending in ("csv", "tsv"):
        found = read(entry(delimited(tmp_path / f"a.{ending}", rows, csv.QUOTE_MINIMAL), labels=YES_NO))
        assert {len(one.fields["text"]) for one in found} == {200_003}


# ---- encodings ------------------------------------------------------------------------------------------------------

WESTERN, CHINESE = "café à la crème – “très bon”", "电影很好看，我很喜欢"


def encoded(path: Path, text: str, encoding: str, mark: bytes = b"") -> Path:
    cells = [(f"t{i:02} {text}", YES_NO[i % 2]) for i in range(12)]
    if path.suffix in (".csv", ".tsv"):
        content = "".join(
            f"{one}{',' if path.suffix == '.csv' else chr(9)}{two}\n" for one, two in [("text", "y"), *cells]
        )
    else:
        rows = [{"text": one, "y": two} for one, two in cells]
        dumped = [json.dumps(row, ensure_ascii=False) for row in rows]
        content = f"[{', '.join(dumped)}]" if path.suffix == ".json" else "\n".join(dumped)
    path.write_bytes(mark + content.encode(encoding))
    return path


ENDINGS = ["csv", "tsv", "json", "jsonl"]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_file_that_says_its_encoding_is_read(ending: str, encoding: str, tmp_path: Path) -> None:
    found = read(entry(encoded(tmp_path / f"a.{ending}", CHINESE, encoding), labels=YES_NO))
    assert [one.fields["text"] for one in found] == [f"t{i:02} {CHINESE}" for i in range(12)]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    ("text", "encoding", "guess"),
    [
        (WESTERN, "cp1252", 'encoding = "cp1252"'),
        ("naïve \x81 façade", "latin-1", 'encoding = "latin-1"'),
        ("plain", "utf-16-le", 'encoding = "utf-16-le"'),
        ("plain", "utf-16-be", 'encoding = "utf-16-be"'),
        (CHINESE, "gb18030", 'encoding = "NAME"'),
        ("映画はとても面白かった", "shift_jis", 'encoding = "NAME"'),
        ("Фильм очень хороший", "cp1251", 'encoding = "NAME"'),
    ],
)
def test_a_file_that_does_not_is_refused_with_row_guess_and_way_out(
    ending: str, text: str, encoding: str, guess: str, tmp_path: Path
) -> None:
    path = encoded(tmp_path / f"a.{ending}", text, encoding)
    said = refused(entry(path, labels=YES_NO))
    assert guess in said
    assert encoding.startswith("utf-16") or "row 1, line " in said
    found = read(entry(path, labels=YES_NO, encoding=encoding))
    assert [one.fields["text"] for one in found] == [f"t{i:02} {text}" for i in range(12)]


def test_the_row_of_a_single_wrong_byte_is_named(tmp_path: Path) -> None:
    path = encoded(tmp_path / "a.csv", "plain", "utf-8")
    path.write_bytes(path.read_bytes().replace(b"t08 plain", b"t08 pl\xe4in"))
    said = refused(entry(path, labels=YES_NO))
    assert "in row 9, line 10; it may be cp1252, which would read 't08 pläin,no' there" in said


def test_an_encoding_is_used_only_where_a_file_is_not_utf8(tmp_path: Path) -> None:
    later = encoded(tmp_path / "later.csv", WESTERN, "utf-8")
    path = encoded(tmp_path / "a.csv", WESTERN, "cp1252")
    found = read(entry(path, labels=YES_NO, encoding="cp1252", test=str(later)))
    assert {one.fields["text"][4:] for one in found} == {WESTERN}
    assert "is its encoding another one?" in refused(entry(path, labels=YES_NO, encoding="ascii"))
    assert "encoding 'cp12' is not known" in refused(entry(path, labels=YES_NO, encoding="cp12"))
    assert "encoding 'hex' is not known" in refused(entry(path, labels=YES_NO, encoding="hex"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,y\na\ud83d,0\n".encode("utf-8", "surrogatepass"), "row 1, line 2; it is half of a character"),
        ("a.csv", b"PK\x03\x04" + bytes(100), "it is no text, but a zip archive"),
        ("a.jsonl", gzip.compress(b'{"text": "a", "y": 0}\n' * 12, mtime=0), "it is no text, but compressed by gzip"),
        ("a.csv", b"text;y\na;0\n", "its first line has one name, with semicolons in it: part cells by commas"),
        ("a.csv", b"text\ty\na\t0\n", "its first line has one name, with tabs in it: part cells by commas"),
        ("a.tsv", b"text,y\na,0\n", "its first line has one name, with commas in it: part cells by tabs"),
        ("a.json", b'{"text": "a"}\n{"text": "b"}', "if it has one on each line, the ending is .jsonl"),
        ("a.csv", b"text,y\nt\0,0\n" * 12, "row 1: 'text' holds a NUL character at 1"),
    ],
)
def test_a_file_that_is_something_else_is_refused_as_what_it_is(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    assert message in refused(entry(tmp_path / name))


# ---- cells of JSON and parquet --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"text": "a \\ud83d", "y": 0}', "row 7: 'text' holds half of a character (lone surrogate U+D83D) at 2"),
        ('{"text": "a \\u0000 b", "y": 0}', "row 7: 'text' holds a NUL character at 2"),
        ('{"text": "a", "y": NaN}', "row 7: nothing in y"),
        ('{"text": null, "y": 0}', "row 7: nothing in text"),
        ('{"text": NaN, "y": 0}', "row 7: nothing in text"),
        ('{"text": Infinity, "y": 0}', "row 7: 'text' holds inf, which is no finite number"),
        ('{"text": "a", "y": -1e999}', "row 7: 'y' holds -inf, which is no finite number"),
        ('{"text": {"a": 1}, "y": 0}', "row 7: 'text' holds a table, not text"),
        ('{"text": ["a"], "y": 0}', "row 7: 'text' holds a list, not text"),
        ('{"text": "a", "text": "b", "y": 0}', "7: it has 2 columns 'text'"),
        ('{"text": "a", "y": 0, "y": 1}', "7: it has 2 columns 'y'"),
        ('{"text": "a", "y": ' + "1" * 5000 + "}", "7: Exceeds the limit"),
        ('{"text": "a", "y": ' + "9" * 400 + "}", "row 7: '" + "9" * 400 + "' in y is not one of the labels"),
        ('{"text": "a", "y": ' + "[" * 100_000 + "]" * 100_000 + "}", "too deeply"),
        ('{"text": "a", "y": 0} {"text": "b", "y": 0}', "7: "),
        ('{"text": "a", "y": 0, "\\ud83d": 1}', "the name of a column has half of a character"),
    ],
)
@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_odd_values_of_json_are_refused_with_their_row(row: str, message: str, ending: str, tmp_path: Path) -> None:
    rows = [json.dumps(one) for one in twelve(y=0)]
    rows[6] = row
    path = tmp_path / f"a.{ending}"
    path.write_text(f"[{', '.join(rows)}]" if ending == "json" else "\n".join(rows))
    assert message in refused(entry(path, labels=YES_NO))


def test_values_of_many_types_are_read(tmp_path: Path) -> None:
    moment = dt.datetime(2024, 5, 1, 12, 30)
    columns = {
        "bytes": pa.array([b"caf\xc3\xa9"] * 12, pa.binary()),
        "large": pa.array(["big"] * 12, pa.large_string()),
        "category": pa.array(["red", "blue"] * 6).dictionary_encode(),
        "decimal": pa.array([decimal.Decimal("1.50")] * 12, pa.decimal128(5, 2)),
        "date": pa.array([moment.date()] * 12),
        "moment": pa.array([moment] * 12, pa.timestamp("us")),
        "single": pa.array([0.1] * 12, pa.float32()),
        "flag": pa.array([True] * 12),
        "number": pa.array([7] * 12, pa.uint8()),
        "list": pa.array([["not", "read"]] * 12),
        "text": pa.array([f"t{i:02}" for i in range(12)]),
        "y": pa.array([0.0, 1.0] * 6),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    fields = [name for name in columns if name not in ("list", "y")]
    first = read(entry(tmp_path / "a.parquet", fields=["text", *fields[:-1]], labels=YES_NO))[0]
    assert first.target == "no"
    assert dict(first.fields) == {
        "text": "t00",
        "bytes": "café",
        "large": "big",
        "category": "red",
        "decimal": "1.50",
        "date": "2024-05-01",
        "moment": "2024-05-01 12:30:00",
        "single": "0.1",
        "flag": "true",
        "number": "7",
    }
    assert "row 1: 'list' holds a list, not text" in refused(entry(tmp_path / "a.parquet", fields=["list"]))


def test_bytes_that_are_not_utf8_are_read_by_their_encoding(tmp_path: Path) -> None:
    texts = [f"t{i:02}".encode() for i in range(12)]
    texts[3] = "t03 café".encode("cp1252")
    pq.write_table(pa.table({"text": texts, "y": [0, 1] * 6}), tmp_path / "a.parquet")
    said = refused(entry(tmp_path / "a.parquet", labels=YES_NO))
    assert "row 4: 'text' holds bytes that are not UTF-8 (0xe9 at 7): give encoding" in said
    found = read(entry(tmp_path / "a.parquet", labels=YES_NO, encoding="cp1252"))
    assert found[3].fields["text"] == "t03 café"


def test_text_of_a_parquet_file_that_is_not_utf8_is_refused_with_its_row(tmp_path: Path) -> None:
    texts = [f"t{i:02}".encode() for i in range(12)]
    texts[5] = b"\xff\xfe"
    broken = pa.StringArray.from_buffers(12, *pa.array(texts, pa.binary()).buffers()[1:])
    pq.write_table(pa.table({"text": broken, "y": [0, 1] * 6}), tmp_path / "a.parquet")
    assert "row 6: " in refused(entry(tmp_path / "a.parquet", labels=YES_NO))


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_columns_of_one_name_are_refused(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    if ending == "parquet":
        texts = pa.array([f"t{i}" for i in range(12)])
        pq.write_table(pa.Table.from_arrays([texts, texts, pa.array([0, 1] * 6)], ["text", "text", "y"]), path)
    else:
        delimited(path, [["text", "text", "y"], *(["a", f"t{i}", "0"] for i in range(12))], None)
    assert "it has 2 columns 'text': give each a name of its own" in refused(entry(path, labels=YES_NO))


def test_cells_of_mixed_types_mean_the_same(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", twelve(y=[1, "1", 1.0, " 1 ", "1.0"]))
    assert {one.target for one in read(entry(path, labels=["0", "1"]))} == {"1"}


PIECES = [
    *(b"\0", b'"', b"\n", b"\r", b",", b"\t", b"\xff", b"\xed\xa0\x80", b"{", b"}", b"[", b"]", b"NaN", b"1e999", b"-"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"null", b"\\ud800", b"true", b"\xe9", b";", b'""'),
]


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_a_damaged_file_is_read_or_refused_in_one_line(ending: str, tmp_path: Path) -> None:
    rows, whole = twelve(y=[0, 1]), tmp_path / f"whole{ending}"
    if ending == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), whole)
    elif ending == ".json":
        whole.write_text(json.dumps(rows))
    elif ending == ".jsonl":
        lines(whole, rows)
    else:
        delimited(whole, [["text", "y"], *([f'"{row["text"]}', str(row["y"])] for row in rows)], csv.QUOTE_MINIMAL)
    rng = random.Random(ending)
    for number in range(40):
        content = bytearray(whole.read_bytes())
        for _ in range(rng.choice([1, 1, 2, 8])):
            place = rng.randrange(len(content) + 1)
            content[place : place + rng.choice([0, 0, 1, 5])] = rng.choice(PIECES)
        path = tmp_path / f"{number}{ending}"
        path.write_bytes(content if rng.random() < 0.9 else content[: len(content) // 2])
        said = ""
        try:
            read(entry(path, labels=YES_NO))
        except peftbench.UserError as error:
            said = str(error)
        assert "\n" not in said
        said.encode("utf-8")


# ---- the files of a trial -------------------------------------------------------------------------------------------


@pytest.mark.skipif(not CASES.is_dir(), reason="no shared cases")
@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("stray_code.csv", {"target": "stars", "labels": STARS}, "row 1: '0' in stars is not one of the labels"),
        ("surrogate.jsonl", {"labels": YES_NO}, "row 1: 'text' holds half of a character"),
        ("nan_target.jsonl", {"target": "a"}, "row 1: nothing in a"),
        ("duplicate_column.csv", {"labels": YES_NO}, "it has 2 columns 'text'"),
        ("classlabel_order.parquet", {"labels": ["bad", "good"]}, "row 1: 'neg' in y is not one of the labels"),
        ("cp1252.csv", {"labels": YES_NO}, "row 1, line 2; it may be cp1252, which would read 'café 0,0'"),
    ],
)
def test_files_of_a_trial_that_are_refused(name: str, given: dict[str, Any], message: str) -> None:
    assert message in refused(entry(CASES / name, **given))


@pytest.mark.skipif(not CASES.is_dir(), reason="no shared cases")
def test_files_of_a_trial_that_are_read() -> None:
    assert read(entry(CASES / "binary_text.parquet", labels=YES_NO))[0].fields == {"text": "film 0 was bad"}
    assert read(entry(CASES / "cp1252.csv", labels=YES_NO, encoding="cp1252"))[0].fields == {"text": "café 0"}
    assert [one.target for one in read(entry(CASES / "classlabel_order.parquet", labels=["neg", "pos"]))][:2] == [
        "neg",
        "pos",
    ]
    assert {one.target for one in read(entry(CASES / "chinese.jsonl", fields=["q"], target="a"))} == {"电影很好看"}


def test_a_column_of_names_and_of_places_is_refused_with_both_rows(tmp_path: Path) -> None:
    rows = twelve(y="yes")
    rows[6]["y"] = 1
    said = refused(entry(lines(tmp_path / "a.jsonl", rows), labels=YES_NO))
    assert "row 7: 'y' is a number, and in row 1 a name" in said
