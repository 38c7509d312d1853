"""Disguises are undone, and honest text survives."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_safeguard.embedded.normalize import normalize


@pytest.mark.parametrize(
    ("disguised", "plain"),
    [
        ("b\u200bo\u200dm\u2060b", "bomb"),
        ("bo\u00admb", "bomb"),
        ("bo\x00mb\x07", "bomb"),
        ("\u202ebomb\u202c", "bomb"),
        ("\ufeffbomb", "bomb"),
        ("b\ufe0fomb", "bomb"),
        ("ｂｏｍｂ", "bomb"),
        ("𝓫𝓸𝓶𝓫 𝕓𝕠𝕞𝕓 𝐛𝐨𝐦𝐛", "bomb bomb bomb"),
        ("ⓑⓞⓜⓑ", "bomb"),
        ("🅱🅾🅼🅱", "BOMB"),
        ("ʙᴏᴍʙ", "bomb"),
        ("b\u0335o\u0336m\u0337b\u0338", "bomb"),
        ("kіll", "kill"),  # Cyrillic i
        ("pοison", "poison"),  # Greek omicron
        ("k1ll", "kill"),
        ("b0mb", "bomb"),
        ("h4ck3r", "hacker"),
        ("$uicide", "suicide"),
        ("su1c1de", "suicide"),
        ("b o m b", "bomb"),
        ("k-i-l-l", "kill"),
        ("k.i.l.l", "kill"),
        ("폭\u200b탄", "폭탄"),
        ("ㅍㅗㄱㅌㅏㄴ", "폭탄"),
        ("\u1111\u1169\u11a8\u1110\u1161\u11ab", "폭탄"),  # conjoining letters
        ("폭\u3164탄", "폭탄"),
        ("자 살 방 법", "자살방법"),
        ("\U000e0062\U000e006f\U000e006d\U000e0062", "bomb"),  # tag characters
    ],
)
def test_disguises_are_undone(disguised: str, plain: str) -> None:
    assert normalize(disguised) == plain


@pytest.mark.parametrize(
    "text",
    [
        "3D h264 C4 mp3 covid19 H2O utf8 base64 sha256 x86 i18n k8s b2b gpt4 4x4",
        "It costs $50, 100% sure, 1st and 22nd, at 10am on 2024-05-01.",
        "Привет, как дела? Я живу в Москве.",
        "Καλημέρα κόσμε",
        "for (int i0 = 0; i0 < n1; i0++) { a[i0] = b1 + 0x3f; }",
        "https://example.com/a1b2?c=3d4e user@example.com",
        "안녕하세요 ㅋㅋㅋ ㅠㅠ 오늘 날씨가 좋네요",
        "naïve café Übergröße",
        "나는 밥을 먹고 학교에 갔다",
        "I am, as it were, a B C student",
        "Line one\n\tline two",
    ],
)
def test_honest_text_survives(text: str) -> None:
    assert normalize(text) == text


def test_lone_surrogates_are_replaced() -> None:
    assert normalize("a\ud83db\udc00") == "a\ufffdb\ufffd"


@given(st.text(st.characters(exclude_categories=[]), max_size=200))
def test_any_string_is_accepted_and_can_be_encoded(text: str) -> None:
    normalize(text).encode("utf-8")


@pytest.mark.parametrize(
    "unit",
    ["a", "a ", "a1", "@", "k1ll ", "가 ", "\u0301", "$a", "ㅏ", "a-", "аa", "\u200b", "\ufdfa"],
)
def test_time_is_linear(unit: str) -> None:
    def seconds(count: int) -> float:
        text = unit * count
        began = time.process_time()
        normalize(text)
        return time.process_time() - began

    seconds(1000)
    # Quadratic work would take a hundred times as long for ten times the text.
    assert seconds(200_000) < 40 * max(seconds(20_000), 0.005)
