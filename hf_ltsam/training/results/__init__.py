"""What is left of a training: the files of its run, and what goes to the Hub."""
