"""The curvature of a run: results of `ltsam sharpness`, and their figures."""
