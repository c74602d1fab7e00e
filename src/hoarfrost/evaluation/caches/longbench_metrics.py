"""The metrics of LongBench (arXiv 2308.14508), written anew to give the scores of its own scripts without their dependencies.

Each takes a prediction and one reference and returns a score between 0 and 1. Words are split at white space; Chinese is cut by `jieba`
where it is installed, as LongBench does, else into characters (`CHINESE_UNIT` says which), which gives other figures than published ones.

- `rouge_l` is the ROUGE-L F1 of the `rouge` package: distinct words of a union of longest common subsequences, sentence by sentence.
- `edit_similarity` is the ratio of `difflib` in whole per cent, as `fuzzywuzzy` gives it without its optional accelerator.
- `classification` divides by the number of class names that the prediction holds.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher

Metric = Callable[[str, str], float]

CHINESE_UNIT = "word" if importlib.util.find_spec("jieba") else "character"
# What Unicode calls punctuation, plus the symbols among the full-width forms.
CHINESE_PUNCTUATION = (
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."  # noqa: RUF001
)


def f1(prediction: str, reference: str) -> float:
    """F1 over words, without case, punctuation and articles."""
    return _overlap(_plain_words(prediction), _plain_words(reference))


def f1_chinese(prediction: str, reference: str) -> float:
    return _overlap(*([word for word in map(_plain_chinese, cut_chinese(text)) if word] for text in (prediction, reference)))


def rouge_l(prediction: str, reference: str) -> float:
    """F1 of ROUGE-L at summary level over distinct words; a sentence ends at a full stop, and white space alone is one empty word."""
    predicted, referred = ([part.split() or [""] for part in text.split(".") if part] for text in (prediction, reference))
    if not predicted or not referred:
        return 0.0
    common = {word for first in referred for second in predicted for word in longest_common_subsequence(first, second)}
    precision, recall = (len(common) / len({word for sentence in text for word in sentence}) for text in (predicted, referred))
    return 2 * precision * recall / (precision + recall + 1e-8)


def rouge_l_chinese(prediction: str, reference: str) -> float:
    return rouge_l(" ".join(cut_chinese(prediction)), " ".join(cut_chinese(reference)))


def count(prediction: str, reference: str) -> float:
    """The share of the numbers in the prediction that are the right one."""
    numbers = re.findall(r"\d+", prediction)
    return numbers.count(reference.strip()) / len(numbers) if numbers else 0.0


def retrieval(prediction: str, reference: str) -> float:
    """As `count`, with the number that the reference names ("Paragraph 3", "段落3")."""
    number = re.search(r"\d+", reference)
    return count(prediction, number.group()) if number else 0.0


def edit_similarity(prediction: str, reference: str) -> float:
    """Similarity of the first line that is neither a comment nor a code fence."""
    lines = prediction.lstrip("\n").split("\n")
    line = next((line for line in lines if not any(mark in line for mark in ("`", "#", "//"))), "")
    return round(100 * SequenceMatcher(None, line, reference).ratio()) / 100 if line and reference else 0.0


def classification(prediction: str, reference: str, classes: Sequence[str]) -> float:
    """One over the number of class names in the prediction if the right one is among them; parts of the right name do not count."""
    found = [name for name in classes if name in prediction and (name == reference or name not in reference)]
    return 1 / len(found) if reference in found else 0.0


def cut_chinese(text: str) -> list[str]:
    """Words by `jieba` where it is installed, else characters."""
    if CHINESE_UNIT == "word":
        return list(importlib.import_module("jieba").cut(text, cut_all=False))
    return list(text)


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """One longest common subsequence; of several the one met from the ends where a tie gives up a word of `second`."""
    lengths = [[0] * (len(second) + 1)]
    for one in first:
        row = [0]
        for column, other in enumerate(second):
            row.append(lengths[-1][column] + 1 if one == other else max(row[-1], lengths[-1][column + 1]))
        lengths.append(row)
    words, i, j = [], len(first), len(second)
    while i and j:
        if first[i - 1] == second[j - 1]:
            words.append(first[i - 1])
            i, j = i - 1, j - 1
        elif lengths[i - 1][j] > lengths[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return words[::-1]


def _overlap(prediction: Sequence[str], reference: Sequence[str]) -> float:
    num_common = sum((Counter(prediction) & Counter(reference)).values())
    return 2 * num_common / (len(prediction) + len(reference)) if num_common else 0.0


def _plain_words(text: str) -> list[str]:
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def _plain_chinese(text: str) -> str:
    return "".join(character for character in text.lower() if not character.isspace() and character not in CHINESE_MARKS)


CHINESE_MARKS = frozenset(string.punctuation + CHINESE_PUNCTUATION)
