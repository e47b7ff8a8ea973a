"""The accelerate configurations that are shipped: read by accelerate, and started where the machine allows."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from forked import PYTHON
from time_limits import PATIENCE

CONFIGS = Path(__file__).parents[2] / "training_scripts" / "accelerate_configs"
DEVICES = {"cpu": 0, "multi_cpu": 0, "one_gpu": 1, "multi_gpu": 2, "fsdp": 2}  # GPUs
PROCESSES = {**{name: max(gpus, 1) for name, gpus in DEVICES.items()}, "multi_cpu": 2}

SCRIPT = """
import json, sys
from torch import nn
from torch.utils.data import Dataset
import torch
from hf_ltsam import LTSamConfig, LTSamTrainer

class Points(Dataset):
    labels = [i % 4 if i < 12 else 0 for i in range(32)]
    def __len__(self): return 32
    def __getitem__(self, i): return {"input": torch.ones(6) * i, "labels": self.labels[i]}

args = LTSamConfig(output_dir=sys.argv[1], max_steps=2, per_device_train_batch_size=4, optim="sgd", optim_args="momentum=0.9", max_grad_norm=0.0, learning_rate=0.1, report_to="none",
                   disable_tqdm=True, save_strategy="no", logging_steps=1, method="focal_sam", use_cpu=sys.argv[2] == "multi_cpu")
trainer = LTSamTrainer(nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 4)), args, train_dataset=Points())
trainer.train()
if trainer.is_world_process_zero():
    told = {"processes": args.world_size, "steps": trainer.state.global_step, "device": args.device.type,
            "sharded": trainer.is_fsdp_enabled, "norm": trainer.state.log_history[0]["sam_eps_norm"]}
    open(sys.argv[1] + "/told.json", "w").write(json.dumps(told))
"""


def test_every_configuration_is_here():
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(DEVICES)


@pytest.mark.parametrize("name", DEVICES)
def test_accelerate_reads_it(name):
    config = load_config_from_file(str(CONFIGS / f"{name}.yaml"))
    assert config.mixed_precision == "no"
    assert config.num_processes == PROCESSES[name]
    if name == "fsdp":
        assert config.fsdp_config["fsdp_version"] == 2


def launched(name, folder):
    (folder / "script.py").write_text(SCRIPT)
    return subprocess.run(
        [
            PYTHON,
            "-m",
            "accelerate.commands.launch",
            "--config_file",
            CONFIGS / f"{name}.yaml",
            "--main_process_port",
            "0",
            folder / "script.py",
            folder,
            name,
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(CONFIGS.parents[1])},
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, gpus in DEVICES.items() if gpus > 1])
def test_without_gpus_it_says_so(name, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    started = launched(name, tmp_path)
    assert started.returncode != 0 and not (tmp_path / "told.json").exists()
    assert "2 processes were launched together, but there is no GPU here" in started.stderr
    assert "in use by another run" not in started.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", DEVICES)
def test_training_starts_with_it(name, tmp_path):
    there = torch.cuda.device_count()
    if there < DEVICES[name]:
        pytest.skip(f"{name}.yaml needs {DEVICES[name]} GPUs, this machine has {there}")
    started = launched(name, tmp_path)
    assert started.returncode == 0, started.stderr
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["steps"] == 2
    assert told["processes"] == PROCESSES[name]
    assert told["sharded"] == (name == "fsdp")
    assert told["norm"] == pytest.approx(0.05, rel=1e-3)
