"""Run the rows of a published table (`ltsam reproduce`)."""

from hf_ltsam.cli.reproduce.command import main

if __name__ == "__main__":
    main()
