"""Small images in the memory of one device, and batches augmented there."""
