"""Using, scoring, resuming and continuing a run, with the same and with other flags, files and tokenizers."""

import json
import math
import shutil

import pytest
import torch

import artEmisX_train
from tests.conftest import TINY_VIT, without
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


def argv(workspace, out, *more):
    """The command line of the run `finished`, in `out`."""
    return [*workspace.argv(out, *NOT_DEFAULT), *more]


@pytest.fixture
def other(tmp_path) -> dict[str, str]:
    """Another image encoder and another lexicon than the training's, by their flags."""
    (tmp_path / "config.json").write_text(json.dumps(TINY_VIT | {"hidden_act": "gelu"}))
    (tmp_path / "lexicon.txt").write_text("red\t0.9\t0.9\t0.1\n")
    return {"--clip_model": str(tmp_path), "--vad_lexicon": str(tmp_path / "lexicon.txt")}


def test_scoring_takes_the_checkpoints_settings(workspace, finished, tmp_path):
    """With almost no flags: the captions of the training's own evaluation, and the training's seed in the report."""
    flags = ("--eval_only", "--load_from_epoch", "best-res", "--ckpt_path", str(finished / "ckpts"), "--gallery", "2")
    left_out = ("clip_model", "from_scratch", "lemmatizer", "seed", "prefix_dim", "dropout")
    assert artEmisX_train.main([*without(argv(workspace, tmp_path), *left_out), *flags]) == 0
    captions = (tmp_path / "results" / "unf_captions_full_best-res_0_step.json").read_bytes()
    epoch = epoch_of_best(finished)
    assert captions == (finished / "results" / f"unf_captions_full_{epoch}_5_step.json").read_bytes()
    report = json.loads((tmp_path / "results" / "report.json").read_text())
    assert (report["seed"], report["lemmatizer"], report["images"]) == (3, "simplemma", 4)
    page = (tmp_path / "results" / "gallery_best-res_0.html").read_text(encoding="utf-8")
    # without an emotion head, too: by the likelihood of the nine names
    assert page.count("<article") == page.count('<th scope="col">the model&#39;s text') == 2


def test_another_lexicon_is_named_and_another_encoder_refused(workspace, copied, other, capsys):
    """Also where the training's lexicon has gone. The same image encoder from another path is no change."""
    config = copied / "ckpts" / "nle_model_best-acc" / "config.json"
    fields = json.loads(config.read_text())
    fields["sevlm_settings"]["flags"]["vad_lexicon"] = "gone.txt"
    config.write_text(json.dumps(fields))
    (config.parent / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"gone.txt does not exist\); name the file with --vad_lexicon"):
        load_checkpoint(copied / "ckpts", "best-acc")
    encoder = shutil.copytree(workspace.root / "vit", copied / "vit")
    given = {"--vad_lexicon": other["--vad_lexicon"], "--lemmatizer": "none", "--clip_model": str(encoder)}
    load_checkpoint(copied / "ckpts", "best-acc", [word for pair in given.items() for word in pair])
    printed = capsys.readouterr().out
    assert "--lemmatizer was simplemma in training and is none now" in printed
    assert "--vad_lexicon (lexicon sha256) was" in printed and "--clip_model" not in printed
    message = r"--clip_model \(image encoder sha256\) was .* in training and is .* now; give"
    with pytest.raises(InputError, match=message):
        load_checkpoint(copied / "ckpts", "best-acc", [word for pair in other.items() for word in pair])


def test_resume_refuses_another_training(workspace, copied, other):
    """By a flag's value, by what a flag stands for, by a file's content. Nothing is written."""
    before = sorted(path.name for path in (copied / "ckpts").rglob("*"))
    changed = other | {"--learning_rate": "5e-5", "--batch_size": "4"}
    for flag, found in {
        "--learning_rate": "was 0.001 and is 5e-05 now",
        "--batch_size": r"\(images per step\) was 8 and is 4 now",
        "--clip_model": r"\(image encoder sha256\)",
        "--vad_lexicon": r"\(lexicon sha256\)",
    }.items():
        with pytest.raises(InputError, match=f"--resume: {flag} {found}"):
            artEmisX_train.main(argv(workspace, copied, "--resume", flag, changed[flag]))
    assert sorted(path.name for path in (copied / "ckpts").rglob("*")) == before


def test_resume_names_a_damaged_state_and_what_has_changed(workspace, finished, copied, capsys):
    """And is silent on what changes nothing. From the state before, it ends as the run whose states are whole."""
    newest, older = state_folders(copied / "ckpts")
    (newest / "state.pt").write_bytes((newest / "state.pt").read_bytes()[:-100])
    assert artEmisX_train.main(argv(workspace, copied, "--resume", "--stop_after_evals", "4", "--log_steps", "7")) == 0
    printed = capsys.readouterr().out
    assert f"{newest}: truncated or modified" in printed and "resumed at epoch 0, step 6" in printed
    assert "--resume: --stop_after_evals was 10 and is 4 now" in printed and "log_steps" not in printed
    lines = start_lines(copied)
    assert "resumed" not in lines[0] and lines[1]["resumed"] == older.name == "00000-00000006"
    made_again, whole = (load_state(out / "ckpts")[0].state for out in (copied, finished))
    assert all(torch.equal(made_again["model"][name], tensor) for name, tensor in whole["model"].items())
    assert made_again["progress"] == whole["progress"]


CONTINUE = ("--load_from_epoch", "best-res", "--num_train_epochs")


def test_continuing_renames_the_earlier_states(workspace, copied, capsys):
    """--resume would find the new run's state at once; the old states stay complete; the log is continued. Beyond the last
    epoch nothing is renamed."""
    epoch = epoch_of_best(copied) + 1
    with pytest.raises(InputError, match="give more epochs"):
        artEmisX_train.main(argv(workspace, copied, *CONTINUE, str(epoch)))
    assert not list((copied / "ckpts").glob("resume-*"))
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
        artEmisX_train.main([*without(argv(workspace, copied), "learning_rate"), *more])
    decay = 1 - epoch / 4
    eps = 1e-4 / math.sqrt(1 - 0.999 ** (6 * epoch + 1))  # AdamW continues to count its updates
    expected = [(0.5 * decay, eps)] * 2 + [(1e-3 * decay, eps)] * 2
    assert seen == [pytest.approx(pair) for pair in expected]
    printed = capsys.readouterr().out
    assert "--emo_en_LR was 4e-05 in training and is 0.5 now" in printed
    assert "--learning_rate 0.001, --en_LR 2e-05, --emo_en_LR 0.5" in printed
    found, _ = load_state(copied / "ckpts")
    assert (found.state["progress"]["epoch"], found.state["progress"]["step"]) == (epoch, 0)
