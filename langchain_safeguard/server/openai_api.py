"""`POST /v1/moderations`, request and response as in OpenAI's API."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
)

from langchain_safeguard.conversation import Conversation, Turn
from langchain_safeguard.decision import Decision
from langchain_safeguard.policy import risk
from langchain_safeguard.safeguard import Safeguard
from langchain_safeguard.server.bodies import Body
from langchain_safeguard.server.categories import OPENAI_CATEGORIES, TO_OPENAI
from langchain_safeguard.server.problems import ApiError
from langchain_safeguard.server.settings import Limits
from langchain_safeguard.taxonomy import Category, Side

OPENAI_MODELS = (
    "omni-moderation-latest",
    "omni-moderation-2024-09-26",
    "text-moderation-latest",
    "text-moderation-stable",
)
"""What clients of OpenAI's API ask for by default: here they mean all guards together."""


class TextPart(Body):
    """A text of an input with several parts."""

    type: Literal["text"]
    text: str


class ImageUrl(Body):
    """Where an image is: an address or a `data:` URL."""

    url: str


class ImagePart(Body):
    """An image of an input with several parts; it is not judged, and the answer says so."""

    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class ModerationRequest(Body):
    """What OpenAI's moderation endpoint takes, and a choice of side and policy."""

    input: str | list[str] | list[Part] = Field(
        description="A text, a list of texts (a result each), or a list of parts (one result)."
    )
    model: str | None = Field(
        None, description="A guard's name; left out, or one of OpenAI's models: all guards."
    )
    side: Side = Field("input", description="Who wrote it: the user, the model, a tool.")
    policy: str | None = Field(None, description="A policy's name; the default one if left out.")

    @field_validator("input", mode="wrap")
    @classmethod
    def _read_input(cls, value: Any, read: ValidatorFunctionWrapHandler) -> Any:
        """Say what is allowed, where pydantic would list each alternative's objections."""
        try:
            return read(value)
        except ValidationError:
            raise ValueError(
                "give a text, a list of texts, or a list of parts, each with 'type' 'text' and "
                "'text', or 'type' 'image_url' and 'image_url': {'url'}"
            ) from None


class Applied(BaseModel):
    """What was decided about a text, beside OpenAI's fields."""

    action: str
    rule: str | None
    decision_id: str
    failed: bool
    unchecked: list[str]


class Result(BaseModel):
    """What was found in one text. Category names are OpenAI's thirteen, and ours beside them."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[str]]
    safeguard: Applied


class ModerationResponse(BaseModel):
    """What OpenAI's moderation endpoint answers, with a field `safeguard` in each result."""

    id: str
    model: str
    results: list[Result]


def conversations_of(request: ModerationRequest, limits: Limits) -> list[Conversation]:
    """Read the texts of a request, one conversation for each result.

    Raises:
        ApiError: There is none, there are too many, or they are too long.
    """
    given = request.input
    if isinstance(given, list):
        if not given:
            raise ApiError(400, "empty_input", "input: give at least one text.", param="input")
        if len(given) > limits.texts:
            raise ApiError(
                400,
                "too_many_texts",
                f"input: {len(given)} items; this server takes at most {limits.texts} per request.",
                param="input",
            )
    inputs: Iterable[str | Sequence[Part]]
    if isinstance(given, str):
        inputs = [given]
    elif isinstance(given[0], str):
        inputs = given
    else:
        inputs = [given]
    found = [_conversation(each, request.side) for each in inputs]
    check_lengths(found, limits, "input")
    return found


def check_lengths(conversations: Iterable[Conversation], limits: Limits, param: str) -> None:
    """Make sure that the texts of a request are not too long.

    Raises:
        ApiError: They are.
    """
    found = sum(len(turn.text) for each in conversations for turn in each.turns)
    if found > limits.characters:
        raise ApiError(
            400,
            "too_many_characters",
            f"{param}: {found} characters; this server takes at most {limits.characters} per "
            "request. Send fewer texts, or cut a long one into several.",
            param=param,
        )


def _conversation(given: str | Sequence[Part], side: Side) -> Conversation:
    if isinstance(given, str):
        return Conversation.of(given, side)
    text = "\n".join(part.text for part in given if isinstance(part, TextPart))
    images = tuple("image" for part in given if isinstance(part, ImagePart))
    [turn] = Conversation.of(text, side).turns
    return Conversation((Turn(turn.role, turn.text, images),))


def response_of(
    decisions: Sequence[Decision], conversations: Sequence[Conversation], safeguard: Safeguard
) -> dict[str, Any]:
    """Spell decisions as OpenAI's API does."""
    return {
        "id": f"modr-{uuid.uuid4().hex}",
        "model": "+".join(guard.name for guard in safeguard.guards),
        "results": [
            _result(decision, bool(conversation.checked(decision.side).text), safeguard)
            for decision, conversation in zip(decisions, conversations, strict=True)
        ],
    }


def _result(decision: Decision, has_text: bool, safeguard: Safeguard) -> dict[str, Any]:
    flagged = not decision.passes
    scores = dict.fromkeys(Category, 0.0)
    for verdict in decision.verdicts:
        for finding in verdict.findings:
            scores[finding.category] = max(scores[finding.category], risk(finding))
    fired = {
        each.finding.category
        for each in safeguard.policy.fired(decision.verdicts, decision.side)
        if flagged and not each.action.passes
    }
    judged: set[Category] = set()
    if has_text and not decision.failed:
        judged = {category for guard in safeguard.guards for category in guard.categories}
    if flagged and not fired:
        # No hazard was found, and yet the policy blocks: a guard failed, or a part was not judged.
        # Clients that look only at scores or categories must stop as well.
        fired, scores = set(Category), dict.fromkeys(Category, 1.0)
    return {
        "flagged": flagged,
        "categories": _spread({c: c in fired for c in Category}, any, finer=fired == set(Category)),
        "category_scores": _spread(scores, max, finer=1.0 if fired == set(Category) else 0.0),
        "category_applied_input_types": {
            name: ["text"] if applied else []
            for name, applied in _spread(
                {c: c in judged for c in Category}, any, finer=False
            ).items()
        },
        "safeguard": {
            "action": decision.action.value,
            "rule": decision.rule,
            "decision_id": decision.decision_id,
            "failed": decision.failed,
            "unchecked": list(decision.unchecked),
        },
    }


def _spread(values: Mapping[Category, Any], join: Any, *, finer: Any) -> dict[str, Any]:
    """Give each of OpenAI's categories what those of ours have that it covers, and add ours."""
    covered: dict[str, list[Any]] = {name: [] for name in OPENAI_CATEGORIES}
    for category, value in values.items():
        for name in TO_OPENAI[category]:
            covered[name].append(value)
    theirs = {name: join(found) if found else finer for name, found in covered.items()}
    return {**{category.value: value for category, value in values.items()}, **theirs}
