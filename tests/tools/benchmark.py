"""Throughput and memory of training, decoding, loading and scoring, side by side with the plain reference.

    python tests/tools/benchmark.py                        (full size and demo size, on the device there is)
    python tests/tools/benchmark.py --size demo --repeats 1

Ours are the paths the training script takes; the reference (tests/tools/reference.py) encodes the image for each of its
texts, makes logits at all positions and computes everything anew at every decoding step, with attention, optimiser and
memory as PyTorch and transformers have them by default. Weights, images and texts are random; texts have ArtEmis'
length. Each side has a process of its own; they take turns, so that both see the same machine, and figures are medians
over the rounds. Peak memory is that of a process, children included, that does one thing only.
"""

import argparse
import contextlib
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import cycle, islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.processes import prepare_environment

prepare_environment()

import numpy as np
import psutil
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from transformers import CLIPVisionConfig, GPT2Config

from models.config import SEVLMConfig
from models.cpu.packed_weights import packed_weights
from models.decoder import Explainer
from models.image_encoder import ImageFeatures
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
WORDS = (
    " the dark sea sky looks like a big storm and this makes me feel very calm of light blue colors in her face is sad"
    " green trees with old house it was so warm as if there were no one at home but he can see red water far away"
).split()

SIZES = {"full": ("distilgpt2", "clip-vit-base-patch16"), "demo": ("demo-gpt2", "demo-clip-vit")}
SPLIT = 1024  # images of a split that is decoded whole
BF16, CAUSAL = torch.bfloat16, ("--vad_causal",)
MATRIX_SIZE, MATRIX_PRODUCTS = 4096, 5
LEAST_SECONDS = 0.3  # of one measurement: shorter jobs are done several times over
CAPTION_IMAGES, CAPTION_REFERENCES = 2000, 6


class Spec(NamedTuple):
    """A line of the benchmark: one training step, or one decoding.

    units: the flag that says how many pairs or images, or their number. where: the devices that it is measured on.
    """

    name: str
    units: str | int
    ours: bool = True
    cached: bool = True
    flags: tuple[str, ...] = ()
    dtype: torch.dtype = torch.float32
    where: tuple[str, ...] = ("cpu", "cuda")

    @property
    def kind(self) -> str:
        return "training" if "training" in self.name else "decoding"


TABLE = (
    Spec("reference training", "batch_size", ours=False, cached=False),
    Spec("training from pixels", "batch_size", cached=False),
    Spec("training, cached", "batch_size"),
    Spec("training, cached, large batch", "large_batch_size"),
    Spec("reference decoding", "images", ours=False, cached=False),
    Spec("decoding, cached", "images"),
    Spec("decoding, cached, --vad_causal", "images", flags=CAUSAL),
    Spec(f"decoding, {SPLIT} images, --vad_causal", SPLIT, flags=CAUSAL),
    Spec("training, cached, bf16", "batch_size", dtype=BF16),
    Spec("training, cached, bf16, large batch", "large_batch_size", dtype=BF16, where=("cuda",)),
    Spec("decoding, cached, bf16", "images", dtype=BF16),
    Spec("decoding, cached, --vad_causal, bf16", "images", flags=CAUSAL, dtype=BF16, where=("cpu",)),
)


def table(device: torch.device) -> dict[str, Spec]:
    """The lines for a device; bfloat16's on a CPU that multiplies it."""
    multiplies = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return {spec.name: spec for spec in TABLE if device.type in spec.where and (spec.dtype != BF16 or multiplies)}


@dataclass
class Job:
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
        return [self[name] for name in image_names]

    def __getitem__(self, image_name: str) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(int(image_name))
        if not self.cached:
            return {"pixels": torch.randn(3, self.vision.image_size, self.vision.image_size, generator=generator)}
        features = torch.randn(patches(self.vision) + 1, self.vision.hidden_size, generator=generator).half()
        return {"cls": features[0], "grid": features[1:]}


def patches(vision: CLIPVisionConfig) -> int:
    return (vision.image_size // vision.patch_size) ** 2


class Workbench:
    """Models and data of one size, each made when the first job asks for it. Dropout is on in training, in both."""

    def __init__(self, size: str, args: argparse.Namespace, device: torch.device):
        self.units, self.device, self.packed = vars(args), device, contextlib.ExitStack()
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
        if spec.kind == "training":
            return self.training(spec)
        return self.decoding(spec) if spec.ours else self.reference_decoding(spec)

    # -- models: each with its optimiser

    def build(self, *more: str) -> tuple[SEVLM, torch.optim.Optimizer]:
        args = get_training_parser().parse_args([*self.flags, *more])
        torch.manual_seed(0)
        model = build_model(args, self.codec, None)
        if args.feature_cache:
            model.image_encoder = None  # as the training script does once the cache is complete
        model.to(self.device)
        return model, build_optimizer(parameter_groups(args, model)[0], args.adam_eps, args.adamw)

    @cached_property
    def pixel_model(self) -> tuple[SEVLM, torch.optim.Optimizer]:
        return self.build()

    @cached_property
    def cached_model(self) -> tuple[SEVLM, torch.optim.Optimizer]:
        return self.build("--feature_cache", "random")

    @cached_property
    def settings(self) -> SEVLMConfig:
        return model_config(self.args, self.codec, None)

    @cached_property
    def config(self) -> GPT2Config:
        with torch.device("meta"):
            return build_decoder(self.args, self.codec, None, self.settings).config

    @cached_property
    def reference(self) -> tuple[Reference, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = Reference(self.config, self.settings, self.vision).to(self.device)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return model, torch.optim.AdamW(trained, self.args.learning_rate, eps=self.args.adam_eps, weight_decay=0.0)

    # -- data

    def pairs(self, images: int, source) -> TrainingPairs:
        """Texts of LENGTHS' lengths, two for each image, their emotions one token long."""
        rng = random.Random(0)
        emotions = [emotion for emotion in EMOTIONS if len(self.codec.bpe([f" {emotion}"])[0]) == 1]
        words = [word for word in WORDS if len(self.codec.bpe([f" {word}"])[0]) == 1]
        lengths = cycle(LENGTHS)
        records = {
            str(image): {
                "emotions": [emotions[image % 7], emotions[(image + 1) % 7]],
                "explanations": [" ".join(rng.choices(words, k=next(lengths) - 2)) for _ in range(2)],
                "image_name": str(image),
                "origin_emotion_distribution": [1 / 9] * 9,
            }
            for image in range(images)
        }
        return TrainingPairs(TrainingRecords.from_records(records), source, self.codec, self.vad, seed=0)

    def batch(self, spec: Spec) -> dict[str, Tensor]:
        """The arguments of our forward, or of the reference's."""
        images = self.units[spec.units]
        pairs = self.pairs(images, RandomImages(self.vision, spec.cached))
        items = [pairs[ItemKey(0, index)] for index in range(images)]
        batch = PairCollator(0, 0, EMOTION_SPAN)(items)
        del batch["image_ids"]
        batch = batch if spec.ours else reference_batch(items, batch["visual_negatives"])
        return tree_map(lambda tensor: tensor.to(self.device), batch)

    # -- jobs

    def precision(self, dtype: torch.dtype) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext() if dtype == torch.float32 else torch.autocast(self.device.type, dtype)

    def training(self, spec: Spec) -> Job:
        """One step; ours as the training script does it: forward, backward, check of the gradients, fused AdamW."""
        models = {(True, True): "cached_model", (True, False): "pixel_model", (False, False): "reference"}
        model, optimizer = getattr(self, models[spec.ours, spec.cached])
        batch, images = self.batch(spec), self.units[spec.units]
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

        def step() -> None:
            model.train()
            with self.precision(spec.dtype):
                loss = model(**batch)["loss"]
            loss.backward()
            finite = torch.isfinite(loss)
            if spec.ours:
                finite &= torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]).isfinite()
            if not finite:
                raise RuntimeError("loss or gradient is not finite")
            optimizer.step()
            optimizer.zero_grad()

        if not spec.cached:
            return Job(step, images)
        labels, length = int((batch["lm_targets"] != IGNORED_LABEL).sum()), batch["input_ids"].shape[1]
        return Job(step, images, useful_flops(self.config, patches(self.vision), images, length, labels))

    def decoding(self, spec: Spec) -> Job:
        """Greedy texts from cached features. Weights are packed beforehand, as once in an evaluation.

        One batch of --images, or a whole split in batches of --eval_batch_size's default, which all have the same features,
        and texts of the same lengths, each batch in an order of its own.
        """
        images = self.units.get(spec.units, spec.units)
        together = self.args.eval_batch_size if spec.units == images else images
        model = self.build("--feature_cache", "random", *spec.flags)[0].eval()
        self.packed.enter_context(packed_weights(model.decoder, spec.dtype))
        source = RandomImages(self.vision, cached=True)
        features = [source[str(image)] for image in range(together)]
        cls, grid = (torch.stack([item[name] for item in features]).to(self.device) for name in ("cls", "grid"))
        rng, usual = random.Random(0), text_lengths(together)
        lengths = [usual, *(rng.sample(usual, together) for _ in range(images // together - 1))]

        def decode(wanted: list[int]) -> None:
            with (
                torch.inference_mode(),
                self.precision(spec.dtype),
                forced_lengths(model.decoder, wanted, self.codec.stop_ids),
            ):
                image: ImageFeatures = model.image_features(None, cls, grid)
                generated = greedy_decode(model, image, self.codec.prompt(), self.vad.for_generated)
            check_lengths(generated.lengths.tolist(), wanted)

        return Job(lambda: [decode(wanted) for wanted in lengths], images)

    def reference_decoding(self, spec: Spec) -> Job:
        model, images = self.reference[0], self.units[spec.units]
        source = RandomImages(self.vision, cached=False)
        wanted = text_lengths(images)
        pixels = torch.stack([source[str(image)]["pixels"] for image in range(images)]).to(self.device)
        ids, segments, because, *kinds, _ = self.codec.prompt()
        prompt = ids, segments, because, tuple(kinds)

        def decode() -> None:
            model.eval()
            with forced_lengths_of_reference(model.decoder.lm_head, wanted, self.codec.stop_ids):
                rows = model.generate(pixels, *prompt, self.vad.for_generated, MAX_NEW_TOKENS, self.codec.stop_ids)
            check_lengths([len(row) for row in rows], wanted)

        return Job(decode, images)


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
        if len(ids) != len(wanted):
            raise RuntimeError(f"{len(ids)} texts are being written, {len(wanted)} should be")
        stops = torch.isin(ids, torch.tensor(stop_ids, device=ids.device))
        if bool(stops.all(dim=1).any()):
            raise RuntimeError("the two most probable tokens both end the text")
        best = torch.where(stops[:, 0], ids[:, 1], ids[:, 0])
        ended = (wanted <= step).to(ids.device)
        step += 1
        return values, torch.stack([torch.where(ended, stop_ids[0], best), ids[:, 1]], dim=1)

    with patch.object(decoder, "top_two", forced):
        yield


@contextlib.contextmanager
def forced_lengths_of_reference(lm_head: nn.Module, lengths: list[int], stop_ids: tuple[int, ...]) -> Iterator[None]:
    """The same for the reference: a hook raises the logit of the first stop token, or lowers those of all stop tokens."""
    wanted, step = torch.tensor(lengths, device=lm_head.weight.device), 0
    stops = torch.tensor(stop_ids, device=lm_head.weight.device)
    limit = 1e4

    def hook(module: nn.Module, inputs: tuple, logits: Tensor) -> None:
        nonlocal step
        last = logits[:, -1]
        last[:, stops] = -limit
        last[:, stop_ids[0]] = torch.where(wanted <= step, limit, -limit).to(last.dtype)
        step += 1

    handle = lm_head.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


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

    Args:
        config: of the decoder. patches: G. images: B, two texts each. length: L. labels: labelled positions in all.
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


def matrix_seconds(device: torch.device, dtype: torch.dtype) -> list[float]:
    """Seconds of each of five 4096 x 4096 matrix products."""
    left, right = torch.randn(2, MATRIX_SIZE, MATRIX_SIZE, device=device, dtype=dtype).unbind()
    torch.mm(left, right)
    return [seconds_of(lambda: torch.mm(left, right), device) for _ in range(MATRIX_PRODUCTS)]


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Side:
    """A process of one side, ours or the reference's, that makes jobs and does them when told."""

    def __init__(self, size: str, args: argparse.Namespace, device: torch.device, ours: bool):
        self.connection, other = multiprocessing.Pipe()
        spawn = multiprocessing.get_context("spawn")
        self.process = spawn.Process(target=serve, args=(other, ours, size, args, device), daemon=True)
        self.process.start()
        other.close()

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *exception) -> None:
        self.process.kill()
        self.process.join()

    def do(self, name: str, times: int = 1) -> tuple[float, Job, int]:
        """Do a job so many times: seconds of each, the job, and the bytes a GPU had to allocate at most."""
        self.connection.send((name, times))
        return self.connection.recv()


def serve(connection: Connection, ours: bool, size: str, args: argparse.Namespace, device: torch.device) -> None:
    """What the process of a side does: jobs, until it is killed."""
    if ours and device.type == "cpu":
        reuse_freed_memory()  # as the training script does
    bench, specs, jobs = Workbench(size, args, device), table(device), {}
    while True:
        name, number = connection.recv()
        if name not in jobs:
            jobs[name] = bench.job(specs[name])
        run = jobs[name].run
        seconds = seconds_of(lambda run=run, number=number: [run() for _ in range(number)], device) / number
        allocated = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
        connection.send((seconds, replace(jobs[name], run=None), allocated))


def measure(
    size: str, args: argparse.Namespace, device: torch.device
) -> tuple[dict[torch.dtype, float], dict[str, float], dict[str, Job]]:
    """Matrix rates in FLOP/s, median seconds of every job, and the jobs."""
    specs, jobs, numbers = table(device), {}, {}
    times: dict[str, list[float]] = {name: [] for name in specs}
    products: dict[torch.dtype, list[float]] = {spec.dtype: [] for spec in specs.values()}
    with Side(size, args, device, ours=True) as ours, Side(size, args, device, ours=False) as reference:
        sides = {name: ours if spec.ours else reference for name, spec in specs.items()}
        for name, side in sides.items():
            first, jobs[name], _ = side.do(name)
            warm = first if first > 5 else side.do(name)[0]
            numbers[name] = max(1, round(LEAST_SECONDS / warm))
            print(f"  {name}: {warm:.3g} s", file=sys.stderr)
        for _ in range(args.repeats):
            for dtype, seconds in products.items():
                seconds += matrix_seconds(device, dtype)
            for name, side in sides.items():
                times[name].append(side.do(name, numbers[name])[0])
    rates = {dtype: 2 * MATRIX_SIZE**3 / statistics.median(seconds) for dtype, seconds in products.items()}
    return rates, {name: statistics.median(seconds) for name, seconds in times.items()}, jobs


def peak_memory(size: str, spec: Spec, args: argparse.Namespace, device: torch.device) -> float:
    """Largest resident memory, in MiB, of a process that builds and does one job, its children included; on a GPU, the
    largest memory allocated there."""
    with Side(size, args, device, spec.ours) as side:
        peak, done = 0, threading.Event()

        def watch() -> None:
            nonlocal peak
            process = psutil.Process(side.process.pid)
            while not done.wait(0.01):
                with contextlib.suppress(psutil.NoSuchProcess):
                    tree = [process, *process.children(recursive=True)]
                    peak = max(peak, sum(part.memory_info().rss for part in tree))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:  # twice, as AdamW's averages appear at the end of a first step
            *_, allocated = side.do(spec.name, 2 if spec.kind == "training" else 1)
        finally:
            done.set()
            watcher.join()
    return (allocated or peak) / 2**20


def measure_loading(bench: Workbench, images: int = 256) -> tuple[float, float]:
    """Median milliseconds of loading one training item with cached features, files in the page cache: when its checksum
    is compared, the first time in a run, and later."""
    with tempfile.TemporaryDirectory() as folder:
        encoder = bench.pixel_model[0].image_encoder
        names = [str(image) for image in range(images)]
        cache = FeatureCache.create(folder, make_header("random", encoder, "imagenet"), names, folder)
        source = RandomImages(bench.vision, cached=True)
        for name in names:
            tokens = torch.cat([source[name]["cls"][None], source[name]["grid"]]).half().numpy()
            file = ImageFile(Path(folder) / "header.json", 0, 0)  # any file: nothing compares it here
            cache.write(name, tokens, file)
        pairs = bench.pairs(images, FeatureCache(folder))
        keys = [ItemKey(0, index) for index in range(images)]
        first, later = ([seconds_of(lambda key=key: pairs[key], torch.device("cpu")) for key in keys] for _ in range(2))
    return 1000 * statistics.median(first), 1000 * statistics.median(later)


def measure_captions() -> list[dict]:
    """Seconds of a first and a second evaluation of 2000 captions, against pycocoevalcap without SPICE, whose models
    are a download."""
    import pycocoevalcap.eval
    from pycocotools.coco import COCO

    from cococaption import CaptionScorer
    from cococaption.tokenizer import find_java

    class NoSpice:
        def compute_score(self, references: dict, captions: dict) -> tuple[float, list[float]]:
            return 0.0, [0.0] * len(references)

        def method(self) -> str:
            return "no SPICE"

    rng, cpu = random.Random(0), torch.device("cpu")

    def sentence() -> str:
        return " ".join(rng.choices(WORDS, k=rng.choice(LENGTHS)))

    rows = ((image, number) for image in range(CAPTION_IMAGES) for number in range(CAPTION_REFERENCES))
    annotations = [{"id": number, "image_id": image, "caption": sentence()} for number, (image, _) in enumerate(rows)]
    content = {"info": {}, "licenses": [], "type": "captions", "annotations": annotations}
    content["images"] = [{"id": image} for image in range(CAPTION_IMAGES)]
    captions = [{image: sentence() for image in range(CAPTION_IMAGES)} for _ in range(2)]
    ours, theirs = [], []

    def as_it_comes(chosen: dict[int, str]) -> None:
        coco = COCO(path)
        results = coco.loadRes([{"image_id": image, "caption": text} for image, text in chosen.items()])
        evaluation = pycocoevalcap.eval.COCOEvalCap(coco, results)
        evaluation.evaluate()
        theirs.append({name: value for name, value in evaluation.eval.items() if name != "SPICE"})

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        path = Path(folder) / "annotations.json"
        write_json(path, content)
        start = time.perf_counter()
        with CaptionScorer(path) as scorer:
            ours.append(scorer.score(captions[0])[0])
            seconds = [time.perf_counter() - start]
            seconds.append(seconds_of(lambda: ours.append(scorer.score(captions[1])[0]), cpu))
        path_variable = f"{Path(find_java()).parent}{os.pathsep}{os.environ['PATH']}"
        with patch.object(pycocoevalcap.eval, "Spice", NoSpice), patch.dict(os.environ, PATH=path_variable):
            their_seconds = [seconds_of(lambda chosen=chosen: as_it_comes(chosen), cpu) for chosen in captions]
    for mine, other in zip(ours, theirs, strict=True):
        if any(abs(mine[name] - value) > 1e-9 for name, value in other.items()):
            raise RuntimeError(f"caption scores differ: {mine} against {other}")
    return [
        {"what": f"caption evaluation, {which}", "unit": "s", "ours": mine, "reference": other, "ratio": other / mine}
        for which, mine, other in zip(("first", "second"), seconds, their_seconds, strict=True)
    ]


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


def measure_tagging(texts: int = 20_000, plain_texts: int = 1000, together: int = 64) -> list[dict]:
    """The default lemmatizer's tagger over GPT-2's tokens, against NLTK itself, which tags one text after the other:
    training texts, and the texts of a generation, all of whose tokens NLTK tags again at every step."""
    from utils.data.perceptron_tagger import NLTKTagger, vocabulary_tagger

    codec = TextCodec(load_tokenizer(str(SHIPPED_BPE)), PROMPT_TEXT, 30)
    tokens = list(dict.fromkeys(token or " " for token in codec.words()))
    nltk_tagger, cpu = invented_tagger(tokens), torch.device("cpu")
    ours, plain = vocabulary_tagger(nltk_tagger, tokens), NLTKTagger(nltk_tagger, tokens)
    ids = np.random.default_rng(0).zipf(1.2, (texts, 30)) % len(tokens)
    parts = [ids[start : start + TEXTS_AT_ONCE] for start in range(0, texts, TEXTS_AT_ONCE)]
    rate = texts / seconds_of(lambda: [ours(part) for part in parts], cpu)
    plain_rate = plain_texts / seconds_of(lambda: plain(ids[:plain_texts]), cpu)
    growing = [ids[:together, :length] for length in range(5, 5 + MAX_NEW_TOKENS)]

    def extend() -> None:
        tags = None
        for part in growing:
            tags = ours(part, None if tags is None else tags[:, :-2])

    ms = 1000 * seconds_of(extend, cpu)
    plain_ms = 1000 * seconds_of(lambda: [plain(part) for part in growing], cpu)
    of_texts = {"unit": "texts/s", "ours": rate, "reference": plain_rate, "ratio": rate / plain_rate}
    of_generation = {"unit": "ms", "ours": ms, "reference": plain_ms, "ratio": plain_ms / ms}
    what = f"tagging {together} texts of {MAX_NEW_TOKENS} steps"
    return [{"what": "tagging texts of 30 tokens"} | of_texts, {"what": what} | of_generation]


# ---- the report ------------------------------------------------------------------------------------------------------


def benchmark(size: str, args: argparse.Namespace, device: torch.device) -> dict:
    """Measure one size; returns its matrix rates (GFLOP/s) and rows."""
    print(f"{size} size", file=sys.stderr)
    specs = table(device)
    rates, seconds, jobs = measure(size, args, device)
    first_loading, loading = measure_loading(Workbench(size, args, device))
    speed = {name: job.units / seconds[name] for name, job in jobs.items()}
    peaks = {} if args.no_memory else {name: peak_memory(size, spec, args, device) for name, spec in specs.items()}
    rows = []
    for name, spec in specs.items():
        if not spec.ours:
            continue
        reference, job = f"reference {spec.kind}", jobs[name]
        figures = {"what": name, "unit": "pairs/s" if spec.kind == "training" else "images/s", "ours": speed[name]}
        figures |= {"reference": speed[reference], "ratio": speed[name] / speed[reference], "peak": peaks.get(name)}
        if job.flops is not None:
            figures["gemm_share"] = job.flops / seconds[name] / rates[spec.dtype]
        if job.units == jobs[reference].units:
            figures["reference_peak"] = peaks.get(reference)
        rows.append(figures)
    for what, ms in (("loading a cached item", loading), ("the same, first time in a run", first_loading)):
        rows.append({"what": what, "unit": "ms", "ours": ms})
    return {
        "matrix_gflops": {str(dtype).removeprefix("torch."): rate / 1e9 for dtype, rate in rates.items()},
        "batch_size": args.batch_size,
        "images_decoded": args.images,
        "useful_gflop_per_pair": next(job.flops / job.units for job in jobs.values() if job.flops) / 1e9,
        "rows": rows,
    }


def figure(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


COLUMNS = {  # name in a row -> heading, format. ours, reference: in `unit`; ratio: how many times better ours is
    "what": ("", str),
    "ours": ("ours", figure),
    "reference": ("reference", figure),
    "unit": ("", str),
    "ratio": ("ratio", "{:.2f} x".format),
    "gemm_share": ("GEMM share", "{:.0%}".format),
    "peak": ("peak MiB", "{:.0f}".format),
    "reference_peak": ("its peak", "{:.0f}".format),
}


def print_table(title: str, rows: list[dict]) -> None:
    lines = [[heading for heading, _ in COLUMNS.values()]]
    for row in rows:
        lines.append(["" if row.get(name) is None else shown(row[name]) for name, (_, shown) in COLUMNS.items()])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(f"\n{title}")
    for line in lines:
        cells = zip(line, widths, range(len(line)), strict=True)
        print("  ".join(text.ljust(width) if i in (0, 3) else text.rjust(width) for text, width, i in cells).rstrip())


def get_parser() -> argparse.ArgumentParser:
    """The benchmark's flags."""
    parser = OneLineParser(description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--size", choices=(*SIZES, "both"), default="both", help="the paper's models, the demo's, or both")
    add("--repeats", type=number(int, 1), default=5, help="rounds; figures are medians over them")
    add("--batch_size", type=number(int, 2), default=8, help="image pairs of a training step, ours and the reference's")
    add(
        "--large_batch_size",
        type=number(int, 2),
        default=32,
        help="the same where the share of the matrix rate is taken (ours)",
    )
    add("--images", type=number(int, 1), default=64, help="images decoded together, ours and the reference's")
    add("--no_memory", action="store_true", help="leave the peak memory out, which takes a process for each line")
    add("--captions", action="store_true", help="also the caption scores, against pycocoevalcap (about a minute)")
    add("--tagging", action="store_true", help="also the default lemmatizer's tagger, against NLTK (half a minute)")
    add("--json", type=Path, metavar="FILE", help="write all figures there")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Measure, print, write."""
    args = get_parser().parse_args(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    report: dict = {"device": name, "torch": torch.__version__, "repeats": args.repeats}
    for size in SIZES if args.size == "both" else (args.size,):
        report[size] = benchmark(size, args, device)
    if args.captions:
        report["captions"] = {"rows": measure_captions()}
    if args.tagging:
        report["tagging"] = {"rows": measure_tagging()}

    print(f"{name}, torch {torch.__version__}, median of {args.repeats}")
    for size in (size for size in SIZES if size in report):
        figures = report[size]
        rates = ", ".join(f"{dtype} {rate:.0f} GFLOP/s" for dtype, rate in figures["matrix_gflops"].items())
        title = f"{size} size: {args.batch_size} pairs a step, {args.images} images decoded; matrix rate {rates}; "
        print_table(f"{title}{figures['useful_gflop_per_pair']:.3g} useful GFLOP per pair", figures["rows"])
    if args.captions:
        print_table(f"{CAPTION_IMAGES} captions, {CAPTION_REFERENCES} references each", report["captions"]["rows"])
    if args.tagging:
        print_table("--lemmatizer nltk: the tagger; all other rows have --lemmatizer none", report["tagging"]["rows"])
    if args.json:
        write_json(args.json, report, indent=1)


if __name__ == "__main__":
    sys.exit(run_script(main))
