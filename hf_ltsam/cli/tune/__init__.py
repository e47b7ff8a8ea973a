"""`ltsam tune`: settings chosen on a reserved part of the training set."""
