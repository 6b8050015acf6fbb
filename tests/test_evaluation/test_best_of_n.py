"""Best of N samples in --eval_only and utils.explain: chosen by the model or by CLIP; and what is refused."""

import pytest

import artEmisX_train
from utils import explain
from utils.command_line import parse_args
from utils.constants import IMAGE_FOLDERS
from utils.errors import InputError
from utils.evaluation import evaluator
from utils.evaluation.generation import caption_batch, sample_seed
from utils.files import read_json, run_lock


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--rerank clip", "pass both"),
        ("--num_samples 3", "pass both"),
        ("--num_samples 3 --rerank likelihood", "--rerank is for --eval_only"),
    ],
)
def test_refused(flags, message):
    with pytest.raises(InputError, match=message):
        parse_args(flags.split())


@pytest.mark.slow
def test_eval_only(workspace, run, tmp_path, clip, monkeypatch):
    """The report says how captions were chosen; the training that writes the run may be at work."""
    asked, captions = [], []
    monkeypatch.setattr(evaluator, "caption_batch", lambda *given: asked.append(given[-1]) or caption_batch(*given))
    scoring = ["--eval_only", "--load_from_epoch", "best-res", "--ckpt_path", str(run / "ckpts")]
    scoring += ["--num_samples", "3", "--temperature", "0.5", "--top_p", "0.7", "--rerank_model", str(clip)]
    for rerank, by in (("likelihood", "likelihood"), ("clip", f"clip {clip}")):
        with run_lock(run / "ckpts"):
            assert artEmisX_train.main(workspace.argv(tmp_path / rerank, *scoring, "--rerank", rerank)) == 0
        results = tmp_path / rerank / "results"
        decoding = read_json(results / "report.json")["decoding"]
        assert decoding == f"best of 3 samples by {by} (temperature 0.5, top_p 0.7)"
        captions.append(read_json(results / "unf_captions_full_best-res_0_step.json"))
    assert captions[0] != captions[1] and asked[0].scores is None is not asked[-1].scores
    assert {(one.num_samples, one.temperature, one.top_p) for one in asked} == {(3, 0.5, 0.7)}
    first = next(iter(read_json(workspace.data / "artEmisX_val.json")))
    assert asked[0].seeds[0] == sample_seed(42, first.encode())


@pytest.mark.slow
def test_explain(workspace, run, tmp_path, clip):
    """A run's folder and CLIP's are all that it needs."""
    image, out = next((workspace.data / IMAGE_FOLDERS[0]).rglob("*.jpg")), tmp_path / "answers.json"

    def texts(*more: str) -> list[str]:
        argv = [str(image), "--ckpt", str(run / "ckpts"), "--num_samples", "4", "--json", str(out), *more]
        assert explain.main(argv) == 0
        return [one["text"] for one in read_json(out)[0]["explanations"]]

    drawn, (best,) = texts(), texts("--rerank", "clip", "--rerank_model", str(clip))
    assert len(drawn) == 4 and best in drawn
