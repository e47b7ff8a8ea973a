"""What cannot work, refused by name before any time is spent, with the way out."""
