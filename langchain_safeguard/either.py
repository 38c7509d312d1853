"""What guarded things are given: a safeguard, or what one is made of."""

from __future__ import annotations

from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.safeguard import Safeguard


def check_either(safeguard: object, guard: object, policy: object) -> None:
    """Check that a guarded thing is given a safeguard, or what to make one of, and not both.

    Raises:
        ConfigurationError: It is given both, or something else.
    """
    if safeguard is not None and (guard is not None or policy is not None):
        raise ConfigurationError("give either 'safeguard' or 'guard' and 'policy', not both")
    if safeguard is not None and not isinstance(safeguard, Safeguard):
        raise ConfigurationError(f"safeguard={safeguard!r}; allowed: a Safeguard")
