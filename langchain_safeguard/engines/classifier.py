"""Runs a sequence classifier of transformers: texts in, a probability per label out."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch

from langchain_safeguard.engines.base import Engine, Stretch, TextInput, TextScores
from langchain_safeguard.engines.memory import out_of_memory
from langchain_safeguard.engines.text_windows import TokenWindow, WindowTokenizer
from langchain_safeguard.errors import (
    ConfigurationError,
    GuardError,
    GuardLoadError,
    GuardOutputError,
)

logger = logging.getLogger(__name__)

Activation = Literal["softmax", "sigmoid"]

_WINDOW = 512
"""The most tokens read at once, unless asked for more: classifiers are trained on that."""
_NAMELESS = re.compile(r"LABEL_\d+")
_PASS_TOKENS = {"cpu": 4096}
_PASS_TOKENS_ON_GPU = 32768


class ClassifierEngine(Engine[TextInput, TextScores]):
    """An engine around a sequence classifier: one text, one label or several.

    A text too long for the model is judged in windows that overlap by a quarter. The context of a
    text is not read: these models judge a text by itself.

    Args:
        model: A model of `AutoModelForSequenceClassification`, on whatever device and of whatever
            dtype; probabilities are worked out in float32.
        tokenizer: Its tokenizer, a fast one.
        activation: `"softmax"` where labels exclude each other, `"sigmoid"` where several can hold.
            If left out, the model's config decides (`problem_type`), and where it says nothing,
            softmax for two labels or more.
        labels: The names of the model's outputs, in their order, where its config has none but
            `LABEL_0` and so on; otherwise those of the config count.
        limit: The most tokens in a window, control tokens included; what the model can read, but
            no more than 512, if left out.
        name: What its worker thread is called.
        pass_tokens: The most tokens in one forward pass, padding included; fewer when memory runs
            out. 4096 on a CPU and 32768 on a GPU if left out.

    Attributes:
        labels: The names of the outputs.
        activation: The one that is used.
        window: The most tokens in a window.

    Raises:
        ConfigurationError: A value does not fit the model.
        GuardLoadError: The model's config contradicts itself.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        activation: Activation | None = None,
        labels: Sequence[str] | None = None,
        limit: int | None = None,
        name: str = "classifier",
        pass_tokens: int | None = None,
    ) -> None:
        """Check that everything fits together."""
        super().__init__()
        self.name = name
        self._model = model.eval()
        self._device = model.get_input_embeddings().weight.device
        self.labels = _labels(model.config, labels)
        self.activation = _activation(model.config, activation, len(self.labels))
        self.window = _window(model, tokenizer, limit)
        self._tokenizer = WindowTokenizer(tokenizer, self.window)
        self._pad = _pad(model.config.get_text_config(), tokenizer)
        default = _PASS_TOKENS.get(self._device.type, _PASS_TOKENS_ON_GPU)
        self._most = pass_tokens or default

    @torch.inference_mode()
    def run(self, questions: Sequence[TextInput]) -> list[TextScores]:
        """Judge every window of every text, windows of like length together."""
        cut = self._tokenizer.cut([question.text for question in questions])
        rows = [window for windows in cut for window in windows]
        scores = iter(self._scores(rows).tolist())
        return [self._answer(windows, [next(scores) for _ in windows]) for windows in cut]

    def _answer(
        self, windows: Sequence[TokenWindow], scores: Sequence[Sequence[float]]
    ) -> TextScores:
        highest = [max(column) for column in zip(*scores, strict=True)]
        stretches = tuple(
            Stretch(window.start, window.end, dict(zip(self.labels, row, strict=True)))
            for window, row in zip(windows, scores, strict=True)
        )
        return TextScores(
            dict(zip(self.labels, highest, strict=True)),
            tokens=sum(len(window.ids) for window in windows),
            stretches=stretches if len(stretches) > 1 else (),
            exclusive=self.activation == "softmax",
        )

    def _scores(self, rows: Sequence[TokenWindow]) -> torch.Tensor:
        """Return a probability per row and label."""
        logits = torch.empty(len(rows), len(self.labels))
        left = sorted(range(len(rows)), key=lambda place: -len(rows[place].ids))
        while left:
            batch = left[: self._fitting([len(rows[place].ids) for place in left])]
            try:
                logits[batch] = self._forward([rows[place].ids for place in batch])
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                self._spare(len(batch), len(rows[batch[0]].ids), error)
            else:
                left = left[len(batch) :]
        if not bool(logits.isfinite().all()):
            # Not a number is neither above nor below any threshold.
            raise GuardOutputError("the model gave a number that is not finite")
        return logits.softmax(1) if self.activation == "softmax" else logits.sigmoid()

    def _fitting(self, lengths: Sequence[int]) -> int:
        """Return how many rows, the longest first, go into one pass with little padding."""
        longest = lengths[0]
        most = max(self._most // longest, 1)
        # A row much shorter than the longest costs more as padding than in a pass of its own.
        shortest = longest - longest // 4 - 8
        count = 1
        while count < min(most, len(lengths)) and lengths[count] >= shortest:
            count += 1
        return count

    def _forward(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), self._pad)
        mask = torch.zeros(len(rows), longest, dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row)
            mask[place, : len(row)] = 1
        found: torch.Tensor = self._model(
            input_ids=ids.to(self._device, non_blocking=True),
            attention_mask=mask.to(self._device, non_blocking=True),
        ).logits
        return found.float().cpu()

    def _spare(self, rows: int, tokens: int, error: Exception) -> None:
        """Make do with less memory after it ran out."""
        if rows == 1:
            raise GuardError(f"memory ran out on {tokens} tokens at once") from error
        self._most = rows // 2 * tokens
        logger.warning("memory ran out; forward passes have at most %d tokens now", self._most)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _labels(config: Any, fallback: Sequence[str] | None) -> tuple[str, ...]:
    names = tuple(str(config.id2label[place]) for place in sorted(config.id2label))
    if all(map(_NAMELESS.fullmatch, names)) and fallback is not None:
        if len(fallback) != len(names):
            raise ConfigurationError(
                f"labels={list(fallback)} are {len(fallback)}, but the model has {len(names)} "
                "outputs"
            )
        names = tuple(fallback)
    if len(set(names)) < len(names):
        raise GuardLoadError(f"two outputs of the model have the same name: {', '.join(names)}")
    return names


def _activation(config: Any, given: str | None, outputs: int) -> Activation:
    problem = getattr(config, "problem_type", None)
    if given is None and problem == "regression":
        raise ConfigurationError("the model's outputs are no probabilities; give activation=")
    if given is None:
        several = problem == "multi_label_classification" or outputs == 1
        return "sigmoid" if several else "softmax"
    for activation in get_args(Activation):
        if activation == given:
            if activation == "softmax" and outputs == 1:
                raise ConfigurationError("activation='softmax', but the model has one output only")
            found: Activation = activation
            return found
    raise ConfigurationError.unknown("activation", given, get_args(Activation))


def _window(model: Any, tokenizer: Any, given: int | None) -> int:
    config = model.config.get_text_config()
    most = int(getattr(config, "max_position_embeddings", None) or _WINDOW)
    for name, module in model.named_modules():
        padding = getattr(module, "padding_idx", None)
        if name.endswith("position_embeddings") and padding is not None:
            # RoBERTa counts positions from the one after that of padding.
            most -= padding + 1
    if given is None:
        return min(most, int(tokenizer.model_max_length), _WINDOW)
    if given > most:
        raise ConfigurationError(f"limit={given}, but the model reads at most {most} tokens")
    return given


def _pad(config: Any, tokenizer: Any) -> int:
    """Return the token for padding; decoders look for the last one that is not it."""
    own = getattr(config, "pad_token_id", None)
    for token in (own, tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None and 0 <= token < config.vocab_size:
            config.pad_token_id = token
            return int(token)
    raise GuardLoadError("neither the model nor its tokenizer has a token for padding")
