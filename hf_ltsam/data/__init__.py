"""Labels without images, decoding, transforms, keyed randomness; images in memory, sampling by class."""
