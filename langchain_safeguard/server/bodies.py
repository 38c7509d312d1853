"""What the bodies of requests have in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

_DEEPEST = 32


class Body(BaseModel):
    """The body of a request: unknown fields are errors, and texts are made sound.

    Half a character (a lone surrogate, which JSON can spell) becomes U+FFFD: whoever cuts texts
    carelessly shall get them judged rather than refused.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _mend(cls, data: Any) -> Any:
        return _mended(data, 0)


def _mended(value: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        raise ValueError(f"nested more than {_DEEPEST} levels deep")
    if isinstance(value, str):
        return _mended_text(value)
    if isinstance(value, list):
        return [_mended(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {_mended_text(key): _mended(item, depth + 1) for key, item in value.items()}
    return value


def _mended_text(text: str) -> str:
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
