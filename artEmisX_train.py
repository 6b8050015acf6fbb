"""Train SEVLM on ArtEmis, and score it with COCO-caption after every epoch.

    accelerate launch artEmisX_train.py --demo
    accelerate launch artEmisX_train.py --ckpt_path ckpts/ --caption_save_path results/ \
        --nle_data_train_path data/artEmis/artEmisX_cl_train.json --nle_data_val_path data/artEmis/artEmisX_val.json
    torchrun --nproc_per_node 2 artEmisX_train.py ...          (several processes on one machine)

Reads top to bottom: data and model are built in `main`, `train_epoch` is the loop, `evaluate` the scores.
"""

import argparse
import contextlib
import hashlib
import json
import os
import sys
from dataclasses import asdict, dataclass, field

from utils.errors import InputError, run_script
from utils.opts import check_paths, needs_lexicon, parse_args

if __name__ == "__main__" and (status := run_script(lambda: check_paths(parse_args(), early=True))):
    sys.exit(status)  # wrong flags and missing files answer here, seconds before torch is imported

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader
from tqdm import tqdm

from cococaption import CaptionScorer
from models.pretrained import first_line
from models.sevlm import SEVLM, SEVLMOutput
from models.text2emotion import load_text2emotion
from utils.building import build_model, build_optimizer, count_parameters, linear_decay, parameter_groups
from utils.checkpoint import (
    TOKENIZER_FOLDER,
    NamedCheckpoint,
    has_states,
    load_named,
    load_state,
    save_named,
    save_state,
)
from utils.checkpoint_report import report_checkpoint
from utils.constants import CLIP_MEAN, CLIP_STD, EMOTION_SPAN, IMAGENET_MEAN, IMAGENET_STD
from utils.datasets import EpochBatches, ImagePixels, PairCollator, TrainingPairs
from utils.demo import make_demo
from utils.evaluation import Evaluator, write_evaluation
from utils.feature_cache import FeatureCache, ImageInputs, make_header
from utils.files import write_text
from utils.image_check import check_images
from utils.image_files import ImageFolder
from utils.memory import reuse_freed_memory
from utils.records import Records, read_records
from utils.run_guard import StopSignals, locked
from utils.tokenizer import TextCodec, load_tokenizer
from utils.vad import Lexicon, VADLookup, read_lexicon

PARTS = ("loss", "lm_loss", "contrastive_loss", "vad_loss", "emotion_loss")
# Several processes agree on a stop only so often, as agreeing makes them wait for each other.
STEPS_BETWEEN_AGREEMENTS = 8


@dataclass
class Progress:
    """Where a run stands; all that a continuation needs beside weights and optimiser.

    epoch, step: the next step to do (step: index within the epoch). evaluated: the [epoch, step] last scored.
    evaluation_due: the state was saved just before an evaluation. without_gain: evaluations in a row that brought no
    better score. scores, losses: what was logged so far.
    """

    epoch: int = 0
    step: int = 0
    updates: int = 0
    best_acc: float = -1.0
    best_res: float = -1.0
    without_gain: int = 0
    evaluation_due: bool = False
    evaluated: list[int] = field(default_factory=list)
    scores: list[dict] = field(default_factory=list)
    losses: list[dict] = field(default_factory=list)


class Run:
    """One training or evaluation: what `main` built, for the functions below."""

    def __init__(
        self,
        args: argparse.Namespace,
        accelerator: Accelerator,
        model: SEVLM,
        codec: TextCodec,
        lexicon: Lexicon | None,
        images: ImageInputs,
        evaluator: Evaluator,
    ):
        self.args, self.accelerator = args, accelerator
        self.codec, self.lexicon, self.images, self.evaluator = codec, lexicon, images, evaluator
        self.model = model  # the bare module; `prepared` is what accelerate makes of it
        self.progress = Progress()
        self.signals = StopSignals()

    def say(self, text: str) -> None:
        self.accelerator.print(text)


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
    )
    # the sampler has dealt the images out to the processes already; accelerate moves batches and sees the epoch's end
    run.loader = prepare_data_loader(
        loader, accelerator.device, num_processes=1, process_index=0, put_on_device=True, non_blocking=True
    )
    run.steps_per_epoch = len(run.batches)
    updates = args.num_train_epochs * -(-run.steps_per_epoch // accelerator.gradient_accumulation_steps)
    groups, run.parameter_names = parameter_groups(args, run.model)
    run.optimizer = build_optimizer(groups, args.adam_eps)
    run.scheduler = linear_decay(run.optimizer, updates)
    module = torch.compile(run.model) if args.compile else run.model
    run.prepared, run.optimizer = accelerator.prepare(module, run.optimizer)
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
    parameters = [parameter for group in run.optimizer.param_groups for parameter in group["params"]]
    accelerator.unscale_gradients()
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    finite = torch.isfinite(output.loss)
    if accelerator.scaler is None:  # fp16's scaler leaves updates with infinite gradients out by itself
        finite = finite & torch.isfinite(norm)
    if args.max_grad_norm:
        torch.nn.utils.clip_grads_with_norm_(parameters, args.max_grad_norm, norm)
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
    if run.accelerator.num_processes > 1 and done % STEPS_BETWEEN_AGREEMENTS == 0:
        asked = torch.tensor([float(signals.save), float(signals.stop or 0)], device=run.accelerator.device)
        save, stop = run.accelerator.reduce(asked, "sum").tolist()
        signals.save, signals.stop = save > 0, int(signals.stop or (stop > 0) * 15) or None
    agreed = run.accelerator.num_processes == 1 or done % STEPS_BETWEEN_AGREEMENTS == 0
    if agreed and (signals.save or signals.stop) or (args.save_steps and done % args.save_steps == 0):
        save_run(run)
        signals.save = False
    if agreed and signals.stop:
        run.say(f"stopped by signal {signals.stop}; continue with --resume")
        raise SystemExit(128 + signals.stop)
    if args.eval_steps and done % args.eval_steps == 0:
        progress.evaluation_due = True
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


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def config_fields(run: Run) -> dict:
    """What config.json holds beside the decoder's sizes: what must be the same when the model is used again."""
    args = run.args
    names = (
        "clip_model",
        "prompt_text",
        "lemmatizer",
        "use_VAD",
        "masked_pooling",
        "clip_normalization",
        "fixed_encoder",
    )
    lexicon = None if run.lexicon is None else run.lexicon.describe()
    return {name: getattr(args, name) for name in names} | {"vad_lexicon": lexicon, "seed": args.seed}


def stats(run: Run) -> dict:
    """What ckpt_stats_<name>.tar holds beside the encoders, under the published keys."""
    return {
        "epoch": run.progress.epoch,
        "best_acc": run.progress.best_acc,
        "best_res": run.progress.best_res,
        "optimizer_state_dict": run.optimizer.state_dict(),
        "scheduler": run.scheduler.state_dict(),
        "parameter_names": run.parameter_names,
        "progress": asdict(run.progress),
    }


def save_run(run: Run) -> None:
    """Write a state that --resume continues from exactly."""
    if run.accelerator.is_main_process:
        encoder = run.model.image_encoder
        frozen = "image_encoder." if encoder is not None and encoder.fixed else "\0"
        weights = {name: tensor for name, tensor in run.model.state_dict().items() if not name.startswith(frozen)}
        scaler = run.accelerator.scaler
        state = {
            "model": weights,
            "optimizer": run.optimizer.state_dict(),
            "scheduler": run.scheduler.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "progress": asdict(run.progress),
            "settings": resume_settings(run),
        }
        save_state(run.args.ckpt_path, run.progress.epoch, run.progress.step, state)
    run.accelerator.wait_for_everyone()


def resume_settings(run: Run) -> dict:
    """What must not change between a state and its continuation, else it is another training."""
    args = run.args
    global_batch = args.batch_size * run.accelerator.num_processes
    names = ("seed", "num_train_epochs", "use_cl_loss", "use_VAD_loss", "use_VAD", "first_text", "fixed_encoder")
    settings = {name: getattr(args, name) for name in names}
    return settings | {"images per step": global_batch, "images": run.batches.size}


def resume(run: Run) -> None:
    """Continue from the newest whole state, or begin when the run had not got as far as one."""
    state, notes = load_state(run.args.ckpt_path)
    for note in notes:
        run.say(note)
    if state is None:
        run.say(f"{run.args.ckpt_path}: no state to resume from yet: starting at the beginning")
        return
    try:
        restore(run, state)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{run.args.ckpt_path}/resume: the newest state.pt is not of this program ({first_line(error)}); start anew "
            "without --resume"
        ) from None
    run.say(f"resumed at epoch {run.progress.epoch}, step {run.progress.step}")


def restore(run: Run, state: dict) -> None:
    """Put a state's weights, optimiser, schedule and progress into the run; errors of several kinds where it is not of this program."""
    for name, value in resume_settings(run).items():
        if state["settings"].get(name) != value:
            raise InputError(
                f"--resume: {name} was {state['settings'].get(name)} and is {value} now; give the same flags as before "
                "(with another number of processes: a --batch_size that makes the same images per step)"
            )
    missing, unexpected = run.model.load_state_dict(state["model"], strict=False)
    lacking = [name for name in missing if not name.startswith("image_encoder.") or not run.args.fixed_encoder]
    if lacking or unexpected:
        raise InputError(f"--resume: the state is of another model: {', '.join((lacking + unexpected)[:4])}")
    run.optimizer.load_state_dict(state["optimizer"])
    run.scheduler.load_state_dict(state["scheduler"])
    if state["scaler"] is not None and run.accelerator.scaler is not None:
        run.accelerator.scaler.load_state_dict(state["scaler"])
    run.progress = Progress(**state["progress"])


def continue_from(run: Run, checkpoint: NamedCheckpoint) -> None:
    """--load_from_epoch: continue at the epoch after the checkpoint's, with its optimiser where it fits."""
    run.progress.epoch = int(checkpoint.stats.get("epoch", -1)) + 1
    run.progress.best_acc = float(checkpoint.stats.get("best_acc", -1.0))
    run.progress.best_res = float(checkpoint.stats.get("best_res", -1.0))
    if checkpoint.stats.get("parameter_names") == run.parameter_names:
        try:
            run.optimizer.load_state_dict(checkpoint.stats["optimizer_state_dict"])
            run.scheduler.load_state_dict(checkpoint.stats["scheduler"])
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{checkpoint.folder}: its optimiser state cannot be used ({first_line(error)}); take another checkpoint"
            ) from None
    else:
        run.say(
            f"{checkpoint.folder}: its optimiser state is of other parameters: AdamW starts anew, the schedule goes on"
        )
        done = run.progress.epoch * -(-run.steps_per_epoch // run.accelerator.gradient_accumulation_steps)
        for _ in range(done):
            run.scheduler.step()
    run.say(f"continuing at epoch {run.progress.epoch}")


# ---- the whole -------------------------------------------------------------------------------------------------------


def read_inputs(args: argparse.Namespace) -> tuple[list[Records], ImageFolder | None, Lexicon | None]:
    """Read and check everything a user brings: records [val] or [val, train], image folder, lexicon."""
    lexicon = read_lexicon(args.vad_lexicon) if needs_lexicon(args) else None
    paths = [args.nle_data_val_path] + ([] if args.eval_only else [args.nle_data_train_path])
    splits = [read_records(path) for path in paths]
    if args.image_root is None:  # a finished feature cache stands in for the images
        return splits, None, lexicon
    folder = ImageFolder(args.image_root)
    splits = [
        check_images(records, folder, args.skip_bad_images, args.cache_dir, path)
        for records, path in zip(splits, paths, strict=True)
    ]
    return splits, folder, lexicon


def check_annotated(args: argparse.Namespace, scorer: CaptionScorer, records: Records) -> None:
    """InputError when images to score have no reference explanations: the two files are of different splits."""
    lacking = [image_id for image_id in records if int(image_id) not in scorer.references]
    if lacking:
        raise InputError(
            f"--annFileExp {args.annFileExp}: lacks {len(lacking)} images of {args.nle_data_val_path}, {lacking[0]} for "
            "one; give the annotation file of the same split"
        )


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


def build_images(
    args: argparse.Namespace, model: SEVLM, folder: ImageFolder | None, splits: list[Records]
) -> ImageInputs:
    """Pixels, or cached features; with a finished cache the encoder has done its work and is let go."""
    mean, std = (CLIP_MEAN, CLIP_STD) if args.clip_normalization else (IMAGENET_MEAN, IMAGENET_STD)
    names = {int(image_id): record["image_name"] for records in splits for image_id, record in records.items()}
    pixels = ImagePixels(folder, model.image_encoder.image_size, mean, std)
    if not args.feature_cache:
        return ImageInputs(pixels, None, names)
    header = make_header(args.clip_model, model.image_encoder, mean, std)
    wanted = list(dict.fromkeys(names.values()))
    if args.feature_cache == "auto":
        key = hashlib.sha256(json.dumps([header, wanted]).encode()).hexdigest()[:16]
        return ImageInputs(pixels, FeatureCache.create(args.cache_dir / f"features-{key}", header, wanted), names)
    cache = FeatureCache(args.feature_cache, header)
    if missing := cache.missing(wanted):
        raise InputError(
            f"--feature_cache {args.feature_cache}: has no features of {len(missing)} images, e.g. {missing[0]}; "
            "run preprocess/cache_features.py on the same splits"
        )
    model.image_encoder = None
    return ImageInputs(pixels, cache, names)


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
        scorer = None
        if accelerator.is_main_process:
            for folder in dict.fromkeys((args.ckpt_path, args.caption_save_path)):
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
        stack.enter_context(run.signals)
        train(run)
        print_summary(run)
    accelerator.end_training()
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
