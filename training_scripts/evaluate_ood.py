"""Test a checkpoint on shifted and corrupted test sets (`ltsam evaluate`)."""

from hf_ltsam.cli.evaluate.command import main

if __name__ == "__main__":
    main()
