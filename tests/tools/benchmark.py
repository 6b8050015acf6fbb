"""Throughput and memory of training, decoding, loading and scoring, side by side with the plain reference.

    python tests/tools/benchmark.py                        (full size and demo size, on the device there is)
    python tests/tools/benchmark.py --size demo --repeats 1

Ours are the paths the training script takes; the reference (tests/tools/reference.py) encodes the image for each of its
texts, makes logits at all positions and computes everything anew at every decoding step, with attention, optimiser and
memory as PyTorch and transformers have them by default. Weights, images and texts are random; texts have ArtEmis'
length. Each side has a process of its own; they take turns, so that both see the same machine, and figures are medians
over the rounds. Peak memory is that of a process that does one thing only (on a CPU as Linux counts it).
"""

import argparse
import contextlib
import multiprocessing
import os
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cached_property
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple
from unittest.mock import Mock, patch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.processes import prepare_environment

prepare_environment()

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from transformers import CLIPVisionConfig, GPT2Config

from models.cpu.packed_weights import packed_weights
from models.decoder import Explainer
from models.sevlm import SEVLM
from tests.tools.reference import Reference, reference_batch
from utils.command_line import CONFIGS
from utils.constants import EMOTION_SPAN, EMOTIONS, IGNORED_LABEL, MAX_NEW_TOKENS, PROMPT_TEXT
from utils.data.datasets import ItemKey, PairCollator, TrainingPairs
from utils.data.feature_cache import FeatureCache, ImageFile, make_header
from utils.data.records import TrainingRecords
from utils.data.text_codec import SHIPPED_BPE, TextCodec, load_tokenizer
from utils.data.vad_lexicon import TEXTS_AT_ONCE, Lexicon, VADLookup
from utils.errors import OneLineParser, number, run_script
from utils.evaluation.decoding_state import compact_order
from utils.evaluation.generation import greedy_decode
from utils.files import write_json
from utils.opts import get_parser as get_training_parser
from utils.processes import reuse_freed_memory
from utils.training.build_model import build_decoder, build_model, model_config
from utils.training.optimizer import build_optimizer, parameter_groups

# New tokens of a text, stop token not counted: mean 15, at most 25. Row i of a batch has the (i mod 8)th.
LENGTHS = (15, 9, 22, 7, 25, 13, 18, 11)
WORDS = (  # each one token, as are the names of seven emotions
    " the dark sea sky looks like a big storm and this makes me feel very calm of light blue colors in her face is sad"
    " green trees with old house it was so warm as if there were no one at home but he can see red water far away"
).split()
SHORT_EMOTIONS = [emotion for emotion in EMOTIONS if emotion not in ("contentment", "something else")]

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SIZES = {"full": ("distilgpt2", "clip-vit-base-patch16"), "demo": ("demo-gpt2", "demo-clip-vit")}
PAIRS, MANY_PAIRS = 8, 32  # of a training step
SPLIT = 1024  # images of a split that is decoded whole
BF16, CAUSAL = torch.bfloat16, ("--vad_causal",)
MATRIX_SIZE, MATRIX_PRODUCTS = 4096, 5
LEAST_SECONDS = 0.3  # of one measurement: shorter jobs are done several times over
CAPTION_IMAGES, CAPTION_REFERENCES = 2000, 6


class Spec(NamedTuple):
    """A line of the benchmark: one training step, or one decoding.

    units: pairs or images; None: as many as --images says. where: the devices that it is measured on.
    """

    name: str
    units: int | None = None
    ours: bool = True
    cached: bool = True
    flags: tuple[str, ...] = ()
    dtype: torch.dtype = torch.float32
    where: tuple[str, ...] = ("cpu", "cuda")

    @property
    def kind(self) -> str:
        return "training" if "training" in self.name else "decoding"


TABLE = (
    Spec("reference training", PAIRS, ours=False, cached=False),
    Spec("training from pixels", PAIRS, cached=False),
    Spec("training, cached", PAIRS),
    Spec("training, cached, large batch", MANY_PAIRS),
    Spec("reference decoding", ours=False, cached=False),
    Spec("decoding, cached"),
    Spec("decoding, cached, --vad_causal", flags=CAUSAL),
    Spec(f"decoding, {SPLIT} images, --vad_causal", SPLIT, flags=CAUSAL),
    Spec("training, cached, bf16", PAIRS, dtype=BF16),
    Spec("training, cached, bf16, large batch", MANY_PAIRS, dtype=BF16, where=("cuda",)),
    Spec("decoding, cached, bf16", dtype=BF16),
    Spec("decoding, cached, --vad_causal, bf16", flags=CAUSAL, dtype=BF16, where=("cpu",)),
)


def table() -> dict[str, Spec]:
    """The lines for this device; bfloat16's on a CPU that multiplies it."""
    multiplies = DEVICE.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return {spec.name: spec for spec in TABLE if DEVICE.type in spec.where and (spec.dtype != BF16 or multiplies)}


class Job(NamedTuple):
    """Something to measure: `run()` does `units` pairs or images; `flops` are the useful ones of a run, if counted.

    `run` is None outside the process that does it.
    """

    run: Callable[[], object] | None
    units: int
    flops: float | None = None


# ---- what is measured ------------------------------------------------------------------------------------------------


class RandomImages:
    """Image name -> random pixels, or random float16 features."""

    def __init__(self, vision: CLIPVisionConfig, cached: bool):
        self.vision, self.cached = vision, cached

    def load(self, image_names: list[str]) -> list[dict[str, Tensor]]:
        return [self.image(torch.Generator().manual_seed(int(name))) for name in image_names]

    def image(self, generator: torch.Generator) -> dict[str, Tensor]:
        if not self.cached:
            return {"pixels": torch.randn(3, self.vision.image_size, self.vision.image_size, generator=generator)}
        features = torch.randn(patches(self.vision) + 1, self.vision.hidden_size, generator=generator).half()
        return {"cls": features[0], "grid": features[1:]}

    def batch(self, images: int) -> dict[str, Tensor]:
        loaded = self.load(list(map(str, range(images))))
        return {name: torch.stack([image[name] for image in loaded]).to(DEVICE) for name in loaded[0]}


def patches(vision: CLIPVisionConfig) -> int:
    return (vision.image_size // vision.patch_size) ** 2


class Workbench:
    """Models and data of one size, each made when the first job asks for it. Dropout is on in training, in both."""

    def __init__(self, size: str, images: int):
        self.images, self.packed, self.jobs = images, contextlib.ExitStack(), {}
        gpt2, clip = (str(CONFIGS / name) for name in SIZES[size])
        self.vision = CLIPVisionConfig.from_pretrained(clip)
        flags = ["--gpt2_model", gpt2, "--clip_model", clip, "--prefix_dim", str(self.vision.hidden_size)]
        self.flags = [*flags, "--from_scratch", "--lemmatizer", "none"]
        self.args = get_training_parser().parse_args(self.flags)
        self.codec = TextCodec(load_tokenizer(gpt2), self.args.prompt_text, self.args.max_seq_len)
        rng = random.Random(0)
        values = {word: tuple(rng.uniform(-1, 1) for _ in range(3)) for word in WORDS}
        self.vad = VADLookup(Lexicon(values, Path("random"), "", "-1..1"), "none", self.codec)

    def job(self, spec: Spec) -> Job:
        if spec.name not in self.jobs:
            decoding = self.decoding if spec.ours else self.reference_decoding
            self.jobs[spec.name] = self.training(spec) if spec.kind == "training" else decoding(spec)
        return self.jobs[spec.name]

    # -- models: each with its optimiser

    def build(self, *more: str) -> tuple[SEVLM, torch.optim.Optimizer]:
        args = get_training_parser().parse_args([*self.flags, *more])
        torch.manual_seed(0)
        model = build_model(args, self.codec, None)
        if args.feature_cache:
            model.image_encoder = None  # as the training script does once the cache is complete
        model.to(DEVICE)
        return model, build_optimizer(parameter_groups(args, model)[0], args.adam_eps, args.adamw)

    @cached_property
    def pixel_model(self) -> tuple[SEVLM, torch.optim.Optimizer]:
        return self.build()

    @cached_property
    def cached_model(self) -> tuple[SEVLM, torch.optim.Optimizer]:
        return self.build("--feature_cache", "random")

    @cached_property
    def reference(self) -> tuple[Reference, torch.optim.Optimizer]:
        settings = model_config(self.args, self.codec, None)
        with torch.device("meta"):
            config = build_decoder(self.args, self.codec, None, settings).config
        torch.manual_seed(0)
        model = Reference(config, settings, self.vision).to(DEVICE)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return model, torch.optim.AdamW(trained, self.args.learning_rate, eps=self.args.adam_eps, weight_decay=0.0)

    # -- data

    def pairs(self, images: int, source: RandomImages | FeatureCache) -> TrainingPairs:
        """Texts of LENGTHS' lengths, two for each image."""
        rng, lengths = random.Random(0), cycle(LENGTHS)
        records = {
            str(image): {
                "emotions": [SHORT_EMOTIONS[image % 7], SHORT_EMOTIONS[(image + 1) % 7]],
                "explanations": [" ".join(rng.choices(WORDS, k=next(lengths) - 2)) for _ in range(2)],
                "image_name": str(image),
                "origin_emotion_distribution": [1 / 9] * 9,
            }
            for image in range(images)
        }
        return TrainingPairs(TrainingRecords.from_records(records), source, self.codec, self.vad, seed=0)

    def batch(self, spec: Spec) -> dict[str, Tensor]:
        """The arguments of our forward, or of the reference's."""
        pairs = self.pairs(spec.units, RandomImages(self.vision, spec.cached))
        items = [pairs[ItemKey(0, index)] for index in range(spec.units)]
        batch = PairCollator(0, 0, EMOTION_SPAN)(items)
        del batch["image_ids"]
        batch = batch if spec.ours else reference_batch(items, batch["visual_negatives"])
        return tree_map(lambda tensor: tensor.to(DEVICE), batch)

    # -- jobs

    def training(self, spec: Spec) -> Job:
        """One step; ours as the training script does it: forward, backward, check of the gradients, fused AdamW."""
        models = {(True, True): "cached_model", (True, False): "pixel_model", (False, False): "reference"}
        model, optimizer = getattr(self, models[spec.ours, spec.cached])
        batch = self.batch(spec)

        def step() -> None:
            model.train()
            with torch.autocast(DEVICE.type, BF16, enabled=spec.dtype == BF16):
                loss = model(**batch)["loss"]
            loss.backward()
            finite = torch.isfinite(loss)
            if spec.ours:
                gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
                finite &= torch.nn.utils.get_total_norm(gradients).isfinite()
            if not finite:
                raise RuntimeError("loss or gradient is not finite")
            optimizer.step()
            optimizer.zero_grad()

        if not spec.cached:
            return Job(step, spec.units)
        labels, length = int((batch["lm_targets"] != IGNORED_LABEL).sum()), batch["input_ids"].shape[1]
        config = model.decoder.config
        return Job(step, spec.units, useful_flops(config, patches(self.vision), spec.units, length, labels))

    def decoding(self, spec: Spec) -> Job:
        """Greedy texts from cached features. Weights are packed beforehand, as once in an evaluation.

        One batch of --images, or a whole split in batches of --eval_batch_size's default, which all have the same features,
        and texts of the same lengths, each batch in an order of its own.
        """
        images = spec.units or self.images
        together = self.args.eval_batch_size if spec.units else images
        model = self.build("--feature_cache", "random", *spec.flags)[0].eval()
        self.packed.enter_context(packed_weights(model.decoder, spec.dtype))
        features = RandomImages(self.vision, cached=True).batch(together)
        rng, usual = random.Random(0), text_lengths(together)
        lengths = [usual, *(rng.sample(usual, together) for _ in range(images // together - 1))]

        def decode(wanted: list[int]) -> None:
            with (
                torch.inference_mode(),
                torch.autocast(DEVICE.type, BF16, enabled=spec.dtype == BF16),
                forced_lengths(model.decoder, wanted, self.codec.stop_ids),
            ):
                image = model.image_features(None, **features)
                generated = greedy_decode(model, image, self.codec.prompt(), self.vad.for_generated)
            check_lengths(generated.lengths.tolist(), wanted)

        return Job(lambda: [decode(wanted) for wanted in lengths], images)

    def reference_decoding(self, spec: Spec) -> Job:
        model, wanted = self.reference[0], text_lengths(self.images)
        pixels = RandomImages(self.vision, cached=False).batch(self.images)["pixels"]
        ids, segments, because, *kinds, stop_ids = self.codec.prompt()
        prompt = ids, segments, because, tuple(kinds)

        def decode() -> None:
            model.eval()
            with forced_lengths_of_reference(model.decoder.lm_head, wanted, stop_ids):
                rows = model.generate(pixels, *prompt, self.vad.for_generated, MAX_NEW_TOKENS, stop_ids)
            check_lengths([len(row) for row in rows], wanted)

        return Job(decode, self.images)


def text_lengths(images: int) -> list[int]:
    return list(islice(cycle(LENGTHS), images))


@contextlib.contextmanager
def forced_lengths(decoder: Explainer, lengths: list[int], stop_ids: tuple[int, ...]) -> Iterator[None]:
    """Make the texts of one batch end after `lengths` tokens, whatever the weights say.

    Each call of `top_two` is followed by a change of what it found: the first stop token where a text is long enough, the
    second best token where a text would end too early. The nth call belongs to the nth new token, and a batch that has
    shrunk has lost all texts that ended, and none else.
    """
    wanted, step, top_two = torch.tensor(lengths), 0, decoder.top_two

    def forced(hidden: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal wanted, step
        values, ids = top_two(hidden)
        if len(ids) < len(wanted):
            wanted = wanted[compact_order(wanted >= step)]
        best = torch.where(torch.isin(ids[:, 0], torch.tensor(stop_ids, device=ids.device)), ids[:, 1], ids[:, 0])
        ended = (wanted <= step).to(ids.device)
        step += 1
        return values, torch.stack([torch.where(ended, stop_ids[0], best), ids[:, 1]], dim=1)

    with patch.object(decoder, "top_two", forced):
        yield


@contextlib.contextmanager
def forced_lengths_of_reference(lm_head: nn.Module, lengths: list[int], stop_ids: tuple[int, ...]) -> Iterator[None]:
    """The same for the reference: a hook raises the logit of the first stop token, or lowers those of all stop tokens."""
    wanted, step, limit = torch.tensor(lengths, device=lm_head.weight.device), 0, 1e4

    def hook(module: nn.Module, inputs: tuple, logits: Tensor) -> None:
        nonlocal step
        logits[:, -1, list(stop_ids)] = -limit
        logits[:, -1, stop_ids[0]] = torch.where(wanted <= step, limit, -limit).to(logits.dtype)
        step += 1

    with lm_head.register_forward_hook(hook):
        yield


def check_lengths(lengths: list[int], wanted: list[int]) -> None:
    if lengths != wanted:
        raise RuntimeError(f"texts have {lengths} tokens instead of {wanted}: what forces them was passed over")


def useful_flops(config: GPT2Config, patches: int, images: int, length: int, labels: int) -> float:
    """Floating-point operations that one training step on cached features cannot do without.

    Counted are matrix products, 2 m n k operations each: the blocks' at every position (padding too, which the
    contrastive means include), attention scores and sums (self-attention to earlier positions only), image keys and
    values once per image, the fusion with VAD, the vocabulary at labelled positions only, the contrastive head with its
    first layer once per text. The backward pass takes twice the forward's, but only as much for image keys and values,
    whose input is fixed. Left out, as below one per cent: VAD encoder, VAD head, normalisations, optimiser.
    """
    width, texts = config.n_embd, 2 * images
    inner = config.n_inner or 4 * width
    block = length * (4 * width**2 + 2 * width**2 + 2 * width * inner)  # self-attention, cross-attention, MLP
    block += 2 * width * (length * (length + 1) // 2 + length * patches)
    fusion = (length - EMOTION_SPAN) * (width + 3) * width
    contrastive = 3 * width**2 + 3 * (3 * width**2 + width)
    image_keys_values = images * config.n_layer * patches * 2 * width**2
    forward = texts * (config.n_layer * block + fusion + contrastive) + labels * width * config.vocab_size
    return 2 * (3 * forward + 2 * image_keys_values)


# ---- measuring -------------------------------------------------------------------------------------------------------


def matrix_seconds(dtype: torch.dtype) -> list[float]:
    """Seconds of each of five 4096 x 4096 matrix products."""
    left, right = torch.randn(2, MATRIX_SIZE, MATRIX_SIZE, device=DEVICE, dtype=dtype).unbind()
    torch.mm(left, right)
    return [seconds_of(lambda: torch.mm(left, right)) for _ in range(MATRIX_PRODUCTS)]


def seconds_of(run: Callable[[], object]) -> float:
    synchronize()
    start = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - start


def synchronize() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def side(size: str, args: argparse.Namespace, ours: bool) -> ProcessPoolExecutor:
    """A process of one side, ours or the reference's, for `do`."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), start_side, (size, args.images, ours))


def start_side(size: str, images: int, ours: bool) -> None:
    global bench
    if ours and DEVICE.type == "cpu":
        reuse_freed_memory()  # as the training script does
    bench = Workbench(size, images)


def do(spec: Spec, times: int = 1) -> tuple[float, Job]:
    """Do a job so many times, in the process of a side: seconds of each, and the job."""
    job = bench.job(spec)
    return seconds_of(lambda: [job.run() for _ in range(times)]) / times, job._replace(run=None)


def largest_memory() -> int:
    """Bytes that this process has had at most; on a GPU, that it has allocated there."""
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def measure(size: str, args: argparse.Namespace) -> tuple[dict[torch.dtype, float], dict[str, float], dict[str, Job]]:
    """Matrix rates in FLOP/s, median seconds of every job, and the jobs."""
    specs, jobs, numbers = table(), {}, {}
    times: dict[str, list[float]] = {name: [] for name in specs}
    products: dict[torch.dtype, list[float]] = {spec.dtype: [] for spec in specs.values()}
    with side(size, args, ours=True) as ours, side(size, args, ours=False) as reference:

        def run(spec: Spec, times: int = 1) -> tuple[float, Job]:
            return (ours if spec.ours else reference).submit(do, spec, times).result()

        for name, spec in specs.items():
            first, jobs[name] = run(spec)
            warm = first if first > 5 else run(spec)[0]
            numbers[name] = max(1, round(LEAST_SECONDS / warm))
            print(f"  {name}: {warm:.3g} s", file=sys.stderr)
        for _ in range(args.repeats):
            for dtype, seconds in products.items():
                seconds += matrix_seconds(dtype)
            for name, spec in specs.items():
                times[name].append(run(spec, numbers[name])[0])
    rates = {dtype: 2 * MATRIX_SIZE**3 / statistics.median(seconds) for dtype, seconds in products.items()}
    return rates, {name: statistics.median(seconds) for name, seconds in times.items()}, jobs


def peak_memory(size: str, spec: Spec, args: argparse.Namespace) -> float:
    """MiB that a process has at most which builds and does one job."""
    with side(size, args, spec.ours) as process:
        # twice, as AdamW's averages appear at the end of a first step
        process.submit(do, spec, 2 if spec.kind == "training" else 1).result()
        return process.submit(largest_memory).result() / 2**20


def measure_loading(bench: Workbench, images: int = 256) -> tuple[float, float]:
    """Median milliseconds of loading one training item with cached features, files in the page cache: when its checksum
    is compared, the first time in a run, and later."""
    with tempfile.TemporaryDirectory() as folder:
        encoder = bench.pixel_model[0].image_encoder
        names = [str(image) for image in range(images)]
        cache = FeatureCache.create(folder, make_header("random", encoder, "imagenet"), names, folder)
        for name, features in zip(names, RandomImages(bench.vision, cached=True).load(names), strict=True):
            file = ImageFile(Path(folder) / "header.json", 0, 0)  # any file: nothing compares it here
            cache.write(name, torch.cat([features["cls"][None], features["grid"]]).numpy(), file)
        pairs = bench.pairs(images, FeatureCache(folder))
        keys = [ItemKey(0, index) for index in range(images)]
        first, later = ([seconds_of(lambda key=key: pairs[key]) for key in keys] for _ in range(2))
    return 1000 * statistics.median(first), 1000 * statistics.median(later)


# ---- tables ----------------------------------------------------------------------------------------------------------


def figure(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def row(what: str, unit: str, ours: float, reference: float | None = None, **more: str) -> dict[str, str]:
    """A line of a table. The ratio says how many times better ours is: more in a second, or less time."""
    cells = {"": what, "ours": figure(ours), "unit": unit}
    if reference is not None:
        ratio = ours / reference if unit.endswith("/s") else reference / ours
        cells |= {"reference": figure(reference), "ratio": f"{ratio:.2f} x"}
    return cells | more


def print_table(title: str, rows: list[dict[str, str]]) -> None:
    import pandas as pd  # not in the processes whose memory is measured

    cells = pd.DataFrame(rows).fillna("").set_index("").rename_axis(None)
    print(f"\n{title}\n{cells.to_string()}")


def benchmark(size: str, args: argparse.Namespace) -> None:
    """Measure one size, and print its table."""
    print(f"{size} size", file=sys.stderr)
    specs = table()
    rates, seconds, jobs = measure(size, args)
    first_loading, loading = measure_loading(Workbench(size, args.images))
    speed = {name: job.units / seconds[name] for name, job in jobs.items()}
    peaks = {name: peak_memory(size, spec, args) for name, spec in specs.items()}
    rows = []
    for name, spec in specs.items():
        if spec.ours:
            reference, job = f"reference {spec.kind}", jobs[name]
            share = job.flops and job.flops / seconds[name] / rates[spec.dtype]
            more = {"GEMM share": f"{share:.0%}" if share else "", "peak MiB": f"{peaks[name]:.0f}"}
            if job.units == jobs[reference].units:
                more["its peak"] = f"{peaks[reference]:.0f}"
            unit = "pairs/s" if spec.kind == "training" else "images/s"
            rows.append(row(name, unit, speed[name], speed[reference], **more))
    rows += [row("loading a cached item", "ms", loading), row("the same, first time in a run", "ms", first_loading)]
    of_types = ", ".join(
        f"{str(dtype).removeprefix('torch.')} {rate / 1e9:.0f} GFLOP/s" for dtype, rate in rates.items()
    )
    useful = next(job.flops / job.units for job in jobs.values() if job.flops) / 1e9
    title = f"{size} size: {PAIRS} pairs a step, {args.images} images decoded; matrix rate {of_types}; "
    print_table(f"{title}{useful:.3g} useful GFLOP per pair", rows)


# ---- captions and tagging --------------------------------------------------------------------------------------------


def captions() -> list[dict[str, str]]:
    """A first and a second evaluation of 2000 captions, against pycocoevalcap without SPICE, whose models are a
    download."""
    import pycocoevalcap.eval
    from pycocotools.coco import COCO

    from cococaption import CaptionScorer
    from cococaption.tokenizer import find_java

    rng, ours, theirs = random.Random(0), [], []

    def sentence() -> str:
        return " ".join(rng.choices(WORDS, k=rng.choice(LENGTHS)))

    annotations = [
        {"id": number, "image_id": number // CAPTION_REFERENCES, "caption": sentence()}
        for number in range(CAPTION_IMAGES * CAPTION_REFERENCES)
    ]
    content = {"info": {}, "images": [{"id": image} for image in range(CAPTION_IMAGES)], "annotations": annotations}
    chosen = [{image: sentence() for image in range(CAPTION_IMAGES)} for _ in range(2)]
    spice = Mock(return_value=Mock(compute_score=lambda references, texts: (0.0, [0.0] * len(texts))))

    def as_it_comes(of_images: dict[int, str]) -> None:
        coco = COCO(path)
        results = coco.loadRes([{"image_id": image, "caption": text} for image, text in of_images.items()])
        pycocoevalcap.eval.COCOEvalCap(coco, results).evaluate()

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        path = Path(folder) / "annotations.json"
        write_json(path, content)
        start = time.perf_counter()
        with CaptionScorer(path) as scorer:
            for of_images in chosen:
                scorer.score(of_images)
                ours.append(time.perf_counter() - start)
                start = time.perf_counter()
        with_java = f"{Path(find_java()).parent}{os.pathsep}{os.environ['PATH']}"
        with patch.object(pycocoevalcap.eval, "Spice", spice), patch.dict(os.environ, PATH=with_java):
            theirs = [seconds_of(lambda of_images=of_images: as_it_comes(of_images)) for of_images in chosen]
    names = [f"caption evaluation, {which}" for which in ("first", "second")]
    return [row(name, "s", *seconds) for name, *seconds in zip(names, ours, theirs, strict=True)]


def invented_tagger(tokens: list[str]):
    """A tagger of NLTK's kind and size with random weights: 45 tags, 80 000 features of these tokens."""
    from nltk.tag.perceptron import PerceptronTagger

    rng = random.Random(0)
    tags = [f"T{number:02d}" for number in range(45)]
    words = [token.lower() for token in tokens]
    names = [f"{name} {word}" for name in ("i word", "i-1 word", "i-2 word", "i+1 word", "i+2 word") for word in words]
    names += [f"i-1 tag+i word {rng.choice(tags)} {word}" for word in words]
    names += [f"{name} {word[-3:]}" for name in ("i suffix", "i-1 suffix", "i+1 suffix") for word in words]
    names = sorted(rng.sample(sorted(set(names)), 75_000))
    names += ["bias", *(f"{name} {tag}" for name in ("i-1 tag", "i-2 tag") for tag in tags)]
    names += [f"i tag+i-2 tag {tag} {other}" for tag in tags for other in tags]
    weights = {name: {tag: rng.gauss(0, 1) for tag in rng.sample(tags, 5)} for name in names}
    tagger = PerceptronTagger(load=False)
    tagger.decode_json_params((weights, dict.fromkeys(WORDS[:8], tags[0]), tags))
    return tagger


def tagging(texts: int = 20_000, plain_texts: int = 1000, together: int = 64) -> list[dict[str, str]]:
    """The default lemmatizer's tagger over GPT-2's tokens, against NLTK itself, which tags one text after the other:
    training texts, and the texts of a generation, all of whose tokens NLTK tags again at every step."""
    from utils.data.perceptron_tagger import NLTKTagger, vocabulary_tagger

    codec = TextCodec(load_tokenizer(str(SHIPPED_BPE)), PROMPT_TEXT, 30)
    tokens = list(dict.fromkeys(token or " " for token in codec.words()))
    nltk_tagger = invented_tagger(tokens)
    ours, plain = vocabulary_tagger(nltk_tagger, tokens), NLTKTagger(nltk_tagger, tokens)
    ids = np.random.default_rng(0).zipf(1.2, (texts, 30)) % len(tokens)
    parts = [ids[start : start + TEXTS_AT_ONCE] for start in range(0, texts, TEXTS_AT_ONCE)]
    rate = texts / seconds_of(lambda: [ours(part) for part in parts])
    plain_rate = plain_texts / seconds_of(lambda: plain(ids[:plain_texts]))
    growing = [ids[:together, :length] for length in range(5, 5 + MAX_NEW_TOKENS)]

    def extend() -> None:
        tags = None
        for part in growing:
            tags = ours(part, None if tags is None else tags[:, :-2])

    ms, plain_ms = 1000 * seconds_of(extend), 1000 * seconds_of(lambda: [plain(part) for part in growing])
    generation = f"tagging {together} texts of {MAX_NEW_TOKENS} steps"
    return [row("tagging texts of 30 tokens", "texts/s", rate, plain_rate), row(generation, "ms", ms, plain_ms)]


def get_parser() -> argparse.ArgumentParser:
    """The benchmark's flags."""
    parser = OneLineParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--size", choices=(*SIZES, "both"), default="both", help="the paper's models, the demo's, or both")
    add("--repeats", type=number(int, 1), default=5, help="rounds; figures are medians over them")
    add("--images", type=number(int, 1), default=64, help="images decoded together, ours and the reference's")
    add("--captions", action="store_true", help="also the caption scores, against pycocoevalcap (about a minute)")
    add("--tagging", action="store_true", help="also the default lemmatizer's tagger, against NLTK (half a minute)")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Measure, and print each table."""
    args = get_parser().parse_args(argv)
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}, torch {torch.__version__}, median of {args.repeats}")
    for size in SIZES if args.size == "both" else (args.size,):
        benchmark(size, args)
    if args.captions:
        print_table(f"{CAPTION_IMAGES} captions, {CAPTION_REFERENCES} references each", captions())
    if args.tagging:
        print_table("--lemmatizer nltk: the tagger; all other rows have --lemmatizer none", tagging())


if __name__ == "__main__":
    sys.exit(run_script(main))
