"""The main job on real digits (`ltsam demo`)."""

from hf_ltsam.cli.demo.command import main

if __name__ == "__main__":
    main()
