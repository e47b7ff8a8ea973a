"""Where images and lists come from: the user's copy, archives, lists."""
