"""Labels without images, decoding, transforms, keyed randomness."""
