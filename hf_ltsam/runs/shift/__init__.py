"""What a run reached on shifted and corrupted test sets."""
