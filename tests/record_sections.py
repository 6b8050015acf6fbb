"""What tests/record.py runs, and what that reads: invented files and tiny models, and files made from the demo's data."""

import json
import shutil
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]

# ---- the commands of each section, one in a line; OUT is the section's folder ----------------------------------------

IMAGES = "data/wikiart_rescaled_max_size_to_600px_same_aspect_ratio"
VAD = "--vad_lexicon data/demo-VAD-Lexicon.txt"
TEST = "data/artEmisX_test.json --annFileExp data/annotations/artEmisX_test_annot_exp.json"
ARTEMIS = "inputs/artemis/preprocess_data_nets"
JUDGE = f"--text2emotion {ARTEMIS}/txt_to_emotion/lstm_based/best_model.pt"
TRAIN = f"""artEmisX_train --ckpt_path OUT/ckpts --caption_save_path OUT/results --cache_dir cache --image_root {IMAGES} {VAD}
    --nle_data_val_path data/artEmisX_val.json --annFileExp data/annotations/artEmisX_val_annot_exp.json
    --clip_model inputs/clip --gpt2_model inputs/gpt2 --batch_size 4 --num_train_epochs 2 --num_workers 0 --cpu_threads 1
    --learning_rate 5e-4 --emo_en_LR 0.01 --mixed_precision no --lemmatizer simplemma --log_steps 1 --metrics bleu"""
FEW = f"{TRAIN} --nle_data_train_path few.json --num_train_epochs 1"
RUN = f"""{TRAIN} --nle_data_train_path data/artEmisX_cl_train.json --batch_size 8 --metrics bleu rouge cider
    --no-fixed_encoder --en_LR 0.01 --use_emotion_loss"""
SCORE = f"artEmisX_train --eval_only --cache_dir cache --nle_data_val_path {TEST} --image_root {IMAGES} {VAD} --cpu_threads 1"
BEST = f"{SCORE} --ckpt_path run/ckpts --load_from_epoch best-res --nle_data_train_path data/artEmisX_cl_train.json"
EXPLAIN = "utils.explain --ckpt run/ckpts --device cpu"
SPLITS = "data/artEmisX_train.json data/artEmisX_val.json data/artEmisX_test.json"
RESIZE = "preprocess.resize_wikiart --wikiart_dir inputs/wikiart --jobs 1"
PREPARE = "preprocess.prepare_artemis --release_csv inputs/artemis/artemis_dataset_release_v0.csv --jobs 1"
TABLE = "preprocess.build_splits --dataset table --rename_emotions joy=contentment"
VARIANTS = {
    "label_loss": "--use_label_loss --label_loss_weight 2 --use_emotion_loss --emotion_pooling prototypes --emotion_from likelihood",
    "loss_weights": """--alpha 0.7 --cl_Loss_weight 0.3 --VAD_Loss_weight 2.5 --use_emotion_loss --emotion_loss_weight 0.4
        --emotion_pooling mean --emotion_from head""",
    "from_scratch": "--from_scratch --no-use_VAD --no-use_VAD_loss --no-use_cl_loss",
    "masked_pooling": "--masked_pooling --prompt_text ' the painting feels like'",
    "vad_causal": "--vad_causal --VAD_En_Heads 3 --VAD_En_Layers 2 --lemmatizer none",
    "len_prefix": "--len_prefix 2 --max_seq_len 24 --dropout 0.3",
    "plain_special_tokens": "--plain_special_tokens",
    "feature_cache_dir": "--feature_cache OUT/features",
    "feature_cache_auto": "--feature_cache auto --cache_dir OUT/cache --num_workers 2 --num_train_epochs 2",
    "accumulation": "--gradient_accumulation_steps 2 --max_grad_norm 0.5 --adam_eps 1e-8",
    "first_text_last": "--first_text last --image_normalization own --drop_last_token --num_train_epochs 2",
    "bf16": "--mixed_precision bf16",
    "beams": "--num_beams 2 --eval_steps 2 --stop_after_evals 0 --num_train_epochs 3 --gallery 4",
    "siglip": "--clip_model inputs/siglip --from_scratch encoder --image_normalization own",
    "dino": "--clip_model inputs/dino --from_scratch encoder --len_prefix 1",
    "nltk": "--lemmatizer nltk",
}
SECTIONS = {
    "data": f"""preprocess.make_demo_data --out_dir OUT --pictures 80
        preprocess.resize_wikiart --wikiart_dir OUT/wikiart_originals --out_dir {IMAGES} --jobs 1
        preprocess.build_splits --artemis_dir OUT --out_dir OUT --image_root {IMAGES}
        preprocess.build_annotations OUT/artEmisX_val.json OUT/artEmisX_test.json --out_dir OUT/annotations""",
    "run": RUN,
    "seed_7": f"{RUN} --seed 7",
    "plain": f"{FEW} --num_train_epochs 2",
    **{name: f"{FEW} {more}" for name, more in VARIANTS.items()},
    "continued": f"{FEW}\n{FEW} --num_train_epochs 2 --load_from_epoch best-res --seed 3",
    "stopped": f"SIGTERM {RUN} --save_steps 2\n{RUN} --save_steps 2 --resume",
    "killed": f"SIGKILL {RUN} --save_steps 2\n{RUN} --save_steps 2 --resume",
    "two_processes": f"torchrun {FEW} --use_emotion_loss",
    "runs/demo": """artEmisX_train --demo --cpu_threads 1 --num_train_epochs 1 --metrics bleu --log_steps 1
        artEmisX_train --demo --cpu_threads 1 --eval_only --split test --metrics bleu""",
    "scored": f"""{BEST} --caption_save_path OUT/greedy {JUDGE} --test_set v1.0 --append_to OUT/rows.csv
        {BEST} --caption_save_path OUT/beams --metrics bleu rouge cider --num_beams 2 --emotion_from head --gallery 4
        {BEST} --caption_save_path OUT/likelihood --metrics bleu --emotion_from likelihood --clip_score inputs/clip""",
    "export": f"""utils.share run/ckpts OUT/model --report scored/greedy/report.json
        {SCORE} --ckpt_path OUT/model --caption_save_path OUT/results --metrics bleu""",
    "explain": f"""{EXPLAIN} inputs/photos --json OUT/greedy.json --csv OUT/greedy.csv --heat OUT/greedy.html --batch_size 4
        {EXPLAIN} inputs/photos --json OUT/beams.json --num_beams 3 --name best-acc
        {EXPLAIN} inputs/photos --json OUT/samples.json --num_samples 2 --seed 5 --temperature 1.2 --min_new_tokens 5
        {EXPLAIN} inputs/photos/1.jpg --json OUT/all.json --emotion all --heat OUT/all.png --heat_blocks 2""",
    "report": f"""utils.report scored/greedy/report.json scored/beams/report.json --json OUT/two.json
        utils.report --predictions scored/greedy/unf_captions_full_best-res_0_step.json --records {TEST} {VAD} {JUDGE}
            --clip_score inputs/clip --image_root {IMAGES} --metrics bleu rouge cider --json OUT/predictions.json
        utils.compare scored/greedy scored/beams --resamples 200 --json OUT/compare.json""",
    "look": f"""utils.inspect {SPLITS} few.json {VAD} --image_root {IMAGES} --json OUT/inspect.json --html OUT/inspect.html
        utils.gallery run --number 5 --metrics bleu rouge --out OUT/gallery.html
        utils.plots run seed_7 --out OUT/plots""",
    "cococaption": """cococaption --annotations inputs/references.json --results inputs/captions.json --json OUT/scores.json
        --metrics bleu rouge cider""",
    "published": f"{FEW} --eval_only --load_from_epoch best-res --ckpt_path inputs/published",
    "text2emotion": f"preprocess.train_text2emotion --data_dir {ARTEMIS} --sizes 12 16 16 12 --epochs 3 --out OUT/a.safetensors",
    "artemis": f"""{PREPARE} --spelling inputs/spelling.json --out_dir OUT/v1
        preprocess.build_splits --artemis_dir OUT/v1 --out_dir OUT/v1
        preprocess.build_annotations OUT/v1/artEmisX_val.json OUT/v1/artEmisX_test.json --out_dir OUT/v1
        {PREPARE} --contrastive_csv inputs/contrastive.csv --out_dir OUT/v2
        preprocess.build_splits --dataset v2 --artemis_dir OUT/v2 --out_dir OUT/v2 --test_sets test_new test_ref test_40""",
    "table": f"""{TABLE} --csv inputs/mine.csv --columns image=picture emotion=feeling text=reason --seed 5 --out_dir OUT/drawn
        {TABLE} --csv inputs/mine.tsv --keep_text --out_dir OUT/given""",
    "resize": f"""{RESIZE} --out_dir OUT/all
        {RESIZE} --out_dir OUT/some --release_csv inputs/some.csv --max_size 256 --quality 90""",
    "golden": f"tests.check_golden {REPOSITORY}/tests/data/golden",
}
SECTIONS["feature_cache_dir"] = f"""preprocess.cache_features {SPLITS} --image_root {IMAGES} --clip_model inputs/clip
    --num_workers 0 --out_dir OUT/features\n{SECTIONS["feature_cache_dir"]}"""

# ---- what they read ---------------------------------------------------------------------------------------------------

FIXTURES = REPOSITORY / "tests" / "data"
HALF = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = HALF | {"image_size": 32, "patch_size": 16}
SIGLIP = VISION | {"model_type": "siglip_vision_model", "image_size": 40}
DINO = VISION | {"model_type": "dinov2_with_registers", "num_register_tokens": 3, "mlp_ratio": 2, "patch_size": 14}
GPT2 = {"vocab_size": 50257, "n_positions": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "initializer_range": 0.3}
# A random decoder says these, so that captions differ between images, and end.
WORDS = "awe fear sadness anger amusement content excitement disgust something else because the sky is dark and warm it left me"


def make_inputs() -> None:
    inputs = Path("inputs")
    shutil.copytree(FIXTURES / "artemis", inputs / "artemis")
    shutil.copytree(FIXTURES / "golden" / "checkpoint", inputs / "published")
    make_models(inputs)
    make_texts(inputs)
    make_images(inputs / "wikiart")


def make_models(inputs: Path) -> None:
    """clip, a whole CLIP model with a tokenizer of letters; gpt2; configs of a SigLIP and a DINO."""
    import torch
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, GPT2Config, GPT2LMHeadModel
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    for name, config in (("siglip", SIGLIP), ("dino", DINO)):
        (inputs / name).mkdir()
        (inputs / name / "config.json").write_text(json.dumps(config))
    torch.manual_seed(1)
    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    text = HALF | {"vocab_size": len(tokens), "bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1}
    CLIPTokenizer(vocab={token: place for place, token in enumerate(tokens)}, merges=[]).save_pretrained(
        inputs / "clip"
    )
    CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=8)).save_pretrained(inputs / "clip")
    vocabulary = json.loads((inputs / "published" / "nle_gpt2_tokenizer_0" / "vocab.json").read_text())
    rows = [vocabulary["<|endoftext|>"], *(vocabulary[f"\u0120{word}"] for word in WORDS.split())]
    model = GPT2LMHeadModel(GPT2Config(**GPT2))
    model.transformer.wte.weight.data.mul_(0.1)[rows] = 1.5 * torch.randn(len(rows), 16)
    model.save_pretrained(inputs / "gpt2")


def make_texts(inputs: Path) -> None:
    """Rows of an ArtEmis v2.0, two tables of one's own, references and captions."""
    import pandas

    (inputs / "spelling.json").write_text('{"colours": "colors"}')
    old = pandas.read_csv(inputs / "artemis" / "artemis_dataset_release_v0.csv")
    new = old.iloc[::3].assign(anchor_art_style=old.art_style[0], anchor_painting=old.painting[0])
    new.assign(painting="new-" + new.painting + "-\u00e9").to_csv(inputs / "contrastive.csv", index=False)
    drawn, given = ["picture;feeling;reason"], ["image\temotion\ttext\tsplit\tlanguage"]
    for number in range(60):
        name, emotion = f"p{number % 20}", ("joy", "Awe", "fear")[number % 3]
        drawn.append(f'hall-{number % 4}/{name}.png;{emotion};"Isn\'t it No. {number}, ""quiet"" and wide?"')
        split, language = ("train", "dev", "TEST", "training")[number % 4], ("English", "arabic")[number % 7 == 4]
        given.append(f"{name}\t{emotion}\tText {number}!\t{split}\t{language}")
    (inputs / "mine.csv").write_text("\n".join(drawn))
    (inputs / "mine.tsv").write_text("\n".join(given))
    texts = [
        (7, "The sky, so wide; it's calm."),
        (7, "a calm sky"),
        (9, "Two birds over a dark sea!"),
        (4, "I don't know"),
    ]
    rows = [{"id": number, "image_id": image, "caption": text} for number, (image, text) in enumerate(texts)]
    references = {"images": [{"id": image} for image in (4, 7, 9)], "annotations": rows}
    (inputs / "references.json").write_text(json.dumps(references))
    captions = {9: "two birds over the sea", 7: "a wide calm sky", 4: "who knows"}
    rows = [{"image_id": image, "caption": text} for image, text in captions.items()]
    (inputs / "captions.json").write_text(json.dumps(rows))


def make_images(folder: Path) -> None:
    """Images of several sizes, modes and orientations, with damaged names, one broken; and a release that names some."""
    import numpy
    from PIL import Image

    draw = numpy.random.default_rng(0)
    names = "a_wide.jpg a_tall.png jos#U00e9_caf#U00e9.jpg b_grey.jpg b_alpha.png c_turned.jpg d_small.webp".split()
    for number, name in enumerate(names):
        path, size = folder / f"S{number % 2}" / name, ((300, 700), (900, 200), (60, 90))[number % 3]
        path.parent.mkdir(parents=True, exist_ok=True)
        image, exif = Image.fromarray(draw.integers(256, size=(*size, 4), dtype=numpy.uint8)), Image.Exif()
        exif[0x0112] = 6 if "turned" in name else 1
        image.convert({"b_grey.jpg": "L", "b_alpha.png": "RGBA"}.get(name, "RGB")).save(path, exif=exif)
    (folder / "S0" / "e_broken.jpg").write_bytes((folder / "S0" / "a_wide.jpg").read_bytes()[:900])
    rows = ["S0,a_wide", "S1,a_tall", "S0,jos\u00e9_caf\u00e9", "S1,b_grey", "S1,f_missing", "S0,e_broken"]
    (folder.parent / "some.csv").write_text("\n".join(["art_style,painting", *rows]))


def make_from_data() -> None:
    """From data/: the demo's own folder, a few training texts, some of which spell special tokens, and photos."""
    shutil.copytree("data", "runs/demo/data")
    records = json.loads(Path("data/artEmisX_cl_train.json").read_text())
    few = dict(list(records.items())[:10])
    for record in few.values():
        record["explanations"][-1] += " <pad> or <|endoftext|>"
    Path("few.json").write_text(json.dumps(few))
    Path("inputs/photos").mkdir()
    for number, path in enumerate(sorted(Path(IMAGES).rglob("*.jpg"))[:5]):
        shutil.copy(path, f"inputs/photos/{number}.jpg")
    Path("inputs/photos/broken.jpg").write_bytes(path.read_bytes()[:300])
