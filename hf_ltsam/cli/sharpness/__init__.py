"""`ltsam sharpness`: curvature of a trained model, class by class."""
