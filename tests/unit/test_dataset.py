"""Reading labelled rows: every format, and every way a file can be wrong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from langchain_safeguard.evaluation.dataset import DatasetError, dataset_name, read_rows
from langchain_safeguard.taxonomy import Category

ROW = {"text": "hello", "unsafe": 0}


def lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def wrong(path: Path) -> str:
    with pytest.raises(DatasetError) as caught:
        read_rows(path)
    assert str(path) in str(caught.value)
    return str(caught.value).replace(str(path), "FILE")


FULL = {
    "id": "a1",
    "source": "made here",
    "licence": "MIT",
    "lang": "ko",
    "side": "output",
    "prompt": "어떻게?",
    "text": '이렇게,\n그리고 "저렇게"',
    "unsafe": 1,
    "categories": ["cybercrime", "fraud"],
    "split_group": "x",
}


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.json", "rows.ndjson.gz"])
def test_json_lines(tmp_path: Path, name: str) -> None:
    rows = read_rows(write(tmp_path / name, lines(FULL) + b"\n" + lines(ROW)))
    assert [row.unsafe for row in rows] == [True, False]
    first, second = rows
    assert first.text == FULL["text"]
    assert first.prompt == "어떻게?"
    assert first.categories == (Category.CYBERCRIME, Category.FRAUD)
    assert (first.id, first.lang) == ("a1", "ko")
    assert (second.id, second.side, second.categories) == ("3", "input", None)


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz"])
def test_csv(tmp_path: Path, name: str) -> None:
    text = (
        "\ufefftext,unsafe,side,prompt,categories,extra\r\n"
        '"a, ""quoted""\nline",1,output,why?,cybercrime; fraud,x\r\n'
        "bye,false,,,,\r\n"
    )
    rows = read_rows(write(tmp_path / name, text.encode()))
    assert rows[0].text == 'a, "quoted"\nline'
    assert rows[0].categories == (Category.CYBERCRIME, Category.FRAUD)
    assert rows[0].prompt == "why?"
    assert (rows[1].unsafe, rows[1].side, rows[1].prompt) == (False, "input", None)
    assert rows[1].categories is None


def test_an_answer_is_judged_behind_what_it_answers(tmp_path: Path) -> None:
    first, second = read_rows(write(tmp_path / "r.jsonl", lines(FULL, ROW)))
    assert [(t.role, t.text) for t in first.conversation.turns] == [
        ("user", "어떻게?"),
        ("assistant", FULL["text"]),
    ]
    assert [(t.role, t.text) for t in second.conversation.turns] == [("user", "hello")]


def test_a_gzip_by_another_name_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(gzip.compress(lines(ROW)))
    assert len(read_rows(path)) == 1


def test_texts_with_unusual_characters_survive(tmp_path: Path) -> None:
    texts = ["\u2028 line separator", "\ud800 lone surrogate", "\x00 nul", "", " ", "x" * 300_000]
    rows = read_rows(write(tmp_path / "r.jsonl", lines(*({**ROW, "text": t} for t in texts))))
    assert [row.text for row in rows] == texts
    long = write(tmp_path / "r.csv", b"text,unsafe\n" + b"x" * 300_000 + b",1\n")
    assert len(read_rows(long)[0].text) == 300_000


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"unsafe": 1}, "text=None; allowed: a string"),
        ({"text": 3, "unsafe": 1}, "text=3; allowed: a string"),
        ({"text": "x"}, "unsafe=None; allowed: 0, 1, false, true"),
        ({"text": "x", "unsafe": 2}, "unsafe=2; allowed: 0, 1, false, true"),
        ({"text": "x", "unsafe": 0.5}, "unsafe=0.5; allowed: 0, 1, false, true"),
        ({**ROW, "side": "user"}, "unknown side 'user'; allowed: input, output, tool_input"),
        ({**ROW, "side": "output", "prompt": 1}, "prompt=1; allowed: a string or null"),
        ({**ROW, "prompt": "why?"}, "a prompt with side='input'"),
        ({**ROW, "categories": "hate"}, "categories='hate'; allowed: a list of names or null"),
        ({**ROW, "categories": ["hat"]}, "unknown category 'hat'; allowed: violent_crimes, "),
        ([1, 2], "a row is an object with keys, not [1, 2]"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: Any, message: str) -> None:
    error = wrong(write(tmp_path / "r.jsonl", lines(ROW, row, ROW)))
    assert error.startswith("FILE, line 2: ")
    assert message in error


def test_all_wrong_rows_are_counted_and_the_first_described(tmp_path: Path) -> None:
    data = lines(ROW) + b"{nonsense\n" * 8 + lines(ROW)
    with pytest.raises(DatasetError) as caught:
        read_rows(write(tmp_path / "r.jsonl", data))
    assert caught.value.lines == list(range(2, 10))
    assert "line 2: not JSON: " in str(caught.value)
    assert "line 6: " in str(caught.value)
    assert "line 7: " not in str(caught.value)
    assert "and 3 more wrong rows" in str(caught.value)


def test_an_error_does_not_repeat_a_long_text(tmp_path: Path) -> None:
    error = wrong(write(tmp_path / "r.jsonl", lines({**ROW, "unsafe": "vile " * 1000})))
    assert len(error) < 200


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("r.jsonl", b"", "it has no rows"),
        ("r.jsonl", b"\n \n", "it has no rows"),
        ("r.csv", b"", "line 1: no column 'text'"),
        ("r.csv", b"text,unsafe\n", "it has no rows"),
        ("r.csv", b"hello,1\nbye,0\n", "the first line must name the columns"),
        ("r.csv", b"text,label\nx,1\n", "line 1: no column 'unsafe'"),
        ("r.csv", b"text,unsafe\nx,1,y\n", "line 2: 1 more cells than columns"),
        ("r.csv", b"text,side,unsafe\nx,input\n", "line 2: fewer cells than columns; unsafe"),
        ("r.csv", b"text,unsafe\nx,yes\n", "line 2: unsafe='yes'; allowed: 0, 1"),
        ("r.csv", b'text,unsafe\n"x,1\n', "line 2: not CSV: "),
        ("r.jsonl", lines(ROW) + b'{"text": "\xff"}\n', "line 2: it is not UTF-8 text"),
        ("r.jsonl", b"[" * 100_000, "line 1: not JSON: nested too deeply"),
        ("r.parquet", b"PAR1", "unknown extension '.parquet'; allowed: .jsonl, "),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    assert message in wrong(write(tmp_path / name, data))


def test_broken_gzip(tmp_path: Path) -> None:
    whole = gzip.compress(lines(*[{**ROW, "id": str(n)} for n in range(1000)]))
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(whole[: len(whole) // 2])
    assert "broken gzip" in wrong(cut)
    flipped = tmp_path / "flipped.jsonl.gz"
    flipped.write_bytes(whole[:20] + bytes([whole[20] ^ 255]) + whole[21:])
    assert "broken gzip" in wrong(flipped)
    empty = tmp_path / "empty.jsonl.gz"
    empty.write_bytes(b"")
    assert "it is empty" in wrong(empty)


def test_missing_file_and_directory(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in wrong(tmp_path / "no.jsonl")
    folder = tmp_path / "folder.jsonl"
    folder.mkdir()
    assert "cannot be read: Is a directory" in wrong(folder)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/xstest.jsonl.gz", "xstest"),
        ("xstest.csv", "xstest"),
        ("my.set.v2.jsonl", "my.set.v2"),
        ("rows.gz", "rows"),
        ("rows", "rows"),
    ],
)
def test_names(path: str, name: str) -> None:
    assert dataset_name(path) == name
