"""Named policies: where they are, what they say now, and whether their files have changed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from langchain_safeguard.errors import ConfigurationError
from langchain_safeguard.policy import Policy

DEFAULT = "default"
_NAMED = re.compile(r"([\w.-]+)=(.+)", re.DOTALL)
_SUFFIXES = (".yaml", ".yml")

Fingerprint = tuple[tuple[str, int, int], ...]


def read_policies(sources: Sequence[str]) -> dict[str, Policy]:
    """Read all policies, the default one first.

    Args:
        sources: `"FILE"`, `"NAME=FILE"` or a folder each; see `Settings.policies`.

    Raises:
        ConfigurationError: Two have the same name, or a folder holds none.
        PolicyError: A file is missing or wrong.
    """
    if not sources:
        return {DEFAULT: Policy.default_policy()}
    files: dict[str, Path] = {}
    for name, file in _files(sources):
        if name in files:
            raise ConfigurationError(
                f"two policies are called {name!r}: {files[name]} and {file}; "
                "name them apart, as NAME=FILE"
            )
        files[name] = file
    first = DEFAULT if DEFAULT in files else next(iter(files))
    order = [first, *(name for name in files if name != first)]
    return {name: Policy.from_file(files[name]) for name in order}


def fingerprint(sources: Sequence[str]) -> Fingerprint:
    """Return what changes when a file does, or when one comes or goes."""
    found = []
    try:
        for _, file in _files(sources):
            status = file.stat()
            found.append((str(file), status.st_mtime_ns, status.st_size))
    except (OSError, ConfigurationError):
        # Gone for a moment, as editors do it; whoever reads it will say so if it stays away.
        found.append(("", 0, 0))
    return tuple(found)


def _files(sources: Sequence[str]) -> Iterator[tuple[str, Path]]:
    for source in sources:
        path = Path(source)
        named = _NAMED.fullmatch(source)
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES)
            if not files:
                raise ConfigurationError(f"the folder {source} holds no policy (*.yaml)")
            yield from ((file.stem, file) for file in files)
        elif named and not path.is_file():
            yield named[1], Path(named[2])
        else:
            yield path.stem, path
