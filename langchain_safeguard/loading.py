"""Guards by name or folder. The weights of a checkpoint are loaded once per process."""

from __future__ import annotations

import inspect
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from langchain_safeguard.errors import ConfigurationError, GuardLoadError
from langchain_safeguard.guards import (
    ClassifierFamily,
    Family,
    Guard,
    GuardCard,
    ModelGuard,
    SequenceClassifier,
)
from langchain_safeguard.guards.catalogue import CARDS
from langchain_safeguard.taxonomy import Side

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_EMBEDDED_WEIGHTS = "embedded.safetensors"
_QUANTIZATIONS = ("auto", None, "4bit", "8bit")

T = TypeVar("T")


class _Once:
    """Makes each thing once, whoever asks; different things at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[object, threading.Lock] = {}
        self._made: dict[object, Any] = {}

    def get(self, key: object, make: Callable[[], T]) -> T:
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._made:
                self._made[key] = make()
            made: T = self._made[key]
            return made


_engines = _Once()


def list_guards() -> tuple[GuardCard, ...]:
    """Return what `load_guard` knows by name."""
    return CARDS


def load_guard(
    name: str | Path | Guard = "embedded",
    *,
    family: Family[Any, Any] | str | None = None,
    revision: str | None = None,
    dtype: str | None = None,
    device_map: str | None = None,
    quantization: str | None = "auto",
    base_model: str | Path | None = None,
    max_tokens: int | None = None,
    cache_bytes: int = 2 << 30,
    **options: Any,
) -> Guard:
    """Load a guard. Guards on the same checkpoint, loaded the same way, share its weights.

    Args:
        name: `"embedded"`; a hub id such as `"meta-llama/LlamaGuard-7b"`; a folder with a
            checkpoint in the format of transformers, of peft, or of the embedded guard (such as the
            output of `python -m langchain_safeguard.training`); or a guard, which is returned as
            it is.
        family: How the model is asked and read: a `Family`, or the name of a known guard whose kind
            it is. If left out, it is recognised by its id or by what its folder holds.
        revision: A branch, tag or commit of the hub.
        dtype: `"float32"`, `"bfloat16"` or `"float16"`. If left out: what the checkpoint has on a
            GPU, float32 on a CPU where it fits.
        device_map: As in transformers; the GPU, if there is one, if left out.
        quantization: `"4bit"` or `"8bit"` (bitsandbytes), `None`, or `"auto"`: as the model's card
            loads it.
        base_model: For an adapter: the hub id or folder of the model that it adapts. For a
            classifier without a tokenizer: of the model whose tokenizer it reads with.
        max_tokens: The most tokens that the model reads at once; longer texts are judged in
            windows. At most 4096 if left out.
        cache_bytes: The memory for what the model has read before, in bytes.
        options: Options of the family, such as `categories`, `per_category` or `explain`.

    Raises:
        ConfigurationError: Nothing is known by that name, or a value or option is wrong.
        GuardLoadError: The checkpoint cannot be loaded; the message says what to do.
        MissingExtraError: A package is missing for its format.
    """
    if isinstance(name, Guard):
        return name
    check_name(name)
    for key, text in (("revision", revision), ("dtype", dtype)):
        if text is not None and not isinstance(text, str):
            raise ConfigurationError(f"{key}={text!r}; allowed: a text, or None")
    if quantization not in _QUANTIZATIONS:
        raise ConfigurationError.unknown("quantization", quantization, _QUANTIZATIONS)
    for key, number, least in (("max_tokens", max_tokens, 1), ("cache_bytes", cache_bytes, 0)):
        if number is not None and (type(number) is not int or number < least):
            raise ConfigurationError(f"{key}={number!r}; allowed: a number from {least} on")
    folder = _embedded_folder(name)
    if name == "embedded" or folder is not None:
        if family is not None or options:
            wrong = ", ".join([*options] or ["family"])
            raise ConfigurationError(f"the embedded guard has no option {wrong}")
        return _engines.get(("embedded", folder), lambda: _embedded(folder))
    known = _known(name, family)
    local = _folder(name, revision)
    # Imported late, as everything that needs torch.
    from langchain_safeguard.engines.checkpoint import Checkpoint
    from langchain_safeguard.engines.weights import Loading

    checkpoint = Checkpoint(local)
    if not isinstance(family, Family):
        known = known or _recognised(checkpoint)
        if known is None:
            raise ConfigurationError(
                f"{str(name)!r} is no guard that is known, by its id or by its chat template; give "
                f"family=, a Family or one of {_known_names()}"
            )
        family = _family(known, checkpoint, options)
    elif options:
        raise ConfigurationError(f"give the options {', '.join(options)} to the Family itself")
    chosen = (known.quantization if known else None) if quantization == "auto" else quantization
    loading = Loading(
        folder=local,
        base=_base(checkpoint, known, base_model),
        dtype=dtype,
        device_map=device_map,
        quantization=None if checkpoint.quantized_by else chosen,
        max_tokens=max_tokens,
        cache_bytes=cache_bytes,
    )
    if checkpoint.quantized_by and quantization in ("4bit", "8bit"):
        raise ConfigurationError(
            f"quantization={quantization!r}, but {local} is quantised already "
            f"({checkpoint.quantized_by}); allowed: None"
        )
    title = str(name) if _HUB_ID.fullmatch(str(name)) else Path(name).name
    # Snapshots of the hub do not change; a folder may, and so may what options refer to.
    fixed = checkpoint.revision and (loading.base is None or Checkpoint(loading.base).revision)
    return _model_guard(
        family,
        loading,
        title,
        revision or checkpoint.revision,
        f"{known.name} {loading}" if known and fixed and not options else None,
    )


def fetch(name: str, revision: str | None = None) -> list[Path]:
    """Fetch a checkpoint from the hub and, if it is an adapter, its base model; return the folders.

    Raises:
        ConfigurationError: The name is no hub id.
        GuardError: It cannot be fetched; the message says what to do.
    """
    from langchain_safeguard.engines.checkpoint import Checkpoint
    from langchain_safeguard.engines.hub import download

    if not _HUB_ID.fullmatch(name):
        raise ConfigurationError(f"{name!r} is no hub id; allowed: 'owner/model'")
    folders = [download(name, revision)]
    base = Checkpoint(folders[0]).adapter.get("base_model_name_or_path")
    if base is not None and _HUB_ID.fullmatch(base):
        folders.append(download(base))
    return folders


def check_name(name: object) -> None:
    """Make sure that `load_guard` could know something by that name, without loading it.

    Raises:
        ConfigurationError: It could not.
    """
    if isinstance(name, Guard):
        return
    if not isinstance(name, str | Path):
        raise ConfigurationError(
            f"guard={name!r}; allowed: a Guard, a folder, a hub id, or one of {_known_names()}"
        )
    if name == "embedded" or Path(name).is_dir() or _HUB_ID.fullmatch(str(name)):
        return
    raise ConfigurationError(
        f"unknown guard {str(name)!r}: neither a folder, nor a hub id such as 'owner/model', nor "
        f"one of {_known_names()}"
    )


def judges(name: str | Path | Guard, side: Side) -> bool:
    """Tell whether a guard can judge a side, as far as that is known before it is loaded."""
    if isinstance(name, Guard):
        return side in name.sides
    card = _known(name, None)
    return card is None or side in card.sides


def _embedded(folder: Path | None) -> Guard:
    # Imported here because torch takes seconds.
    from langchain_safeguard.engines.embedded import EmbeddedEngine
    from langchain_safeguard.guards.embedded import Embedded

    engine = EmbeddedEngine(folder)
    family = Embedded(engine.labels)
    return ModelGuard(engine, family, revision=engine.revision, fingerprint=family.name)


def _embedded_folder(name: str | Path) -> Path | None:
    folder = Path(name)
    is_embedded = name != "embedded" and (folder / _EMBEDDED_WEIGHTS).is_file()
    return folder.resolve() if is_embedded else None


def _known(name: str | Path, family: Family[Any, Any] | str | None) -> GuardCard | None:
    """Find the card by the given kind, or by the last part of the id or folder."""
    if isinstance(family, Family):
        return None
    wanted = str(family) if family is not None else str(name)
    for card in CARDS:
        if card.name.lower() == wanted.lower():
            return card
    if family is not None:
        raise ConfigurationError(
            f"family={family!r}; allowed: a Family, or one of {_known_names()}"
        )
    last = Path(wanted).name.lower()
    for card in CARDS:
        if card.name.rpartition("/")[2].lower() == last:
            return card
    return None


def _recognised(checkpoint: Any) -> GuardCard | None:
    """Find the card by what a folder holds."""
    for card in CARDS:
        if card.classifier:
            # Their order does not matter: the names come with the scores.
            if card.labels and {*card.labels} == {*checkpoint.labels}:
                return card
        elif card.signs and all(sign in (checkpoint.template or "") for sign in card.signs):
            return card
    return None


def _family(card: GuardCard, checkpoint: Any, options: Mapping[str, Any]) -> Family[Any, Any]:
    given = {**card.options, **options}
    allowed = inspect.signature(card.family).parameters
    for option in options:
        if option not in allowed:
            raise ConfigurationError.unknown(f"option of guard {card.name!r}:", option, allowed)
    if not card.classifier and checkpoint.template is not None:
        given.setdefault("template", checkpoint.template)
    return card.family(**given)


def _folder(name: str | Path, revision: str | None = None, *, weights: bool = True) -> Path:
    folder = Path(name)
    if folder.is_dir():
        if not any((folder / each).is_file() for each in ("config.json", "adapter_config.json")):
            raise GuardLoadError(
                f"{folder} holds no checkpoint: there is neither a config.json, nor an "
                f"adapter_config.json, nor a {_EMBEDDED_WEIGHTS}"
            )
        return folder.resolve()
    from langchain_safeguard.engines.hub import download

    return download(str(name), revision, weights=weights)


def _base(checkpoint: Any, card: GuardCard | None, given: str | Path | None) -> Path | None:
    """Return the folder of what a checkpoint needs besides itself.

    That is the model an adapter adapts, or the model whose tokenizer a classifier reads with.
    """
    tokenizer_only = checkpoint.is_classifier and not checkpoint.has_tokenizer
    if not checkpoint.adapter and not tokenizer_only:
        if given is not None:
            raise ConfigurationError(
                f"base_model={str(given)!r}, but {checkpoint.folder} is complete: it is no adapter"
            )
        return None
    base = given or checkpoint.adapter.get("base_model_name_or_path")
    base = base or (card.base_model if card else None)
    if base is None:
        lack = "has no tokenizer" if tokenizer_only else "is an adapter"
        raise ConfigurationError(f"{checkpoint.folder} {lack}; give base_model=")
    if not Path(base).is_dir() and not _HUB_ID.fullmatch(str(base)):
        raise ConfigurationError(
            f"base_model={str(base)!r} is neither a folder nor a hub id; give base_model="
        )
    return _folder(base, weights=not tokenizer_only)


def _model_guard(
    family: Family[Any, Any],
    loading: Any,
    title: str,
    revision: str | None,
    fingerprint: str | None,
) -> Guard:
    from langchain_safeguard.engines.weights import classifier_engine, language_engine

    if isinstance(family, ClassifierFamily):
        activation, labels = getattr(family, "activation", None), getattr(family, "labels", None)
        key = (loading, activation, labels)
        classifier = _engines.get(
            key,
            lambda: classifier_engine(loading, title, activation=activation, labels=labels),
        )
        if isinstance(family, SequenceClassifier):
            family.check_labels(classifier.labels, exclusive=classifier.activation == "softmax")
        return ModelGuard(
            classifier, family, name=title, revision=revision, fingerprint=fingerprint
        )
    engine = _engines.get(loading, lambda: language_engine(loading, title))
    guard = ModelGuard(engine, family, name=title, revision=revision, fingerprint=fingerprint)
    guard.probe()
    return guard


def _known_names() -> str:
    return ", ".join(repr(card.name) for card in CARDS)
