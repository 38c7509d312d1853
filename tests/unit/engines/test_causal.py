"""A causal engine says what the model's own code says: read, forced, written."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from langchain_safeguard.engines import Completion, Piece, Prompt, Reading, Writing
from langchain_safeguard.engines.causal import CausalEngine
from langchain_safeguard.engines.next_token import NextToken, PlainNextToken
from langchain_safeguard.engines.tokens import PromptTokenizer
from langchain_safeguard.engines.tree_next_token import TreeNextToken, own_attention
from langchain_safeguard.errors import GuardLoadError
from langchain_safeguard.guards.chat_template import shipped
from tests.tiny_guards import tiny_tokenizer
from tests.unit.engines.shapes import PLAIN_SHAPES, TREE_SHAPES, tiny

VERDICT = Reading("verdict", {"safe": ("safe",), "unsafe": ("unsafe",)})
HAZARD = Reading("hazard", {f"S{number}": (f"S{number}",) for number in (1, 2, 10, 13)})
POLICY = "Task: is there unsafe content in what the user says? S1, S2, S10.\n\n"


@cache
def words() -> Any:
    return tiny_tokenizer(shipped("llama_guard_3_1b"))


class Asked:
    """A tiny model behind an engine, and a copy of it as it is."""

    def __init__(self, shape: str, *, plain: bool = False) -> None:
        self.own = tiny(shape, vocabulary=len(words()))
        self.own.set_attn_implementation(own_attention(self.own)) if shape != "mamba" else None
        model = tiny(shape, vocabulary=len(words()))
        self.next_token: NextToken = (
            PlainNextToken(self.own)
            if plain
            else TreeNextToken(model, budget=1 << 30, pass_tokens=256)
        )
        self.engine = CausalEngine(
            self.next_token, PromptTokenizer(words()), limit=448, name="engine"
        )

    def ask(self, *prompts: Prompt) -> list[Completion]:
        return self.engine.run(prompts)

    def probabilities(self, text: str, *choices: str) -> list[float]:
        """What the model's own code gives for single tokens after a text."""
        ids = torch.tensor([words()(words().bos_token + text)["input_ids"]])
        with torch.no_grad():
            row = self.own(input_ids=ids, use_cache=False).logits[0, -1].double()
        tokens = [self._one(text, choice) for choice in choices]
        found: list[float] = row[tokens].softmax(0).tolist()
        return found

    def _one(self, text: str, choice: str) -> int:
        before = words()(text)["input_ids"]
        whole = words()(text + choice)["input_ids"]
        assert whole[: len(before)] == before
        token: int = whole[len(before)]
        return token

    def generate(self, text: str, limit: int) -> str:
        """What the model's own code writes after a text."""
        ids = torch.tensor([words()(words().bos_token + text)["input_ids"]])
        with torch.no_grad():
            found = self.own.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=limit,
                do_sample=False,
                eos_token_id=words().eos_token_id,
                pad_token_id=words().eos_token_id,
            )[0, ids.shape[1] :]
        text = words().decode(found, skip_special_tokens=False)
        return str(text).removesuffix(words().eos_token)


def prompt(said: str, *answer: str | Reading | Writing) -> Prompt:
    return Prompt(
        (
            Piece(words().bos_token + POLICY),
            Piece(said, trusted=False),
            Piece("<|eot_id|>\nVerdict:\n"),
        ),
        answer,
    )


def text_of(said: str) -> str:
    return f"{POLICY}{said}<|eot_id|>\nVerdict:\n"


SAID = ["How do I pick a lock?", "Hello!", "a b c d e f g " * 8, "집", "How do I pick a pocket?"]


@pytest.fixture(scope="module", params=TREE_SHAPES)
def asked(request: pytest.FixtureRequest) -> Asked:
    return Asked(request.param)


def test_probabilities_are_the_models_own(asked: Asked) -> None:
    """All at once, one by one, and again."""
    prompts = [prompt(said, VERDICT) for said in SAID]
    rounds = [asked.ask(*prompts), [asked.ask(each)[0] for each in prompts], asked.ask(*prompts)]
    for found in rounds:
        for said, completion in zip(SAID, found, strict=True):
            expected = asked.probabilities(text_of(said), "safe", "unsafe")
            read = completion.readings["verdict"]
            assert [read["safe"], read["unsafe"]] == pytest.approx(expected, abs=1e-5)
            assert completion.text is None
            assert completion.tokens == len(words()(text_of(said))["input_ids"]) + 1


def test_codes_are_read_behind_a_forced_verdict(asked: Asked) -> None:
    [found] = asked.ask(prompt(SAID[0], "\n\n", VERDICT, "unsafe\n", HAZARD))
    before = text_of(SAID[0]) + "\n\n"
    safe, _ = asked.probabilities(before, "safe", "unsafe")
    assert found.readings["verdict"]["safe"] == pytest.approx(safe, abs=1e-5)
    read = found.readings["hazard"]
    assert sum(read.values()) == pytest.approx(1)
    for one, other in (("S2", "S1"), ("S10", "S13"), ("S2", "S13")):
        assert _told_apart(asked, before + "unsafe\n", read, one, other)


def _told_apart(
    asked: Asked, before: str, read: dict[str, float] | Any, one: str, other: str
) -> bool:
    """Compare two codes where their tokens part, if nothing else may follow there."""
    first, second = (words()(before + code)["input_ids"] for code in (one, other))
    at = next((at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), None)
    if at is None or len(first) != at + 1 or len(second) != at + 1:
        return True
    ids = torch.tensor([words()(words().bos_token)["input_ids"] + first[:at]])
    with torch.no_grad():
        row = asked.own(input_ids=ids, use_cache=False).logits[0, -1].double()
    ratio = (row[first[at]] - row[second[at]]).exp().item()
    return bool(read[one] / read[other] == pytest.approx(ratio, rel=1e-3))


@pytest.mark.parametrize("limit", [1, 2, 12])
def test_what_is_written_is_what_the_model_itself_writes(asked: Asked, limit: int) -> None:
    found = asked.ask(*(prompt(said, Writing(limit)) for said in SAID))
    for said, completion in zip(SAID, found, strict=True):
        assert completion.text == asked.generate(text_of(said), limit)


def test_codes_are_written_behind_a_forced_verdict(asked: Asked) -> None:
    prompts = [prompt(said, "\n\n", VERDICT, "unsafe\n", HAZARD, Writing(8)) for said in SAID]
    for said, completion in zip(SAID, asked.ask(*prompts), strict=True):
        written = asked.generate(text_of(said) + "\n\nunsafe\n", 8)
        assert completion.text == "\n\nunsafe\n" + written
        assert completion.readings["verdict"]


def test_writing_depends_on_what_was_read(asked: Asked) -> None:
    likeliest = []
    for said in SAID:
        safe, unsafe = asked.probabilities(text_of(said), "safe", "unsafe")
        likeliest.append("safe" if safe > unsafe else "unsafe")
    for label in ("safe", "unsafe"):
        writing = Writing(3, only_if=("verdict", label))
        found = asked.ask(*(prompt(said, VERDICT, "safe", writing) for said in SAID))
        assert [each.text is not None for each in found] == [each == label for each in likeliest]


def test_what_is_read_behind_what_was_written(asked: Asked) -> None:
    """It stands where it would in a complete answer, however far the model got."""
    end = "\nVerdict:\n"
    [found] = asked.ask(prompt(SAID[0], Writing(4, until=end), VERDICT))
    assert found.text == asked.generate(text_of(SAID[0]), 4) + end
    ids = [
        *words()(words().bos_token + text_of(SAID[0]))["input_ids"],
        *_written_ids(asked, SAID[0], 4),
        *words()(end)["input_ids"],
    ]
    with torch.no_grad():
        row = asked.own(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].double()
    choices = [words()(each)["input_ids"][0] for each in ("safe", "unsafe")]
    expected = row[choices].softmax(0).tolist()
    assert [*found.readings["verdict"].values()] == pytest.approx(expected, abs=1e-5)


def _written_ids(asked: Asked, said: str, limit: int) -> list[int]:
    ids = torch.tensor([words()(words().bos_token + text_of(said))["input_ids"]])
    with torch.no_grad():
        found = asked.own.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=limit,
            do_sample=False,
            eos_token_id=words().eos_token_id,
            pad_token_id=words().eos_token_id,
        )[0, ids.shape[1] :].tolist()
    return [token for token in found if token != words().eos_token_id]


def test_writing_ends_where_it_is_asked_to() -> None:
    asked = Asked("llama")
    whole = asked.generate(text_of(SAID[0]), 12)
    until = whole[4:6]
    [found] = asked.ask(prompt(SAID[0], Writing(12, until=until)))
    assert found.text is not None
    assert until in found.text
    assert whole.startswith(found.text)
    assert len(found.text) < len(whole)


def test_an_answer_that_streams_is_read_once() -> None:
    asked = Asked("llama")
    said = "a long answer that grows, word by word, while it is being written. " * 4
    tree = asked.next_token
    assert isinstance(tree, TreeNextToken)
    asked.ask(prompt(said[:1], VERDICT))
    before = tree.computed
    for end in range(0, len(said), 16):
        [found] = asked.ask(prompt(said[:end], VERDICT))
        expected = asked.probabilities(text_of(said[:end]), "safe", "unsafe")
        assert [*found.readings["verdict"].values()] == pytest.approx(expected, abs=1e-5)
    checks = len(range(0, len(said), 16))
    suffix = len(words()("<|eot_id|>\nVerdict:\n")["input_ids"])
    tokens = len(words()(said)["input_ids"])
    assert tree.computed - before <= tokens + checks * (suffix + 3)


@pytest.mark.parametrize("shape", PLAIN_SHAPES)
def test_models_that_no_tree_fits_are_read_plainly(shape: str) -> None:
    asked = Asked(shape, plain=True)
    found = asked.ask(*(prompt(said, VERDICT, "safe", Writing(3)) for said in SAID[:2]))
    for said, completion in zip(SAID, found, strict=False):
        safe, _ = asked.probabilities(text_of(said), "safe", "unsafe")
        assert completion.readings["verdict"]["safe"] == pytest.approx(safe, abs=1e-5)
        assert completion.text == "safe" + asked.generate(text_of(said) + "safe", 3)


def test_a_model_without_the_words_of_the_answer_is_an_error() -> None:
    asked = Asked("llama")
    strange = Reading("verdict", {"safe": ("safe",), "other": ("safe",)})
    with pytest.raises(GuardLoadError, match="cannot tell"):
        asked.engine.require(prompt("hi", strange))
    asked.engine.require(prompt("hi", "\n\n", VERDICT, "unsafe\n", HAZARD, Writing(8)))
