"""Ways to turn an unsafe text into an acceptable one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_safeguard import ConfigurationError, Redact, Replace


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("write to kim.lee+x@example.co.kr now", "write to [EMAIL] now"),
        ("card 4111 1111 1111 1111.", "card [CREDIT_CARD]."),
        ("주민번호 900101-1234567 입니다", "주민번호 [KR_RRN] 입니다"),
        ("ssn 123-45-6789", "ssn [US_SSN]"),
        ("call +82 10-1234-5678 today", "call [PHONE_NUMBER] today"),
        ("host 192.168.1.254 is up", "host [IP_ADDRESS] is up"),
        ("see https://example.com/a?b=c please", "see [URL] please"),
        ("DE89 3704 0044 0532 0130 00", "[IBAN]"),
        ("in 2024 we sold 1500 units", "in 2024 we sold 1500 units"),
    ],
)
def test_redact_replaces_what_has_a_form(text: str, redacted: str) -> None:
    assert Redact()(text) == redacted


def test_redact_replaces_only_what_it_is_told_to() -> None:
    text = "a@example.com 123-45-6789"
    assert Redact(("us_ssn",))(text) == "a@example.com [US_SSN]"


def test_an_unknown_entity_is_named_with_the_allowed_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"'shoe_size'.*email"):
        Redact(("shoe_size",))


def test_replace_says_one_thing() -> None:
    assert Replace("[removed]")("anything") == "[removed]"


@given(st.text())
def test_redact_is_done_after_one_round(text: str) -> None:
    once = Redact(("email", "us_ssn", "kr_rrn", "ip_address"))(text)
    assert Redact(("email", "us_ssn", "kr_rrn", "ip_address"))(once) == once


def test_redact_takes_linear_time() -> None:
    text = "a" * 1_000_000 + "." * 200_000 + "1" * 200_000 + " " * 200_000
    assert Redact()(text)[:10] == "a" * 10
