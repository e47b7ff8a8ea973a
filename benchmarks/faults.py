"""Kill trainings at random moments, resume them, and compare what comes out with trainings that nobody disturbed.

    python benchmarks/faults.py --kills 40 --seed 0

Every training is a process of its own (two for two ranks). It is killed from outside, at a moment drawn uniformly over the
time that its undisturbed twin takes, and started again from what transformers' `get_last_checkpoint` finds, until it has
been killed `--kills_per_run` times; then it may end. Weights, optimizer state and method memory are compared bit by bit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from hf_ltsam import LTSamConfig, LTSamTrainer

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["hf_ltsam.training.trainer", "accelerate", "transformers.trainer_jit_checkpoint"])
WHERE = ("starting", "between steps", "first pass", "later pass", "optimizer", "writing a checkpoint", "ended")


@dataclass(frozen=True)
class Case:
    """One kind of training.

    Args:
        ranks: processes (gloo).
        on_sigterm: it is ended by SIGTERM and saves a checkpoint of its own; otherwise by SIGKILL.
    """

    method: str
    method_args: dict[str, Any] | None = None
    accumulation: int = 1
    ranks: int = 1
    on_sigterm: bool = False


RHO = {"rho": {"piecewise": {"values": [0.05, 0.2], "boundaries": [0.6]}}}
CASES = (
    Case("sam", RHO), Case("looksam"), Case("msam", accumulation=2), Case("friendly_sam"), Case("focal_sam", RHO, 2),
    Case("sse_sam"), Case("looksam", ranks=2), Case("friendly_sam", accumulation=2, ranks=2),
    Case("looksam", on_sigterm=True), Case("msam", ranks=2, on_sigterm=True),
)  # fmt: skip


class Noisy(Dataset):
    """160 vectors of 4 classes with a tail, and noise in `__getitem__`."""

    def __init__(self) -> None:
        self.labels = [c for c, n in enumerate((90, 40, 20, 10)) for _ in range(n)]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": torch.randn(16) + self.labels[index], "labels": self.labels[index]}


class Model(nn.Module):
    """Batch norm and dropout: running statistics and random numbers must resume too."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        wide = [layer for _ in range(4) for layer in (nn.Linear(512, 512), nn.ReLU())]  # so that passes take some time
        self.body = nn.Sequential(nn.Linear(16, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Dropout(0.3), *wide)
        self.classifier = nn.Linear(512, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.body(x))


class Tells(TrainerCallback):
    """Notes where the training is, for whoever kills it."""

    def __init__(self, place: Any, model: nn.Module) -> None:
        self.place, self.passes = place, 0
        model.register_forward_pre_hook(self.on_pass)

    def on_pass(self, *_: Any) -> None:
        self.passes += 1
        self.place.value = WHERE.index("first pass" if self.passes == 1 else "later pass")

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.passes = 0

    on_substep_end = on_step_begin

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.place.value = WHERE.index("optimizer")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.place.value = WHERE.index("writing a checkpoint" if control.should_save else "between steps")


def train(case: Case, folder: Path, rank: int, port: int, place: Any) -> None:
    """What a process does."""
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = (folder.parent / f"{folder.name}.log").open("a", buffering=1)
    if case.ranks > 1:
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": "2",
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "ACCELERATE_USE_CPU": "true",
        }
    config = LTSamConfig(
        output_dir=str(folder),
        num_train_epochs=6,
        per_device_train_batch_size=8,
        learning_rate=0.05,
        optim="sgd",
        optim_args="momentum=0.9",
        lr_scheduler_type="cosine",
        max_grad_norm=0.0,
        use_cpu=True,
        gradient_accumulation_steps=case.accumulation,
        save_strategy="steps",
        save_steps=5,
        save_total_limit=2,
        seed=3,
        report_to="none",
        disable_tqdm=True,
        logging_steps=50,
        log_level="error",
        method=case.method,
        method_args=case.method_args,
        tail_threshold=20,
        reweighting="effective_number",
        reweighting_start=0.5,
        ddp_timeout=20,
        enable_jit_checkpoint=case.on_sigterm,
        dataloader_pin_memory=False,
    )
    trainer = LTSamTrainer(Model(), config, train_dataset=Noisy())
    trainer.add_callback(Tells(place, trainer.model))
    place.value = WHERE.index("between steps")
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)))
    place.value = WHERE.index("ended")
    momentum = trainer.optimizer.state_dict()["state"]
    left = {"weights": trainer.model.state_dict(), "optimizer": momentum, "memory": trainer.method_memory.values}
    torch.save(left, folder / f"left_{rank}.pt")
    if case.ranks > 1:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


class Running:
    """The processes of one training."""

    def __init__(self, case: Case, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.places = [PROCESSES.Value("i", 0, lock=False) for _ in range(case.ranks)]
        self.processes = [
            PROCESSES.Process(target=train, args=(case, folder, rank, port, place))
            for rank, place in enumerate(self.places)
        ]
        for process in self.processes:
            process.start()

    def wait_until_it_trains(self) -> None:
        while not all(place.value for place in self.places) and all(p.is_alive() for p in self.processes):
            time.sleep(0.0005)

    def wait(self, seconds: float = 120) -> list[int | None]:
        """The exit codes; None of a process that hangs."""
        for process in self.processes:
            process.join(seconds)
        codes = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.kill()
        return codes


def undisturbed(case: Case, folder: Path) -> float:
    """Train without faults; the seconds that the training took."""
    running = Running(case, folder)
    running.wait_until_it_trains()
    start = time.perf_counter()
    codes = running.wait()
    if codes != [0] * case.ranks:
        raise RuntimeError(f"{case} ended with {codes}:\n{(folder.parent / f'{folder.name}.log').read_text()}")
    return time.perf_counter() - start


def kill_once(case: Case, folder: Path, seconds: float, draw: random.Random) -> str | None:
    """Start or resume, and kill at a random moment; where that was, or None where the training had ended before."""
    running = Running(case, folder)
    running.wait_until_it_trains()
    time.sleep(draw.uniform(0, seconds))
    victim = draw.randrange(case.ranks)
    with contextlib.suppress(ProcessLookupError):  # it has ended in the meantime
        os.kill(running.processes[victim].pid, signal.SIGTERM if case.on_sigterm else signal.SIGKILL)
    where = WHERE[running.places[victim].value]
    codes = running.wait()
    if None in codes:
        raise RuntimeError(f"{case}: a process hangs after its neighbour was killed ({codes}).")
    return None if codes == [0] * case.ranks or where == "ended" else where


def largest_difference(case: Case, folder: Path, twin: Path) -> float:
    """Over weights, optimizer state and memory of all ranks; infinite where something is missing on one side."""
    largest = 0.0
    for rank in range(case.ranks):
        a, b = (list(_tensors(torch.load(f / f"left_{rank}.pt", weights_only=True))) for f in (folder, twin))
        if len(a) != len(b):
            return float("inf")
        largest = max([largest, *((x.double() - y.double()).abs().max().item() for x, y in zip(a, b) if x.numel())])
    return largest


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, dict | list | tuple):
        for branch in tree.values() if isinstance(tree, dict) else tree:
            yield from _tensors(branch)


def campaign(kills: int, kills_per_run: int, seed: int, root: Path) -> dict[str, Any]:
    """Kill `kills` times in all, over the cases in turn."""
    draw, where, rows = random.Random(seed), Counter[str](), []
    twins = {}
    while sum(where.values()) < kills:
        case = CASES[len(rows) % len(CASES)]
        folder, twin = root / f"run{len(rows)}", root / f"twin{len(rows) % len(CASES)}"
        if twin not in twins:
            twins[twin] = undisturbed(case, twin)
        hit = [kill_once(case, folder, twins[twin], draw) for _ in range(kills_per_run)]
        where.update(place for place in hit if place)
        undisturbed(case, folder)
        rows.append(
            {
                **asdict(case),
                "killed": [place for place in hit if place],
                "largest difference": largest_difference(case, folder, twin),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    differences = [row["largest difference"] for row in rows]
    return {
        "runs": len(rows),
        "identical": differences.count(0.0),
        "kills": sum(where.values()),
        "where": dict(where),
        "largest difference": max(differences),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=40, help="in all")
    parser.add_argument("--kills_per_run", type=int, default=3, help="at most, before a run may end")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = campaign(arguments.kills, arguments.kills_per_run, arguments.seed, Path(folder))
    print(
        f"{result['identical']} of {result['runs']} runs identical after {result['kills']} kills; {json.dumps(result)}"
    )
    if result["identical"] != result["runs"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
