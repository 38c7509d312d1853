"""Whether what was heard on the channels proves that nothing leaked."""

from __future__ import annotations

from collections.abc import Mapping

from langchain_safeguard.testing.channels import Channel
from langchain_safeguard.testing.matching import SecretFinder
from langchain_safeguard.testing.report import ChannelReport, LeakReport
from langchain_safeguard.testing.transcript import Transcript, ran_dry

Heard = Mapping[str, tuple[Channel, Transcript]]


class Expectation:
    """What the caller said should come out instead of the secret.

    Attributes:
        finder: Finds the expected text, or `None`.
        errors: Expected exception types, or an empty tuple.
        allow_errors: Whether other exceptions are merely noted.
    """

    def __init__(
        self,
        expect: str | type[BaseException] | tuple[type[BaseException], ...] | None,
        allow_errors: bool,
    ) -> None:
        """Sort a text from exception types."""
        self.finder = SecretFinder(expect) if isinstance(expect, str) else None
        self.errors: tuple[type[BaseException], ...] = ()
        if expect is not None and not isinstance(expect, str):
            self.errors = expect if isinstance(expect, tuple) else (expect,)
        self.allow_errors = allow_errors


def judge(heard: Heard, expectation: Expectation, report: LeakReport) -> None:
    """Fill the report with what each channel carried and with every reason to doubt it."""
    for name, (channel, transcript) in heard.items():
        account = transcript.close()
        report.channels[name] = account
        if any(map(ran_dry, transcript.exceptions)):
            account.problems.append("a fake model ran out of answers; give it more")
        if channel.group != "process":
            _judge_errors(account, transcript, expectation)
            _judge_answer(account, channel, transcript, expectation)
    _judge_whole(
        [each for c, each in heard.values() if c.group != "process"],
        expectation,
        report,
    )


def _judge_errors(account: ChannelReport, transcript: Transcript, expectation: Expectation) -> None:
    if expectation.allow_errors and not expectation.errors:
        return
    for error in transcript.exceptions:
        if not isinstance(error, expectation.errors):
            account.problems.append(f"raised {type(error).__name__}, which was not expected")
            return
    # Behind HTTP the exception has no type, so that any will do where one is expected.
    if transcript.refusals and not expectation.errors:
        account.problems.append(f"failed ({transcript.refusals[0]}), which was not expected")


def _judge_answer(
    account: ChannelReport,
    channel: Channel,
    transcript: Transcript,
    expectation: Expectation,
) -> None:
    if not channel.speaks:
        return
    if not transcript.items and not transcript.failures:
        account.problems.append("carried nothing, not even an exception")
    elif expectation.errors and not transcript.failures:
        account.problems.append("did not raise, though that was expected")
    elif expectation.finder and transcript.answered and not transcript.expected_seen:
        account.problems.append("the expected text did not appear")


def _judge_whole(
    transcripts: list[Transcript], expectation: Expectation, report: LeakReport
) -> None:
    if not any(each.items or each.failures for each in transcripts):
        report.problems.append("nothing came out of any channel")
    elif not any(each.answered for each in transcripts) and not expectation.errors:
        kinds = dict.fromkeys(
            error.split(" (")[0] for each in report.channels.values() for error in each.errors
        )
        report.problems.append(
            f"the app raised on every channel ({', '.join(kinds)}), so no answer could have "
            "leaked; if it is meant to block by raising, say so: expect=ThatError"
        )
