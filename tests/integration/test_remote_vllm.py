"""The remote engine against real vLLM, where there is one.

vLLM does not go into the environment of the tests: it wants a torch of its own. Run with a Python
that has it: `SAFEGUARD_VLLM_PYTHON=/path/to/python pytest tests/integration/test_remote_vllm.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from langchain_safeguard import Conversation, WordVerdict
from tests.foreign_servers import ForeignServer
from tests.planted import checkpoint
from tests.remote_planted import (
    PLANTED,
    TEXTS,
    check_a_model_that_is_not_served_is_named,
    check_long_texts_are_read_in_windows,
    check_scores_agree,
    planted,
)

PYTHON = os.environ.get("SAFEGUARD_VLLM_PYTHON")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(PYTHON is None, reason="set SAFEGUARD_VLLM_PYTHON to a python with vllm"),
]


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    options = {
        "--model": str(checkpoint(PLANTED)),
        "--served-model-name": "planted",
        "--host": "127.0.0.1",
        "--max-model-len": "2048",
        "--max-num-seqs": "16",
        "--dtype": "float32",
    }

    def command(port: int) -> list[str]:
        words = [word for option in options.items() for word in option]
        program = [str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
        return [*program, "--port", str(port), *words]

    log = tmp_path_factory.mktemp("vllm") / "log"
    quiet = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with ForeignServer(command, log, **quiet) as server:
        yield server.url


@pytest.mark.parametrize("call", ["sync", "async"])
def test_remote_and_local_scores_agree(vllm: str, call: str) -> None:
    check_scores_agree(vllm, call)


def test_what_the_model_writes_agrees(vllm: str) -> None:
    family = WordVerdict(
        "Task: say whether the text is safe.\nUser: {text}\n[/INST]",
        safe="safe",
        unsafe="unsafe",
        categories={"O1": "violent_crimes", "O3": "other"},
    )
    conversations = [Conversation.of(text, "input") for text in TEXTS]
    here = planted(family=family).check(conversations, "input")
    there = planted(vllm, family=family).check(conversations, "input")
    for one, other in zip(here, there, strict=True):
        assert other.score == pytest.approx(one.score, abs=0.02)
        assert [each.code for each in other.findings] == [each.code for each in one.findings]


def test_the_context_is_learned_and_long_texts_are_read_in_windows(vllm: str) -> None:
    check_long_texts_are_read_in_windows(vllm)


def test_a_model_that_is_not_served_is_named(vllm: str) -> None:
    check_a_model_that_is_not_served_is_named(vllm)
