"""Compare our code with numeric fixtures made by the authors' published code.

    python tests/tools/check_golden.py tests/data/golden

One line per quantity: name, largest absolute and relative difference, tolerance, ok or FAIL. Exit status 1 when anything
fails or a fixture is missing. Shapes and sizes are read from the files; tests/data/golden/README.md defines every file.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import GPT2Config, logging

from models.config import SEVLMConfig, gpt2_config
from models.cpu.packed_weights import packed_weights
from models.decoder import Explainer
from models.image_encoder import ImageEncoder, ImageFeatures
from models.sevlm import SEVLM
from models.vad_encoder import VADEncoder
from utils.command_line import parse_args
from utils.constants import EMOTION_SPAN, IMAGENET_MEAN, IMAGENET_STD
from utils.data.datasets import ImagePixels, TrainingPairs, derangement, label_positions, second_candidates
from utils.data.image_encoder_weights import trained_state_dict, vision_from_openai
from utils.data.images import find_image, open_image
from utils.data.records import TrainingRecords
from utils.data.text_codec import TextCodec, load_tokenizer
from utils.data.vad_lexicon import Lexicon, VADLookup, read_lexicon
from utils.errors import InputError
from utils.evaluation.emotion_metrics import emotion_accuracy, split_generated
from utils.evaluation.generation import greedy_decode
from utils.training.checkpoints import MASK_BUFFER, load_named
from utils.training.optimizer import build_optimizer, linear_decay, parameter_groups

TOLERANCE = (1e-5, 1e-5)  # (atol, rtol), for every float


class Report:
    """Prints a line per quantity and counts the failures."""

    def __init__(self) -> None:
        self.lines = self.failures = 0

    def close(self, name: str, ours: Tensor | float | None, theirs: Tensor | float, tolerance=TOLERANCE) -> None:
        """|ours - theirs| <= atol + rtol |theirs| everywhere, and equal shapes."""
        if ours is None:
            return self.missing(name, "nothing of ours")
        ours, theirs = torch.as_tensor(ours).detach().double(), torch.as_tensor(theirs).double()
        if ours.shape != theirs.shape:
            return self._line(name, f"shape {tuple(ours.shape)} against {tuple(theirs.shape)}", "", False)
        difference = (ours - theirs).abs()
        limit = tolerance[0] + tolerance[1] * theirs.abs()
        absolute = float(difference.max()) if difference.numel() else 0.0
        relative = float((difference / theirs.abs().clamp(min=1e-12)).max()) if difference.numel() else 0.0
        figures = f"abs {absolute:.1e}  rel {relative:.1e}"
        self._line(name, figures, f"atol {tolerance[0]:g} rtol {tolerance[1]:g}", bool((difference <= limit).all()))

    def same(self, name: str, ours: object, theirs: object) -> None:
        """Exact equality of ids, strings, lists."""
        if isinstance(ours, Tensor):
            ours, theirs = ours.tolist(), torch.as_tensor(theirs).tolist()
        note = "" if ours == theirs else f"{str(ours)[:60]} against {str(theirs)[:60]}"
        self._line(name, note or "equal", "exact", ours == theirs)

    def missing(self, name: str, reason: str) -> None:
        self._line(name, reason, "", False)

    def _line(self, name: str, figures: str, tolerance: str, ok: bool) -> None:
        self.lines += 1
        self.failures += not ok
        print(f"{name:<58} {figures:<34} {tolerance:<22} {'ok' if ok else 'FAIL'}")


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def vad_layers(names: Iterable[str]) -> int:
    return len({name.split(".")[2] for name in names if name.startswith("encoder.layers.")})


def load_vad_encoder(root: Path) -> VADEncoder:
    state = load_file(root / "vad_encoder" / "weights.safetensors")
    encoder = VADEncoder(vad_layers(state))
    # the position table's length is the fixture's
    encoder.pos_encoder = torch.nn.Embedding(*state["pos_encoder.weight"].shape)
    encoder.load_state_dict(state)
    return encoder.eval()


def check_vad_encoder(root: Path, report: Report) -> None:
    encoder, io = load_vad_encoder(root), load_file(root / "vad_encoder" / "io.safetensors")
    for case in sorted(name.removesuffix(".input") for name in io if name.endswith(".input")):
        hidden = encoder(io[f"{case}.input"])
        report.close(f"vad_encoder {case} hidden", hidden, io[f"{case}.hidden"])
        report.close(f"vad_encoder {case} scores", encoder.decoder(hidden), io[f"{case}.scores"])


def check_image_encoder(root: Path, report: Report) -> None:
    folder = root / "image_encoder"
    state, io = load_file(folder / "weights.safetensors"), load_file(folder / "io.safetensors")
    for heads in read(folder / "config.json")["heads"]:
        encoder = ImageEncoder(vision_from_openai(state, heads=heads))
        features = encoder(io["image"])
        report.close(f"image_encoder heads={heads} class_token", features.cls, io[f"heads{heads}.class_token"])
        report.close(f"image_encoder heads={heads} grid", features.grid, io[f"heads{heads}.grid"])
        names = trained_state_dict(encoder.vision)
        report.same(f"image_encoder heads={heads} names back", sorted(names), sorted(set(state) - {"proj"}))
        for name in names:
            if not torch.equal(names[name], state[name]):
                report.same(f"image_encoder heads={heads} {name} back", "changed", "unchanged")


def decoder_model(root: Path, variant: dict) -> SEVLM:
    """The model of one decoder variant: its sizes, weights, loss weights; no dropout."""
    sizes = read(root / "decoder" / "config.json")
    state: dict[str, Tensor] = {}
    for name in variant["weights"]:
        state |= load_file(root / "decoder" / name)
    for name, numbers in variant.get("override", {}).items():
        state[name] = torch.tensor(numbers).reshape(state[name].shape)
    names = ("vocab_size", "n_embd", "n_layer", "n_head", "n_positions", "n_inner", "layer_norm_epsilon")
    config = GPT2Config(
        **{name: sizes[name] for name in names},
        activation_function=sizes["activation"],
        bos_token_id=sizes["bos_token_id"],
        eos_token_id=sizes["eos_token_id"],
        add_cross_attention=True,
    )
    chosen = ("len_prefix", "use_cl_loss", "use_VAD_loss", "alpha", "cl_Loss_weight", "VAD_Loss_weight")
    settings = SEVLMConfig(
        encoder_dim=sizes["encoder_dim"], use_VAD=variant["emo_features"], **{name: variant[name] for name in chosen}
    )
    decoder = Explainer(config, settings)
    state = {name: tensor for name, tensor in state.items() if not MASK_BUFFER.search(name)}
    own = decoder.state_dict()
    decoder.load_state_dict({name: state[name] for name in own})
    model = SEVLM(settings, decoder)
    if settings.use_VAD:
        model.vad_encoder = load_vad_encoder(root)
    return model.eval()


def check_decoder(root: Path, report: Report) -> None:
    variants = read(root / "decoder" / "variants.json")
    for name, variant in variants.items():
        saved = load_file(root / "decoder" / variant["tensors"])
        check_variant(root, report, f"decoder {name}", variant, saved)
    for example in read(root / "decoder" / "neg_ids_examples.json"):
        generator = torch.Generator().manual_seed(example["torch_manual_seed"])
        name = f"decoder permutation n={example['size']} seed={example['torch_manual_seed']}"
        report.same(name, derangement(example["size"], generator).tolist(), example["ids"])


def check_variant(root: Path, report: Report, name: str, variant: dict, saved: dict[str, Tensor]) -> None:
    model = decoder_model(root, variant)
    prefix, span_end = variant["len_prefix"], variant["len_prefix"] + EMOTION_SPAN
    inputs = load_file(root / "decoder" / variant["inputs"])
    if "rows" in variant:
        inputs = {key: tensor[slice(*variant["rows"])] for key, tensor in inputs.items()}
    if "columns" in variant:
        for key in ("input_ids", "labels", "segment_ids", "vad"):
            inputs[key] = inputs[key][:, slice(*variant["columns"])]
    # the two texts of a pair share their image: it goes in once
    pairs = variant.get("labels", True)
    stride = 2 if pairs else 1
    image = ImageFeatures(*(inputs[key][::stride].contiguous() for key in ("image_cls", "image_grid")))
    vad_features = model.vad_encoder(inputs["vad"]) if model.vad_encoder is not None else None
    hidden = model.decoder(inputs["input_ids"], inputs["segment_ids"], image, vad_features)
    logits = model.decoder.lm_head(hidden[:, prefix:])

    pooled_image = image.grid.mean(1).repeat_interleave(len(hidden) // len(image.grid), 0)
    emotion, explanation = model.pool_spans(hidden, inputs["input_ids"], inputs["segment_ids"])
    quantities = {
        "last_hidden": hidden,
        "lm_logits": logits,
        "lm_logits_first3rows": logits[:3],
        "vad_hidden": vad_features,
        "emo_features": vad_features,
        "image_pooled": pooled_image,
        "emotion_pooled": emotion,
        "explanation_pooled": explanation if hidden.shape[1] > span_end else None,
    }
    negatives = saved.get("neg_index_visual")
    if pairs and variant["use_cl_loss"]:
        rows = torch.arange(len(hidden))
        report.same(f"{name} neg_index_emotion", rows ^ 1, saved.get("neg_index_emotion", rows ^ 1))
        scores = model.contrastive_scores(image, hidden, inputs["input_ids"], inputs["segment_ids"], negatives)
        quantities |= dict(zip(("sim_pos", "sim_neg_emotion", "sim_neg_visual"), scores, strict=True))
    for key, tensor in quantities.items():
        if key in saved and tensor is not None:
            report.close(f"{name} {key}", tensor, saved[key])
    grads = {key: tensor for key, tensor in saved.items() if key.startswith("grad.")}
    known = set(quantities) | set(grads) | {"neg_index_emotion", "neg_index_visual", "neg_perm_slot0", "neg_perm_slot1"}
    for key in sorted(set(saved) - known):
        report.missing(f"{name} {key}", "nothing of ours is compared with it")
    if pairs:
        positions, targets = label_positions(inputs["labels"], prefix)
        batch = {key: inputs[key] for key in ("input_ids", "segment_ids", "vad")} | image._asdict()
        batch |= {"lm_positions": positions, "lm_targets": targets, "visual_negatives": negatives}
        check_losses(report, name, variant, model, batch, grads)


def check_losses(report: Report, name: str, variant: dict, model: SEVLM, batch: dict[str, Tensor], grads: dict) -> None:
    output, config = model(**batch), model.config
    terms = {  # the fixtures' names of our losses, and what theirs are multiplied with
        "loss": ("loss", 1),
        "loss_xe": ("lm_loss", config.alpha),
        "loss_contrastive": ("contrastive_loss", config.cl_Loss_weight),
        "loss_vad": ("vad_loss", config.VAD_Loss_weight),
    }
    for key, value in variant["scalars"].items():
        ours, weight = output.get(terms[key][0]), terms[key][1]
        if value is None or ours is None:
            report.same(f"{name} {key} off", ours, value)
        else:
            report.close(f"{name} {key}", ours * weight, value)

    output["loss"].backward()
    parameters = {f"decoder.{key}": parameter for key, parameter in model.decoder.named_parameters()}
    if model.vad_encoder is not None:
        parameters |= {f"vad_encoder.{key}": parameter for key, parameter in model.vad_encoder.named_parameters()}
    found = {key: parameter.grad for key, parameter in parameters.items() if parameter.grad is not None}
    for key, norm in variant["grad_norm"].items():
        if norm is None:  # no gradient at all in the published code; a part that we do not even build has none either
            report.same(f"{name} grad {key}", key in found and bool(found[key].any()), False)
        else:
            report.close(f"{name} grad_norm {key}", found[key].double().norm() if key in found else None, norm)
    for key, theirs in grads.items():
        parameter, _, rows = key.removeprefix("grad.").partition(".first")
        rows = slice(int(rows.removesuffix("rows")) if rows else None)
        report.close(f"{name} {key}", found[parameter][rows] if parameter in found else None, theirs)


def check_greedy(root: Path, report: Report) -> None:
    folder = root / "greedy"
    config, saved = read(folder / "config.json"), load_file(folder / "tensors.safetensors")
    checkpoint_root = (folder / config["weights"]).resolve()
    model, codec = load_checkpoint_model(checkpoint_root, config["prompt"])
    lookup = VADLookup(_lexicon_from(read(folder / "lexicon.json")), "none", codec)
    prompt_ids, prompt_segments, *_ = codec.prompt()
    report.same("greedy prompt_input_ids", prompt_ids, saved["prompt_input_ids"].tolist())
    report.same("greedy prompt_segment_ids", prompt_segments, saved["prompt_segment_ids"].tolist())
    vad = lookup.for_generated(np.array([prompt_ids]))[0]
    report.close("greedy prompt_vad", torch.from_numpy(vad), saved["prompt_vad"])
    report.same("greedy stop_ids", sorted(codec.stop_ids), sorted(config["stop_ids"]))
    image = ImageFeatures(saved["image_cls"], saved["image_grid"])
    steps = config["max_new_tokens"]

    def generate(stop_ids: tuple[int, ...], rows: slice = slice(None)):
        features = ImageFeatures(image.cls[rows], image.grid[rows])
        prompt = codec.prompt()._replace(because_id=config["because_id"], stop_ids=stop_ids)
        return greedy_decode(model, features, prompt, lookup.for_generated if config["use_VAD"] else None, steps)

    # the fixture goes on after a stop token, ours does not: without stop ids it makes all steps too
    for how, context in (("", nullcontext()), (", packed weights,", packed_weights(model.decoder))):
        logits: list[Tensor] = []
        with context:
            top_two = model.decoder.top_two

            def recorded(hidden: Tensor, top_two=top_two, logits=logits) -> tuple[Tensor, Tensor]:
                logits.append(top_two(hidden)[0])
                return top_two(hidden)

            with patch.object(model.decoder, "top_two", recorded):
                generated = generate(())
        top, second = torch.stack(logits, dim=1).unbind(-1)
        report.same(f"greedy{how} generated_ids", generated.token_ids, saved["generated_ids"])
        report.close(f"greedy{how} top1_logit", top, saved["top1_logit"])
        report.close(f"greedy{how} margin", top - second, saved["margin"])

    def after_the_prompt(name: str, tokens: Tensor) -> Tensor:
        return torch.cat([saved[f"prompt_{name}"].repeat(len(tokens), 1), tokens], dim=1)

    vad = lookup.for_generated(after_the_prompt("input_ids", generated.token_ids).numpy())
    report.close("greedy final_vad", torch.from_numpy(vad), saved["final_vad"])
    because = (generated.token_ids == config["because_id"]).cumsum(1) > 0
    segments = torch.where(because, config["explanation_id"], config["emotion_id"])
    report.same("greedy final_segment_ids", after_the_prompt("segment_ids", segments), saved["final_segment_ids"])

    by_id = {str(caption["image_id"]): caption for caption in read(folder / "captions.json")}
    expected = [by_id[str(int(image_id))] for image_id in saved["image_id"]]
    for rows in (slice(None), slice(0, 1), slice(1, None)):  # the result must not depend on the batch
        generated = generate(tuple(config["stop_ids"]), rows)
        end = (generated.lengths + 1).clamp(max=steps)
        report.same(f"greedy end_index rows {rows.start or 0}:", end, saved["end_index"][rows])
        full = generated.texts(codec, drop_last_token=True)
        report.same(f"greedy full rows {rows.start or 0}:", full, [caption["full"] for caption in expected[rows]])
        explanations = [split_generated(text)[1] for text in full]
        theirs = [caption["explanation"] for caption in expected[rows]]
        report.same(f"greedy explanation rows {rows.start or 0}:", explanations, theirs)


def _lexicon_from(values: dict) -> Lexicon:
    return Lexicon({word: tuple(entry) for word, entry in values.items()}, Path("lexicon.json"), "", "-1..1")


def load_checkpoint_model(root: Path, prompt: str) -> tuple[SEVLM, TextCodec]:
    checkpoint = load_named(root, "best-res")
    layers = vad_layers(checkpoint.stats["emo_encoder_state_dict"])
    config = SEVLMConfig.from_fields(checkpoint.config, vad_layers=layers)
    model = SEVLM(config, Explainer(gpt2_config(checkpoint.config), config))
    checkpoint.restore(model)
    codec = TextCodec(load_tokenizer(str(root / "nle_gpt2_tokenizer_0")), prompt, config.max_seq_len, config.len_prefix)
    return model.eval(), codec


def check_checkpoint(root: Path, report: Report) -> None:
    manifest = read(root / "checkpoint_manifest.json")
    model, _ = load_checkpoint_model(root / "checkpoint", " the emotion is")
    parts = {"decoder": model.decoder.state_dict(), "emo_encoder": model.vad_encoder.state_dict()}
    stats = load_named(root / "checkpoint", "best-res").stats
    for name in ("epoch", "best_acc", "best_res"):
        if name in manifest:
            report.same(f"checkpoint {name}", stats[name], manifest[name])
    for path in sorted((root / "checkpoint").glob("ckpt_stats_*.tar")):
        state = torch.load(path, weights_only=True).get("encoder_state_dict")
        if state is not None:
            vision = vision_from_openai(state, source=str(path))
            parts["encoder"] = {f"encoder.{key}": tensor for key, tensor in trained_state_dict(vision).items()}
    for part, state in parts.items():
        for key, facts in manifest[part].items():
            if MASK_BUFFER.search(key) or key.endswith(".proj") or key == "proj":
                continue
            tensor = state.get(key, state.get(f"encoder.{key}"))
            if tensor is None:
                report.missing(f"checkpoint {part} {key}", "not loaded")
                continue
            sums = torch.tensor([tensor.double().sum(), tensor.double().norm()])
            report.same(f"checkpoint {part} {key} shape", list(tensor.shape), facts["shape"])
            report.close(f"checkpoint {part} {key}", sums, torch.tensor([facts["sum"], facts["l2"]]))


def check_dataset(root: Path, report: Report) -> None:
    folder = root / "dataset"
    saved, items = load_file(folder / "tensors.safetensors"), read(folder / "items.json")
    records = read(folder / "records.json")  # not read_records: one explanation is empty on purpose
    lexicon = read_lexicon(folder / "lexicon.tsv")
    entries = {word: list(entry) for word, entry in lexicon.values.items()}
    report.same("dataset lexicon", entries, read(folder / "lexicon.json"))
    tokenizer = load_tokenizer(str(root / "checkpoint" / "nle_gpt2_tokenizer_0"))
    for prefix in sorted({item["len_prefix"] for item in items}):
        name = f"train.prefix{prefix}"
        length = saved[f"{name}.input_ids"].shape[-1]
        codec = TextCodec(tokenizer, " the emotion is", length, prefix)
        lookup = VADLookup(lexicon, "none", codec)
        pairs = TrainingPairs(TrainingRecords.from_records(records), _NoImages(), codec, lookup, seed=0)
        ours = {key: [] for key in ("input_ids", "labels", "segment_ids", "vad", "did")}
        walked, candidates = [], []
        train = [item for item in items if item["len_prefix"] == prefix and "first_annotation" in item]
        for item in train:
            record = records[item["image_id"]]
            first, _ = pairs.choose_pair(item["pass"], item["item"])
            walked.append(first)
            candidates.append(second_candidates(record["emotions"], first))
            rows = pairs.records.first_row[item["item"]] + np.array([first, candidates[-1][item["draw"]]])
            texts = pairs.encoded[rows]
            for key in ("input_ids", "labels", "segment_ids"):
                ours[key].append(torch.from_numpy(getattr(texts, key)))
            ours["vad"].append(torch.from_numpy(lookup.for_texts(texts.input_ids)))
            ours["did"].append(torch.tensor([int(item["image_id"])]))
        report.same(f"dataset {name} first annotations", walked, [item["first_annotation"] for item in train])
        report.same(f"dataset {name} candidates", candidates, [item["second_candidates"] for item in train])
        for key, tensors in ours.items():
            theirs = saved[f"{name}.{key}"]
            compare = report.close if key == "vad" else report.same
            compare(f"dataset {name}.{key}", torch.stack(tensors).reshape(theirs.shape), theirs)
        tokens, segments, *_ = codec.prompt()
        of_prompt = {"input_ids": torch.tensor(tokens), "segment_ids": torch.tensor(segments)}
        of_prompt["vad"] = torch.from_numpy(lookup.for_texts(np.array([tokens])))
        for key, ours in of_prompt.items():
            theirs, compare = saved[f"eval.prefix{prefix}.{key}"], report.close if key == "vad" else report.same
            compare(f"dataset eval.prefix{prefix}.{key}", ours.expand(theirs.shape), theirs)
    check_images(folder, records, report)
    check_tokenization(folder, codec, report)


class _NoImages:
    def load(self, image_names: list[str]) -> list[dict]:
        return [{} for _ in image_names]


def check_images(folder: Path, records: dict, report: Report) -> None:
    images = folder / "images"
    checks = read(folder / "image_checks.json")
    for image_id, check in checks.items():
        name = records[image_id]["image_name"]
        path = find_image(images, name)
        found = None if path is None else str(path.relative_to(folder / "images"))
        report.same(f"dataset image {image_id} file", found, check["file"])
        if path is None:
            continue
        size = check["shape"][-1]
        pixels = ImagePixels(images, size, IMAGENET_MEAN, IMAGENET_STD).transform(open_image(path))
        report.close(f"dataset image {image_id} mean", pixels.mean((1, 2)), torch.tensor(check["mean"]))
        report.close(f"dataset image {image_id} std", pixels.flatten(1).std(1), torch.tensor(check["std"]))
        report.close(f"dataset image {image_id} pixels", pixels[:, 7::64, 11::64], torch.tensor(check["sub"]))
    with Image.open(find_image(images, next(iter(records.values()))["image_name"])) as first:
        report.same("dataset first image has channels", len(first.getbands()), 3)


def check_tokenization(folder: Path, codec: TextCodec, report: Report) -> None:
    cases = read(folder / "tokenization.json")
    for index, case in enumerate(cases):
        ids = codec.bpe([case["text"]])[0]
        report.same(f"dataset tokenization {index} ids", ids, case["ids"])
        report.same(f"dataset tokenization {index} tokens", codec.tokenizer.convert_ids_to_tokens(ids), case["tokens"])
        report.same(f"dataset tokenization {index} decoded", codec.decode(ids), case["decoded"].lstrip())


def check_emotion_accuracy(root: Path, report: Report) -> None:
    folder = root / "emotion_accuracy"
    records = read(folder / "records.json")
    for case in read(folder / "cases.json"):
        chosen = {image_id: records[image_id] for image_id in map(str, case["record_ids"])}
        captions = {int(caption["image_id"]): caption["caption"] for caption in case["predictions"]}
        accuracy, count = emotion_accuracy(captions, chosen)
        accuracy = accuracy or -1.0  # as the published code has it where no caption is right
        report.close(f"emotion_accuracy {case['name']}", accuracy, case["accuracy"])
        report.same(f"emotion_accuracy {case['name']} images", count, case["n_dominant"])


def check_optimizer(root: Path, report: Report) -> None:
    folder = root / "optimizer"
    config, saved = read(folder / "config.json"), load_file(folder / "steps.safetensors")
    rates = config["groups"]
    start = {name.removeprefix("start."): tensor for name, tensor in saved.items() if name.startswith("start.")}
    parts = {part: nn.ParameterDict() for part in rates}
    for name, tensor in start.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = nn.Parameter(tensor.clone())
    flags = {"emo_en_LR": rates["vad_encoder"], "learning_rate": rates["decoder"], "adam_eps": config["adam_eps"]}
    args = parse_args([f"--{name}={value}" for name, value in flags.items()])
    groups, names = parameter_groups(args, SimpleNamespace(**parts, image_encoder=None, emotion_head=None))
    optimizer = build_optimizer(groups, args.adam_eps, args.adamw)
    scheduler = linear_decay(optimizer, config["updates_in_all"])
    for k in range(config["steps"]):
        found = {of[0].partition(".")[0]: group["lr"] for of, group in zip(names, optimizer.param_groups, strict=True)}
        theirs = dict(zip(rates, config["rates"][k], strict=True))
        for part in rates:
            report.close(f"optimizer rate of {part} {k}", found[part], theirs[part], (0.0, 1e-6))
        for name in start:
            part, _, rest = name.partition(".")
            parts[part][rest].grad = saved[f"gradient{k}.{name}"]
        optimizer.step()
        scheduler.step()
        for name in start:
            part, _, rest = name.partition(".")
            report.close(f"optimizer {name} after {k}", parts[part][rest], saved[f"after{k}.{name}"], (1e-8, 0.0))


CHECKS = {
    "vad_encoder": check_vad_encoder,
    "image_encoder": check_image_encoder,
    "decoder": check_decoder,
    "greedy": check_greedy,
    "checkpoint": check_checkpoint,
    "dataset": check_dataset,
    "emotion_accuracy": check_emotion_accuracy,
    "optimizer": check_optimizer,
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder laid out like tests/data/golden")
    parser.add_argument("--only", choices=CHECKS, nargs="+", default=list(CHECKS), help="check these parts only")
    args = parser.parse_args(argv)
    logging.set_verbosity_error()
    torch.manual_seed(0)
    report = Report()
    for name in args.only:
        if not (args.folder / name).is_dir():
            report.missing(name, "fixture folder missing")
            continue
        try:
            CHECKS[name](args.folder, report)
        except (FileNotFoundError, KeyError, InputError, RuntimeError, ValueError) as error:
            report.missing(name, f"{type(error).__name__}: {str(error)[:200]}")
    print(f"{report.lines} quantities, {report.failures} failed")
    return int(report.failures > 0)


if __name__ == "__main__":
    sys.exit(main())
