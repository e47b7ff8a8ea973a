# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["hf_ltsam"]
#
# [tool.hf-jobs]
# flavor = "a10g-small"
# timeout = "2d"
# secrets = ["HF_TOKEN"]
# python = "3.12"
# env = { PYTHONUNBUFFERED = "1" }
# ///
"""Run the rows of a published table (`ltsam reproduce`).

python training_scripts/reproduce.py li2025_table2 --seeds 1
hf jobs uv run training_scripts/reproduce.py li2025_table2 --seeds 1
"""

from hf_ltsam.cli.reproduce.command import main

if __name__ == "__main__":
    main()
