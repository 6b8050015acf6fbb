"""From an annotator's utterance to the tokens that ArtEmis' preprocessing makes of it.

Lower case; words in quotes lose them; contractions are expanded; punctuation becomes a blank; NLTK's word tokenizer
splits the rest; tokens that look misspelled are corrected. Tokenizing depends on the text alone and spelling on the
token alone, so the first can be shared among processes and the second be remembered.
"""

import ast
import importlib.resources
import json
import re
from collections.abc import Mapping, Set
from functools import cache
from pathlib import Path

from nltk.tokenize import NLTKWordTokenizer
from symspellpy import SymSpell, Verbosity

from utils.constants import PUNCTUATION
from utils.errors import InputError
from utils.files import check_regular, read_bytes, read_json

CONTRACTIONS = Path(__file__).resolve().parent / "contractions.json"

_TO_BLANKS = str.maketrans(dict.fromkeys(PUNCTUATION, " "))
_QUOTED_WORD = re.compile(r"(?<!\w)(?:'(\w+)'|\"(\w+)\")(?!\w)")


@cache
def contractions() -> tuple[re.Pattern[str], dict[str, str]]:
    """ArtEmis' table as (pattern, contraction -> expansion).

    The pattern tries the contractions in the table's order, anywhere in a text, words' ends or not ("picasso's" holds
    "so's"), so the order and the quirks are part of the data set. Texts are in lower case when it is applied.
    """
    table = read_json(CONTRACTIONS)["contractions"]
    return re.compile("|".join(map(re.escape, table))), {short: long.lower() for short, long in table.items()}


@cache
def _tokenizer() -> NLTKWordTokenizer:
    # word_tokenize() would split sentences first, by data that is a download; no sentence end is left to split at
    return NLTKWordTokenizer()


def tokenize(utterance: str) -> list[str]:
    """The lower-case tokens of a text, before spelling correction; none of them holds a blank."""
    text = _QUOTED_WORD.sub(lambda match: f" {match[1] or match[2]} ", utterance.lower())
    if "'" in text:  # every contraction has one
        pattern, expansions = contractions()
        text = pattern.sub(lambda match: expansions[match[0]], text)
    return _tokenizer().tokenize(text.translate(_TO_BLANKS))


def tokenize_all(utterances: list[str]) -> list[str]:
    """`tokenize` for many texts, tokens joined by blanks: the compact form in which processes hand them back."""
    return [" ".join(tokenize(utterance)) for utterance in utterances]


@cache
def _english() -> SymSpell:
    symspell = SymSpell(max_dictionary_edit_distance=1)
    dictionary = importlib.resources.files("symspellpy") / "frequency_dictionary_en_82_765.txt"
    with importlib.resources.as_file(dictionary) as path:
        symspell.load_dictionary(str(path), term_index=0, count_index=1, encoding="utf-8")
    return symspell


class SpellChecker:
    """Corrects tokens: by a hand-made list first, then by SymSpell's English dictionary at edit distance 1.

    Args:
        known_words: tokens that need no correction (ArtEmis: the vocabulary of GloVe 6B). None: every token holding
            anything but letters is left alone, and the dictionary's own words are the known ones.
        corrections: token -> what stands for it, one or several words; such words are not corrected again.
    """

    def __init__(self, known_words: Set[str] | None = None, corrections: Mapping[str, str] | None = None) -> None:
        self.known_words = known_words
        self._seen = {token: correction.split() for token, correction in (corrections or {}).items()}

    def correct(self, token: str) -> list[str]:
        """The words that stand for `token`: itself, its correction, or several words of the hand-made list."""
        if token not in self._seen:
            self._seen[token] = [self._nearest(token)]
        return self._seen[token]

    def _nearest(self, token: str) -> str:
        if token in self.known_words if self.known_words is not None else not token.isalpha():
            return token
        suggestions = _english().lookup(token, Verbosity.TOP, max_edit_distance=1)
        return suggestions[0].term if suggestions else token


def read_known_words(path: str | Path) -> set[str]:
    """The first field of every line: GloVe's text files and lists of one word a line alike.

    Raises:
        InputError: the file is missing, not UTF-8, or has no lines.
    """
    check_regular(path, "give GloVe's text file or a list of one word a line")
    try:
        with open(path, "rb") as file:
            first_fields = (line.split(None, 1)[:1] for line in file)
            words = {field.decode() for fields in first_fields for field in fields}
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8 text ({error.object[:40]!r}); give GloVe's text file or one word a line"
        ) from None
    if not words:
        raise InputError(f"{path}: holds no words; give GloVe's text file or a list of one word a line")
    return words


def read_corrections(path: str | Path) -> dict[str, str]:
    """A hand-made spelling list: wrong token, or whole utterance, -> right one.

    Either a JSON object (also one that groups several such objects), or ArtEmis' own `spelling.py`, of which the
    dictionaries written out at the top level are read as literals; nothing of it is executed.

    Raises:
        InputError: the file is missing, malformed, or holds no such dictionary.
    """
    if Path(path).suffix == ".py":
        try:
            statements = ast.parse(read_bytes(path)).body
            values = [statement.value for statement in statements if isinstance(statement, ast.Assign | ast.AnnAssign)]
            tables = [ast.literal_eval(value) for value in values if isinstance(value, ast.Dict)]
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
            reason = " ".join(str(error).split())[:120]
            raise InputError(f"{path}: its dictionaries are not all written-out texts ({reason})") from None
    else:
        tables = [read_json(path)]
    corrections: dict[str, str] = {}
    while tables:
        table = tables.pop(0)
        if not isinstance(table, dict):
            raise InputError(f"{path}: a JSON object of wrong -> right spelling was expected")
        for wrong, right in table.items():
            if isinstance(right, dict):
                tables.append(right)
                continue
            words = [right] if isinstance(right, str) else right
            if not isinstance(wrong, str) or not isinstance(words, list) or not all(isinstance(w, str) for w in words):
                shown = json.dumps(wrong, default=str)[:60]
                raise InputError(f"{path}: {shown}: a text or a list of texts was expected as its right spelling")
            corrections[wrong] = " ".join(words)
    if not corrections:
        raise InputError(f"{path}: holds no dictionary of wrong -> right spelling")
    return corrections
