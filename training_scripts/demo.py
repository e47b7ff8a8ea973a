# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["hf_ltsam"]
#
# [tool.hf-jobs]
# flavor = "cpu-upgrade"
# timeout = "30m"
# secrets = ["HF_TOKEN"]
# python = "3.12"
# env = { PYTHONUNBUFFERED = "1" }
# ///
"""The main job on real digits (`ltsam demo`).

python training_scripts/demo.py
hf jobs uv run training_scripts/demo.py
"""

from hf_ltsam.cli.demo.command import main

if __name__ == "__main__":
    main()
