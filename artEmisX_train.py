"""Train SEVLM on ArtEmis, and score it with COCO-caption after every epoch.

    accelerate launch artEmisX_train.py --demo
    accelerate launch artEmisX_train.py --ckpt_path ckpts/ --caption_save_path results/ \
        --nle_data_train_path data/artEmis/artEmisX_cl_train.json --nle_data_val_path data/artEmis/artEmisX_val.json
    torchrun --nproc_per_node 2 artEmisX_train.py ...          (several processes on one machine)

`build_run` makes data and model, `train_epoch` is the loop, `evaluate` the scores; utils/training/run.py saves and continues.
"""

import argparse
import contextlib
import json
import os
import sys

from utils.errors import InputError, run_script
from utils.opts import check_paths, parse_args
from utils.processes import PROCESS_GROUP_TIMEOUT, leave_signals_to_parent, prepare_script

if __name__ == "__main__":
    prepare_script()
    if status := run_script(lambda: check_paths(parse_args(), early=True)):
        sys.exit(status)  # wrong flags and missing files answer here, seconds before torch is imported

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import InitProcessGroupKwargs
from torch.utils.data import DataLoader
from tqdm import tqdm

from cococaption import CaptionScorer
from models.sevlm import SEVLMOutput
from preprocess.demo import make_demo
from utils.constants import EMOTION_SPAN
from utils.data.datasets import EpochBatches, PairCollator, TrainingPairs
from utils.data.load_inputs import build_images, check_annotated, read_inputs
from utils.data.text2emotion_files import load_text2emotion
from utils.data.text_codec import TextCodec, load_tokenizer
from utils.data.vad_lookup import VADLookup
from utils.evaluation.evaluator import Evaluator, write_evaluation
from utils.evaluation.score_report import report_checkpoint
from utils.files import write_text
from utils.training.build_model import build_model, build_optimizer, count_parameters, linear_decay, parameter_groups
from utils.training.checkpoint import TOKENIZER_FOLDER, has_states, load_named, save_named
from utils.training.folder_lock import locked
from utils.training.memory import reuse_freed_memory
from utils.training.run import Run, config_fields, continue_from, resume, save_run, stats
from utils.training.stop_signals import StopSignals

PARTS = ("loss", "lm_loss", "contrastive_loss", "vad_loss", "emotion_loss")
# Several processes agree on a stop only so often, as agreeing makes them wait for each other.
UPDATES_BETWEEN_AGREEMENTS = 8

# ---- training --------------------------------------------------------------------------------------------------------


def prepare_training(run: Run, dataset: TrainingPairs) -> None:
    """Loader, optimiser and schedule; the model as accelerate wants it."""
    args, accelerator = run.args, run.accelerator
    run.dataset = dataset
    run.batches = EpochBatches(
        len(dataset), args.batch_size, args.seed, accelerator.process_index, accelerator.num_processes
    )
    loader = DataLoader(
        dataset,
        batch_sampler=run.batches,
        collate_fn=PairCollator(args.seed, args.len_prefix, args.len_prefix + EMOTION_SPAN),
        num_workers=args.num_workers,
        pin_memory=accelerator.device.type == "cuda",
        generator=torch.Generator(),
        worker_init_fn=leave_signals_to_parent,
    )
    # the sampler has dealt the images out to the processes already; accelerate moves batches and sees the epoch's end
    run.loader = prepare_data_loader(
        loader, accelerator.device, num_processes=1, process_index=0, put_on_device=True, non_blocking=True
    )
    run.steps_per_epoch = len(run.batches)
    run.updates_per_epoch = -(-run.steps_per_epoch // accelerator.gradient_accumulation_steps)
    updates = args.num_train_epochs * run.updates_per_epoch
    groups, run.parameter_names = parameter_groups(args, run.model)
    run.parameters = [parameter for group in groups for parameter in group["params"]]
    run.optimizer = build_optimizer(groups, args.adam_eps)
    run.scheduler = linear_decay(run.optimizer, updates)
    if args.compile:  # the large parts; the vocabulary loss, whose size changes from step to step, stays outside
        for part in filter(None, (run.model.image_encoder, run.model.decoder)):
            part.compile()
    run.prepared, run.optimizer = accelerator.prepare(run.model, run.optimizer)
    for part in ("vad_encoder", "decoder", "image_encoder", "emotion_head"):
        run.say(f"{part}: {count_parameters(getattr(run.model, part)):,} trained parameters")
    run.say(f"{len(dataset)} images, {run.steps_per_epoch} steps per epoch, {updates} updates in all")


def step_seed(*numbers: int) -> int:
    """One seed of seed, epoch, step and process, the same on every machine."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def train_epoch(run: Run) -> None:
    """Train from `run.progress` to the end of its epoch; evaluate, save and stop on the way where that is due."""
    args, accelerator, progress = run.args, run.accelerator, run.progress
    filling = run.images.use(run.dataset)
    run.batches.set_position(progress.epoch, progress.step)
    bar = tqdm(
        run.loader,
        f"epoch {progress.epoch}",
        run.steps_per_epoch,
        initial=progress.step,
        unit="step",
        disable=not accelerator.is_main_process,
    )
    for batch in bar:
        image_ids = batch.pop("image_ids")
        if filling:
            batch |= run.images.fill(run.model.image_encoder, image_ids, batch.pop("pixels"))
        # dropout's random numbers depend on nothing but this, so that a resumed step is the step that was lost
        torch.manual_seed(step_seed(args.seed, progress.epoch, progress.step, accelerator.process_index))
        with accelerator.accumulate(run.prepared):
            if accelerator.num_processes > 1:
                batch["counts"] = accelerator.reduce(batch["counts"], "mean")
            output = run.prepared(**batch)
            accelerator.backward(output.loss)
            if accelerator.sync_gradients:
                update(run, output, image_ids)
        if progress.step % args.log_steps == 0:
            log_losses(run, output)
            bar.set_postfix(loss=f"{progress.losses[-1]['loss']:.3f}")
        progress.step += 1
        if accelerator.sync_gradients:
            after_step(run)


def update(run: Run, output: SEVLMOutput, image_ids: torch.Tensor) -> None:
    """One optimiser step, unless the loss or a gradient is not finite."""
    args, accelerator = run.args, run.accelerator
    accelerator.unscale_gradients()
    norm = torch.nn.utils.get_total_norm([p.grad for p in run.parameters if p.grad is not None])
    finite = torch.isfinite(output.loss)
    if accelerator.scaler is None:  # fp16's scaler leaves updates with infinite gradients out by itself
        finite = finite & torch.isfinite(norm)
    if args.max_grad_norm:
        torch.nn.utils.clip_grads_with_norm_(run.parameters, args.max_grad_norm, norm)
    if accelerator.num_processes > 1:
        finite = accelerator.reduce(finite.float(), "mean") > 0.999
    if not finite:
        parts = [name for name in PARTS[1:] if output.get(name) is not None and not torch.isfinite(output[name])]
        culprit = " and ".join(parts) or "a gradient"
        where = f"epoch {run.progress.epoch}, step {run.progress.step}, images {image_ids.tolist()}"
        if args.nan_policy == "stop":
            raise InputError(f"{culprit} is not finite at {where}; lower the learning rate, or give --nan_policy skip")
        run.say(f"{culprit} is not finite at {where}: update left out")
    else:
        run.optimizer.step()
    run.scheduler.step()
    run.optimizer.zero_grad()
    run.progress.updates += 1


def log_losses(run: Run, output: SEVLMOutput) -> None:
    """Keep this step's losses, averaged over the processes."""
    losses = {"epoch": run.progress.epoch, "step": run.progress.step}
    for name in PARTS:
        if output.get(name) is not None:
            losses[name] = float(run.accelerator.reduce(output[name].detach(), "mean"))
    run.progress.losses.append(losses)


def after_step(run: Run) -> None:
    """What may be due between two steps: an evaluation, a state, a stop."""
    args, progress, signals = run.args, run.progress, run.signals
    done = progress.epoch * run.steps_per_epoch + progress.step
    before = done - 1 - (progress.step - 1) % run.accelerator.gradient_accumulation_steps  # at the last update

    def due(every: int) -> bool:
        return every > 0 and done // every > before // every

    several = run.accelerator.num_processes > 1
    heed = not several or progress.updates % UPDATES_BETWEEN_AGREEMENTS == 0
    if several and heed:
        asked = torch.tensor([float(signals.save), float(signals.stop or 0)], device=run.accelerator.device)
        save, stop = run.accelerator.reduce(asked, "sum").tolist()
        signals.save, signals.stop = save > 0, int(signals.stop or (stop > 0) * 15) or None
    progress.evaluation_due = due(args.eval_steps)
    if heed and (signals.save or signals.stop) or due(args.save_steps):
        save_run(run)
        signals.save = False
    if heed and signals.stop:
        run.say(f"stopped by signal {signals.stop}; continue with --resume")
        raise SystemExit(128 + signals.stop)
    if progress.evaluation_due:
        evaluate(run)


def train(run: Run) -> None:
    """All epochs that are left, with an evaluation after each (or every --eval_steps steps, and at the end)."""
    args, progress = run.args, run.progress
    if progress.evaluation_due:
        evaluate(run)
    while progress.epoch < args.num_train_epochs and not stopped_early(run):
        train_epoch(run)
        last = progress.epoch + 1 == args.num_train_epochs
        if (not args.eval_steps or last) and progress.evaluated != [progress.epoch, progress.step]:
            progress.evaluation_due = True
            evaluate(run)
        progress.epoch, progress.step = progress.epoch + 1, 0
    if stopped_early(run):
        run.say(f"stopped early: {progress.without_gain} evaluations in a row brought no better score")


def stopped_early(run: Run) -> bool:
    return run.progress.without_gain > run.args.stop_after_evals


# ---- evaluation ------------------------------------------------------------------------------------------------------


def evaluate(run: Run) -> None:
    """Score the model, write captions and scores, keep it where it is the best so far."""
    args, progress = run.args, run.progress
    save_run(run)
    run.signals.immediate = True  # nothing is lost by stopping within an evaluation
    evaluation = run.evaluator(run.model)
    accuracy, bleu = evaluation.scores["sub_acc"], evaluation.scores.get("Bleu_4", 0.0)
    better = {"best-acc": accuracy > progress.best_acc, "best-res": bleu > progress.best_res}
    progress.best_acc, progress.best_res = max(accuracy, progress.best_acc), max(bleu, progress.best_res)
    progress.without_gain = 0 if any(better.values()) else progress.without_gain + 1
    progress.scores.append({"epoch": progress.epoch, "step": progress.step - 1} | evaluation.scores)
    progress.evaluation_due, progress.evaluated = False, [progress.epoch, progress.step]
    run.last_evaluation = evaluation
    if run.accelerator.is_main_process:
        write_evaluation(args.caption_save_path, evaluation, progress.epoch, progress.step - 1)
        write_log(run)
        for name in (name for name, is_better in better.items() if is_better):
            save_named(args.ckpt_path, name, run.model, run.codec.tokenizer, config_fields(run), stats(run))
    run.accelerator.wait_for_everyone()
    run.signals.immediate = False
    run.say(one_line(progress.scores[-1]))
    if run.signals.stop:
        raise SystemExit(128 + run.signals.stop)


def one_line(scores: dict) -> str:
    numbers = "  ".join(f"{name} {value:.4f}" for name, value in scores.items() if name not in ("epoch", "step"))
    return f"epoch {scores['epoch']} step {scores['step']}  {numbers}"


def write_log(run: Run) -> None:
    """Write all losses and scores so far, one JSON object a line."""
    lines = [json.dumps({"losses": line}) for line in run.progress.losses]
    lines += [json.dumps({"scores": line}) for line in run.progress.scores]
    write_text(run.args.caption_save_path / "log.jsonl", "\n".join(lines) + "\n")


def print_summary(run: Run) -> None:
    """A table of the scores of every evaluation, and three explanations of the last one."""
    if not run.progress.scores:
        return
    names = [name for name in run.progress.scores[-1] if name not in ("epoch", "step")]
    run.say("\n" + " ".join(["epoch", "  step"] + [f"{name:>9}" for name in names]))
    for scores in run.progress.scores:
        row = [f"{scores['epoch']:>5}", f"{scores['step']:>6}"] + [f"{scores[name]:>9.4f}" for name in names]
        run.say(" ".join(row))
    for image_id in list(run.last_evaluation.full)[:3]:
        record = run.evaluator.records[str(image_id)]
        run.say(f"\n{record['image_name']}\n  wrote: the emotion is {run.last_evaluation.full[image_id]}")
        run.say(f"  asked: {record['emotions'][0]} because {record['explanations'][0]}")


def score_checkpoint(run: Run) -> None:
    """--eval_only: score one checkpoint; write captions and scores under its name, and the report."""
    args = run.args
    # read before hours of captioning, not behind them
    judge = None if args.text2emotion is None else load_text2emotion(args.text2emotion, args.vocabulary)
    evaluation = run.evaluator(run.model)
    if run.accelerator.is_main_process:
        write_evaluation(args.caption_save_path, evaluation, args.load_from_epoch, 0)
        references = sum(map(len, run.evaluator.scorer.references.values()))
        run.say(report_checkpoint(args, evaluation, run.evaluator.records, run.lexicon, references, judge))


# ---- the whole -------------------------------------------------------------------------------------------------------


def build_run(args: argparse.Namespace, accelerator: Accelerator, scorer: CaptionScorer | None) -> Run:
    """From files to a model and its data, ready to train or to be scored."""
    with accelerator.main_process_first():  # the others find what it has checked and computed in the cache folder
        splits, folder, lexicon = read_inputs(args)
        if scorer is not None:
            check_annotated(args, scorer, splits[0])
        checkpoint = load_named(args.ckpt_path, args.load_from_epoch) if args.load_from_epoch else None
        saved_tokenizer = args.ckpt_path / TOKENIZER_FOLDER
        own_tokenizer = checkpoint is not None and saved_tokenizer.is_dir()
        tokenizer = load_tokenizer(str(saved_tokenizer) if own_tokenizer else args.gpt2_model)
        codec = TextCodec(tokenizer, args.prompt_text, args.max_seq_len, args.len_prefix)
        vad = None if lexicon is None else VADLookup(lexicon, args.lemmatizer, codec)
        model = build_model(args, codec, checkpoint)
        images = build_images(args, model, folder, splits)
        if not args.eval_only:
            dataset = TrainingPairs(
                splits[1],
                images.pixels,
                codec,
                vad,
                args.seed,
                need_pairs=args.use_cl_loss,
                first_text=args.first_text,
                cache_dir=args.cache_dir,
                processes=max(os.cpu_count() // accelerator.num_processes, 1),
                source=str(args.nle_data_train_path),
            )
    evaluator = Evaluator(args, accelerator, splits[0], images, codec, vad if args.use_VAD else None, scorer)
    run = Run(args, accelerator, model, codec, lexicon, images, evaluator)
    if args.eval_only:
        model.to(accelerator.device)
        return run
    prepare_training(run, dataset)
    if args.resume:
        resume(run)
    elif checkpoint is not None:
        continue_from(run, checkpoint)
    return run


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns 0. See `--help` for the flags.

    Raises:
        InputError: for everything a user can put right.
    """
    args = parse_args(argv)
    precision = args.mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION")
    if precision == "fp16" and not torch.cuda.is_available():
        raise InputError("--mixed_precision fp16 needs a GPU; give bf16 or no")
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        cpu=not torch.accelerator.is_available(),  # else accelerate does not see torchrun's processes on a CPU
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PROCESS_GROUP_TIMEOUT)],
    )
    if args.demo:
        with accelerator.main_process_first():
            make_demo(args.nle_data_train_path.parent)
    check_paths(args)
    torch.manual_seed(args.seed)
    if accelerator.device.type == "cpu":
        local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(args.cpu_threads or max(os.cpu_count() // local_processes, 1))
        reuse_freed_memory()
    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(StopSignals(accelerator.is_main_process))
        scorer = None
        if accelerator.is_main_process:
            folders = {os.path.realpath(folder): folder for folder in (args.ckpt_path, args.caption_save_path)}
            for folder in folders.values():
                stack.enter_context(locked(folder))
            if not (args.resume or args.eval_only or args.load_from_epoch) and has_states(args.ckpt_path):
                raise InputError(
                    f"{args.ckpt_path}: holds the states of an earlier run: give --resume to continue it, or another "
                    "--ckpt_path (or remove its folder resume/)"
                )
            scorer = CaptionScorer(args.annFileExp, args.metrics, args.cache_dir, args.meteor_jvms)
            stack.enter_context(scorer).start()  # METEOR's tables load while the data do
        run = build_run(args, accelerator, scorer)
        if args.eval_only:
            score_checkpoint(run)
            return 0
        run.signals, signals.immediate = signals, False
        train(run)
        print_summary(run)
    accelerator.end_training()
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
