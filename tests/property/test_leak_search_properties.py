"""The leak gate's short ways find as much as the long ones."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from cohortflow.redaction.leaks import search as search_module
from cohortflow.redaction.leaks.normalize import normalize
from cohortflow.redaction.leaks.search import TextSearch
from cohortflow.redaction.leaks.terms import TERMS

WORDS = st.sampled_from(["ab", "abc", "lemke", "12", "345", "o", "é", "李", "李小龙", "st", "-", "%20"])
TEXTS = st.lists(WORDS, min_size=1, max_size=6).flatmap(
    lambda words: st.sampled_from([" ", "", ", ", "-"]).map(lambda between: between.join(words))
)


def find(terms, texts, limit):
    before, search_module._WORDS_UP_TO = search_module._WORDS_UP_TO, limit
    try:
        return TextSearch(lambda: [terms], ()).find(pl.Series(texts, dtype=pl.String)).sort(pl.all())
    finally:
        search_module._WORDS_UP_TO = before


@given(
    terms=st.lists(TEXTS, min_size=1, max_size=8),
    joined=st.booleans(),
    texts=st.lists(TEXTS, min_size=1, max_size=8),
)
def test_terms_left_out_by_their_first_word_would_not_be_found(terms, joined, texts):
    term = normalize(pl.Series(terms, dtype=pl.String))
    if joined:  # as names that are written without a space: they are searched for within words
        term = term.str.replace_all(" ", "")
    rows = {"term": term.filter(term.str.strip_chars() != "").unique(), "rule": "name", "weak": False}
    frame = pl.DataFrame(rows, schema_overrides={"owner": pl.String}).with_columns(
        pl.lit(None, dtype=pl.String).alias("owner")
    )
    frame = frame.select(TERMS.names()).cast(dict(TERMS))
    assert find(frame, texts, limit=10**9).equals(find(frame, texts, limit=-1))
