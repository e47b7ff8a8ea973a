"""`ltsam train`: options, data, model, training, results."""
