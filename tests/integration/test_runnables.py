"""Guarded chains give the same, whatever stands around the guards and however they are called."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import (
    ConfigurableField,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from pydantic import BaseModel

from langchain_safeguard import (
    ContentBlockedError,
    InputGuard,
    OutputGuard,
    Safeguard,
    UnreadableInputError,
    guarded,
)
from tests.chat_models import StreamingChatModel, WholeChatModel
from tests.guarded_chains import (
    FRONTS,
    METHODS,
    POLICY,
    PROMPT,
    SAFE_ANSWER,
    TAILS,
    answering,
    call,
    record_of,
    text_of,
    value_for,
    whole,
    word_guard,
    write,
)
from tests.word_guard import FaultyGuard, WordGuard

pytestmark = pytest.mark.filterwarnings("ignore:astream_log is deprecated")

LONG_UNSAFE = "First a harmless beginning that goes on for quite some while. " * 3 + "then a bomb"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("front", FRONTS)
class TestEverySpellingAndMethod:
    async def test_safe(self, front: str, tail: str, method: str) -> None:
        model = answering()
        chain = write(front, tail, model, word_guard())
        output = await call(chain, method, value_for(front, "How do I bake bread?"))
        assert text_of(output).strip() == SAFE_ANSWER.strip()
        assert model.tally.calls == 1

    async def test_blocked_input(self, front: str, tail: str, method: str) -> None:
        model = answering()
        chain = write(front, tail, model, word_guard())
        output = await call(chain, method, value_for(front, "How do I build a bomb?"))
        assert text_of(output) == "No."
        assert model.tally.calls == 0
        if tail in ("model", "several inside"):
            record = record_of(output)
            assert record is not None
            assert (record["action"], record["side"]) == ("block", "input")
            assert record["categories"] == ["indiscriminate_weapons"]
            assert "bomb" not in str(record)

    async def test_blocked_output(self, front: str, tail: str, method: str) -> None:
        model = answering("Take a bomb.")
        chain = write(front, tail, model, word_guard())
        output = await call(chain, method, value_for(front, "How do I bake bread?"))
        assert text_of(output) == "No."
        if tail in ("model", "several inside"):
            record = record_of(output)
            assert record is not None
            assert (record["action"], record["side"]) == ("block", "output")
        else:
            assert isinstance(output, str)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tail", TAILS)
class TestEveryAction:
    async def test_flagged(self, tail: str, method: str) -> None:
        model = answering("Well, darn.")
        chain = write("prompt", tail, model, word_guard())
        output = await call(chain, method, {"question": "Say darn."})
        assert text_of(output) == "Well, darn."
        assert model.tally.prompts[0][-1].content == "Say darn."
        if tail in ("model", "several inside"):
            record = record_of(output)
            assert record is not None
            assert record["action"] == "flag"

    async def test_rewritten(self, tail: str, method: str) -> None:
        model = answering("You said 0123 now.")
        chain = write("prompt", tail, model, word_guard())
        output = await call(chain, method, {"question": "Call 0123."})
        assert text_of(output) == "You said [number] now."
        [[system, human]] = model.tally.prompts
        assert (system.content, human.content) == ("Be brief.", "Call [number].")

    async def test_raising_guards(self, tail: str, method: str) -> None:
        guard = word_guard()
        chain = PROMPT | InputGuard(guard, on_block="raise") | answering() | OutputGuard(guard)
        with pytest.raises(ContentBlockedError):
            await call(chain, method, {"question": "bomb"})
        chain = (
            PROMPT | InputGuard(guard) | answering("bomb") | OutputGuard(guard, on_block="raise")
        )
        with pytest.raises(ContentBlockedError):
            await call(chain, method, {"question": "bread"})


@pytest.mark.parametrize("method", METHODS)
class TestLoneGuards:
    async def test_an_output_guard_alone_checks_the_output_only(self, method: str) -> None:
        guard = word_guard()
        chain = answering("a bomb") | OutputGuard(guard, POLICY)
        assert text_of(await call(chain, method, "About bombs")) == "No."
        assert {side for side, _ in guard.seen} == {"output"}
        # The answer was judged with the prompt that led to it.
        assert guard.contexts[-1].turns[0].text == "About bombs"

    async def test_an_input_guard_alone_raises(self, method: str) -> None:
        model = answering()
        chain = PROMPT | InputGuard(word_guard(), POLICY) | model
        with pytest.raises(ContentBlockedError):
            await call(chain, method, {"question": "bomb"})
        assert model.tally.calls == 0
        assert text_of(await call(chain, method, {"question": "bread"})) == SAFE_ANSWER

    async def test_guarded(self, method: str) -> None:
        model = answering()
        chain = guarded(PROMPT | model, word_guard(), POLICY)
        assert text_of(await call(chain, method, {"question": "bread"})) == SAFE_ANSWER
        assert text_of(await call(chain, method, {"question": "bomb"})) == "No."
        assert model.tally.calls == 1

    async def test_guarded_input_only(self, method: str) -> None:
        chain = guarded(PROMPT | answering("a bomb"), word_guard(), POLICY, output=False)
        assert text_of(await call(chain, method, {"question": "bread"})) == "a bomb"
        assert text_of(await call(chain, method, {"question": "bomb"})) == "No."

    async def test_structured_output_raises_or_is_made(self, method: str) -> None:
        def parse(message: Any) -> dict[str, Any]:
            return {"answer": [{"step": message.text}]}

        guard = word_guard()
        for answer, question in (("a bomb", "bread"), ("bread", "a bomb")):
            inner = PROMPT | InputGuard(guard, POLICY) | answering(answer) | parse
            with pytest.raises(ContentBlockedError):
                await call(inner | OutputGuard(guard, POLICY), method, {"question": question})
            closing = OutputGuard(guard, POLICY, refusal=lambda d: {"refused": d.text})
            output = await call(inner | closing, method, {"question": question})
            assert output == {"refused": "No."}

    async def test_flowing_json(self, method: str) -> None:
        script = '{"steps": ["mix", {"then": "bake"}]}'
        for text, expected in ((script, {"steps": ["mix", {"then": "bake"}]}), ('["bomb"]', "No")):
            chain = (
                InputGuard(word_guard(), POLICY)
                | answering([*text])
                | JsonOutputParser()
                | OutputGuard(word_guard(), POLICY, refusal=lambda d: "No")
            )
            if method.startswith("astream_") or "transform" in method or "stream" in method:
                last = [c async for c in chain.astream("bread")][-1]
                assert last == expected
            else:
                assert await call(chain, method, "bread") == expected


class TestStreams:
    async def test_the_first_chunk_comes_out_after_the_first_window(self) -> None:
        for name in ("stream", "astream"):
            model = answering(SAFE_ANSWER * 3)
            chain = InputGuard(word_guard()) | model | OutputGuard(word_guard(), check_every=8)
            if name == "stream":
                next(iter(stream := chain.stream("bread")))
                stream.close()  # type: ignore[attr-defined]
            else:
                astream = chain.astream("bread")
                await anext(astream)
                await astream.aclose()  # type: ignore[attr-defined]
                # LangChain's chat models leave it to the event loop to close their source.
                await asyncio.sleep(0.1)
            assert 0 < model.tally.chunks < 30, name
            assert model.tally.closed_early == 1, name

    @pytest.mark.parametrize("inside", [False, True])
    async def test_a_block_in_the_middle_ends_with_the_refusal(self, inside: bool) -> None:
        model = answering(LONG_UNSAFE + " and this is never generated" * 20)
        chain: Any = InputGuard(word_guard(), POLICY) | model
        chain = (chain | StrOutputParser() if inside else chain) | OutputGuard(
            word_guard(), POLICY, check_every=8
        )
        for chunks in ([*chain.stream("bread")], [c async for c in chain.astream("bread")]):
            text = "".join(text_of(chunk) for chunk in chunks)
            assert text.startswith("First a harmless beginning")
            assert text.endswith("\n\nNo.")
            assert "bomb" not in text
        assert model.tally.closed_early == 2
        assert model.tally.chunks < 2 * 60

    async def test_events_of_the_model_carry_the_checked_answer(self) -> None:
        chain = PROMPT | InputGuard(word_guard()) | answering() | OutputGuard(word_guard())
        events = [e async for e in chain.astream_events({"question": "bread"}, version="v2")]
        said = [e["data"]["chunk"].text for e in events if e["event"] == "on_chat_model_stream"]
        assert "".join(said) == SAFE_ANSWER

    async def test_a_model_that_cannot_stream(self) -> None:
        chain = (
            InputGuard(word_guard()) | WholeChatModel(script="bread") | OutputGuard(word_guard())
        )
        assert text_of(whole([*chain.stream("?")])) == "bread"
        assert isinstance([*chain.stream("bomb?")][-1], AIMessageChunk)


@pytest.mark.parametrize("inside", [False, True])
class TestParallel:
    def chain(self, model: Any, guard: WordGuard, inside: bool) -> Any:
        # Without a cache: each verdict takes the guard's time, so that the model starts first.
        safeguard = Safeguard(guard, POLICY, cache=None)
        chain = InputGuard(safeguard=safeguard, mode="parallel") | model
        return (chain | StrOutputParser() if inside else chain) | OutputGuard(word_guard(), POLICY)

    async def test_a_block_ends_the_call(self, inside: bool) -> None:
        model = StreamingChatModel(script=SAFE_ANSWER * 5, pause=0.02)
        chain = self.chain(model, WordGuard({"bomb": "hate"}, delay=0.1), inside)
        assert text_of(whole([*chain.stream("bomb")])) == "No."
        assert text_of(whole([c async for c in chain.astream("bomb")])) == "No."
        assert model.tally.calls == 2
        assert model.tally.closed_early == 2
        assert model.tally.chunks < 40

    async def test_a_block_cancels_an_async_call(self, inside: bool) -> None:
        model = StreamingChatModel(script=SAFE_ANSWER, delay=30)
        chain = self.chain(model, WordGuard({"bomb": "hate"}, delay=0.1), inside)
        assert text_of(await chain.ainvoke("bomb")) == "No."
        assert model.tally.closed_early == 1

    def test_a_block_does_not_wait_for_a_sync_call(self, inside: bool) -> None:
        model = StreamingChatModel(script=SAFE_ANSWER, delay=30)
        chain = self.chain(model, WordGuard({"bomb": "hate"}, delay=0.1), inside)
        assert text_of(chain.invoke("bomb")) == "No."

    async def test_it_starts_before_the_verdict_and_a_rewrite_starts_again(
        self, inside: bool
    ) -> None:
        model = answering(lambda messages: f"You said: {messages[-1].content}")
        guard = word_guard()
        guard.delay = 0.05
        chain = self.chain(model, guard, inside)
        assert text_of(chain.invoke("0123")) == "You said: [number]"
        assert text_of(await chain.ainvoke("0123")) == "You said: [number]"
        assert text_of(whole([*chain.stream("0123")])) == "You said: [number]"
        assert text_of(whole([c async for c in chain.astream("0123")])) == "You said: [number]"
        assert model.tally.calls == 8
        assert text_of(chain.invoke("bread")) == "You said: bread"
        assert model.tally.calls == 9

    async def test_errors_of_the_model_wait_for_the_verdict(self, inside: bool) -> None:
        model = answering([ZeroDivisionError()])
        chain = self.chain(model, WordGuard({"bomb": "hate"}, delay=0.05), inside)
        assert text_of(await chain.ainvoke("bomb")) == "No."
        assert text_of(chain.invoke("bomb")) == "No."
        with pytest.raises(ZeroDivisionError):
            await chain.ainvoke("bread")
        with pytest.raises(ZeroDivisionError):
            chain.invoke("bread")


class TestBatch:
    async def test_one_pass_of_the_guard_and_the_model_only_for_what_is_allowed(self) -> None:
        model = answering(lambda messages: f"You said: {messages[-1].content}")
        for method in ("batch", "abatch"):
            entry, closing = word_guard(), word_guard()
            chain = PROMPT | InputGuard(entry, POLICY) | model | OutputGuard(closing, POLICY)
            values = [{"question": q} for q in ("a", "bomb", "b", "0123", "c")]
            outputs = (
                chain.batch(values, config={"max_concurrency": 2})
                if method == "batch"
                else await chain.abatch(values, config={"max_concurrency": 2})
            )
            said = "You said: "
            texts = [said + "a", "No.", said + "b", said + "[number]", said + "c"]
            assert [text_of(output) for output in outputs] == texts
            # The rewritten text is checked again by itself.
            assert entry.batches == [5, 1]
            assert closing.batches == [4]
        assert model.tally.calls == 8

    async def test_one_failure_does_not_harm_the_others(self) -> None:
        def script(messages: list[Any]) -> Any:
            return [ZeroDivisionError()] if messages[-1].content == "fail" else "fine"

        guard = word_guard()
        chain = InputGuard(guard) | answering(script) | OutputGuard(guard, on_block="raise")
        values: list[Any] = ["a", "fail", "bomb", object(), "b"]
        for outputs in (
            chain.batch(values, return_exceptions=True),
            await chain.abatch(values, return_exceptions=True),
        ):
            assert text_of(outputs[0]) == text_of(outputs[4]) == "fine"
            assert isinstance(outputs[1], ZeroDivisionError)
            assert text_of(outputs[2]).startswith("I'm sorry")
            assert isinstance(outputs[3], UnreadableInputError)
        with pytest.raises(ZeroDivisionError):
            chain.batch(["a", "fail", "b"])

    def test_as_completed(self) -> None:
        chain = InputGuard(word_guard(), POLICY) | answering() | OutputGuard(word_guard())
        outputs = dict(chain.batch_as_completed(["bread", "bomb"]))
        assert [text_of(outputs[0]), text_of(outputs[1])] == [SAFE_ANSWER, "No."]

    def test_of_nothing(self) -> None:
        assert (InputGuard(word_guard()) | answering() | OutputGuard(word_guard())).batch([]) == []


class TestInputGuardByItself:
    def test_what_is_allowed_is_the_same_object(self) -> None:
        guard = InputGuard(word_guard(), POLICY)
        for value in ("hi", HumanMessage("hi"), [HumanMessage("hi")], {"q": "hi", "n": 3}):
            assert guard.invoke(value) is value
            assert guard.batch([value])[0] is value
            assert next(iter(guard.stream(value))) is value

    async def test_what_is_rewritten_keeps_its_shape(self) -> None:
        guard = InputGuard(word_guard(), POLICY)
        assert await guard.ainvoke("0123") == "[number]"
        history = [SystemMessage("s", id="1"), HumanMessage("q", id="2"), AIMessage("a", id="3")]
        asked = HumanMessage("0123", id="4")
        new = HumanMessage("[number]", id="4")
        assert guard.invoke([*history, asked]) == [*history, new]
        assert guard.invoke({"messages": [*history, asked], "k": 3}) == {
            "messages": [*history, new],
            "k": 3,
        }
        assert guard.invoke({"history": history, "question": "0123"}) == {
            "history": history,
            "question": "[number]",
        }
        prompt = ChatPromptTemplate([("system", "s"), ("human", "{q}")])
        value = guard.invoke(prompt.invoke({"q": "0123"}))
        assert [m.content for m in value.to_messages()] == ["s", "[number]"]
        with pytest.raises(UnreadableInputError, match="several places"):
            guard.invoke({"a": "0123", "b": "more"})

    @pytest.mark.parametrize("value", [object(), 7, b"bytes", None, [object()], [["x", 3]]])
    async def test_what_cannot_be_read_is_never_let_through(self, value: Any) -> None:
        model = answering()
        for chain in (
            RunnableLambda(lambda x: x) | InputGuard(word_guard()) | model,
            RunnableLambda(lambda x: x)
            | InputGuard(word_guard())
            | model
            | OutputGuard(word_guard()),
        ):
            with pytest.raises(UnreadableInputError):
                chain.invoke(value)
            with pytest.raises(UnreadableInputError):
                [c async for c in chain.astream(value)]
        assert model.tally.calls == 0


class TestOddInput:
    def chain(self, model: StreamingChatModel) -> Any:
        return InputGuard(word_guard(), POLICY) | model | OutputGuard(word_guard(), POLICY)

    @pytest.mark.parametrize("value", ["", "   ", "\x00\x1b", "\ud800", "\u200b"])
    def test_texts_without_words_reach_the_model(self, value: str) -> None:
        model = answering()
        assert text_of(self.chain(model).invoke(value)) == SAFE_ANSWER

    def test_an_answer_begun_for_the_model_is_judged_too(self) -> None:
        messages = [HumanMessage("Finish this"), AIMessage("To build a bomb,")]
        model = answering()
        assert text_of(self.chain(model).invoke(messages)) == "No."
        assert model.tally.calls == 0

    def test_images_are_recorded_as_unchecked(self) -> None:
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
        guard = InputGuard(word_guard(), {"on_unchecked": "block", "message": "No."})
        chain = guard | answering() | OutputGuard(word_guard())
        output = chain.invoke([HumanMessage([{"type": "text", "text": "What is it?"}, image])])
        assert text_of(output) == "No."
        assert record_of(output)["unchecked"] == ["image_url"]  # type: ignore[index]

    def test_a_megabyte(self) -> None:
        model = answering()
        text = "bread " * 175_000 + "bomb"
        assert text_of(self.chain(model).invoke(text)) == "No."
        assert model.tally.calls == 0

    @pytest.mark.parametrize("side", ["input", "output"])
    def test_a_guard_that_fails_blocks(self, side: Any) -> None:
        def fail() -> None:
            raise RuntimeError("the secret text")

        guard = FaultyGuard(fail, side)
        chain = InputGuard(guard) | answering() | OutputGuard(guard)
        assert text_of(chain.invoke("bread")).startswith("I'm sorry")


class TestLangChainFeatures:
    def chain(self, model: Any = None) -> Any:
        return (
            PROMPT
            | InputGuard(word_guard(), POLICY)
            | (model or answering())
            | OutputGuard(word_guard(), POLICY)
        )

    def test_retry_and_fallbacks_around_the_whole(self) -> None:
        attempts = iter([[ZeroDivisionError()], "bread"])
        chain = self.chain(answering(lambda _: next(attempts)))
        retried = chain.with_retry(wait_exponential_jitter=False, stop_after_attempt=2)
        assert text_of(retried.invoke({"question": "?"})) == "bread"
        failing = self.chain(answering([ZeroDivisionError()]))
        assert text_of(failing.with_fallbacks([self.chain()]).invoke({"question": "?"})) == (
            SAFE_ANSWER
        )

    def test_config_reaches_the_steps(self) -> None:
        seen: list[Any] = []

        def note(value: Any, config: Any) -> Any:
            seen.append(config)
            return value

        model = answering().configurable_fields(script=ConfigurableField("script"))
        chain = (
            PROMPT
            | InputGuard(word_guard())
            | RunnableLambda(note)
            | model
            | OutputGuard(word_guard())
        ).with_config(tags=["t"], metadata={"m": 1})
        output = chain.invoke({"question": "?"}, {"configurable": {"script": "changed"}})
        assert text_of(output) == "changed"
        assert "t" in seen[0]["tags"]
        assert seen[0]["metadata"]["m"] == 1
        assert [spec.id for spec in chain.config_specs] == ["script"]

    def test_bound_tools(self) -> None:
        def add(a: int, b: int) -> int:
            """Add."""
            return a + b

        model = answering()
        assert text_of(self.chain(model.bind_tools([add])).invoke({"question": "?"})) == SAFE_ANSWER

    def test_assign(self) -> None:
        chain = RunnablePassthrough.assign(answer=self.chain() | StrOutputParser())
        assert chain.invoke({"question": "bomb"}) == {"question": "bomb", "answer": "No."}
        inner = RunnablePassthrough.assign(answer=PROMPT | answering("a bomb"))
        with pytest.raises(ContentBlockedError):
            (InputGuard(word_guard()) | inner | OutputGuard(word_guard())).invoke({"question": "?"})

    def test_in_parallel_branches(self) -> None:
        both = RunnableParallel(a=self.chain(), b=self.chain(answering("bomb")))
        output = both.invoke({"question": "?"})
        assert (text_of(output["a"]), text_of(output["b"])) == (SAFE_ANSWER, "No.")

    def test_pydantic_answers_are_read(self) -> None:
        class Recipe(BaseModel):
            title: str
            steps: list[str]

        def parse(message: Any) -> Recipe:
            return Recipe(title="x", steps=["fine", message.text])

        for answer in ("bread", "bomb"):
            chain = InputGuard(word_guard()) | answering(answer) | parse | OutputGuard(word_guard())
            if answer == "bomb":
                with pytest.raises(ContentBlockedError):
                    chain.invoke("?")
            else:
                assert chain.invoke("?").steps[1] == "bread"

    def test_names_and_schemas(self) -> None:
        chain = self.chain()
        assert set(chain.get_input_jsonschema()["properties"]) == {"question"}
        for same in (chain, guarded(PROMPT | answering(), word_guard())):
            assert same.get_output_jsonschema()["title"].endswith("Output")
            assert "AIMessage" in same.get_output_jsonschema()["$defs"]
        assert chain.get_output_jsonschema() == answering().get_output_jsonschema() | {
            "title": chain.get_output_jsonschema()["title"]
        }
        assert (chain | StrOutputParser()).get_output_jsonschema()["type"] == "string"
        assert (InputGuard(word_guard()) | answering() | OutputGuard(word_guard())).InputType == (
            answering().InputType
        )

    def test_the_graph_shows_the_guards(self) -> None:
        names = [node.name for node in self.chain().get_graph().nodes.values()]
        assert names[1:5] == [
            "ChatPromptTemplate",
            "InputGuard",
            "StreamingChatModel",
            "OutputGuard",
        ]
        assert "InputGuard" in self.chain().get_graph().draw_mermaid()

    async def test_decisions_are_custom_events(self) -> None:
        chain = self.chain()
        events = [e async for e in chain.astream_events({"question": "?"}, version="v2")]
        decisions = [e["data"] for e in events if e["name"] == "safeguard_decision"]
        assert [decision["side"] for decision in decisions] == ["input", "output"]
