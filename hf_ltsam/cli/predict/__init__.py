"""`ltsam predict` and `ltsam mistakes`: what a finished run says of samples, and where it is wrong."""
