"""Tables of text."""

from __future__ import annotations

from langchain_safeguard.tables import markdown_table, text_table


def test_columns_line_up_with_wide_letters() -> None:
    lines = text_table(["이름", "n"], [["가나다", "1"], ["ab", "22"]]).splitlines()
    assert lines == ["이름    n", "------  --", "가나다  1", "ab      22"]


def test_long_cells_are_wrapped_and_empty_ones_kept() -> None:
    lines = text_table(["a", "b"], [["one two three", ""]], widest=8).splitlines()
    assert lines == ["a        b", "-------  -", "one two", "three"]
    assert text_table(["a"], []).splitlines() == ["a", "-"]


def test_markdown_is_escaped() -> None:
    assert markdown_table(["a", "b"], [["x|y", "1\n2"]]).splitlines() == [
        "| a | b |",
        "| --- | ---: |",
        "| x\\|y | 1 2 |",
    ]
