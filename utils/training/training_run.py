"""A training run: what it consists of, where it stands, and its best checkpoints."""

import argparse
import errno
import signal
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.data_loader import DataLoaderShard
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn

from models.sevlm import SEVLM
from utils.data.datasets import EpochBatches, TrainingPairs
from utils.data.text_codec import TextCodec
from utils.errors import escaped, silence_stdout
from utils.evaluation.evaluation import Evaluation
from utils.evaluation.evaluator import Evaluator
from utils.run_record import RECORD_KEY
from utils.training.checkpoints import save_named
from utils.training.run_log import RunLog
from utils.training.stop_signals import StopSignals
from utils.training.update_check import UpdateCheck

# Several processes agree on a stop only so often, as agreeing makes them wait for each other.
UPDATES_BETWEEN_AGREEMENTS = 8


@dataclass
class Progress:
    """Where a run stands; all that a continuation needs beside weights and optimiser.

    epoch, step: the next step to do (step: index within the epoch). updates: of the optimiser, skipped ones included.
    best_acc, best_res: best emotion accuracy, and best score of those that decide on best-res. without_gain: evaluations
    in a row that brought no better score. evaluation_due: the state was saved just before an evaluation. evaluated: the
    [epoch, step] last scored, best_res_at: where best-res was scored, empty where that was before this run. scores: of
    every evaluation so far.
    """

    epoch: int = 0
    step: int = 0
    updates: int = 0
    best_acc: float = -1.0
    best_res: float = -1.0
    without_gain: int = 0
    evaluation_due: bool = False
    evaluated: list[int] = field(default_factory=list)
    best_res_at: list[int] = field(default_factory=list)
    scores: list[dict] = field(default_factory=list)


@dataclass
class TrainingRun:
    """One training: what the training script builds and hands from function to function.

    model is the bare module, prepared the same as accelerate wants it. parameters are those that are trained,
    parameter_names their names by parameter group. settings is the record of flags and facts, see utils/run_record.py.
    last_evaluation is None until there is one, last_losses (as last logged) empty. time_told: whether the time that the
    training takes has been said. check: of the last update, where the host has not looked at it yet.
    """

    args: argparse.Namespace
    accelerator: Accelerator
    settings: dict[str, Any]
    model: SEVLM
    prepared: nn.Module
    codec: TextCodec
    evaluator: Evaluator
    dataset: TrainingPairs
    batches: EpochBatches
    loader: DataLoaderShard
    parameters: list[nn.Parameter]
    parameter_names: list[list[str]]
    optimizer: AcceleratedOptimizer
    scheduler: torch.optim.lr_scheduler.LambdaLR
    log: RunLog
    signals: StopSignals
    progress: Progress = field(default_factory=Progress)
    last_evaluation: Evaluation | None = None
    last_losses: dict[str, float] = field(default_factory=dict)
    time_told: bool = False
    check: UpdateCheck | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch, on each process."""
        return -(-self.batches.size // self.batches.global_batch)

    @property
    def updates_per_epoch(self) -> int:
        """Optimiser steps of an epoch; the last may take fewer batches than the others."""
        return -(-self.steps_per_epoch // self.args.gradient_accumulation_steps)

    def updates_before(self, epoch: int, step: int) -> int:
        """Optimiser steps made before `step` of `epoch`."""
        return epoch * self.updates_per_epoch + -(-step // self.args.gradient_accumulation_steps)

    def say(self, text: str) -> None:
        """Print text, once for all processes; much of it quotes files. When nobody reads it any more, the run is to stop."""
        try:
            self.accelerator.print(escaped(text, keep="\n"), flush=True)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):  # EIO: of a closed terminal
                raise
            silence_stdout()
            self.signals.ask(signal.SIGPIPE)

    def agreed_signals(self, now: bool = False) -> tuple[bool, int | None]:
        """Whether a state is asked for, and the signal that asks for a stop: the same on all processes.

        Several processes agree every few updates only, or `now`; in between nothing is asked for.
        """
        signals = self.signals
        if self.accelerator.num_processes == 1:
            return signals.save, signals.stop
        if not now and self.progress.updates % UPDATES_BETWEEN_AGREEMENTS:
            return False, None
        asked = torch.tensor([float(signals.save), float(signals.stop is not None)], device=self.accelerator.device)
        save, stop = (self.accelerator.reduce(asked, "sum") > 0).tolist()
        return save, (signals.stop or signal.SIGTERM) if stop else None


def save_best(run: TrainingRun, name: str) -> None:
    """Write the model as the named checkpoint best-acc or best-res; on the main process only."""
    stats = {
        "epoch": run.progress.epoch,
        "best_acc": run.progress.best_acc,
        "best_res": run.progress.best_res,
        "optimizer_state_dict": run.optimizer.state_dict(),
        "scheduler": run.scheduler.state_dict(),
        "parameter_names": run.parameter_names,
        "progress": asdict(run.progress),
    }
    fields = {RECORD_KEY: run.settings}
    save_named(Path(run.args.ckpt_path), name, run.model, run.codec.tokenizer, fields, stats)
