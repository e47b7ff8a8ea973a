"""Results of `ltsam evaluate` on shifted and corrupted test sets."""
