"""Runs on the Hub: their files, uploads beside a training, and failures in words."""

from hf_ltsam.runs.hub.background import BackgroundUploads, within
from hf_ltsam.runs.hub.failures import HubError, in_words, require_network
from hf_ltsam.runs.hub.run_files import check_publishable, checkpoint_files, run_files
from hf_ltsam.runs.hub.upload import Upload, check_token, create_repository, send

__all__ = [
    "BackgroundUploads",
    "HubError",
    "Upload",
    "check_publishable",
    "check_token",
    "checkpoint_files",
    "create_repository",
    "in_words",
    "require_network",
    "run_files",
    "send",
    "within",
]
