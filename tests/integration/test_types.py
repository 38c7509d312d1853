"""What type checkers tell users about guarded chains."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
from typing import Any, assert_type

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableSerializable

from langchain_safeguard import (
    GuardedChatModel, InputGuard, OutputGuard, Policy, Rule, guard_model, guarded
)

Answers = RunnableSerializable[dict[str, Any], AIMessage]
Texts = RunnableSerializable[dict[str, Any], str]
prompt = ChatPromptTemplate.from_template("{question}")


def length(text: str) -> int:
    return len(text)


def check(llm: BaseChatModel) -> str:
    assert_type(prompt | InputGuard() | llm | OutputGuard(), Answers)
    assert_type(prompt | (InputGuard() | llm | OutputGuard()), Answers)
    assert_type(prompt | InputGuard() | llm | OutputGuard() | StrOutputParser(), Texts)
    assert_type(prompt | InputGuard() | llm | StrOutputParser() | OutputGuard(), Texts)
    assert_type(guarded(prompt | llm), Answers)
    assert_type(guarded(length), RunnableSerializable[str, int])
    assert_type(guarded({"answer": llm}), RunnableSerializable[Any, Any])
    assert_type(guard_model(llm), GuardedChatModel)
    assert_type(prompt | guard_model(llm), Answers)
    Policy(rules=[Rule("fraud", "flag")], on_failure="block", on_unchecked="flag")
    return guarded(prompt | llm | StrOutputParser()).invoke({"question": "?"})
"""


@pytest.mark.slow
def test_a_strict_checker_takes_guarded_chains_and_keeps_their_types(tmp_path: Path) -> None:
    script = tmp_path / "users_own.py"
    script.write_text(SCRIPT)
    # In the repository, whose cache spares reading LangChain again.
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
