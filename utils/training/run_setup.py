"""From flags and files to a run: what training and scoring have in common, then what only a training has."""

import argparse
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader

from cococaption import CaptionScorer
from models.sevlm import SEVLM
from utils.allocator import give_back_freed_memory
from utils.command_line import checkpoint_config, recorded_settings
from utils.data.datasets import EpochBatches, PairCollator, TrainingPairs
from utils.data.load_inputs import build_images, read_inputs
from utils.data.loader_errors import loader_processes
from utils.data.text_codec import TextCodec
from utils.data.vad_lookup import Lexicon, VADLookup
from utils.environment import cores
from utils.errors import escaped
from utils.evaluation.evaluator import Evaluator, deciding_score
from utils.run_record import compare_facts, compare_flags, flags_of
from utils.training.checkpoints import NamedCheckpoint
from utils.training.disk import check_disk
from utils.training.facts import collect_facts, encoder_identity
from utils.training.load_checkpoint import load_model
from utils.training.memory import share_weights
from utils.training.optimizer import build_optimizer, count_parameters, linear_decay, parameter_groups
from utils.training.resume import continue_from, resume
from utils.training.run_log import RunLog
from utils.training.stop_signals import StopSignals
from utils.training.trackers import start_trackers
from utils.training.training_run import TrainingRun


class Setup(NamedTuple):
    """What training and scoring have in common; pairs is None where a checkpoint is only scored."""

    checkpoint: NamedCheckpoint | None
    model: SEVLM
    codec: TextCodec
    lexicon: Lexicon | None
    evaluator: Evaluator
    pairs: TrainingPairs | None
    facts: dict[str, Any]


def prepare(args: argparse.Namespace, accelerator: Accelerator, scorer: CaptionScorer | None) -> Setup:
    """From files to a model and what it is scored on.

    Raises:
        InputError: files, flags and checkpoint do not go together.
    """
    inputs = read_inputs(args, scorer)
    records, train, lexicon = inputs.records, inputs.train, inputs.lexicon
    checkpoint, codec, model = load_model(args)
    if model.decoder.origin and not args.resume:
        accelerator.print(escaped(model.decoder.origin))
    encoder = encoder_identity(model.image_encoder)
    training_images = None if train is None else len(train)
    facts = collect_facts(args, accelerator, model, encoder, codec, lexicon, training_images)
    record = recorded_settings(args)
    if record is not None:
        source = checkpoint_config(args).parent
        notes = compare_flags(record, args, args.eval_only, source)
        for note in notes + compare_facts(record, facts, args.eval_only, source):
            accelerator.print(escaped(note))
    vad = None if lexicon is None else VADLookup(lexicon, args.lemmatizer, codec, args.cache_dir)
    images = build_images(args, model, inputs, accelerator.device)
    args.image_root = inputs.image_root
    evaluator = Evaluator(args, accelerator, records, images, codec, vad if args.use_VAD else None, scorer)
    pairs = None
    if train is not None:
        if accelerator.is_main_process:
            accelerator.print(check_disk(model, args.ckpt_path, args.resume))
        processes = max(cores() // accelerator.num_processes, 1)
        pairs = TrainingPairs(train, images, codec, vad, args.seed, args.first_text, args.cache_dir, processes)
    return Setup(checkpoint, model, codec, lexicon, evaluator, pairs, facts)


def build_training(
    args: argparse.Namespace, accelerator: Accelerator, setup: Setup, signals: StopSignals
) -> TrainingRun:
    """Loader, optimiser and schedule; the model as accelerate wants it; a new run, or one that goes on."""
    model, codec, pairs = setup.model, setup.codec, setup.pairs
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
        persistent_workers=args.num_workers > 0,  # those of a later epoch would be forked with the optimiser's averages
        pin_memory=accelerator.device.type == "cuda",
        generator=torch.Generator(),
    )
    # the sampler has dealt the images out to the processes already; accelerate moves batches and sees the epoch's end
    loader = prepare_data_loader(
        loader, accelerator.device, num_processes=1, process_index=0, put_on_device=True, non_blocking=True
    )
    groups, names = parameter_groups(args, model)
    optimizer = build_optimizer(groups, args.adam_eps, args.adamw)
    updates = args.num_train_epochs * -(-len(batches) // args.gradient_accumulation_steps)
    scheduler = linear_decay(optimizer, updates)
    if args.compile:  # the large parts; the vocabulary loss, whose size changes from step to step, stays outside
        for part in filter(None, (model.image_encoder, model.decoder)):
            part.compile()
    model.train()  # what was loaded is in evaluation mode
    if args.num_workers and accelerator.device.type == "cpu":
        share_weights(model)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    run = TrainingRun(
        args=args,
        accelerator=accelerator,
        settings={"flags": flags_of(args), "facts": setup.facts},
        model=model,
        prepared=prepared,
        codec=codec,
        evaluator=setup.evaluator,
        dataset=pairs,
        batches=batches,
        loader=loader,
        parameters=[parameter for group in groups for parameter in group["params"]],
        parameter_names=names,
        optimizer=optimizer,
        scheduler=scheduler,
        log=RunLog(args.caption_save_path),
        signals=signals,
    )
    for part in ("vad_encoder", "decoder", "image_encoder", "emotion_head"):
        run.say(f"{part}: {count_parameters(getattr(model, part)):,} trained parameters")
    run.say(f"{len(pairs)} images, {run.steps_per_epoch} steps per epoch, {updates} updates in all")
    run.say(f"best-acc keeps the best emotion accuracy, best-res the best {deciding_score(args.metrics)}")
    start = dict(run.settings)
    if args.resume:
        start["resumed"] = resume(run)
    elif setup.checkpoint is not None:
        continue_from(run, setup.checkpoint)
        start["continued"] = {"from": args.load_from_epoch, "epoch": run.progress.epoch}
    if accelerator.is_main_process:
        run.log.write("start", start)
        start_trackers(run)
    give_back_freed_memory()  # the loader's processes come next
    return run
