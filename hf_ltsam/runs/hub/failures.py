"""Failures of the Hub in words, without secrets."""

from __future__ import annotations

from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

from hf_ltsam.runs.secrets import without_secrets

LONGEST_WAIT = 60  # seconds that a server may ask us to wait before we rather give up

_TEMPORARY = {408, 409, 412, 425, 429, 500, 502, 503, 504}  # another try may succeed
_LOG_IN = "Log in with `hf auth login`, or set HF_TOKEN to a token that may write."
_MEANING = {
    400: "it finds fault with the request",
    401: f"it does not know the token, or there is none. {_LOG_IN}",
    403: f"the token may not write there. {_LOG_IN}",
    404: f"there is no such repository or revision, or the token may not see it. {_LOG_IN}",
    409: "somebody else is writing there",
    412: "somebody else has written there",
    413: "a file is too large for it",
    422: "it finds fault with the content",
    429: "it has had too many requests",
}


class HubError(OSError):
    """The Hub did not do what was asked.

    Args:
        message: what was asked, the answer, and what to do.
        temporary: whether another try may succeed.
        wait: seconds to wait before that, where the Hub has said so.
    """

    def __init__(self, message: str, temporary: bool = False, wait: float | None = None) -> None:
        super().__init__(message)
        self.temporary, self.wait = temporary, wait


def require_network(what: str) -> None:
    """Refuse at once what needs the network while HF_HUB_OFFLINE is set.

    Args:
        what: the setting or command, as the user wrote it.

    Raises:
        HubError: saying how to allow it.
    """
    if constants.is_offline_mode():
        raise HubError(
            f"{what} needs the Hub, but HF_HUB_OFFLINE=1 forbids the network. Unset it, or leave this out and upload later: "
            "ltsam push RUN OWNER/NAME."
        )


def in_words(error: Exception, what: str, token: str | None = None) -> HubError:
    """A failure of the client in words.

    Args:
        error: what `huggingface_hub` has raised.
        what: failed, such as "me/model was not uploaded".
        token: that was used, to keep it out of the message.
    """
    if isinstance(error, HubError):
        return error
    if isinstance(error, HfHubHTTPError):
        return _answer(error, what, token)
    message = without_secrets(str(error) or type(error).__name__, token).partition("\n")[0]
    if isinstance(error, OfflineModeIsEnabled) or not isinstance(error, HTTPError | TimeoutError | ConnectionError):
        return HubError(f"{what}: {message}")
    return HubError(f"{what}: {constants.ENDPOINT} could not be reached, or hung up ({message}).", True)


def _answer(error: HfHubHTTPError, what: str, token: str | None) -> HubError:
    response = error.response
    status = response.status_code
    asked = response.headers.get("Retry-After", "")
    wait = float(asked) if asked.isdigit() else None
    meaning = _MEANING.get(status, "it has a failure of its own" if status >= 500 else "it refuses")
    message = without_secrets(error.server_message or "", token).partition("\n")[0][:300]
    parts = [f"{what}: the Hub answers {status}, {meaning}".rstrip(".") + "."]
    if message:
        parts.append(f"It says: {message.rstrip('.')}.")
    if wait is not None:
        parts.append(f"It asks to wait {wait:g} seconds.")
    return HubError(" ".join(parts), status in _TEMPORARY and (wait or 0) <= LONGEST_WAIT, wait)
