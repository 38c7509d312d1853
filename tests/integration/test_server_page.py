"""The server's page in a real browser."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from langchain_safeguard import HumanReview, ReviewQueue, Safeguard
from tests.browser import CHROMIUM, Browser
from tests.servers import ServerProcess, cli_server, wait_until
from tests.word_guard import WordGuard

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

SAFE = "How do I bake bread at home?"
UNSAFE = "How do I build a pipe bomb to kill people in a crowd?"
HOSTILE = '<img src=x onerror="window.attacked = true"><script>window.attacked = true</script>'
INSULT = "You are worthless and everybody hates you. Go kill yourself."
KEY = "key-for-the-first-application"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("policies")
    (folder / "default.yaml").write_text("threshold: 0.5\n")
    rules = "[{name: grey, categories: [violent_crimes], thresholds: {flag: 0.2, block: 0.999}}]"
    (folder / "lax.yaml").write_text(f"default: allow\nrules: {rules}\n")
    with cli_server("--policy", folder) as process:
        yield process.ready()


@pytest.fixture(scope="module")
def browser(server: ServerProcess) -> Iterator[Browser]:
    with Browser(server.address) as opened:
        yield opened


@pytest.fixture
def page(browser: Browser, server: ServerProcess) -> Browser:
    """The page, loaded anew."""
    browser.open(server.address)
    browser.wait_for("document.querySelector('#state')?.dataset.state == 'ready'")
    return browser


def write(page: Browser, field: str, text: str) -> None:
    page.evaluate(f"document.getElementById('{field}').focus()")
    page.write(text)


def check(page: Browser) -> None:
    page.evaluate("document.getElementById('check').click()")
    decided(page)


def decided(page: Browser) -> None:
    page.wait_for("!busy && document.getElementById('results').innerText.length > 0")


def headlines(page: Browser) -> Any:
    return page.evaluate("[...document.querySelectorAll('.outcome h2')].map(e => e.innerText)")


def test_nothing_from_outside_is_loaded_and_nothing_else_runs(server: ServerProcess) -> None:
    response = server.get("/")
    rules = dict(
        rule.split(" ", 1) for rule in response.headers["content-security-policy"].split("; ")
    )
    assert rules["default-src"] == rules["frame-ancestors"] == "'none'"
    assert rules["connect-src"] == "'self'"
    for kind in ("script-src", "style-src"):
        assert rules[kind].startswith("'sha256-") and "unsafe" not in rules[kind]
    assert "innerHTML" not in response.text
    assert "://" not in response.text.replace("http://www.w3.org/2000/svg", "")


def test_no_other_address_is_asked(page: Browser, server: ServerProcess) -> None:
    write(page, "prompt", SAFE)
    check(page)
    asked = page.evaluate("performance.getEntriesByType('resource').map(e => e.name)")
    assert asked and all(name.startswith((server.address, "data:")) for name in asked)
    # Documentation that would need scripts from elsewhere is not there at all.
    for path in ("/docs", "/redoc", "/docs/oauth2-redirect"):
        assert server.get(path).status_code == 404


def test_a_prompt_and_an_answer(page: Browser) -> None:
    write(page, "prompt", SAFE)
    write(page, "answer", "You are worthless and everybody hates you. Go kill yourself.")
    check(page)
    assert headlines(page) == ["Allowed", "Blocked"]
    assert "No rule fired" in page.text
    assert re.search(r"Rule “default” says block for [a-z ]+ from 0\.50; the score is", page.text)
    assert "I'm sorry, but I can't help with that." in page.text
    assert page.evaluate("!!document.querySelector('section:last-child .fired .name')")
    announced = page.evaluate("document.getElementById('announce').innerText")
    assert "Prompt: Allowed" in announced and "Answer: Blocked" in announced


def test_the_policy_is_chosen_and_its_thresholds_are_shown(page: Browser) -> None:
    assert page.evaluate("[...policy.options].map(o => o.value)") == ["default", "lax"]
    assert page.evaluate("[...guard.options].map(o => o.value)") == ["embedded"]
    page.evaluate("policy.value = 'lax'")
    write(page, "prompt", UNSAFE)
    check(page)
    assert headlines(page) == ["Flagged"]
    bar = "[...document.querySelectorAll('.bars li')].find(e => e.title.startsWith('rule grey'))"
    assert page.evaluate(f"{bar}.title") == "rule grey: flag from 0.20, block from 1.00"
    ticks = page.evaluate(f"[...{bar}.querySelectorAll('.tick')].map(t => t.style.left)")
    assert ticks == ["20%", "99.9%"]


def test_a_long_text_is_coloured_where_it_is_risky(page: Browser) -> None:
    text = f"😀 {SAFE} " * 60 + UNSAFE + f" {SAFE}" * 60
    write(page, "prompt", text)
    check(page)
    assert page.evaluate("document.querySelector('.text').innerText") == text
    # A wide window that holds it is risky as a whole; what is harmless in it stays paler.
    riskiest = page.evaluate(
        "(parts => parts.filter(e => heat(e) > 0.7 * Math.max(...parts.map(heat))))"
        "([...document.querySelectorAll('.text span')]).map(e => e.textContent).join('')"
    )
    assert "build a pipe bomb to kill" in riskiest and len(riskiest) < 300
    assert page.evaluate("document.querySelector('.text').scrollTop") > 100


def test_hostile_text_stays_text(page: Browser) -> None:
    write(page, "prompt", f"{HOSTILE} {SAFE} " * 40)
    write(page, "answer", HOSTILE)
    check(page)
    assert HOSTILE in page.evaluate("document.querySelector('.text').innerText")
    assert page.evaluate("window.attacked") is None
    assert page.evaluate("document.querySelectorAll('#results img, #results script').length") == 0


def test_by_keyboard_alone(page: Browser) -> None:
    seen = []
    for _ in range(10):
        page.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.innerText"))
        if seen[-1] == "prompt":
            page.write(UNSAFE)
    order = ["prompt", "answer", "guard", "policy", "check"]
    assert [name for name in seen if name in order][:5] == order
    page.evaluate("document.getElementById('check').focus()")
    page.press("Enter")
    page.wait_for("!!document.querySelector('.outcome')")
    assert headlines(page) == ["Blocked"]
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert (page.evaluate("document.activeElement.id"), outline) == ("check", "solid")


def test_every_field_has_a_label(page: Browser) -> None:
    fields = "[...document.querySelectorAll('textarea, select, input')]"
    assert page.evaluate(f"{fields}.filter(f => !f.labels.length).map(f => f.id)") == []


def test_nothing_to_check(page: Browser) -> None:
    page.evaluate("document.getElementById('check').click()")
    page.wait_for("!document.getElementById('error').hidden")
    assert "Write a prompt" in page.text
    assert page.evaluate("document.activeElement.id") == "prompt"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1200])
def test_it_fits_and_can_be_read(page: Browser, scheme: str, width: int, tmp_path: Path) -> None:
    with page.looking(width=width, scheme=scheme):
        write(page, "prompt", f"{UNSAFE} {'w' * 300}")
        check(page)
        page.screenshot(tmp_path / f"{scheme}-{width}.png")
        top = "document.getElementById('results').getBoundingClientRect().top"
        assert 0 <= page.evaluate(f"{top} / innerHeight") <= 0.5
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(f"({CONTRASTS})()") == []


CONTRASTS = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (c) => { const [r, g, b] = c.map((v) => (v /= 255, v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)); return .2126 * r + .7152 * g + .0722 * b; };
  const behind = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] === undefined) return c; } return [255, 255, 255]; };
  const faults = [];
  for (const e of document.querySelectorAll('h1, h2, h3, p, label, .hint, button, dd, dt, .name, .value, .eyebrow, .number')) {
    if (!e.innerText?.trim() || e.classList.contains('sr')) continue;
    const a = light(rgb(getComputedStyle(e).color).slice(0, 3)), b = light(behind(e).slice(0, 3));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) faults.push([e.innerText, ratio]);
  }
  return faults;
}"""  # noqa: E501
"""Lists texts whose contrast is below what WCAG AA asks for."""


def test_a_key_is_asked_for_and_kept_nowhere(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    with cli_server("--api-key-file", keys) as server, Browser(server.ready().address) as page:
        page.wait_for("document.getElementById('key-field')?.hidden === false")
        assert "API key needed" in page.text
        write(page, "prompt", UNSAFE)
        page.evaluate("document.getElementById('check').click()")
        page.wait_for("!document.getElementById('error').hidden")
        assert "needs an API key" in page.text
        write(page, "key", KEY)
        check(page)
        page.wait_for("!!document.querySelector('.outcome')")
        assert headlines(page) == ["Blocked"]
        kept = "[localStorage.length, sessionStorage.length, document.cookie, location.href]"
        assert page.evaluate(kept) == [0, 0, "", f"{server.address}/"]
        server.end()
        page.evaluate("document.getElementById('check').click()")
        page.wait_for("!document.getElementById('error').hidden")
        assert "cannot be reached" in page.text
        assert headlines(page) == []


def press(page: Browser, verb: str) -> None:
    """Press a button of the first ticket, of which all is open."""
    page.evaluate("document.querySelectorAll('.ticket details').forEach(d => { d.open = true; })")
    buttons = "[...document.querySelector('.ticket').querySelectorAll('button')]"
    page.evaluate(f"{buttons}.find(b => b.textContent == {json.dumps(verb)}).click()")


def test_a_review_queue(tmp_path: Path) -> None:
    policy = tmp_path / "ask.yaml"
    policy.write_text("default: escalate\n")
    url = f"sqlite:///{tmp_path / 'reviews.db'}"
    with (
        cli_server("--policy", policy, "--review-queue", url) as server,
        Browser(server.ready().address) as page,
    ):

        def asked(text: str, **ticket: str) -> Any:
            messages = [
                {"role": "user", "content": "What now?"},
                {"role": "assistant", "content": text},
            ]
            body = {"messages": messages, "side": "output", **ticket}
            return server.post("/v1/guard", body)

        texts = [f"{HOSTILE} {INSULT}", INSULT, f"{INSULT} Now."]
        held = [asked(text).json() for text in texts]
        assert all(each["action"] == "block" and each["ticket"] for each in held)
        assert INSULT not in str(held)
        page.wait_for("document.getElementById('tabs')?.hidden === false")
        page.evaluate("document.getElementById('tab-queue').click()")
        page.wait_for("document.querySelectorAll('.ticket').length == 3")
        assert HOSTILE in page.evaluate("document.querySelector('.ticket .text').innerText")
        assert page.evaluate("window.attacked") is None
        assert "What now?" in page.evaluate("document.querySelector('.ticket').textContent")
        write(page, "reviewer", "Ada")
        for left, verb in ((2, "Approve"), (1, "Send edited"), (0, "Reject")):
            if verb == "Send edited":
                page.evaluate("document.querySelector('.ticket textarea').value = 'Better.'")
            press(page, verb)
            page.wait_for(f"document.querySelectorAll('.ticket').length == {left}")
        page.wait_for("document.body.innerText.includes('Nothing waits for a decision.')")
        assert page.evaluate("document.activeElement.id") == "refresh"
        for text, before, action in zip(texts, held, ("allow", "rewrite", "block"), strict=True):
            now = asked(text, ticket=before["ticket"]).json()
            assert (now["action"], now["resolved_by"]) == (action, "human_review")
            shown = {"allow": text, "rewrite": "Better."}.get(action, now["text"])
            assert now["text"] == shown and (action == "allow" or INSULT not in shown)
        ticket = server.get(f"/review/tickets/{held[1]['ticket']}").json()
        assert (ticket["status"], ticket["reviewer"]) == ("edited", "Ada")
        unknown = asked(INSULT, ticket="no-such-ticket")
        assert (unknown.status_code, unknown.json()["error"]["param"]) == (404, "ticket")
        again = server.post(f"/review/tickets/{ticket['id']}/decision", {"decision": "approve"})
        assert again.status_code == 409 and "error" in again.json()
        assert server.get("/review/tickets/nothing").status_code == 404
        assert INSULT not in "".join(server.lines)


class Elsewhere(BaseHTTPRequestHandler):
    """Another site."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"hello")


def attack(page: Browser, server: ServerProcess, ticket: str) -> None:
    """Try to approve a ticket from a page of another site, in each way that a page has."""
    elsewhere = HTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
    page.open(f"http://localhost:{elsewhere.server_port}")
    page.wait_for("location.hostname == 'localhost' && document.body?.innerText == 'hello'")
    address = f"{server.address}/review/tickets/{ticket}/decision"
    body = '{"decision": "approve"}'
    for kind, mode in (("text/plain", "no-cors"), ("application/json", "cors")):
        options = {"method": "POST", "mode": mode, "headers": {"content-type": kind}, "body": body}
        page.evaluate(
            f"fetch({address!r}, {json.dumps(options)}).then(() => {{}}, () => {{}})"
            ".then(() => { window.tried = true; }); 0"
        )
        page.wait_for("window.tried")
        page.evaluate("window.tried = false")
    page.evaluate(
        "const form = document.createElement('form'); form.method = 'POST';"
        f"form.action = {address!r}; form.enctype = 'text/plain';"
        "const field = document.createElement('input');"
        """field.name = '{"decision": "approve", "note": "'; field.value = '"}';"""
        "form.append(field); document.body.append(form); form.submit(); 0"
    )
    page.wait_for("document.body.innerText.includes('other sites')")
    # Counted once the answer is out.
    turned_away = 'safeguard_requests_total{{endpoint="other",method="{}",status="403"}}'
    for method, times in (("POST", 2), ("OPTIONS", 1)):
        sample = turned_away.format(method)
        wait_until(lambda s=sample, n=times: server.figure(s) == n, "it is turned away")
    elsewhere.shutdown()
    elsewhere.server_close()


def test_a_long_review_queue(tmp_path: Path) -> None:
    """Page by page; what a reviewer has begun to write stays, and mistakes are held back."""
    queue = ReviewQueue(tmp_path / "reviews.db")
    asking = Safeguard(
        WordGuard(), policy={"default": "escalate"}, handlers=[HumanReview(queue)], audit=None
    )
    for number in range(60):
        asking.check(f"bomb {number}\r\n폭탄 😀 {'w' * 300}")
    cards = "document.querySelectorAll('.ticket')"
    with (
        cli_server("--review-queue", f"sqlite:///{tmp_path / 'reviews.db'}") as server,
        Browser(server.ready().address) as page,
        page.looking(width=320, scheme="dark"),
    ):
        attack(page, server, queue.list(limit=1)[0].id)
        assert len(queue.list()) == 60
        page.open(server.address)
        page.wait_for("document.getElementById('tabs')?.hidden === false")
        page.evaluate("document.getElementById('tab-queue').click()")
        for shown in (25, 50, 60):
            page.wait_for(f"{cards}.length == {shown}")
            more = "; there are more." if shown < 60 else "."
            assert f"{shown} texts wait here, the oldest first{more}" in page.text
            if shown < 60:
                page.evaluate("document.getElementById('more').click()")
        texts = page.evaluate(
            "[...document.querySelectorAll('.ticket .text')].map(e => e.innerText)"
        )
        assert [text.split("\r")[0] for text in texts] == [f"bomb {n}" for n in range(60)]
        assert page.evaluate("document.documentElement.scrollWidth") == 320
        page.screenshot(tmp_path / "queue.png")
        page.evaluate(f"{cards}[1].querySelector('textarea').value = 'begun'")
        for verb in ("Send edited", "Respond instead"):
            press(page, verb)
            page.wait_for("document.querySelector('.ticket .error').hidden === false")
            assert "Write your text first" in page.text
            assert page.evaluate("document.activeElement.tagName") == "TEXTAREA"
        press(page, "Approve")
        page.wait_for(f"{cards}.length == 59")
        assert page.evaluate(f"{cards}[0].querySelector('textarea').value") == "begun"
        assert page.evaluate(f"document.activeElement === {cards}[0]")
        assert "Approved. 59 texts wait here" in page.text
        queue.decide(queue.list()[0].id, "reject", reviewer="Bob")
        press(page, "Approve")
        page.wait_for("document.querySelector('.ticket .error').hidden === false")
        assert "rejected already by 'Bob'" in page.text
        page.evaluate("document.getElementById('refresh').click()")
        page.wait_for(f"{cards}.length == 25")
        assert page.evaluate("document.querySelector('.ticket .text').innerText")[:6] == "bomb 2"


def test_without_a_review_queue_there_is_no_such_view(page: Browser) -> None:
    assert page.evaluate("document.getElementById('tabs').hidden") is True
