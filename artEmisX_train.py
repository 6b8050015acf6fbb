"""Train SEVLM on ArtEmis, and score it with COCO-caption after every epoch.

    accelerate launch artEmisX_train.py --demo
    accelerate launch artEmisX_train.py --ckpt_path ckpts/ --caption_save_path results/ \
        --nle_data_train_path data/artEmis/artEmisX_cl_train.json --nle_data_val_path data/artEmis/artEmisX_val.json
    torchrun --nproc_per_node 2 artEmisX_train.py ...          (several processes on one machine)

`train_epoch` is the loop and `evaluate` scores the model; `prepare` (utils/training/run.py) loads data and model, and
utils/training/ saves and resumes runs.
"""

import contextlib
import gc
import itertools
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # PYTHONSAFEPATH leaves it out

from utils.command_line import DEMO_DEFAULTS, check_paths, parse_args
from utils.errors import InputError, escaped, run_script
from utils.launcher import check_launch, launch_lines, start_accelerator
from utils.processes import prepare_script

if __name__ == "__main__":
    prepare_script()
    # wrong flags and variables and missing files are reported here, seconds before torch is imported
    if status := run_script(lambda: check_launch() or check_paths(parse_args(), early=True)):
        sys.exit(status)
    gc.disable()  # until `main`: imports leave almost no garbage, and collecting it takes half a second

import numpy as np
import torch
from accelerate.utils import ProjectConfiguration

from cococaption import CaptionScorer
from models.losses import LossCounts
from utils.data.datasets import worker_errors
from utils.evaluation.clip_score import load_clip_scorer
from utils.evaluation.evaluation import write_evaluation
from utils.evaluation.evaluator import deciding_score
from utils.evaluation.report import EmotionClassifier, checkpoint_facts, training_texts, write_test_report
from utils.evaluation.text_metrics import collapse_warning
from utils.files import run_lock
from utils.processes import give_back_freed_memory, peak_memory, without_collections
from utils.progress import ProgressLine, duration, format_rate
from utils.training.checkpoints import format_size
from utils.training.optimizer import UpdateCheck, rates_of_update
from utils.training.resume import how_to_continue, prepare_folder, save_run, start_or_continue
from utils.training.run import TrainingRun, build_training, prepare, save_best
from utils.training.run_log import TENSORBOARD, loss_values, score_values, start_trackers
from utils.training.signals import StopSignals
from utils.training.summary import line_of_scores, summary_of_scoring, summary_of_training
from utils.visualize.gallery_page import write_gallery

UPDATES_BEFORE_ESTIMATE = 10  # of the run's duration
SAMPLES = 3  # images whose explanations are logged

# ---- training --------------------------------------------------------------------------------------------------------


def step_seed(*numbers: int) -> int:
    """One seed from seed, epoch, step and process, the same on every machine."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


@worker_errors()
def train_epoch(run: TrainingRun) -> None:
    """Train from `run.progress` to the end of its epoch; evaluate, save and stop when that is due.

    An update uses the gradients of --gradient_accumulation_steps batches, its window; an epoch's last window may be
    shorter.
    """
    args, progress = run.args, run.progress
    run.batches.set_position(progress.epoch, progress.step)
    batches = iter(run.loader)
    with epoch_line(run) as line:
        while window := list(itertools.islice(batches, args.gradient_accumulation_steps)):
            losses = accumulate_gradients(run, window)
            update(run, losses, torch.cat([batch["image_ids"] for batch in window]))
            first, last = progress.step, progress.step + len(window) - 1
            if last // args.log_steps > (first - 1) // args.log_steps:
                log_losses(run, losses, last)
            progress.step = last + 1
            line.advance(pairs_before(run, progress.step))
            print_time_left(run, line)
            between_updates(run, len(window))
            if stopped_early(run):
                return
    read_check(run)


def accumulate_gradients(run: TrainingRun, window: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Forward and backward passes of one update's batches; returns the window's losses.

    Every sum is divided by the count of the whole window over all processes, so that N batches of b images give the
    gradients of one batch of N b images (except for the contrastive negatives, which come from their own batch).
    """
    accelerator, progress = run.accelerator, run.progress
    counts = torch.stack([torch.stack(batch["counts"]) for batch in window]).sum(dim=0)
    if accelerator.num_processes > 1:
        counts = accelerator.reduce(counts, "mean")  # DDP takes the mean of the processes' gradients
    counts = LossCounts(*counts.unbind())
    outputs: list[dict[str, torch.Tensor]] = []
    for index, batch in enumerate(window):
        inputs = {name: tensor for name, tensor in batch.items() if name != "image_ids"} | {"counts": counts}
        # dropout depends on this alone, so that a resumed run repeats a lost step exactly
        torch.manual_seed(step_seed(run.args.seed, progress.epoch, progress.step + index, accelerator.process_index))
        is_last = index + 1 == len(window)
        with contextlib.nullcontext() if is_last else accelerator.no_sync(run.prepared):
            outputs.append(run.prepared(**inputs))
            accelerator.backward(outputs[-1]["loss"])
    return {name: sum(output[name].detach() for output in outputs) for name in outputs[0]}


def update(run: TrainingRun, losses: dict[str, torch.Tensor], image_ids: torch.Tensor) -> None:
    """One optimiser step, skipped if a loss or a gradient is not finite; the schedule advances in either case.

    AdamW itself skips the step, on the device. The host learns of it at once on a CPU, one update later on a GPU.
    """
    args, accelerator, place = run.args, run.accelerator, (run.progress.epoch, run.progress.step)
    accelerator.unscale_gradients()
    norm = torch.nn.utils.get_total_norm([p.grad for p in run.parameters if p.grad is not None])
    finite = torch.isfinite(losses["loss"])
    if accelerator.scaler is None:  # fp16's scaler skips updates with infinite gradients by itself
        finite = finite & torch.isfinite(norm)
    if args.max_grad_norm:
        torch.nn.utils.clip_grads_with_norm_(run.parameters, args.max_grad_norm, norm)
    check = UpdateCheck.of(finite, losses, place, image_ids, accelerator)
    finite = check.finite
    if accelerator.scaler is None:
        run.optimizer.optimizer.found_inf = (~finite).float()
        run.optimizer.step()
    elif finite:
        run.optimizer.step()
    else:
        accelerator.scaler.update()  # ends the update that unscale_gradients began
    run.scheduler.step()
    run.optimizer.zero_grad()
    run.progress.updates += 1
    read_check(run)
    run.check = check
    if not reads_later(accelerator.device):
        read_check(run)


def reads_later(device: torch.device) -> bool:
    """Whether an update's check is read after the next update, as a GPU would be idle while the host waits for it."""
    return device.type == "cuda"


def read_check(run: TrainingRun) -> None:
    """If the last update was skipped, print that once, or end the run (InputError, with --nan_policy stop)."""
    check, run.check = run.check, None
    if check is None or not (problem := check.problem()):
        return
    if run.args.nan_policy == "stop":
        raise InputError(f"{problem}; lower the learning rate, or pass --nan_policy skip")
    run.print(f"{problem}: update skipped")


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
    """The progress of this epoch: pairs, losses as last logged, memory."""

    def more() -> str:
        losses = "  ".join(f"{name.removesuffix('_loss')} {value:.3f}" for name, value in run.last_losses.items())
        memory = peak_memory(run.accelerator.device)
        return losses if memory is None else f"{losses}  {format_size(memory)}"

    title = f"epoch {run.progress.epoch} (last: {run.args.num_train_epochs - 1})"
    done, hidden = pairs_before(run, run.progress.step), not run.accelerator.is_main_process
    return ProgressLine(title, run.batches.size, "pairs", done, hidden, more, write=run.print)


def pairs_before(run: TrainingRun, step: int) -> int:
    """Pairs that all processes together have trained on before `step` of an epoch."""
    return min(step * run.batches.global_batch, run.batches.size)


def print_time_left(run: TrainingRun, line: ProgressLine) -> None:
    """Print once, after the first updates, how long the training will take."""
    progress = run.progress
    enough = UPDATES_BEFORE_ESTIMATE * run.args.gradient_accumulation_steps * run.batches.global_batch
    if run.time_logged or (progress.step < run.steps_per_epoch and line.done - line.first < enough):
        return
    run.time_logged = True
    left = (run.args.num_train_epochs - progress.epoch) * run.batches.size - line.done
    if left:
        rate = format_rate(line.rate, "pairs")
        run.print(f"at {rate} the training takes {duration(left / line.rate)} more, evaluations not counted")


def between_updates(run: TrainingRun, steps: int) -> None:
    """Save a state, stop or evaluate if that is due after an update of so many steps."""
    args, progress = run.args, run.progress
    done = progress.epoch * run.steps_per_epoch + progress.step
    run.signals.set_immediate(False)  # there was nothing to save before the first update, which may compile for minutes

    def due(every: int) -> bool:
        return every > 0 and done // every > (done - steps) // every

    save, stop = run.agreed_signals()
    progress.evaluation_due = due(args.eval_steps)
    if save or stop or due(args.save_steps) or progress.evaluation_due:
        read_check(run)
    if save or stop or due(args.save_steps):
        save_run(run)
        run.signals.save = False
    if stop:
        run.signals.end(stop)
    if progress.evaluation_due:
        evaluate(run)


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
        run.print(f"stopped early: {progress.evals_without_improvement} evaluations in a row brought no better score")


def stopped_early(run: TrainingRun) -> bool:
    """Whether more than --stop_after_evals evaluations in a row brought no better score."""
    return run.progress.evals_without_improvement > run.args.stop_after_evals


# ---- evaluation ------------------------------------------------------------------------------------------------------


def evaluate(run: TrainingRun) -> None:
    """Score the model, write captions and scores, and save it if it is the best so far."""
    args, progress = run.args, run.progress
    save_run(run)
    _, stop = run.agreed_signals(now=True)  # else the others would learn of one process's stop only by its end
    if stop:
        run.signals.end(stop)
    run.signals.set_immediate(True)  # a stop within an evaluation loses nothing
    evaluation = run.evaluator(run.model)
    accuracy, result = evaluation.scores["sub_acc"], evaluation.scores[deciding_score(args.metrics)]
    better = {"best-acc": accuracy > progress.best_acc, "best-res": result > progress.best_res}
    progress.best_acc, progress.best_res = max(accuracy, progress.best_acc), max(result, progress.best_res)
    if better["best-res"]:
        progress.best_res_at = [progress.epoch, progress.step]
    progress.evals_without_improvement = 0 if any(better.values()) else progress.evals_without_improvement + 1
    progress.scores.append({"epoch": progress.epoch, "step": progress.step - 1} | evaluation.scores)
    progress.evaluation_due, progress.evaluated = False, [progress.epoch, progress.step]
    run.last_evaluation = evaluation
    if run.accelerator.is_main_process:
        write_evaluation(args.caption_save_path, evaluation, run.evaluator.records, progress.epoch, progress.step - 1)
        write_gallery(args, evaluation, run.evaluator, progress.epoch, progress.step - 1)
        log_scores(run)
        for name in (name for name, is_better in better.items() if is_better):
            save_best(run, name)
    run.accelerator.wait_for_everyone()
    run.signals.set_immediate(False)
    run.print(line_of_scores(progress.scores[-1]))
    if warning := collapse_warning(list(evaluation.explanations.values())):
        run.print(warning)


def log_scores(run: TrainingRun) -> None:
    """Log the last evaluation, with the explanations of a few images; on the main process only."""
    explanations = run.last_evaluation.explanations
    records, updates = run.evaluator.records, run.progress.updates
    point = {"epoch": 0, "step": 0, "updates": updates} | run.progress.scores[-1]
    samples = {
        records[str(image_id)]["image_name"]: explanations[image_id] for image_id in list(explanations)[:SAMPLES]
    }
    run.log.write("scores", point, samples=samples)
    run.accelerator.log(score_values(point, samples), step=updates)


def log_end(run: TrainingRun) -> None:
    """Log that the training is done, and which evaluation is best-res: utils.sweep recognises finished runs by this."""
    if run.accelerator.is_main_process:
        epoch, steps_done = run.progress.best_res_at or (None, None)
        run.log.write("end", {"epoch": epoch, "step": None if steps_done is None else steps_done - 1})


# ---- the script ------------------------------------------------------------------------------------------------------


def score_checkpoint(run: TrainingRun) -> None:
    """--eval_only: score one checkpoint; write captions and scores under its name, and the report."""
    args, accelerator, evaluator = run.args, run.accelerator, run.evaluator
    # what the report needs is read before hours of captioning, not after them
    classifier = None
    if args.text2emotion is not None:
        classifier = EmotionClassifier.load(args.text2emotion, args.vocabulary)
    training = training_texts(args) if accelerator.is_main_process else None
    clip = None
    if args.clip_score and accelerator.is_main_process:
        clip = load_clip_scorer(args.clip_score, args.image_root, accelerator.device)
    run.model.to(accelerator.device)
    evaluation = evaluator(run.model)
    if accelerator.is_main_process:
        records = evaluator.records
        write_evaluation(args.caption_save_path, evaluation, records, args.load_from_epoch, 0)
        write_gallery(args, evaluation, evaluator, args.load_from_epoch, 0)
        table = write_test_report(
            args.caption_save_path / "report.json",
            args.nle_data_val_path,
            records,
            evaluation,
            evaluator.scorer,
            checkpoint_facts(args, run.fingerprints),
            test_set=args.test_set,
            training=training,
            lexicon=run.lexicon,
            classifier=classifier,
            clip=clip,
            append_to=args.append_to,
        )
        accelerator.print(table)
        if warning := collapse_warning(list(evaluation.explanations.values())):
            accelerator.print(escaped(warning, keep="\n"))
        accelerator.print(summary_of_scoring(args, evaluation.scores, len(records)))


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns 0. See `--help` for the flags.

    Raises:
        InputError: for every error that a user can correct.
    """
    gc.enable()
    args = parse_args(argv)
    accelerator = start_accelerator(
        args.cpu_threads,
        args.mixed_precision,
        log_with=None if args.report_to == ["none"] else args.report_to,
        project_config=ProjectConfiguration(logging_dir=args.caption_save_path / TENSORBOARD),
    )
    for line in launch_lines(accelerator, args):
        accelerator.print(escaped(line))
    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(StopSignals(accelerator.is_main_process, how_to_continue(args)))
        if args.demo:
            from preprocess.make_demo_data import make_demo  # it needs scikit-learn, whose import takes a second

            with accelerator.main_process_first():
                make_demo((args.nle_data_train_path or DEMO_DEFAULTS["nle_data_train_path"]).parent)
        check_paths(args)
        torch.manual_seed(args.seed)
        scorer = None
        if accelerator.is_main_process:
            written = (args.caption_save_path,) if args.eval_only else (args.ckpt_path, args.caption_save_path)
            folders = {os.path.realpath(folder): folder for folder in written}
            for folder in folders.values():
                stack.enter_context(run_lock(folder))
            if not args.eval_only:
                prepare_folder(args.ckpt_path, args.resume, continued=bool(args.load_from_epoch))
            scorer = CaptionScorer(args.annFileExp, args.metrics, args.cache_dir, args.meteor_jvms)
            stack.enter_context(scorer).start()  # METEOR's tables load in parallel with the data
        # the other processes find in the cache folder what the main process has checked and computed
        with without_collections(), accelerator.main_process_first():
            run = prepare(args, accelerator, scorer)
        if args.eval_only:
            score_checkpoint(run)
            return 0
        build_training(run, signals)
        start_or_continue(run)
        progress = run.progress
        start_trackers(args, accelerator, run.log, [progress.epoch, progress.step] if progress.evaluation_due else None)
        give_back_freed_memory()  # the loader's processes are forked next
        train(run)
        log_end(run)
        signals.set_immediate(True)
        run.print(summary_of_training(run))
    accelerator.end_training()
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
