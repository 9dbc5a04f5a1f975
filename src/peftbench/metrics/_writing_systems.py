"""Split texts of any script into words, and choose the tokenizer of sacreBLEU for a script."""

import unicodedata
from collections import Counter
from collections.abc import Iterable

import regex

UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
"""Scripts without blanks between words: each character with its marks is a word."""
_WORD = regex.compile(rf"[{UNSPACED}]\p{{M}}*+|[[\p{{L}}\p{{M}}\p{{N}}]--[{UNSPACED}]]++", regex.V1)
_OF = {
    "latin": regex.compile(r"\p{Latin}"),
    "kana": regex.compile(r"[\p{Hiragana}\p{Katakana}]"),
    "han": regex.compile(r"\p{Han}"),
    "unspaced": regex.compile(rf"[{UNSPACED}]"),
    "letters": regex.compile(r"\p{L}"),
}


def words_of(text: str) -> list[str]:
    """Return runs of letters, marks and digits in lower case (NFKC); single characters for scripts without blanks.

    For ASCII text these are the words of `rouge-score`.
    """
    found: list[str] = _WORD.findall(unicodedata.normalize("NFKC", text).lower())
    return found


def bleu_tokens(references: Iterable[str]) -> str:
    """Choose the tokenizer of sacreBLEU by the script of most letters, among those without further dependencies: `zh`
    for Chinese; `char` for Japanese and other scripts without blanks; `13a` for Latin; `intl` for all others.
    """
    text = unicodedata.normalize("NFKC", "".join(references))
    count = Counter({name: len(of.findall(text)) for name, of in _OF.items()})
    if 2 * count["unspaced"] > count["letters"]:
        return "zh" if 2 * count["han"] > count["unspaced"] and not count["kana"] else "char"
    return "intl" if 2 * count["latin"] < count["letters"] else "13a"
