"""Guards that are any language model with a prompt and two words for its verdict."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.engines import Completion, Piece, Prompt, Reading, Writing
from langchain_safeguard.errors import ConfigurationError, GuardOutputError
from langchain_safeguard.guards.chat_template import ChatTemplate, Message
from langchain_safeguard.guards.dialogue import ANSWERS, alternating, exchange
from langchain_safeguard.guards.evidence import Codes, harmless, judged, without_control
from langchain_safeguard.guards.family import LanguageFamily
from langchain_safeguard.guards.labelled import named
from langchain_safeguard.guards.prompt_text import PromptText
from langchain_safeguard.guards.yaml_file import from_file, from_mapping
from langchain_safeguard.policy import read_categories, read_sides
from langchain_safeguard.taxonomy import SIDES, Category, Side
from langchain_safeguard.verdict import Verdict

_SLOTS = ("text", "question", "answer", "conversation")
_SPEAKERS = {"user": "User", "assistant": "Assistant"}


class WordVerdict(LanguageFamily):
    r"""Judges by the word with which a language model answers a prompt.

    The score is the probability of the word for unsafe, against that for safe. Nothing is written,
    unless the model names hazards after its word (`categories`).

    Example:
        ```python
        rude = WordVerdict(
            "Is this message rude?\n\nMessage: {text}\n\nAnswer:",
            safe="no",
            unsafe="yes",
            category="harassment",
        )
        guard = load_guard("folder", family=rude)
        ```

    Args:
        prompt: What the model is asked. `{text}` is what is judged; `{question}` and `{answer}` are
            the last question and the answer to it; `{conversation}` is all that was said, a line
            that begins with `User:` or `Assistant:` for each turn. `{{` is a single brace.
        safe: The model's word for safe, or several spellings of it.
        unsafe: Its word for unsafe, or several spellings.
        category: What unsafe means: a category, or several.
        categories: Instead of `category`: from what the model names after its word, in a list with
            commas, to categories.
        between: What stands between the word and the first name.
        lead: What the model says before its word.
        system: A system message; only with `template`.
        template: A chat template. The prompt becomes the user's message in it; without one, the
            prompt stands alone, and the word follows its end.
        markers: Texts that mean something in your prompt; users cannot write them.
        speakers: Words that, with a colon, begin a turn in your prompt; likewise.
        sides: The sides to judge; all on which the prompt shows what is judged if left out.
        name: What the guard's family is called.

    Raises:
        ConfigurationError: Something is unknown or missing; the message says what is allowed.
    """

    def __init__(
        self,
        prompt: str,
        safe: str | Sequence[str],
        unsafe: str | Sequence[str],
        *,
        category: Collection[str] | str | None = None,
        categories: Mapping[str, Collection[str] | str] | None = None,
        between: str = "\n",
        lead: str = "",
        system: str | None = None,
        template: str | None = None,
        markers: Sequence[str] = (),
        speakers: Sequence[str] = (),
        sides: Collection[str] | str | None = None,
        name: str = "word-verdict",
    ) -> None:
        """Check and store."""
        for key, text in (("prompt", prompt), ("between", between), ("lead", lead), ("name", name)):
            if not isinstance(text, str):
                raise ConfigurationError(f"{key}={text!r}; allowed: a text")
        speakers = [*_SPEAKERS.values(), *_texts("speakers", speakers)]
        self._prompt = PromptText(
            prompt, _SLOTS, markers=_texts("markers", markers), speakers=speakers
        )
        self._words = {"safe": _words("safe", safe), "unsafe": _words("unsafe", unsafe)}
        if both := {*map(str.lower, self._words["safe"])} & {
            *map(str.lower, self._words["unsafe"])
        }:
            raise ConfigurationError(f"{both.pop()!r} stands for both safe and unsafe")
        self._table, self._names = _meanings(self._words["unsafe"][0], category, categories)
        self._between = between
        self._lead = lead
        if system is not None and template is None:
            raise ConfigurationError("a system message needs a chat template; give template=")
        self._system = system
        self._template = None if template is None else ChatTemplate(template)
        if template is None and prompt.rstrip().endswith(tuple(f"{{{slot}}}" for slot in _SLOTS)):
            raise ConfigurationError(
                "the prompt ends with what users write; end it with words of its own, such as "
                "'Answer:', or give a chat template"
            )
        self.name = name
        self.sides = self._sides(sides)
        self.categories = frozenset().union(*self._table.values()) or frozenset({Category.OTHER})
        if self._names:
            self.categories |= {Category.OTHER}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> WordVerdict:
        """Read what a YAML file holds: the arguments by their names.

        Raises:
            ConfigurationError: A key or value is unknown; the message says what is allowed.
        """
        return from_mapping(cls, "guard", data)

    @classmethod
    def from_file(cls, path: str | Path) -> WordVerdict:
        """Read a YAML file with the arguments by their names.

        Raises:
            ConfigurationError: It is missing or wrong; the message names it and what is allowed.
        """
        return from_file(cls.from_dict, path)

    def render(self, conversation: Conversation, side: Side) -> Sequence[Prompt]:
        """Fill the prompt in, and put it into the chat template where there is one."""
        question, answer = exchange(conversation, side)
        pieces = self._prompt.fill(
            text=conversation.checked(side).text,
            question=question,
            answer=answer or "",
            conversation=_shown(conversation, side),
        )
        if self._template is not None:
            messages: list[Message] = [{"role": "user", "content": pieces}]
            if self._system is not None:
                messages.insert(0, {"role": "system", "content": (Piece(self._system),)})
            pieces = self._template.render(messages)
        return [Prompt(pieces, self._answer(pieces[-1].text))]

    def read(self, answers: Sequence[Completion], side: Side) -> Verdict:
        """Read the probability of the word for unsafe."""
        [answer] = answers
        text = without_control(answer.text or "")
        if "verdict" in answer.readings:
            # Its first word was forced; the names follow it.
            return self._unsafe(
                answer.readings["verdict"]["unsafe"],
                text.partition(self._words["unsafe"][0] + self._between.rstrip(" "))[2],
                answer,
            )
        word, rest = self._word(text)
        if word == "unsafe":
            return self._unsafe(None, rest, answer)
        if any(name in self._names for name in named(rest)):
            raise GuardOutputError("the answer says that it is safe and names hazards")
        return harmless(self.name, answer.tokens)

    def _unsafe(self, score: float | None, rest: str, answer: Completion) -> Verdict:
        return judged(
            self.name,
            score,
            table=self._table,
            listed=named(rest) if self._names else [*self._table],
            likely=answer.readings.get("category"),
            tokens=answer.tokens,
        )

    def _answer(self, before: str) -> tuple[str | Reading | Writing, ...]:
        spellings = {
            label: tuple(f"{space}{word}" for word in words for space in ("", " "))
            for label, words in self._words.items()
        }
        answer: list[str | Reading | Writing] = [self._lead] if self._lead else []
        answer.append(Reading("verdict", spellings))
        if not self._names:
            return tuple(answer)
        word = self._words["unsafe"][0]
        begins = (before + self._lead)[-1:].isspace()
        answer.append(f"{'' if begins else ' '}{word}{self._between.rstrip(' ')}")
        if len(self._names) > 1:
            space = "" if self._between[-1:] == "\n" else " "
            answer.append(Reading("category", {name: (space + name,) for name in self._names}))
        answer.append(Writing(8 * len(self._names) + 8, only_if=("verdict", "unsafe")))
        return tuple(answer)

    def _word(self, text: str) -> tuple[str, str]:
        """Return which of the two words an answer begins with, and what follows it."""
        text = text.strip().removeprefix(self._lead.strip()).lstrip()
        longest_first = sorted(
            ((word, label) for label, words in self._words.items() for word in words),
            key=lambda each: -len(each[0]),
        )
        for word, label in longest_first:
            if re.match(rf"{re.escape(word)}(?!\w)", text, re.IGNORECASE):
                rest = text[len(word) :]
                return label, rest.removeprefix(self._between.rstrip()).lstrip(" \t\n.,:;")
        raise GuardOutputError("the answer begins with neither of the two words")

    def _sides(self, given: Collection[str] | str | None) -> frozenset[Side]:
        slots = self._prompt.slots
        always = bool(slots & {"text", "conversation"})
        shown = frozenset(
            side
            for side in SIDES
            if always or ("answer" if side in ANSWERS else "question") in slots
        )
        if not shown:
            raise ConfigurationError(
                f"the prompt has none of {', '.join(map('{{{}}}'.format, _SLOTS))}"
            )
        if given is None:
            # Where there is a slot for the answer, the question alone is not what is judged.
            return shown & ANSWERS if "answer" in slots and not always else shown
        sides = read_sides(given)
        for side in sorted(sides - shown):
            needed = "{answer}" if side in ANSWERS else "{question}"
            raise ConfigurationError(f"sides: {side!r}, but the prompt has no {{text}} or {needed}")
        return sides


def _shown(conversation: Conversation, side: Side) -> list[Piece]:
    shown: list[Piece] = []
    for message in alternating(conversation, side):
        begin = f"{_SPEAKERS[message['role']]}: "
        shown += [Piece(f"\n{begin}" if shown else begin), Piece(message["content"].strip(), False)]
    return shown


def _meanings(
    word: str,
    category: Collection[str] | str | None,
    categories: Mapping[str, Collection[str] | str] | None,
) -> tuple[Codes, tuple[str, ...]]:
    """Return the categories of each code, and the codes that the model names."""
    if category is not None and categories is not None:
        raise ConfigurationError("give either 'category' or 'categories'")
    if categories is None:
        meaning = read_categories("other" if category is None else category)
        return {word: tuple(sorted(meaning))}, ()
    if not isinstance(categories, Mapping) or not categories:
        raise ConfigurationError(
            f"categories={categories!r}; allowed: a mapping from what the model names to categories"
        )
    table = {
        _words("categories", name)[0]: tuple(sorted(read_categories(ours)))
        for name, ours in categories.items()
    }
    return table, tuple(table)


def _words(key: str, value: object) -> tuple[str, ...]:
    words = _texts(key, value)
    if not words or not all(word.strip() for word in words):
        raise ConfigurationError(f"{key}={value!r}; allowed: a word, or a list of spellings of it")
    return tuple(dict.fromkeys(word.strip() for word in words))


def _texts(key: str, value: object) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        # YAML reads an unquoted `no` as false.
        raise ConfigurationError(
            f"{key}={value!r}; allowed: a text or a list of texts; put words such as 'no' in quotes"
        )
    return [*texts]
