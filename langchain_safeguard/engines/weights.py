"""Loading models: safetensors only, no remote code, clear words when it cannot be done."""

from __future__ import annotations

import gc
import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from langchain_safeguard.engines.answering import POSITIONS, ROOM
from langchain_safeguard.engines.causal import CausalEngine
from langchain_safeguard.engines.checkpoint import Checkpoint
from langchain_safeguard.engines.classifier import ClassifierEngine
from langchain_safeguard.engines.next_token import NextToken, PlainNextToken
from langchain_safeguard.engines.tokens import PromptTokenizer, load_tokenizer, wants_code
from langchain_safeguard.engines.tree_next_token import TreeNextToken, agrees, own_attention
from langchain_safeguard.errors import ConfigurationError, GuardLoadError, MissingExtraError

logger = logging.getLogger(__name__)

_TOLERANCE = {torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.05}
_LONGEST = 400
"""How many characters of somebody else's error are quoted."""
_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True, slots=True)
class Loading:
    """What to load and how; equal ones share one engine.

    Attributes:
        folder: The checkpoint.
        base: The model that an adapter adapts, or whose tokenizer a classifier reads with.
        dtype: `"float32"`, `"bfloat16"` or `"float16"`; `None` chooses: what the checkpoint has on
            a GPU; on a CPU float32, where rounding is least and no step is slower, if it fits.
        device_map: As in transformers; `None` means the GPU if there is one.
        quantization: `"4bit"`, `"8bit"` or `None`.
        max_tokens: The most tokens read at once; `None` means 4096 or what the model can.
        cache_bytes: The bytes of keys and values to keep.
    """

    folder: Path
    base: Path | None = None
    dtype: str | None = None
    device_map: str | None = None
    quantization: str | None = None
    max_tokens: int | None = None
    cache_bytes: int = 2 << 30


def language_engine(loading: Loading, name: str) -> CausalEngine:
    """Load a causal language model, with its adapter if it is one.

    Raises:
        GuardLoadError: It cannot be loaded; the message says what to do.
        MissingExtraError: A package is missing for its format.
        ConfigurationError: A value is unknown.
    """
    from transformers import AutoModelForCausalLM

    checkpoint = Checkpoint(loading.base or loading.folder)
    model = _load(AutoModelForCausalLM, checkpoint, loading)
    if loading.base is not None:
        model = _adapted(model, loading)
    model = model.eval()
    tokenizer = _tokenizer(loading)
    on_gpu = model.device.type == "cuda"
    next_token: NextToken
    tree = _tree(model, loading, pass_tokens=8192 if on_gpu else 384)
    if tree is not None:
        next_token = tree
    else:
        logger.warning("%s is read from its first token each time; this is slower", name)
        model.set_attn_implementation(own_attention(model))
        next_token = PlainNextToken(model)
    config = model.config.get_text_config()
    positions = int(getattr(config, "max_position_embeddings", None) or POSITIONS)
    # Llama 4 attends within chunks of positions; inside one chunk nothing of that shows.
    positions = min(positions, int(getattr(config, "attention_chunk_size", None) or positions))
    limit = min(positions, loading.max_tokens or POSITIONS) - ROOM
    return CausalEngine(
        next_token,
        PromptTokenizer(tokenizer),
        limit=limit,
        name=name,
        batch=64 if on_gpu else 8,
    )


def classifier_engine(
    loading: Loading, name: str, *, activation: Any = None, labels: Any = None
) -> ClassifierEngine:
    """Load a sequence classifier.

    Raises:
        GuardLoadError: It cannot be loaded; the message says what to do.
    """
    from transformers import AutoModelForSequenceClassification

    checkpoint = Checkpoint(loading.folder)
    model = _load(AutoModelForSequenceClassification, checkpoint, loading).eval()
    return ClassifierEngine(
        model,
        _tokenizer(loading),
        activation=activation,
        labels=labels,
        limit=loading.max_tokens,
        name=name,
    )


def _load(kind: Any, checkpoint: Checkpoint, loading: Loading) -> Any:
    """Load the weights of a checkpoint, without an adapter."""
    options = _options(checkpoint, loading)
    kinds = ", ".join(checkpoint.config.get("architectures") or ["no architecture"])
    try:
        # A progress bar comes from transformers.
        model, report = kind.from_pretrained(
            checkpoint.folder,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    except ImportError as error:
        raise GuardLoadError(
            f"{checkpoint.folder} needs a package that is not installed: {error}"
        ) from error
    except Exception as error:
        if wants_code(error):
            raise GuardLoadError(
                f"{checkpoint.folder} ({kinds}) comes with code of its own, which is never run; "
                "allowed: models that transformers has code for"
            ) from error
        raise GuardLoadError(
            f"{checkpoint.folder} ({kinds}) cannot be loaded with {kind.__name__}: {_brief(error)}"
        ) from error
    lacking = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if lacking:
        # Transformers fills them with random numbers: a guard that answers, but knows nothing.
        raise GuardLoadError(
            f"{checkpoint.folder} ({kinds}) lacks {len(lacking)} weights that {kind.__name__} "
            f"needs, {lacking[0]} among them"
        )
    return model


def _options(checkpoint: Checkpoint, loading: Loading) -> dict[str, Any]:
    _check_quantized(checkpoint, loading)
    numbers, stored = checkpoint.parameters()
    if str(loading.device_map).startswith("cuda") and not torch.cuda.is_available():
        raise ConfigurationError(
            f"device_map={loading.device_map!r}, but PyTorch sees no GPU; allowed: 'cpu', or leave "
            "it out"
        )
    gpu = torch.cuda.is_available() and loading.device_map != "cpu"
    device_map = loading.device_map or ("auto" if gpu else None)
    free = _free(gpu)
    if numbers * 4 > free * 3 // 4:
        # What nobody uses any more makes room: layers of bitsandbytes, for one, hold themselves.
        gc.collect()
        free = _free(gpu)
    dtype = _dtype(loading.dtype)
    if loading.quantization is not None:
        from transformers import BitsAndBytesConfig

        # It says at each product of each layer that numbers are cast.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        bits = 4 if loading.quantization == "4bit" else 8
        needed = numbers * bits // 8 * 5 // 4
        config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=bits == 4,
            load_in_8bit=bits == 8,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=torch.bfloat16 if gpu else torch.float32,
        )
        options = {"quantization_config": config, "dtype": dtype or torch.bfloat16}
        if not gpu:
            options["dtype"] = dtype or torch.float32
            device_map = device_map or "cpu"
    elif checkpoint.quantized_by is not None:
        needed = stored
        options = {"dtype": dtype or "auto"}
    else:
        if dtype is None and not gpu and numbers * 4 < free * 3 // 4:
            dtype = torch.float32
        needed = stored if dtype is None else numbers * dtype.itemsize
        options = {"dtype": dtype or "auto"}
    if needed > free and loading.device_map in (None, "cpu", "cuda"):
        hint = "" if loading.quantization == "4bit" else "; quantization='4bit' takes less"
        raise GuardLoadError(
            f"{checkpoint.folder} needs {needed / 1e9:.1f} GB for its weights, and "
            f"{free / 1e9:.1f} GB of memory are free{hint}"
        )
    return options if device_map is None else {**options, "device_map": device_map}


def _brief(error: Exception) -> str:
    """Return what an error says; some list every layer of a model."""
    said = str(error)
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]} ..."


def _free(gpu: bool) -> int:
    """Return how many bytes of memory are free."""
    if not gpu:
        return int(psutil.virtual_memory().available)
    # PyTorch keeps what was freed for itself.
    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info()[0])


def _check_quantized(checkpoint: Checkpoint, loading: Loading) -> None:
    method = checkpoint.quantized_by
    if method is not None and loading.quantization is not None:
        raise ConfigurationError(
            f"quantization={loading.quantization!r}, but {checkpoint.folder} is quantised already "
            f"({method}); allowed: None"
        )
    if method == "awq" and importlib.util.find_spec("gptqmodel") is None:
        raise MissingExtraError("gptqmodel", "awq")
    if (loading.quantization or method == "bitsandbytes") and not importlib.util.find_spec(
        "bitsandbytes"
    ):
        raise GuardLoadError("quantization needs bitsandbytes, which this platform has not")


def _dtype(name: str | None) -> torch.dtype | None:
    if name is None:
        return None
    if name not in _DTYPES:
        raise ConfigurationError.unknown("dtype", name, _DTYPES)
    return _DTYPES[name]


def _adapted(model: Any, loading: Loading) -> Any:
    """Put a LoRA adapter into its base model."""
    try:
        from peft import PeftModel, get_peft_model_state_dict
    except ImportError:
        raise MissingExtraError("peft", "peft") from None
    # Else pickles would be read, and what is missing would be made up.
    saved = Checkpoint(loading.folder).weights()
    try:
        adapted = PeftModel.from_pretrained(model, str(loading.folder), use_safetensors=True)
        needed = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    except Exception as error:
        raise GuardLoadError(
            f"the adapter {loading.folder} does not fit {loading.base}: {_brief(error)}; give "
            "base_model=, the model that it was trained on"
        ) from error
    odd = sorted({*needed} ^ {name for name in saved if name in needed or "lora_" in name})
    if odd:
        raise GuardLoadError(
            f"the adapter {loading.folder} does not fit {loading.base}: {len(odd)} weights, such "
            f"as {odd[0]}, are only in one of them; give base_model=, the model that it was "
            "trained on"
        )
    if getattr(model, "is_quantized", False):
        # Merging would round the adapter to the few values of the quantised weights.
        return adapted.get_base_model()
    return adapted.merge_and_unload()


def _tokenizer(loading: Loading) -> Any:
    if loading.base is None or Checkpoint(loading.folder).has_tokenizer:
        return load_tokenizer(loading.folder)
    return load_tokenizer(loading.base)


def _tree(model: Any, loading: Loading, pass_tokens: int) -> TreeNextToken | None:
    """Return a token tree around the model, if that gives what the model's own code gives."""
    dtype = next(model.parameters()).dtype
    tolerance = max(
        _TOLERANCE.get(dtype, 0.05), 0.05 if getattr(model, "is_quantized", False) else 0
    )
    try:
        tree = TreeNextToken(model, budget=loading.cache_bytes, pass_tokens=pass_tokens)
        fits = agrees(model, tree, model.config.get_text_config().vocab_size, tolerance)
    except (AttributeError, ValueError, NotImplementedError, TypeError):
        return None
    return tree if fits else None
