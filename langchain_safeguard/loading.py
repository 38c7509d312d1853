"""Guards by name or folder. The weights of a checkpoint are loaded once per process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from langchain_safeguard.engines.remote.loading import remote_engine
from langchain_safeguard.engines.remote.servers import Servers, remote_options, servers
from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.folders import (
    base_folder,
    checkpoint_folder,
    embedded_folder,
    is_hub_id,
)
from langchain_safeguard.guards import (
    ClassifierFamily,
    Family,
    Guard,
    GuardCard,
    ModelGuard,
    SequenceClassifier,
)
from langchain_safeguard.guards.catalogue import CARDS
from langchain_safeguard.guards.recognition import (
    family_of,
    known_card,
    known_names,
    recognised_card,
)
from langchain_safeguard.once import Once
from langchain_safeguard.taxonomy import Side

if TYPE_CHECKING:
    from langchain_safeguard.engines.checkpoint import Checkpoint

_QUANTIZATIONS = ("auto", None, "4bit", "8bit")

_engines = Once({})
"""What takes little: servers' engines, and the guard in the package."""
_weights = Once(WeakValueDictionary())
"""Models, whose memory comes back when no guard uses them any more."""


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
    engine: str = "local",
    base_url: str | Sequence[str] | None = None,
    served_model: str | None = None,
    api_key: Any = None,
    timeout: float | None = None,
    failover_after: float | None = None,
    max_concurrency: int | None = None,
    **options: Any,
) -> Guard:
    """Load a guard. Guards on the same checkpoint, loaded the same way, share its weights.

    Weights, and what the model has read, are kept as long as a guard on them is held; those that
    were asked for last, until others are loaded. Then their memory comes back.

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
        device_map: A text as transformers takes it, such as `"cpu"` or `"auto"`; the GPU, if there
            is one, if left out.
        quantization: `"4bit"` or `"8bit"` (bitsandbytes), `None`, or `"auto"`: as the model's card
            loads it.
        base_model: For an adapter: the hub id or folder of the model that it adapts. For a
            classifier without a tokenizer: of the model whose tokenizer it reads with.
        max_tokens: The most tokens that the model reads at once; longer texts are judged in
            windows. At most 4096 if left out.
        cache_bytes: The memory for what the model has read before, in bytes.
        engine: `"local"`, or `"openai"`: servers that speak OpenAI's completions protocol (vLLM,
            SGLang, llama.cpp) run the model; only its tokenizer and template are needed here.
        base_url: Where the API of the servers begins, such as `"http://gpu-1:8000/v1"`; several
            servers share the work, and stand in for each other.
        served_model: What the servers call the model; `name` if left out.
        api_key: The key the servers ask for, a text or a pydantic `SecretStr`.
        timeout: The most seconds for a question to the servers, all attempts together; 60 if left
            out. That of a `Safeguard` holds as well.
        failover_after: After how many seconds another server is asked; 10 if left out, and at most
            half of `timeout`.
        max_concurrency: The most requests under way at one server; 32 if left out.
        options: Options of the family, such as `categories`, `per_category` or `explain`.

    Raises:
        ConfigurationError: Nothing is known by that name, or a value or option is wrong.
        GuardLoadError: The checkpoint cannot be loaded, or a server does not run it as it must; the
            message says what to do.
        GuardConnectionError: No server can be reached.
        MissingExtraError: A package is missing for its format, or for servers.
    """
    if isinstance(name, Guard):
        return name
    check_name(name)
    for key, text in (("revision", revision), ("dtype", dtype), ("device_map", device_map)):
        if text is not None and not isinstance(text, str):
            raise ConfigurationError(f"{key}={text!r}; allowed: a text, or None")
    remote = remote_options(
        engine,
        base_url=base_url,
        served_model=served_model,
        api_key=api_key,
        timeout=timeout,
        failover_after=failover_after,
        max_concurrency=max_concurrency,
    )
    if quantization not in _QUANTIZATIONS:
        raise ConfigurationError.unknown("quantization", quantization, _QUANTIZATIONS)
    for key, number, least in (("max_tokens", max_tokens, 1), ("cache_bytes", cache_bytes, 0)):
        if number is not None and (type(number) is not int or number < least):
            raise ConfigurationError(f"{key}={number!r}; allowed: a number from {least} on")
    folder = embedded_folder(name)
    if name == "embedded" or folder is not None:
        if family is not None or options or remote:
            wrong = ", ".join([*options, *remote] or ["family"])
            raise ConfigurationError(f"the embedded guard has no option {wrong}")
        embedded = _engines if folder is None else _weights
        return embedded.get(("embedded", folder), lambda: _embedded(folder))
    if not remote:
        return _local_guard(
            name,
            family,
            options,
            revision=revision,
            base_model=base_model,
            dtype=dtype,
            device_map=device_map,
            quantization=quantization,
            max_tokens=max_tokens,
            cache_bytes=cache_bytes,
        )
    given = {"dtype": dtype, "device_map": device_map}
    given |= {"quantization": None if quantization == "auto" else quantization}
    if unused := [key for key, value in given.items() if value is not None]:
        raise ConfigurationError(f"{', '.join(unused)}: up to the servers with engine='openai'")
    asked = servers(model=_title(name), **remote)
    return _remote_guard(
        name,
        family,
        options,
        asked,
        revision=revision,
        base_model=base_model,
        max_tokens=max_tokens,
    )


def check_name(name: object) -> None:
    """Make sure that `load_guard` could know something by that name, without loading it.

    Raises:
        ConfigurationError: It could not.
    """
    if isinstance(name, Guard):
        return
    if not isinstance(name, str | Path):
        raise ConfigurationError(
            f"guard={name!r}; allowed: a Guard, a folder, a hub id, or one of {known_names()}"
        )
    if name == "embedded" or (name != "" and Path(name).is_dir()) or is_hub_id(name):
        return
    raise ConfigurationError(
        f"unknown guard {str(name)!r}: neither a folder, nor a hub id such as 'owner/model', nor "
        f"one of {known_names()}"
    )


def judges(name: str | Path | Guard, side: Side) -> bool:
    """Tell whether a guard can judge a side, as far as that is known before it is loaded."""
    if isinstance(name, Guard):
        return side in name.sides
    card = known_card(name, None)
    return card is None or side in card.sides


def _embedded(folder: Path | None) -> Guard:
    # Imported here because torch takes seconds.
    from langchain_safeguard.engines.embedded import EmbeddedEngine
    from langchain_safeguard.guards.embedded import Embedded

    engine = EmbeddedEngine(folder)
    family = Embedded(engine.labels)
    return ModelGuard(engine, family, revision=engine.revision, fingerprint=family.name)


def _local_guard(
    name: str | Path,
    family: Family[Any, Any] | str | None,
    options: Mapping[str, Any],
    *,
    revision: str | None,
    base_model: str | Path | None,
    quantization: str | None,
    **how: Any,
) -> Guard:
    """Load a guard whose model runs here."""
    # Imported late, as everything that needs torch.
    from langchain_safeguard.engines.checkpoint import Checkpoint
    from langchain_safeguard.engines.weights import Loading

    known = known_card(name, family)
    checkpoint = Checkpoint(checkpoint_folder(name, revision))
    family, known = _recognised(name, family, options, known, checkpoint)
    chosen = (known.quantization if known else None) if quantization == "auto" else quantization
    loading = Loading(
        folder=checkpoint.folder,
        base=base_folder(checkpoint, base_model, known.base_model if known else None),
        quantization=None if checkpoint.quantized_by else chosen,
        **how,
    )
    if checkpoint.quantized_by and quantization in ("4bit", "8bit"):
        raise ConfigurationError(
            f"quantization={quantization!r}, but {checkpoint.folder} is quantised already "
            f"({checkpoint.quantized_by}); allowed: None"
        )
    # Snapshots of the hub do not change; a folder may, and so may what options refer to.
    fixed = checkpoint.revision and (loading.base is None or Checkpoint(loading.base).revision)
    return _model_guard(
        family,
        loading,
        _title(name),
        revision or checkpoint.revision,
        f"{known.name} {loading}" if known and fixed and not options else None,
    )


def _remote_guard(
    name: str | Path,
    family: Family[Any, Any] | str | None,
    options: Mapping[str, Any],
    asked: Servers,
    *,
    revision: str | None,
    base_model: str | Path | None,
    max_tokens: int | None,
) -> Guard:
    """Load a guard whose model runs on servers; its weights are not needed here."""
    known = known_card(name, family)
    if isinstance(family, ClassifierFamily) or (known is not None and known.classifier):
        # Known before anything is fetched.
        raise _classifier(name)
    from langchain_safeguard.engines.checkpoint import Checkpoint

    checkpoint = Checkpoint(checkpoint_folder(name, revision, weights=False))
    family, known = _recognised(name, family, options, known, checkpoint)
    if isinstance(family, ClassifierFamily) or checkpoint.is_classifier:
        raise _classifier(name)
    source = checkpoint.folder
    if not checkpoint.has_tokenizer:
        usual = known.base_model if known else None
        source = base_folder(checkpoint, base_model, usual, weights=False) or source
    engine = _engines.get(
        (asked, checkpoint.folder, source, max_tokens),
        lambda: remote_engine(asked, checkpoint, source, max_tokens, _title(name)),
    )
    # Without a fingerprint: what the servers run may change.
    return _probed(ModelGuard(engine, family, name=_title(name)))


def _recognised(
    name: str | Path,
    family: Family[Any, Any] | str | None,
    options: Mapping[str, Any],
    known: GuardCard | None,
    checkpoint: Checkpoint,
) -> tuple[Family[Any, Any], GuardCard | None]:
    """Return how a model is asked and read, and its card if it is a guard that is known."""
    if isinstance(family, Family):
        if options:
            raise ConfigurationError(f"give the options {', '.join(options)} to the Family itself")
        return family, known
    known = known or recognised_card(checkpoint)
    if known is None:
        raise ConfigurationError(
            f"{str(name)!r} is no guard that is known, by its id or by its chat template; give "
            f"family=, a Family or one of {known_names()}"
        )
    return family_of(known, checkpoint, options), known


def _title(name: str | Path) -> str:
    return str(name) if is_hub_id(name) else Path(name).name


def _model_guard(
    family: Family[Any, Any],
    loading: Any,
    title: str,
    revision: str | None,
    fingerprint: str | None,
) -> Guard:
    from langchain_safeguard.engines.weights import classifier_engine, language_engine

    named = {"name": title, "revision": revision, "fingerprint": fingerprint}
    if isinstance(family, ClassifierFamily):
        activation, labels = getattr(family, "activation", None), getattr(family, "labels", None)
        key = (loading, activation, labels)
        classifier = _weights.get(
            key,
            lambda: classifier_engine(loading, title, activation=activation, labels=labels),
        )
        if isinstance(family, SequenceClassifier):
            family.check_labels(classifier.labels, exclusive=classifier.activation == "softmax")
        return ModelGuard(classifier, family, **named)
    engine = _weights.get(loading, lambda: language_engine(loading, title))
    return _probed(ModelGuard(engine, family, **named))


def _classifier(name: str | Path) -> ConfigurationError:
    return ConfigurationError(
        f"engine='openai', but {str(name)!r} is a sequence classifier, which completions do not "
        "serve; allowed: 'local'"
    )


def _probed(guard: ModelGuard[Any, Any]) -> Guard:
    guard.probe()
    return guard
