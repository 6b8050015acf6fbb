"""Compare our code with numeric fixtures made by the authors' published code.

    python tests/tools/check_golden.py tests/data/golden

One line per quantity: name, largest absolute and relative difference, tolerance, ok or FAIL. Exit status 1 when anything
fails or a fixture is missing. Shapes and sizes are read from the files; tests/data/golden/README.md defines every file.
"""

import argparse
import json
import sys
from collections.abc import Iterable
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
from utils.evaluation.generation import Generated, greedy_decode
from utils.training.checkpoints import MASK_BUFFER, load_named
from utils.training.optimizer import build_optimizer, linear_decay, parameter_groups

TOLERANCE = (1e-5, 1e-5)  # (atol, rtol), for every float


class Report:
    """Prints a line per quantity and counts the failures."""

    def __init__(self) -> None:
        self.lines = self.failures = 0

    def close(self, name: str, ours: Tensor | float, theirs: Tensor | float, tolerance=TOLERANCE) -> None:
        """|ours - theirs| <= atol + rtol |theirs| everywhere, and equal shapes."""
        ours, theirs = torch.as_tensor(ours).detach().double(), torch.as_tensor(theirs).double()
        if ours.shape != theirs.shape:
            return self.line(name, f"shape {tuple(ours.shape)} against {tuple(theirs.shape)}", "", False)
        difference, (atol, rtol) = (ours - theirs).abs(), tolerance
        figures = f"abs {difference.max():.1e}  rel {(difference / theirs.abs().clamp(min=1e-12)).max():.1e}"
        ok = bool((difference <= atol + rtol * theirs.abs()).all())
        self.line(name, figures, f"atol {atol:g} rtol {rtol:g}", ok)

    def same(self, name: str, ours: object, theirs: object) -> None:
        """Exact equality of ids, strings, lists."""
        if isinstance(ours, Tensor):
            ours, theirs = ours.tolist(), torch.as_tensor(theirs).tolist()
        note = "equal" if ours == theirs else f"{str(ours)[:60]} against {str(theirs)[:60]}"
        self.line(name, note, "exact", ours == theirs)

    def line(self, name: str, figures: str, tolerance: str, ok: bool) -> None:
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
        encoder, name = ImageEncoder(vision_from_openai(state, heads=heads)), f"image_encoder heads={heads}"
        features = encoder(io["image"])
        report.close(f"{name} class_token", features.cls, io[f"heads{heads}.class_token"])
        report.close(f"{name} grid", features.grid, io[f"heads{heads}.grid"])
        unchanged = {key: tensor.equal(state[key]) for key, tensor in trained_state_dict(encoder.vision).items()}
        report.same(f"{name} names back", unchanged, dict.fromkeys(state.keys() - {"proj"}, True))


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
        **{name: sizes[name] for name in (*names, "bos_token_id", "eos_token_id")},
        activation_function=sizes["activation"],
        add_cross_attention=True,
    )
    chosen = ("len_prefix", "use_cl_loss", "use_VAD_loss", "alpha", "cl_Loss_weight", "VAD_Loss_weight")
    settings = SEVLMConfig(
        encoder_dim=sizes["encoder_dim"], use_VAD=variant["emo_features"], **{name: variant[name] for name in chosen}
    )
    decoder = Explainer(config, settings)
    decoder.load_state_dict({name: state[name] for name in decoder.state_dict()})
    model = SEVLM(settings, decoder)
    if settings.use_VAD:
        model.vad_encoder = load_vad_encoder(root)
    return model.eval()


def check_decoder(root: Path, report: Report) -> None:
    for name, variant in read(root / "decoder" / "variants.json").items():
        saved = load_file(root / "decoder" / variant["tensors"])
        check_variant(root, report, f"decoder {name}", variant, saved)
    for example in read(root / "decoder" / "neg_ids_examples.json"):
        generator = torch.Generator().manual_seed(example["torch_manual_seed"])
        name = f"decoder permutation n={example['size']} seed={example['torch_manual_seed']}"
        report.same(name, derangement(example["size"], generator).tolist(), example["ids"])


def check_variant(root: Path, report: Report, name: str, variant: dict, saved: dict[str, Tensor]) -> None:
    model = decoder_model(root, variant)
    prefix, span_end = variant["len_prefix"], variant["len_prefix"] + EMOTION_SPAN
    rows, columns = (slice(*variant.get(axis, [None])) for axis in ("rows", "columns"))
    inputs = {key: tensor[rows] for key, tensor in load_file(root / "decoder" / variant["inputs"]).items()}
    batch = {key: inputs[key][:, columns] for key in ("input_ids", "segment_ids", "vad")}
    # the two texts of a pair share their image: it goes in once
    pairs = variant.get("labels", True)
    stride = 2 if pairs else 1
    image = ImageFeatures(*(inputs[key][::stride].contiguous() for key in ("image_cls", "image_grid")))
    vad_features = model.vad_encoder(batch["vad"]) if model.vad_encoder is not None else None
    hidden = model.decoder(batch["input_ids"], batch["segment_ids"], image, vad_features)
    logits = model.decoder.lm_head(hidden[:, prefix:])
    quantities = {
        "last_hidden": hidden,
        "lm_logits": logits,
        "lm_logits_first3rows": logits[:3],
        "emo_features": vad_features,
        "image_pooled": image.grid.mean(1).repeat_interleave(stride, 0),
        "explanation_pooled": hidden[:, span_end:].mean(1),
    }
    negatives = saved.get("neg_index_visual")
    if pairs and variant["use_cl_loss"]:
        report.same(f"{name} neg_index_emotion", torch.arange(len(hidden)) ^ 1, saved["neg_index_emotion"])
        scores = model.contrastive_scores(image, hidden, batch["input_ids"], batch["segment_ids"], negatives)
        quantities |= dict(zip(("sim_pos", "sim_neg_emotion", "sim_neg_visual"), scores, strict=True))
    for key, tensor in quantities.items():
        if key in saved:
            report.close(f"{name} {key}", tensor, saved[key])
    if pairs:
        positions, targets = label_positions(inputs["labels"], prefix)
        batch |= {"lm_positions": positions, "lm_targets": targets, "visual_negatives": negatives} | image._asdict()
        check_losses(report, name, variant, model, batch, saved)


def check_losses(report: Report, name: str, variant: dict, model: SEVLM, batch: dict[str, Tensor], saved: dict) -> None:
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
    found = {key: parameter.grad for key, parameter in model.named_parameters() if parameter.grad is not None}
    for key, norm in variant["grad_norm"].items():
        if norm is None:  # no gradient at all in the published code; a part that we do not even build has none either
            report.same(f"{name} grad {key}", key in found and bool(found[key].any()), False)
        else:
            report.close(f"{name} grad_norm {key}", found[key].double().norm(), norm)
    for key, theirs in saved.items():
        if key.startswith("grad."):
            parameter, _, rows = key.removeprefix("grad.").partition(".first")
            rows = slice(int(rows.removesuffix("rows")) if rows else None)
            report.close(f"{name} {key}", found[parameter][rows], theirs)


def check_greedy(root: Path, report: Report) -> None:
    folder = root / "greedy"
    config, saved = read(folder / "config.json"), load_file(folder / "tensors.safetensors")
    model, codec = load_checkpoint_model((folder / config["weights"]).resolve(), config["prompt"])
    values = {word: tuple(entry) for word, entry in read(folder / "lexicon.json").items()}
    lookup = VADLookup(Lexicon(values, Path("lexicon.json"), "", "-1..1"), "none", codec)
    prompt_ids, prompt_segments, *_ = codec.prompt()
    report.same("greedy prompt_input_ids", prompt_ids, saved["prompt_input_ids"].tolist())
    report.same("greedy prompt_segment_ids", prompt_segments, saved["prompt_segment_ids"].tolist())
    vad = lookup.for_generated(np.array([prompt_ids]))[0]
    report.close("greedy prompt_vad", torch.from_numpy(vad), saved["prompt_vad"])
    report.same("greedy stop_ids", sorted(codec.stop_ids), sorted(config["stop_ids"]))
    steps = config["max_new_tokens"]

    def generate(stop_ids: tuple[int, ...], rows: slice = slice(None)) -> Generated:
        image = ImageFeatures(saved["image_cls"][rows], saved["image_grid"][rows])
        prompt = codec.prompt()._replace(because_id=config["because_id"], stop_ids=stop_ids)
        return greedy_decode(model, image, prompt, lookup.for_generated, steps)

    def check_steps(how: str) -> Tensor:
        """The fixture goes on after a stop token, ours does not: without stop ids it makes all steps too."""
        logits, top_two = [], model.decoder.top_two

        def recorded(hidden: Tensor) -> tuple[Tensor, Tensor]:
            values, ids = top_two(hidden)
            logits.append(values)
            return values, ids

        with patch.object(model.decoder, "top_two", recorded):
            generated = generate(())
        top, second = torch.stack(logits, dim=1).unbind(-1)
        report.same(f"greedy{how} generated_ids", generated.token_ids, saved["generated_ids"])
        report.close(f"greedy{how} top1_logit", top, saved["top1_logit"])
        report.close(f"greedy{how} margin", top - second, saved["margin"])
        return generated.token_ids

    ids = check_steps("")
    with packed_weights(model.decoder):
        check_steps(", packed weights,")

    def after_the_prompt(name: str, tokens: Tensor) -> Tensor:
        return torch.cat([saved[f"prompt_{name}"].repeat(len(tokens), 1), tokens], dim=1)

    vad = lookup.for_generated(after_the_prompt("input_ids", ids).numpy())
    report.close("greedy final_vad", torch.from_numpy(vad), saved["final_vad"])
    because = (ids == config["because_id"]).cumsum(1) > 0
    segments = torch.where(because, config["explanation_id"], config["emotion_id"])
    report.same("greedy final_segment_ids", after_the_prompt("segment_ids", segments), saved["final_segment_ids"])

    captions = read(folder / "captions.json")  # in the order of the tensors' rows
    for rows in (slice(None), slice(0, 1), slice(1, None)):  # the result must not depend on the batch
        generated = generate(tuple(config["stop_ids"]), rows)
        end = (generated.lengths + 1).clamp(max=steps)
        report.same(f"greedy end_index rows {rows.start or 0}:", end, saved["end_index"][rows])
        full = generated.texts(codec, drop_last_token=True)
        explanations = [split_generated(text)[1] for text in full]
        for name, texts in (("full", full), ("explanation", explanations)):
            report.same(f"greedy {name} rows {rows.start or 0}:", texts, [caption[name] for caption in captions[rows]])


def load_checkpoint_model(root: Path, prompt: str) -> tuple[SEVLM, TextCodec]:
    checkpoint = load_named(root, "best-res")
    layers = vad_layers(checkpoint.stats["emo_encoder_state_dict"])
    config = SEVLMConfig.from_fields(checkpoint.config, vad_layers=layers)
    model = SEVLM(config, Explainer(gpt2_config(checkpoint.config), config))
    checkpoint.restore(model)
    codec = TextCodec(load_tokenizer(str(root / "nle_gpt2_tokenizer_0")), prompt, config.max_seq_len, config.len_prefix)
    return model.eval(), codec


def check_checkpoint(root: Path, report: Report) -> None:
    manifest, folder = read(root / "checkpoint_manifest.json"), root / "checkpoint"
    model, _ = load_checkpoint_model(folder, " the emotion is")
    stats = load_named(folder, "best-res").stats
    for name in ("epoch", "best_acc", "best_res"):
        report.same(f"checkpoint {name}", stats[name], manifest[name])
    unfrozen = torch.load(folder / "ckpt_stats_no-vad-unfrozen.tar", weights_only=True)["encoder_state_dict"]
    encoder = trained_state_dict(vision_from_openai(unfrozen))
    parts = {
        "decoder": model.decoder.state_dict(),
        "emo_encoder": model.vad_encoder.state_dict(),
        "encoder": {f"encoder.{key}": tensor for key, tensor in encoder.items()},
    }
    for part, state in parts.items():
        for key, facts in manifest[part].items():
            if MASK_BUFFER.search(key) or key == "encoder.proj":
                continue
            sums = torch.tensor([state[key].double().sum(), state[key].double().norm()])
            report.same(f"checkpoint {part} {key} shape", list(state[key].shape), facts["shape"])
            report.close(f"checkpoint {part} {key}", sums, torch.tensor([facts["sum"], facts["l2"]]))


def check_dataset(root: Path, report: Report) -> None:
    folder = root / "dataset"
    saved, items = load_file(folder / "tensors.safetensors"), read(folder / "items.json")
    records = read(folder / "records.json")  # not read_records: one explanation is empty on purpose
    lexicon = read_lexicon(folder / "lexicon.tsv")
    entries = {word: list(entry) for word, entry in lexicon.values.items()}
    report.same("dataset lexicon", entries, read(folder / "lexicon.json"))
    tokenizer = load_tokenizer(str(root / "checkpoint" / "nle_gpt2_tokenizer_0"))
    no_images = SimpleNamespace(load=lambda image_names: [{} for _ in image_names])

    def compare(name: str, ours: np.ndarray | list) -> None:
        theirs = saved[name]
        check = report.close if name.endswith(".vad") else report.same
        check(f"dataset {name}", torch.as_tensor(np.array(ours)).expand(theirs.shape), theirs)

    for prefix in sorted({item["len_prefix"] for item in items}):
        name = f"train.prefix{prefix}"
        shape = saved[f"{name}.input_ids"].shape  # [passes, images, 2, tokens]
        codec = TextCodec(tokenizer, " the emotion is", shape[-1], prefix)
        lookup = VADLookup(lexicon, "none", codec)
        pairs = TrainingPairs(TrainingRecords.from_records(records), no_images, codec, lookup, seed=0)
        chosen, first_annotations, candidates = [], [], []
        of_prefix = [item for item in items if item["len_prefix"] == prefix]
        for item in of_prefix:
            first, _ = pairs.choose_pair(item["pass"], item["item"])
            first_annotations.append(first)
            candidates.append(second_candidates(records[item["image_id"]]["emotions"], first))
            start = pairs.records.first_row[item["item"]]
            chosen += [start + first, start + candidates[-1][item["draw"]]]
        expected = [item["first_annotation"] for item in of_prefix]
        report.same(f"dataset {name} first annotations", first_annotations, expected)
        report.same(f"dataset {name} candidates", candidates, [item["second_candidates"] for item in of_prefix])
        texts = pairs.encoded[np.array(chosen)]
        for key in ("input_ids", "labels", "segment_ids"):
            compare(f"{name}.{key}", getattr(texts, key).reshape(shape))
        compare(f"{name}.vad", lookup.for_texts(texts.input_ids).reshape(*shape, 3))
        image_ids = np.array([int(item["image_id"]) for item in of_prefix])
        compare(f"{name}.did", image_ids.reshape(saved[f"{name}.did"].shape))
        tokens, segments, *_ = codec.prompt()
        compare(f"eval.prefix{prefix}.input_ids", tokens)
        compare(f"eval.prefix{prefix}.segment_ids", segments)
        compare(f"eval.prefix{prefix}.vad", lookup.for_texts(np.array([tokens])))
    check_images(folder, records, report)
    check_tokenization(folder, codec, report)


def check_images(folder: Path, records: dict, report: Report) -> None:
    images = folder / "images"
    for image_id, check in read(folder / "image_checks.json").items():
        path = find_image(images, records[image_id]["image_name"])
        report.same(f"dataset image {image_id} file", path and str(path.relative_to(images)), check["file"])
        pixels = ImagePixels(images, check["shape"][-1], IMAGENET_MEAN, IMAGENET_STD).transform(open_image(path))
        report.close(f"dataset image {image_id} mean", pixels.mean((1, 2)), torch.tensor(check["mean"]))
        report.close(f"dataset image {image_id} std", pixels.flatten(1).std(1), torch.tensor(check["std"]))
        report.close(f"dataset image {image_id} pixels", pixels[:, 7::64, 11::64], torch.tensor(check["sub"]))
    with Image.open(find_image(images, next(iter(records.values()))["image_name"])) as first:
        report.same("dataset first image has channels", len(first.getbands()), 3)


def check_tokenization(folder: Path, codec: TextCodec, report: Report) -> None:
    for index, case in enumerate(read(folder / "tokenization.json")):
        ids, name = codec.bpe([case["text"]])[0], f"dataset tokenization {index}"
        report.same(f"{name} ids", ids, case["ids"])
        report.same(f"{name} tokens", codec.tokenizer.convert_ids_to_tokens(ids), case["tokens"])
        report.same(f"{name} decoded", codec.decode(ids), case["decoded"].lstrip())


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
    parameters = {name: nn.Parameter(tensor.clone()) for name, tensor in start.items()}
    parts = {part: nn.ParameterDict() for part in rates}
    for name, parameter in parameters.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = parameter
    flags = {"emo_en_LR": rates["vad_encoder"], "learning_rate": rates["decoder"], "adam_eps": config["adam_eps"]}
    args = parse_args([f"--{name}={value}" for name, value in flags.items()])
    groups, names = parameter_groups(args, SimpleNamespace(**parts, image_encoder=None, emotion_head=None))
    optimizer = build_optimizer(groups, args.adam_eps, args.adamw)
    scheduler = linear_decay(optimizer, config["updates_in_all"])
    for k in range(config["steps"]):
        found = {of[0].partition(".")[0]: group["lr"] for of, group in zip(names, optimizer.param_groups, strict=True)}
        for part, theirs in zip(rates, config["rates"][k], strict=True):
            report.close(f"optimizer rate of {part} {k}", found[part], theirs, (0.0, 1e-6))
        for name, parameter in parameters.items():
            parameter.grad = saved[f"gradient{k}.{name}"]
        optimizer.step()
        scheduler.step()
        for name, parameter in parameters.items():
            report.close(f"optimizer {name} after {k}", parameter, saved[f"after{k}.{name}"], (1e-8, 0.0))


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
    report = Report()
    for name in args.only:
        try:
            CHECKS[name](args.folder, report)
        except (FileNotFoundError, KeyError, InputError, RuntimeError, ValueError) as error:
            report.line(name, f"{type(error).__name__}: {str(error)[:200]}", "", False)
    print(f"{report.lines} quantities, {report.failures} failed")
    return int(report.failures > 0)


if __name__ == "__main__":
    sys.exit(main())
