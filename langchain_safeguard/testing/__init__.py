"""A leak test for guarded apps, usable on anybody's guard.

from langchain_safeguard.testing import assert_no_leak

assert_no_leak(chain, "the unsafe part", input={"question": "..."}, expect="I can't help")
"""

from langchain_safeguard.testing.kit import (
    CHANNELS,
    OPTIONAL_CHANNELS,
    aassert_no_leak,
    assert_no_leak,
)
from langchain_safeguard.testing.report import (
    ChannelReport,
    Leak,
    LeakError,
    LeakReport,
)

__all__ = [
    "CHANNELS",
    "OPTIONAL_CHANNELS",
    "ChannelReport",
    "Leak",
    "LeakError",
    "LeakReport",
    "aassert_no_leak",
    "assert_no_leak",
]
