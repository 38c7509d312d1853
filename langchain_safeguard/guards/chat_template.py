"""Chat templates, rendered so that it stays known which words are the guard's own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from langchain_safeguard.engines import Piece
from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.guards.markers import defuse

Message = Mapping[str, str | Sequence[Piece]]
"""A message with a `role` and a `content`."""

_SLOT = re.compile("\ue0f0(\\d+)\ue0f1")
"""What stands for a message while a template is rendered; in the Unicode private use area."""


@dataclass(frozen=True)
class ChatTemplate:
    """A jinja template of transformers' kind.

    Messages never pass through jinja: each is a placeholder until the rest is rendered, so that no
    template can change them, and everything that users wrote is known as such.

    Attributes:
        source: The template.
        markers: Texts that mean something to the model, but are no control tokens, such as
            `[/INST]`; in messages they are defused.
        speakers: Words that, followed by a colon at the beginning of a line, begin a turn.
        tokens: Names and texts of special tokens that the template may write, such as `bos_token`.
    """

    source: str
    markers: tuple[str, ...] = ()
    speakers: tuple[str, ...] = ()
    tokens: Mapping[str, str] = field(default_factory=dict)

    def render(self, messages: Sequence[Message], **options: Any) -> tuple[Piece, ...]:
        """Return the prompt for messages.

        Args:
            messages: The messages. A text is what a user or a model wrote, and stripped, as most
                templates do; pieces are taken as they are, for messages that are partly or wholly
                the guard's own words.
            options: What else the template takes.

        Raises:
            ConfigurationError: The template refuses the messages, or leaves out the last one.
        """
        texts: list[str] = []
        turns: list[dict[str, Any]] = [
            {"role": message["role"], "content": _with_slots(message["content"], texts)}
            for message in messages
        ]
        last = _slot(len(texts) - 1)
        rendered = self._render(turns, options)
        if last not in rendered:
            # Some templates read a list of parts and render nothing at all for a plain string.
            for turn in turns:
                turn["content"] = [{"type": "text", "text": turn["content"]}]
            rendered = self._render(turns, options)
        if last not in rendered:
            raise ConfigurationError("the chat template leaves out the message to judge")
        return self._pieces(rendered, texts)

    def _pieces(self, rendered: str, texts: Sequence[str]) -> tuple[Piece, ...]:
        pieces = []
        for at, part in enumerate(_SLOT.split(rendered)):
            if at % 2:
                text = defuse(texts[int(part)], self.markers, self.speakers)
                pieces.append(Piece(text, trusted=False))
            elif part:
                pieces.append(Piece(part))
        return tuple(pieces)

    def _render(self, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> str:
        from jinja2 import TemplateError

        try:
            rendered: str = self._compiled.render(
                messages=messages,
                **{"add_generation_prompt": True, "bos_token": "", **self.tokens, **options},
            )
        except TemplateError as error:
            raise ConfigurationError(
                f"the chat template refuses the conversation: {error}"
            ) from error
        return rendered

    @cached_property
    def _compiled(self) -> Any:
        # The environment in which transformers renders chat templates.
        from jinja2.exceptions import TemplateError
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def raise_exception(message: str) -> None:
            raise TemplateError(message)

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.globals["raise_exception"] = raise_exception
        return environment.from_string(self.source)


def _slot(number: int) -> str:
    return f"\ue0f0{number}\ue0f1"


def _with_slots(content: str | Sequence[Piece], texts: list[str]) -> str:
    """Return a message with placeholders for what is not the guard's own, added to `texts`."""
    pieces = [Piece(content.strip(), trusted=False)] if isinstance(content, str) else content
    said = ""
    for piece in pieces:
        if piece.trusted:
            said += piece.text
            continue
        said += _slot(len(texts))
        texts.append(piece.text)
    return said


def verbatim(role: str, text: str) -> Message:
    """Return a message of a user or a model that keeps the white space around its text."""
    return {"role": role, "content": (Piece(text, trusted=False),)}


def shipped(name: str) -> str:
    """Return a template of `guards/templates`, as the model's owner wrote it."""
    path = Path(__file__).with_name("templates") / f"{name}.jinja"
    return path.read_text(encoding="utf-8")
