"""Prompts that are a text with slots."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from langchain_safeguard.engines import Piece
from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.guards.markers import defuse

_PART = re.compile(r"\{\{|\}\}|\{(\w+)\}")


class PromptText:
    """A text with slots such as `{question}`; `{{` and `}}` stand for single braces.

    Other braces, such as those of JSON, stand for themselves.

    Args:
        text: The text.
        slots: The slots it may have.
        markers: Texts that mean something in the prompt; in what fills a slot they are defused.
        speakers: Words that, followed by a colon at the beginning of a line, begin a turn.

    Raises:
        ConfigurationError: It has a slot that is not allowed.
    """

    def __init__(
        self,
        text: str,
        slots: Collection[str],
        *,
        markers: Sequence[str] = (),
        speakers: Sequence[str] = (),
    ) -> None:
        """Take the text apart."""
        self._markers = tuple(markers)
        self._speakers = tuple(speakers)
        self._parts: list[tuple[str, bool]] = []
        end = 0
        for match in _PART.finditer(text):
            self._parts.append((text[end : match.start()], False))
            if match[1] is None:
                self._parts.append((match[0][0], False))
            elif match[1] in slots:
                self._parts.append((match[1], True))
            else:
                raise ConfigurationError.unknown("slot", match[0], map("{{{}}}".format, slots))
            end = match.end()
        self._parts.append((text[end:], False))

    @property
    def slots(self) -> frozenset[str]:
        """Return the slots it has."""
        return frozenset(part for part, is_slot in self._parts if is_slot)

    def fill(self, **values: str | Sequence[Piece]) -> tuple[Piece, ...]:
        """Fill all slots.

        Args:
            values: What users and models wrote, without white space around it; or pieces, which may
                be the guard's own words.
        """
        found: list[Piece] = []
        for part, is_slot in self._parts:
            if not is_slot:
                found.append(Piece(part))
                continue
            value = values[part]
            pieces = [Piece(value.strip(), trusted=False)] if isinstance(value, str) else value
            found += [piece if piece.trusted else self._defused(piece) for piece in pieces]
        return joined(found)

    def _defused(self, piece: Piece) -> Piece:
        return Piece(defuse(piece.text, self._markers, self._speakers), trusted=False)


def joined(pieces: Iterable[Piece]) -> tuple[Piece, ...]:
    """Make one piece of neighbours that are trusted alike.

    Empty texts of users stay: they say where a text would stand.
    """
    found: list[Piece] = []
    for piece in pieces:
        if piece.trusted and not piece.text:
            continue
        if found and found[-1].trusted == piece.trusted:
            found[-1] = Piece(found[-1].text + piece.text, piece.trusted)
        else:
            found.append(piece)
    return tuple(found)
