"""A page in the browser to ask trained models about images: emotion, explanation, probabilities, where they looked.

python -m utils.app runs/demo
python -m utils.app runs/a runs/b --port 7861
"""

import argparse
import contextlib
import os
import re
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from utils.constants import EMOTIONS
from utils.data.images import find_image
from utils.data.records import Records, read_records
from utils.errors import InputError, OneLineParser, number, run_script
from utils.explain import find_checkpoint, load
from utils.hub import folder_or_id
from utils.runs import images_beside, recorded_flags, recorded_path, results_folder

if TYPE_CHECKING:
    import gradio

    from utils.visualize.answers import Answer
    from utils.visualize.explainer import ImageExplainer
    from utils.visualize.heat_map import WordHeat

GRADIO = 6  # the major version that the page is written for
OWN = "the model's own"
TITLE = "Which emotion does it evoke, and why?"
CSS = """
.answer { overflow-wrap: anywhere; }
.answer .sentence { font-size: 1.2rem; line-height: 1.5; margin: 0 0 .75rem; }
.answer .note { font-size: .9rem; } .answer caption { text-align: left; padding-bottom: .4rem; }
.answer table { border-collapse: collapse; width: 100%; font-size: .9rem; border: 0; }
.answer tr { border: 0; border-top: 1px solid #8884; }
.answer th, .answer td { padding: .2rem .5rem; text-align: left; border: 0; }
.answer th[scope=row] { white-space: nowrap; font-weight: 500; } .answer td.number { text-align: right; width: 2.5rem; }
.answer td.bar span { display: block; min-width: 1px; height: .65rem; border-radius: 2px; background: #c2410c; }
.answer td.bar span.head { background: #1d4ed8; } .answer td.bar span.annotators { background: #71717a; }
footer { display: none !important; }
"""
# gradio's images are buttons without a name; readers of the page by ear need one
HEAD = """<script>
new MutationObserver(() => document.querySelectorAll("button:has(.image-frame):not([aria-label])").forEach(
  (button) => button.setAttribute("aria-label", "image, show it large")
)).observe(document, { childList: true, subtree: true });
</script>"""
BUTTON = "#9a3412"  # dark enough for white letters


def get_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m utils.app",
        description="Open a page in the browser that asks one or two trained models about images. It is served on this "
        "machine only (127.0.0.1) and needs no network.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    runs = "folders of one or two runs, or of their checkpoints; or exported models' folders or Hugging Face ids"
    add("runs", nargs="+", type=folder_or_id, metavar="RUN", help=runs)
    add("--name", help="which checkpoint of a run: best-res (default), best-acc or an epoch")
    add("--vad_lexicon", type=Path, help="VAD lexicon, if the training's is no longer in its place")
    add("--device", help="cpu, cuda, cuda:1, mps, ... (default: an accelerator if there is one)")
    add("--records", type=Path, help="split to choose images from (default: the one that the run was scored on)")
    add("--image_root", type=Path, help="its image folder")
    add(
        "--port",
        type=number(int, 1, 65535),
        default=int(os.environ.get("GRADIO_SERVER_PORT", 7860)),
        help="of the page",
    )
    return parser


def check_gradio() -> None:
    """InputError where gradio is missing or of another major version."""
    remedy = "pip install -r requirements-app.txt"
    try:
        found = version("gradio")
    except PackageNotFoundError:
        raise InputError(f"the page needs gradio, which is not installed: {remedy}") from None
    if int(found.split(".")[0]) != GRADIO:
        raise InputError(f"the page needs gradio {GRADIO}, {found} is installed: {remedy}")


def check_port(host: str, port: int) -> None:
    """InputError where another program listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InputError(f"--port {port}: cannot be used ({error.strerror}); give another") from None


# ---- what can be shown -----------------------------------------------------------------------------------------------


@dataclass
class Split:
    """The images to choose from. records: image id -> record. folder: of the images."""

    file: Path
    records: Records
    folder: Path
    by_name: dict[str, dict] = field(init=False)

    def __post_init__(self) -> None:
        self.by_name = {record["image_name"]: record for record in self.records.values()}


def find_split(args: argparse.Namespace) -> Split | None:
    """The split of --records, or the one that the runs were scored on; None where there is none.

    Raises:
        InputError: the runs were scored on different splits, or --records or --image_root is wrong.
    """
    found: dict[Path, tuple[Path, Path | None]] = {}
    for run in args.runs:
        records, images = args.records, args.image_root
        with contextlib.suppress(InputError):  # an exported model has no results
            results = results_folder(run)
            flags = recorded_flags(results)
            records = records or recorded_path(flags, "nle_data_val_path", results)
            images = images or recorded_path(flags, "image_root", results)
        if records is None or not (args.records or records.is_file()):
            continue
        if args.image_root is None and (images is None or not images.is_dir()):
            images = images_beside(records)
        found[records.resolve()] = records, images
    if len(found) > 1:
        raise InputError(
            f"the runs were scored on different splits ({' and '.join(map(str, found))}): name one of them with --records"
        )
    if not found:
        return None
    ((records, images),) = found.values()
    if images is None:
        raise InputError(f"{records}: its images were not found; name their folder with --image_root")
    return Split(records, read_records(records), images)


def gallery_of(run: Path) -> Path | None:
    """The latest gallery page of a run; None where there is none."""
    try:
        pages = list(results_folder(run).glob("gallery_*.html"))
    except InputError:
        return None
    return max(pages, key=lambda page: page.stat().st_mtime, default=None)


@dataclass
class Model:
    """A loaded model, what the page calls it, the latest gallery page of its run, and where the page serves that."""

    title: str
    explain: "ImageExplainer"
    gallery: Path | None
    address: str

    @cached_property
    def cards(self) -> frozenset[str]:
        """The anchors of the images in the gallery."""
        if self.gallery is None:
            return frozenset()
        return frozenset(re.findall(r'<article [^>]*\bid="(\w+)"', self.gallery.read_text(encoding="utf-8")))

    def link(self, image_name: str) -> str | None:
        """The image's card in the gallery; None where it is not there."""
        from utils.visualize.gallery_page import card_id

        anchor = card_id(image_name)
        return f"{self.address}#{anchor}" if anchor in self.cards else None


def answer_html(model: Model, answer: "Answer", record: dict | None) -> str:
    """The answer as HTML: texts, a table of the nine probabilities, and a link to the gallery's card."""
    from utils.visualize.html_page import render

    columns = {"likelihood": "by the likelihood of the names", "head": "by its emotion head"}
    bars = {source: (columns[source], values) for source, values in answer.probabilities.items()}
    if record is not None:
        distribution = dict(zip(EMOTIONS, record["origin_emotion_distribution"], strict=True))
        bars["annotators"] = "the annotators", distribution
    references = [] if record is None else list(zip(record["emotions"], record["explanations"], strict=True))
    return render(
        "answer.html",
        prompt=model.explain.prompt,
        answer=answer,
        emotions=EMOTIONS,
        bars=bars,
        references=references,
        link=None if record is None else model.link(record["image_name"]),
    )


# ---- the page --------------------------------------------------------------------------------------------------------


def word_caption(word: "WordHeat") -> str:
    """The line below a word's heat map, as Markdown: its VAD, and the patch that it attends to most."""
    vad = "not in the VAD lexicon"
    if word.vad is not None:
        names = ("valence", "arousal", "dominance")
        vad = ", ".join(f"{name} {value:+.2f}" for name, value in zip(names, word.vad, strict=True))
    return f"**{word.bare or word.text}**: {vad}. {word.strongest.capitalize()}."


def build_page(models: Sequence[Model], split: Split | None) -> "gradio.Blocks":
    """The page. Everything on it is computed by `ImageExplainer`; a bad image becomes one sentence on the page."""
    import gradio as gr

    track = gr.Progress()

    def refusal(sentence: str) -> gr.Error:
        return gr.Error(sentence, print_exception=False)

    def explain(path: str | None, name: str | None, emotion: str, beams: int, samples: int, progress=track):
        if path is None:
            raise refusal("drop an image, or choose one of the split")
        record = split.by_name.get(name) if split is not None and name else None
        options = {"num_samples": int(samples)} if samples else {"num_beams": int(beams)}
        shown, answers = [], []
        for place, model in enumerate(models):
            progress((place, len(models)), desc=f"asking {model.title}")
            try:
                answer = model.explain(path, None if emotion == OWN else emotion, **options)
            except InputError as error:
                raise refusal(str(error).replace(str(path), Path(path).name)) from None
            answers.append(answer)
            words = [(word.text, number) for number, word in enumerate(answer.words)]
            shown += [answer_html(model, answer, record), gr.Radio(words, value=None, visible=True)]
            shown += [gr.Image(value=None, visible=False), ""]
        return [answers, *shown]

    def look(answers: "list[Answer]", place: int, word: int | None):
        if word is None or not answers:
            return gr.Image(visible=False), ""
        chosen = answers[place].words[word]
        return gr.Image(value=answers[place].heat_image(chosen), visible=True), word_caption(chosen)

    def choose(name: str | None):
        path = find_image(split.folder, name) if name else None
        if name and path is None:
            raise refusal(f"{split.folder}: no image {name}")
        return None if path is None else str(path)

    with gr.Blocks(title="SEVLM", analytics_enabled=False) as page:
        gr.Markdown(
            f"# {TITLE}\nA small emotional vision-language model says which of nine emotions an image evokes, and why."
        )
        with gr.Row():
            with gr.Column(scale=3):
                image = gr.Image(
                    label="Image: drop a file, or click to choose one",
                    type="filepath",
                    image_mode=None,
                    sources=["upload"],
                    height=380,
                )
            with gr.Column(scale=2):
                name = gr.Dropdown(
                    list(split.by_name) if split is not None else [],
                    value=None,
                    label=f"Or one of the {len(split.by_name)} images of {split.file.name}"
                    if split is not None
                    else "",
                    visible=split is not None,
                )
                emotion = gr.Dropdown([OWN, *EMOTIONS], value=OWN, label="Emotion to explain")
                with gr.Accordion("How the text is generated", open=False):
                    beams = gr.Slider(1, 8, value=1, step=1, label="Beams (1: greedy, as in the paper)")
                    samples = gr.Slider(0, 8, value=0, step=1, label="Samples (0: none are drawn)")
                ask = gr.Button("Explain", variant="primary")
        # the file as it is: `open_image` opens it, and has a sentence for each thing that can be wrong with one
        image.preprocess = lambda payload: payload and payload.path
        answers, outputs, chosen = gr.State([]), [], []
        with gr.Row():
            for place, model in enumerate(models):
                with gr.Column(min_width=320):
                    if len(models) > 1:
                        gr.Markdown(f"## {model.title}")
                    html = gr.HTML(elem_classes="answer")
                    words = gr.Radio([], label="Where did it look? Choose a word", visible=False)
                    heat = gr.Image(
                        label="Bright where the model looked when it wrote the word",
                        visible=False,
                        interactive=False,
                        buttons=["download"],
                        height=420,
                    )
                    caption = gr.Markdown()
                    outputs += [html, words, heat, caption]
                    chosen.append((place, words, heat, caption))
        inputs = [image, name, emotion, beams, samples]
        ask.click(explain, inputs, [answers, *outputs], show_progress="full", api_name="explain")
        if split is not None:
            name.input(choose, name, image, api_name=False).success(
                explain, inputs, [answers, *outputs], api_name=False
            )
            image.upload(lambda: None, None, name, api_name=False)  # the annotators' answers are another image's
        for place, words, heat, caption in chosen:
            words.input(
                lambda given, word, place=place: look(given, place, word),
                [answers, words],
                [heat, caption],
                api_name=False,
            )
    return page


def serve(
    page: "gradio.Blocks", models: Sequence[Model], host: str, port: int, folders: Sequence[Path]
) -> "gradio.Blocks":
    """Start the server and return. folders: of images that the page may show."""
    import gradio as gr
    from starlette.responses import FileResponse
    from starlette.routing import Route

    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])  # no fonts from elsewhere
    fill = "button_primary_background_fill"
    theme.set(**{f"{fill}{state}{mode}": BUTTON for state in ("", "_hover") for mode in ("", "_dark")})
    app, _, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        prevent_thread_lock=True,
        quiet=True,
        show_error=True,
        ssr_mode=False,
        footer_links=[],
        allowed_paths=[str(folder.resolve()) for folder in folders],
        theme=theme,
        css=CSS,
        head=HEAD,
    )
    for model in models:
        if model.gallery is not None:
            page_file = model.gallery
            app.router.routes.insert(
                0,
                Route(
                    f"/{model.address}",
                    lambda request, file=page_file: FileResponse(file, media_type="text/html"),
                ),
            )
    return page


def main(argv: list[str] | None = None, block: bool = True) -> "gradio.Blocks | None":
    """Run the command line: serve the page until it is interrupted.

    block: False returns the running page instead, whose `close` ends it.

    Raises:
        InputError: for everything a user can put right.
    """
    args = get_parser().parse_args(argv)
    if len(args.runs) > 2:
        raise InputError(f"{len(args.runs)} runs: the page shows one or two")
    check_gradio()
    host = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")  # a Hugging Face Space sets it
    check_port(host, args.port)
    for run in args.runs:
        find_checkpoint(run, args.name)
    split = find_split(args)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    titles = [str(run.resolve().name if run.is_dir() else run) for run in args.runs]
    if len(set(titles)) < len(titles):
        titles = ["A", "B"]
    models = [
        Model(
            title,
            load(run, args.name, vad_lexicon=args.vad_lexicon, device=args.device),
            gallery_of(run),
            f"gallery/{place}",
        )
        for place, (title, run) in enumerate(zip(titles, args.runs, strict=True))
    ]
    page = serve(build_page(models, split), models, host, args.port, [] if split is None else [split.folder])
    print(f"open http://{host}:{args.port} in a browser; Ctrl-C ends it", flush=True)
    if not block:
        return page
    page.block_thread()
    return None


if __name__ == "__main__":
    sys.exit(run_script(main))
