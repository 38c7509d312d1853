"""However a chain with guards is written, the guards find the steps they belong to."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel, FakeListLLM
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableBranch,
    RunnableLambda,
    RunnablePassthrough,
    RunnableSequence,
)

from langchain_safeguard import (
    ConfigurationError,
    ContentBlockedError,
    InputGuard,
    OutputGuard,
    Policy,
    Rule,
    Safeguard,
    SafeguardError,
    guard_model,
    guarded,
)
from tests.guarded_chains import POLICY, PROMPT, answering, text_of, word_guard
from tests.word_guard import WordGuard


def opening() -> InputGuard:
    return InputGuard(word_guard(), POLICY)


def closing() -> OutputGuard:
    return OutputGuard(word_guard(), POLICY)


def same(value: Any) -> Any:
    return value


SPELLINGS: dict[str, Callable[[Any], Runnable[Any, Any]]] = {
    "pipes": lambda m: PROMPT | opening() | m | closing(),
    "right to left": lambda m: PROMPT | (opening() | (m | closing())),
    "in pairs": lambda m: (PROMPT | opening()) | (m | closing()),
    "three and one": lambda m: (PROMPT | opening() | m) | closing(),
    "one and three": lambda m: PROMPT | (opening() | m | closing()),
    "the guard first": lambda m: (PROMPT | opening() | m) | (closing() | RunnablePassthrough()),
    "the guard before the rest": lambda m: PROMPT | opening() | (m | (closing() | same)),
    "pipe": lambda m: PROMPT.pipe(opening(), m, closing()),
    "pipe of a pipe": lambda m: PROMPT.pipe(opening()).pipe(m).pipe(closing()),
    "pipe behind a guarded chain": lambda m: (PROMPT | opening() | m | closing()).pipe(same),
    "sequence": lambda m: RunnableSequence(PROMPT, opening(), m, closing()),
    "nested sequence": lambda m: RunnableSequence(PROMPT, opening(), m | closing()),
    "sequence of sequences": lambda m: RunnableSequence(
        RunnableSequence(PROMPT, opening()), RunnableSequence(m, closing())
    ),
    "a function in front": lambda m: same | (PROMPT | opening() | m | closing()),
    "a dict in front": lambda m: (
        {"question": lambda v: v["question"]} | (PROMPT | opening() | m | closing())
    ),
    "a function behind": lambda m: (PROMPT | opening() | m | closing()) | same,
    "a guarded chain in a guarded chain": lambda m: (
        PROMPT | opening() | (opening() | m | closing()) | closing()
    ),
    "guards in a row": lambda m: PROMPT | opening() | opening() | m | closing() | closing(),
    "guarded": lambda m: guarded(PROMPT | m, word_guard(), POLICY),
    "with a name": lambda m: RunnableSequence(PROMPT, opening(), m, closing(), name="chain"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_guarded(spelling: str) -> None:
    model = answering(lambda messages: f"You said {messages[-1].content}")
    chain = SPELLINGS[spelling](model)
    assert text_of(chain.invoke({"question": "bread"})) == "You said bread"
    assert model.tally.calls == 1
    assert text_of(chain.invoke({"question": "bomb"})) == "No."
    assert model.tally.calls == 1
    unsafe = SPELLINGS[spelling](answering("a bomb"))
    assert text_of(unsafe.invoke({"question": "bread"})) == "No."
    assert [text_of(chunk) for chunk in unsafe.stream({"question": "bread"})] == ["No."]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_hides_the_model(spelling: str) -> None:
    heard: list[str] = []

    def listen(run: Any) -> None:
        heard.append(str(run.outputs))

    model = answering("a bomb").with_listeners(on_end=listen)
    chain = SPELLINGS[spelling](model)
    assert text_of(chain.invoke({"question": "bread"})) == "No."
    assert not any("bomb" in each for each in heard)


@pytest.mark.parametrize("middle", [lambda m: m | closing(), lambda m: same | m | closing()])
def test_an_output_guard_alone(middle: Any) -> None:
    model = answering("a bomb")
    assert text_of(middle(model).invoke("about bombs")) == "No."
    assert model.tally.calls == 1


def test_two_chains_share_guards_without_harm() -> None:
    first_guard, last_guard = opening(), closing()
    one, two = answering("one"), answering("two")
    chain_one = PROMPT | first_guard | one | last_guard
    chain_two = PROMPT | first_guard | two | last_guard | StrOutputParser()
    assert text_of(chain_one.invoke({"question": "?"})) == "one"
    assert chain_two.invoke({"question": "?"}) == "two"
    assert text_of(chain_one.invoke({"question": "?"})) == "one"
    assert (one.tally.calls, two.tally.calls) == (2, 1)


def test_composing_does_not_change_what_is_composed() -> None:
    model = answering()
    start = PROMPT | opening() | model
    whole = start | closing()
    assert type(start) is RunnableSequence
    assert len(start.steps) == 3
    longer = whole | StrOutputParser()
    assert isinstance(whole.invoke({"question": "bomb"}), AIMessage)
    assert longer.invoke({"question": "bomb"}) == "No."
    with pytest.raises(ContentBlockedError):
        start.invoke({"question": "bomb"})


def test_copies_work() -> None:
    chain: Any = PROMPT | opening() | answering() | closing()
    for twin in (copy.copy(chain), chain.model_copy()):
        assert text_of(twin.invoke({"question": "bomb"})) == "No."


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda chain: pickle.loads(pickle.dumps(chain))])
def test_a_chain_is_guarded_in_another_process_too(copied: Any, used: bool) -> None:
    chain: Any = PROMPT | InputGuard() | FakeListChatModel(responses=["Bread."]) | OutputGuard()
    if used:
        assert text_of(chain.invoke({"question": "What is bread?"})) == "Bread."
    chain = copied(chain)
    assert text_of(chain.invoke({"question": "What is bread?"})) == "Bread."
    assert chain.invoke({"question": "How do I make a pipe bomb?"}).response_metadata["safeguard"]


def test_what_is_changed_in_a_guard_holds_or_is_an_error() -> None:
    guard = opening()
    with pytest.raises(ValueError, match="frozen"):
        guard.policy = {"default": "allow"}
    lax = guard.model_copy(update={"policy": {"default": "allow"}})
    assert lax.invoke("bomb") == "bomb"
    with pytest.raises(ContentBlockedError):
        guard.model_copy().invoke("bomb")
    with pytest.raises(ConfigurationError, match="on_block"):
        guard.model_copy(update={"on_block": "nonsense"})


def test_guards_say_what_they_were_given() -> None:
    assert repr(InputGuard()) == "InputGuard()"
    assert repr(OutputGuard()) == str(OutputGuard()) == "OutputGuard()"
    safeguard = Safeguard(word_guard())
    assert repr(OutputGuard("embedded", on_block="raise")) == (
        "OutputGuard(guard='embedded', on_block='raise')"
    )
    told = "safeguard=Safeguard(guards=['words'], policy='default')"
    assert repr(InputGuard(safeguard=safeguard)) == f"InputGuard({told})"
    assert repr(OutputGuard(safeguard=safeguard)) == f"OutputGuard({told})"


def test_the_steps_of_a_guarded_chain_are_safe_one_by_one() -> None:
    value: Any = {"question": "bomb"}
    chain: Any = PROMPT | opening() | answering() | closing() | StrOutputParser()
    for step in chain.steps:
        value = step.invoke(value)
    assert value == "No."
    fields = [chain.first, *chain.middle, chain.last]
    value = {"question": "bomb"}
    for step in fields:
        value = step.invoke(value)
    assert value == "No."


class TestWhatCannotWork:
    def test_nothing_between_the_guards(self) -> None:
        with pytest.raises(ConfigurationError, match="nothing between"):
            opening() | closing()
        with pytest.raises(ConfigurationError, match="nothing between"):
            PROMPT | opening() | closing()

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda g: g.with_config(tags=["x"]),
            lambda g: g.with_retry(),
            lambda g: g.bind(x=1),
            lambda g: g.with_fallbacks([closing()]),
            lambda g: g.configurable_fields(name=ConfigurableField("name")),
            lambda g: g.map(),
        ],
    )
    def test_a_wrapped_output_guard(self, wrap: Any) -> None:
        with pytest.raises(ConfigurationError, match="whole chain"):
            wrap(closing())

    def test_a_wrapped_input_guard(self) -> None:
        with pytest.raises(ConfigurationError, match="wrap the whole chain"):
            opening().with_config(tags=["x"]) | answering() | closing()

    def test_a_sequence_that_is_built_from_fields(self) -> None:
        chain: Any = RunnableSequence(first=answering("a bomb"), last=closing())
        for call in (chain.invoke, chain.batch, lambda value: [*chain.stream(value)]):
            with pytest.raises(ConfigurationError, match="taking over"):
                call(["about bombs"])

    def test_sequences_of_another_kind(self) -> None:
        class Other(RunnableSequence[Any, Any]):
            pass

        with pytest.raises(ConfigurationError, match="guarded"):
            Other(answering(), closing())

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"guard": "nonsense"}, "nonsense"),
            ({"guard": 7}, "guard=7"),
            ({"guard": []}, "guard="),
            ({"policy": "nowhere.yaml"}, "nowhere.yaml"),
            ({"policy": 7}, "policy=7"),
            ({"policy": {"rules": [{"categories": ["nonsense"]}]}}, "nonsense"),
            ({"on_block": "nonsense"}, "nonsense"),
            ({"refusal": "text"}, "refusal"),
            ({"safeguard": 7}, "safeguard"),
            ({"safeguard": Safeguard(WordGuard()), "guard": "embedded"}, "not both"),
        ],
    )
    def test_wrong_options_fail_at_once(self, options: Any, named: str) -> None:
        for make in (InputGuard, OutputGuard, lambda **o: guarded(PROMPT, **o)):
            with pytest.raises(SafeguardError, match=named):
                make(**options)

    def test_wrong_options_of_one_of_them(self) -> None:
        with pytest.raises(ConfigurationError, match="mode"):
            InputGuard(word_guard(), mode="fast")  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="check_every"):
            OutputGuard(word_guard(), check_every=0)
        with pytest.raises(ConfigurationError, match="check_every"):
            OutputGuard(word_guard(), check_every=True)
        with pytest.raises(ConfigurationError, match="output 'no'"):
            guarded(PROMPT, word_guard(), output="no")  # type: ignore[call-overload]
        with pytest.raises(ConfigurationError, match="nothing to guard"):
            guard_model(answering(), word_guard(), input=False, output=False)
        with pytest.raises(ConfigurationError, match="nothing to guard"):
            guarded(PROMPT, word_guard(), input=False, output=False)
        with pytest.raises(ConfigurationError, match="chain: a int"):
            guarded(7, word_guard())  # type: ignore[arg-type]

    @pytest.mark.parametrize("text", ["a hidden answer", "hidden" * 200, "/hidden and/more"])
    def test_a_class_for_a_guard(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match=r"write InputGuard\(\)"):
            PROMPT | InputGuard | answering() | closing()
        with pytest.raises(ConfigurationError, match=r"write OutputGuard\(\)"):
            PROMPT | opening() | answering() | OutputGuard | closing()
        model = answering(text)
        for chain in (
            PROMPT | opening() | model | OutputGuard,
            PROMPT | opening() | model | StrOutputParser() | OutputGuard,
        ):
            with pytest.raises(ConfigurationError, match=r"write OutputGuard\(\)") as caught:
                chain.invoke({"question": "bread"})
            assert "hidden" not in str(caught.value)

    def test_a_policy_that_does_not_fit_the_guard(self) -> None:
        class Narrow(WordGuard):
            categories = frozenset()

        with pytest.raises(ConfigurationError, match="never reports"):
            InputGuard(Narrow(), Policy(rules=(Rule("hate"),)))


class TestRefusalsAreOfTheRightType:
    @pytest.mark.parametrize(
        ("steps", "expected"),
        [
            (answering(), AIMessage),
            (answering().bind(stop=["x"]), AIMessage),
            (answering().with_retry(), AIMessage),
            (answering().with_fallbacks([answering()]), AIMessage),
            (answering().configurable_fields(script=ConfigurableField("s")), AIMessage),
            (answering() | RunnablePassthrough(), AIMessage),
            (answering() | StrOutputParser(), str),
            (FakeListLLM(responses=["x"]), str),
            (RunnableBranch((bool, answering()), answering()), AIMessage),
        ],
    )
    def test_known(self, steps: Any, expected: type) -> None:
        output = (opening() | steps | closing()).invoke("bomb")
        assert isinstance(output, expected)
        assert text_of(output) == "No."

    def test_functions_say_it_by_their_annotations(self) -> None:
        def text(value: Any) -> str:
            return "never"

        def message(value: Any) -> AIMessage:
            return AIMessage("never")

        assert (opening() | RunnableLambda(text) | closing()).invoke("bomb") == "No."
        output = (opening() | RunnableLambda(message) | closing()).invoke("bomb")
        assert isinstance(output, AIMessage)

    @pytest.mark.parametrize(
        "steps",
        [
            answering() | JsonOutputParser(),
            RunnableLambda(same),
            {"a": answering()},
            RunnableBranch((bool, answering()), RunnableLambda(same)),
        ],
    )
    def test_unknown(self, steps: Any) -> None:
        with pytest.raises(ContentBlockedError) as caught:
            (opening() | steps | closing()).invoke("bomb")
        assert caught.value.decision.categories == ("indiscriminate_weapons",)
        assert "bomb" not in str(caught.value)
        chain = InputGuard(word_guard(), POLICY, refusal=lambda d: [d.text]) | steps | closing()
        assert chain.invoke("bomb") == ["No."]
