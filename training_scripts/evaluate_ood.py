# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["hf_ltsam"]
#
# [tool.hf-jobs]
# flavor = "a10g-small"
# timeout = "4h"
# secrets = ["HF_TOKEN"]
# python = "3.12"
# env = { PYTHONUNBUFFERED = "1" }
# ///
"""Test a checkpoint on shifted and corrupted test sets (`ltsam evaluate`).

accelerate launch training_scripts/evaluate_ood.py --model CHECKPOINT --sets cifar100 cifar100_c
hf jobs uv run training_scripts/evaluate_ood.py --model OWNER/MODEL --sets cifar100 cifar100_c
"""

from hf_ltsam.cli.evaluate.command import main

if __name__ == "__main__":
    main()
