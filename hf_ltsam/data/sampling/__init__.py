"""Sampling by class: classes in other shares than those of the training set."""
