"""How often each source is seen: caps per file and epoch, and per group of near-identical rows.

What is trained on matters more than for how long. Left alone, hate speech would be a third of all
unsafe rows, and templates would drown the hand-written sentences.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from langchain_safeguard.training.rows import Row

CAPS: dict[str, int] = {
    "aart": 1400,
    "harmfulqa": 500,
    "mlc_v05": 3600,
    "crystaleye": 1100,
    "cse_interpreter": 250,
    "cse_mitre_frr": 500,
    "toxigen": 2600,
    "edos": 1600,
    "davidson": 1100,
    "banking77": 500,
    "clinc150": 1300,
    "caia_safety": 1000,
    "caia_safety_responses": 900,
    "gpteacher": 3000,
    "gsm8k": 350,
    "diasafety": 2200,
    "gptfuzz_responses": 2200,
    "ko_chatbot": 2200,
    "ko_chatbot_responses": 500,
    "ko_question_pair": 900,
    "square": 2200,
    "curse_detection": 3200,
    "long_and_injection": 3000,
    "answers": 4000,
    "en_contrast": 9000,
    "gpteacher_responses_as_input": 500,
    "caia_safety_responses_as_input": 500,
    "ko_chatbot_responses_as_input": 200,
    "diasafety_as_input": 500,
    "prose": 2800,
}
"""Rows of a file per epoch; a file not named here gives all it has."""

REPEATS: dict[str, int] = {"deepset": 3, "kosbi_valid": 2, "mlc_kr": 2, "cse_kr": 2, "pairs": 2}
"""Small files that nothing replaces are seen several times an epoch."""


def epoch(rows: Sequence[Row], seed: int, per_group: int = 160) -> list[int]:
    """Row indices of one epoch, shuffled: at most `per_group` of a group, capped by file."""
    rng = random.Random(seed)
    files: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, row in enumerate(rows):
        files[row.file][row.group].append(index)
    chosen: list[int] = []
    for name in sorted(files):
        found: list[int] = []
        for group in files[name].values():
            found += rng.sample(group, min(len(group), per_group))
        rng.shuffle(found)
        chosen += found[: CAPS.get(name, len(found))] * REPEATS.get(name, 1)
    rng.shuffle(chosen)
    return chosen
