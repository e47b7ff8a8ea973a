"""The published sets: a file each, with its facts."""
