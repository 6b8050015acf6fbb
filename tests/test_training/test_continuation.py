"""Using, scoring, resuming and continuing a run, with the same and with other flags, files and tokenizers."""

import json
import math
import shutil

import pytest
import torch

import artEmisX_train
from tests.conftest import TINY_VIT
from tests.test_training.conftest import NOT_DEFAULT
from utils.errors import InputError
from utils.training.build_model import load_checkpoint
from utils.training.resume import load_state, state_folders

pytestmark = pytest.mark.slow


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def start_lines(out):
    lines = map(json.loads, (out / "results" / "log.jsonl").read_text().splitlines())
    return [line["start"] for line in lines if "start" in line]


def epoch_of_best(out) -> int:
    return torch.load(out / "ckpts" / "ckpt_stats_best-res.tar", weights_only=True)["epoch"]


def argv(workspace, out, *more, without: tuple[str, ...] = ()):
    """The command line of the run `finished`, in `out`, without some of its flags."""
    kept, skip = [], False
    for word in workspace.argv(out, *NOT_DEFAULT):
        if word.startswith("--"):
            skip = word.removeprefix("--") in without
        if not skip:
            kept.append(word)
    return [*kept, *more]


@pytest.fixture(scope="module")
def other_encoder(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "config.json").write_text(json.dumps(TINY_VIT | {"hidden_act": "gelu"}))
    return str(folder)


# ---- --eval_only -----------------------------------------------------------------------------------------------------


def scoring(workspace, finished, out, *more, without: tuple[str, ...] = ()):
    flags = ("--eval_only", "--load_from_epoch", "best-res", "--ckpt_path", str(finished / "ckpts"), *more)
    return artEmisX_train.main(argv(workspace, out, *flags, without=without))


def test_scoring_takes_the_checkpoints_settings(workspace, finished, tmp_path):
    """With almost no flags: the captions of the training's own evaluation, and the training's seed in the report."""
    left_out = ("clip_model", "from_scratch", "lemmatizer", "seed", "prefix_dim", "dropout")
    scoring(workspace, finished, tmp_path, "--gallery", "2", without=left_out)
    captions = (tmp_path / "results" / "unf_captions_full_best-res_0_step.json").read_bytes()
    epoch = epoch_of_best(finished)
    assert captions == (finished / "results" / f"unf_captions_full_{epoch}_5_step.json").read_bytes()
    report = json.loads((tmp_path / "results" / "report.json").read_text())
    assert (report["seed"], report["lemmatizer"], report["images"]) == (3, "simplemma", 4)
    page = (tmp_path / "results" / "gallery_best-res_0.html").read_text(encoding="utf-8")
    # without an emotion head, too: by the likelihood of the nine names
    assert page.count("<article") == page.count('<th scope="col">the model&#39;s text') == 2


def test_scoring_warns_of_what_a_user_may_change(workspace, finished, tmp_path, capsys):
    """Another lexicon and lemmatiser; the same image encoder from another path is no change."""
    lexicon, encoder = tmp_path / "lexicon.txt", tmp_path / "vit"
    lexicon.write_text("red\t0.9\t0.9\t0.1\n")
    shutil.copytree(workspace.root / "vit", encoder)
    more = ("--lemmatizer", "none", "--vad_lexicon", str(lexicon), "--clip_model", str(encoder))
    assert scoring(workspace, finished, tmp_path, *more) == 0
    printed = capsys.readouterr().out
    assert "--lemmatizer was simplemma in training and is none now" in printed
    assert "--vad_lexicon (lexicon sha256) was" in printed and "--clip_model" not in printed


def test_scoring_refuses_another_model(workspace, finished, tmp_path, other_encoder):
    with pytest.raises(InputError, match="--vad_causal was False in training and is True now"):
        scoring(workspace, finished, tmp_path, "--vad_causal")
    with pytest.raises(
        InputError, match=r"--clip_model \(image encoder sha256\) was .* in training and is .* now; give"
    ):
        scoring(workspace, finished, tmp_path, "--clip_model", other_encoder)


# ---- --resume --------------------------------------------------------------------------------------------------------


def test_resume_refuses_another_training(workspace, copied, other_encoder):
    """By a flag's value, by what a flag stands for, by a file's content."""
    before = sorted(path.name for path in (copied / "ckpts").rglob("*"))
    for flag, value, message in (
        ("learning_rate", "5e-5", "--learning_rate was 0.001 and is 5e-05 now"),
        ("batch_size", "4", r"--batch_size \(images per step\) was 8 and is 4 now"),
        ("clip_model", other_encoder, r"--clip_model \(image encoder sha256\)"),
    ):
        with pytest.raises(InputError, match=f"--resume: {message}"):
            artEmisX_train.main(argv(workspace, copied, "--resume", f"--{flag}", value))
    assert sorted(path.name for path in (copied / "ckpts").rglob("*")) == before


def test_resume_warns_of_what_may_change(workspace, copied, capsys):
    """And is silent on what changes nothing."""
    assert artEmisX_train.main(argv(workspace, copied, "--resume", "--stop_after_evals", "4", "--log_steps", "7")) == 0
    printed = capsys.readouterr().out
    assert "--resume: --stop_after_evals was 10 and is 4 now" in printed and "log_steps" not in printed
    lines = start_lines(copied)
    assert "resumed" not in lines[0] and lines[1]["resumed"] == "00001-00000006"


def test_resume_without_a_state_does_not_start_over(workspace, copied):
    (copied / "ckpts" / "resume").rename(copied / "ckpts" / "resume-1")
    message = r"ckpts: holds checkpoints .best-acc, best-res. and no state .*--load_from_epoch"
    with pytest.raises(InputError, match=message):
        artEmisX_train.main(argv(workspace, copied, "--resume"))


# ---- --load_from_epoch -----------------------------------------------------------------------------------------------

CONTINUE = ("--load_from_epoch", "best-res", "--num_train_epochs")


def test_continuing_renames_the_earlier_states(workspace, copied, capsys):
    """--resume would find the new run's state at once; the old states stay complete; the log is continued."""
    epoch = epoch_of_best(copied) + 1
    old = sorted(folder.name for folder in state_folders(copied / "ckpts"))
    log = (copied / "results" / "log.jsonl").read_text()
    assert artEmisX_train.main(argv(workspace, copied, *CONTINUE, str(epoch + 1))) == 0
    printed = capsys.readouterr().out
    renamed = copied / "ckpts" / "resume-1"
    assert f"the states of the earlier run in this folder are now in {renamed}" in printed
    assert f"continuing at epoch {epoch}" in printed
    assert sorted(path.name for path in renamed.iterdir()) == old
    found, _ = load_state(copied / "ckpts")
    assert found.state["progress"]["epoch"] == epoch
    assert found.settings["flags"]["load_from_epoch"] == "best-res"
    text = (copied / "results" / "log.jsonl").read_text()
    assert text.startswith(log) and len(text) > len(log)
    assert start_lines(copied)[-1]["continued"] == {"from": "best-res", "epoch": epoch}


def test_continuing_takes_the_rates_of_the_flags(workspace, copied, monkeypatch, capsys):
    """The checkpoint's rates, but for those that are given. Groups: VAD encoder, decoder; weights, biases. A run that is
    killed in its first update has a state of its own."""
    seen = []

    def killed(optimizer, closure=None):
        seen.extend((group["lr"], group["eps"]) for group in optimizer.param_groups)
        raise MemoryError("as good as a kill")

    monkeypatch.setattr(torch.optim.AdamW, "step", killed)
    epoch = epoch_of_best(copied) + 1
    more = (*CONTINUE, "4", "--emo_en_LR", "0.5", "--adam_eps", "1e-4")
    with pytest.raises(MemoryError):
        artEmisX_train.main(argv(workspace, copied, *more, without=("learning_rate",)))
    decay = 1 - epoch / 4
    eps = 1e-4 / math.sqrt(1 - 0.999 ** (6 * epoch + 1))  # AdamW continues to count its updates
    expected = [(0.5 * decay, eps)] * 2 + [(1e-3 * decay, eps)] * 2
    assert seen == [pytest.approx(pair) for pair in expected]
    printed = capsys.readouterr().out
    assert "--emo_en_LR was 4e-05 in training and is 0.5 now" in printed
    assert "--learning_rate 0.001, --en_LR 2e-05, --emo_en_LR 0.5" in printed
    found, _ = load_state(copied / "ckpts")
    assert (found.state["progress"]["epoch"], found.state["progress"]["step"]) == (epoch, 0)


def test_continuing_beyond_the_last_epoch(workspace, copied):
    with pytest.raises(InputError, match="give more epochs"):
        artEmisX_train.main(argv(workspace, copied, *CONTINUE, str(epoch_of_best(copied) + 1)))
    assert not list((copied / "ckpts").glob("resume-*"))


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


def test_prompt_of_another_length(workspace, tmp_path):
    """The emotion span follows the prompt, also when the checkpoint is scored: bos, six words, the emotion's two tokens."""
    prompt = ("--prompt_text", " what i feel when looking is", "--num_train_epochs", "1")
    assert artEmisX_train.main(argv(workspace, tmp_path, *prompt)) == 0
    config = json.loads((tmp_path / "ckpts" / "nle_model_best-res" / "config.json").read_text())
    assert config["emotion_span"] == 9
    scoring(workspace, tmp_path, tmp_path / "scored")
    captions = (tmp_path / "scored" / "results" / "unf_captions_full_best-res_0_step.json").read_bytes()
    assert captions == (tmp_path / "results" / "unf_captions_full_0_5_step.json").read_bytes()


# ---- load_checkpoint -------------------------------------------------------------------------------------------------


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
