"""PTB tokenisation of captions as in pycocoevalcap 1.2: Stanford's tokenizer, lower case, without punctuation."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pycocoevalcap.tokenizer import ptbtokenizer

from cococaption.java import JVM_FLAGS, find_java
from utils.errors import InputError

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
