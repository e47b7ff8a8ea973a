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
"""Train the classifier of a finished run again (`ltsam decouple`).

accelerate launch training_scripts/decouple.py RUN --second_stage crt
hf jobs uv run training_scripts/decouple.py RUN --second_stage crt
"""

from hf_ltsam.cli.decouple import main

if __name__ == "__main__":
    main()
