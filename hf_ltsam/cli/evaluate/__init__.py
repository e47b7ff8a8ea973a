"""`ltsam evaluate`: a checkpoint on shifted and corrupted test sets."""
