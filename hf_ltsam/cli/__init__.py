"""`ltsam`: the commands, and nothing but them. The only place that reads a command line."""
