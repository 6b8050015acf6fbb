"""Best of N samples: the caption is the sample that the model, or CLIP, likes best; and what it is refused with."""

import numpy as np
import pytest
import torch
from PIL import Image

import artEmisX_train
from tests.test_evaluation.test_generation import likely, of_image, plain_log_probabilities, segments_of
from tests.test_evaluation.tiny import VAD_OF, features
from utils import explain
from utils.errors import InputError
from utils.evaluation import evaluator, generation
from utils.evaluation.clip_score import load_clip_scorer
from utils.evaluation.generation import BestOfN, caption_batch, draw_tokens, sample_decode, sample_seed
from utils.files import read_json, run_lock

SEEDS = [11, 12, 13]


def test_log_probability_of_a_sample(model, codec, monkeypatch):
    """The mean over its tokens, the stop token included, whatever temperature and nucleus it was drawn with."""
    prompt, image, steps = codec.prompt(), features(images=2), []
    likely(model, monkeypatch, [codec.eos_id, 262, 379, 290])
    monkeypatch.setattr(generation, "draw_tokens", lambda *given: steps.append(draw_tokens(*given)) or steps[-1])
    drawn = sample_decode(model, image, prompt, VAD_OF, [3, 4], 6, temperature=1.4, top_p=0.7, max_new_tokens=4)
    assert 0 < (drawn.lengths < 4).sum() < 12 and len(set(drawn.log_probabilities.tolist())) > 1
    for row, length in enumerate(drawn.lengths.tolist()):
        tokens, values = [int(step[row]) for step in steps][: length + 1], []
        for place, token in enumerate(tokens):
            segments = segments_of(
                tokens[:place], prompt.segments, prompt.because_id, prompt.emotion_segment, prompt.explanation_segment
            )
            ids = prompt.ids + tokens[:place]
            following = plain_log_probabilities(model, of_image(image, row // 6), ids, segments, VAD_OF)
            values.append(float(following[token]))
        assert float(drawn.log_probabilities[row]) == pytest.approx(np.mean(values), abs=1e-4)


@pytest.mark.slow
def test_the_likeliest_sample_is_the_caption(model, codec):
    best_of, image = BestOfN(SEEDS[:2], 4, temperature=1.3, top_p=0.1), features(images=2)
    captions = [full for full, _ in caption_batch(model, image, codec, VAD_OF, best_of=best_of)]
    drawn = sample_decode(model, image, codec.prompt(), VAD_OF, SEEDS[:2], 4, 1.3, 0.1)
    texts, likely = drawn.texts(codec), drawn.log_probabilities.view(2, 4).argmax(dim=1)
    assert captions == [texts[4 * row + int(place)] for row, place in enumerate(likely)]
    assert any(likely.tolist())


def test_scores_choose_by_image_and_emotion(model, codec):
    """Images of one emotion are drawn together; their seeds, scores and captions stay theirs."""
    asked = []

    def scores(rows, texts):
        asked.append((rows, [len(group) for group in texts]))
        return torch.tensor([[float(place == row) for place in range(3)] for row in rows])

    emotions, best_of = ["awe", "fear", "awe"], BestOfN(SEEDS, 3, top_p=0.1, scores=scores)
    chosen = caption_batch(model, features(), codec, VAD_OF, emotions=emotions, best_of=best_of)
    assert asked == [([0, 2], [3, 3]), ([1], [3])]
    for row, emotion in enumerate(emotions):
        limit, one = 25 - len(codec.given(emotion)), of_image(features(), row)
        drawn = sample_decode(
            model, one, codec.prompt(emotion), VAD_OF, [SEEDS[row]], 3, top_p=0.1, max_new_tokens=limit
        )
        assert chosen[row][0] == drawn.texts(codec, given=codec.given(emotion))[row]


def test_clip_prefers_the_text_nearest_to_the_image(clip, noise):
    scorer, names = load_clip_scorer(str(clip), noise), ("style/1.png", "style/2.png")
    texts = [["a dark sea", "birds", "the sky"], ["birds", "nothing", "a dark sea"]]
    found = scorer.similarities([scorer.open(name) for name in names], texts)
    assert found.shape == (2, 3) and found[0, 1] != found[1, 0]
    for row, name in enumerate(names):
        for place, text in enumerate(texts[row]):
            plain = scorer.scores({1: text}, {1: ["x"]}, {1: name})["CLIPScore"][1]
            assert max(2.5 * float(found[row, place]), 0) == pytest.approx(plain, abs=1e-5)


def test_refused(workspace, tmp_path):
    for flags, message in (
        (["--rerank", "clip"], "pass both"),
        (["--num_samples", "3"], "pass both"),
        (["--num_samples", "3", "--rerank", "likelihood"], "--rerank is for --eval_only"),
        (
            "--eval_only --load_from_epoch best-res --num_samples 3 --rerank clip --num_beams 2".split(),
            "give one of them",
        ),
        (["--num_samples", "1", "--rerank", "clip"], "1 is not between 2 and 1000"),
    ):
        with pytest.raises(InputError, match=message):
            artEmisX_train.main(workspace.argv(tmp_path, *flags))


@pytest.mark.slow
def test_eval_only_and_explain(workspace, run, tmp_path, clip, monkeypatch):
    """The report says how captions were chosen; a run's folder and CLIP's are all that explain needs."""
    asked = []
    monkeypatch.setattr(evaluator, "caption_batch", lambda *given: asked.append(given[-1]) or caption_batch(*given))
    scoring = ["--eval_only", "--load_from_epoch", "best-res", "--ckpt_path", str(run / "ckpts")]
    scoring += ["--num_samples", "3", "--temperature", "0.5", "--top_p", "0.7"]
    reports, captions = {}, []
    for rerank in ("likelihood", "clip"):
        out = ["--rerank", rerank, "--rerank_model", str(clip), "--caption_save_path", str(tmp_path / rerank)]
        with run_lock(run / "ckpts"):  # the training that writes it may be at work
            assert artEmisX_train.main(workspace.argv(tmp_path, *scoring, *out)) == 0
        reports[rerank] = read_json(tmp_path / rerank / "report.json")
        rows = read_json(tmp_path / rerank / "unf_captions_full_best-res_0_step.json")
        captions.append([row["caption"] for row in rows])
    for rerank, by in (("likelihood", "likelihood"), ("clip", f"clip {clip}")):
        assert reports[rerank]["decoding"] == f"best of 3 samples by {by} (temperature 0.5, top_p 0.7)"
    assert captions[0] != captions[1]
    assert {(one.num_samples, one.temperature, one.top_p) for one in asked} == {(3, 0.5, 0.7)}
    first = next(iter(read_json(workspace.data / "artEmisX_val.json")))
    assert asked[0].seeds[0] == sample_seed(42, first.encode()) and asked[0].scores is None is not asked[-1].scores
    Image.new("RGB", (50, 40), (200, 30, 60)).save(tmp_path / "red.png")
    out = tmp_path / "answers.json"
    argv = [str(tmp_path / "red.png"), "--ckpt", str(run / "ckpts"), "--num_samples", "4", "--json", str(out)]
    assert explain.main(argv) == 0
    drawn = [one["text"] for one in read_json(out)[0]["explanations"]]
    for flags in (["--rerank", "likelihood"], ["--rerank", "clip", "--rerank_model", str(clip)]):
        assert explain.main([*argv, *flags]) == 0
        (best,) = read_json(out)[0]["explanations"]
        assert len(drawn) == 4 and best["text"] in drawn
