"""What is known of the curvature of a run."""
