"""`ltsam demo`: the main job on real digits, in about two minutes."""
