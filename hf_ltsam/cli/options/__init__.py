"""Options: how they are spelled, how they are read, and how messages name them."""
