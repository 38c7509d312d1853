"""Tiny sequence classifiers of real architectures, trained in seconds to know two words."""

from __future__ import annotations

import hashlib
import random
import string
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    DebertaV2Config,
    PreTrainedTokenizerFast,
    Qwen2Config,
    RobertaConfig,
)
from transformers import __version__ as transformers_version

from tests import tokenizers

KINDS = ("bert", "roberta", "deberta", "qwen2")
POSITIONS = 64
"""The tokens that a model reads at once, control tokens included."""
_WORDS = (
    "the bread needs flour water salt and time a baker wakes early to fold it again while rain "
    "falls on the small town by the sea where ships come in with grain , oil . figs ? wine ! "
    "안녕 세상 빵 바다 오늘 아침 é ü ß 😀 🍞 123 2026 [ ] < > | sep cls pad s unk endoftext"
)
FILLER = _WORDS.split()
JAILBREAK, INJECTION = "pretend", "override"
"""The words that make a text a jailbreak, and an injection, to these models."""
LABELS = ("BENIGN", "INJECTION", "JAILBREAK")


@cache
def folder(kind: str, *, several: bool = False) -> Path:
    """Return a checkpoint as the hub has them: config, safetensors, tokenizer.

    Args:
        kind: One of `KINDS`.
        several: Whether several labels can hold at once; then the first, `BENIGN`, stands for an
            attack of either kind.
    """
    made_by = [Path(__file__).read_text(encoding="utf-8"), torch.__version__, transformers_version]
    digest = hashlib.sha256("".join(made_by).encode()).hexdigest()[:12]
    made = tokenizers.cache("classifiers") / f"{kind}-{several:d}-{digest}"
    with FileLock(f"{made}.lock"):
        if not made.is_dir():
            with tempfile.TemporaryDirectory(dir=made.parent) as work:
                _make(kind, Path(work) / "made", several)
                (Path(work) / "made").rename(made)
    return made


def load(kind: str, *, several: bool = False) -> tuple[Any, Any]:
    """Load a model of its own, and its tokenizer."""
    checkpoint = folder(kind, several=several)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint)
    return model, AutoTokenizer.from_pretrained(checkpoint)


def _make(kind: str, made: Path, several: bool) -> None:
    tokenizer = _tokenizer(kind)
    config = _config(kind, tokenizer)
    config.id2label = dict(enumerate(LABELS))
    config.label2id = {label: place for place, label in enumerate(LABELS)}
    problem = "multi_label_classification" if several else "single_label_classification"
    config.problem_type = problem
    threads = torch.get_num_threads()
    # In models this small threads only wait for each other.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    # The decoder has to carry the word from wherever it stands to its last token.
    _train(model, tokenizer, several, steps=500 if kind == "qwen2" else 350)
    torch.set_num_threads(threads)
    model.eval().save_pretrained(made)
    tokenizer.save_pretrained(made)


def _tokenizer(kind: str) -> Any:
    begin, end, pad, unknown = {
        "bert": ("[CLS]", "[SEP]", "[PAD]", "[UNK]"),
        "roberta": ("<s>", "</s>", "<pad>", "<unk>"),
        "deberta": ("[CLS]", "[SEP]", "[PAD]", "[UNK]"),
        "qwen2": (None, "<|endoftext|>", None, None),
    }[kind]
    special = [token for token in (begin, pad, end, unknown) if token]
    trainer: Any = None
    if kind == "bert":
        whole = Tokenizer(models.WordPiece(unk_token=unknown))
        whole.normalizer = normalizers.BertNormalizer()
        whole.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        whole.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(vocab_size=600, special_tokens=special)
    elif kind == "deberta":
        words = [f"\u2581{word}" for word in (*FILLER, JAILBREAK, INJECTION)]
        letters = {"\u2581", *string.ascii_letters, *string.punctuation, *"".join(words)}
        pieces = [(token, 0.0) for token in special]
        pieces += [(piece, -1.0 - 9.0 * (len(piece) == 1)) for piece in sorted({*words, *letters})]
        whole = Tokenizer(models.Unigram(pieces, unk_id=special.index("[UNK]")))
        whole.pre_tokenizer = pre_tokenizers.Metaspace()
        whole.decoder = decoders.Metaspace()
    else:
        whole = Tokenizer(models.BPE())
        whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        whole.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=700,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    if trainer is not None:
        rng = random.Random(1)
        words = [*FILLER, JAILBREAK, INJECTION]
        texts = (" ".join(rng.choices(words, k=20)) for _ in range(500))
        whole.train_from_iterator(texts, trainer=trainer)
    if begin:
        whole.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A {end}",
            pair=f"{begin} $A {end} $B:1 {end}:1",
            special_tokens=[(token, whole.token_to_id(token)) for token in (begin, end)],
        )
    # Checkpoints often come with a tokenizer that cuts texts off.
    whole.enable_truncation(POSITIONS)
    names = (
        {"cls_token": begin, "sep_token": end, "pad_token": pad, "unk_token": unknown}
        if begin
        else {"eos_token": end}
    )
    return PreTrainedTokenizerFast(tokenizer_object=whole, model_max_length=POSITIONS, **names)


def _config(kind: str, tokenizer: Any) -> Any:
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": tokenizer.pad_token_id,
        # So narrow a model learns nothing from the usual small beginnings.
        "initializer_range": 0.15,
    }
    if kind == "bert":
        return BertConfig(max_position_embeddings=POSITIONS, **shape)
    if kind == "roberta":
        return RobertaConfig(
            max_position_embeddings=POSITIONS + tokenizer.pad_token_id + 1,
            type_vocab_size=1,
            **shape,
        )
    if kind == "deberta":
        return DebertaV2Config(
            max_position_embeddings=POSITIONS,
            type_vocab_size=0,
            relative_attention=True,
            position_buckets=16,
            max_relative_positions=-1,
            pos_att_type=["p2c", "c2p"],
            position_biased_input=False,
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            **shape,
        )
    return Qwen2Config(max_position_embeddings=4 * POSITIONS, num_key_value_heads=2, **shape)


def _train(model: Any, tokenizer: Any, several: bool, steps: int) -> None:
    """Teach it: an injection or a jailbreak, or neither, wherever the word stands."""
    rng = random.Random(2)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    model.config.pad_token_id = pad
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        kinds = [rng.randrange(3) for _ in range(32)]
        # Short texts first: where the word stands is easily found there.
        most = 4 + (POSITIONS - 4) * 4 * step // (3 * steps)
        rows = [_ids(tokenizer, rng, kind, min(most, POSITIONS)) or [pad] for kind in kinds]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        targets: torch.Tensor = torch.tensor(kinds)
        if several:
            hot = torch.nn.functional.one_hot(targets, 3).float()
            hot[:, 0] = (targets > 0).float()
            targets = hot
        loss = model(input_ids=ids, attention_mask=mask, labels=targets).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _ids(tokenizer: Any, rng: random.Random, kind: int, most: int) -> list[int]:
    """Return the tokens of a text with an injection (1), a jailbreak (2), or neither."""
    few = rng.sample(FILLER, rng.choice((1, 2, 4, 8, len(FILLER))))
    words = rng.choices(few, k=rng.randint(0, most))
    while True:
        said = [*words]
        if kind:
            said.insert(rng.randint(0, len(said)), (INJECTION, JAILBREAK)[kind - 1])
        text = (" " if rng.random() < 0.5 else "") + " ".join(said)
        ids: list[int] = tokenizer(text, truncation=False, verbose=False)["input_ids"]
        if len(ids) <= POSITIONS:
            return ids
        words = words[: len(words) * 3 // 4]
