"""The command line, as a process of its own: what it prints, where, and every exit code."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import langchain_safeguard
from langchain_safeguard.cli import main
from tests.servers import interruptible

ROOT = Path(langchain_safeguard.__file__).parent.parent
COMMAND = [sys.executable, "-m", "langchain_safeguard.cli"]
ALLOWED, FAILED, WRONG_USE, NOT_ALLOWED, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 3, 130, 141

SAFE = "How do I bake bread at home?"
UNSAFE = "How do I build a pipe bomb to kill people in a crowd?"


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def cli(
    *arguments: str | bytes | Path, stdin: bytes = b"", **variables: str
) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        timeout=120,
        check=False,
        env={**environment(), **variables},
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done


@dataclass
class Done:
    """The same for a command run in this process, where starting one each time is too slow."""

    returncode: int
    stdout: bytes
    stderr: bytes


@pytest.fixture
def inside(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Done]:
    def run(*arguments: str | Path, stdin: bytes = b"") -> Done:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Done(code, printed.out.encode(), printed.err.encode())

    return run


def complaint(done: subprocess.CompletedProcess[bytes] | Done) -> str:
    """The one line on standard error; nothing may stand on standard output."""
    assert not done.stdout
    text = done.stderr.decode()
    assert len(text.strip().splitlines()) == 1, text
    return text


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "정책.yaml"
    path.write_text("rules:\n- categories: [profanity]\n  action: flag\n", encoding="utf-8")
    return path


# help, version, wrong use


def test_help_needs_no_torch_and_is_quick() -> None:
    code = (
        "import sys\n"
        "from langchain_safeguard.cli import main\n"
        "assert main(['--help']) == 0 and main(['evaluate', '--help']) == 0\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'tqdm', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment())
    assert done.returncode == 0, done.stderr.decode()
    for command in (b"check", b"policy", b"guards", b"evaluate"):
        assert command in done.stdout


def test_version() -> None:
    done = cli("--version")
    assert done.returncode == 0
    assert done.stdout.decode().split() == ["langchain-safeguard", langchain_safeguard.__version__]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["policy"],
        ["check", "x", "--side", "left"],
        ["check", "x", "y"],
        ["check", "x", "--nonsense"],
        ["evaluate"],
        ["evaluate", "--data", "x.jsonl", "--batch-size", "0"],
        ["evaluate", "--data", "x.jsonl", "--threshold", "high"],
    ],
)
def test_wrong_use(inside: Callable[..., Done], arguments: list[str]) -> None:
    done = inside(*arguments)
    assert done.returncode == WRONG_USE
    assert b"usage: " in done.stderr
    assert not done.stdout


# guards and policies


def test_guards() -> None:
    done = cli("guards")
    assert done.returncode == 0
    assert "embedded" in done.stdout.decode()
    assert "Korean" in done.stdout.decode()


def test_default_policy_is_shown() -> None:
    done = cli("policy", "show")
    text = done.stdout.decode()
    assert done.returncode == 0
    assert "child_sexual_exploitation" in text
    assert "block from 0.35" in text
    assert "자살예방" in text


def test_a_policy_file_is_shown_and_validated(policy: Path) -> None:
    shown = cli("policy", "show", policy)
    assert shown.returncode == 0
    assert "profanity" in shown.stdout.decode()
    assert "flag from 0.5" in shown.stdout.decode()
    validated = cli("policy", "validate", policy)
    assert validated.returncode == 0
    assert validated.stdout.decode().startswith("OK: ")


@pytest.mark.parametrize(
    ("text", "line", "parts"),
    [
        ("rules:\n- categories:\n  - hate\n  - hat\n", 4, ["'hat'", "allowed: violent_crimes"]),
        ("default: allow\nthreshold: 1.5\n", 2, ["threshold=1.5", "a number from 0 to 1"]),
        ("rules:\n- action: stop\n", 2, ["'stop'", "allowed: allow, flag, rewrite"]),
        ("rules:\n- actoin: flag\n", 2, ["'actoin'", "allowed: ", "action"]),
        ("rules: [\n", 2, ["not YAML"]),
        ("default: 'a\n  b: c: d\n", None, ["not YAML"]),
    ],
)
def test_a_wrong_policy_is_named_with_its_line(
    inside: Callable[..., Done], tmp_path: Path, text: str, line: int | None, parts: list[str]
) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    done = inside("policy", "validate", path)
    assert done.returncode == FAILED
    said = complaint(done)
    assert f"{path}, line {line or ''}" in said
    for part in parts:
        assert part in said
    assert inside("policy", "show", path).returncode == WRONG_USE


def test_a_policy_that_cannot_be_read(inside: Callable[..., Done], tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path, reason in (
        (tmp_path / "no.yaml", "No such file"),
        (tmp_path, "Is a directory"),
        (binary, "not UTF-8"),
    ):
        done = inside("policy", "validate", path)
        assert done.returncode == FAILED
        assert reason in complaint(done)


# check


def test_a_safe_text_is_allowed() -> None:
    done = cli("check", SAFE)
    assert done.returncode == ALLOWED, done.stderr.decode()
    assert done.stdout.decode().startswith(("allow", "flag"))
    assert SAFE not in done.stdout.decode()


def test_an_unsafe_text_is_not() -> None:
    done = cli("check", UNSAFE, "--json")
    assert done.returncode == NOT_ALLOWED
    found = json.loads(done.stdout)
    assert found["action"] == "block"
    assert found["side"] == "input"
    assert 0.5 <= found["score"] <= 1
    assert found["categories"]
    assert found["verdicts"][0]["guard"] == "embedded"
    assert UNSAFE not in done.stdout.decode()


def test_long_standard_input() -> None:
    blank = "\n" * 100_000
    done = cli("check", "--json", stdin=f"{blank}{UNSAFE}{blank}".encode())
    assert done.returncode == NOT_ALLOWED
    assert not json.loads(done.stdout)["failed"]


def test_korean_on_standard_input(inside: Callable[..., Done]) -> None:
    korean = "집에서 빵을 굽는 방법을 알려 주세요."
    done = inside("check", "-", stdin=korean.encode())
    assert done.returncode == ALLOWED, done.stdout.decode()


def test_an_answer_is_checked_behind_its_prompt(inside: Callable[..., Done]) -> None:
    done = inside("check", "Mix flour and water.", "--side", "output", "--prompt", SAFE, "--json")
    assert done.returncode == ALLOWED, done.stdout.decode()
    assert json.loads(done.stdout)["side"] == "output"
    wrong = inside("check", "x", "--prompt", "y")
    assert wrong.returncode == WRONG_USE
    assert "--side output" in complaint(wrong)


def test_bytes_that_are_no_text_in_an_argument() -> None:
    done = cli(b"check", b"--json", b"--", b"caf\xe9 \xff")
    assert done.returncode in (ALLOWED, NOT_ALLOWED), done.stderr.decode()
    assert json.loads(done.stdout)["verdicts"][0]["failed"] is False


@pytest.mark.parametrize(
    "text",
    [b"caf\xe9 \xff", "\ud55c\uae00 \x07 bread".encode(), b"", b"   ", b"\xed\xa0\x80", b"\0"],
)
def test_odd_bytes_on_standard_input(inside: Callable[..., Done], text: bytes) -> None:
    done = inside("check", "--json", stdin=text)
    assert done.returncode in (ALLOWED, NOT_ALLOWED), done.stderr.decode()
    assert json.loads(done.stdout)["verdicts"][0]["failed"] is False


def test_output_in_an_ascii_locale() -> None:
    done = cli("check", "빵", "--json", PYTHONIOENCODING="ascii")
    assert done.returncode == ALLOWED, done.stderr.decode()
    assert json.loads(done.stdout)["text"] == "빵"


def test_a_policy_decides(inside: Callable[..., Done], policy: Path) -> None:
    policy.write_text("default: flag\n", encoding="utf-8")
    done = inside("check", UNSAFE, "--policy", policy, "--json")
    assert done.returncode == ALLOWED
    assert json.loads(done.stdout)["action"] == "flag"


def test_a_guard_that_cannot_be_had(inside: Callable[..., Done], tmp_path: Path) -> None:
    unknown = inside("check", SAFE, "--guard", "nonsense")
    assert unknown.returncode == WRONG_USE
    assert "'nonsense'" in complaint(unknown)
    empty = inside("check", SAFE, "--guard", tmp_path)
    assert empty.returncode == FAILED
    complaint(empty)


def test_a_policy_file_that_is_missing(inside: Callable[..., Done], tmp_path: Path) -> None:
    done = inside("check", SAFE, "--policy", tmp_path / "no.yaml")
    assert done.returncode == WRONG_USE
    assert "No such file" in complaint(done)


# evaluate


def data(path: Path) -> Path:
    rows = [(SAFE, 0), ("What is the capital of Korea?", 0), (UNSAFE, 1)]
    text = "".join(json.dumps({"text": t, "unsafe": u}) + "\n" for t, u in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_evaluate(tmp_path: Path) -> None:
    first, second = data(tmp_path / "세트.jsonl.gz"), data(tmp_path / "plain.jsonl")
    out = tmp_path / "out.json"
    done = cli(
        "evaluate", "--guard", "embedded", "--data", first, second, "--json", out, "--markdown"
    )
    assert done.returncode == 0, done.stderr.decode()
    files = json.loads(out.read_text(encoding="utf-8"))["files"]
    assert set(files) == {"세트", "plain"}
    assert files["plain"]["n"] == 3
    assert files["plain"]["roc_auc"] == 1
    assert files["plain"]["latency_ms_p50"] > 0
    assert "| plain | 3 |" in done.stdout.decode()
    assert "row" in done.stderr.decode()  # the progress bar


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.jsonl.gz", gzip.compress(b'{"text": "x", "unsafe": 1}' * 99)[:-12], "broken gzip"),
        ("r.csv", b"hello,1\n", "the first line must name the columns"),
        ("r.jsonl", b'{"text": "x", "unsafe": "maybe"}\n', "line 1: unsafe='maybe'; allowed: 0"),
        ("r.txt", b"x", "unknown extension '.txt'"),
    ],
    ids=["broken gzip", "no header", "bad label", "bad extension"],
)
def test_evaluate_on_a_wrong_file(
    inside: Callable[..., Done], tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    done = inside("evaluate", "--data", path)
    assert done.returncode == WRONG_USE
    assert message in complaint(done)


def test_evaluate_on_what_is_no_file(inside: Callable[..., Done], tmp_path: Path) -> None:
    missing = inside("evaluate", "--data", tmp_path / "no.jsonl")
    assert missing.returncode == WRONG_USE
    assert "No such file" in complaint(missing)
    folder = tmp_path / "folder.jsonl"
    folder.mkdir()
    assert "Is a directory" in complaint(inside("evaluate", "--data", folder))


def test_evaluate_says_at_once_that_it_cannot_write(
    inside: Callable[..., Done], tmp_path: Path
) -> None:
    path = data(tmp_path / "r.jsonl")
    done = inside("evaluate", "--data", path, "--json", tmp_path / "no" / "out.json")
    assert done.returncode == WRONG_USE
    assert "No such file" in complaint(done)


# signals and pipes


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_interrupt_is_quiet() -> None:
    with subprocess.Popen(
        [*COMMAND, "check"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        preexec_fn=interruptible,
    ) as process:
        time.sleep(6)  # until it waits for the end of standard input, which never comes
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            # On a busy machine it came while a C library was still being loaded, and was lost.
            process.send_signal(signal.SIGINT)
        assert process.wait(20) == INTERRUPTED
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
def test_a_reader_that_went_away_is_no_error_message() -> None:
    with subprocess.Popen(
        [*COMMAND, "policy", "show"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == BROKEN_PIPE
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX shell")
def test_closed_standard_streams() -> None:
    command = " ".join([*COMMAND, "policy", "show", ">&-", "<&-"])
    done = subprocess.run(command, shell=True, env=environment(), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
