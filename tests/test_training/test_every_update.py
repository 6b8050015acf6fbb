"""Every update of a training: its rates, gradients, dropout, mode and batches; accumulated and skipped updates."""

import json

import numpy as np
import pytest
import torch
from accelerate.optimizer import patch_optimizer_step
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, GPT2Config, GPT2LMHeadModel

import artEmisX_train
from models.cpu.kernels import Dropout
from tests.conftest import TINY_GPT2, TINY_VIT, logged_losses
from tests.test_training.recording import Recording, recording
from utils.constants import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from utils.data.datasets import EpochBatches, PairCollator, TrainingPairs
from utils.data.records import TrainingRecords, read_records
from utils.data.text_codec import SHIPPED_BPE, TextCodec, load_tokenizer
from utils.data.vad_lexicon import VADLookup, read_lexicon
from utils.errors import InputError

pytestmark = pytest.mark.slow

RATES = {"emo_en_LR": 3e-3, "learning_rate": 1e-3, "en_LR": 2e-3}  # in the order of the optimiser's groups
ALL_PARTS = ("--fixed_encoder", "False", "--use_emotion_loss")


@pytest.fixture(scope="module")
def made_before() -> dict[tuple[str, ...], Recording]:
    """Recordings by flags: each combination is run once."""
    return {}


@pytest.fixture
def run(workspace, tmp_path, monkeypatch, made_before):
    """Train without any evaluation and give what was recorded; `--num_train_epochs` is 1 unless a flag says otherwise."""
    monkeypatch.setattr(artEmisX_train, "evaluate", lambda run: None)

    def train(*flags: str, repeat: bool = False) -> Recording:
        if flags not in made_before or repeat:
            out = tmp_path / str(len(list(tmp_path.iterdir())))
            with recording(monkeypatch) as made:
                assert artEmisX_train.main(workspace.argv(out, "--num_train_epochs", "1", *flags)) == 0
            made_before[flags] = made
        return made_before[flags]

    return train


def flags_of(rates: dict[str, float]) -> list[str]:
    return [text for name, rate in rates.items() for text in (f"--{name}", str(rate))]


# ---- the schedule ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("accumulation", "epochs", "updates"), [(1, 2, 12), (4, 3, 6)])
def test_rates_fall_linearly_to_zero(run, accumulation, epochs, updates):
    """45 images in 6 steps an epoch; with 4 steps an update the last update of an epoch has 2."""
    more = ("--num_train_epochs", str(epochs), "--gradient_accumulation_steps", str(accumulation))
    made = run(*ALL_PARTS, *flags_of(RATES), *more)
    assert len(made.steps) == 6 * epochs and len(made.updates) == updates
    expected = {name: [rate * (1 - k / updates) for k in range(updates)] for name, rate in RATES.items()}
    for group, name in enumerate(("emo_en_LR", "emo_en_LR", "learning_rate", "learning_rate", "en_LR", "en_LR")):
        assert made.rates(group) == pytest.approx(expected[name], rel=1e-9), f"group {group}"


def test_groups_of_the_optimizer(run):
    """VAD encoder, decoder with emotion head, image encoder; of each the weights, then the biases; every one once."""
    made = run(*ALL_PARTS)
    groups = made.updates[0].names
    parts = [{name.partition(".")[0] for name in group} for group in groups]
    assert parts == [{"vad_encoder"}] * 2 + [{"decoder", "emotion_head"}] * 2 + [{"image_encoder"}] * 2
    for weights, biases in (groups[:2], groups[2:4], groups[4:]):
        assert all(name.endswith("bias") for name in biases)
        assert not any(name.endswith("bias") for name in weights)
    names = [name for group in groups for name in group]
    trained = [name for name, parameter in made.model.named_parameters() if parameter.requires_grad]
    assert sorted(names) == sorted(trained)
    unused = {"vad_encoder.decoder.weight", "vad_encoder.decoder.bias"}  # the authors' scorer that nothing reads
    assert set(dict(made.model.named_parameters())) - set(names) == unused


def test_optimizer_is_the_papers(run):
    made = run("--adam_eps", "3e-5")
    for group in made.optimizer.param_groups:
        assert group["betas"] == (0.9, 0.999) and group["eps"] == 3e-5 and group["weight_decay"] == 0
    assert type(made.optimizer) is torch.optim.AdamW
    assert not any(name.startswith("image_encoder.") for names in made.updates[0].names for name in names)


# ---- gradients -------------------------------------------------------------------------------------------------------


def test_clipping(run):
    """Gradients are scaled down to the given norm, and only if theirs is larger."""
    free = [update.norm for update in run().updates]
    low, high = min(free), max(free)
    assert low > 0.02
    clipped = run("--max_grad_norm", "0.02")
    assert [update.norm for update in clipped.updates] == pytest.approx([0.02] * 6, rel=1e-3)
    untouched = run("--max_grad_norm", str(2 * high))
    assert [update.norm for update in untouched.updates] == pytest.approx(free, rel=1e-4)


def test_every_update_starts_from_no_gradient(run, monkeypatch):
    """With rates of 0 and no dropout, an epoch in one order again has the gradients of the first."""
    monkeypatch.setattr(EpochBatches, "set_position", lambda self, epoch, step: None)
    frozen = ("--learning_rate", "0", "--emo_en_LR", "0", "--dropout", "0", "--first_text", "last")
    norms = [update.norm for update in run(*frozen, "--num_train_epochs", "2", repeat=True).updates]
    assert norms[6:] == pytest.approx(norms[:6], rel=1e-4)


def test_a_skipped_update_is_not_made(run, break_vad_loss):
    """--nan_policy skip: the optimiser makes no step at the third update; the schedule advances."""
    break_vad_loss(2)
    made = run("--nan_policy", "skip", "--emo_en_LR", "6e-3", repeat=True)
    assert len(made.steps) == 6
    assert made.rates(0) == pytest.approx([6e-3, 5e-3, 3e-3, 2e-3, 1e-3])
    assert all(torch.isfinite(parameter).all() for parameter in made.model.parameters())


# ---- dropout and mode ------------------------------------------------------------------------------------------------


def test_every_step_has_its_own_dropout(run):
    states = [step.random_state for step in run("--num_train_epochs", "2").steps]
    assert len(set(states)) == len(states) == 12
    assert [step.random_state for step in run().steps] == states[:6]  # whatever follows
    other = [step.random_state for step in run("--seed", "7").steps]
    assert not set(other) & set(states)


def wrong_modes(made: Recording, fixed: bool) -> dict[int, list[str]]:
    """Step -> modules that are not in training mode, or, of a fixed image encoder, that are."""
    wrong = {}
    for number, step in enumerate(made.steps):
        names = [
            name for name, mode in step.training.items() if mode == (fixed and name.split(".")[0] == "image_encoder")
        ]
        if names:
            wrong[number] = names
    return wrong


@pytest.fixture(scope="module")
def saved_models(tmp_path_factory):
    """Folders of a GPT-2 and a CLIP encoder with weights, as users have them."""
    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(**TINY_GPT2)).save_pretrained(folder / "gpt2")
    CLIPVisionModel(CLIPVisionConfig(**TINY_VIT)).save_pretrained(folder / "vit")
    return ("--no-from_scratch", "--gpt2_model", str(folder / "gpt2"), "--clip_model", str(folder / "vit"))


@pytest.mark.parametrize("fixed", [True, False])
def test_loaded_models_are_trained_in_training_mode_from_the_first_step(run, saved_models, fixed):
    made = run(*saved_models, "--fixed_encoder", str(fixed))
    assert wrong_modes(made, fixed) == {}


def test_evaluation_gives_the_training_mode_back(workspace, tmp_path, monkeypatch):
    """A trained encoder's, too, and with models that were loaded."""
    with recording(monkeypatch) as made:
        artEmisX_train.main(workspace.argv(tmp_path, *ALL_PARTS))
    made.steps = made.steps[6:]
    assert wrong_modes(made, fixed=False) == {}


# ---- flags -----------------------------------------------------------------------------------------------------------


def test_flags_of_the_model(run):
    made = run(
        *("--VAD_En_Layers", "2", "--VAD_En_Heads", "3", "--vad_causal", "--dropout", "0.25", "--masked_pooling"),
        *("--len_prefix", "2", "--max_seq_len", "24", "--prompt_text", " it feels like"),
        *("--first_text", "last", "--use_emotion_loss", "--fixed_encoder", "False"),
    )
    model, batch = made.model, made.steps[0].batch
    layers = model.vad_encoder.encoder["layers"]
    assert len(layers) == 2 and all(layer.self_attention.heads == 3 for layer in layers)
    assert all(layer.self_attention.causal for layer in layers) and model.vad_encoder.causal
    assert model.config.masked_pooling and model.emotion_head is not None
    dropouts = [m.p for part in (model.decoder, model.vad_encoder) for m in part.modules() if isinstance(m, nn.Dropout)]
    assert len(dropouts) >= 1 + 2 * (2 + 2 + 1) + 2 and set(dropouts) == {0.25}
    assert all(layer.self_attention.dropout == 0.25 for layer in layers)
    assert isinstance(model.decoder.transformer.drop, Dropout)
    tokenizer = load_tokenizer(str(SHIPPED_BPE))
    assert batch["input_ids"].shape == batch["segment_ids"].shape == (16, 24) and batch["vad"].shape == (16, 24, 3)
    prompt = tokenizer(" it feels like")["input_ids"]
    start = [tokenizer.convert_tokens_to_ids("<prefix>")] * 2 + [tokenizer.eos_token_id, *prompt]
    assert all(row[: len(start)] == start for row in batch["input_ids"].tolist())
    assert model.config.len_prefix == 2 and hasattr(model.decoder.transformer, "clip_project")


def test_images_of_one_emotion_are_for_trainings_without_contrastive_loss(run, workspace):
    train = ("--nle_data_train_path", str(workspace.data / "artEmisX_train.json"))
    images = len(read_records(train[1]))
    assert images > 45  # which have several emotions
    made = run(*train, "--no-use_cl_loss")
    assert sum(len(step.batch["input_ids"]) for step in made.steps) == 2 * images
    with pytest.raises(InputError, match="all its explanations have one emotion"):
        run(*train)


@pytest.mark.parametrize("len_prefix", [0, 2])
def test_counts_are_those_of_the_batch(run, len_prefix):
    """One process, one step an update: the losses are divided by what the batch itself holds."""
    made = run("--len_prefix", str(len_prefix), "--use_emotion_loss", "--dropout", "0")
    made.model.eval()
    batch = made.steps[-1].batch
    with torch.no_grad():
        given, recomputed = made.model(**batch), made.model(**batch | {"counts": None})
    for name, value in recomputed.items():
        assert given[name].item() == pytest.approx(value.item(), rel=1e-5), name


def pixels_of(made: Recording) -> torch.Tensor:
    return torch.cat([step.batch["pixels"] for step in made.steps])


def test_normalisation(run):
    """The same images, by ImageNet's statistics (the paper's) and by CLIP's."""
    of = [(IMAGENET_MEAN, IMAGENET_STD), (CLIP_MEAN, CLIP_STD)]
    made = [pixels_of(run()), pixels_of(run("--image_normalization", "own"))]
    raw = [
        pixels * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)
        for pixels, (mean, std) in zip(made, of, strict=True)
    ]
    assert torch.allclose(*raw, atol=1e-5) and raw[0].min() >= -1e-6 and raw[0].max() <= 1 + 1e-6
    assert raw[0].max() > 0.9  # of 0..1, not of 0..255


@pytest.mark.parametrize("first_text", ["walk", "last"])
def test_batches_are_those_of_seed_and_epoch(run, workspace, first_text):
    """Images, texts and negatives of both epochs, made again from the seed alone."""
    made = run("--seed", "7", "--first_text", first_text, "--num_train_epochs", "2")
    records = read_records(workspace.data / "artEmisX_cl_train.json")
    codec = TextCodec(load_tokenizer(str(SHIPPED_BPE)), " the emotion is", 30)
    pairs = TrainingPairs(
        TrainingRecords.from_records(records), {record["image_name"]: {} for record in records.values()}, codec, None, 7
    )
    pairs.first_text = first_text
    vad = VADLookup(read_lexicon(workspace.data / "demo-VAD-Lexicon.txt"), "simplemma", codec)
    sampler, steps = EpochBatches(len(records), 8, 7), iter(made.steps)
    for epoch in (0, 1):
        sampler.set_position(epoch)
        for keys in sampler:
            batch, rows = next(steps).batch, []
            for key in keys:
                record = list(records.values())[key.index]
                for place in pairs.choose_pair(epoch, key.index):
                    texts = codec.encode([record["emotions"][place]], [record["explanations"][place]])
                    rows.append(texts.input_ids[0])
            assert batch["input_ids"].tolist() == np.stack(rows).tolist()
            negatives = PairCollator(7, 0, 6).visual_negatives(keys[0], len(keys))
            assert batch["visual_negatives"].tolist() == negatives.tolist()
            distributions = [list(records.values())[key.index]["origin_emotion_distribution"] for key in keys]
            assert torch.allclose(batch["emotion_distribution"], torch.tensor(distributions))
            assert batch["vad"].any() and np.array_equal(batch["vad"], vad.for_texts(batch["input_ids"].numpy()))


def test_initial_weights_follow_the_seed(run):
    def weights(seed: str, repeat: bool) -> list[torch.Tensor]:
        made = run("--seed", seed, "--learning_rate", "0", "--emo_en_LR", "0", repeat=repeat)
        return [p.detach() for p in made.model.parameters() if p.numel() > 1 and p.detach().std() > 0]

    one, again, other = weights("1", False), weights("1", True), weights("2", False)
    assert all(torch.equal(*pair) for pair in zip(one, again, strict=True))
    assert len(one) > 30 and not any(torch.equal(*pair) for pair in zip(one, other, strict=True))


# ---- accumulated, logged and skipped updates -------------------------------------------------------------------------

# negatives come from a batch's own images; everything else is a sum over the window
COMPARABLE = ("--no-use_cl_loss", "--use_emotion_loss", "--dropout", "0", "--num_train_epochs", "1", "--log_steps", "1")


def gradients(monkeypatch, workspace, out, *more):
    """The gradients of every update of one epoch."""
    seen, step = [], torch.optim.AdamW.step

    def record(optimizer, closure=None):
        seen.append([p.grad.clone() for group in optimizer.param_groups for p in group["params"] if p.grad is not None])
        step(optimizer, closure)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", record)
        assert artEmisX_train.main(workspace.argv(out, *COMPARABLE, *flags_of(dict.fromkeys(RATES, 0)), *more)) == 0
    return seen


@pytest.mark.parametrize("batch, steps", [("4", "2"), ("2", "4")])
def test_accumulation_is_a_larger_batch(workspace, tmp_path, monkeypatch, batch, steps):
    """45 images in updates of 8, the last of 5: the same gradients and losses, however they are dealt out."""
    more = ("--fixed_encoder", "False")
    large = gradients(monkeypatch, workspace, tmp_path / "large", *more)
    small = gradients(
        monkeypatch, workspace, tmp_path / "small", *more, "--batch_size", batch, "--gradient_accumulation_steps", steps
    )
    assert len(large) == len(small) == 6
    for small_gradients, large_gradients in zip(small, large, strict=True):
        largest = max(gradient.abs().max() for gradient in large_gradients)
        for left, right in zip(small_gradients, large_gradients, strict=True):
            torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-6 * float(largest))
    logged = [[list(line.values())[2:] for line in logged_losses(tmp_path / name)] for name in ("small", "large")]
    assert logged[0] == [pytest.approx(line, rel=1e-5) for line in logged[1]]


def test_logged_loss_is_the_weighted_sum_of_its_terms(workspace, tmp_path):
    weights = {"alpha": 0.5, "cl_Loss_weight": 2.0, "VAD_Loss_weight": 3.0, "emotion_loss_weight": 0.25}
    flags = [text for name, value in weights.items() for text in (f"--{name}", str(value))]
    assert artEmisX_train.main(workspace.argv(tmp_path, *flags, "--use_emotion_loss", "--num_train_epochs", "1")) == 0
    lines = [json.loads(line) for line in (tmp_path / "results" / "log.jsonl").read_text().splitlines()]
    assert {name: lines[0]["start"]["flags"][name] for name in weights} == weights
    line = lines[1]["losses"]
    terms = [line[name] for name in ("lm_loss", "contrastive_loss", "vad_loss", "emotion_loss")]
    assert line["loss"] == pytest.approx(sum(w * t for w, t in zip(weights.values(), terms, strict=True)), rel=1e-5)


def test_skipped_update_under_a_loss_scaler(workspace, tmp_path, monkeypatch, capsys, break_vad_loss):
    """With fp16's scaler, set by hand, as accelerate makes none on a CPU, the update after a skipped one is made."""
    build, runs = artEmisX_train.build_training, []

    def with_scaler(run, signals):
        build(run, signals)
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=1000)
        run.accelerator.scaler = run.optimizer.scaler = scaler
        run.accelerator.native_amp = True
        run.accelerator.state._mixed_precision = "fp16"
        run.optimizer._accelerate_step_called = False
        run.optimizer._optimizer_original_step_method = run.optimizer.optimizer.step
        run.optimizer._optimizer_patched_step_method = patch_optimizer_step(run.optimizer, run.optimizer.optimizer.step)
        runs.append(run)

    monkeypatch.setattr(artEmisX_train, "build_training", with_scaler)
    break_vad_loss(2)
    flags = ("--nan_policy", "skip", "--num_train_epochs", "1", "--gradient_accumulation_steps", "1")
    assert artEmisX_train.main(workspace.argv(tmp_path, *flags)) == 0
    assert "vad_loss is not finite at epoch 0, step 2" in capsys.readouterr().out
    (run,) = runs
    assert run.scheduler.last_epoch == run.progress.updates == 6
    assert run.accelerator.scaler.get_scale() == 128.0  # reduced once, for the skipped update
    assert {int(state["step"]) for state in run.optimizer.state.values()} == {5}


def test_skipped_window_of_an_accumulation(run, break_vad_loss):
    """A loss that is not finite in one batch skips its window's update, and nothing of it reaches the next."""
    break_vad_loss(2)
    made = run("--nan_policy", "skip", "--gradient_accumulation_steps", "2", repeat=True)
    assert {int(state["step"]) for state in made.optimizer.state.values()} == {2}
    assert all(torch.isfinite(parameter).all() for parameter in made.model.parameters())
