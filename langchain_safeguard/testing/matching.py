"""Finding a secret in text, however the text was spelled or escaped on its way."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|x([0-9a-fA-F]{2})|([\"'\\/bfnrt]))")
_PLAIN = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_LEVELS = 3
"""How often text is unescaped: JSON in a JSON string in a JSON response is three times."""


def normalise(text: str) -> str:
    """Fold what makes equal text look different: case, width, composition, white space.

    Korean typed as single letters (NFD) equals Korean syllables (NFC) afterwards, and any run
    of white space is one space, so that re-wrapped text is still found.
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _replace(match: re.Match[str]) -> str:
    short, long, byte, plain = match.groups()
    if plain is not None:
        return _PLAIN.get(plain, plain)
    code = int(short or long or byte, 16)
    return chr(code) if code <= 0x10FFFF else match.group()


def unescape(text: str) -> str:
    r"""Undo one level of JSON or Python escapes (`\uAC00`, `\n`, `\"`) and join surrogates."""
    plain = _ESCAPE.sub(_replace, text)
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def spellings(text: str) -> Iterable[str]:
    """Yield the normalised text as it stands and with its escapes undone level by level."""
    yield normalise(text)
    for _ in range(_LEVELS):
        if "\\" not in text:
            return
        text = unescape(text)
        yield normalise(text)


class SecretFinder:
    """Tells whether a text contains one of the secrets."""

    def __init__(self, secret: str | Iterable[str]) -> None:
        """Take one secret or several.

        Raises:
            TypeError: A secret is not a `str`.
            ValueError: There is no secret, or one has nothing in it but white space.
        """
        secrets = [secret] if isinstance(secret, str) else list(secret)
        for each in secrets:
            if not isinstance(each, str):
                raise TypeError(f"a secret must be a str, not {type(each).__name__}")
        self.secrets = tuple(normalise(each) for each in secrets)
        if not self.secrets or not all(self.secrets):
            raise ValueError("secret must be a non-empty text or a list of such")

    def found_in(self, text: str) -> bool:
        """Whether any secret occurs in the text, in any spelling."""
        return any(secret in each for each in spellings(text) for secret in self.secrets)

    def equals(self, value: float) -> bool:
        """Whether a number is a secret as a whole.

        Digits inside a number are not searched: a secret "12" is not in a count of 312 tokens.
        """
        return str(value) in self.secrets
