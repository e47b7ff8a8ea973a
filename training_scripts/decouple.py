"""Train the classifier of a finished run again (`ltsam decouple`)."""

from hf_ltsam.cli.decouple import main

if __name__ == "__main__":
    main()
