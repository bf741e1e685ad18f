"""Candidates are the concepts whose terms are most like a text."""

import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohortflow.errors import InputError
from cohortflow.terminology import suggest
from cohortflow.terminology.suggest import TermIndex

TERMS = pl.LazyFrame(
    [
        ("2160-0", "Creatinine [Mass/volume] in Serum or Plasma"),
        ("2160-0", "Creat SerPl-mCnc"),
        ("2161-8", "Creatinine [Mass/volume] in Urine"),
        ("4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood"),
        ("4548-4", "HbA1c"),
        ("718-7", "Hemoglobin [Mass/volume] in Blood"),
        ("2339-0", "Glucose [Mass/volume] in Blood"),
        ("2345-7", "Glucose [Mass/volume] in Serum or Plasma"),
    ],
    schema={"code": pl.String(), "term": pl.String()},
    orient="row",
)


@pytest.fixture(scope="module")
def index():
    return TermIndex.build(TERMS)


def best(index, text):
    return index.search(pl.Series([text]), top=1)["code"].to_list()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Creatinine, serum", "2160-0"),
        ("creatinin urin", "2161-8"),
        ("GLUCOSE BLOOD", "2339-0"),
        ("hba1c", "4548-4"),
        ("Hémoglobine", "718-7"),
    ],
)
def test_words_and_parts_of_words_lead_to_the_concept(index, text, code):
    assert best(index, text) == [code]


def test_equal_terms_score_one_whatever_their_case_accents_and_punctuation(index):
    found = index.search(pl.Series(["  glucose (MASS volume) ïn blood "]), top=1)
    assert found.rows() == [(0, 1, "2339-0", "Glucose [Mass/volume] in Blood", 1.0)]


def test_a_concept_stands_once_with_its_most_similar_term(index):
    found = index.search(pl.Series(["Creat"]), top=8)
    assert found["code"].n_unique() == found.height
    assert found.row(0)[2:4] == ("2160-0", "Creat SerPl-mCnc")


def test_candidates_are_ranked_limited_and_good_enough(index):
    texts = pl.Series([None, "glucose", "", "xyz 000", "hemoglobin"])
    found = index.search(texts, top=3, least=0.1)
    assert set(found["query"]) == {1, 4}
    for _, group in found.group_by("query"):
        assert group["rank"].to_list() == list(range(1, group.height + 1))
        assert group["score"].is_sorted(descending=True)
        assert group.height <= 3
        assert group["score"].min() >= 0.1


def test_equal_candidates_come_in_the_order_of_their_codes():
    same = pl.LazyFrame({"code": ["c", "a", "d", "b"], "term": ["Asthma"] * 4})
    assert TermIndex.build(same).search(pl.Series(["asthma"]), top=2)["code"].to_list() == ["a", "b"]


def test_no_terms_are_an_error():
    with pytest.raises(InputError, match="no terms"):
        TermIndex.build(pl.LazyFrame({"code": ["a"], "term": [" - "]}))


def cosine(text, other, texts, features):
    """Return the likeness of two texts, worked out one by one."""
    described = [features(one) for one in texts]
    weight = {
        feature: (math.log((1 + len(texts)) / (1 + sum(feature in one for one in described))) + 1) ** 2
        for feature in features(text) | features(other)
    }
    norm = math.sqrt(sum(map(weight.get, features(text))) * sum(map(weight.get, features(other))))
    return sum(map(weight.get, features(text) & features(other))) / norm


def words(text):
    return set(text.split())


def grams(text):
    padded = f" {text} "
    return {padded[place : place + 3] for place in range(len(padded) - 2)}


SMALL = st.lists(st.sampled_from(["ab", "abc", "bca", "c", "caab"]), min_size=1, max_size=4).map(" ".join)


@given(st.lists(SMALL, min_size=1, max_size=12, unique=True), SMALL)
def test_scores_are_those_of_a_plain_computation(texts, text):
    index = TermIndex.build(pl.LazyFrame({"code": [str(n) for n in range(len(texts))], "term": texts}))
    expected = {
        str(number): (cosine(text, other, texts, words) + cosine(text, other, texts, grams)) / 2
        for number, other in enumerate(texts)
    }
    found = index.search(pl.Series([text]), top=len(texts))
    assert dict(zip(found["code"], found["score"], strict=True)) == pytest.approx(
        {code: score for code, score in expected.items() if score > 0}, abs=1e-4
    )


def test_terms_are_indexed_alike_in_pieces(monkeypatch, index):
    monkeypatch.setattr(suggest, "_CHUNK_TERMS", 2)
    texts = TERMS.collect()["term"]
    assert TermIndex.build(TERMS).search(texts).equals(index.search(texts))
