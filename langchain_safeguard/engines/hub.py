"""Checkpoints from the Hugging Face hub: only what is needed, never code, offline if asked to."""

from __future__ import annotations

from pathlib import Path

from langchain_safeguard.errors import GuardConnectionError, GuardLoadError

_WEIGHTS = "*.safetensors"
_WANTED = ("*.json", "*.jinja", "*.model", "*.txt")
_UNWANTED = ("original/*", "consolidated*", "onnx/*", "openvino/*")


def download(name: str, revision: str | None = None, *, weights: bool = True) -> Path:
    """Return the folder of a checkpoint; fetch what of it is not there yet, with a progress bar.

    Offline (`HF_HUB_OFFLINE=1`), or when the hub cannot be reached, what was fetched before does.

    Args:
        name: A hub id, such as `"meta-llama/Llama-Guard-3-1B"`.
        revision: A branch, a tag or a commit; the main branch if left out.
        weights: Whether the weights are needed, or only what else there is.

    Raises:
        GuardLoadError: There is no such checkpoint, its owner asks for an agreement first, or it is
            not here and the hub may not be asked.
        GuardConnectionError: The hub cannot be reached.
    """
    from huggingface_hub import constants, errors, snapshot_download

    at = f" at revision {revision!r}" if revision else ""
    try:
        folder = snapshot_download(
            name,
            revision=revision,
            allow_patterns=[*_WANTED, _WEIGHTS] if weights else [*_WANTED],
            ignore_patterns=[*_UNWANTED],
        )
    except errors.GatedRepoError as error:
        raise GuardLoadError(
            f"{name!r} is gated: accept its licence at https://huggingface.co/{name}, then log in "
            "with 'hf auth login' or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise GuardLoadError(f"{name!r} has no revision {revision!r}") from error
    except errors.RepositoryNotFoundError as error:
        raise GuardLoadError(
            f"there is no {name!r} on the hub, or it is private: check the spelling, or log in "
            "with 'hf auth login'"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        if constants.HF_HUB_OFFLINE:
            raise GuardLoadError(
                f"{name!r}{at} is not on this machine, and HF_HUB_OFFLINE forbids to ask the hub; "
                f"fetch it first: langchain-safeguard download {name}"
            ) from error
        raise GuardConnectionError(
            f"{name!r}{at} is not on this machine, and the hub cannot be reached"
        ) from error
    except (errors.HfHubHTTPError, OSError) as error:
        raise GuardConnectionError(
            f"{name!r}{at} could not be fetched: {type(error).__name__}"
        ) from error
    return Path(folder)
