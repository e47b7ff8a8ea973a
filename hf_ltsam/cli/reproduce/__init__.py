"""`ltsam reproduce`: the rows of a published table."""
