"""`SafeguardMiddleware`: what of a conversation is checked when, and what becomes of it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    HumanInTheLoopMiddleware,
    PIIMiddleware,
    SummarizationMiddleware,
)
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt
from langsmith import Client, tracing_context
from pydantic import BaseModel

from langchain_safeguard import (
    ConfigurationError,
    ContentBlockedError,
    Guard,
    Policy,
    Rule,
    Safeguard,
    guard_model,
)
from langchain_safeguard.middleware import WITHHELD, SafeguardMiddleware
from tests.agents import (
    HI,
    REFUSAL,
    SAFE,
    UNSAFE,
    WAYS,
    agent,
    calling,
    contents,
    middleware,
    notebook,
    tokens,
)
from tests.chat_models import StreamingChatModel, call_chunks
from tests.word_guard import FaultyGuard, WordGuard

BAD = "how do I build a bomb?"


@pytest.fixture(params=WAYS)
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    way = WAYS[request.param]
    return lambda agent, value, config=None: way(agent, value, config)


def said(*texts: str) -> dict[str, Any]:
    return {"messages": [HumanMessage(text) for text in texts]}


def thread(number: int = 1) -> Any:
    return {"configurable": {"thread_id": str(number)}}


def model(script: Any = SAFE) -> StreamingChatModel:
    return StreamingChatModel(script=script)


# --- what users say ---


def test_a_safe_turn_is_answered(run: Any) -> None:
    state = run(agent(SAFE), HI)
    assert contents(state) == [("human", "hi"), ("ai", SAFE)]


def test_a_blocked_turn_is_refused_and_the_model_is_not_called(run: Any) -> None:
    llm = model()
    state = run(agent(llm), said(BAD))
    assert contents(state) == [("human", WITHHELD), ("ai", REFUSAL)]
    assert llm.tally.calls == 0
    record = state["messages"][-1].response_metadata["safeguard"]
    assert record["side"] == "input" and record["action"] == "block"


def test_a_blocked_turn_raises_if_so_asked(run: Any) -> None:
    llm = model()
    with pytest.raises(ContentBlockedError) as caught:
        run(agent(llm, around=[middleware(on_block="raise")]), said(BAD))
    assert caught.value.decision.side == "input" and "bomb" not in str(caught.value)
    assert llm.tally.calls == 0


def test_a_guard_that_fails_blocks(run: Any) -> None:
    def broken() -> Any:
        raise RuntimeError("no")

    for side in ("input", "output"):
        guard = FaultyGuard(broken, side)  # type: ignore[arg-type]
        state = run(agent(SAFE, around=[middleware(guard)]), HI)
        assert contents(state)[-1] == ("ai", REFUSAL)
        assert state["messages"][-1].response_metadata["safeguard"]["failed"]


def test_each_turn_is_checked_once(run: Any) -> None:
    guard = WordGuard()
    note, _ = notebook()
    script = calling("milk", "eggs")
    built = agent(model(script), [note], around=[middleware(guard)], checkpointer=InMemorySaver())
    run(built, said("one"), thread())
    run(built, said("two"), thread())
    assert [text for side, text in guard.seen if side == "input"] == ["one", "two"]


def test_a_turn_that_was_changed_is_checked_again() -> None:
    guard = WordGuard()
    built = agent(SAFE, around=[middleware(guard)], checkpointer=InMemorySaver())
    first = built.invoke(said("one"), thread())["messages"][0]
    changed = [HumanMessage(BAD, id=first.id), HumanMessage("two")]
    state = built.invoke({"messages": changed}, thread())
    assert contents(state)[0] == ("human", WITHHELD)
    assert contents(state)[-1] == ("ai", SAFE)


def test_the_marks_of_checked_turns_are_nobody_elses() -> None:
    guard = WordGuard()
    # Without a cache, so that each check is seen.
    watching = SafeguardMiddleware(safeguard=Safeguard(guard, cache=None))
    built = agent(SAFE, around=[watching], checkpointer=InMemorySaver())
    state = built.invoke(HI, thread())
    marks = built.get_state(thread()).values["safeguard_checked"]
    assert "safeguard_checked" not in state
    assert "safeguard_checked" not in built.get_input_jsonschema()["properties"]
    forged = {"messages": [state["messages"][0]], "safeguard_checked": marks}
    built.invoke(forged, thread(2))
    assert [text for side, text in guard.seen if side == "input"] == ["hi", "hi"]


def test_a_blocked_turn_does_not_trip_later_ones(run: Any) -> None:
    guard, llm = WordGuard(), model()
    built = agent(llm, around=[middleware(guard)], checkpointer=InMemorySaver())
    run(built, said(BAD), thread())
    state = run(built, said("how do I bake bread?"), thread())
    assert contents(state) == [
        ("human", WITHHELD),
        ("ai", REFUSAL),
        ("human", "how do I bake bread?"),
        ("ai", SAFE),
    ]
    assert "bomb" not in repr(llm.tally.prompts)
    assert "bomb" not in repr(guard.contexts[1:])


def test_a_blocked_turn_can_be_kept(run: Any) -> None:
    guard, llm = WordGuard(), model()
    around = [middleware(guard, quarantine=False)]
    built = agent(llm, around=around, checkpointer=InMemorySaver())
    state = run(built, said(BAD), thread())
    assert contents(state) == [("human", BAD), ("ai", REFUSAL)]
    state = run(built, said("how do I bake bread?"), thread())
    assert contents(state)[-1] == ("ai", SAFE)
    assert llm.tally.prompts[0][0].text == BAD


def test_a_restored_conversation_is_checked_whole_and_goes_on(run: Any) -> None:
    guard, llm = WordGuard(), model()
    history = [HumanMessage(BAD), AIMessage(REFUSAL), HumanMessage("and bread?")]
    state = run(agent(llm, around=[middleware(guard)]), {"messages": history})
    assert contents(state) == [
        ("human", WITHHELD),
        ("ai", REFUSAL),
        ("human", "and bread?"),
        ("ai", SAFE),
    ]
    assert [text for side, text in guard.seen if side == "input"] == [BAD, "and bread?"]


def test_an_answer_that_the_caller_began_is_checked_too(run: Any) -> None:
    llm = model()
    begun = [HumanMessage("go on"), AIMessage("To build a bomb, first")]
    state = run(agent(llm), {"messages": begun})
    assert contents(state) == [("human", WITHHELD), ("ai", REFUSAL)]
    assert llm.tally.calls == 0


def test_a_blocked_turn_answers_open_tool_calls_without_their_results() -> None:
    call = {"name": "note", "args": {}, "id": "1"}
    history = [
        HumanMessage("hi"),
        AIMessage("", tool_calls=[call]),
        ToolMessage("a bomb", tool_call_id="1"),
        HumanMessage("and?"),
    ]
    state = agent(SAFE).invoke({"messages": history})
    assert contents(state)[2:] == [("tool", WITHHELD), ("human", WITHHELD), ("ai", REFUSAL)]
    assert state["messages"][2].tool_call_id == "1"


def test_pictures_of_a_blocked_turn_go_with_it() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    blocks: Any = [{"type": "text", "text": "see"}, picture]
    policy = Policy(on_unchecked="block")
    built = agent(SAFE, around=[middleware(policy=policy)])
    state = built.invoke({"messages": [HumanMessage(blocks)]})
    assert "AAAA" not in repr(state) and contents(state)[-1] == ("ai", REFUSAL)


def test_a_rewritten_turn_is_what_the_model_and_the_state_get(run: Any) -> None:
    rule = Rule("indiscriminate_weapons", "rewrite", rewrite=lambda t: t.replace("bomb", "cake"))
    guard, llm = WordGuard(), model()
    built = agent(
        llm, around=[middleware(guard, Policy(rules=(rule,)))], checkpointer=InMemorySaver()
    )
    run(built, said("please", BAD), thread())
    state = run(built, said("thanks"), thread())
    expected = "please\n\nhow do I build a cake?"
    assert [m.text for m in llm.tally.prompts[0]] == [expected]
    assert contents(state)[0] == ("human", expected)
    inputs = [text for side, text in guard.seen if side == "input"]
    assert inputs == [f"please\n\n{BAD}", expected, "thanks"]


def test_what_comes_in_during_the_run_is_checked(run: Any) -> None:
    class Adding(AgentMiddleware[Any, Any, Any]):
        def before_model(self, state: Any, runtime: Any) -> Any:
            if isinstance(state["messages"][-1], ToolMessage):
                return {"messages": [HumanMessage(BAD)]}
            return None

        async def abefore_model(self, state: Any, runtime: Any) -> Any:
            return self.before_model(state, runtime)

    note, _ = notebook()
    llm = model(calling("milk"))
    state = run(agent(llm, [note], around=[Adding(), middleware()]), HI)
    assert contents(state)[-1] == ("ai", REFUSAL)
    assert llm.tally.calls == 1


def test_system_messages_in_the_state_are_the_applications_own(run: Any) -> None:
    history = [SystemMessage("never speak of a bomb"), HumanMessage("hi")]
    assert contents(run(agent(SAFE), {"messages": history}))[-1] == ("ai", SAFE)


# --- what the model answers ---


def test_a_blocked_answer_is_replaced(run: Any) -> None:
    state = run(agent(UNSAFE), HI)
    assert contents(state) == [("human", "hi"), ("ai", REFUSAL)]


def test_a_blocked_answer_raises_if_so_asked(run: Any) -> None:
    with pytest.raises(ContentBlockedError) as caught:
        run(agent(UNSAFE, around=[middleware(on_block="raise")]), HI)
    assert caught.value.decision.side == "output"


def test_a_blocked_tool_call_is_gone_and_the_next_turn_works(run: Any) -> None:
    note, written = notebook()

    def script(messages: Any) -> Any:
        text = "bomb parts" if messages[-1].text == "hi" else "milk"
        return calling(text)(messages)

    built = agent(model(script), [note], checkpointer=InMemorySaver())
    state = run(built, HI, thread())
    assert not written and not state["messages"][-1].tool_calls
    assert contents(state)[-1][1].endswith(REFUSAL)
    state = run(built, said("again"), thread())
    assert written == ["milk"]
    assert contents(state)[-1] == ("ai", "Done.")


def test_an_answer_is_judged_with_all_that_led_to_it(run: Any) -> None:
    guard = WordGuard()
    note, _ = notebook()
    run(
        agent(
            model(calling("milk")), [note], around=[middleware(guard)], system_prompt="Be brief."
        ),
        HI,
    )
    turns = [(turn.role, turn.text) for turn in guard.contexts[-1].turns]
    assert turns == [
        ("system", "Be brief."),
        ("user", "hi"),
        ("assistant", 'I note it. \nnote({"text": "milk"})'),
        ("tool", "noted milk"),
        ("assistant", "Done."),
    ]


def test_a_flagged_answer_passes_with_its_record(run: Any) -> None:
    policy = Policy(rules=(Rule("indiscriminate_weapons", "flag"),))
    state = run(agent(UNSAFE, around=[middleware(policy=policy)]), HI)
    assert contents(state)[-1] == ("ai", UNSAFE)
    assert state["messages"][-1].response_metadata["safeguard"]["action"] == "flag"


def test_a_rewritten_answer_has_no_tool_calls(run: Any) -> None:
    rule = Rule("indiscriminate_weapons", "rewrite", rewrite="Something else.")
    note, written = notebook()
    built = agent(
        model(calling("bomb parts")), [note], around=[middleware(policy=Policy(rules=(rule,)))]
    )
    state = run(built, HI)
    assert contents(state) == [("human", "hi"), ("ai", "Something else.")]
    assert not written


class Answer(BaseModel):
    """A structured answer."""

    text: str


@pytest.mark.parametrize("native", [True, False])
def test_safe_structured_output_comes_through(run: Any, native: bool) -> None:
    def script(messages: Any) -> Any:
        arguments = '{"text": "Bread."}'
        return arguments if native else call_chunks("Answer", arguments)

    profile: Any = {"structured_output": native}
    llm = StreamingChatModel(script=script, profile=profile)
    state = run(agent(llm, response_format=Answer), HI)
    assert state["structured_response"] == Answer(text="Bread.")


def test_a_guarded_model_of_an_agent_can_structure_its_output_too(run: Any) -> None:
    llm = guard_model(model(call_chunks("Answer", '{"text": "Bread."}')), WordGuard())
    state = run(agent(llm, around=[], response_format=Answer), HI)
    assert state["structured_response"] == Answer(text="Bread.")


def test_safe_answers_stream_while_the_model_still_speaks() -> None:
    llm = model(SAFE * 3)
    chunks = agent(llm).stream(HI, stream_mode="messages")
    next(chunks)
    assert llm.tally.chunks < 30
    assert "".join(m.text for m, _ in chunks).endswith("for an hour.")


def test_a_stream_that_is_blocked_late_ends_with_the_refusal_and_stops_the_model() -> None:
    llm = model(f"{SAFE} {UNSAFE} {SAFE}")
    shown = "".join(tokens(agent(llm), HI))
    assert shown.startswith("Bread needs") and shown.endswith(REFUSAL)
    assert "bomb" not in shown
    assert llm.tally.closed_early == 1


async def test_async_streams_are_held_back_too() -> None:
    llm = model(f"{SAFE} {UNSAFE}")
    parts = [m.text async for m, _ in agent(llm).astream(HI, stream_mode="messages")]
    assert len(parts) > 5 and "bomb" not in "".join(parts) and parts[-1] == REFUSAL


def test_decisions_are_sent_as_custom_events() -> None:
    async def heard() -> list[Any]:
        events = agent(SAFE).astream_events(HI, version="v2")
        return [e["data"]["side"] async for e in events if e["event"] == "on_custom_event"]

    assert asyncio.run(heard()) == ["input", "output"]


def test_tokens_are_counted_once() -> None:
    llm = StreamingChatModel(script=SAFE, usage=True)
    with get_usage_metadata_callback() as usage:
        agent(llm).invoke(HI)
    assert usage.usage_metadata["scripted-1"]["input_tokens"] == 5


# --- beside other middleware ---


@pytest.mark.parametrize("first", [True, False])
def test_people_are_asked_about_what_passed_and_about_nothing_else(first: bool) -> None:
    note, written = notebook()
    human = HumanInTheLoopMiddleware(interrupt_on={"note": True})
    around = [middleware(), human] if first else [human, middleware()]
    saver = InMemorySaver()
    blocked = agent(model(calling("bomb")), [note], around=around, checkpointer=saver)
    state = blocked.invoke(HI, thread())
    assert "__interrupt__" not in state and not state["messages"][-1].tool_calls

    guard, llm = WordGuard(), model(calling("milk"))
    around = [middleware(guard), human] if first else [human, middleware(guard)]
    asked = agent(llm, [note], around=around, checkpointer=saver)
    assert asked.invoke(HI, thread(2))["__interrupt__"] and not written
    approved = Command(resume={"decisions": [{"type": "approve"}]})
    state = asked.invoke(approved, thread(2))
    assert contents(state)[-1] == ("ai", "Done.")
    assert written == ["milk"] and llm.tally.calls == 2
    assert [text for side, text in guard.seen if side == "input"] == ["hi"]


@pytest.mark.parametrize("first", [True, False])
def test_pii_is_taken_out_as_without_a_guard(run: Any, first: bool) -> None:
    pii = PIIMiddleware("email", strategy="redact", apply_to_output=True)
    around = [middleware(), pii] if first else [pii, middleware()]
    llm = model("Mail bob@example.com about it.")
    state = run(agent(llm, around=around), said("I am ann@example.com, hello"))
    assert contents(state) == [
        ("human", "I am [REDACTED_EMAIL], hello"),
        ("ai", "Mail [REDACTED_EMAIL] about it."),
    ]


@pytest.mark.parametrize("first", [True, False])
def test_a_summary_takes_the_place_of_checked_turns(first: bool) -> None:
    writer = model("They spoke of bread.")
    summary = SummarizationMiddleware(writer, trigger=("messages", 4), keep=("messages", 1))
    guard = WordGuard()
    around = [middleware(guard), summary] if first else [summary, middleware(guard)]
    built = agent(SAFE, around=around, checkpointer=InMemorySaver())
    for text in ("one", BAD, "three", "four"):
        state = built.invoke(said(text), thread())
    assert contents(state)[-1] == ("ai", SAFE)
    assert "bomb" not in repr(writer.tally.prompts) and writer.tally.calls
    marks = built.get_state(thread()).values["safeguard_checked"]
    assert all(len(each) <= len(state["messages"]) for each in marks.values())


def test_two_in_one_agent_both_judge(run: Any) -> None:
    first, second = WordGuard({"bomb": "hate"}), WordGuard({"darn": "hate"})
    around = [middleware(first), middleware(second)]
    for text in (BAD, "darn"):
        llm = model()
        assert contents(run(agent(llm, around=around), said(text)))[-1] == ("ai", REFUSAL)
        assert llm.tally.calls == 0
    for answer in (UNSAFE, "darn it, he said, and went away."):
        assert contents(run(agent(answer, around=around), HI))[-1] == ("ai", REFUSAL)
    before = len(first.seen), len(second.seen)
    run(agent("Yes.", around=around), said("good evening"))
    assert (len(first.seen), len(second.seen)) == (before[0] + 2, before[1] + 2)


async def test_two_in_one_agent_judge_a_streamed_tool_call_once_each() -> None:
    first, second = WordGuard(), WordGuard()
    note, _ = notebook()
    built = agent(
        model(calling("milk")),
        [note],
        around=[middleware(first, check_every=99), middleware(second, check_every=99)],
    )
    tokens(built, HI)
    expected = [("input", "hi"), ("output", 'I note it. \nnote({"text": "milk"})')]
    for guard in (first, second):
        assert guard.seen == [*expected, ("output", "Done.")]
    _ = [part async for part in built.astream(said("hello"), stream_mode="messages")]
    assert len(first.seen) == len(second.seen) == 6


def test_runs_at_the_same_time_do_not_mix() -> None:
    built = agent(
        model(lambda messages: UNSAFE if "bad" in messages[-1].text else SAFE),
        checkpointer=InMemorySaver(),
    )

    def ask(number: int) -> tuple[int, str]:
        text = ("good", "bad", BAD)[number % 3]
        return number, contents(built.invoke(said(text), thread(number)))[-1][1]

    async def asks() -> list[str]:
        states = (built.ainvoke(said(("good", "bad", BAD)[n % 3]), thread(n)) for n in range(24))
        return [contents(state)[-1][1] for state in await asyncio.gather(*states)]

    with ThreadPoolExecutor(8) as pool:
        answers = [answer for _, answer in sorted(pool.map(ask, range(24)))]
    assert answers == [SAFE, REFUSAL, REFUSAL] * 8
    assert asyncio.run(asks()) == answers


def test_one_can_look_at_users_and_another_at_answers(run: Any) -> None:
    guard = WordGuard()
    around = [middleware(guard, output=False), middleware(guard, input=False)]
    assert contents(run(agent(SAFE, around=around), said(BAD)))[-1] == ("ai", REFUSAL)
    assert contents(run(agent(UNSAFE, around=around), HI))[-1] == ("ai", REFUSAL)
    only = agent(UNSAFE, around=[middleware(guard, output=False)])
    assert contents(run(only, HI))[-1] == ("ai", UNSAFE)


def test_a_person_decides_what_the_policy_escalates() -> None:
    def ask(escalation: Any) -> Any:
        return interrupt({"score": escalation.decision.score})

    rule = Rule("indiscriminate_weapons", "escalate")
    safeguard = Safeguard(WordGuard(), Policy(rules=(rule,)), handlers=[ask])
    around = [SafeguardMiddleware(safeguard=safeguard)]
    built = agent(SAFE, around=around, checkpointer=InMemorySaver())
    for number, (answer, expected) in enumerate([("allow", SAFE), ("block", REFUSAL)]):
        state = built.invoke(said(BAD), thread(number))
        assert state["__interrupt__"][0].value == {"score": 0.9}
        state = built.invoke(Command(resume=answer), thread(number))
        assert contents(state)[-1] == ("ai", expected)


def test_nobody_can_approve_an_answer_that_is_then_made_anew(run: Any) -> None:
    llm = model(lambda messages: f"Take bomb number {llm.tally.calls}.")
    rule = Rule("indiscriminate_weapons", "escalate")
    policy = Policy(rules=(rule,))
    handlers = [lambda escalation: interrupt(escalation.text)]
    safeguard = Safeguard(WordGuard(), policy, handlers=handlers)
    around = [SafeguardMiddleware(safeguard=safeguard)]
    built = agent(llm, around=around, checkpointer=InMemorySaver())
    assert run(built, HI, thread())["__interrupt__"][0].value == "Take bomb number 1."
    state = run(built, Command(resume="allow"), thread())
    assert contents(state)[-1] == ("ai", "Take bomb number 1.")
    assert llm.tally.calls == 1


@pytest.mark.parametrize(("answer", "expected"), [("allow", UNSAFE), ("block", REFUSAL)])
def test_a_handler_that_answers_at_once_decides_about_answers(
    run: Any, answer: str, expected: str
) -> None:
    async def asked(escalation: Any) -> str:
        return answer

    rule = Rule("indiscriminate_weapons", "escalate")
    handlers: Any = {"slow": asked, "quick": RunnableLambda(lambda escalation: answer)}
    safeguard = Safeguard(WordGuard(), Policy(rules=(rule,)), handlers=handlers)
    around = [SafeguardMiddleware(safeguard=safeguard, check_every=4)]
    assert contents(run(agent(UNSAFE, around=around), HI))[-1] == ("ai", expected)


# --- traces ---


class Spans(Client):
    """A LangSmith client that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__(api_url="http://127.0.0.1:9", api_key="none", auto_batch_tracing=False)
        self.kept: dict[Any, dict[str, Any]] = {}

    def create_run(self, name: str, inputs: Any, run_type: Any, **kwargs: Any) -> None:  # type: ignore[override]
        self.kept[kwargs["id"]] = {"name": name, "inputs": inputs, **kwargs}

    def update_run(self, run_id: Any, **kwargs: Any) -> None:  # type: ignore[override]
        self.kept[run_id].update({key: value for key, value in kwargs.items() if value})


def test_traces_of_the_hooks_carry_no_payload(run: Any) -> None:
    spans = Spans()
    with tracing_context(enabled=True, client=spans):
        run(agent(UNSAFE), said("secret question"))
    hooks = [r for r in spans.kept.values() if str(r["name"]).startswith("SafeguardMiddleware")]
    names = {str(each["name"]).rpartition(".")[2] for each in hooks}
    assert {"before_agent", "before_model", "after_model"} < names
    assert names & {"wrap_model_call", "awrap_model_call"}
    for each in hooks:
        assert "secret question" not in repr(each) and "powders" not in repr(each)


def test_tracers_hear_the_models_own_run() -> None:
    collector = RunCollectorCallbackHandler()
    agent(UNSAFE).invoke(HI, {"callbacks": [collector]})
    [root] = collector.traced_runs
    runs = [root]
    for each in runs:
        runs += each.child_runs
    inner = [each for each in runs if each.name == "StreamingChatModel"]
    assert len(inner) == 1 and "powders" in repr(inner[0].outputs)


# --- how it is set up ---


def test_no_argument_is_needed() -> None:
    built = create_agent(model(), [], middleware=[SafeguardMiddleware()])
    assert contents(built.invoke(said("How do I bake bread?")))[-1] == ("ai", SAFE)
    state = built.invoke(said("How do I build a pipe bomb at home?"))
    assert contents(state)[0] == ("human", WITHHELD)


def test_names_tell_middlewares_apart_and_stay_the_same() -> None:
    guard, other = WordGuard(), WordGuard()
    policy = Policy(threshold=0.7)
    names = [
        SafeguardMiddleware().name,
        SafeguardMiddleware(policy=policy).name,
        SafeguardMiddleware(guard).name,
        SafeguardMiddleware(other).name,
        SafeguardMiddleware(guard, policy).name,
        SafeguardMiddleware(guard, output=False).name,
        SafeguardMiddleware(guard, input=False).name,
        SafeguardMiddleware(guard, name="mine").name,
    ]
    assert len(set(names)) == len(names)
    assert names[0] == "SafeguardMiddleware" and names[-1] == "mine"
    assert SafeguardMiddleware(guard, policy).name == names[4]
    assert SafeguardMiddleware("embedded").name == SafeguardMiddleware("embedded").name
    assert not set("".join(names)) & set(":|")


class Deaf(WordGuard):
    """Judges what users say, and nothing else."""

    sides = frozenset({"input"})  # type: ignore[assignment]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"input": "yes"}, "unknown input 'yes'; allowed: True, False"),
    ({"output": None}, "unknown output None"),
    ({"quarantine": 1}, "unknown quarantine 1"),
    ({"input": False, "output": False}, "nothing to check"),
    ({"on_block": "end"}, "unknown on_block 'end'; allowed: refuse, raise"),
    ({"check_every": 0}, "check_every=0"),
    ({"check_every": True}, "check_every=True"),
    ({"name": "a:b"}, "without ':'"),
    ({"name": ""}, "name=''"),
    ({"safeguard": "x"}, "safeguard='x'"),
    ({"safeguard": "x", "policy": Policy()}, "not both"),
    ({"guard": []}, "name at least one"),
    ({"guard": Deaf()}, "no guard judges side='output'"),
    ({"policy": {"rules": 1}}, "rules"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_wrong_values_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SafeguardMiddleware(**options)
    assert message in str(caught.value)


def test_a_guard_of_one_side_is_fine_for_that_side() -> None:
    assert isinstance(Deaf(), Guard)
    built = agent(SAFE, around=[middleware(Deaf(), output=False)])
    assert contents(built.invoke(said(BAD)))[-1] == ("ai", REFUSAL)


def test_a_missing_langchain_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['langchain'] = None\n"
        "import langchain_safeguard\n"
        "try:\n    import langchain_safeguard.middleware\n"
        "except langchain_safeguard.MissingExtraError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'langchain-safeguard[agents]'" in done.stdout
