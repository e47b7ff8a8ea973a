"""Curvature of a trained model, class by class (`ltsam sharpness`)."""

from hf_ltsam.cli.sharpness.command import main

if __name__ == "__main__":
    main()
