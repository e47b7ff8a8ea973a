"""What a table starts, in this process, in the place of processes of their own."""

from hf_ltsam.cli.reproduce import runs as table_runs
from hf_ltsam.cli.reproduce.runs import RowRun
from hf_ltsam.cli.train import train


class Ended:
    """A process that has ended well."""

    returncode = 0

    def poll(self):
        return 0


def start_here(monkeypatch, started, kind, main, name):
    """What is started of this kind runs here, one after the other.

    Args:
        started: gets the names, in the order of the starts.
        main: of the command.
        name: of what is started.
    """

    def start(task, threads):
        started.append(name(task))
        main(task.arguments())
        return Ended()

    monkeypatch.setattr(kind, "start", start)
    monkeypatch.setattr(table_runs, "POLL", 0)


def train_here(monkeypatch, started):
    """The same for trainings, by their folders below that of the table."""

    def name(run):
        run.folder.mkdir(parents=True, exist_ok=True)
        return str(run.folder.relative_to(run.root))

    start_here(monkeypatch, started, RowRun, train.main, name)
