"""Results of tools written for this project: carriers of many shapes, half with an order in them.

What is ordered, how the order is worded, and what people, pages and programs say that only sounds
like an order stand in `results.json`. Lines of other harmless texts are mixed in.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from langchain_safeguard.training.prose import fill

Lines = list[str]

_NAMES = ("Ada", "Jonas", "Priya", "Mikael", "Sofia", "Yusuf", "guest12", "webhook", "민수", "지영")
_TITLES = ("Meeting", "Your order", "Re: plan", "Weekly notes", "Hello", "회의", "안내", "Page 2")
_KEYS = ("note", "comment", "body", "text", "summary", "subject", "memo", "content", "비고", "내용")
_CODE = (
    "def load(path):",
    "    return open(path).read()",
    "for row in rows:",
    "    total += row['sum']",
    "const x = await fetch(url);",
    "if (!ok) { throw new Error('bad'); }",
    "SELECT * FROM orders WHERE id = 7;",
)


@dataclass(frozen=True, slots=True)
class Result:
    """What a tool brought back, and the order as it stands in it; empty when there is none."""

    text: str
    order: str


def results(
    count: int, harmless: Mapping[str, Sequence[str]], seed: int = 13, korean: float = 0.3
) -> Iterator[Result]:
    """Write results of tools.

    Args:
        count: How many.
        harmless: Lines of other harmless texts, for `"en"` and `"ko"`.
        seed: Of everything random.
        korean: Share of them that are Korean.
    """
    place = resources.files("langchain_safeguard.training") / "results.json"
    given = json.loads(place.read_text(encoding="utf-8"))
    rng = random.Random(seed)
    for _ in range(count):
        language = "ko" if rng.random() < korean else "en"
        lines = [
            _harmless(given, language, harmless[language], rng)
            for _ in range(rng.choice((1, 2, 3, 4, 5, 6, 8, 12)))
        ]
        shape, escape = rng.choice(_SHAPES)
        order = _order(given, language, rng) if rng.random() < 0.5 else ""
        if order:
            lines.insert(rng.randrange(len(lines) + 1), order)
            if shape is _alone:
                lines = [order]
        yield Result(shape(lines, rng), escape(order))


def _harmless(given: Mapping, language: str, others: Sequence[str], rng: random.Random) -> str:  # type: ignore[type-arg]
    if others and rng.random() < 0.4:
        return rng.choice(others)
    return fill(rng.choice(given["harmless"][language]), given["words"], rng)


def _order(given: Mapping, language: str, rng: random.Random) -> str:  # type: ignore[type-arg]
    text = rng.choice(given["frames"][language])
    while "{order" in text:
        order = fill(rng.choice(given["orders"][language]), given["words"], rng)
        lower = order[:1].lower() + order[1:]
        text = text.replace("{order}", order, 1).replace("{order_l}", lower, 1)
    return fill(text, given["words"], rng)


def _alone(lines: Lines, rng: random.Random) -> str:
    return lines[0]


def _prose(lines: Lines, rng: random.Random) -> str:
    return rng.choice((" ", "\n", "\n\n")).join(lines)


def _mail(lines: Lines, rng: random.Random) -> str:
    return (
        f"From: {rng.choice(_NAMES)}@fernhill.example\nSubject: {rng.choice(_TITLES)}\n\n"
        + _prose(lines, rng)
    )


def _page(lines: Lines, rng: random.Random) -> str:
    tag = rng.choice(("p", "div", "li", "td"))
    inner = "".join(f"<{tag}>{line}</{tag}>{rng.choice(('', chr(10)))}" for line in lines)
    title = rng.choice(_TITLES)
    return f"<html><head><title>{title}</title></head><body><h1>{title}</h1>\n{inner}</body></html>"


def _markdown(lines: Lines, rng: random.Random) -> str:
    marks = ("- ", "", "> ", "\n", "* ")
    return f"# {rng.choice(_TITLES)}\n\n" + "\n".join(rng.choice(marks) + line for line in lines)


def _records(lines: Lines, rng: random.Random) -> str:
    key, indent = rng.choice(_KEYS), rng.choice((None, None, 2))
    records = [{"id": rng.randrange(9999), "name": rng.choice(_NAMES), key: x} for x in lines]
    return json.dumps(records, ensure_ascii=False, indent=indent)


def _listed(lines: Lines, rng: random.Random) -> str:
    key = rng.choice(("items", "comments", "messages", "results"))
    return json.dumps({"status": "ok", key: lines}, ensure_ascii=False)


def _table(lines: Lines, rng: random.Random) -> str:
    rows = [f'{rng.randrange(999)},{rng.choice(_NAMES)},"{line}"' for line in lines]
    return "\n".join(["id,name,note", *rows])


def _chat(lines: Lines, rng: random.Random) -> str:
    return "\n".join(f"{rng.choice(_NAMES)}: {line}" for line in lines)


def _log(lines: Lines, rng: random.Random) -> str:
    levels = ("INFO", "WARN", "DEBUG")
    return "\n".join(
        f"2025-0{rng.randrange(1, 9)}-1{rng.randrange(9)} 08:1{rng.randrange(9)}:22 "
        f"{rng.choice(levels)} {line}"
        for line in lines
    )


def _code(lines: Lines, rng: random.Random) -> str:
    mark = rng.choice(("# ", "// ", "/* ", "-- ", "* "))
    return "\n".join("\n".join([mark + line, rng.choice(_CODE)]) for line in lines)


def _reviews(lines: Lines, rng: random.Random) -> str:
    stars = ("★★★★★", "5/5", "4 stars", "(3)", "Rating: 2")
    return "\n".join(f"{rng.choice(stars)} {rng.choice(_NAMES)}: {line}" for line in lines)


def _agenda(lines: Lines, rng: random.Random) -> str:
    heads = ("- 9:00 ", "- 14:30 ", "  Notes: ")
    return "\n".join(rng.choice(heads) + line for line in lines)


def _as_is(order: str) -> str:
    return order


def _in_json(order: str) -> str:
    return json.dumps(order, ensure_ascii=False)[1:-1]


_Shape = Callable[[Lines, random.Random], str]
_SHAPES: tuple[tuple[_Shape, Callable[[str], str]], ...] = (
    *(
        (shape, _as_is)
        for shape in (_alone, _prose, _prose, _mail, _page, _markdown, _table, _chat, _log)
    ),
    *((shape, _as_is) for shape in (_code, _reviews, _agenda)),
    *((shape, _in_json) for shape in (_records, _records, _listed)),
)
