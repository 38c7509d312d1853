"""All that an error can say is found, wherever in it that stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage
from pydantic import BaseModel, ValidationError

from langchain_safeguard import GuardError
from langchain_safeguard.holding.error_words import text_of_error, words_of

SECRET = "the unsafe answer"


class Bare(Exception):
    """Says nothing in its message."""

    def __init__(self, **kept: Any) -> None:
        super().__init__()
        self.__dict__.update(kept)

    def __str__(self) -> str:
        return "failed"


class Number(BaseModel):
    number: int


@dataclass
class Completion:
    choices: list[Any]


def noted(error: Exception) -> Exception:
    error.add_note(SECRET)
    return error


def led_by(error: Exception, *, hidden: bool = False) -> Exception:
    after = ValueError("failed")
    after.__context__ = error
    if hidden:
        after.__cause__ = KeyError("other")
    return after


def invalid(value: str) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        Number(number=value)  # type: ignore[arg-type]
    return caught.value


class Silent(ValueError):
    def __str__(self) -> str:
        return "failed"


ERRORS: dict[str, Exception] = {
    "message": ValueError(SECRET),
    "argument": Silent("x", SECRET),
    "note": noted(ValueError("failed")),
    "context": led_by(ValueError(SECRET)),
    "context beside a cause": led_by(ValueError(SECRET), hidden=True),
    "group": ExceptionGroup("failed", [KeyError("x"), ExceptionGroup("y", [ValueError(SECRET)])]),
    "parser": OutputParserException("failed", llm_output=SECRET),
    "message of a model": Bare(completion=AIMessage([{"type": "text", "text": SECRET}])),
    "object": Bare(completion=Completion([{"message": {"content": SECRET}}])),
    "key": Bare(body={SECRET: 1}),
    "bytes": Bare(output=SECRET.encode()),
    "validation": invalid("x" * 60 + SECRET + "x" * 60),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_what_an_error_says_is_found(error: Exception) -> None:
    assert SECRET in text_of_error(error)


def test_nothing_is_told_twice() -> None:
    error = OutputParserException(f"cannot parse {SECRET}", llm_output=SECRET)
    assert text_of_error(error).count(SECRET) == 1


def test_errors_of_ours_say_nothing_but_what_led_to_them_may() -> None:
    assert words_of(GuardError("no verdict")) == []
    error = GuardError("no verdict")
    error.__cause__ = ValueError(SECRET)
    assert words_of(error) == [SECRET]


def test_errors_that_lead_to_each_other_end() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__context__, two.__context__ = two, one
    assert words_of(one) == ["one", "two"]


def test_what_cannot_hold_words_is_left_alone() -> None:
    class Client:
        """Would fail if it was looked at."""

        def __str__(self) -> str:
            raise AssertionError

    assert words_of(Bare(client=Client(), numbers=[1, 2.0, None], kind=int)) == ["failed"]
