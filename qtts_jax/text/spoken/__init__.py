"""English text front end: everyday text as the words that are spoken.

`normalize` rewrites "Dr. Lee paid $12.50" as "Doctor Lee paid twelve dollars and fifty cents".
A rule is one row, `Rule(name, pattern, spoken, examples)`, in the file of its kind:

    marks           characters, line breaks, lists, quotes, brackets
    addresses       e-mail, web, files, handles, hashtags
    phones          telephone numbers and codes
    dates_times     dates, times, decades
    money, units    amounts and quantities
    abbreviations   "Dr.", "St.", "e.g."
    capitals        shouted words, acronyms, Roman numerals
    numbers         all numbers that are left
    symbols         "&", "/" and the last tidying
    letters         names of spelled letters, after all rules, for voices that need them

To add one: put a row where the more specific readings stand (rules run from top to bottom, in the
order of `front_end.RULES`), with examples of what the whole front end then makes of a text; the
tests run every example. A new abbreviation, unit, currency or acronym is one entry of the table in
its file. A pattern must match a bounded length, and must not need what follows a sentence or clause
(`segments`), for text is normalised as it arrives.
"""

from qtts_jax.text.spoken.front_end import RULES, Normalizer, has_words, normalize
from qtts_jax.text.spoken.sentences import SentenceSplitter, split_sentences

__all__ = [
    "RULES",
    "Normalizer",
    "SentenceSplitter",
    "has_words",
    "normalize",
    "split_sentences",
]
