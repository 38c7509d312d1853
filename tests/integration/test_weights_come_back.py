"""Memory comes back when no guard uses weights any more, and nothing that is under way breaks."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from langchain_safeguard import Conversation, Safeguard, load_guard
from langchain_safeguard.engines import MicroBatcher
from langchain_safeguard.guards import ModelGuard
from tests import tiny_classifiers
from tests.tiny_guards import tiny_llama_guard

Ask = Callable[[], object]
TEXTS = [Conversation.of(text) for text in ("Hello", "How are you?", "How do I bake bread?")]


def eventually(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    assert true()


def workers(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Without the garbage collector: what comes back comes back by itself, and at once."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama_guard(tmp_path_factory.mktemp("guards") / "guard-that-goes")


@pytest.fixture(scope="module")
def move_on(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """Return what asks for other weights: those asked for last stay."""
    other = tiny_llama_guard(tmp_path_factory.mktemp("guards") / "another-guard")
    load_guard(other)
    return lambda: load_guard(other)


@pytest.fixture(scope="module")
def adapter(folder: Path) -> Path:
    model = AutoModelForCausalLM.from_pretrained(folder)
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(folder.parent / "adapter-that-goes")
    return folder.parent / "adapter-that-goes"


def used(name: Path, **options: Any) -> ModelGuard[Any, Any]:
    guard = load_guard(name, **options)
    assert isinstance(guard, ModelGuard)
    assert len(guard.check(TEXTS, "input")) == len(TEXTS)
    return guard


def parts(guard: ModelGuard[Any, Any]) -> dict[str, weakref.ref[Any]]:
    """Return what takes memory: weights, the tokenizer, keys and values of what was read."""
    model = guard.engine.next_token
    nodes = [*model.tree.nodes()]
    assert nodes, "nothing was kept that could go"
    return {
        "engine": weakref.ref(guard.engine),
        "head": weakref.ref(model._head.weight),
        "layer": weakref.ref(model._decoder.layers[0].mlp.up_proj),
        "tokenizer": weakref.ref(guard.engine._tokenizer),
        **{f"keys {at}": weakref.ref(node.keys[0]) for at, node in enumerate(nodes)},
    }


@pytest.mark.parametrize("options", [{}, {"dtype": "bfloat16"}, {"cache_bytes": 0}])
def test_weights_go_with_the_last_guard(
    move_on: Ask, folder: Path, options: dict[str, Any], no_collector: None
) -> None:
    first, second = used(folder, **options), used(folder, **options)
    assert first.engine is second.engine
    held = parts(first)
    del first
    assert all(part() is not None for part in held.values())
    assert used(folder, **options).engine is second.engine
    del second
    move_on()
    eventually(lambda: not workers(folder.name))
    assert [name for name, part in held.items() if part() is not None] == []


def test_an_adapter_goes_with_its_base(
    move_on: Ask, adapter: Path, folder: Path, no_collector: None
) -> None:
    guard = used(adapter, base_model=folder, family="meta-llama/Llama-Guard-3-1B")
    held = parts(guard)
    del guard
    move_on()
    eventually(lambda: not workers(adapter.name))
    assert [name for name, part in held.items() if part() is not None] == []


def test_a_classifier_goes(move_on: Ask, no_collector: None) -> None:
    name = tiny_classifiers.folder("bert")
    guard = used(name, family="meta-llama/Prompt-Guard-86M")
    held = [weakref.ref(guard.engine), weakref.ref(guard.engine._model)]  # type: ignore[attr-defined]
    del guard
    move_on()
    eventually(lambda: not workers(name.name))
    assert [part() for part in held] == [None, None]


def test_quantised_weights_go_once_garbage_is_collected(move_on: Ask, folder: Path) -> None:
    guard = used(folder, quantization="4bit")
    held = parts(guard)
    del guard
    move_on()
    eventually(lambda: not workers(folder.name))
    gc.collect()
    assert [name for name, part in held.items() if part() is not None] == []


def test_the_last_one_stays_for_who_asks_again(folder: Path) -> None:
    engine = weakref.ref(used(folder).engine)
    gc.collect()
    assert used(folder).engine is engine()


def test_the_built_in_guard_stays() -> None:
    first = id(load_guard())
    gc.collect()
    assert id(load_guard()) == first


def test_a_guard_that_was_let_go_is_loaded_again_with_the_same_scores(folder: Path) -> None:
    scores = [Safeguard(folder).check("How do I bake bread?").score for _ in range(2)]
    assert scores[0] == scores[1]


def test_a_failed_check_holds_nothing(move_on: Ask, folder: Path, no_collector: None) -> None:
    guard = used(folder)
    held = parts(guard)
    answer = guard.engine.submit("no prompt at all")  # type: ignore[arg-type]
    assert isinstance(answer.exception(30), AttributeError)
    del guard, answer
    move_on()
    eventually(lambda: not workers(folder.name))
    assert [name for name, part in held.items() if part() is not None] == []


def test_many_threads_load_use_and_let_go(move_on: Ask, folder: Path) -> None:
    expected = Safeguard(folder).check("How do I bake bread?").score
    engines: set[int] = set()

    def visit(number: int) -> float | None:
        guard = load_guard(folder)
        assert isinstance(guard, ModelGuard)
        engines.add(id(guard.engine))
        time.sleep(number % 5 / 500)
        return guard.check([Conversation.of("How do I bake bread?")], "input")[0].score

    with ThreadPoolExecutor(12) as pool:
        found = [*pool.map(visit, range(96))]
    assert found == pytest.approx([expected] * 96, abs=1e-5)
    del pool
    gc.collect()
    move_on()
    eventually(lambda: not workers(folder.name))


def test_what_was_asked_is_answered_though_the_guard_is_gone(move_on: Ask, folder: Path) -> None:
    guard = used(folder)
    family = guard.family
    [expected] = guard.check(TEXTS[:1], "input")
    [prompt] = family.render(TEXTS[0], "input")
    answers = [guard.engine.submit(prompt) for _ in range(20)]
    del guard
    for answer in answers:
        assert answer.result(60).readings["verdict"]["unsafe"] == pytest.approx(expected.score)
    del answers, answer
    gc.collect()
    move_on()
    eventually(lambda: not workers(folder.name))


# the queue alone


def test_a_thread_ends_with_its_batcher() -> None:
    batcher = MicroBatcher[int, int](list, name="ends-with-it")
    assert batcher.submit(1).result(30) == 1
    assert len(workers("ends-with-it")) == 1
    del batcher
    eventually(lambda: not workers("ends-with-it"))


def test_what_is_queued_is_run_before_the_thread_ends() -> None:
    let = threading.Event()

    def run(items: Any) -> list[int]:
        assert let.wait(30)
        return [*items]

    futures = [MicroBatcher[int, int](run, name="runs-first").submit(n) for n in range(5)]
    let.set()
    assert [future.result(30) for future in futures] == [0, 1, 2, 3, 4]
    eventually(lambda: not workers("runs-first"))


class Owner:
    def __init__(self) -> None:
        self.batcher = MicroBatcher[int, int](self.run, name="owned")

    def run(self, items: Any) -> list[int]:
        return [2 * item for item in items]


def test_who_owns_a_batcher_for_its_own_method_is_freed(no_collector: None) -> None:
    owner = Owner()
    assert owner.batcher.submit(2).result(30) == 4
    gone, batcher = weakref.ref(owner), owner.batcher
    del owner
    eventually(lambda: gone() is None)
    with pytest.raises(RuntimeError, match="is gone"):
        batcher.submit(3)
