"""Train SEVLM on ArtEmis, and score it with COCO-caption after every epoch.

    accelerate launch artEmisX_train.py --demo
    accelerate launch artEmisX_train.py --ckpt_path ckpts/ --caption_save_path results/ \
        --nle_data_train_path data/artEmis/artEmisX_cl_train.json --nle_data_val_path data/artEmis/artEmisX_val.json
    torchrun --nproc_per_node 2 artEmisX_train.py ...          (several processes on one machine)

`prepare` makes data and model, `train_epoch` is the loop, `evaluate` the scores; utils/training/ saves and continues runs.
"""

import argparse
import contextlib
import gc
import itertools
import os
import signal
import sys
from typing import NoReturn

from utils.errors import InputError, escaped, run_script
from utils.opts import DEMO_DEFAULTS, SHARED_NAME, check_paths, parse_args
from utils.processes import PROCESS_GROUP_TIMEOUT, prepare_script

if __name__ == "__main__":
    prepare_script()
    if status := run_script(lambda: check_paths(parse_args(), early=True)):
        sys.exit(status)  # wrong flags and missing files answer here, seconds before torch is imported
    gc.disable()  # until `main`: imports leave next to no garbage, and looking for it takes half a second

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, ProjectConfiguration

from cococaption import CaptionScorer
from models.sevlm import SEVLMOutput
from utils.allocator import reuse_freed_memory
from utils.data.datasets import TrainingPairs
from utils.data.loader_errors import worker_errors
from utils.data.text2emotion_files import load_text2emotion
from utils.evaluation.clip_score import load_clip_scorer
from utils.evaluation.collapse import collapse_warning
from utils.evaluation.evaluation import Evaluation
from utils.evaluation.evaluator import Evaluator, deciding_score, write_evaluation
from utils.evaluation.gallery_cards import gallery_page, gallery_path
from utils.evaluation.page import write_page
from utils.evaluation.score_report import Judge, judge_name, report_checkpoint, training_texts
from utils.progress_line import ProgressLine, duration
from utils.training.disk import check_disk, shown
from utils.training.folder_lock import locked
from utils.training.last_words import words_of_scoring, words_of_training
from utils.training.memory import without_collections
from utils.training.named_checkpoints import save_tokenizer
from utils.training.optimizer import rates_of_update
from utils.training.peak_memory import peak_memory
from utils.training.resume_states import finish_renames, state_folders
from utils.training.run_setup import Setup, build_training, prepare
from utils.training.stop_signals import StopSignals
from utils.training.trackers import TENSORBOARD, loss_values, score_values
from utils.training.training_run import TrainingRun, save_best, save_run
from utils.training.update_check import UpdateCheck

LOSSES = ("loss", "lm_loss", "contrastive_loss", "vad_loss", "emotion_loss", "label_loss")
UPDATES_BEFORE_ESTIMATE = 10  # of the time that the run will take
SAMPLES = 3  # pictures whose explanations are shown
# Several processes agree on a stop only so often, as agreeing makes them wait for each other.
UPDATES_BETWEEN_AGREEMENTS = 8

# ---- training --------------------------------------------------------------------------------------------------------


def step_seed(*numbers: int) -> int:
    """One seed of seed, epoch, step and process, the same on every machine."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


@worker_errors()
def train_epoch(run: TrainingRun) -> None:
    """Train from `run.progress` to the end of its epoch; evaluate, save and stop on the way where that is due.

    An update is made of the gradients of --gradient_accumulation_steps batches, its window; the epoch's last window may
    be shorter.
    """
    args, progress = run.args, run.progress
    run.batches.set_position(progress.epoch, progress.step)
    batches = iter(run.loader)
    with epoch_line(run) as line:
        while window := list(itertools.islice(batches, args.gradient_accumulation_steps)):
            window = [run.images.encode(run.model.image_encoder, batch["image_ids"], batch) for batch in window]
            losses = accumulate_gradients(run, window)
            update(run, losses, torch.cat([batch["image_ids"] for batch in window]))
            first, last = progress.step, progress.step + len(window) - 1
            if last // args.log_steps > (first - 1) // args.log_steps:
                log_losses(run, losses, last)
            progress.step = last + 1
            line.advance(pairs_before(run, progress.step))
            tell_time(run, line)
            between_updates(run, len(window))
            if stopped_early(run):
                return
    read_check(run)


def accumulate_gradients(run: TrainingRun, window: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Forward and backward passes of one update's batches; returns the window's losses.

    Every sum is divided by the count of the whole window over all processes, so that N batches of b images give the
    gradients of one batch of N b images (the contrastive negatives apart, which come from their own batch).
    """
    accelerator, progress = run.accelerator, run.progress
    counts = torch.stack([batch["counts"] for batch in window]).sum(dim=0)
    if accelerator.num_processes > 1:
        counts = accelerator.reduce(counts, "mean")  # DDP takes the mean of the processes' gradients
    outputs: list[SEVLMOutput] = []
    for index, batch in enumerate(window):
        inputs = {name: tensor for name, tensor in batch.items() if name != "image_ids"} | {"counts": counts}
        # dropout's random numbers depend on nothing but this, so that a resumed step is the step that was lost
        torch.manual_seed(step_seed(run.args.seed, progress.epoch, progress.step + index, accelerator.process_index))
        is_last = index + 1 == len(window)
        with contextlib.nullcontext() if is_last else accelerator.no_sync(run.prepared):
            outputs.append(run.prepared(**inputs))
            accelerator.backward(outputs[-1].loss)
    return {
        name: sum(output[name].detach() for output in outputs) for name in LOSSES if outputs[0].get(name) is not None
    }


def update(run: TrainingRun, losses: dict[str, torch.Tensor], image_ids: torch.Tensor) -> None:
    """One optimiser step, left out where a loss or a gradient is not finite. The schedule goes on in either case.

    AdamW itself leaves the step out, on the device. The host learns of it at once on a CPU, one update later on a GPU.
    """
    args, accelerator, place = run.args, run.accelerator, (run.progress.epoch, run.progress.step)
    accelerator.unscale_gradients()
    norm = torch.nn.utils.get_total_norm([p.grad for p in run.parameters if p.grad is not None])
    finite = torch.isfinite(losses["loss"])
    if accelerator.scaler is None:  # fp16's scaler leaves updates with infinite gradients out by itself
        finite = finite & torch.isfinite(norm)
    if args.max_grad_norm:
        torch.nn.utils.clip_grads_with_norm_(run.parameters, args.max_grad_norm, norm)
    if accelerator.num_processes > 1:
        finite = accelerator.reduce(finite.float(), "mean") > 0.999
    check = UpdateCheck.of(finite, losses, place, image_ids)
    if accelerator.scaler is None:
        run.optimizer.optimizer.found_inf = (~finite).float()
        run.optimizer.step()
    elif finite:
        run.optimizer.step()
    else:
        accelerator.scaler.update()  # closes the update that unscale_gradients has opened
    run.scheduler.step()
    run.optimizer.zero_grad()
    run.progress.updates += 1
    read_check(run)
    run.check = check
    if not reads_later(accelerator.device):
        read_check(run)


def reads_later(device: torch.device) -> bool:
    """Whether an update's check is read after the next update: a GPU would stand still while the host waits for it."""
    return device.type == "cuda"


def read_check(run: TrainingRun) -> None:
    """If the last update was left out and nothing has been said of it: say so, or end the run (--nan_policy stop)."""
    check, run.check = run.check, None
    if check is None or not (problem := check.problem()):
        return
    if run.args.nan_policy == "stop":
        raise InputError(f"{problem}; lower the learning rate, or give --nan_policy skip")
    run.say(f"{problem}: update left out")


def log_losses(run: TrainingRun, losses: dict[str, torch.Tensor], step: int) -> None:
    """Log an update's losses, averaged over the processes: `loss`, and its terms before their weights."""
    run.last_losses = {name: float(run.accelerator.reduce(loss, "mean")) for name, loss in losses.items()}
    if run.accelerator.is_main_process:
        updates = run.progress.updates
        point = {"epoch": run.progress.epoch, "step": step, "updates": updates} | run.last_losses
        rates = rates_of_update(run.scheduler, run.parameter_names, updates)
        run.log.write("losses", point, learning_rates=rates)
        run.accelerator.log(loss_values(point, rates), step=updates)


def epoch_line(run: TrainingRun) -> ProgressLine:
    """The progress of this epoch, for people: pairs, losses as last logged, memory."""

    def more() -> str:
        losses = "  ".join(f"{name.removesuffix('_loss')} {value:.3f}" for name, value in run.last_losses.items())
        memory = peak_memory(run.accelerator.device)
        return losses if memory is None else f"{losses}  {shown(memory)}"

    title = f"epoch {run.progress.epoch} (last: {run.args.num_train_epochs - 1})"
    done, hidden = pairs_before(run, run.progress.step), not run.accelerator.is_main_process
    return ProgressLine(title, run.batches.size, "pairs", done, hidden, more)


def pairs_before(run: TrainingRun, step: int) -> int:
    """Pairs of an epoch, of all processes, that are trained on before `step`."""
    return min(step * run.batches.global_batch, run.batches.size)


def tell_time(run: TrainingRun, line: ProgressLine) -> None:
    """Say once, after the first updates, how long the training will take."""
    progress = run.progress
    enough = progress.step == run.steps_per_epoch or line.done - line.first >= (
        UPDATES_BEFORE_ESTIMATE * run.args.gradient_accumulation_steps * run.batches.global_batch
    )
    if run.time_told or not enough:
        return
    run.time_told = True
    left = (run.args.num_train_epochs - progress.epoch) * run.batches.size - line.done
    run.say(f"at {line.rate:.1f} pairs/s the training takes {duration(left / line.rate)} more, evaluations not counted")


def agreed_signals(run: TrainingRun, now: bool = False) -> tuple[bool, int | None]:
    """Whether a state is asked for, and the signal that asks for a stop: the same on all processes.

    Several processes agree every few updates only, or `now`; in between nothing is asked for.
    """
    signals = run.signals
    if run.accelerator.num_processes == 1:
        return signals.save, signals.stop
    if not now and run.progress.updates % UPDATES_BETWEEN_AGREEMENTS:
        return False, None
    asked = torch.tensor([float(signals.save), float(signals.stop is not None)], device=run.accelerator.device)
    save, stop = (run.accelerator.reduce(asked, "sum") > 0).tolist()
    return save, (signals.stop or signal.SIGTERM) if stop else None


def between_updates(run: TrainingRun, steps: int) -> None:
    """What may be due after an update of so many steps: a state, a stop, an evaluation."""
    args, progress = run.args, run.progress
    done = progress.epoch * run.steps_per_epoch + progress.step

    def due(every: int) -> bool:
        return every > 0 and done // every > (done - steps) // every

    save, stop = agreed_signals(run)
    progress.evaluation_due = due(args.eval_steps)
    if save or stop or due(args.save_steps) or progress.evaluation_due:
        read_check(run)
    if save or stop or due(args.save_steps):
        save_run(run)
        run.signals.save = False
    if stop:
        stop_here(run, stop)
    if progress.evaluation_due:
        evaluate(run)


def stop_here(run: TrainingRun, stop: int) -> NoReturn:
    """End the run after its state was written."""
    run.say(f"stopped by {signal.Signals(stop).name}; continue with --resume")
    raise SystemExit(128 + stop)


def train(run: TrainingRun) -> None:
    """All epochs that are left, with an evaluation after each (or every --eval_steps steps, and at the end)."""
    args, progress = run.args, run.progress
    if progress.evaluation_due:
        evaluate(run)
    while progress.epoch < args.num_train_epochs and not stopped_early(run):
        train_epoch(run)
        if stopped_early(run):
            break
        last = progress.epoch + 1 == args.num_train_epochs
        if (not args.eval_steps or last) and progress.evaluated != [progress.epoch, progress.step]:
            progress.evaluation_due = True
            evaluate(run)
        progress.epoch, progress.step = progress.epoch + 1, 0
    if stopped_early(run):
        run.say(f"stopped early: {progress.without_gain} evaluations in a row brought no better score")


def stopped_early(run: TrainingRun) -> bool:
    """Whether more than --stop_after_evals evaluations in a row brought no better score."""
    return run.progress.without_gain > run.args.stop_after_evals


# ---- evaluation ------------------------------------------------------------------------------------------------------


def evaluate(run: TrainingRun) -> None:
    """Score the model, write captions and scores, keep it where it is the best so far."""
    args, progress = run.args, run.progress
    save_run(run)
    _, stop = agreed_signals(run, now=True)  # of one process's stop the others would learn only by its end
    if stop:
        stop_here(run, stop)
    run.signals.immediate = True  # nothing is lost by stopping within an evaluation
    evaluation = run.evaluator(run.model)
    accuracy, result = evaluation.scores["sub_acc"], evaluation.scores[deciding_score(args.metrics)]
    better = {"best-acc": accuracy > progress.best_acc, "best-res": result > progress.best_res}
    progress.best_acc, progress.best_res = max(accuracy, progress.best_acc), max(result, progress.best_res)
    if better["best-res"]:
        progress.best_res_at = [progress.epoch, progress.step]
    progress.without_gain = 0 if any(better.values()) else progress.without_gain + 1
    progress.scores.append({"epoch": progress.epoch, "step": progress.step - 1} | evaluation.scores)
    progress.evaluation_due, progress.evaluated = False, [progress.epoch, progress.step]
    run.last_evaluation = evaluation
    if run.accelerator.is_main_process:
        write_evaluation(args.caption_save_path, evaluation, run.evaluator.records, progress.epoch, progress.step - 1)
        write_gallery(args, evaluation, run.evaluator, progress.epoch, progress.step - 1)
        log_scores(run)
        for name in (name for name, is_better in better.items() if is_better):
            save_best(run, name)
        save_tokenizer(args.ckpt_path, run.codec.tokenizer)  # older checkpoints need it, too, should it be gone
    run.accelerator.wait_for_everyone()
    run.signals.immediate = False
    run.say(one_line(progress.scores[-1]))
    if warning := collapse_warning(list(evaluation.explanations.values())):
        run.say(warning)


def write_gallery(
    args: argparse.Namespace, evaluation: Evaluation, evaluator: Evaluator, epoch: int | str, step: int
) -> None:
    """--gallery: a page of pictures with what the model says of them, beside the captions."""
    if not args.gallery:
        return
    page = gallery_page(
        f"Epoch {epoch}, step {step}" if isinstance(epoch, int) else epoch,
        evaluator.records,
        evaluation.full,
        evaluation.explanations,
        evaluation.of_images,
        evaluation.scores,
        args.gallery,
        args.seed,
        evaluator.images.pixels.folder,
        None if evaluator.vad is None else evaluator.vad.lexicon,
        evaluation.shares,
        args.nle_data_val_path.name,
    )
    write_page(gallery_path(args.caption_save_path, epoch, step), page)


def log_scores(run: TrainingRun) -> None:
    """Log the last evaluation, with the explanations of a few pictures; on the main process only."""
    explanations = run.last_evaluation.explanations
    records, updates = run.evaluator.records, run.progress.updates
    point = {"epoch": 0, "step": 0, "updates": updates} | run.progress.scores[-1]
    samples = {
        records[str(image_id)]["image_name"]: explanations[image_id] for image_id in list(explanations)[:SAMPLES]
    }
    run.log.write("scores", point, samples=samples)
    run.accelerator.log(score_values(point, samples), step=updates)


def log_end(run: TrainingRun) -> None:
    """Log that the training is done, and which evaluation is best-res: by this others know a finished run."""
    if run.accelerator.is_main_process:
        epoch, steps_done = run.progress.best_res_at or (None, None)
        run.log.write("end", {"epoch": epoch, "step": None if steps_done is None else steps_done - 1})


def one_line(scores: dict) -> str:
    numbers = "  ".join(f"{name} {value:.4f}" for name, value in scores.items() if name not in ("epoch", "step"))
    return f"epoch {scores['epoch']} step {scores['step']}  {numbers}"


def print_summary(run: TrainingRun) -> None:
    """A table of the scores of every evaluation, three explanations of the last one, and what to do next."""
    print_scores(run)
    run.say(words_of_training(run.args, run.progress, len(run.evaluator.records)))


def print_scores(run: TrainingRun) -> None:
    if not run.progress.scores:
        return
    names = [name for name in run.progress.scores[-1] if name not in ("epoch", "step")]
    run.say("\n" + " ".join(["epoch", "  step"] + [f"{name:>9}" for name in names]))
    for scores in run.progress.scores:
        row = [f"{scores['epoch']:>5}", f"{scores['step']:>6}"]
        run.say(" ".join(row + [f"{scores[name]:>9.4f}" if name in scores else f"{'-':>9}" for name in names]))
    if run.last_evaluation is None:  # resumed after its last evaluation
        return
    for image_id in list(run.last_evaluation.full)[:SAMPLES]:
        record = run.evaluator.records[str(image_id)]
        run.say(f"\n{record['image_name']}\n  generated: the emotion is {run.last_evaluation.full[image_id]}")
        run.say(f"  reference: {record['emotions'][0]} because {record['explanations'][0]}")


# ---- the whole -------------------------------------------------------------------------------------------------------


def score_checkpoint(args: argparse.Namespace, accelerator: Accelerator, setup: Setup) -> None:
    """--eval_only: score one checkpoint; write captions and scores under its name, and the report."""
    # read before hours of captioning, not behind them
    judge = None
    if args.text2emotion is not None:
        name = judge_name(args.text2emotion, args.vocabulary)
        judge = Judge(name, *load_text2emotion(args.text2emotion, args.vocabulary))
    train = training_texts(args) if accelerator.is_main_process else None
    clip = None
    if args.clip_score and accelerator.is_main_process:
        clip = load_clip_scorer(args.clip_score, setup.images.pixels.folder, accelerator.device)
    setup.model.to(accelerator.device)
    evaluation = setup.evaluator(setup.model)
    if accelerator.is_main_process:
        records = setup.evaluator.records
        write_evaluation(args.caption_save_path, evaluation, records, args.load_from_epoch, 0)
        write_gallery(args, evaluation, setup.evaluator, args.load_from_epoch, 0)
        scorer = setup.evaluator.scorer
        table = report_checkpoint(args, evaluation, records, setup.facts, train, setup.lexicon, scorer, judge, clip)
        accelerator.print(table)
        if warning := collapse_warning(list(evaluation.explanations.values())):
            accelerator.print(escaped(warning, keep="\n"))
        accelerator.print(words_of_scoring(args, evaluation.scores, len(records)))


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns 0. See `--help` for the flags.

    Raises:
        InputError: for everything a user can put right.
    """
    gc.enable()
    args = parse_args(argv)
    precision = args.mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION")
    if precision == "fp16" and not torch.cuda.is_available():
        raise InputError("--mixed_precision fp16 needs a GPU; give bf16 or no")
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        cpu=not torch.accelerator.is_available(),  # else accelerate does not see torchrun's processes on a CPU
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PROCESS_GROUP_TIMEOUT)],
        log_with=None if args.report_to == ["none"] else args.report_to,
        project_config=ProjectConfiguration(logging_dir=args.caption_save_path / TENSORBOARD),
    )
    if args.demo:
        from preprocess.demo import make_demo  # it needs scikit-learn, whose import takes a second

        with accelerator.main_process_first():
            make_demo((args.nle_data_train_path or DEMO_DEFAULTS["nle_data_train_path"]).parent)
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
            shared = args.load_from_epoch == SHARED_NAME  # perhaps a read-only copy
            written = (args.caption_save_path,) if shared else (args.ckpt_path, args.caption_save_path)
            folders = {os.path.realpath(folder): folder for folder in written}
            for folder in folders.values():
                stack.enter_context(locked(folder))
            if not args.eval_only:
                finish_renames(args.ckpt_path)
            if not (args.resume or args.eval_only or args.load_from_epoch) and state_folders(args.ckpt_path):
                raise InputError(
                    f"{args.ckpt_path}: holds the states of an earlier run: give --resume to continue it, or another "
                    "--ckpt_path (or remove its folder resume/)"
                )
            scorer = CaptionScorer(args.annFileExp, args.metrics, args.cache_dir, args.meteor_jvms)
            stack.enter_context(scorer).start()  # METEOR's tables load while the data do
        # the other processes find what the main one has checked and computed in the cache folder
        with without_collections(), accelerator.main_process_first():
            setup = prepare(args, accelerator, scorer)
            if not args.eval_only:
                if accelerator.is_main_process:
                    accelerator.print(check_disk(setup.model, args.ckpt_path, args.resume))
                dataset = TrainingPairs(
                    setup.train_records,
                    setup.images,
                    setup.codec,
                    setup.vad,
                    args.seed,
                    first_text=args.first_text,
                    cache_dir=args.cache_dir,
                    processes=max(os.cpu_count() // accelerator.num_processes, 1),
                )
                setup = setup._replace(train_records=None)  # frees the texts; the data set has their tokens
        if args.eval_only:
            score_checkpoint(args, accelerator, setup)
            return 0
        run = build_training(args, accelerator, setup, dataset, signals)
        signals.immediate = False
        train(run)
        log_end(run)
        print_summary(run)
    accelerator.end_training()
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
