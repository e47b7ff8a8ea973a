"""The trainer: its settings, its step, its loaders, its evaluation, its checkpoints."""
