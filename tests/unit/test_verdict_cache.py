"""Verdicts of texts that were judged before are not computed again, and never the wrong ones."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from langchain_safeguard import (
    ConfigurationError,
    Conversation,
    Decision,
    Finding,
    Guard,
    InputGuard,
    OutputGuard,
    Safeguard,
    Side,
    Turn,
    Verdict,
    VerdictCache,
)
from langchain_safeguard.taxonomy import Category
from langchain_safeguard.verdict import Span
from tests.chat_models import StreamingChatModel
from tests.word_guard import FaultyGuard, WordGuard

Way = Callable[[Safeguard, Any], Decision]
WAYS: dict[str, Way] = {
    "check": lambda safeguard, value: safeguard.check(value),
    "acheck": lambda safeguard, value: asyncio.run(safeguard.acheck(value)),
    "batch": lambda safeguard, value: safeguard.batch([value])[0],
    "abatch": lambda safeguard, value: asyncio.run(safeguard.abatch([value]))[0],
}


@pytest.fixture(params=WAYS)
def decided(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


@pytest.mark.parametrize("text", ["good morning", "hate", "폭탄", "\ud800 hate"])
def test_a_text_is_judged_once_and_decided_the_same(decided: Way, text: str) -> None:
    guard = WordGuard()
    safeguard = Safeguard(guard)
    first, again = decided(safeguard, text), safeguard.check(text)
    assert again == first
    assert decided(safeguard, text) == first
    assert len(guard.seen) == 1
    assert safeguard.cache is not None
    assert safeguard.cache.stats == {"hits": 2, "misses": 1, "entries": 1}


def test_without_a_cache_each_text_is_judged_each_time(decided: Way) -> None:
    guard = WordGuard()
    safeguard = Safeguard(guard, cache=None)
    assert decided(safeguard, "hate") == decided(safeguard, "hate")
    assert len(guard.seen) == 2
    assert safeguard.cache is None


def test_of_a_batch_only_what_is_new_is_judged() -> None:
    guard = WordGuard()
    safeguard = Safeguard(guard)
    safeguard.check("hate")
    decisions = safeguard.batch(["one", "hate", "two", "x" * 300_000])
    assert [decision.blocked for decision in decisions] == [False, True, False, True]
    assert [text for _, text in guard.seen] == ["hate", "one", "two"]
    assert guard.batches == [1, 2]
    # What is too long is refused anew, and not counted.
    assert safeguard.cache is not None
    assert safeguard.cache.stats == {"hits": 1, "misses": 3, "entries": 3}


class _Detailed(Guard):
    """Gives all that a verdict can hold."""

    name = "detailed"
    revision = "1"

    def __init__(self) -> None:
        self.calls = 0

    def check(self, conversations: Sequence[Conversation], side: Side) -> list[Verdict]:
        self.calls += 1
        verdict = Verdict(
            self.name,
            self.revision,
            findings=(Finding(Category.HATE, 0.25, "O3"), Finding(Category.FRAUD)),
            score=0.25,
            unchecked=("image",),
            explanation="In its own words.",
            spans=(Span(0, 3, 0.25),),
            dropped_turns=2,
            tokens=7,
            latency_ms=1.5,
        )
        return [verdict] * len(conversations)


def test_a_verdict_comes_back_with_all_that_it_holds(decided: Way) -> None:
    guard = _Detailed()
    safeguard = Safeguard(guard)
    first, again = decided(safeguard, "text"), decided(safeguard, "text")
    assert guard.calls == 1
    assert first.verdicts[0].latency_ms == 1.5
    # But no guard was asked: what took time is told once.
    assert again.verdicts == (replace(first.verdicts[0], latency_ms=0.0),)
    assert again.unchecked == first.unchecked == ("image",)


@pytest.mark.parametrize("way", ["batch", "abatch"])
def test_a_text_that_stands_in_a_batch_twice_is_judged_once(way: str) -> None:
    guard, detailed = WordGuard(), _Detailed()
    safeguard = Safeguard([guard, detailed])
    texts = ["hate", "tea", "hate", "x" * 300_000, "tea", "hate"]
    decisions = safeguard.batch(texts) if way == "batch" else asyncio.run(safeguard.abatch(texts))
    scores = [decision.verdicts[0].score for decision in decisions]
    assert scores == [0.9, 0.01, 0.9, None, 0.01, 0.9]
    assert decisions[3].blocked
    assert [text for _, text in guard.seen] == ["hate", "tea"]
    took = [decision.verdicts[1].latency_ms for decision in decisions]
    assert took == [1.5, 1.5, 0.0, None, 0.0, 0.0]
    assert safeguard.cache is not None
    # Of each guard: two texts were new, three known by then.
    assert safeguard.cache.stats == {"hits": 6, "misses": 4, "entries": 4}


def test_without_a_cache_each_text_of_a_batch_is_judged() -> None:
    guard = WordGuard()
    Safeguard(guard, cache=None).batch(["hate", "hate"])
    assert guard.batches == [2]


def test_a_text_that_cannot_be_judged_fails_wherever_it_stands_in_a_batch() -> None:
    safeguard = Safeguard(FaultyGuard(lambda: 1 / 0), attempts=1)
    assert all(decision.blocked for decision in safeguard.batch(["tea", "tea", "coffee"]))


class _LastTurn(WordGuard):
    """Looks at nothing but what it judges."""

    def reads(self, conversation: Conversation, side: Side) -> object:
        if len(conversation.turns) > 3:
            raise RuntimeError("too many")
        return conversation.checked(side).text


@pytest.mark.parametrize("turns", [1, 3, 5])
def test_a_guard_may_say_what_its_verdict_depends_on(turns: int) -> None:
    guard = _LastTurn()
    safeguard = Safeguard(guard)
    for said in ("one", "other"):
        before = [HumanMessage(said), AIMessage(said)] * (turns // 2)
        assert safeguard.check([*before, HumanMessage("hate")]).blocked
    # One that fails to say it is taken to depend on everything.
    assert len(guard.seen) == (2 if turns > 3 else 1)


def test_the_embedded_guard_is_not_asked_again_because_of_turns_it_does_not_read() -> None:
    safeguard = Safeguard(audit=None)
    assert safeguard.cache is not None
    for system in ("Be kind.", "Be brief."):
        safeguard.check([SystemMessage(system), HumanMessage("How do I bake bread?")])
        safeguard.check([SystemMessage(system), HumanMessage("a"), AIMessage("b")], side="output")
        safeguard.check([HumanMessage(system), AIMessage("b")], side="output")
    # What answers were given to is read.
    assert safeguard.cache.stats["misses"] == 4
    assert safeguard.cache.stats["hits"] == 2


TALKS: dict[str, tuple[Any, Side]] = {
    "plain": ("a\nb", "input"),
    "two messages": ([HumanMessage("a"), HumanMessage("b")], "input"),
    "another role": ([SystemMessage("a"), HumanMessage("b")], "input"),
    "a conversation": ([HumanMessage("a"), AIMessage("b"), HumanMessage("c")], "input"),
    "another context": ([HumanMessage("z"), AIMessage("b"), HumanMessage("c")], "input"),
    "another answer": ([HumanMessage("a"), AIMessage("z"), HumanMessage("c")], "input"),
    "an image": (
        [HumanMessage([{"type": "text", "text": "a\nb"}, {"type": "image", "url": "x"}])],
        "input",
    ),
    "the other side": ([HumanMessage("a"), AIMessage("b")], "output"),
    "a tool's side": ([HumanMessage("a"), AIMessage("b")], "tool_input"),
    "looks like two turns": ("a', ()), ('user', 'b", "input"),
}


def test_another_role_side_context_or_part_is_another_question() -> None:
    guard = WordGuard()
    safeguard = Safeguard(guard)
    for value, side in TALKS.values():
        safeguard.check(value, side=side)
    assert len(guard.seen) == len(TALKS)
    for value, side in TALKS.values():
        safeguard.check(value, side=side)
    assert len(guard.seen) == len(TALKS)


TURNS = st.lists(
    st.builds(
        Turn,
        st.sampled_from(["system", "user", "assistant", "tool"]),
        st.text("ab'\\(),", max_size=4),
        st.lists(st.sampled_from(["image", "audio"]), max_size=1).map(tuple),
    ),
    max_size=3,
).map(lambda turns: Conversation((*turns, Turn("user", "end"))))


@settings(deadline=None)
@given(TURNS, TURNS)
def test_two_conversations_share_a_verdict_only_if_they_are_equal(
    one: Conversation, other: Conversation
) -> None:
    guard = WordGuard()
    safeguard = Safeguard(guard, audit=None)
    safeguard.check(one)
    safeguard.check(other)
    assert len(guard.seen) == (1 if one == other else 2)


def test_a_policy_decides_anew_about_a_known_verdict() -> None:
    guard = WordGuard()
    safeguard = Safeguard(guard)
    assert safeguard.check("hate").blocked
    assert safeguard.variant({"default": "flag"}).check("hate").action == "flag"
    assert len(guard.seen) == 1


FAULTS: dict[str, Callable[[], Any]] = {
    "raises": lambda: 1 / 0,
    "says it failed": lambda: [Verdict("faulty", failed=True)],
    "scores nan": lambda: [Verdict("faulty", score=float("nan"))],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_is_not_remembered(decided: Way, fault: str) -> None:
    faults = [FAULTS[fault], lambda: [Verdict("faulty", score=0.0)]]
    safeguard = Safeguard(FaultyGuard(lambda: faults.pop(0)()), attempts=1)
    assert decided(safeguard, "hello").blocked
    assert decided(safeguard, "hello").passes
    assert decided(safeguard, "hello").passes
    assert not faults


@pytest.mark.parametrize("way", ["draft", "adraft"])
def test_texts_that_still_grow_are_not_remembered(way: str) -> None:
    guard = WordGuard()
    safeguard = Safeguard(guard)
    draft: Any = safeguard.draft
    if way == "adraft":

        def draft(value: object) -> Decision:
            return asyncio.run(safeguard.adraft(value))

    for size in range(1, 5):
        assert draft("hate "[:size]).passes == (size < 4)
    assert safeguard.cache is not None
    assert safeguard.cache.stats == {"hits": 0, "misses": 0, "entries": 0}


def test_a_stream_leaves_one_entry_for_its_question_and_one_for_its_answer() -> None:
    model = StreamingChatModel(script=[f"word {n}. " for n in range(100)])
    cache = VerdictCache()
    safeguard = Safeguard(WordGuard(), cache=cache)
    chain: Any = (
        InputGuard(safeguard=safeguard) | model | OutputGuard(safeguard=safeguard, check_every=4)
    )
    assert len([*chain.stream("hello")]) > 50
    assert cache.stats["entries"] == 2


def test_the_latest_used_stay() -> None:
    guard = WordGuard()
    safeguard = Safeguard(guard, cache=VerdictCache(entries=2))
    for text in ("one", "two", "one", "three", "one", "two"):
        safeguard.check(text)
    assert [text for _, text in guard.seen] == ["one", "two", "three", "two"]
    assert safeguard.cache is not None
    assert safeguard.cache.stats == {"hits": 2, "misses": 4, "entries": 2}
    safeguard.cache.clear()
    safeguard.check("two")
    assert len(guard.seen) == 5


def test_guards_that_say_the_same_share_what_they_know() -> None:
    cache = VerdictCache()
    one, other, third, unsaid = WordGuard(), WordGuard(), WordGuard({"tea": "hate"}), WordGuard()
    one.fingerprint = other.fingerprint = "bomb, hate"
    third.fingerprint = "tea"
    assert Safeguard(one, cache=cache).check("tea").passes
    assert Safeguard(other, cache=cache).check("tea").passes
    assert Safeguard(third, cache=cache).check("tea").blocked
    assert Safeguard(unsaid, cache=cache).check("tea").passes
    assert (len(one.seen), len(other.seen), len(third.seen), len(unsaid.seen)) == (1, 0, 1, 1)


def test_a_guard_that_does_not_say_is_known_by_itself() -> None:
    cache = VerdictCache()
    guard = _Detailed()
    twin = copy.copy(guard)
    for each in (guard, twin, guard, twin):
        Safeguard(each, cache=cache).check("text")
    assert (guard.calls, twin.calls) == (1, 1)


def test_a_new_guard_does_not_inherit_from_one_that_is_gone() -> None:
    cache = VerdictCache()
    for _ in range(50):
        guard = WordGuard()
        Safeguard(guard, cache=cache, audit=None).check("hello")
        assert len(guard.seen) == 1
        del guard  # The next one may get its place in memory.


def test_two_revisions_are_two_guards() -> None:
    cache = VerdictCache()
    guard = _Detailed()
    guard.fingerprint = "all"
    Safeguard(guard, cache=cache).check("text")
    guard.revision = "2"
    decision = Safeguard(guard, cache=cache).check("text")
    assert decision.verdicts[0].revision == "2"


def test_copies_share_a_cache_and_another_process_starts_empty() -> None:
    cache = VerdictCache(entries=3)
    Safeguard(WordGuard(), cache=cache).check("hello")
    assert copy.deepcopy(cache) is cache
    fresh = pickle.loads(pickle.dumps(cache))
    assert fresh.stats == {"hits": 0, "misses": 0, "entries": 0}


def test_many_threads_at_once_lose_nothing() -> None:
    guard = WordGuard()
    safeguard = Safeguard(guard, cache=VerdictCache(entries=8), audit=None)
    texts = [f"{'hate' if n % 3 == 0 else 'tea'} {n % 20}" for n in range(600)]
    with ThreadPoolExecutor(8) as pool:
        decisions = [*pool.map(safeguard.check, texts)]
    assert [decision.blocked for decision in decisions] == ["hate" in text for text in texts]
    assert safeguard.cache is not None
    stats = safeguard.cache.stats
    assert stats["hits"] + stats["misses"] == 600
    assert stats["misses"] == len(guard.seen)
    assert stats["entries"] == 8


class _Shelf:
    """A store that two caches share."""

    def __init__(self) -> None:
        self.kept: dict[str, Verdict] = {}
        self.threads: set[int] = set()

    def read(self, keys: Sequence[str]) -> Sequence[Verdict | None]:
        self.threads.add(threading.get_ident())
        return [self.kept.get(key) for key in keys]

    def write(self, verdicts: Mapping[str, Verdict]) -> None:
        self.threads.add(threading.get_ident())
        self.kept.update(verdicts)


def _said(words: Mapping[str, str] | None = None) -> WordGuard:
    guard = WordGuard(words) if words is not None else WordGuard()
    guard.fingerprint = "usual words"
    return guard


def test_a_store_is_shared_and_holds_no_text(decided: Way) -> None:
    shelf = _Shelf()
    one, other = _said(), _said()
    first = decided(Safeguard(one, cache=VerdictCache(store=shelf)), "a secret of hate")
    second = decided(Safeguard(other, cache=VerdictCache(store=shelf)), "a secret of hate")
    assert first == second
    assert (len(one.seen), len(other.seen)) == (1, 0)
    assert "secret" not in repr(shelf.kept)


@pytest.mark.parametrize("way", ["acheck", "abatch"])
def test_a_store_is_not_asked_on_the_event_loop(way: str) -> None:
    shelf = _Shelf()
    WAYS[way](Safeguard(_said(), cache=VerdictCache(store=shelf)), "hello")
    assert shelf.threads
    assert threading.get_ident() not in shelf.threads


WRONG: dict[str, Callable[[Sequence[str]], Any]] = {
    "raises": lambda keys: 1 / 0,
    "hangs": lambda keys: time.sleep(60),
    "nothing": lambda keys: None,
    "too few": lambda keys: [],
    "text": lambda keys: ["safe"] * len(keys),
    "a failed verdict": lambda keys: [Verdict("words", failed=True)] * len(keys),
    "a score of text": lambda keys: [Verdict("words", score="0")] * len(keys),  # type: ignore[arg-type]
    "a score of nan": lambda keys: [Verdict("words", score=float("nan"))] * len(keys),
    "a finding of text": lambda keys: [Verdict("words", findings=("x",))] * len(keys),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_store_that_is_broken_means_asking_the_guard(
    decided: Way, wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(_Shelf):
        def read(self, keys: Sequence[str]) -> Sequence[Verdict | None]:
            found: Sequence[Verdict | None] = WRONG[wrong](keys)
            return found

        def write(self, verdicts: Mapping[str, Verdict]) -> None:
            raise ConnectionError("a secret of hate")

    guard = _said()
    safeguard = Safeguard(guard, cache=VerdictCache(store=Broken()))
    assert decided(safeguard, "a secret of hate").blocked
    assert len(guard.seen) == 1
    assert "secret" not in caplog.text
    assert "ConnectionError" in caplog.text


@pytest.mark.parametrize("entries", [0, -1, True, 1.5, "many", None])
def test_a_wrong_size_is_named(entries: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"entries=.*allowed"):
        VerdictCache(entries=entries)


@pytest.mark.parametrize("cache", [0, -1, True, 1.5, "on", object(), VerdictCache])
def test_a_wrong_cache_is_named(cache: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"cache=.*VerdictCache"):
        Safeguard(WordGuard(), cache=cache)


def test_a_wrong_store_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"store=.*read and write"):
        VerdictCache(store={})  # type: ignore[arg-type]
