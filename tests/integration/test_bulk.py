"""Checking whole files: nothing is changed, lost or doubled, whatever happens on the way."""

from __future__ import annotations

import csv
import gzip
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import langchain_safeguard
from langchain_safeguard.bulk import CheckBatch, Summary, check_file
from langchain_safeguard.bulk.check_batch import ADDED
from langchain_safeguard.cli import main
from langchain_safeguard.errors import ConfigurationError
from tests.servers import interruptible
from tests.word_guard import FaultyGuard, WordGuard

ROOT = Path(langchain_safeguard.__file__).parent.parent
FORMATS = ["jsonl", "csv", "parquet"]

Rows = list[dict[str, Any]]


def write(path: Path, rows: Rows) -> Path:
    match path.suffix:
        case ".jsonl":
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            path.write_text("".join(lines), encoding="utf-8")
        case ".csv":
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(rows)
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)
    return path


def read(path: Path) -> Rows:
    match path.suffix:
        case ".jsonl":
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        case ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                return [*csv.DictReader(file)]
        case _:
            rows: Rows = pq.read_table(path).to_pylist()
            return rows


def some_rows(count: int) -> Rows:
    kinds = ["bread {}", "a bomb {}", "hate, {}", 'a "quoted"\nline {}', "폭탄 {} 😀"]
    return [{"text": kinds[n % 5].format(n), "number": n} for n in range(count)]


def own(row: dict[str, Any]) -> dict[str, Any]:
    return {name: str(value) for name, value in row.items() if name not in ADDED}


@pytest.mark.parametrize("suffix", FORMATS)
class TestFile:
    def test_each_row_gets_its_decision(self, tmp_path: Path, suffix: str) -> None:
        rows = some_rows(23)
        path = write(tmp_path / f"in.{suffix}", rows)
        guard = WordGuard()
        done = check_file(path, tmp_path / f"out.{suffix}", guard=guard, batch_size=5)
        checked = read(tmp_path / f"out.{suffix}")
        assert [*map(own, checked)] == [*map(own, rows)]
        for row in checked:
            bad = any(word in row["text"] for word in guard.words)
            assert row["safeguard_action"] == ("block" if bad else "allow")
            assert bool(row["safeguard_categories"]) is bad
            assert str(row["safeguard_failed"]) == "False"
        blocked = sum(row["safeguard_action"] == "block" for row in checked)
        assert done == Summary(23, 0, {"block": blocked, "allow": 23 - blocked}, 0)
        assert max(guard.batches) == 5
        assert sorted(each.name for each in tmp_path.iterdir()) == [f"in.{suffix}", f"out.{suffix}"]

    def test_the_same_again_is_refused_and_overwrite_does_it(
        self, tmp_path: Path, suffix: str
    ) -> None:
        path, out = write(tmp_path / f"in.{suffix}", some_rows(3)), tmp_path / f"out.{suffix}"
        check_file(path, out, guard=WordGuard())
        with pytest.raises(ConfigurationError, match="exists; overwrite it"):
            check_file(path, out, guard=WordGuard())
        write(path, some_rows(2))
        check_file(path, out, guard=WordGuard(), overwrite=True)
        assert len(read(out)) == 2

    def test_no_rows(self, tmp_path: Path, suffix: str) -> None:
        path, out = tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}"
        if suffix == "parquet":
            pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
        else:
            path.write_text("text\n" if suffix == "csv" else "")
        assert check_file(path, out, guard=WordGuard()).rows == 0
        assert read(out) == []

    def test_a_guard_that_fails_marks_each_row(self, tmp_path: Path, suffix: str) -> None:
        def fault() -> Any:
            raise RuntimeError("secret")

        path, out = write(tmp_path / f"in.{suffix}", some_rows(4)), tmp_path / f"out.{suffix}"
        done = check_file(path, out, guard=FaultyGuard(fault))
        assert (done.failed, done.actions) == (4, {"block": 4})
        assert {str(row["safeguard_failed"]) for row in read(out)} == {"True"}

    def test_after_an_error_it_goes_on(self, tmp_path: Path, suffix: str) -> None:
        """The rows in front of what stopped it are kept, and not judged again."""
        rows = some_rows(40)
        path, out = write(tmp_path / f"in.{suffix}", rows), tmp_path / f"out.{suffix}"
        stopped = _Stopping(WordGuard(), after=4)
        with pytest.raises(KeyboardInterrupt):
            check_file(path, out, guard=stopped, batch_size=3)
        assert not out.exists()
        guard = WordGuard()
        done = check_file(path, out, guard=guard, batch_size=7)
        assert (done.rows, done.resumed) == (40, 12)
        assert [text for _, text in guard.seen] == [row["text"] for row in rows[12:]]
        assert [*map(own, read(out))] == [*map(own, rows)]

    def test_other_rows_or_settings_do_not_go_on(self, tmp_path: Path, suffix: str) -> None:
        path, out = write(tmp_path / f"in.{suffix}", some_rows(40)), tmp_path / f"out.{suffix}"
        with pytest.raises(KeyboardInterrupt):
            check_file(path, out, guard=_Stopping(WordGuard(), after=4), batch_size=3)
        with pytest.raises(ConfigurationError, match="begun with another policy"):
            check_file(path, out, guard=WordGuard(), policy={"threshold": 0.2})
        for others in (some_rows(40)[1:], some_rows(5)):
            write(path, others)
            with pytest.raises(ConfigurationError, match="has changed"):
                check_file(path, out, guard=WordGuard())
        done = check_file(path, out, guard=WordGuard(), overwrite=True)
        assert (done.rows, done.resumed) == (5, 0)

    def test_other_columns_count_as_well(self, tmp_path: Path, suffix: str) -> None:
        """What is not judged is written, too: rows of two versions of a file are not mixed."""
        path, out = write(tmp_path / f"in.{suffix}", some_rows(40)), tmp_path / f"out.{suffix}"
        with pytest.raises(KeyboardInterrupt):
            check_file(path, out, guard=_Stopping(WordGuard(), after=4), batch_size=3)
        write(
            path,
            [{**row, "number": row["number"] + (n == 1)} for n, row in enumerate(some_rows(40))],
        )
        with pytest.raises(ConfigurationError, match="has changed"):
            check_file(path, out, guard=WordGuard())

    def test_a_full_disk_loses_nothing(self, tmp_path: Path, suffix: str) -> None:
        rows = [{"text": f"bread {n}", "more": os.urandom(400).hex()} for n in range(60)]
        path, out = write(tmp_path / f"in.{suffix}", rows), tmp_path / f"out.{suffix}"

        def small_files() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

        command = [sys.executable, "-c", SLOW, str(path), str(out)]
        full = subprocess.run(
            command, cwd=ROOT, preexec_fn=small_files, capture_output=True, text=True, check=False
        )
        assert f"{out} cannot be written: " in full.stderr
        assert "File too large; 60 rows are kept, run it again" in full.stderr
        assert full.returncode == 1 and not out.exists()
        assert check_file(path, out, guard=WordGuard(), batch_size=4, part_rows=8).resumed == 60
        assert [*map(own, read(out))] == [*map(own, rows)]


class _Stopping(WordGuard):
    """Stops the process, as Ctrl-C does, after some batches."""

    def __init__(self, guard: WordGuard, after: int) -> None:
        super().__init__(guard.words)
        self.left = after

    def check(self, conversations: Any, side: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().check(conversations, side)


SLOW = """
import sys
from langchain_safeguard.bulk import check_file
from tests.word_guard import WordGuard

path, out = sys.argv[1:]
check_file(path, out, guard=WordGuard(delay=0.02), batch_size=4, part_rows=8)
"""


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_killed_process_loses_and_doubles_nothing(tmp_path: Path, suffix: str) -> None:
    rows = some_rows(120)
    path, out = write(tmp_path / f"in.{suffix}", rows), tmp_path / f"out.{suffix}"
    begin: Callable[[], subprocess.Popen[bytes]] = lambda: subprocess.Popen(  # noqa: E731
        [sys.executable, "-c", SLOW, str(path), str(out)], cwd=ROOT
    )
    folder = tmp_path / f"out.{suffix}.parts"
    for wanted in (2, 5):
        process = begin()
        while len([*folder.glob("*.part")]) < wanted:
            assert process.poll() is None
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not out.exists()
    left = len([*folder.glob("*.part")])
    first = begin()
    # It is at work once it has done more than the process before it.
    while len([*folder.glob("*.part")]) <= left and first.poll() is None:
        time.sleep(0.001)
    second = subprocess.run(
        [sys.executable, "-c", SLOW, str(path), str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    # Nobody else may work on the same file meanwhile; if it was done by then, it is there.
    assert "another process is at work" in second.stderr or "exists" in second.stderr
    assert first.wait() == 0
    assert [*map(own, read(out))] == [*map(own, rows)]
    assert not folder.exists()


MEASURED = """
import sys
from pathlib import Path
from langchain_safeguard.bulk import check_file
from tests.word_guard import WordGuard

few, many, out = sys.argv[1:]
peaks = []
for path in (few, many):
    check_file(path, out, guard=WordGuard(), batch_size=64, part_rows=512, overwrite=True)
    status = Path("/proc/self/status").read_text()
    peaks.append(int(status.partition("VmHWM:")[2].split()[0]))
print(peaks[1] - peaks[0])
"""


def test_a_long_file_takes_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    paths = []
    for count in (1500, 15_000):
        rows = [{"text": f"bread {n}", "more": os.urandom(2000).hex()} for n in range(count)]
        paths.append(str(tmp_path / f"{count}.parquet"))
        # In one row group, as many programs write it.
        pq.write_table(pa.Table.from_pylist(rows), paths[-1], use_dictionary=False)
    measured = subprocess.run(
        [sys.executable, "-c", MEASURED, *paths, str(tmp_path / "out.parquet")],
        cwd=ROOT,
        # Arrow's own allocators keep what was let go, now more and now less of it.
        env={**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    # In KiB; the second file has 54 MB more.
    assert int(measured.stdout) < 30_000


def test_what_cannot_be_read_is_not_judged(tmp_path: Path) -> None:
    values = [None, 7, True, [], [{"role": "user", "content": "a bomb"}], ""]
    path = write(tmp_path / "in.jsonl", [{"text": "hello"}, *({"text": v} for v in values), {}])
    done = check_file(path, tmp_path / "out.jsonl", guard=WordGuard())
    actions = [row["safeguard_action"] for row in read(tmp_path / "out.jsonl")]
    failed = [row["safeguard_failed"] for row in read(tmp_path / "out.jsonl")]
    assert actions == ["allow", "block", "block", "block", "block", "block", "allow", "block"]
    assert failed == [False, True, True, True, True, False, False, True]
    assert done.failed == 5


def test_answers_are_judged_with_their_prompts(tmp_path: Path) -> None:
    path = write(tmp_path / "in.csv", [{"q": "How?", "a": "With a bomb."}, {"q": "?", "a": "So."}])
    guard = WordGuard()
    check_file(
        path,
        tmp_path / "out.csv",
        guard=guard,
        side="output",
        text_column="a",
        prompt_column="q",
    )
    assert [row["safeguard_action"] for row in read(tmp_path / "out.csv")] == ["block", "allow"]
    assert [c.turns[0].text for c in guard.contexts] == ["How?", "?"]


def test_what_is_rewritten_is_written(tmp_path: Path) -> None:
    path = write(tmp_path / "in.parquet", [{"text": "mail me: a@example.com"}, {"text": "hi"}])
    words = WordGuard({"@": "privacy"})
    policy = {
        "rules": [{"categories": "privacy", "action": "rewrite", "rewrite": {"redact": ["email"]}}]
    }
    check_file(path, tmp_path / "out.parquet", guard=words, policy=policy)
    assert [row["safeguard_text"] for row in read(tmp_path / "out.parquet")] == [
        "mail me: [EMAIL]",
        None,
    ]


@given(
    st.lists(
        st.dictionaries(
            st.text(max_size=5).filter(lambda name: name not in ADDED),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.text(max_size=8),
                lambda each: (
                    st.lists(each, max_size=3)
                    | st.dictionaries(st.text(max_size=3), each, max_size=3)
                ),
                max_leaves=5,
            ),
            max_size=4,
        ),
        max_size=12,
    ),
    st.integers(1, 5),
    st.integers(1, 5),
)
@settings(max_examples=40, deadline=None)
def test_json_comes_out_as_it_went_in(
    tmp_path_factory: pytest.TempPathFactory, rows: Rows, batch_size: int, part_rows: int
) -> None:
    rows = [{**row, "text": f"row {number}"} for number, row in enumerate(rows)]
    folder = tmp_path_factory.mktemp("rows")
    lines = [json.dumps(row, ensure_ascii=number % 2 == 0) for number, row in enumerate(rows)]
    (folder / "in.jsonl").write_bytes("\r\n\n".join(lines).encode("utf-8", "surrogatepass"))
    check_file(
        folder / "in.jsonl",
        folder / "out.jsonl",
        guard=WordGuard(),
        batch_size=batch_size,
        part_rows=part_rows,
    )
    out = (folder / "out.jsonl").read_bytes().decode("utf-8", "surrogatepass").split("\n")[:-1]
    assert len(out) == len(lines)
    for before, after in zip(lines, out, strict=True):
        assert after.startswith(before[:-1])
        added = json.loads(after)
        assert {name: added.pop(name) for name in ADDED}["safeguard_action"] == "allow"
        assert added == json.loads(before)


BROKEN = {
    "broken JSON": ("in.jsonl", b'{"text": "a"}\n{"text": \n', "line 2: not JSON"),
    "no object": ("in.jsonl", b"[1]\n", "line 1: a row is an object"),
    "not UTF-8": ("in.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', "line 2: it is not UTF-8"),
    "no column": ("in.jsonl", b'{"question": "a"}\n', "no column 'text'; there are: 'question'"),
    "added already": (
        "in.jsonl",
        b'{"text": "a", "safeguard_rule": 1}\n',
        "a column 'safeguard_rule' already",
    ),
    "broken gzip": ("in.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 9)[:-9], "cannot be read"),
    "CSV without the column": ("in.csv", b"a,b\n1,2\n", "no column 'text'"),
    "CSV with two of the column": ("in.csv", b"text,text\n1,2\n", "two columns 'text'"),
    "CSV with semicolons": ("in.csv", b"text;b\n1;2\n", "separated by ';'; allowed: ','"),
    "CSV with nothing in it": ("in.csv", b"\n\n", "it is empty; its first line names"),
    "CSV in UTF-16": ("in.csv", "text,b\n1,2\n".encode("utf-16"), "not UTF-8 text; convert it"),
    "CSV with more cells": ("in.csv", b"text,b\n1,2\n1,2,3\n", "line 3: 3 cells in 2 columns"),
    "CSV with an open quote": ("in.csv", b'text,b\n"1,2\n', "line 2: cannot be read"),
    "CSV that is not UTF-8": ("in.csv", b"text,b\n\xff,2\n", "not UTF-8"),
    "no Parquet": ("in.parquet", b"PAR1 and no more", "cannot be read"),
    "an unknown format": ("in.xlsx", b"", "unknown extension; allowed: .jsonl"),
}


@pytest.mark.parametrize("name", ["no.jsonl", "no.csv", "no.parquet", "."])
def test_a_file_that_is_not_there(tmp_path: Path, name: str) -> None:
    suffix = Path(name).suffix or ".jsonl"
    with pytest.raises(ConfigurationError, match=r"no such file|unknown extension"):
        check_file(tmp_path / name, tmp_path / f"out{suffix}", guard=WordGuard())
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, name: str) -> None:
    file, data, message = BROKEN[name]
    path = tmp_path / file
    path.write_bytes(data)
    out = tmp_path / f"out{Path(file.removesuffix('.gz')).suffix}"
    with pytest.raises(ConfigurationError) as caught:
        check_file(path, out, guard=WordGuard())
    assert message in str(caught.value)
    assert [*tmp_path.iterdir()] == [path]


def test_a_repaired_file_goes_on(tmp_path: Path) -> None:
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"}\n{"text": \n')
    with pytest.raises(ConfigurationError, match="line 3"):
        check_file(path, out, guard=WordGuard(), batch_size=1)
    path.write_text('{"text": "a"}\n{"text": "b"}\n{"text": "c"}\n')
    assert check_file(path, out, guard=WordGuard()).resumed == 2
    assert [row["text"] for row in read(out)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0; allowed: 1, 2"),
        ({"part_rows": True}, "part_rows=True; allowed: 1, 2"),
        ({"side": "sideways"}, "sideways"),
        ({"prompt_column": "q"}, "needs a side other than 'input'"),
        ({"out": "out.csv"}, "written to a .jsonl file"),
        ({"out": "in.jsonl"}, "it is the file that is read"),
        ({"out": "no/such/out.jsonl"}, "there is no folder"),
        ({"out": "folder.jsonl"}, "is a folder; name a file"),
    ],
)
def test_wrong_values(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "in.jsonl", some_rows(2))
    (tmp_path / "folder.jsonl").mkdir()
    out = tmp_path / options.pop("out", "out.jsonl")
    with pytest.raises(ConfigurationError, match=message):
        check_file(path, out, guard=WordGuard(), **options)
    assert read(path) == some_rows(2)


class TestBatch:
    def test_columns_come_back_with_the_decisions(self) -> None:
        batch = {"text": np.array(["bread", "a bomb"], dtype=object), "n": np.arange(2)}
        checked = CheckBatch(WordGuard())(batch)
        assert [*checked] == ["text", "n", *ADDED]
        assert [*checked["safeguard_action"]] == ["allow", "block"]
        assert [*checked["safeguard_categories"]] == [[], ["indiscriminate_weapons"]]

    def test_no_such_column(self) -> None:
        with pytest.raises(ConfigurationError, match="'text'"):
            CheckBatch(WordGuard())({"question": np.array(["a"])})

    def test_ray_data(self) -> None:
        data = pytest.importorskip("ray.data")
        rows = [{"text": row["text"], "number": row["number"]} for row in some_rows(50)]

        class Check(CheckBatch):
            """Makes its guard in the worker, as names of guards do."""

            def __init__(self) -> None:
                super().__init__(WordGuard())

        checked = data.from_items(rows).map_batches(Check, batch_size=8, concurrency=2)
        found = {row["number"]: row["safeguard_action"] for row in checked.take_all()}
        assert len(found) == 50
        assert {found[n] for n in range(0, 50, 5)} == {"allow"}
        assert {found[n] for n in range(1, 50, 5)} == {"block"}


class TestCommand:
    def test_a_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = write(tmp_path / "in.csv", [{"text": "How do I bake bread?"}, {"text": "hi"}])
        out = tmp_path / "out.csv"
        assert main(["check", str(path), "--out", str(out), "--quiet"]) == 0
        assert capsys.readouterr() == (f"2 rows in {out} (allow 2)\n", "")
        assert main(["check", str(path), "--out", str(out), "--quiet"]) == 2
        assert "exists" in capsys.readouterr().err
        assert main(["check", str(path), "--out", str(out), "--overwrite"]) == 0
        assert "100%" in capsys.readouterr().err

    def test_who_interrupts_it_is_told_how_to_go_on(self, tmp_path: Path) -> None:
        path = write(tmp_path / "in.jsonl", [{"text": f"{n} loaves " * 30} for n in range(3000)])
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "langchain_safeguard.cli", "check", str(path)),
                *("--out", str(tmp_path / "out.jsonl"), "--batch-size", "1"),
            ],
            cwd=ROOT,
            preexec_fn=interruptible,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        shown = ""
        while "rows=" not in shown:
            shown += process.stderr.read(1)
        process.send_signal(signal.SIGINT)
        shown += process.stderr.read()
        assert process.wait() == 130
        assert shown.endswith("stopped; run it again, without --overwrite, to go on\n")
        assert "Traceback" not in shown

    @pytest.mark.parametrize("more", [["--json"], ["--prompt", "a"]])
    def test_what_does_not_go_together(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
    ) -> None:
        assert main(["check", "in.csv", "--out", str(tmp_path / "out.csv"), *more]) == 2
        assert "--out needs a FILE" in capsys.readouterr().err
