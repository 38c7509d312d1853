"""The parts of training that can be wrong silently: targets, mixture, splits, calibration."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest
import torch

from langchain_safeguard.embedded.labels import HARM_CATEGORIES, OUTPUTS
from langchain_safeguard.embedded.weights_file import packed, unpacked
from langchain_safeguard.training import mixture
from langchain_safeguard.training.calibrate import fit_mix, shift_for
from langchain_safeguard.training.derived import as_inputs
from langchain_safeguard.training.encode import shorten
from langchain_safeguard.training.prose import pair_rows, prose_rows
from langchain_safeguard.training.results import results
from langchain_safeguard.training.rows import Row, held_out, read_folder, read_rows, targets


def row(text: str = "hi", unsafe: bool = False, **fields: object) -> Row:
    given: dict[str, object] = {
        "file": "f",
        "source": "s",
        "language": "en",
        "side": "input",
        "prompt": None,
        "categories": () if not unsafe else None,
        "group": text,
    }
    return Row(text=text, unsafe=unsafe, **(given | fields))  # type: ignore[arg-type]


def test_a_safe_row_denies_everything() -> None:
    truth, known = targets([row()])
    assert truth.sum() == 0
    assert known.sum() == len(OUTPUTS)


def test_an_unsafe_row_without_categories_leaves_them_open() -> None:
    truth, known = targets([row(unsafe=True)])
    assert truth[0, 0] == 1
    assert known[0, 1 : 1 + len(HARM_CATEGORIES)].sum() == 0
    assert known[0, 0] == 1


def test_an_attack_does_not_say_whether_its_payload_is_harmful() -> None:
    truth, known = targets([row(unsafe=True, categories=("prompt_injection",))])
    injection, jailbreak = OUTPUTS.index("prompt_injection"), OUTPUTS.index("jailbreak")
    assert truth[0, injection] == 1
    assert known[0, 0] == 0
    assert known[0, jailbreak] == 0


def test_a_jailbreak_with_a_harm_teaches_both() -> None:
    truth, known = targets([row(unsafe=True, categories=("jailbreak", "fraud"))])
    for name in ("harm", "fraud", "jailbreak"):
        assert truth[0, OUTPUTS.index(name)] == known[0, OUTPUTS.index(name)] == 1


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write(json.dumps({"text": "a", "unsafe": 0}) + "\n" + json.dumps({"text": "b"}))
    with pytest.raises(ValueError, match=r"rows\.jsonl\.gz, line 2"):
        list(read_rows(path))


def test_development_folders_are_left_out(tmp_path: Path) -> None:
    for folder in ("train", "dev"):
        (tmp_path / folder).mkdir()
        line = json.dumps({"text": folder, "unsafe": 0})
        (tmp_path / folder / "rows.jsonl").write_text(line, encoding="utf-8")
    assert [found.text for found in read_folder(tmp_path)] == ["train"]


def test_no_rows_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No \.jsonl"):
        read_folder(tmp_path)


def test_a_group_is_held_out_whole() -> None:
    rows = [row(text, group=f"g{number % 50}") for number, text in enumerate("x" * 500)]
    sides = {found.group: held_out(found) for found in rows}
    assert all(held_out(found) == sides[found.group] for found in rows)
    assert 0 < sum(sides.values()) < 25


def test_the_mixture_caps_files_and_groups() -> None:
    rows = [row(str(n), file="toxigen", group=str(n)) for n in range(4000)]
    rows += [row(str(n), file="one_group", group="g") for n in range(500)]
    rows += [row(str(n), file="deepset", group=str(n)) for n in range(10)]
    chosen = mixture.epoch(rows, seed=1, per_group=160)
    files = [rows[index].file for index in chosen]
    assert files.count("toxigen") == mixture.CAPS["toxigen"]
    assert files.count("one_group") == 160
    assert files.count("deepset") == 10 * mixture.REPEATS["deepset"]


def test_the_mixture_is_seeded() -> None:
    rows = [row(str(n), file="toxigen") for n in range(4000)]
    assert mixture.epoch(rows, 1) == mixture.epoch(rows, 1) != mixture.epoch(rows, 2)


def test_long_unsafe_rows_keep_both_ends() -> None:
    ids = list(range(100))
    kept = shorten(ids, 30, unsafe=True, rng=random.Random(0))
    assert len(kept) == 30
    assert (kept[0], kept[-1]) == (0, 99)


def test_long_safe_rows_give_one_piece() -> None:
    kept = shorten(list(range(100)), 30, unsafe=False, rng=random.Random(0))
    assert kept == list(range(kept[0], kept[0] + 30))


def test_own_rows_are_seeded_distinct_and_two_sided() -> None:
    for write in (prose_rows, pair_rows):
        rows = list(write(each=20))
        assert rows == list(write(each=20))
        assert len({(found.source, found.text) for found in rows}) == len(rows)
        assert {found.unsafe for found in rows} == {True, False}
        assert {found.language for found in rows} == {"en", "ko"}
        assert not any("{" in found.text for found in rows)


def test_results_of_tools_are_seeded_and_hold_their_order() -> None:
    lines = {"en": ["The tide is low."], "ko": ["바람이 분다."]}
    found = list(results(200, lines))
    assert found == list(results(200, lines))
    assert found != list(results(200, lines, seed=14))
    assert all(result.order in result.text for result in found)
    assert 60 < sum(bool(result.order) for result in found) < 140
    assert not any("{order" in result.text for result in found)
    for language in lines:
        assert any(lines[language][0] in result.text for result in found)


def test_answers_become_inputs_only_where_the_label_holds() -> None:
    answers = [
        row("fine", file="gpteacher_responses", side="output", prompt="p"),
        row("rude", True, file="diasafety", side="output", prompt="p", categories=("hate",)),
        row("bad advice", True, file="diasafety", side="output", prompt="p", categories=("other",)),
        row("complies", True, file="gptfuzz_responses", side="output", prompt="p"),
    ]
    found = list(as_inputs(answers))
    assert [one.text for one in found] == ["fine", "rude"]
    assert all(one.side == "input" and one.prompt is None for one in found)


def test_packing_loses_at_most_half_a_step() -> None:
    weight = torch.randn(20, 50, generator=torch.Generator().manual_seed(0))
    values, scale = packed(weight)
    assert values.dtype == torch.int8
    assert torch.all((unpacked(values, scale) - weight).abs() <= scale[:, None] / 2 + 1e-6)


def test_the_mix_follows_the_branch_that_knows() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = (torch.rand(400, generator=generator) > 0.5).float()
    good = (truth * 2 - 1) * 2 + torch.randn(400, generator=generator)
    noise = torch.randn(400, generator=generator)
    mix, _ = fit_mix(torch.stack([good, noise], 1), truth, torch.ones(400))
    assert mix[0] > 2 * mix[1]
    assert mix.min() >= 0


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1])
def test_the_shift_leaves_the_asked_share_of_false_alarms(share: float) -> None:
    scores = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    moved = scores + shift_for(scores, torch.ones(1000), share)
    assert float((moved > 0).float().mean()) == pytest.approx(share, abs=0.002)
