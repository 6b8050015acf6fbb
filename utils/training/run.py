"""A run of the training script: its state, and how it is built from flags and files."""

import argparse
import errno
import signal
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.data_loader import DataLoaderShard, prepare_data_loader
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from torch.utils.data import DataLoader

from cococaption import CaptionScorer
from models.sevlm import SEVLM
from utils.data.datasets import EpochBatches, PairCollator, TrainingPairs, loader_processes
from utils.data.load_inputs import build_images, read_inputs
from utils.data.text_codec import TextCodec
from utils.data.vad_lexicon import Lexicon, VADLookup
from utils.errors import escaped, silence_stdout
from utils.evaluation.clip_score import load_clip_scorer
from utils.evaluation.evaluation import Evaluation
from utils.evaluation.evaluator import Evaluator, deciding_score
from utils.processes import share_weights
from utils.run_record import RECORD_KEY, flags_of
from utils.training.build_model import load_model
from utils.training.checkpoints import NamedCheckpoint, check_disk, save_named
from utils.training.fingerprints import collect_fingerprints, compare_with_checkpoint
from utils.training.optimizer import UpdateCheck, build_optimizer, count_parameters, linear_decay, parameter_groups
from utils.training.run_log import RunLog
from utils.training.signals import StopSignals

# Several processes agree on a stop only so often, as they wait for each other then.
UPDATES_BETWEEN_AGREEMENTS = 8


@dataclass
class Progress:
    """The position of a run: all that resuming needs beside weights and optimiser.

    Attributes:
        epoch, step: the next step to do (step: index within the epoch).
        updates: of the optimiser, skipped ones included.
        best_acc, best_res: best emotion accuracy, and best value of the score that decides on best-res.
        evals_without_improvement: evaluations in a row that improved neither.
        evaluation_due: the state was saved just before an evaluation.
        evaluated: the [epoch, step] last scored.
        best_res_at: the [epoch, step] of best-res; empty if that is an earlier run's.
        scores: of every evaluation so far, with epoch and step.
    """

    epoch: int = 0
    step: int = 0
    updates: int = 0
    best_acc: float = -1.0
    best_res: float = -1.0
    evals_without_improvement: int = 0
    evaluation_due: bool = False
    evaluated: list[int] = field(default_factory=list)
    best_res_at: list[int] = field(default_factory=list)
    scores: list[dict] = field(default_factory=list)


@dataclass
class TrainingRun:
    """One run of the training script.

    `prepare` sets what scoring a checkpoint (--eval_only) also needs, `build_training` the rest.

    Attributes:
        fingerprints: hashes of the run's inputs, see utils/training/fingerprints.py.
        model: the bare module; `prepared` is the same, wrapped by accelerate.
        checkpoint: the one that --load_from_epoch names, or None.
        dataset: None if a checkpoint is only scored.
        settings: the record of flags and fingerprints, see utils/run_record.py.
        parameters: those that are trained; parameter_names: their names by parameter group.
        last_losses: as last logged, empty before.
        time_logged: whether the estimate of the training's duration was printed.
        check: of the last update, until the host has read it.
    """

    args: argparse.Namespace
    accelerator: Accelerator
    model: SEVLM
    codec: TextCodec
    lexicon: Lexicon | None
    evaluator: Evaluator
    dataset: TrainingPairs | None
    fingerprints: dict[str, Any]
    checkpoint: NamedCheckpoint | None
    settings: dict[str, Any] = field(init=False)
    prepared: nn.Module = field(init=False)
    batches: EpochBatches = field(init=False)
    loader: DataLoaderShard = field(init=False)
    parameters: list[nn.Parameter] = field(init=False)
    parameter_names: list[list[str]] = field(init=False)
    optimizer: AcceleratedOptimizer = field(init=False)
    scheduler: torch.optim.lr_scheduler.LambdaLR = field(init=False)
    log: RunLog = field(init=False)
    signals: StopSignals = field(init=False)
    progress: Progress = field(default_factory=Progress)
    last_evaluation: Evaluation | None = None
    last_losses: dict[str, float] = field(default_factory=dict)
    time_logged: bool = False
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

    def print(self, text: str) -> None:
        """Print text, once for all processes, with control characters escaped. If nobody reads it any more, stop the run."""
        try:
            self.accelerator.print(escaped(text, keep="\n"), flush=True)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):  # EIO: the terminal is closed
                raise
            silence_stdout()
            self.signals.ask(signal.SIGPIPE)

    def agreed_signals(self, now: bool = False) -> tuple[bool, int | None]:
        """Whether a state was asked for, and the signal that asked for a stop; the same on all processes.

        Several processes agree every few updates only, or `now`; in between they report neither.
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
    save_named(run.args.ckpt_path, name, run.model, run.codec.tokenizer, fields, stats)


# ---- from flags and files to a run -----------------------------------------------------------------------------------


def prepare(args: argparse.Namespace, accelerator: Accelerator, scorer: CaptionScorer | None) -> TrainingRun:
    """Load the model and the data that it is trained and scored on.

    Raises:
        InputError: a file is missing or wrong, or files, flags and checkpoint contradict each other.
    """
    inputs = read_inputs(args, scorer)
    records, train, lexicon = inputs.records, inputs.train, inputs.lexicon
    checkpoint, codec, model = load_model(args)
    if model.decoder.origin and not args.resume:
        accelerator.print(escaped(model.decoder.origin))
    train_images = None if train is None else len(train)
    fingerprints = collect_fingerprints(args, accelerator, model, codec, lexicon, train_images)
    for note in compare_with_checkpoint(args, fingerprints):
        accelerator.print(escaped(note))
    vad = None if lexicon is None else VADLookup(lexicon, args.lemmatizer, codec, args.cache_dir)
    images = build_images(args, model, inputs, accelerator.device)
    args.image_root = inputs.image_root
    reranker = None
    if args.rerank == "clip":
        reranker = load_clip_scorer(args.rerank_model, args.image_root, accelerator.device, "--rerank_model")
    evaluator = Evaluator(args, accelerator, records, images, codec, vad if args.use_VAD else None, scorer, reranker)
    pairs = None
    if train is not None:
        if accelerator.is_main_process:
            accelerator.print(check_disk(model, args.ckpt_path, args.resume))
        pairs = TrainingPairs(train, images, codec, vad, args.seed, args.first_text, args.cache_dir)
    return TrainingRun(args, accelerator, model, codec, lexicon, evaluator, pairs, fingerprints, checkpoint)


def build_training(run: TrainingRun, signals: StopSignals) -> None:
    """Build loader, optimiser and schedule, and wrap the model by accelerate."""
    args, accelerator, model, pairs = run.args, run.accelerator, run.model, run.dataset
    batches = EpochBatches(len(pairs), args.batch_size, args.seed, accelerator.process_index, accelerator.num_processes)
    loader = DataLoader(
        pairs,
        batch_sampler=batches,
        collate_fn=PairCollator(
            args.seed,
            args.len_prefix,
            model.config.fusion_start,
            model.config.label_position if args.use_label_loss else None,
        ),
        **loader_processes(args.num_workers),
        persistent_workers=args.num_workers > 0,  # workers forked in a later epoch would copy the optimiser's moments
        pin_memory=accelerator.device.type == "cuda",
        generator=torch.Generator(),
    )
    groups, run.parameter_names = parameter_groups(args, model)
    run.parameters = [parameter for group in groups for parameter in group["params"]]
    optimizer = build_optimizer(groups, args.adam_eps, args.adamw)
    updates = args.num_train_epochs * -(-len(batches) // args.gradient_accumulation_steps)
    run.scheduler = linear_decay(optimizer, updates)
    if args.compile:  # the large parts; not the vocabulary loss, whose size changes from step to step
        for part in filter(None, (model.image_encoder, model.decoder)):
            part.compile()
    model.train()  # from_pretrained leaves parts in evaluation mode
    if args.num_workers and accelerator.device.type == "cpu":
        share_weights(model)
    run.prepared, run.optimizer = accelerator.prepare(model, optimizer)
    # the sampler has already divided the images among the processes; accelerate moves batches and sees the epoch's end
    run.loader = prepare_data_loader(
        loader, accelerator.device, num_processes=1, process_index=0, put_on_device=True, non_blocking=True
    )
    run.batches, run.log, run.signals = batches, RunLog(args.caption_save_path), signals
    run.settings = {"flags": flags_of(args), "fingerprints": run.fingerprints}
    for part in ("vad_encoder", "decoder", "image_encoder", "emotion_head"):
        if trained := count_parameters(getattr(model, part)):
            run.print(f"{part}: {trained:,} trained parameters")
    run.print(f"{len(pairs)} images, {run.steps_per_epoch} steps per epoch, {updates} updates in all")
    run.print(f"best-acc keeps the best emotion accuracy, best-res the best {deciding_score(args.metrics)}")
