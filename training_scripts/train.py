# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["hf_ltsam"]
#
# [tool.hf-jobs]
# flavor = "a10g-small"
# timeout = "12h"
# secrets = ["HF_TOKEN"]
# python = "3.12"
# env = { PYTHONUNBUFFERED = "1" }
# ///
"""Train an image classifier on long-tailed data (`ltsam train`).

accelerate launch training_scripts/train.py --config cifar100_lt_ir100_la_focal_sam --dataset FOLDER
hf jobs uv run training_scripts/train.py --config RECIPE --dataset OWNER/NAME --push_to_hub --hub_model_id OWNER/MODEL
"""

from hf_ltsam.cli.train.train import main

if __name__ == "__main__":
    main()
