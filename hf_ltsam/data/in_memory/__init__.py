"""Images kept in memory on one device, and batches augmented there."""
