"""On its way to the Hub: what is sent, in the background where a training goes on, and what went wrong in words."""

from .background import BackgroundUploads, within
from .failures import HubError, in_words, require_network, without_secrets
from .run_files import check_publishable, checkpoint_files, run_files
from .upload import Upload, check_token, create_repository, send

__all__ = [
    "BackgroundUploads", "HubError", "Upload", "check_publishable", "check_token", "checkpoint_files", "create_repository",
    "in_words", "require_network", "run_files", "send", "within", "without_secrets",
]
