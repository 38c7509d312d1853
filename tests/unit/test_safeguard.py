"""The one decision path: every action, every failure, sync, async and batch alike."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda

from langchain_safeguard import (
    Action,
    Category,
    ConfigurationError,
    ContentBlockedError,
    Conversation,
    Decision,
    Escalation,
    Finding,
    Guard,
    GuardTimeoutError,
    JsonLinesSink,
    Policy,
    Resolution,
    Rule,
    Safeguard,
    SecondOpinion,
    Side,
    UnreadableInputError,
    Verdict,
)

SCORES = {"hate": 0.9, "fraud": 0.6, "profanity": 0.7, "privacy": 0.8}


class Words(Guard):
    """Reports a category when its name stands in the checked text."""

    name = "words"
    categories = frozenset(map(Category.of, SCORES))

    def __init__(self, scores: Mapping[str, float] = SCORES) -> None:
        self.scores = scores
        self.calls: list[int] = []

    def check(self, conversations: Sequence[Conversation], side: Side) -> list[Verdict]:
        self.calls.append(len(conversations))
        return [self._verdict(conversation.checked(side).text) for conversation in conversations]

    def _verdict(self, text: str) -> Verdict:
        found = tuple(
            Finding(Category.of(word), score) for word, score in self.scores.items() if word in text
        )
        return Verdict(
            self.name, findings=found, score=max((f.score or 0 for f in found), default=0.0)
        )


class Faulty(Words):
    """Does something wrong instead of judging."""

    def __init__(self, fault: Callable[[Sequence[Conversation]], Any]) -> None:
        super().__init__()
        self.fault = fault

    def check(self, conversations: Sequence[Conversation], side: Side) -> list[Verdict]:
        self.calls.append(len(conversations))
        verdicts: list[Verdict] = self.fault(conversations)
        return verdicts


def _batch_of_three(safeguard: Safeguard, text: str) -> Decision:
    before, decision, after = safeguard.batch(["before", text, "after"])
    assert before.text == "before" or before.failed
    assert after.text == "after" or after.failed
    return decision


def _abatch_of_three(safeguard: Safeguard, text: str) -> Decision:
    return asyncio.run(safeguard.abatch(["before", text, "after"]))[1]


WAYS: dict[str, Callable[[Safeguard, str], Decision]] = {
    "check": lambda safeguard, text: safeguard.check(text),
    "acheck": lambda safeguard, text: asyncio.run(safeguard.acheck(text)),
    "batch": _batch_of_three,
    "abatch": _abatch_of_three,
}


@pytest.fixture(params=WAYS)
def decided(request: pytest.FixtureRequest) -> Callable[[Safeguard, str], Decision]:
    return WAYS[request.param]


Decided = Callable[[Safeguard, str], Decision]


def test_a_harmless_text_passes_as_it_is(decided: Decided) -> None:
    decision = decided(Safeguard(Words()), "good morning")
    assert decision.action is Action.ALLOW
    assert decision.text == "good morning"
    assert decision.score == 0.0
    assert decision.categories == ()
    assert decision.rule is None
    assert not decision.failed


def test_a_harmful_text_becomes_a_refusal(decided: Decided) -> None:
    decision = decided(Safeguard(Words(), Policy(message="No.")), "hate and fraud")
    assert decision.blocked
    assert decision.text == "No."
    assert decision.categories == ("hate", "fraud")
    assert decision.score == 0.9
    assert decision.rule == "default"


def test_a_flagged_text_passes_and_says_so(decided: Decided) -> None:
    decision = decided(Safeguard(Words()), "profanity")
    assert decision.action is Action.FLAG
    assert decision.text == "profanity"
    assert decision.rule == "profanity"


def test_a_rule_has_its_own_refusal(decided: Decided) -> None:
    policy = Policy(rules=(Rule("hate", message="Be kind."),))
    assert decided(Safeguard(Words(), policy), "hate").text == "Be kind."


@pytest.mark.parametrize(
    "rewrite",
    [
        "love",
        lambda text: text.replace("hate", "love"),
        RunnableLambda(lambda text: text.replace("hate", "love")),
    ],
)
def test_a_rewritten_text_is_checked_again(decided: Decided, rewrite: Any) -> None:
    guard = Words()
    safeguard = Safeguard(guard, Policy(rules=(Rule("hate", "rewrite", rewrite=rewrite),)))
    decision = decided(safeguard, "hate")
    assert decision.action is Action.REWRITE
    assert decision.text == "love"
    assert len(decision.verdicts) == 2
    assert decision.verdicts[1].score == 0.0


@pytest.mark.parametrize("rewrite", ["more hate", "now fraud", lambda text: 1 / 0, lambda text: 3])
def test_a_rewrite_that_does_not_help_is_blocked(decided: Decided, rewrite: Any) -> None:
    policy = Policy(rules=(Rule("hate", "rewrite", rewrite=rewrite),), message="No.")
    decision = decided(Safeguard(Words(), policy), "hate")
    assert decision.blocked
    assert decision.text == "No."


def test_a_second_round_of_rewriting_may_help(decided: Decided) -> None:
    rule = Rule("hate", "rewrite", rewrite=lambda text: text.replace("hate", "", 1))
    assert decided(Safeguard(Words(), Policy(rules=(rule,))), "hatehate").blocked
    two_rounds = Policy(rules=(rule,), rewrite_rounds=2)
    assert decided(Safeguard(Words(), two_rounds), "hatehate").action is Action.REWRITE


GREY = Policy(rules=(Rule("fraud", thresholds={"escalate": 0.4, "block": 0.8}),), message="No.")


async def _later(escalation: Escalation) -> str:
    await asyncio.sleep(0)
    return "allow"


@pytest.mark.parametrize(
    ("answer", "action", "text"),
    [
        ("allow", "allow", "a fraud"),
        ("flag", "flag", "a fraud"),
        ("block", "block", "No."),
        (Resolution(Action.ALLOW), "allow", "a fraud"),
        (Resolution(Action.BLOCK, "Not today."), "block", "Not today."),
        (Resolution(Action.REWRITE, "a gift"), "rewrite", "a gift"),
    ],
)
def test_a_handler_decides_the_grey_zone(
    decided: Decided, answer: Any, action: str, text: str
) -> None:
    decision = decided(Safeguard(Words(), GREY, handlers={"boss": lambda e: answer}), "a fraud")
    assert (decision.action, decision.text, decision.resolved_by) == (action, text, "boss")


def test_handlers_are_asked_in_order_until_one_decides(decided: Decided) -> None:
    asked: list[str] = []

    def first(escalation: Escalation) -> None:
        asked.append(f"first:{escalation.text}")

    def broken(escalation: Escalation) -> str:
        asked.append("broken")
        raise ValueError

    def nonsense(escalation: Escalation) -> Any:
        asked.append("nonsense")
        return 42

    last = RunnableLambda(lambda escalation: asked.append("last") or "allow")
    never = RunnableLambda(lambda escalation: asked.append("never"))
    handlers = {
        "first": first,
        "broken": broken,
        "nonsense": nonsense,
        "last": last,
        "never": never,
    }
    decision = decided(Safeguard(Words(), GREY, handlers=handlers), "fraud")
    assert asked == ["first:fraud", "broken", "nonsense", "last"]
    assert decision.resolved_by == "last"


@pytest.mark.parametrize("handlers", [{}, {"silent": lambda escalation: None}])
def test_when_nobody_decides_it_is_blocked(decided: Decided, handlers: Any) -> None:
    decision = decided(Safeguard(Words(), GREY, handlers=handlers), "fraud")
    assert decision.blocked
    assert decision.text == "No."
    assert decision.resolved_by is None


def test_a_rule_can_say_whom_to_ask(decided: Decided) -> None:
    policy = Policy(rules=(Rule("fraud", "escalate", escalate_to="second"),))
    handlers = {"first": lambda e: "allow", "second": lambda e: "flag"}
    assert decided(Safeguard(Words(), policy, handlers=handlers), "fraud").resolved_by == "second"


def test_an_async_handler_decides_in_async_code_and_blocks_in_sync_code() -> None:
    safeguard = Safeguard(Words(), GREY, handlers=[_later])
    assert asyncio.run(safeguard.acheck("fraud")).resolved_by == "_later"
    assert safeguard.check("fraud").blocked


@pytest.mark.parametrize(
    ("second", "action"), [({}, "allow"), ({"fraud": 0.9}, "block"), ({"fraud": 0.55}, "block")]
)
def test_a_second_opinion_decides(decided: Decided, second: dict[str, float], action: str) -> None:
    handlers = [SecondOpinion(Words(second), Policy(message="The second says no."))]
    decision = decided(Safeguard(Words(), GREY, handlers=handlers), "fraud")
    assert decision.action == action
    assert decision.resolved_by == "second_opinion:words"


def test_a_second_opinion_that_fails_decides_nothing(decided: Decided) -> None:
    handlers = [SecondOpinion(Faulty(lambda _: 1 / 0))]
    decision = decided(Safeguard(Words(), GREY, handlers=handlers), "fraud")
    assert decision.blocked
    assert decision.resolved_by is None


def _hang(conversations: Sequence[Conversation]) -> list[Verdict]:
    time.sleep(0.5)
    return [Verdict("words")] * len(conversations)


FAULTS: dict[str, Callable[[Sequence[Conversation]], Any]] = {
    "raises": lambda _: 1 / 0,
    "hangs": _hang,
    "returns nothing": lambda _: None,
    "returns text": lambda conversations: ["safe"] * len(conversations),
    "returns too few": lambda _: [],
    "scores above one": lambda c: [Verdict("words", score=1.5)] * len(c),
    "scores nan": lambda c: [Verdict("words", score=float("nan"))] * len(c),
    "finds with nan": lambda c: (
        [Verdict("words", findings=(Finding(Category.HATE, float("nan")),))] * len(c)
    ),
    "says it failed": lambda c: [Verdict("words", failed=True)] * len(c),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_no_readable_answer_is_an_unsafe_answer(decided: Decided, fault: str) -> None:
    safeguard = Safeguard(Faulty(FAULTS[fault]), timeout=0.1, attempts=1)
    decision = decided(safeguard, "a perfectly harmless text")
    assert decision.blocked
    assert decision.failed
    assert decision.rule == "on_failure"
    assert "harmless" not in decision.text


@pytest.mark.parametrize(("on_failure", "text"), [("allow", "hello"), ("flag", "hello")])
def test_the_policy_may_let_failures_pass(decided: Decided, on_failure: str, text: str) -> None:
    policy = Policy(on_failure=Action.of(on_failure))
    decision = decided(Safeguard(Faulty(lambda _: 1 / 0), policy), "hello")
    assert (decision.action, decision.text, decision.failed) == (on_failure, text, True)


def test_one_bad_item_does_not_harm_its_neighbours() -> None:
    def fault(conversations: Sequence[Conversation]) -> list[Verdict]:
        texts = [conversation.checked("input").text for conversation in conversations]
        assert "poison" not in texts
        return [Verdict("words", score=0.0) for _ in texts]

    decisions = Safeguard(Faulty(fault)).batch(["a", "poison", "b"])
    assert [decision.action for decision in decisions] == ["allow", "block", "allow"]


def test_a_transient_failure_is_tried_again(decided: Decided) -> None:
    failures = iter([GuardTimeoutError("slow"), GuardTimeoutError("slow")])

    def fault(conversations: Sequence[Conversation]) -> list[Verdict]:
        for failure in failures:
            raise failure
        return [Verdict("words", score=0.0)] * len(conversations)

    guard = Faulty(fault)
    assert decided(Safeguard(guard), "hello").action is Action.ALLOW
    assert len(guard.calls) == 3


def test_a_lasting_failure_is_not(decided: Decided) -> None:
    guard = Faulty(lambda _: 1 / 0)
    Safeguard(guard).check("hello")
    assert len(guard.calls) == 1


def test_a_batch_is_one_call_of_the_guard() -> None:
    guard = Words()
    decisions = Safeguard(guard).batch([f"text {n}" for n in range(20)])
    assert guard.calls == [20]
    assert [decision.text for decision in decisions] == [f"text {n}" for n in range(20)]


def test_a_text_that_is_too_long_is_not_judged_and_says_so(decided: Decided) -> None:
    guard = Words()
    decision = decided(Safeguard(guard, max_characters=1000), "x" * 1001)
    assert decision.blocked
    assert decision.failed
    assert decision.verdicts[0].reason == "longer than 1000 characters"
    assert decided(Safeguard(guard, max_characters=1000), "x" * 1000).passes


def test_several_guards_judge_and_the_strictest_rule_wins(decided: Decided) -> None:
    guards = [Words({"hate": 0.2}), Words({"hate": 0.95}), Words({})]
    decision = decided(Safeguard(guards), "hate")
    assert decision.blocked
    assert decision.score == 0.95
    assert len(decision.verdicts) == 3


def test_one_failing_guard_of_several_blocks(decided: Decided) -> None:
    assert decided(Safeguard([Words(), Faulty(lambda _: 1 / 0)]), "hello").blocked


@pytest.mark.parametrize(("on_unchecked", "action"), [("flag", "flag"), ("block", "block")])
def test_what_cannot_be_read_is_said(on_unchecked: str, action: str) -> None:
    message = {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image"}]}
    image = {"role": "user", "content": [{"type": "image", "url": "https://example.com/a.png"}]}
    safeguard = Safeguard(Words(), Policy(on_unchecked=Action.of(on_unchecked)))
    decision = safeguard.check([message, image])
    assert decision.action == action
    assert decision.rule == "on_unchecked"
    assert decision.unchecked == ("image",)


def test_the_decision_id_is_the_same_for_the_same_thing(decided: Decided) -> None:
    ids = {decided(Safeguard(Words()), "hate").decision_id for _ in range(2)}
    others = {
        Safeguard(Words()).check("hate!").decision_id,
        Safeguard(Words()).check("hate", side="output").decision_id,
        Safeguard(Words(), Policy(threshold=0.4)).check("hate").decision_id,
    }
    assert len(ids) == 1
    assert len(ids | others) == 4


def test_every_decision_becomes_one_record_without_the_text(decided: Decided) -> None:
    records: list[Mapping[str, Any]] = []
    decision = decided(Safeguard(Words(), audit=records.append), "secret hate")
    mine = [record for record in records if record["decision_id"] == decision.decision_id]
    assert len(mine) == 1
    assert mine[0]["action"] == "block"
    assert mine[0]["categories"] == ["hate"]
    assert "secret" not in json.dumps(records)


def test_records_hold_the_text_when_asked() -> None:
    records: list[Mapping[str, Any]] = []
    Safeguard(Words(), audit=records.append, audit_text=True).check("secret hate")
    assert records[0]["text"] == "secret hate"


def test_an_escalation_is_recorded_before_anyone_is_asked() -> None:
    records: list[Mapping[str, Any]] = []

    def handler(escalation: Escalation) -> str:
        assert [record["pending"] for record in records] == [True]
        return "allow"

    Safeguard(Words(), GREY, handlers=[handler], audit=records.append).check("fraud")
    assert [(record["action"], record["pending"]) for record in records] == [
        ("escalate", True),
        ("allow", False),
    ]
    assert len({record["decision_id"] for record in records}) == 1


def test_a_sink_that_fails_does_not_decide(decided: Decided) -> None:
    def sink(record: Mapping[str, Any]) -> None:
        raise OSError("disk full")

    assert decided(Safeguard(Words(), audit=sink), "hello").action is Action.ALLOW
    assert decided(Safeguard(Words(), audit=sink), "hate").blocked


def test_json_lines_from_many_threads_are_whole(tmp_path: Path) -> None:
    safeguard = Safeguard(Words(), audit=JsonLinesSink(tmp_path / "audit.jsonl"))
    threads = [threading.Thread(target=safeguard.check, args=(f"hate {n}",)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert len({json.loads(line)["decision_id"] for line in lines}) == 20


def test_lone_surrogates_and_control_characters_are_judged(decided: Decided) -> None:
    assert decided(Safeguard(Words()), "\ud800 \x00 hate").blocked
    assert decided(Safeguard(Words()), "\ud800 \x00").action is Action.ALLOW


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Safeguard("no-such-guard"), "'no-such-guard'"),
        (lambda: Safeguard(3), "3"),  # type: ignore[arg-type]
        (lambda: Safeguard([]), r"\[\]"),
        (lambda: Safeguard(Words(), max_characters=0), "0"),
        (lambda: Safeguard(Words(), timeout=0), "0"),
        (lambda: Safeguard(Words(), timeout=-1), "-1"),
        (lambda: Safeguard(Words(), attempts=0), "0"),
        (lambda: Safeguard(Words(), 3), "3"),  # type: ignore[arg-type]
        (lambda: Safeguard(Words(), "/no/such/file.yaml"), "/no/such/file.yaml"),
        (lambda: Safeguard(Words(), {"rules": [{"categories": "weapons"}]}), "never reports"),
        (
            lambda: Safeguard(Words(), Policy(rules=(Rule("other", "flag"),))).check("x", side="x"),
            "x",
        ),  # type: ignore[arg-type]
        (
            lambda: Safeguard(
                Words(), Policy(rules=(Rule("hate", "escalate", escalate_to="boss"),))
            ),
            "'boss'",
        ),
        (lambda: Safeguard(Words(), handlers=[_later, _later]), "'_later'"),
        (lambda: Safeguard(Words(), audit="log"), "'log'"),  # type: ignore[arg-type]
        (lambda: Safeguard(Words(), audit=JsonLinesSink), "JsonLinesSink"),
        (lambda: Safeguard(Words(), audit_text="no"), "'no'"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_value_is_named(make: Callable[[], object], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        make()


def test_a_text_that_cannot_be_read_is_an_error_before_any_guard_is_asked() -> None:
    guard = Words()
    safeguard = Safeguard(guard)
    with pytest.raises(UnreadableInputError):
        safeguard.check(object())
    with pytest.raises(UnreadableInputError):
        safeguard.batch(["fine", object()])
    assert guard.calls == []


def test_the_error_of_a_block_names_categories_but_not_the_text() -> None:
    error = ContentBlockedError(Safeguard(Words()).check("secret hate"))
    assert "hate" in str(error)
    assert "secret" not in str(error)
    assert error.decision.blocked


def test_a_safeguard_says_what_it_is_made_of_and_is_one_in_all_copies() -> None:
    safeguard = Safeguard(Words(), {"name": "strict"})
    assert repr(safeguard) == "Safeguard(guards=['words'], policy='strict')"
    assert copy.deepcopy([safeguard])[0] is safeguard
