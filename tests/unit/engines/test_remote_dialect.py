"""Answers of servers: whatever they hold, they are read or refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_safeguard.engines.remote.bounds import Listing
from langchain_safeguard.engines.remote.dialect import completions, listed, tokens_read, written
from langchain_safeguard.errors import GuardOutputError

PROMPTS = [[1, 2, 3], [4]]
numbers = st.one_of(st.integers(), st.just(10**400), st.floats(), st.just(-0.5))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.sampled_from(["", "token_id:5", "a"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["index", "id", "token", "logprob", "token_id:7", "top_logprobs", "content", "a"]
            ),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=8,
)
choices = st.fixed_dictionaries(
    {},
    optional={
        "index": st.one_of(st.sampled_from([0, 1]), values),
        "text": values,
        "token_ids": values,
        "logprobs": st.one_of(
            values,
            st.fixed_dictionaries(
                {}, optional={"top_logprobs": values, "content": values, "tokens": values}
            ),
        ),
    },
)
answers = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.one_of(values, st.lists(choices, max_size=3)),
        "usage": st.one_of(values, st.just({"prompt_tokens": 4})),
    },
)


@given(answers)
def test_an_answer_is_read_or_refused(answer: Any) -> None:
    try:
        given = completions(answer, PROMPTS)
    except GuardOutputError:
        return
    assert len(given) == 2
    assert tokens_read(answer) in (4, None)
    for each in given:
        for read in (written, _listing):
            try:
                read(each)
            except GuardOutputError:
                continue


def _listing(completion: dict[str, Any]) -> Listing:
    entries = tuple(
        (frozenset({key if isinstance(key, int) else 0}), value)
        for key, value in listed(completion)
    )
    return Listing(entries, complete=False)


def answer(*choices: dict[str, Any], **more: Any) -> Any:
    # As it comes over the wire.
    return json.loads(json.dumps({"choices": choices, **more}))


def test_completions_are_put_in_the_order_of_the_prompts() -> None:
    found = completions(answer({"index": 1, "text": "b"}, {"index": 0, "text": "a"}), PROMPTS)
    assert [each["text"] for each in found] == ["a", "b"]


@pytest.mark.parametrize(
    "wrong",
    [
        answer({"index": 0}),
        answer({"index": 0}, {"index": 0}),
        answer({"index": 0}, {"index": 2}),
        answer({"index": 0}, {"index": 1}, usage={"prompt_tokens": 3}),
        {"choices": None},
        {},
    ],
)
def test_an_answer_to_something_else_is_refused(wrong: Any) -> None:
    with pytest.raises(GuardOutputError):
        completions(wrong, PROMPTS)


def test_tokens_are_named_in_three_ways() -> None:
    by_id = {"logprobs": {"top_logprobs": [{"token_id:5": -0.5, "token_id:7": -1}]}}
    by_text = {"logprobs": {"top_logprobs": [{" safe": -0.5, "token_id:x": -1.0}]}}
    entries = [{"id": 5, "token": " safe", "logprob": -0.5}, {"token": "x", "logprob": -1.0}]
    native = {"logprobs": {"content": [{"id": 5, "top_logprobs": entries}]}}
    assert listed(by_id) == [(5, -0.5), (7, -1)]
    assert listed(by_text) == [(" safe", -0.5), ("token_id:x", -1.0)]
    assert listed(native) == [(5, -0.5), ("x", -1.0)]


def test_what_is_no_number_stays_so_on_the_way() -> None:
    nan = answer({"index": 0, "logprobs": {"top_logprobs": [{"token_id:5": math.nan}]}})
    [(key, value)] = listed(nan["choices"][0])
    assert key == 5
    assert math.isnan(value)


def test_what_was_written_is_named_by_ids_where_it_can_be() -> None:
    assert written({"text": "a", "token_ids": [1, 2]}) == [1, 2]
    assert written({"text": "a", "logprobs": {"tokens": ["token_id:1", "token_id:2"]}}) == [1, 2]
    assert written({"text": "a", "logprobs": {"content": [{"id": 1}, {"id": 2}]}}) == [1, 2]
    assert written({"text": "a", "logprobs": {"tokens": ["a", "token_id:2"]}}) == "a"
    assert written({"text": "a", "token_ids": None}) == "a"
