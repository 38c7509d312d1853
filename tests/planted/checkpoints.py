"""Planted guards as checkpoints on disk, in the formats in which the hub has the real ones."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache as once
from pathlib import Path

import torch
from filelock import FileLock

from langchain_safeguard.conversation import Conversation
from tests import tokenizers
from tests.planted.examples import Examples
from tests.planted.recipes import RECIPES, Recipe
from tests.planted.shapes import make_model
from tests.planted.training import Training

_EXAMPLES = 2500
_EXAM = 100
_GOOD, _PASSED = 0.98, 0.95
"""The share of examples answered without a fault: from which training ends, and that must be."""
_ROUNDS = 3
"""How often a guard may train on, for half as long each time."""
_BASE_STEPS, _ADAPTER_STEPS = 400, 200


@once
def checkpoint(name: str) -> Path:
    """Return the folder of a planted guard: config, safetensors in bfloat16, tokenizer."""
    return _made(name, lambda folder: _plant(RECIPES[name], folder))


@once
def adapter(name: str = "safety-llama") -> tuple[Path, Path]:
    """Return the folders of a LoRA adapter that is a guard, and of its base, which is not."""
    folder = _made(f"{name}-adapter", lambda folder: _plant_adapter(RECIPES[name], folder))
    return folder / "adapter", folder / "base"


@once
def awq(name: str = "llama-guard-1") -> Path:
    """Return the folder of a planted guard in 4 bits, laid out as AutoAWQ's GEMM version."""
    from tests.planted.awq import pack

    plain = checkpoint(name)
    return _made(f"{name}-awq", lambda folder: pack(plain, folder))


def _made(name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder of the cache; it is made again whenever what it is made of changes."""
    folder = tokenizers.cache("planted") / f"{name}-{_digest(name)}"
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent) as work:
                made = Path(work) / "made"
                made.mkdir()
                with _alone():
                    make(made)
                made.rename(folder)
    return folder


@contextmanager
def _alone() -> Iterator[None]:
    """Make the same guard whatever went before, and leave no trace in what comes after."""
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    torch.manual_seed(0)
    # Several would wait for each other: the matrices are small.
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)


def _digest(name: str) -> str:
    parts = ["recipes", "examples", "shapes", "training", "checkpoints"]
    parts += ["awq"] if name.endswith("-awq") else []
    here = Path(__file__).parent
    sources = [(here / f"{part}.py").read_text(encoding="utf-8") for part in parts]
    recipe = next(recipe for key, recipe in RECIPES.items() if name.startswith(key))
    talk = Conversation.of("Question").answered("Answer")
    asked = Conversation.of("Question")
    prompts = [
        prompt.text
        for side in recipe.sides
        for prompt in recipe.family().render(asked if side == "input" else talk, side)
    ]
    return hashlib.sha256("\0".join([*sources, *prompts]).encode()).hexdigest()[:12]


def _plant(recipe: Recipe, folder: Path) -> None:
    training, _ = _trained(recipe, recipe.steps)
    _save(recipe, training, folder)


def _plant_adapter(recipe: Recipe, folder: Path) -> None:
    """Train a base that calls everything good, then an adapter that knows better."""
    from peft import LoraConfig, get_peft_model

    training, examples = _trained(recipe, _BASE_STEPS, knows=False)
    _save(recipe, training, folder / "base")
    config = LoraConfig(
        r=8,
        lora_alpha=32,
        target_modules=["q_proj", "v_proj"],
        task_type="CAUSAL_LM",
        base_model_name_or_path="meta-llama/Llama-2-7b-chat-hf",
    )
    adapted = get_peft_model(training.model, config)
    training.teach(examples.make(_EXAMPLES))
    training.train(_ADAPTER_STEPS)
    _examine(training, recipe, _ADAPTER_STEPS)
    adapted.save_pretrained(folder / "adapter")
    path = folder / "adapter" / "adapter_config.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    written["base_model_name_or_path"] = "meta-llama/Llama-2-7b-chat-hf"
    path.write_text(json.dumps(written, indent=2), encoding="utf-8")


def _trained(recipe: Recipe, steps: int, *, knows: bool = True) -> tuple[Training, Examples]:
    raw = tokenizers.tokenizer(recipe.tokenizer)
    examples = Examples(recipe, raw, seed=0, knows=knows)
    training = Training(recipe, examples.make(_EXAMPLES), examples.unmeaning())
    training.train(steps)
    if knows:
        _examine(training, recipe, steps // 2)
    return training, Examples(recipe, raw, seed=0)


def _examine(training: Training, recipe: Recipe, steps: int) -> None:
    """Make sure that it was learned, on conversations that were not trained on."""
    unseen = Examples(recipe, tokenizers.tokenizer(recipe.tokenizer), seed=1).make(4 * _EXAM)
    readable = [each for each in unseen if training.knows(each)][:_EXAM]
    right = training.right(readable)
    for _ in range(_ROUNDS):
        if right >= _GOOD:
            break
        training.train(steps, whole=True)
        right = training.right(readable)
    assert right >= _PASSED, f"a planted guard learned too little: {right:.0%} of its lesson"


def _save(recipe: Recipe, training: Training, folder: Path) -> None:
    """Save a model with the whole vocabulary, of which training had a part."""
    raw = tokenizers.tokenizer(recipe.tokenizer)
    whole = make_model(
        recipe.shape,
        len(raw),
        bos_token_id=raw.bos_token_id,
        eos_token_id=raw.eos_token_id,
        pad_token_id=raw.pad_token_id,
    )
    small = training.model.state_dict()
    full = whole.state_dict()
    for name, weight in full.items():
        if weight.shape == small[name].shape:
            weight.copy_(small[name])
    used = torch.tensor(training.used)
    embedding = whole.get_input_embeddings().weight.data
    embedding[used] = training.model.get_input_embeddings().weight.data
    if not whole.config.tie_word_embeddings:
        # What was never an answer is as unlikely as the words that never are.
        head = training.model.lm_head.weight.data
        whole.lm_head.weight.data[:] = head[training.unmeaning].mean(0)
        whole.lm_head.weight.data[used] = head
    whole.to(torch.bfloat16).save_pretrained(folder)
    if recipe.chat_template is not None:
        raw.chat_template = recipe.chat_template
    raw.save_pretrained(folder)
