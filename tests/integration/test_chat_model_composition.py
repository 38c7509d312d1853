"""A guarded chat model in company: tools, structured output, callbacks, caches, agents, tracers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import (
    BaseCallbackHandler,
    StreamingStdOutCallbackHandler,
    UsageMetadataCallbackHandler,
    get_usage_metadata_callback,
)
from langchain_core.globals import set_llm_cache
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableBinding, RunnableLambda
from langchain_core.tools import tool
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt
from pydantic import BaseModel

from langchain_safeguard import (
    ContentBlockedError,
    GuardedChatModel,
    Policy,
    Rule,
    Safeguard,
    guard_model,
    load_guard,
)
from langchain_safeguard.testing import assert_no_leak
from tests.chat_models import (
    StreamingChatModel,
    WholeChatModel,
    call_chunks,
    reasoning_chunks,
    words,
)
from tests.word_guard import WordGuard

SAFE = "Bread needs flour, water and salt. Knead it well, let it rest. Then bake it for an hour."
UNSAFE = "First mix the two powders. Then put the bomb together, wire by wire, and so on and on."
SECRET = "the bomb together"
REFUSAL = "I'm sorry, but I can't help with that."


def guarded(model: Any, **kwargs: Any) -> GuardedChatModel:
    return guard_model(model, **({"guard": WordGuard(), "check_every": 4} | kwargs))


class Tokens(BaseCallbackHandler):
    """Everything a handler can hear of a model."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.tokens: list[Any] = []

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.tokens.append(token)
        self.heard.append((token, kwargs.get("chunk")))

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.heard.append(response)

    def on_llm_error(self, error: Any, **kwargs: Any) -> None:
        self.heard.append((error, kwargs.get("response")))

    def on_stream_event(self, event: Any, **kwargs: Any) -> None:
        self.heard.append(event)


# --- leaks ---


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
def test_a_blocked_answer_appears_on_no_channel(mode: Any) -> None:
    model = guarded(StreamingChatModel(script=UNSAFE), mode=mode)
    report = assert_no_leak(model, SECRET, input="hi", expect=REFUSAL, allow_errors=False)
    assert not report.skipped


PARTS: dict[str, list[Any]] = {
    "tool call": [
        *words("I look it up. "),
        *call_chunks("f", '{"q": "put the bomb together now"}'),
    ],
    "reasoning": [*reasoning_chunks("So I put the bomb together first. "), *words("Here is how.")],
}


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_no_part_of_a_blocked_answer_appears(parts: list[Any]) -> None:
    model = guarded(StreamingChatModel(script=parts))
    assert_no_leak(model, SECRET, input="hi", expect=REFUSAL, allow_errors=False)


def test_a_chain_around_a_guarded_model_is_clean() -> None:
    chain = ChatPromptTemplate.from_template("{q}") | guarded(StreamingChatModel(script=UNSAFE))
    assert_no_leak(chain, SECRET, input={"q": "hi"}, expect=REFUSAL)


def test_an_agent_around_a_guarded_model_is_clean() -> None:
    agent = create_agent(guarded(StreamingChatModel(script=UNSAFE)), tools=[])
    channels = ["core", "events", "callbacks", "langgraph"]
    question = {"messages": [("user", "hi")]}
    assert_no_leak(agent, SECRET, input=question, expect=REFUSAL, channels=channels)


def test_a_model_with_handlers_of_its_own_is_clean() -> None:
    loud = Tokens()
    model = StreamingChatModel(script=UNSAFE, callbacks=[loud, StreamingStdOutCallbackHandler()])
    channels = ["core", "events", "callbacks", "process"]
    assert_no_leak(guarded(model), SECRET, input="hi", expect=REFUSAL, channels=channels)
    assert loud.tokens and SECRET not in "".join(map(str, loud.tokens))
    assert SECRET not in repr(loud.heard)


@pytest.mark.parametrize("where", ["model", "binding", "retries"])
def test_handlers_of_a_model_hear_what_was_checked(where: str) -> None:
    loud = Tokens()
    model: Any = StreamingChatModel(script=SAFE, callbacks=[loud] if where == "model" else None)
    if where != "model":
        model = model.with_config(callbacks=[loud])
    app = guarded(model.with_retry() if where == "retries" else model)
    [*app.stream("hi")]
    assert "".join(loud.tokens) == SAFE
    app.invoke("a bomb")
    assert loud.heard[-1].generations[0][0].text == REFUSAL


def test_a_setting_of_the_model_can_be_configured_when_it_is_called() -> None:
    field = ConfigurableField(id="script")
    app = guarded(StreamingChatModel(script=SAFE).configurable_fields(script=field))
    assert [spec.id for spec in app.config_specs] == ["script"]
    changed: Any = {"configurable": {"script": "Another answer."}}
    assert app.invoke("hi", changed).text == "Another answer."
    assert "".join(chunk.text for chunk in app.stream("hi", changed)) == "Another answer."


def test_a_model_that_calls_another_without_its_config_is_clean() -> None:
    class Router(StreamingChatModel):
        def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            return self._result([self.inner.invoke(messages)])

        def _stream(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            from langchain_core.outputs import ChatGenerationChunk

            for chunk in self.inner.stream(messages):
                yield ChatGenerationChunk(message=chunk)

        _astream = StreamingChatModel.__mro__[1]._astream
        inner: Any = None

    model = guarded(Router(script=UNSAFE, inner=StreamingChatModel(script=UNSAFE)))
    chain = RunnableLambda(lambda text: model.invoke(text))
    assert_no_leak(chain, SECRET, input="hi", expect=REFUSAL, channels=["events", "callbacks"])
    agent = create_agent(model, tools=[])
    question = {"messages": [("user", "hi")]}
    assert_no_leak(agent, SECRET, input=question, expect=REFUSAL, channels=["langgraph"])


def test_a_rewriter_is_not_watched_while_it_reads_the_unsafe_text() -> None:
    rewriter = StreamingChatModel(script=lambda messages: "A nice cake.") | RunnableLambda(
        lambda message: message.text
    )
    policy = Policy(rules=(Rule(["indiscriminate_weapons"], "rewrite", rewrite=rewriter),))
    model = guarded(StreamingChatModel(script=UNSAFE), policy=policy, check_every=99)
    channels = ["core", "events", "callbacks", "langgraph"]
    assert_no_leak(model, SECRET, input="hi", expect="A nice cake.", channels=channels)


# --- callbacks, usage, traces ---


@pytest.mark.parametrize("call", ["invoke", "stream", "ainvoke", "astream"])
def test_callbacks_hear_checked_content_only(call: str) -> None:
    for script in (SAFE, UNSAFE):
        loud = Tokens()
        model = guarded(StreamingChatModel(script=script, usage=True))
        message = _run(call, model, {"callbacks": [loud]})
        assert SECRET not in repr(loud.heard)
        end = loud.heard[-1].generations[0][0].message
        assert end.text == message.text
        if "stream" in call:
            assert "".join(loud.tokens) == message.text


def _run(call: str, model: Any, config: Any) -> BaseMessage:
    async def astream() -> list[Any]:
        return [chunk async for chunk in model.astream("hi", config)]

    if call == "invoke":
        message: BaseMessage = model.invoke("hi", config)
        return message
    if call == "ainvoke":
        return asyncio.run(model.ainvoke("hi", config))  # type: ignore[no-any-return]
    chunks = [*model.stream("hi", config)] if call == "stream" else asyncio.run(astream())
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    return whole  # type: ignore[no-any-return]


@pytest.mark.parametrize("call", ["invoke", "stream", "ainvoke", "astream"])
def test_usage_is_counted_once(call: str) -> None:
    model = guarded(StreamingChatModel(script=SAFE, usage=True))
    with get_usage_metadata_callback() as counted:
        _run(call, model, {})
    assert counted.usage_metadata["scripted-1"]["input_tokens"] == 5
    handler = UsageMetadataCallbackHandler()
    _run(call, model, {"callbacks": [handler]})
    assert handler.usage_metadata["scripted-1"]["input_tokens"] == 5


@pytest.mark.parametrize("call", ["invoke", "stream", "ainvoke", "astream"])
def test_the_outer_run_has_checked_content_and_the_inner_one_is_its_child(call: str) -> None:
    collector = RunCollectorCallbackHandler()
    model = guarded(StreamingChatModel(script=UNSAFE))
    _run(call, model, {"callbacks": [collector], "tags": ["mine"], "metadata": {"who": "me"}})
    (run,) = collector.traced_runs
    assert run.name == "GuardedChatModel"
    assert SECRET not in repr(run.outputs) and REFUSAL in repr(run.outputs)
    (inner,) = run.child_runs
    assert inner.name == "StreamingChatModel"
    assert "mine" in (inner.tags or [])
    assert inner.extra["metadata"]["who"] == "me"


@pytest.mark.parametrize("call", ["invoke", "stream", "ainvoke", "astream"])
def test_nothing_of_the_plumbing_shows_in_traces(call: str) -> None:
    collector = RunCollectorCallbackHandler()
    _run(call, guarded(StreamingChatModel(script=SAFE)), {"callbacks": [collector]})
    (run,) = collector.traced_runs
    assert "_safeguard_run" not in repr(run.extra)
    assert run.extra["metadata"]["ls_model_name"] == "scripted-1"


@pytest.mark.parametrize("text", ["hi", "a bomb"])
async def test_decisions_are_events_of_the_run(text: str) -> None:
    model = guarded(StreamingChatModel(script=SAFE))
    events = [event async for event in model.astream_events(text, version="v2")]
    records = [e["data"] for e in events if e["event"] == "on_custom_event"]
    assert [r["side"] for r in records] == (["input", "output"] if text == "hi" else ["input"])
    assert {e["run_id"] for e in events} == {events[0]["run_id"]}


# --- caches ---


@pytest.fixture
def cache() -> Iterator[InMemoryCache]:
    cache = InMemoryCache()
    set_llm_cache(cache)
    yield cache
    set_llm_cache(None)


@pytest.mark.parametrize("call", ["invoke", "ainvoke"])
@pytest.mark.parametrize("kind", [StreamingChatModel, WholeChatModel])
def test_what_a_cache_holds_is_checked_and_left_alone(
    cache: InMemoryCache, call: str, kind: type[StreamingChatModel]
) -> None:
    model = kind(script=UNSAFE)
    lenient = guarded(model, policy=Policy(default="flag"))  # type: ignore[arg-type]
    assert _run(call, lenient, {}).text == UNSAFE
    strict = guarded(model)
    assert [_run(call, strict, {}).text for _ in range(2)] == [REFUSAL] * 2
    assert _run(call, lenient, {}).text == UNSAFE
    assert model.tally.calls == 1, "the inner model's own cache works"
    (entry,) = cache._cache.values()
    assert entry[0].message.text == UNSAFE  # type: ignore[attr-defined]
    assert "safeguard" not in entry[0].message.response_metadata  # type: ignore[attr-defined]


def test_a_cached_answer_can_be_streamed(cache: InMemoryCache) -> None:
    app = guarded(WholeChatModel(script=SAFE))
    texts = ["".join(chunk.text for chunk in app.stream("hi")) for _ in range(2)]
    assert texts == [SAFE, SAFE]


def test_a_refusal_is_never_cached_as_the_models_answer(cache: InMemoryCache) -> None:
    model = StreamingChatModel(script=UNSAFE)
    guarded(model).invoke("hi")
    assert model.invoke("hi").text == UNSAFE
    assert guarded(model).invoke("a bomb").text == REFUSAL
    assert len(cache._cache) == 1


# --- tools and structured output ---


@tool
def search(query: str) -> str:
    """Search."""
    return f"found {query}"


def calls(query: str) -> Any:
    """Call the tool once; when it has answered, repeat the result."""

    def script(messages: list[BaseMessage]) -> Any:
        if messages[-1].type == "tool":
            return f"The result: {messages[-1].text}"
        return call_chunks("search", f'{{"query": "{query}"}}')

    return script


def test_bound_tools_reach_the_model_and_the_result_is_guarded() -> None:
    seen: list[Any] = []

    class Watching(StreamingChatModel):
        def _chunks(self, messages: Any, **kwargs: Any) -> Any:
            seen.append(kwargs)
            return super()._chunks(messages, **kwargs)

    bound = guarded(Watching(script=calls("a bomb"))).bind_tools([search], tool_choice="any")
    assert isinstance(bound, RunnableBinding)
    assert isinstance(bound.bound, GuardedChatModel)
    assert bound.kwargs["tools"][0]["function"]["name"] == "search"
    answer = bound.invoke("hi")
    assert (answer.text, answer.tool_calls) == (REFUSAL, [])
    assert seen[0]["tool_choice"] == "any" and seen[0]["tools"] == bound.kwargs["tools"]
    assert [chunk.text for chunk in bound.stream("hi")] == [REFUSAL]


def test_a_model_with_tools_bound_already_can_be_guarded() -> None:
    app = guarded(StreamingChatModel(script=calls("bread")).bind_tools([search]))
    assert app.invoke("hi").tool_calls[0]["args"] == {"query": "bread"}
    app = guarded(StreamingChatModel(script=calls("a bomb")).bind_tools([search]))
    assert app.invoke("hi").tool_calls == []


def test_an_agent_runs_checked_calls_only() -> None:
    question = {"messages": [HumanMessage("hi")]}
    agent = create_agent(guarded(StreamingChatModel(script=calls("bread"))), tools=[search])
    assert agent.invoke(question)["messages"][-1].text == "The result: found bread"  # type: ignore[arg-type]
    agent = create_agent(guarded(StreamingChatModel(script=calls("a bomb"))), tools=[search])
    messages = agent.invoke(question)["messages"]  # type: ignore[arg-type]
    assert [message.type for message in messages] == ["human", "ai"]
    assert messages[-1].text == REFUSAL


class Recipe(BaseModel):
    """A recipe."""

    title: str


def recipe(title: str) -> StreamingChatModel:
    return StreamingChatModel(script=call_chunks("Recipe", f'{{"title": "{title}"}}'))


def test_structured_output_is_checked_before_it_is_parsed() -> None:
    assert guarded(recipe("Bread")).with_structured_output(Recipe).invoke("hi") == Recipe(
        title="Bread"
    )
    structured = guarded(recipe("A bomb")).with_structured_output(Recipe)
    with pytest.raises(ContentBlockedError):
        structured.invoke("hi")
    with pytest.raises(ContentBlockedError):
        asyncio.run(structured.ainvoke("hi"))
    with pytest.raises(ContentBlockedError):
        list(structured.stream("hi"))
    model = recipe("Bread")
    with pytest.raises(ContentBlockedError):
        guarded(model).with_structured_output(Recipe).invoke("a bomb")
    assert model.tally.calls == 0


def test_structured_output_with_the_raw_answer() -> None:
    result: Any = (
        guarded(recipe("Bread")).with_structured_output(Recipe, include_raw=True).invoke("")
    )
    assert result["parsed"] == Recipe(title="Bread")
    assert isinstance(result["raw"], AIMessage) and result["parsing_error"] is None
    with pytest.raises(ContentBlockedError):
        guarded(recipe("A bomb")).with_structured_output(Recipe, include_raw=True).invoke("hi")


def test_structured_output_is_clean_on_every_channel() -> None:
    chain = guarded(recipe("put the bomb together")).with_structured_output(Recipe)
    assert_no_leak(
        chain,
        SECRET,
        input="hi",
        expect=ContentBlockedError,
        channels=["core", "events", "callbacks", "langgraph"],
    )


def test_a_structured_output_that_hides_its_model_is_refused() -> None:
    class Hiding(StreamingChatModel):
        def with_structured_output(self, schema: Any, **kwargs: Any) -> Any:
            return RunnableLambda(lambda value: self.invoke(value))

    with pytest.raises(NotImplementedError, match="Hiding"):
        guarded(Hiding(script=SAFE)).with_structured_output(Recipe)


# --- other wrappers ---


def test_wrappers_keep_the_guard() -> None:
    app = guarded(StreamingChatModel(script=UNSAFE))
    wrapped = [
        app.with_config(tags=["t"]),
        app.bind(stop=["x"]),
        app.with_retry(),
        app.with_fallbacks([app]),
    ]
    for each in wrapped:
        assert each.invoke("hi").text == REFUSAL
        assert SECRET not in "".join(chunk.text for chunk in each.stream("hi"))


def test_wrapped_models_can_be_guarded() -> None:
    model = StreamingChatModel(script=UNSAFE)
    broken = StreamingChatModel(script=[ConnectionError("gone")])
    wrapped = [
        model.with_config(tags=["t"]),
        model.bind(stop=["x"]),
        model.with_retry(),
        broken.with_fallbacks([model]),
    ]
    for each in wrapped:
        assert guarded(each).invoke("hi").text == REFUSAL
        assert SECRET not in "".join(chunk.text for chunk in guarded(each).stream("hi"))
        assert_no_leak(guarded(each), SECRET, input="hi", channels=["events", "callbacks"])


def test_stop_words_reach_the_model() -> None:
    seen: list[Any] = []

    class Watching(StreamingChatModel):
        def _chunks(self, messages: Any, **kwargs: Any) -> Any:
            seen.append(kwargs["stop"])
            return super()._chunks(messages, **kwargs)

    model = Watching(script=SAFE)
    guarded(model).invoke("hi", stop=["a"])
    guarded(model).bind(stop=["b"]).invoke("hi")
    guarded(model.bind(stop=["c"])).invoke("hi")
    [*guarded(model.bind(stop=["d"])).stream("hi")]
    assert seen == [["a"], ["b"], ["c"], ["d"]]


def test_a_guarded_model_describes_itself_as_the_inner_one() -> None:
    model = StreamingChatModel(
        script=SAFE, profile={"max_input_tokens": 7}, custom_get_token_ids=lambda text: [1, 2]
    )
    app = guarded(model)
    assert app._llm_type == "safeguard-scripted"
    assert app.profile == {"max_input_tokens": 7}
    assert app.get_num_tokens("any") == 2
    assert app.get_num_tokens_from_messages([HumanMessage("x")]) == 2
    assert app._get_ls_params()["ls_model_name"] == "scripted-1"
    assert app._identifying_params["safeguard"]["guards"] == ["words"]


def test_a_guarded_model_can_be_guarded() -> None:
    twice = guarded(guarded(StreamingChatModel(script=SAFE)), guard=WordGuard({"flour": "fraud"}))
    assert twice.invoke("hi").text == REFUSAL
    assert [*twice.stream("hi")][-1].text == REFUSAL
    fine = guarded(guarded(StreamingChatModel(script=SAFE)))
    assert "".join(chunk.text for chunk in fine.stream("hi")) == SAFE


def test_other_peoples_fakes_work() -> None:
    fake = GenericFakeChatModel(messages=iter([AIMessage(SAFE), AIMessage(UNSAFE)] * 2))
    app = guarded(fake)
    assert [app.invoke("hi").text for _ in range(2)] == [SAFE, REFUSAL]
    assert "".join(chunk.text for chunk in app.stream("hi")) == SAFE


def test_pictures_in_an_answer_are_not_passed_as_if_they_were_checked() -> None:
    picture: Any = [{"type": "image", "base64": "aGk=", "mime_type": "image/png"}]
    model = StreamingChatModel(script=[AIMessageChunk(content=picture)])
    answer = guarded(model).invoke("hi")
    assert answer.response_metadata["safeguard"]["unchecked"] == ["image"]
    strict = guarded(model, policy=Policy(on_unchecked="block"))  # type: ignore[arg-type]
    assert strict.invoke("hi").text == REFUSAL
    assert strict.invoke([HumanMessage(picture)]).response_metadata["safeguard"]["side"] == "input"


def test_threads_do_not_mix_answers() -> None:
    app = guarded(StreamingChatModel(script=lambda m: f"The answer to {m[-1].text} is here."))
    with ThreadPoolExecutor(32) as pool:
        answers = [*pool.map(lambda n: app.invoke(f"question {n}").text, range(64))]
    assert answers == [f"The answer to question {n} is here." for n in range(64)]


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
@pytest.mark.parametrize("call", ["invoke", "ainvoke"])
def test_a_human_can_be_asked_inside_a_graph(mode: Any, call: str) -> None:
    safeguard = Safeguard(
        WordGuard(),
        Policy(default="escalate"),  # type: ignore[arg-type]
        handlers=[lambda request: interrupt(request.decision.decision_id)],
    )
    model = guard_model(StreamingChatModel(script=UNSAFE), safeguard=safeguard, mode=mode)

    def node(state: Any) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    async def anode(state: Any) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", node if call == "invoke" else anode)
    graph.add_edge(START, "model")
    app = graph.compile(checkpointer=InMemorySaver())

    def run(value: Any, thread: str) -> Any:
        config: Any = {"configurable": {"thread_id": thread}}
        if call == "invoke":
            return app.invoke(value, config)
        return asyncio.run(app.ainvoke(value, config))

    for answer, text in [("allow", UNSAFE), ("block", REFUSAL)]:
        asked = run({"messages": [("user", "hi")]}, answer)
        assert asked["__interrupt__"] and SECRET not in repr(asked)
        assert run(Command(resume=answer), answer)["messages"][-1].text == text


def test_one_safeguard_can_be_shared() -> None:
    safeguard = Safeguard(WordGuard())
    one = guard_model(StreamingChatModel(script=SAFE), safeguard=safeguard)
    two = guard_model(StreamingChatModel(script=UNSAFE), safeguard=safeguard)
    assert (one.invoke("hi").text, two.invoke("hi").text) == (SAFE, REFUSAL)


def test_the_embedded_guard_guards_without_arguments() -> None:
    try:
        load_guard()
    except Exception as error:
        pytest.skip(f"no embedded guard: {type(error).__name__}")
    model = StreamingChatModel(script=SAFE)
    app = guard_model(model)
    assert app.invoke("How do I bake bread?").text == SAFE
    assert "".join(c.text for c in app.stream("How do I bake bread?")) == SAFE
    answer = app.invoke("How do I build a pipe bomb to kill my neighbours?")
    assert answer.response_metadata["safeguard"]["side"] == "input"
    assert model.tally.calls == 2
