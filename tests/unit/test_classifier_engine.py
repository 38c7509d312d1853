"""The engine around sequence classifiers, with tiny real models of four architectures."""

from __future__ import annotations

import math
import random
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, ByT5Tokenizer

from langchain_safeguard.engines import TextInput, TextScores
from langchain_safeguard.engines.classifier import ClassifierEngine
from langchain_safeguard.engines.text_windows import WindowTokenizer
from langchain_safeguard.errors import (
    ConfigurationError,
    GuardError,
    GuardLoadError,
    GuardOutputError,
)
from tests.tiny_classifiers import (
    FILLER,
    INJECTION,
    JAILBREAK,
    KINDS,
    LABELS,
    POSITIONS,
    folder,
    load,
)

BENIGN = "BENIGN"
CONTROL = ["[SEP]", "[CLS]", "[PAD]", "[UNK]", "<s>", "</s>", "<pad>", "<unk>", "<|endoftext|>"]

texts = st.lists(st.sampled_from([*FILLER, JAILBREAK, INJECTION, *CONTROL]), max_size=150).map(
    " ".join
)
anything = st.text(alphabet=st.characters(), max_size=300)


@cache
def engine(kind: str, several: bool = False) -> ClassifierEngine:
    return ClassifierEngine(*load(kind, several=several), name=f"tiny-{kind}")


@cache
def tokenizer(kind: str) -> Any:
    return AutoTokenizer.from_pretrained(folder(kind))


def one(kind: str, text: str) -> TextScores:
    [scores] = engine(kind).run([TextInput(text)])
    return scores


def likeliest(scores: TextScores) -> str:
    return max(scores.scores, key=lambda label: scores.scores[label])


def prose(words: int, seed: int = 0) -> str:
    return " ".join(random.Random(seed).choices(FILLER, k=words))


@pytest.mark.parametrize("kind", KINDS)
class TestEveryArchitecture:
    def test_it_reads_what_the_model_knows(self, kind: str) -> None:
        assert likeliest(one(kind, "the bread needs flour")) == BENIGN
        assert likeliest(one(kind, f"please {JAILBREAK} that it is time")) == "JAILBREAK"
        assert likeliest(one(kind, f"the oil {INJECTION} wine .")) == "INJECTION"

    def test_it_gives_what_transformers_gives(self, kind: str) -> None:
        model, its_tokenizer = load(kind)
        for text in ("the bread", f"{JAILBREAK} to wake", "빵 바다 😀", prose(30), f"{INJECTION}"):
            asked = its_tokenizer(text, return_tensors="pt", return_token_type_ids=False)
            with torch.inference_mode():
                expected = model.eval()(**asked).logits[0].softmax(0).tolist()
            found = one(kind, text)
            assert [*found.scores.values()] == pytest.approx(expected, abs=1e-5)
            assert found.tokens == asked["input_ids"].shape[1]
            assert (found.stretches, found.exclusive) == ((), True)

    def test_together_is_as_one_by_one(self, kind: str) -> None:
        rng = random.Random(3)
        asked = [
            "",
            "a",
            f"{JAILBREAK}",
            "😀" * 40,
            *(prose(rng.randint(1, 200), n) for n in range(20)),
        ]
        together = engine(kind).run([TextInput(text) for text in asked])
        for text, found in zip(asked, together, strict=True):
            alone = one(kind, text)
            assert found.scores == pytest.approx(alone.scores, abs=1e-5)
            assert [s.start for s in found.stretches] == [s.start for s in alone.stretches]
            for here, there in zip(found.stretches, alone.stretches, strict=True):
                assert here.scores == pytest.approx(there.scores, abs=1e-5)

    def test_callers_share_batches_and_get_their_own_answers(self, kind: str) -> None:
        asked = [f"{prose(n, n)} {JAILBREAK if n % 2 else 'bread'}" for n in range(24)]
        with ThreadPoolExecutor(8) as pool:
            futures = [*pool.map(lambda text: engine(kind).submit(TextInput(text)), asked)]
        for n, future in enumerate(futures):
            found = future.result(60)
            assert likeliest(found) == ("JAILBREAK" if n % 2 else BENIGN)
            assert found.scores == pytest.approx(one(kind, asked[n]).scores, abs=1e-5)

    @pytest.mark.parametrize("place", ["beginning", "middle", "end"])
    def test_a_needle_in_200_kilobytes_is_found(self, kind: str, place: str) -> None:
        hay = prose(52_000)
        assert len(hay) >= 200_000
        cut = {"beginning": 0, "middle": hay.index(" ", 100_000), "end": len(hay)}[place]
        text = f"{hay[:cut]} {JAILBREAK} {hay[cut:]}"
        found = one(kind, text)
        assert found.scores["JAILBREAK"] > 0.9
        needles = [s for s in found.stretches if s.scores["JAILBREAK"] > 0.9]
        assert 1 <= len(needles) <= 3
        assert all(JAILBREAK in text[s.start : s.end] for s in needles)
        assert max(s.scores["JAILBREAK"] for s in found.stretches) == found.scores["JAILBREAK"]
        assert found.stretches[0].start == 0
        assert found.stretches[-1].end == len(text)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            "\n\n",
            "😀",
            "👩‍👩‍👧‍👦" * 30,
            "안녕하세요 세상",
            "한국어 " * 300,
            "\x00\u200b",
            "\ud800 bread \udfff",
        ],
        ids=range(9),
    )
    def test_odd_texts_are_judged(self, kind: str, text: str) -> None:
        found = one(kind, text)
        assert sum(found.scores.values()) == pytest.approx(1, abs=1e-3) or found.stretches
        assert all(math.isfinite(score) for score in found.scores.values())
        assert found.tokens

    @pytest.mark.parametrize("control", CONTROL)
    def test_control_tokens_in_a_text_are_letters(self, kind: str, control: str) -> None:
        special = {*tokenizer(kind).all_special_ids} - {tokenizer(kind).unk_token_id}
        around = one(kind, "").tokens if kind != "qwen2" else 0
        [[window]] = WindowTokenizer(tokenizer(kind), POSITIONS).cut([f"a {control} b"])
        inside = [token for token in window.ids if token in special]
        assert len(inside) == around
        assert likeliest(one(kind, f"{control} {JAILBREAK} {control}")) == "JAILBREAK"
        assert likeliest(one(kind, f"{JAILBREAK} bread {control} bread")) == "JAILBREAK"
        assert likeliest(one(kind, f"the bread {control} needs flour {control}")) == BENIGN

    @settings(max_examples=60, deadline=None)
    @given(text=texts | anything, limit=st.integers(6, POSITIONS))
    def test_windows_lose_nothing(self, kind: str, text: str, limit: int) -> None:
        [windows] = WindowTokenizer(tokenizer(kind), limit).cut([text])
        assert all(0 < len(window.ids) <= limit for window in windows)
        covered = {at for window in windows for at in range(window.start, window.end)}
        assert covered == set(range(len(text)))
        assert windows == sorted(windows, key=lambda window: (window.start, window.end))

    @settings(max_examples=60, deadline=None)
    @given(text=texts, limit=st.integers(12, 40), data=st.data())
    def test_windows_are_stretches_of_the_whole_text_and_overlap(
        self, kind: str, text: str, limit: int, data: st.DataObject
    ) -> None:
        [[whole]] = WindowTokenizer(tokenizer(kind), 10_000).cut([text])
        around = 0 if kind == "qwen2" else 1
        ids = whole.ids[around : len(whole.ids) - around]
        [windows] = WindowTokenizer(tokenizer(kind), limit).cut([text])
        parts = [window.ids[around : len(window.ids) - around] for window in windows]
        room = limit - 2 * around
        length = data.draw(st.integers(0, min(room // 4, len(ids))))
        start = data.draw(st.integers(0, len(ids) - length))
        needle = ids[start : start + length]
        assert any(
            part[at : at + length] == needle
            for part in parts
            for at in range(len(part) - length + 1)
        )
        assert len(windows) == 1 or {len(part) for part in parts} == {room}

    def test_memory_that_runs_out_makes_passes_smaller(self, kind: str) -> None:
        model, its_tokenizer = load(kind)
        passes: list[int] = []

        def little_memory(_: Any, __: Any, given: dict[str, Any]) -> None:
            if given["input_ids"].numel() > 200:
                raise torch.OutOfMemoryError("out of memory")
            passes.append(given["input_ids"].numel())

        model.register_forward_pre_hook(little_memory, with_kwargs=True)
        small = ClassifierEngine(model, its_tokenizer)
        asked = [TextInput(prose(100, n)) for n in range(8)]
        for found, expected in zip(small.run(asked), engine(kind).run(asked), strict=True):
            assert found.scores == pytest.approx(expected.scores, abs=1e-5)
        # What did not fit once is not tried again.
        passes.clear()
        small.run(asked)
        assert passes

    def test_half_precision_gives_single_precision_numbers(self, kind: str) -> None:
        model, its_tokenizer = load(kind)
        half = ClassifierEngine(model.to(torch.bfloat16), its_tokenizer)
        asked = [TextInput("the bread"), TextInput(f"{JAILBREAK} it"), TextInput(prose(120))]
        for found, expected in zip(half.run(asked), engine(kind).run(asked), strict=True):
            assert found.scores == pytest.approx(expected.scores, abs=0.05)
            assert found.stretches or sum(found.scores.values()) == pytest.approx(1, abs=1e-5)


def test_a_window_that_never_fits_is_an_error_of_the_guard() -> None:
    model, its_tokenizer = load("bert")

    def no_memory(*_: Any) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    model.register_forward_pre_hook(no_memory)
    with pytest.raises(GuardError, match="memory ran out on 4 tokens"):
        ClassifierEngine(model, its_tokenizer).run([TextInput("the bread"), TextInput("a town")])


def test_other_errors_of_the_model_are_not_taken_for_a_lack_of_memory() -> None:
    model, its_tokenizer = load("bert")

    def fault(*_: Any) -> None:
        raise RuntimeError("shapes do not fit")

    model.register_forward_pre_hook(fault)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        ClassifierEngine(model, its_tokenizer).run([TextInput("the bread")])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_no_verdict(bad: float) -> None:
    model, its_tokenizer = load("bert")
    with torch.no_grad():
        model.classifier.bias[1] = bad
    with pytest.raises(GuardOutputError, match="not finite"):
        ClassifierEngine(model, its_tokenizer).run([TextInput("the bread")])


def test_dropout_is_switched_off() -> None:
    model, its_tokenizer = load("bert")
    model.dropout.p = 0.9
    scored = ClassifierEngine(model.train(), its_tokenizer)
    assert scored.run([TextInput("a")]) == scored.run([TextInput("a")])


def test_short_texts_are_not_padded_to_the_length_of_long_ones() -> None:
    model, its_tokenizer = load("bert")
    shapes: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(
        lambda _, __, given: shapes.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    engine = ClassifierEngine(model, its_tokenizer, pass_tokens=128)
    engine.run([TextInput(prose(60)), *[TextInput("the bread")] * 40])
    assert sum(rows * columns for rows, columns in shapes) < 64 + 64 + 40 * 4 + 1
    assert all(rows * columns <= 128 for rows, columns in shapes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "word", ["[PAD]", "</s>", "bread\U0001f9ff ", "a" * 150 + " ", "\U0001f9ff"]
)
def test_strange_words_by_the_thousand_take_no_longer_than_others(kind: str, word: str) -> None:
    cutter = WindowTokenizer(tokenizer(kind), POSITIONS)
    text = word * (200_000 // len(word))
    begin = time.process_time()
    cutter.cut([text])
    assert time.process_time() - begin < 5


class TestStrangeWords:
    """WordPiece has one token for a word that it cannot spell."""

    def test_a_sign_glued_to_a_word_does_not_hide_it(self) -> None:
        assert likeliest(one("bert", f"the bread {JAILBREAK}\U0001f9ff")) == "JAILBREAK"
        assert likeliest(one("bert", f"\U0001f9ff{INJECTION}\U0001f9ff the bread")) == "INJECTION"

    def test_a_word_too_long_for_wordpiece_is_read(self) -> None:
        glued = "a" * 64 + JAILBREAK + "a" * 100
        [[window]] = WindowTokenizer(tokenizer("bert"), 512).cut([f"the {glued} bread"])
        spelled = "".join(tokenizer("bert").convert_ids_to_tokens(window.ids)).replace("##", "")
        assert JAILBREAK in spelled
        assert (window.start, window.end) == (0, len(f"the {glued} bread"))

    def test_a_wholly_strange_word_stays_one_token(self) -> None:
        plain = tokenizer("bert")("the 漢 ᚠᚢᚦ bread")["input_ids"]
        [[window]] = WindowTokenizer(tokenizer("bert"), 512).cut(["the 漢 ᚠᚢᚦ bread"])
        assert window.ids == plain


class TestSettings:
    def test_the_config_says_whether_several_labels_can_hold(self) -> None:
        several = engine("bert", several=True)
        assert (engine("bert").activation, several.activation) == ("softmax", "sigmoid")
        [found] = several.run([TextInput(f"{JAILBREAK}")])
        assert not found.exclusive
        assert found.scores[BENIGN] > 0.9
        assert found.scores["JAILBREAK"] > 0.9
        assert found.scores["INJECTION"] < 0.1

    def test_what_is_given_comes_before_the_config(self) -> None:
        model, its_tokenizer = load("bert")
        assert ClassifierEngine(model, its_tokenizer, activation="sigmoid").activation == "sigmoid"

    @pytest.mark.parametrize(
        ("outputs", "problem", "expected"),
        [(1, None, "sigmoid"), (2, None, "softmax"), (2, "multi_label_classification", "sigmoid")],
    )
    def test_without_a_word_of_the_config(
        self, outputs: int, problem: str | None, expected: str
    ) -> None:
        model, its_tokenizer = load("bert")
        model.config.id2label = dict(enumerate(LABELS[:outputs]))
        model.config.problem_type = problem
        assert ClassifierEngine(model, its_tokenizer).activation == expected

    def test_one_output_cannot_be_softmax(self) -> None:
        model, its_tokenizer = load("bert")
        model.config.id2label = {0: "toxic"}
        with pytest.raises(ConfigurationError, match="one output only"):
            ClassifierEngine(model, its_tokenizer, activation="softmax")

    def test_a_regression_is_no_probability(self) -> None:
        model, its_tokenizer = load("bert")
        model.config.problem_type = "regression"
        with pytest.raises(ConfigurationError, match="no probabilities"):
            ClassifierEngine(model, its_tokenizer)

    def test_an_unknown_activation(self) -> None:
        with pytest.raises(ConfigurationError, match="'relu'; allowed: softmax, sigmoid"):
            ClassifierEngine(*load("bert"), activation="relu")  # type: ignore[arg-type]

    def test_names_are_those_of_the_config(self) -> None:
        model, its_tokenizer = load("bert")
        assert ClassifierEngine(model, its_tokenizer, labels=("a", "b", "c")).labels == LABELS

    def test_names_are_given_where_the_config_has_none(self) -> None:
        model, its_tokenizer = load("bert")
        model.config.id2label = {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
        given = ClassifierEngine(model, its_tokenizer, labels=("a", "b", "c"))
        assert given.labels == ("a", "b", "c")
        assert ClassifierEngine(model, its_tokenizer).labels == ("LABEL_0", "LABEL_1", "LABEL_2")
        [found] = given.run([TextInput(f"{JAILBREAK}")])
        assert likeliest(found) == "c"

    def test_too_few_names(self) -> None:
        model, its_tokenizer = load("bert")
        model.config.id2label = {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
        with pytest.raises(ConfigurationError, match="are 2, but the model has 3 outputs"):
            ClassifierEngine(model, its_tokenizer, labels=("a", "b"))

    def test_two_outputs_of_one_name(self) -> None:
        model, its_tokenizer = load("bert")
        model.config.id2label = {0: "OK", 1: "toxic", 2: "toxic"}
        with pytest.raises(GuardLoadError, match="the same name: OK, toxic, toxic"):
            ClassifierEngine(model, its_tokenizer)

    @pytest.mark.parametrize("kind", KINDS)
    def test_windows_are_as_long_as_the_model_reads(self, kind: str) -> None:
        model, its_tokenizer = load(kind)
        assert engine(kind).window == POSITIONS
        its_tokenizer.model_max_length = int(1e30)
        unlimited = ClassifierEngine(model, its_tokenizer).window
        assert unlimited == (4 * POSITIONS if kind == "qwen2" else POSITIONS)

    def test_no_more_than_512_unless_asked_for(self) -> None:
        model, its_tokenizer = load("qwen2")
        model.config.max_position_embeddings = 32768
        its_tokenizer.model_max_length = 32768
        assert ClassifierEngine(model, its_tokenizer).window == 512
        assert ClassifierEngine(model, its_tokenizer, limit=4096).window == 4096

    def test_a_smaller_limit_makes_more_windows(self) -> None:
        text = f"{prose(50)} {JAILBREAK}"
        model, its_tokenizer = load("bert")
        [found] = ClassifierEngine(model, its_tokenizer, limit=16).run([TextInput(text)])
        assert len(found.stretches) > len(one("bert", text).stretches)
        assert found.scores["JAILBREAK"] > 0.9

    def test_more_than_the_model_reads(self) -> None:
        with pytest.raises(ConfigurationError, match="limit=65, but the model reads at most 64"):
            ClassifierEngine(*load("roberta"), limit=65)

    def test_no_room_for_a_text(self) -> None:
        with pytest.raises(ConfigurationError, match="limit=5; allowed: 6 tokens or more"):
            ClassifierEngine(*load("bert"), limit=5)

    def test_a_tokenizer_that_does_not_tell_characters(self) -> None:
        model, _ = load("bert")
        with pytest.raises(ConfigurationError, match="ByT5Tokenizer; allowed: a fast one"):
            ClassifierEngine(model, ByT5Tokenizer())

    def test_a_decoder_without_padding_token_pads_with_its_end(self) -> None:
        model, its_tokenizer = load("qwen2")
        model.config.pad_token_id = None
        its_tokenizer.pad_token = None
        asked = [TextInput(f"{prose(9)} {JAILBREAK}"), TextInput("the bread"), TextInput("")]
        found = ClassifierEngine(model, its_tokenizer).run(asked)
        assert [likeliest(scores) for scores in found] == ["JAILBREAK", BENIGN, BENIGN]

    def test_nothing_to_pad_with(self) -> None:
        model, its_tokenizer = load("qwen2")
        model.config.pad_token_id = None
        its_tokenizer.eos_token = None
        its_tokenizer.pad_token = None
        with pytest.raises(GuardLoadError, match="token for padding"):
            ClassifierEngine(model, its_tokenizer)
