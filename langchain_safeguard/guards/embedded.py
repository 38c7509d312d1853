"""The guard that ships inside the package: a small classifier of this project's own."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.engines import TextInput, TextScores
from langchain_safeguard.guards.card import GuardCard
from langchain_safeguard.guards.family import ClassifierFamily
from langchain_safeguard.taxonomy import Category, Side
from langchain_safeguard.verdict import Finding, Verdict


class Embedded(ClassifierFamily):
    """Judges English and Korean prompts, answers and documents on the CPU, without a download.

    Prompts are judged by themselves, answers in the context of what was asked. What it was trained
    on and how well it does stands in `embedded/weights/ATTRIBUTIONS.md` and in the README.

    Args:
        labels: The names of the categories that the checkpoint scores; those of the one in the
            package if left out.
    """

    name = "embedded"

    def __init__(self, labels: Collection[str] | None = None) -> None:
        """Look the categories up."""
        if labels is None:
            labels = set(Category) - {Category.CODE_INTERPRETER_ABUSE}
        self.categories = frozenset(map(Category.of, labels))

    def render(self, conversation: Conversation, side: Side) -> Sequence[TextInput]:
        """Hand over the checked text without its preamble; for answers also what came before."""
        context = None
        if side == "output":
            said = (t.text for t in conversation.context(side) if t.role in ("user", "assistant"))
            context = "\n".join(said) or None
        return [TextInput(conversation.checked(side).body, context, side)]

    def read(self, answers: Sequence[TextScores], side: Side) -> Verdict:
        """Read one probability per category; the overall score is the highest."""
        [answer] = answers
        findings = [Finding(Category.of(name), s) for name, s in answer.scores.items()]
        findings.sort(key=lambda finding: -(finding.score or 0.0))
        return Verdict(
            guard=self.name,
            findings=tuple(findings),
            score=max(answer.scores.values()),
            spans=answer.spans,
            tokens=answer.tokens,
        )


CARDS = (
    GuardCard(
        name="embedded",
        family=Embedded,
        languages=("English", "Korean"),
        licence="MIT",
        size="53 MB, in the package",
        note="the default: a small classifier, milliseconds on a CPU",
    ),
)
