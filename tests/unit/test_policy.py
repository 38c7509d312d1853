"""Rules per category and side, and their spelling in YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_safeguard import (
    Action,
    Category,
    ConfigurationError,
    Finding,
    Policy,
    PolicyError,
    Rule,
    Verdict,
)


def _strictest(policy: Policy, *findings: Finding, side: Any = "input") -> Action:
    fired = policy.fired([Verdict("test", findings=findings)], side)
    return fired[0].action if fired else Action.ALLOW


def test_the_first_rule_that_covers_a_category_has_the_word() -> None:
    policy = Policy(rules=(Rule("hate", "flag"), Rule(["hate", "fraud"], "block")))
    assert _strictest(policy, Finding(Category.HATE, 0.9)) is Action.FLAG
    assert _strictest(policy, Finding(Category.FRAUD, 0.9)) is Action.BLOCK


def test_over_all_findings_the_strictest_action_wins() -> None:
    policy = Policy(rules=(Rule("hate", "flag"), Rule("fraud", "block")))
    both = (Finding(Category.HATE, 0.99), Finding(Category.FRAUD, 0.5))
    assert _strictest(policy, *both) is Action.BLOCK


@pytest.mark.parametrize(
    ("score", "action"),
    [(0.39, "allow"), (0.4, "escalate"), (0.79, "escalate"), (0.8, "block"), (None, "block")],
)
def test_a_grey_zone_lies_between_two_thresholds(score: float | None, action: str) -> None:
    policy = Policy(rules=(Rule("fraud", thresholds={"escalate": 0.4, "block": 0.8}),))
    assert _strictest(policy, Finding(Category.FRAUD, score)) == action


def test_rules_speak_only_on_their_sides() -> None:
    policy = Policy(rules=(Rule("profanity", "allow", sides=["input"]),))
    assert _strictest(policy, Finding(Category.PROFANITY, 0.9)) is Action.ALLOW
    assert _strictest(policy, Finding(Category.PROFANITY, 0.9), side="output") is Action.BLOCK


@given(
    st.lists(st.tuples(st.sampled_from(list(Category)), st.floats(0, 1)), max_size=6),
    st.floats(0, 1),
)
def test_without_rules_a_text_is_blocked_exactly_from_the_threshold_on(
    found: list[tuple[Category, float]], threshold: float
) -> None:
    action = _strictest(Policy(threshold=threshold), *(Finding(c, s) for c, s in found))
    reached = any(score >= threshold for _, score in found)
    assert action is (Action.BLOCK if reached else Action.ALLOW)


@pytest.mark.parametrize(
    ("make", "named", "allowed"),
    [
        (lambda: Rule("hat"), "'hat'", "hate"),
        (lambda: Rule("hate", "destroy"), "'destroy'", "block"),
        (lambda: Rule("hate", sides="sideways"), "'sideways'", "tool_output"),
        (lambda: Rule("hate", threshold=1.5), "1.5", "from 0 to 1"),
        (lambda: Rule("hate", threshold=float("nan")), "nan", "from 0 to 1"),
        (lambda: Rule("hate", threshold="high"), "'high'", "from 0 to 1"),  # type: ignore[arg-type]
        (lambda: Rule("hate", thresholds={"block": -1}), "-1", "from 0 to 1"),
        (lambda: Rule("hate", thresholds={}), "{}", "mapping"),
        (lambda: Rule([]), "[]", "name some"),
        (lambda: Rule("hate", "block", thresholds={"block": 1}), "either", "thresholds"),
        (lambda: Rule("hate", "rewrite"), "rewrite", "no 'rewrite'"),
        (lambda: Policy(threshold=2), "2", "from 0 to 1"),
        (lambda: Policy(default="explode"), "'explode'", "allow"),
        (lambda: Policy(on_failure="rewrite"), "on_failure", "use a rule"),
        (lambda: Policy(rules=("hate",)), "'hate'", "Rule"),  # type: ignore[arg-type]
        (lambda: Policy(rewrite_rounds=0), "0", "1, 2"),
        (lambda: Policy(rewrite_rounds=True), "True", "1, 2"),
        (lambda: Policy(Rule("hate")), "rules=Rule", "a list"),  # type: ignore[arg-type]
        (lambda: Policy("hate"), "rules='hate'", "a list"),  # type: ignore[arg-type]
        (lambda: Policy(message=5), "message=5", "a text"),  # type: ignore[arg-type]
        (lambda: Policy(name=5), "name=5", "a text"),  # type: ignore[arg-type]
        (lambda: Rule(5), "5", "list of names"),  # type: ignore[arg-type]
        (lambda: Rule("hate", sides=5), "5", "list of names"),  # type: ignore[arg-type]
        (lambda: Rule("hate", message=5), "message=5", "a text"),  # type: ignore[arg-type]
        (lambda: Rule("hate", name=5), "name=5", "a text"),  # type: ignore[arg-type]
        (lambda: Rule("hate", escalate_to=5), "5", "list of names"),  # type: ignore[arg-type]
        (lambda: Rule("hate", escalate_to=[5]), "5", "list of names"),  # type: ignore[list-item]
        (lambda: Rule("hate", "rewrite", rewrite=5), "rewrite=5", "callable"),
        (lambda: Rule("hate", "rewrite", rewrite={"redact": ["emial"]}), "'emial'", "email"),
        (lambda: Rule("hate", rewrite="love"), "never rewrites", "action"),
    ],
)
def test_a_wrong_value_is_named_with_the_allowed_ones(make: Any, named: str, allowed: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert named in str(caught.value)
    assert allowed in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (
            "threshold: 0.4\nrules:\n  - categories: [hate,\n      hat]\n",
            4,
            "unknown category 'hat'",
        ),
        ("rules:\n  - categories: hate\n    action: explode\n", 3, "unknown action 'explode'"),
        ("rules:\n  - categories: hate\n    treshold: 1\n", 3, "unknown rule key 'treshold'"),
        ("rules:\n  - thresholds:\n      block: 0.5\n      esc: 0.3\n", 4, "unknown action 'esc'"),
        ("name: x\n\nthreshold: 1.5\n", 3, "threshold=1.5"),
        ("nmae: x\n", 1, "unknown policy key 'nmae'"),
        ("name: x\nname: y\n", 2, "stands twice"),
        ("rules:\n  - 4\n", 2, "a rule is a mapping"),
        ("rules: 3\n", 1, "a list of rules"),
        ("rules:\n  - categories: hate\n    action: rewrite\n", 2, "no 'rewrite'"),
        ("rules:\n  - categories: hate\n    rewrite: {redact: [shoe]}\n", 3, "unknown entity"),
        ("rules:\n  - categories: 5\n", 2, "list of names"),
        ("rules:\n  - escalate_to: {a: b}\n", 2, "list of names"),
        ("rules: [\n", 2, "not YAML"),
        ("- a\n", None, "a policy is a mapping"),
        ("rules: !!python/object:os.system {}\n", 1, "not YAML"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_the_line(
    tmp_path: Path, text: str, line: int | None, said: str
) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(PolicyError) as caught:
        Policy.from_file(path)
    assert said in str(caught.value)
    assert caught.value.line == line
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_binary_one_are_errors(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for name in ("missing.yaml", "binary.yaml", "."):
        with pytest.raises(PolicyError, match="cannot read"):
            Policy.from_file(tmp_path / name)


def test_a_file_a_dict_and_objects_spell_the_same_policy(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(
        "name: p\nthreshold: 0.3\nrules:\n"
        "  - {categories: fraud, thresholds: {escalate: 0.4, block: 0.8}, sides: output}\n"
        "  - {categories: [privacy], action: rewrite, rewrite: {redact: [email]}}\n"
    )
    objects = Policy(
        name="p",
        threshold=0.3,
        rules=(
            Rule("fraud", thresholds={"escalate": 0.4, "block": 0.8}, sides="output"),
            Rule("privacy", "rewrite", rewrite={"redact": ["email"]}),
        ),
    )
    dicts = Policy.from_dict(
        {
            "name": "p",
            "threshold": 0.3,
            "rules": [
                {
                    "categories": "fraud",
                    "thresholds": {"escalate": 0.4, "block": 0.8},
                    "sides": "output",
                },
                {"categories": ["privacy"], "action": "rewrite", "rewrite": {"redact": ["email"]}},
            ],
        }
    )
    assert Policy.from_file(path) == objects == dicts
    assert Policy.from_file(path).fingerprint == objects.fingerprint


def test_an_empty_file_is_a_policy_that_blocks_from_one_half_on(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    assert Policy.from_file(tmp_path / "empty.yaml") == Policy()


def test_the_default_policy_supports_who_speaks_of_self_harm() -> None:
    policy = Policy.default_policy()
    rule = policy.rule_for(Category.SELF_HARM, "input")
    assert rule.message is not None and "109" in rule.message and "988" in rule.message
    assert _strictest(policy, Finding(Category.PROFANITY, 1.0)) is Action.FLAG
    assert _strictest(policy, Finding(Category.CYBERCRIME, 0.5)) is Action.BLOCK
    assert _strictest(policy, Finding(Category.CYBERCRIME, 0.49)) is Action.ALLOW
    assert _strictest(policy, Finding(Category.CHILD_SEXUAL_EXPLOITATION, 0.4)) is Action.BLOCK


def test_the_order_of_actions_is_from_mild_to_strict() -> None:
    assert sorted(Action, key=lambda a: a.severity) == [
        "allow",
        "flag",
        "rewrite",
        "escalate",
        "block",
    ]
