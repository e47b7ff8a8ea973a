"""`ltsam evaluate`: a checkpoint on shifted and corrupted test sets, accuracy by groups and error per corruption.

    accelerate launch training_scripts/evaluate_ood.py --model CHECKPOINT --sets imagenet_sketch imagenetv2 imagenet_c \\
        --data_dir FOLDER
    ltsam evaluate --model runs/demo/la_focal_sam/seed0 --sets digits digits_c

A set is one of the names below, a folder, a table, OWNER/NAME or OWNER/NAME@REVISION on the Hub; `_c` behind any: the 15
corruptions of ImageNet-C, made of its test images on the fly. The results are written to one JSON file after every part; the
same command goes on with what is missing. They depend neither on --batch_size nor on the number of processes.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from accelerate import PartialState
from rich.console import Console
from rich.table import Table

from dataset_builders.corruptions import CORRUPTIONS, SEVERITIES
from hf_ltsam.class_statistics import GROUPS
from hf_ltsam.cli.evaluate.evaluation import EvaluationSettings, evaluate, process_device
from hf_ltsam.cli.evaluate.sets import Places, TestSet, find_sets, set_names
from hf_ltsam.cli.model_names import check_model
from hf_ltsam.cli.options.parser import OptionParser
from hf_ltsam.cli.user_errors import user_errors
from hf_ltsam.data.preprocessing import TEST_TIME
from hf_ltsam.runs.escaping import terminal
from hf_ltsam.runs.files import check_output_folder
from hf_ltsam.runs.folder import EVALUATION, EVALUATION_RESULTS
from hf_ltsam.runs.shift.checkpoint import Checkpoint, check_model_name, load_classifier
from hf_ltsam.runs.shift.report import short, write_report
from hf_ltsam.runs.shift.results import OtherErrors, Results, percent, read_baseline


def main(argv: Sequence[str] | None = None) -> None:
    """`ltsam evaluate`."""
    with user_errors():
        options = _parser().parse_args(argv)
        settings = EvaluationSettings(
            corruptions=tuple(dict.fromkeys(options.corruptions)),
            severities=tuple(sorted(set(options.severities))),
            seed=options.seed,
            test_time=options.test_time,
            only_known_classes=options.only_known_classes,
            image_column=options.image_column,
            label_column=options.label_column,
            text_column=options.text_column,
            batch_size=options.batch_size,
            num_workers=options.num_workers,
        )
        places = Places.of(options.data_dir, not options.incomplete_copies)
        evaluate_model(
            options.model, options.sets, settings, places, options.output_dir, options.baseline, options.use_cpu
        )


def evaluate_model(
    model: str,
    sets: Sequence[str],
    settings: EvaluationSettings | None = None,
    places: Places | None = None,
    output_dir: Path | None = None,
    baseline: Path | None = None,
    use_cpu: bool = False,
) -> Results:
    """Evaluate a model on test sets, and write results, tables and figures into a folder.

    Args:
        model: folder of a checkpoint, or OWNER/NAME on the Hub.
        sets: test sets, as `find_sets` takes them.
        places: where copies of them are.
        output_dir: None: `evaluation` in the folder of the checkpoint.
        baseline: results of another model: errors under corruption are relative to it.
        use_cpu: leave an accelerator alone.

    Raises:
        ValueError, FileNotFoundError: a set, a folder or a baseline that is not there, or classes that are not the model's.
    """
    settings = settings or EvaluationSettings()
    check_model_name(model)
    check_model(model, finished=True)
    test_sets = find_sets(sets, places or Places())
    _check_corrupted(test_sets, settings, baseline)
    folder = output_folder(model, output_dir)
    baselines = _baselines(baseline, test_sets, settings)
    device = process_device(use_cpu)
    if PartialState().is_main_process:
        check_output_folder(str(folder))
    checkpoint = load_classifier(model, device)
    if PartialState().is_main_process:
        checkpoint.warn_of_other_views(settings.test_time)
    try:
        return _evaluate_checkpoint(checkpoint, test_sets, settings, folder, baselines)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt("The same command goes on where this one stopped.") from interrupt


def _evaluate_checkpoint(
    checkpoint: Checkpoint,
    sets: Sequence[TestSet],
    settings: EvaluationSettings,
    folder: Path,
    baselines: Mapping[str, OtherErrors],
) -> Results:
    state = PartialState()
    results = Results(
        folder / EVALUATION_RESULTS, checkpoint.about, checkpoint.statistics, writes=state.is_main_process
    )
    state.wait_for_everyone()  # all have read the file before one writes it
    for test_set in sets:
        evaluate(checkpoint, test_set, settings, results, baselines.get(test_set.name))
    if state.is_main_process:
        files = write_report(folder, results.to_dict())
        _show(results, [test_set.name for test_set in sets], [results.path, *files], settings)
    return results


def output_folder(model: str, output_dir: Path | None) -> Path:
    """Where results go: `evaluation` in the checkpoint's folder, or below runs/evaluation for a model of the Hub."""
    if output_dir is not None:
        return output_dir
    return Path(model) / EVALUATION if Path(model).is_dir() else Path("runs/evaluation") / model.replace("/", "_")


def _parser() -> argparse.ArgumentParser:
    parser = OptionParser(
        prog="ltsam evaluate",
        description=__doc__,
        epilog=f"sets: {', '.join(set_names())}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, help="folder of a checkpoint, or OWNER/NAME on the Hub")
    parser.add_argument("--sets", required=True, nargs="+", metavar="SET", help="test sets, see above and below")
    where = "holds the sets in folders of their names; or NAME=FOLDER"
    parser.add_argument("--data_dir", nargs="+", default=[], metavar="FOLDER", help=where)
    parser.add_argument("--output_dir", type=Path, help="default: `evaluation` in the folder of the checkpoint")
    parser.add_argument(
        "--baseline", type=Path, help=f"{EVALUATION_RESULTS} of another model: CE and mCE are relative to it"
    )
    parser.add_argument("--test_time", default="none", help=f"views that are averaged: {', '.join(TEST_TIME)}")
    parser.add_argument(
        "--corruptions", nargs="+", default=CORRUPTIONS, metavar="NAME", help="default: those of ImageNet-C"
    )
    parser.add_argument("--severities", nargs="+", type=int, default=SEVERITIES, metavar="S", help="default: all")
    parser.add_argument(
        "--seed", type=int, default=0, help="of corruptions that are made on the fly (default: %(default)s)"
    )
    parser.add_argument(
        "--only_known_classes", action="store_true", help="leave out images of classes that the model does not know"
    )
    parser.add_argument("--image_column", metavar="NAME", help="default: the only column of images")
    parser.add_argument("--label_column", metavar="NAME", help="default: the only ClassLabel, or label, class, ...")
    parser.add_argument(
        "--text_column",
        nargs="+",
        metavar="NAME",
        help="of models of texts; default: as in training, text, or the only one",
    )
    parser.add_argument("--incomplete_copies", action="store_true", help="take copies that lack images as they are")
    parser.add_argument("--batch_size", type=int, default=64, help="of every process (default: %(default)s)")
    parser.add_argument("--num_workers", type=int, help="processes that load images; default: by cores and images")
    parser.add_argument("--use_cpu", action="store_true", help="leave an accelerator alone")
    return parser


def _check_corrupted(sets: Sequence[TestSet], settings: EvaluationSettings, baseline: Path | None) -> None:
    """Refuse what is for corruptions alone where no set has any.

    Raises:
        ValueError: naming the setting.
    """
    stated = {
        "corruptions": " ".join(settings.corruptions) if tuple(settings.corruptions) != CORRUPTIONS else None,
        "severities": " ".join(map(str, settings.severities)) if tuple(settings.severities) != SEVERITIES else None,
        "baseline": baseline,
    }
    named = [f"--{name} {value}" for name, value in stated.items() if value is not None]
    if named and not any(test_set.corruptions for test_set in sets):
        names = " ".join(test_set.name for test_set in sets)
        raise ValueError(
            f"{named[0]}: no set of --sets {names} is corrupted. {sets[0].name}_c stands for the corruptions of its images."
        )


def _baselines(file: Path | None, sets: Sequence[TestSet], settings: EvaluationSettings) -> dict[str, OtherErrors]:
    if file is None:
        return {}
    corrupted = [test_set.name for test_set in sets if test_set.corruptions]
    return {name: read_baseline(file, name, settings.cells()) for name in corrupted}


def _show(results: Results, names: Sequence[str], files: Sequence[Path], settings: EvaluationSettings) -> None:
    """Accuracies in percent; of corruptions, the means."""
    table = Table("in %", "overall", *GROUPS, "mean error", "mCE")
    relative = set()
    for name in names:
        of_set = results.sets[name]
        entry = of_set.get("summary") or of_set["result"]
        overall = 1 - entry["mean_error"] if "mean_error" in entry else entry["overall"]
        fractions = [overall, *(entry["groups"].get(group) for group in GROUPS), entry.get("mean_error")]
        mce = entry.get("mce")
        table.add_row(terminal(short(name)), *map(percent, fractions), "-" if mce is None else f"{mce:.1f}")
        relative |= {entry["relative_to"]} if mce is not None else set()
    console = Console()
    console.print(table)
    if relative:
        console.print(f"mCE is relative to {terminal(', '.join(sorted(relative)))}.", highlight=False)
    for name in names:
        summary = results.sets[name].get("summary")
        if summary and len(summary["errors"]) * len(summary["severities"]) > len(settings.cells()):
            severities = ", ".join(map(str, summary["severities"]))
            console.print(
                f"{terminal(short(name))}: means over {len(summary['errors'])} corruptions at severities {severities}, with "
                "those measured before.",
                highlight=False,
                soft_wrap=True,
            )
    if results.header["class_statistics"] is None:
        console.print("No class statistics lie beside the model, so there are no accuracies by group.")
    for file in files:
        console.print(f"  {terminal(str(file))}", soft_wrap=True, highlight=False)
