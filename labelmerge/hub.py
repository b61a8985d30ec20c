"""The hub of model weights: reached, or given up, in seconds."""

from __future__ import annotations

_SECONDS = 5.0


def ask_hub() -> None:
    """Ask the hub once and briefly whether it is there, before anything is downloaded from it.

    Without that question its client takes minutes of retries to notice that it can't be reached. Raises what the client
    or its transport raises.
    """
    from huggingface_hub import constants, get_session

    get_session().head(constants.ENDPOINT, timeout=_SECONDS)
