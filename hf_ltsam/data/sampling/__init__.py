"""Classes drawn in other shares than those of the training set."""
