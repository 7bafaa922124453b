"""Full-text search over a few hundred short texts: Okapi BM25.

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), section 3, with the inverse document
frequency of Lucene, ``ln(1 + (N - n + 0.5) / (n + 0.5))``, which is never negative. The index is built for each search, so its
statistics cover exactly the given texts.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Final

__all__ = ["scores", "words"]

_K1: Final = 1.5
_B: Final = 0.75

# Chinese and Japanese put no spaces between words, so each character counts as a word.
_CJK: Final = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD: Final = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")


def words(text: str) -> list[str]:
    """Return the words of a text, normalised so that case, width and the encoding of accents do not matter."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def scores(query: str, texts: Sequence[str]) -> list[float]:
    """Return how well each text matches the query; 0 if it has none of its words."""
    documents = [Counter(words(text)) for text in texts]
    lengths = [document.total() for document in documents]
    average = sum(lengths) / len(lengths) if any(lengths) else 1.0
    totals = [0.0] * len(documents)
    for word in dict.fromkeys(words(query)):
        matching = sum(word in document for document in documents)
        weight = math.log(1 + (len(documents) - matching + 0.5) / (matching + 0.5))
        for index, document in enumerate(documents):
            count = document[word]
            if count:
                totals[index] += weight * count * (_K1 + 1) / (count + _K1 * (1 - _B + _B * lengths[index] / average))
    return totals
