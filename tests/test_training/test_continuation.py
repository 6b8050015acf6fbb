"""Using, scoring, resuming and continuing a run, with the same and with other flags, files and tokenizers."""

import json
import math
import shutil

import pytest
import torch

import artEmisX_train
from models.image_encoder import ImageFeatures
from tests.conftest import TINY_VIT
from utils.constants import IMAGE_FOLDERS
from utils.data.records import read_records
from utils.errors import InputError
from utils.evaluation.generation import caption_batch
from utils.training.build_model import load_checkpoint
from utils.training.resume import load_state, state_folders

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(workspace, tmp_path_factory):
    """Two epochs with settings that are not the defaults."""
    out = tmp_path_factory.mktemp("finished")
    assert artEmisX_train.main(workspace.argv(out, "--dropout", "0.2", "--seed", "3")) == 0
    return out


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def start_lines(out):
    lines = map(json.loads, (out / "results" / "log.jsonl").read_text().splitlines())
    return [line["start"] for line in lines if "start" in line]


def argv(workspace, out, *more):
    return workspace.argv(out, "--dropout", "0.2", "--seed", "3", *more)


def without(flags: list[str], *names: str) -> list[str]:
    """A command line without some flags and their values."""
    rest, skip = [], False
    for word in flags:
        if word.startswith("--"):
            skip = word.removeprefix("--") in names
        if not skip:
            rest.append(word)
    return rest


# ---- --eval_only -----------------------------------------------------------------------------------------------------

SCORING = ("--eval_only", "--load_from_epoch", "best-res")


def captions(out):
    return (out / "results" / "unf_captions_full_best-res_0_step.json").read_bytes()


def test_scoring_takes_the_checkpoints_settings(workspace, finished, tmp_path, capsys):
    """With almost no flags: the captions of the training's own evaluation, and the training's seed in the report."""
    flags = without(
        argv(workspace, tmp_path, *SCORING), "clip_model", "from_scratch", "lemmatizer", "seed", "prefix_dim"
    )
    assert artEmisX_train.main([*flags, "--ckpt_path", str(finished / "ckpts")]) == 0
    epoch = torch.load(finished / "ckpts" / "ckpt_stats_best-res.tar", weights_only=True)["epoch"]
    assert captions(tmp_path) == (finished / "results" / f"unf_captions_full_{epoch}_5_step.json").read_bytes()
    report = json.loads((tmp_path / "results" / "report.json").read_text())
    assert (report["seed"], report["lemmatizer"], report["images"]) == (3, "simplemma", 4)


@pytest.mark.parametrize(
    "more, message",
    [
        (("--prompt_text", " i feel"), "--prompt_text was  the emotion is in training and is  i feel now"),
        (("--max_seq_len", "20"), "--max_seq_len was 30 in training and is 20 now"),
        (("--image_normalization", "own"), "--image_normalization was imagenet in training and is own now"),
        (("--no-use_VAD",), "--use_VAD was True in training and is False now"),
        (("--vad_causal",), "--vad_causal was False in training and is True now"),
    ],
)
def test_scoring_refuses_another_model(workspace, finished, tmp_path, more, message):
    with pytest.raises(InputError, match=message):
        artEmisX_train.main(argv(workspace, tmp_path, *SCORING, "--ckpt_path", str(finished / "ckpts"), *more))


def test_scoring_warns_of_what_a_user_may_change(workspace, finished, tmp_path, capsys):
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("red\t0.9\t0.9\t0.1\n")
    more = ("--ckpt_path", str(finished / "ckpts"), "--lemmatizer", "none", "--vad_lexicon", str(lexicon))
    assert artEmisX_train.main(argv(workspace, tmp_path, *SCORING, *more)) == 0
    printed = capsys.readouterr().out
    assert "--lemmatizer was simplemma in training and is none now" in printed
    assert "--vad_lexicon (lexicon sha256) was" in printed


def test_image_encoders_are_compared_by_their_content(workspace, finished, tmp_path):
    """Another path to the same encoder passes; other weights or another activation do not."""
    same, other = tmp_path / "same", tmp_path / "other"
    shutil.copytree(workspace.root / "vit", same)
    other.mkdir()
    (other / "config.json").write_text(json.dumps(TINY_VIT | {"hidden_act": "gelu"}))
    flags = argv(workspace, tmp_path, *SCORING, "--ckpt_path", str(finished / "ckpts"))
    assert artEmisX_train.main([*flags, "--clip_model", str(same)]) == 0
    with pytest.raises(
        InputError,
        match=r"--clip_model \(image encoder sha256\) was .* in training and is .* now; give what the model was trained",
    ):
        artEmisX_train.main([*flags, "--clip_model", str(other)])


# ---- --resume --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more, message",
    [
        (("--learning_rate", "5e-5"), "--learning_rate was 0.001 and is 5e-05 now"),
        (("--gradient_accumulation_steps", "2"), "--gradient_accumulation_steps was 1 and is 2 now"),
        (("--batch_size", "4"), r"--batch_size \(images per step\) was 8 and is 4 now"),
        (("--lemmatizer", "none"), "--lemmatizer was simplemma and is none now"),
        (("--num_train_epochs", "3"), "--num_train_epochs was 2 and is 3 now.*--load_from_epoch"),
        (("--mixed_precision", "bf16"), r"--mixed_precision \(precision\) was no and is bf16 now"),
        (("--metrics", "rouge"), "--metrics was .*bleu.* and is .*rouge"),
    ],
)
def test_resume_refuses_another_training(workspace, copied, more, message):
    before = sorted(path.name for path in (copied / "ckpts").rglob("*"))
    with pytest.raises(InputError, match=f"--resume: {message}"):
        artEmisX_train.main([*argv(workspace, copied), "--resume", *more])
    assert sorted(path.name for path in (copied / "ckpts").rglob("*")) == before


def test_resume_refuses_other_files(workspace, copied, tmp_path):
    (tmp_path / "vit").mkdir()
    (tmp_path / "vit" / "config.json").write_text(json.dumps(TINY_VIT | {"hidden_act": "gelu"}))
    records = json.loads((workspace.data / "artEmisX_cl_train.json").read_text())
    next(iter(records.values()))["explanations"][0] = "something else entirely"
    shutil.copytree(workspace.data, tmp_path / "data", ignore=shutil.ignore_patterns("wikiart_originals"))
    (tmp_path / "data" / "artEmisX_cl_train.json").write_text(json.dumps(records))
    for more, message in (
        (("--clip_model", str(tmp_path / "vit")), r"--clip_model \(image encoder sha256\)"),
        (("--nle_data_train_path", str(tmp_path / "data" / "artEmisX_cl_train.json")), "--nle_data_train_path"),
    ):
        with pytest.raises(InputError, match=f"--resume: {message}"):
            artEmisX_train.main([*argv(workspace, copied), "--resume", *more])


def test_resume_warns_of_what_may_change(workspace, copied, capsys):
    assert artEmisX_train.main([*argv(workspace, copied), "--resume", "--stop_after_evals", "4"]) == 0
    assert "--resume: --stop_after_evals was 10 and is 4 now" in capsys.readouterr().out
    lines = start_lines(copied)
    assert "resumed" not in lines[0] and lines[1]["resumed"] == "00001-00000006"


# ---- --load_from_epoch -----------------------------------------------------------------------------------------------


def test_continuing_renames_the_earlier_states(workspace, copied, capsys):
    """--resume would find the new run's state at once; the old states stay complete; the log is continued."""
    stats = torch.load(copied / "ckpts" / "ckpt_stats_best-res.tar", weights_only=True)
    old = sorted(folder.name for folder in state_folders(copied / "ckpts"))
    log = (copied / "results" / "log.jsonl").read_text()
    flags = without(argv(workspace, copied), "num_train_epochs")
    more = ("--load_from_epoch", "best-res", "--num_train_epochs", str(stats["epoch"] + 2))
    assert artEmisX_train.main([*flags, *more]) == 0
    printed = capsys.readouterr().out
    renamed = copied / "ckpts" / "resume-1"
    assert (
        f"the states of the earlier run in this folder are now in {renamed}" in printed
        and f"continuing at epoch {stats['epoch'] + 1}" in printed
    )
    assert sorted(path.name for path in renamed.iterdir()) == old
    found, _ = load_state(copied / "ckpts")
    assert found.state["progress"]["epoch"] == stats["epoch"] + 1
    assert found.settings["flags"]["load_from_epoch"] == "best-res"
    text = (copied / "results" / "log.jsonl").read_text()
    assert text.startswith(log) and len(text) > len(log)
    assert start_lines(copied)[-1]["continued"] == {"from": "best-res", "epoch": stats["epoch"] + 1}


def test_continuing_killed_before_its_first_step_is_resumed_as_itself(workspace, copied, monkeypatch):
    """Not as the run whose checkpoint it continues."""

    def killed(_run):
        raise MemoryError("as good as a kill")

    monkeypatch.setattr(artEmisX_train, "train", killed)
    flags = without(argv(workspace, copied), "num_train_epochs")
    epoch = torch.load(copied / "ckpts" / "ckpt_stats_best-res.tar", weights_only=True)["epoch"]
    with pytest.raises(MemoryError):
        artEmisX_train.main([*flags, "--load_from_epoch", "best-res", "--num_train_epochs", "5"])
    monkeypatch.undo()
    found, _ = load_state(copied / "ckpts")
    assert (found.state["progress"]["epoch"], found.state["progress"]["step"]) == (epoch + 1, 0)


def rates_of_first_update(monkeypatch, flags):
    """Each group's learning rate and epsilon at the first update."""
    seen = []

    def step(optimizer, closure=None):
        seen.append([(group["lr"], group["eps"]) for group in optimizer.param_groups])
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(KeyboardInterrupt):
        artEmisX_train.main(flags)
    return seen[0]


def test_continuing_takes_the_rates_of_the_flags(workspace, copied, monkeypatch, capsys):
    """The checkpoint's rates, but for those that are given. Groups: VAD encoder, decoder; weights, biases."""
    epoch = torch.load(copied / "ckpts" / "ckpt_stats_best-res.tar", weights_only=True)["epoch"]
    flags = without(argv(workspace, copied), "num_train_epochs", "learning_rate")
    more = ("--load_from_epoch", "best-res", "--num_train_epochs", "4", "--emo_en_LR", "0.5", "--adam_eps", "1e-4")
    found = rates_of_first_update(monkeypatch, [*flags, *more])
    decay = 1 - (epoch + 1) / 4
    eps = 1e-4 / math.sqrt(1 - 0.999 ** (6 * (epoch + 1) + 1))  # AdamW continues to count its updates
    expected = [(0.5 * decay, eps)] * 2 + [(1e-3 * decay, eps)] * 2
    assert found == [pytest.approx(pair) for pair in expected]
    printed = capsys.readouterr().out
    assert "--emo_en_LR was 4e-05 in training and is 0.5 now" in printed
    assert "--learning_rate 0.001, --en_LR 2e-05, --emo_en_LR 0.5" in printed


def test_continuing_beyond_the_last_epoch(workspace, copied):
    flags = without(argv(workspace, copied), "num_train_epochs")
    with pytest.raises(InputError, match="give more epochs"):
        artEmisX_train.main([*flags, "--load_from_epoch", "best-res", "--num_train_epochs", "1"])
    assert not list((copied / "ckpts").glob("resume-*"))


def test_resume_without_a_state_does_not_start_over(workspace, copied):
    """A run that continued a checkpoint and was killed before its first state must not start at epoch 0."""
    (copied / "ckpts" / "resume").rename(copied / "ckpts" / "resume-1")
    with pytest.raises(
        InputError, match=r"ckpts: holds checkpoints .best-acc, best-res. and no state .*--load_from_epoch"
    ):
        artEmisX_train.main([*argv(workspace, copied), "--resume"])


def test_the_tokenizer_of_another_run_is_refused(workspace, copied):
    """This run's checkpoints would be read with the wrong words."""
    path = copied / "ckpts" / "nle_gpt2_tokenizer_0" / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["Ġred"], vocabulary["Ġblue"] = vocabulary["Ġblue"], vocabulary["Ġred"]
    path.write_text(json.dumps(content))
    shutil.rmtree(copied / "ckpts" / "resume")
    with pytest.raises(InputError, match="nle_gpt2_tokenizer_0: is not the tokenizer of --gpt2_model"):
        artEmisX_train.main(argv(workspace, copied))


# ---- load_checkpoint -------------------------------------------------------------------------------------------------


def test_a_loaded_checkpoint_gives_the_captions_of_its_evaluation(workspace, finished):
    loaded = load_checkpoint(finished / "ckpts")
    epoch = torch.load(finished / "ckpts" / "ckpt_stats_best-res.tar", weights_only=True)["epoch"]
    captions = json.loads((finished / "results" / f"unf_captions_full_{epoch}_5_step.json").read_text())
    records = read_records(workspace.data / "artEmisX_val.json")
    folder = workspace.data / IMAGE_FOLDERS[0]
    pixels = loaded.read_images([folder / record["image_name"] for record in records.values()])
    with torch.inference_mode():
        image = loaded.model.image_features(pixels, None, None)
        texts = caption_batch(loaded.model, ImageFeatures(*image), loaded.codec, loaded.vad.for_generated)
    expected = {line["image_id"]: line["caption"] for line in captions}
    assert {int(image_id): full for image_id, (full, _) in zip(records, texts, strict=True)} == expected
    assert not loaded.model.training and loaded.args.seed == 3 and loaded.args.lemmatizer == "simplemma"


def test_a_lexicon_that_does_not_exist_any_more(copied, tmp_path, capsys):
    config = copied / "ckpts" / "nle_model_best-acc" / "config.json"
    fields = json.loads(config.read_text())
    fields["sevlm_settings"]["flags"]["vad_lexicon"] = "gone.txt"
    config.write_text(json.dumps(fields))
    (config.parent / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"gone.txt does not exist\); name the file with --vad_lexicon"):
        load_checkpoint(copied / "ckpts", "best-acc")
    other = tmp_path / "other.txt"
    other.write_text("red\t0.1\t0.1\t0.1\n")
    load_checkpoint(copied / "ckpts", "best-acc", ["--vad_lexicon", str(other)])
    assert "--vad_lexicon (lexicon sha256) was" in capsys.readouterr().out
