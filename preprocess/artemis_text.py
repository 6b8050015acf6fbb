"""Convert an annotator's utterance to tokens, as ArtEmis' preprocessing does.

The text is lower-cased, quotes around single words are removed, contractions are expanded, and punctuation is replaced
by spaces. NLTK's word tokenizer then splits it, and tokens that look misspelled are corrected. Tokenization depends
only on the text, so several processes can share it. Spelling correction depends only on the token, so its results are
memoised.
"""

import ast
import importlib.resources
import re
from collections.abc import Mapping, Set
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from symspellpy import SymSpell, Verbosity

from utils.constants import PUNCTUATION
from utils.errors import InputError, brief
from utils.files import check_regular, read_bytes, read_json

if TYPE_CHECKING:
    from nltk.tokenize import NLTKWordTokenizer

CONTRACTIONS = Path(__file__).resolve().parent / "contractions.json"

_TO_BLANKS = str.maketrans(dict.fromkeys(PUNCTUATION, " "))
_QUOTED_WORD = re.compile(r"(?<!\w)(?:'(\w+)'|\"(\w+)\")(?!\w)")


@cache
def contractions() -> tuple[re.Pattern[str], dict[str, str]]:
    """ArtEmis' table of contractions: (pattern, contraction -> expansion).

    The pattern tries the contractions in the table's order and matches them anywhere in a lower-case text, also inside
    words ("picasso's" contains "so's"). The order and these quirks are therefore part of the dataset.
    """
    table = read_json(CONTRACTIONS)["contractions"]
    return re.compile("|".join(map(re.escape, table))), {short: long.lower() for short, long in table.items()}


@cache
def _tokenizer() -> "NLTKWordTokenizer":
    from nltk.tokenize import NLTKWordTokenizer  # its import takes a second, and fails for users without a home folder

    # word_tokenize() would first split sentences, which needs a download; without punctuation there is nothing to split
    return NLTKWordTokenizer()


def tokenize(utterance: str) -> list[str]:
    """The lower-case tokens of a text before spelling correction; no token contains whitespace."""
    return tokenize_all([utterance])[0].split()


def tokenize_all(utterances: list[str]) -> list[str]:
    """Tokenize many texts; the tokens are joined by spaces, a compact form for sending them between processes.

    NLTK's tokenizer takes 0.2 ms per call, more than for a text, so all texts share one. Only its rules for quotes look
    beyond a word; of texts without quotes it gets each word once. The bars between its inputs occur in none, as they are
    punctuation, and line breaks divide like a text's ends, as the rules for quotes look for spaces.
    """
    texts = map(_without_punctuation, utterances)
    inputs = [[text] if "'" in text or '"' in text else text.split() for text in texts]
    distinct = list({part for parts in inputs for part in parts})
    tokens = " ".join(_tokenizer().tokenize("\n|\n".join(distinct))).split("|")
    tokens_of = {part: part_tokens.strip() for part, part_tokens in zip(distinct, tokens, strict=False)}
    return [" ".join([tokens_of[part] for part in parts]) for parts in inputs]


def _without_punctuation(utterance: str) -> str:
    text = _QUOTED_WORD.sub(lambda match: f" {match[1] or match[2]} ", utterance.lower())
    if "'" in text:  # every contraction contains an apostrophe
        pattern, expansions = contractions()
        text = pattern.sub(lambda match: expansions[match[0]], text)
    text = text.translate(_TO_BLANKS)
    return f"`` {text[1:]}" if text.startswith('"') else text  # as NLTK writes it at the beginning of a text


@cache
def _english() -> SymSpell:
    symspell = SymSpell(max_dictionary_edit_distance=1)
    dictionary = importlib.resources.files("symspellpy") / "frequency_dictionary_en_82_765.txt"
    with importlib.resources.as_file(dictionary) as path:
        symspell.load_dictionary(str(path), term_index=0, count_index=1, encoding="utf-8")
    return symspell


class SpellChecker:
    """Correct the spelling of tokens by a hand-made list, else by SymSpell's English dictionary (edit distance 1).

    Args:
        known_words: tokens that are not corrected (in ArtEmis the vocabulary of GloVe 6B). None: tokens that contain
            anything but letters are not corrected, and the dictionary's words count as known.
        corrections: token -> its correction, one or several words, which are not corrected again.
    """

    def __init__(self, known_words: Set[str] | None = None, corrections: Mapping[str, str] | None = None) -> None:
        self.known_words = known_words
        self._corrected = {token: correction.split() for token, correction in (corrections or {}).items()}

    def correct(self, token: str) -> list[str]:
        """The words that replace `token`: the token itself, its correction, or several words of the hand-made list."""
        if token not in self._corrected:
            self._corrected[token] = [self._nearest(token)]
        return self._corrected[token]

    def _nearest(self, token: str) -> str:
        if token in self.known_words if self.known_words is not None else not token.isalpha():
            return token
        suggestions = _english().lookup(token, Verbosity.TOP, max_edit_distance=1)
        return suggestions[0].term if suggestions else token


def read_known_words(path: str | Path) -> set[str]:
    """Read the first field of every line, from GloVe's text file or from a list with one word per line.

    Raises:
        InputError: the file is missing, not UTF-8, or contains no words.
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
        raise InputError(f"{path}: contains no words; give GloVe's text file or a list of one word a line")
    return words


def read_corrections(path: str | Path) -> dict[str, str]:
    """Read a hand-made spelling list: misspelled token, or whole utterance, -> its correction.

    Args:
        path: a JSON object, possibly with nested objects; or ArtEmis' own `spelling.py`. The latter is not executed:
            its top-level dictionaries are read as literals.

    Raises:
        InputError: the file is missing, malformed, or contains no such dictionary.
    """
    if Path(path).suffix == ".py":
        try:
            statements = ast.parse(read_bytes(path)).body
            values = [statement.value for statement in statements if isinstance(statement, ast.Assign | ast.AnnAssign)]
            tables = [ast.literal_eval(value) for value in values if isinstance(value, ast.Dict)]
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
            raise InputError(f"{path}: not Python code whose dictionaries are literals ({brief(error)})") from None
    else:
        tables = [read_json(path)]
    corrections: dict[str, str] = {}
    while tables:
        table = tables.pop(0)
        if not isinstance(table, dict):
            raise InputError(f"{path}: not a JSON object of wrong -> right spelling")
        for wrong, right in table.items():
            if isinstance(right, dict):
                tables.append(right)
                continue
            words = [right] if isinstance(right, str) else right
            if not isinstance(wrong, str) or not isinstance(words, list) or not all(isinstance(w, str) for w in words):
                raise InputError(f"{path}: the right spelling of {str(wrong)[:60]!r} must be a text or a list of texts")
            corrections[wrong] = " ".join(words)
    if not corrections:
        raise InputError(f"{path}: contains no dictionary of wrong -> right spelling")
    return corrections
