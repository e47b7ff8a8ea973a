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
"""Curvature of a trained model, class by class (`ltsam sharpness`).

python training_scripts/analyze_sharpness.py RUN --groups many few
hf jobs uv run training_scripts/analyze_sharpness.py RUN --groups many few
"""

from hf_ltsam.cli.sharpness.command import main

if __name__ == "__main__":
    main()
