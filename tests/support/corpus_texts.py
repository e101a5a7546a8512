"""Sentences for the tests of the corpus builder, and phonemes without a phonemiser."""

import multiprocessing
import os

from experiments.corpus.sentences import Sentence, unique

ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def texts(count):
    return [
        f"The {ONES[n // 100 % 10]} {ONES[n // 10 % 10]} {ONES[n % 10]} birds are here."
        for n in range(count)
    ]


def sentences(count=400):
    return unique(Sentence(text, "wordnet-base", "WordNet-3.0") for text in texts(count))


def spell(jobs):
    tokens = [[ord(letter) % 50 + 1 for letter in each["text"][:5]] for each in jobs]
    return [{"tokens": ids, "anchors": [[0, 0], [3, len(ids)]]} for ids in tokens]


def die_in_a_child():
    """The start of a process that a test has begun."""
    if multiprocessing.parent_process() is not None:
        os._exit(1)
