"""What RUN means to the commands that read a run: any of its folders. Which checkpoints these hold: see `find_model`.

runs/demo            the run's folder, which holds ckpts/ and results/
runs/demo/results    its results, the --caption_save_path of the training
runs/demo/ckpts      its checkpoints, the --ckpt_path of the training, whose record names the results
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

from utils.command_line import is_export
from utils.constants import IMAGE_FOLDERS
from utils.errors import InputError
from utils.files import moved
from utils.hub import folder_or_id
from utils.layout import LOG_FILE, REPORT, RESULTS, list_names, model_folder
from utils.opts import declared
from utils.run_record import read_record
from utils.training.run_log import read_log
from utils.training.summary import test_command


def results_folder(run: Path) -> Path:
    """The folder of a run's log, captions and scores.

    Raises:
        InputError: `run` is none of a run's folders, or an exported model.
    """
    if not run.is_dir():
        raise InputError(f"{run}: no such folder; name that of a run, e.g. runs/demo")
    if is_export(run):
        raise InputError(f"{run}: is an exported model, which has no results; name the folder of the run itself")
    for folder in (run, run / RESULTS, *_recorded_results(run)):
        if (folder / LOG_FILE).is_file() or any(folder.glob("unf_captions_full_*")) or (folder / REPORT).is_file():
            return folder
    raise InputError(
        f"{run}: holds neither a log ({LOG_FILE}) nor captions: no evaluation has finished yet, or it is not the folder "
        "of a run; wait for the first evaluation, or name another folder"
    )


def _recorded_results(ckpt_path: Path) -> list[Path]:
    """Where the results of the checkpoints in a folder may be: moved along with the folder, or where they were written."""
    for name in list_names(ckpt_path):
        config = model_folder(ckpt_path, name) / "config.json"
        flags = (read_record(config) or {}).get("flags", {}) if config.is_file() else {}
        if {"ckpt_path", "caption_save_path"} <= flags.keys():
            return [moved(flags["caption_save_path"], flags["ckpt_path"], ckpt_path), Path(flags["caption_save_path"])]
    return []


def report_file(run: Path) -> Path:
    """The test report of a run, or `run` itself if it is a file.

    Raises:
        InputError: the run has no test report; the message gives the command that writes one.
    """
    if run.is_file():
        return run
    if not run.exists():
        raise InputError(f"{run}: no such file or folder; name a run, e.g. runs/demo, or a {REPORT}")
    results = results_folder(run)
    for path in (results / REPORT, results / "test" / REPORT, run / "test" / REPORT):  # the last is utils.sweep's
        if path.is_file():
            return path
    command = f"; write one: {test_command(_training_args(results))}" if (results / LOG_FILE).is_file() else ""
    raise InputError(f"{run}: has no test report ({REPORT}){command}")


def _training_args(results: Path) -> argparse.Namespace:
    """The flags of the training whose log is in a folder, as its command line gave them."""
    flags = read_log(results / LOG_FILE).flags
    paths = {name for name, flag in declared().items() if flag.type in (Path, folder_or_id)}
    return argparse.Namespace(
        **{name: Path(value) if name in paths and value is not None else value for name, value in flags.items()}
    )


def recorded_path(flags: dict, name: str, results: Path) -> Path | None:
    """The path in a flag of the run: moved along with the results, or where it was; None where the run names none."""
    if flags.get(name) is None:
        return None
    path = moved(flags[name], flags.get("caption_save_path", RESULTS), results)
    return path if path.exists() else Path(flags[name])


def images_beside(records: Path) -> Path | None:
    """The image folder in its usual place, beside a split or one folder up; None where there is none."""
    return first_existing(folder / name for folder in (records.parent, records.parent.parent) for name in IMAGE_FOLDERS)


def first_existing(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if path.exists()), None)


def recorded_flags(results: Path) -> dict:
    """The flags of the run, from its log here or one folder up; empty where there is none."""
    path = first_existing(folder / LOG_FILE for folder in (results, results.absolute().parent))
    return {} if path is None else read_log(path).flags
