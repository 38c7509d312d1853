"""The guard that ships inside the package: a small classifier of this project's own."""

from __future__ import annotations

from pathlib import Path

from langchain_safeguard.conversation import Conversation
from langchain_safeguard.engines import Completion, Prompt
from langchain_safeguard.engines.embedded import EmbeddedEngine
from langchain_safeguard.guards.base import ModelGuard
from langchain_safeguard.taxonomy import Category, Side
from langchain_safeguard.verdict import Finding, Verdict


class EmbeddedGuard(ModelGuard):
    """Judges English and Korean prompts, answers and documents on the CPU, without a download.

    Prompts are judged by themselves, answers in the context of what was asked. What it was trained
    on and how well it does stands in `embedded/weights/ATTRIBUTIONS.md` and in the README.

    Args:
        folder: A checkpoint of it; `None` means the one in the package.

    Raises:
        GuardLoadError: The checkpoint is missing or damaged.
    """

    name = "embedded"

    def __init__(self, folder: Path | None = None) -> None:
        """Load the weights."""
        engine = EmbeddedEngine(folder)
        self.revision = engine.revision
        self.categories = frozenset(map(Category.of, engine.labels))
        super().__init__(engine)

    def render(self, conversation: Conversation, side: Side) -> Prompt:
        """Hand over the checked text; for an answer also what was said before it."""
        context = None
        if side == "output":
            said = (t.text for t in conversation.context(side) if t.role in ("user", "assistant"))
            context = "\n".join(said) or None
        return Prompt(conversation.checked(side).text, context, side)

    def read(self, completion: Completion) -> Verdict:
        """Read one probability per category; the overall score is the highest."""
        findings = [Finding(Category.of(name), s) for name, s in completion.scores.items()]
        findings.sort(key=lambda finding: -(finding.score or 0.0))
        return Verdict(
            guard=self.name,
            revision=self.revision,
            findings=tuple(findings),
            score=max(completion.scores.values()),
            spans=completion.spans,
            tokens=completion.tokens,
        )
