"""Label maps, cards and verdicts of sequence classifiers; tiny real ones in guards and chains."""

from __future__ import annotations

import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from langchain_safeguard import Category, Conversation, InputGuard, Policy, Rule, Side, Verdict
from langchain_safeguard.engines import Stretch, TextInput, TextScores
from langchain_safeguard.engines.classifier import ClassifierEngine
from langchain_safeguard.errors import (
    ConfigurationError,
    ContentBlockedError,
    GuardOutputError,
)
from langchain_safeguard.guards import GuardCard, ModelGuard
from langchain_safeguard.guards.catalogue import CARDS
from langchain_safeguard.guards.sequence_classifier import SequenceClassifier
from langchain_safeguard.loading import load_guard
from langchain_safeguard.taxonomy import SIDES
from tests.tiny_classifiers import FILLER, INJECTION, JAILBREAK, KINDS, LABELS, folder, load

KNOWN = {card.name: card for card in CARDS if card.family is SequenceClassifier}
PROMPT_GUARD_1 = "meta-llama/Prompt-Guard-86M"


def family(name: str, **options: Any) -> SequenceClassifier:
    made = KNOWN[name].family(**{**KNOWN[name].options, **options})
    assert isinstance(made, SequenceClassifier)
    return made


def found(verdict: Verdict) -> dict[tuple[str, str | None], float | None]:
    return {(str(f.category), f.code): f.score for f in verdict.findings}


def exclusive(**scores: float) -> TextScores:
    return TextScores(scores, exclusive=True)


class TestCards:
    def test_the_models_of_the_catalogue(self) -> None:
        assert sorted(KNOWN) == [
            "DuoGuard/DuoGuard-0.5B",
            "DuoGuard/DuoGuard-1.5B-transfer",
            "DuoGuard/DuoGuard-1B-Llama-3.2-transfer",
            "KoalaAI/Text-Moderation",
            "ibm-granite/granite-guardian-hap-125m",
            "ibm-granite/granite-guardian-hap-38m",
            "meta-llama/Llama-Prompt-Guard-2-22M",
            "meta-llama/Llama-Prompt-Guard-2-86M",
            PROMPT_GUARD_1,
            "protectai/deberta-v3-base-prompt-injection-v2",
            "unitary/toxic-bert",
        ]

    @pytest.mark.parametrize("card", KNOWN.values(), ids=lambda card: card.name)
    def test_a_card_tells_of_its_family(self, card: GuardCard) -> None:
        made = family(card.name)
        assert card.classifier
        assert set(card.sides) == made.sides
        assert card.categories == made.categories
        assert Category.OTHER in made.categories
        assert made.labels
        made.check_labels(made.labels, exclusive=made.activation == "softmax")
        if card.labels:
            made.check_labels(card.labels, exclusive=made.activation == "softmax")

    def test_a_folder_is_recognised_by_labels_of_one_kind_only(self) -> None:
        signs = [frozenset(card.labels) for card in KNOWN.values() if card.labels]
        assert len(set(signs)) == len(signs)

    @pytest.mark.parametrize(
        ("name", "labels"),
        [
            (PROMPT_GUARD_1, "BENIGN INJECTION JAILBREAK"),
            ("meta-llama/Llama-Prompt-Guard-2-86M", "BENIGN MALICIOUS"),
            ("protectai/deberta-v3-base-prompt-injection-v2", "SAFE INJECTION"),
            ("unitary/toxic-bert", "toxic severe_toxic obscene threat insult identity_hate"),
            ("KoalaAI/Text-Moderation", "S H V HR SH S3 H2 V2 OK"),
        ],
    )
    def test_the_order_of_outputs_without_names(self, name: str, labels: str) -> None:
        assert family(name).labels == tuple(labels.split())

    def test_several_hazards_hold_at_once_only_for_toxicity_and_duo_guard(self) -> None:
        sigmoid = {name for name in KNOWN if family(name).activation == "sigmoid"}
        assert sigmoid == {"unitary/toxic-bert", *(n for n in KNOWN if n.startswith("DuoGuard/"))}


class TestKnownModels:
    def test_prompt_guard_1_takes_no_prompt_for_an_injection(self) -> None:
        scores = exclusive(BENIGN=0.05, INJECTION=0.9, JAILBREAK=0.05)
        verdict = family(PROMPT_GUARD_1).read([scores], "input")
        assert (verdict.score, found(verdict)) == (0.05, {("jailbreak", "JAILBREAK"): 0.05})

    def test_prompt_guard_1_finds_injections_in_what_a_tool_brings(self) -> None:
        scores = exclusive(BENIGN=0.0, INJECTION=0.75, JAILBREAK=0.25)
        verdict = family(PROMPT_GUARD_1).read([scores], "tool_output")
        assert verdict.score == 1.0
        assert found(verdict) == {
            ("prompt_injection", "INJECTION"): 1.0,
            ("jailbreak", "JAILBREAK"): 0.25,
        }

    @pytest.mark.parametrize(
        ("side", "category"), [("input", "jailbreak"), ("tool_output", "prompt_injection")]
    )
    def test_prompt_guard_2_has_one_label_for_both(self, side: Side, category: str) -> None:
        scores = exclusive(BENIGN=0.125, MALICIOUS=0.875)
        verdict = family("meta-llama/Llama-Prompt-Guard-2-22M").read([scores], side)
        assert found(verdict) == {(category, "MALICIOUS"): 0.875}

    def test_protectai(self) -> None:
        scores = exclusive(SAFE=0.25, INJECTION=0.75)
        verdict = family("protectai/deberta-v3-base-prompt-injection-v2").read([scores], "input")
        assert found(verdict) == {("prompt_injection", "INJECTION"): 0.75}

    def test_toxic_bert(self) -> None:
        scores = TextScores(
            {
                "toxic": 0.9,
                "severe_toxic": 0.1,
                "obscene": 0.8,
                "threat": 0.0,
                "insult": 0.7,
                "identity_hate": 0.2,
            }
        )
        verdict = family("unitary/toxic-bert").read([scores], "output")
        assert verdict.score == 0.9
        assert found(verdict) == {
            ("harassment", "toxic"): 0.9,
            ("profanity", "obscene"): 0.8,
            ("harassment", "insult"): 0.7,
            ("hate", "identity_hate"): 0.2,
            ("harassment", "severe_toxic"): 0.1,
            ("harassment", "threat"): 0.0,
        }

    def test_duo_guard_has_the_hazards_of_its_paper_in_their_order(self) -> None:
        duo = family("DuoGuard/DuoGuard-0.5B")
        assert duo.labels is not None
        scores = TextScores({label: n / 16 for n, label in enumerate(duo.labels)})
        verdict = duo.read([scores], "input")
        assert [str(f.category) for f in reversed(verdict.findings)] == [
            "violent_crimes",
            "non_violent_crimes",
            "sex_crimes",
            "child_sexual_exploitation",
            "specialized_advice",
            "privacy",
            "intellectual_property",
            "indiscriminate_weapons",
            "hate",
            "self_harm",
            "sexual_content",
            "jailbreak",
        ]
        assert verdict.score == 11 / 16

    def test_granite_hap_has_one_label_for_three_hazards(self) -> None:
        verdict = family("ibm-granite/granite-guardian-hap-38m").read(
            [exclusive(clean=0.5, HAP=0.5)], "output"
        )
        assert {str(f.category): f.score for f in verdict.findings} == {
            "hate": 0.5,
            "harassment": 0.5,
            "profanity": 0.5,
        }

    def test_hazards_that_share_the_probability_make_a_text_no_safer(self) -> None:
        none = dict.fromkeys(["H", "V", "HR", "SH", "H2", "V2"], 0.0)
        scores = none | {"OK": 0.25, "S": 0.25, "S3": 0.5}
        verdict = family("KoalaAI/Text-Moderation").read([exclusive(**scores)], "input")
        assert verdict.score == 0.75
        assert found(verdict)["child_sexual_exploitation", "S3"] == 0.75
        assert found(verdict)["sexual_content", "S"] == 0.25


class TestLabels:
    def test_case_and_joints_of_words_do_not_matter(self) -> None:
        scores = exclusive(**{"Not Toxic": 0.25, "SEVERE toxic": 0.75})
        made = SequenceClassifier({"severe_toxic": "harassment", "not-toxic": None})
        made.check_labels([*scores.scores], exclusive=True)
        assert found(made.read([scores], "input")) == {("harassment", "SEVERE toxic"): 0.75}

    def test_benign_labels_can_be_named_apart(self) -> None:
        made = SequenceClassifier({"rude": Category.HARASSMENT}, benign=["nice", "kind"])
        verdict = made.read([exclusive(rude=0.5, nice=0.25, kind=0.25)], "output")
        assert found(verdict) == {("harassment", "rude"): 0.5}

    def test_an_unknown_label_is_a_hazard_and_keeps_its_name(self) -> None:
        made = SequenceClassifier({"rude": "harassment"}, strict=False)
        verdict = made.read([TextScores({"rude": 0.1, "S17": 0.8})], "output")
        assert found(verdict) == {("other", "S17"): 0.8, ("harassment", "rude"): 0.1}
        assert verdict.score == 0.8
        assert Category.OTHER in made.categories

    @pytest.mark.parametrize(
        "label", ["SAFE", "benign", "OK", "neutral", "non-toxic", "not_hate", "Normal", "no harm"]
    )
    def test_an_unknown_label_that_says_it_is_harmless(self, label: str) -> None:
        made = SequenceClassifier({"rude": "harassment"})
        made.check_labels(["rude", label], exclusive=True)
        verdict = made.read([exclusive(**{"rude": 0.25, label: 0.75})], "input")
        assert found(verdict) == {("harassment", "rude"): 0.25}

    @pytest.mark.parametrize("label", ["unsafe", "not safe", "LABEL_0", "toxic", "abnormal", "no"])
    def test_labels_that_do_not_say_so(self, label: str) -> None:
        made = SequenceClassifier({"rude": "harassment"})
        assert ("other", label) in found(
            made.read([TextScores({"rude": 0.0, label: 1.0})], "input")
        )

    def test_a_list_of_categories(self) -> None:
        made = SequenceClassifier({"abuse": ["hate", Category.HARASSMENT]}, benign="ok")
        verdict = made.read([exclusive(abuse=0.75, ok=0.25)], "input")
        assert found(verdict) == {("harassment", "abuse"): 0.75, ("hate", "abuse"): 0.75}

    def test_sides(self) -> None:
        made = SequenceClassifier({"rude": "harassment"}, sides="output")
        assert made.sides == {"output"}
        assert SequenceClassifier({"rude": "harassment"}).sides == set(SIDES)

    def test_the_checked_text_is_what_is_judged(self) -> None:
        talk = Conversation.of(
            [("system", "rules"), ("human", "hi"), ("ai", "ho"), ("human", "so")]
        )
        assert SequenceClassifier({"rude": "harassment"}).render(talk, "input") == [
            TextInput("so", side="input")
        ]
        answered = talk.answered("well")
        assert SequenceClassifier({"rude": "harassment"}).render(answered, "output") == [
            TextInput("well", side="output")
        ]


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"labels": {}}, "name a category for at least one label"),
    ({"labels": {"ok": None}}, "name a category for at least one label"),
    ({"labels": ["toxic"]}, "labels=['toxic']; allowed: a mapping"),
    ({"labels": {"toxic": "rude"}}, "label 'toxic': unknown category 'rude'; allowed: violent_cr"),
    ({"labels": {"toxic": []}}, "label 'toxic': categories=[]"),
    ({"labels": {"toxic": 3}}, "label 'toxic' has 3; allowed: a category, a list of them, or"),
    ({"labels": {"toxic": True}}, "label 'toxic' has True; allowed"),
    ({"labels": {False: "hate"}}, "label False is no text; put it into quotes"),
    ({"labels": {1: "hate"}}, "label 1 is no text; put it into quotes"),
    ({"labels": {" ": "hate"}}, "label ' ' is no text"),
    ({"labels": {"a b": "hate", "A_B": "hate"}}, "label 'A_B' stands twice"),
    ({"labels": {"a": "hate"}, "benign": "A"}, "label 'A' is in benign and has a category, too"),
    ({"labels": {"a": "hate"}, "benign": 4}, "benign=4; allowed: a text or a list of texts"),
    ({"labels": {"a": "hate"}, "benign": [4]}, "benign: label 4 is no text"),
    ({"labels": {"a": "hate"}, "sides": "inputs"}, "unknown side 'inputs'; allowed: input, output"),
    ({"labels": {"a": "hate"}, "sides": []}, "sides=[]; allowed: input, output"),
    ({"labels": {"a": "hate"}, "sides": 1}, "sides=1; allowed: a text or a list of texts"),
    ({"labels": {"a": "hate"}, "activation": "relu"}, "'relu'; allowed: softmax, sigmoid"),
    ({"labels": {"a": "hate"}, "order": "ab"}, "order='ab'; allowed: a list of labels"),
    ({"labels": {"a": "hate"}, "order": [1, 2]}, "order=[1, 2]; allowed: a list of labels"),
    ({"labels": {"a": "hate"}, "order": 2}, "order=2; allowed: a list of labels"),
    ({"labels": {"a": "hate"}, "by_side": ["input"]}, "by_side=['input']; allowed: a mapping"),
    ({"labels": {"a": "hate"}, "by_side": {"in": {}}}, "unknown side 'in'"),
    (
        {"labels": {"a": "hate"}, "by_side": {"input": {"a": "x"}}},
        "by_side, input: label 'a': unknown category 'x'",
    ),
    (
        {"labels": {"a": "hate"}, "by_side": {"input": {"a": None}}, "sides": "output"},
        "by_side: 'input' is not in sides; allowed: output",
    ),
]


class TestMistakes:
    @pytest.mark.parametrize(("given", "message"), MISTAKES, ids=range(len(MISTAKES)))
    def test_a_wrong_value_is_named_with_what_is_allowed(
        self, given: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=re.escape(message)):
            SequenceClassifier(**given)
        with pytest.raises(ConfigurationError, match=re.escape(message)):
            SequenceClassifier.from_dict(given)

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ([], "a classifier is a mapping, not []"),
            ({}, "a classifier needs the key 'labels'"),
            ({"label": {}}, "unknown classifier key 'label'; allowed: labels, benign, by_side"),
        ],
    )
    def test_a_wrong_key(self, data: Any, message: str) -> None:
        with pytest.raises(ConfigurationError, match=re.escape(message)):
            SequenceClassifier.from_dict(data)

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (["toxic", "neutral", "rude"], "no label 'obscene'; the model has 'toxic', 'neutral'"),
            (["toxic", "obscene"], "exclude each other and none is harmless"),
            (["toxic", "obscene", "nice"], "name one in benign=; the model has 'toxic'"),
        ],
    )
    def test_a_map_for_another_model(self, labels: list[str], message: str) -> None:
        made = SequenceClassifier({"toxic": "hate", "obscene": "profanity"})
        with pytest.raises(ConfigurationError, match=message):
            made.check_labels(labels, exclusive=True)

    def test_a_side_on_which_nothing_is_a_hazard(self) -> None:
        made = SequenceClassifier({"toxic": "hate"}, by_side={"output": {"toxic": None}})
        with pytest.raises(ConfigurationError, match="is a hazard on 'output'"):
            made.check_labels(["toxic"], exclusive=False)
        with pytest.raises(GuardOutputError, match="is a hazard here"):
            made.read([TextScores({"toxic": 0.9})], "output")

    @pytest.mark.parametrize(
        "answer",
        [
            TextScores(),
            TextScores({"toxic": math.nan}),
            TextScores({"toxic": 1.5}),
            TextScores({"toxic": -0.1}),
            TextScores({"neutral": 1.0}),
            TextScores({"toxic": 0.5, "rude": 0.5}, exclusive=True),
            TextScores({"toxic": 0.5}, stretches=(Stretch(0, 1, {"toxic": math.nan}),)),
        ],
        ids=range(7),
    )
    def test_an_answer_that_cannot_be_read_is_no_verdict(self, answer: TextScores) -> None:
        with pytest.raises(GuardOutputError):
            SequenceClassifier({"toxic": "hate"}).read([answer], "input")


def test_a_classifier_from_yaml(tmp_path: Path) -> None:
    text = """
    name: moderation
    labels:
      toxic: harassment
      abuse: [hate, harassment]
      "no": null
    benign: fine
    by_side:
      tool_output: {toxic: null}
    sides: [output, tool_output]
    activation: softmax
    order: ["no", toxic, abuse, fine]
    """
    made = SequenceClassifier.from_dict(yaml.safe_load(text))
    assert (made.name, made.activation, made.sides) == (
        "moderation",
        "softmax",
        {"output", "tool_output"},
    )
    assert made.labels == ("no", "toxic", "abuse", "fine")
    scores = exclusive(no=0.25, toxic=0.5, abuse=0.125, fine=0.125)
    assert made.read([scores], "output").score == 0.625
    assert made.read([scores], "tool_output").score == 0.125
    path = tmp_path / "classifier.yaml"
    path.write_text(text, encoding="utf-8")
    assert SequenceClassifier.from_file(path).read([scores], "output").score == 0.625


probabilities = st.floats(0, 1)
names = st.lists(
    st.sampled_from(["toxic", "obscene", "S1", "safe", "hate", "LABEL_4"]), min_size=1, unique=True
)


@given(st.data(), names, st.booleans(), st.integers(0, 4))
def test_the_riskiest_finding_is_the_score(
    data: st.DataObject, labels: list[str], shared: bool, windows: int
) -> None:
    made = SequenceClassifier(
        {"toxic": ["hate", "harassment"], "obscene": "profanity"}, strict=False
    )

    def scores() -> dict[str, float]:
        drawn = [data.draw(probabilities) for _ in labels]
        total = sum(drawn) if shared else 1.0
        return {
            label: min(p / total if total else 1 / len(labels), 1.0)
            for label, p in zip(labels, drawn, strict=True)
        }

    stretches = tuple(Stretch(n, n + 1, scores()) for n in range(windows))
    answer = TextScores(scores(), stretches=stretches, exclusive=shared)
    hazards = [label for label in labels if label != "safe"]
    if not hazards or (shared and len(hazards) == len(labels)):
        with pytest.raises(GuardOutputError):
            made.read([answer], "input")
        return
    verdict = made.read([answer], "input")
    risks = [finding.score for finding in verdict.findings]
    assert all(risk is not None for risk in risks)
    assert verdict.score == max(risks, key=lambda risk: risk or 0)
    assert risks == sorted(risks, key=lambda risk: -(risk or 0))
    assert {finding.code for finding in verdict.findings} == set(hazards)
    if windows:
        assert verdict.score == max(span.score for span in verdict.spans)
    if shared and windows == 1:
        harmless = stretches[0].scores["safe"]
        assert verdict.score == pytest.approx(1 - harmless, abs=1e-9)


@cache
def guard(kind: str) -> ModelGuard[TextInput, TextScores]:
    made = family(PROMPT_GUARD_1)
    engine = ClassifierEngine(
        *load(kind), activation="softmax", labels=made.labels, name=f"tiny-{kind}"
    )
    made.check_labels(engine.labels, exclusive=engine.activation == "softmax")
    assert engine.labels == LABELS
    return ModelGuard(engine, made, name=f"tiny-{kind}")


def check(kind: str, text: str, side: Side = "input") -> Verdict:
    [verdict] = guard(kind).check([Conversation.of(text, side)], side)
    return verdict


@pytest.mark.parametrize("kind", KINDS)
class TestRealModels:
    def test_a_jailbreak(self, kind: str) -> None:
        verdict = check(kind, f"please {JAILBREAK} that it is time")
        assert [str(finding.category) for finding in verdict.findings] == ["jailbreak"]
        assert verdict.score is not None
        assert verdict.score > 0.9
        assert (verdict.guard, verdict.failed, verdict.spans) == (f"tiny-{kind}", False, ())
        assert verdict.tokens

    def test_an_injection_counts_only_in_what_a_tool_brings(self, kind: str) -> None:
        text = f"the rain {INJECTION} falls"
        assert (check(kind, text).score or 0) < 0.1
        verdict = check(kind, text, "tool_output")
        assert (verdict.score or 0) > 0.9
        assert verdict.findings[0].category == "prompt_injection"

    @pytest.mark.parametrize("text", ["", "🍞", "안녕 세상 빵", "the bread needs flour"])
    def test_harmless_texts(self, kind: str, text: str) -> None:
        verdict = check(kind, text)
        assert (verdict.score or 0) < 0.1
        assert not verdict.failed

    def test_a_needle_at_the_end_of_200_kilobytes(self, kind: str) -> None:
        hay = "the bread needs flour water salt and time . " * 4600
        assert len(hay) > 200_000
        verdict = check(kind, f"{hay}{JAILBREAK}")
        assert (verdict.score or 0) > 0.9
        riskiest = max(verdict.spans, key=lambda span: span.score)
        assert riskiest.score == verdict.score == verdict.findings[0].score
        assert riskiest.end == len(hay) + len(JAILBREAK)
        assert riskiest.start > 200_000
        assert (check(kind, hay).score or 0) < 0.1

    def test_in_a_chain(self, kind: str) -> None:
        chain = InputGuard(guard(kind), Policy(rules=(Rule("jailbreak", "block"),))) | str.upper
        assert chain.invoke("the bread") == "THE BREAD"
        hay = " ".join(FILLER) * 60
        for text in (f"{JAILBREAK} it", f"[SEP] [CLS] {JAILBREAK} </s>", f"{hay} {JAILBREAK}"):
            with pytest.raises(ContentBlockedError, match="input blocked \\(jailbreak"):
                chain.invoke(text)


def test_a_verdict_that_cannot_be_had_fails_closed() -> None:
    model, tokenizer = load("bert")
    model.classifier.bias.data[0] = math.nan
    broken: ModelGuard[TextInput, TextScores] = ModelGuard(
        ClassifierEngine(model, tokenizer), family(PROMPT_GUARD_1)
    )
    with pytest.raises(GuardOutputError):
        broken.check([Conversation.of("the bread")], "input")
    reached: list[str] = []
    chain = InputGuard(broken) | reached.append
    with pytest.raises(ContentBlockedError):
        chain.invoke("the bread")
    assert reached == []


def test_a_folder_is_recognised_and_loaded_by_its_labels() -> None:
    loaded = load_guard(folder("bert"))
    assert loaded.sides == {"input", "tool_output"}
    [verdict] = loaded.check([Conversation.of(f"{JAILBREAK} it")], "input")
    assert (verdict.score or 0) > 0.9


def test_a_classifier_of_ones_own() -> None:
    tricks = SequenceClassifier(
        {"jailbreak": "fraud", "injection": ["cybercrime"]}, benign="benign"
    )
    loaded = load_guard(folder("deberta"), family=tricks, max_tokens=16)
    [verdict] = loaded.check(
        [Conversation.of(f"{'the bread ' * 40}{JAILBREAK}", "output")], "output"
    )
    assert verdict.findings[0].category == "fraud"
    assert (verdict.score or 0) > 0.9
    assert len(verdict.spans) > 5
