"""One configuration against another: differences by group with paired intervals, and what follows from them."""
