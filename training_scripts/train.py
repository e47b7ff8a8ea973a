"""Train an image classifier on long-tailed data (`ltsam train`)."""

from hf_ltsam.cli.train.train import main

if __name__ == "__main__":
    main()
