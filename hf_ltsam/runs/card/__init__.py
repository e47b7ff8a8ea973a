"""Model cards: what a run's folder says about the run, as the README of its repository on the Hub."""

from hf_ltsam.runs.card.card import card_files, leaderboard_files, model_card
from hf_ltsam.runs.card.facts import RunFacts, read_facts
from hf_ltsam.runs.card.metadata import Stated

__all__ = ["RunFacts", "Stated", "card_files", "leaderboard_files", "model_card", "read_facts"]
