"""Every update of a training: its rates, gradients, modes and batches; clipped, accumulated and skipped updates."""

from types import SimpleNamespace

import pytest
import torch
from accelerate.optimizer import patch_optimizer_step
from transformers import CLIPVisionConfig, CLIPVisionModel, GPT2Config, GPT2LMHeadModel

import artEmisX_train
from tests.conftest import TINY_GPT2, TINY_VIT
from tests.test_training.recording import Recording, recording
from utils.constants import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from utils.data.datasets import EpochBatches, PairCollator, TrainingPairs
from utils.data.records import TrainingRecords, read_records
from utils.data.text_codec import TextCodec, load_tokenizer
from utils.data.vad_lexicon import VADLookup, read_lexicon
from utils.training.optimizer import UpdateCheck

pytestmark = pytest.mark.slow

RATES = {"emo_en_LR": 3e-3, "learning_rate": 1e-3, "en_LR": 2e-3}


def flags_of(values: dict[str, float]) -> list[str]:
    return [text for name, value in values.items() for text in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def made_before() -> dict[tuple[str, ...], Recording]:
    """Recordings by flags: each combination is run once."""
    return {}


@pytest.fixture
def run(workspace, tmp_path, monkeypatch, made_before):
    """Train without any evaluation, one epoch unless a flag says otherwise: 45 images in 6 steps. Returns the recording."""
    monkeypatch.setattr(artEmisX_train, "evaluate", lambda run: None)

    def train(*flags: str) -> Recording:
        if flags not in made_before:
            out = tmp_path / str(len(list(tmp_path.iterdir())))
            with recording(monkeypatch) as made:
                assert artEmisX_train.main(workspace.argv(out, "--num_train_epochs", "1", *flags)) == 0
            made_before[flags] = made
        return made_before[flags]

    return train


# ---- rates and gradients ---------------------------------------------------------------------------------------------


def test_parameter_groups_and_their_rates(run):
    """VAD encoder, decoder with emotion head, image encoder; of each the weights, then the biases; every one once. Rates
    fall linearly to zero. With 4 steps an update the last update of an epoch has 2; each starts from no gradient."""
    windows = ("--gradient_accumulation_steps", "4", "--num_train_epochs", "3")
    made = run("--no-fixed_encoder", "--use_emotion_loss", *flags_of(RATES), "--adam_eps", "3e-5", *windows)
    assert len(made.steps) == 18 and len(made.updates) == 6
    assert [step.without_gradients for step in made.steps] == [step % 6 in (0, 4) for step in range(18)]
    for group, rate in enumerate(RATES.values()):
        for number in (2 * group, 2 * group + 1):
            assert made.rates(number) == pytest.approx([rate * (1 - k / 6) for k in range(6)], rel=1e-9)
    assert type(made.optimizer) is torch.optim.AdamW
    for group in made.optimizer.param_groups:
        assert group["betas"] == (0.9, 0.999) and group["eps"] == 3e-5 and group["weight_decay"] == 0
    name_of = {parameter: name for name, parameter in made.model.named_parameters()}
    groups = [[name_of[parameter] for parameter in group["params"]] for group in made.optimizer.param_groups]
    parts = [{name.partition(".")[0] for name in group} for group in groups]
    assert parts == [{"vad_encoder"}] * 2 + [{"decoder", "emotion_head"}] * 2 + [{"image_encoder"}] * 2
    assert [{name.endswith("bias") for name in group} for group in groups] == [{False}, {True}] * 3
    names = [name for group in groups for name in group]
    unused = {"vad_encoder.decoder.weight", "vad_encoder.decoder.bias"}  # the authors' scorer that nothing reads
    assert len(names) == len(set(names)) and set(name_of.values()) - set(names) == unused
    made = run()
    fixed = set(made.model.image_encoder.parameters())
    assert not any(p in fixed for group in made.optimizer.param_groups for p in group["params"])


def test_clipping(run):
    """The gradients of a whole window are scaled down to the given norm, and only if theirs is larger."""
    frozen = ("--learning_rate", "0", "--emo_en_LR", "0", "--gradient_accumulation_steps", "2")
    free = [update.norm for update in run(*frozen).updates]
    limit = sorted(free)[1]
    assert len(free) == 3 and max(free) > 1.001 * limit > 1.002 * min(free)
    clipped = run(*frozen, "--max_grad_norm", str(limit))
    assert [update.norm for update in clipped.updates] == pytest.approx([min(norm, limit) for norm in free], rel=1e-4)


def test_a_skipped_window(run, break_vad_loss, monkeypatch, capsys):
    """--nan_policy skip: of three windows of two batches the second is skipped, and nothing of it reaches the third; the
    schedule advances. As on a GPU, where an update is checked after the next one, this is said once."""
    break_vad_loss(2)
    monkeypatch.setattr(artEmisX_train, "reads_later", lambda device: True)
    made = run("--nan_policy", "skip", "--gradient_accumulation_steps", "2", "--emo_en_LR", "6e-3")
    assert capsys.readouterr().out.count("\nvad_loss is not finite at epoch 0, step 2, images ") == 1
    assert len(made.steps) == 6 and made.rates(0) == pytest.approx([6e-3, 2e-3])
    assert {int(state["step"]) for state in made.optimizer.state.values()} == {2}
    assert all(torch.isfinite(parameter).all() for parameter in made.model.parameters())


def test_an_infinite_gradient_of_finite_losses_is_skipped(run, monkeypatch, capsys):
    accumulate_gradients = artEmisX_train.accumulate_gradients

    def accumulate(run, window):
        losses = accumulate_gradients(run, window)
        if run.progress.step == 3:
            run.parameters[-1].grad.view(-1)[0] = torch.inf
        return losses

    monkeypatch.setattr(artEmisX_train, "accumulate_gradients", accumulate)
    made = run("--nan_policy", "skip", "--max_grad_norm", "1", "--emo_en_LR", "6e-3")
    assert "\na gradient is not finite at epoch 0, step 3, images [" in capsys.readouterr().out
    assert made.rates(0) == pytest.approx([6e-3, 5e-3, 4e-3, 2e-3, 1e-3])
    assert all(torch.isfinite(parameter).all() for parameter in made.model.parameters())


def test_an_update_is_skipped_if_any_process_finds_it_not_finite():
    """Here the other process finds that the VAD loss is not; its images are unknown to this one."""
    others = torch.tensor([False, True, False])
    accelerator = SimpleNamespace(num_processes=2, reduce=lambda flags, how: (flags + others.float()) / 2)
    losses = {"loss": torch.tensor(3.0), "lm_loss": torch.tensor(1.0), "vad_loss": torch.tensor(2.0)}
    check = UpdateCheck.of(torch.tensor(True), losses, (1, 5), torch.tensor([7, 8]), accelerator)
    assert not check.finite
    where = "epoch 1, step 5, images [7, 8] of process 0, or those of the other processes"
    assert check.problem() == f"vad_loss is not finite at {where}"


def test_a_skipped_update_under_a_loss_scaler(run, monkeypatch, capsys, break_vad_loss):
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
    run("--nan_policy", "skip")
    assert "vad_loss is not finite at epoch 0, step 2" in capsys.readouterr().out
    (scaled,) = runs
    assert scaled.scheduler.last_epoch == scaled.progress.updates == 6
    assert scaled.accelerator.scaler.get_scale() == 128.0  # reduced once, for the skipped update
    assert {int(state["step"]) for state in scaled.optimizer.state.values()} == {5}


# ---- modes and flags -------------------------------------------------------------------------------------------------


def test_loaded_parts_are_trained_in_training_mode(workspace, tmp_path, monkeypatch):
    """from_pretrained leaves them in evaluation mode, and so do evaluations."""
    GPT2LMHeadModel(GPT2Config(**TINY_GPT2)).save_pretrained(tmp_path / "gpt2")
    CLIPVisionModel(CLIPVisionConfig(**TINY_VIT)).save_pretrained(tmp_path / "vit")
    loaded = ("--gpt2_model", str(tmp_path / "gpt2"), "--clip_model", str(tmp_path / "vit"), "--no-from_scratch")
    more = ("--no-fixed_encoder", "--eval_steps", "4", "--num_train_epochs", "1")
    with recording(monkeypatch) as made:
        artEmisX_train.main(workspace.argv(tmp_path, *loaded, *more))
    assert [step.training for step in made.steps] == [True] * 6


def test_flags_of_model_and_losses(run, workspace):
    weights = {"alpha": 0.5, "cl_Loss_weight": 2.0, "VAD_Loss_weight": 3.0}
    weights |= {"emotion_loss_weight": 0.25, "label_loss_weight": 4.0}
    made = run(
        *("--VAD_En_Layers", "2", "--VAD_En_Heads", "3", "--vad_causal", "--dropout", "0.25", "--masked_pooling"),
        *("--len_prefix", "2", "--max_seq_len", "24", "--prompt_text", " it feels like"),
        *("--use_emotion_loss", "--use_label_loss", "--image_normalization", "own", *flags_of(weights)),
    )
    model, batch = made.model, made.steps[0].batch
    settings = {"vad_layers": 2, "vad_heads": 3, "vad_causal": True, "masked_pooling": True, "len_prefix": 2}
    assert {name: getattr(model.config, name) for name in settings | weights} == settings | weights
    gpt2 = model.decoder.config
    assert (gpt2.embd_pdrop, gpt2.attn_pdrop, gpt2.resid_pdrop) == (0.25, 0.25, 0.25)
    tokenizer = load_tokenizer(str(workspace.root / "decoder"))
    assert batch["input_ids"].shape == batch["segment_ids"].shape == (16, 24) and batch["vad"].shape == (16, 24, 3)
    prompt = tokenizer(" it feels like")["input_ids"]
    start = [tokenizer.convert_tokens_to_ids("<prefix>")] * 2 + [tokenizer.eos_token_id, *prompt]
    assert all(row[: len(start)] == start for row in batch["input_ids"].tolist())
    assert len(start) - 1 not in batch["lm_positions"] % 24  # the emotion is learnt by the label loss
    assert batch["counts"].vad_positions == batch["vad"][:, model.config.fusion_start :].ne(0).any(dim=-1).sum()

    terms = {"lm_loss", "contrastive_loss", "vad_loss", "emotion_loss", "label_loss"}
    assert made.steps[0].output.keys() == terms | {"loss"}

    # the same images as by default, normalised by CLIP's statistics instead of ImageNet's
    by_clip, by_imagenet = (torch.cat([step.batch["pixels"] for step in steps]) for steps in (made.steps, run().steps))
    images = by_imagenet * channels(IMAGENET_STD) + channels(IMAGENET_MEAN)
    assert torch.allclose(by_clip * channels(CLIP_STD) + channels(CLIP_MEAN), images, atol=1e-5)


def channels(statistics: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(statistics).view(3, 1, 1)


# ---- what follows from the seed --------------------------------------------------------------------------------------

OF_SEED_7 = ("--seed", "7", "--num_train_epochs", "2", "--first_text", "last")


def test_batches_are_those_of_seed_and_epoch(run, workspace):
    """Images, texts and negatives of both epochs, made again from the seed alone."""
    records = TrainingRecords.from_records(read_records(workspace.data / "artEmisX_cl_train.json"))
    codec = TextCodec(load_tokenizer(str(workspace.root / "decoder")), " the emotion is", 30)
    vad = VADLookup(read_lexicon(workspace.data / "demo-VAD-Lexicon.txt"), "simplemma", codec)
    no_images = SimpleNamespace(load=lambda names: [{}])
    pairs = TrainingPairs(records, no_images, codec, vad, 7, "last")
    sampler, steps, collate = EpochBatches(len(records), 8, 7), iter(run(*OF_SEED_7).steps), PairCollator(7, 0, 6)
    for epoch in (0, 1):
        sampler.set_position(epoch)
        for keys in sampler:
            batch, expected = next(steps).batch, collate([pairs[key] for key in keys])
            assert batch["vad"].any()
            for name in ("input_ids", "lm_targets", "vad", "emotion_distribution", "visual_negatives"):
                assert torch.equal(batch[name], expected[name]), name


def test_initial_weights_follow_the_seed(run):
    one, other = run(*OF_SEED_7).initial, run().initial
    drawn = [name for name, weight in one.items() if weight.numel() > 1 and weight.std() > 0]
    assert len(drawn) > 30 and not any(one[name].equal(other[name]) for name in drawn)
