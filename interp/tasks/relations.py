"""The relations of the bundled fact tables: one row each, with the sentences that state it.

A relation is a column pair of one CSV file under ``assets/facts``. Every template ends where the object
goes, so that the text before it is a prompt and the object is the answer. Adding a relation is one row here
and one file there.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BRIDGES", "RELATIONS", "Bridge", "Relation"]


@dataclass(frozen=True)
class Relation:
    """A relation: where its facts are, and the templates that state it."""

    name: str
    file: str
    subject: str
    object: str
    noun: str
    """How the object is called in a two-hop prompt: 'the <noun> of <bridge> is'."""
    templates: tuple[str, ...]


@dataclass(frozen=True)
class Bridge:
    """An entity described by another one, so that a second relation can be asked of it."""

    relation: str
    """The first hop: subject named in the prompt, object the bridge that is not."""
    phrase: str
    """The description, with the first hop's subject as ``{}``."""
    second: tuple[str, ...]
    """Relations that may be asked of the bridge entity."""


def _row(name: str, source: str, noun: str, *templates: str) -> Relation:
    file, subject, obj = source.split("/")
    return Relation(name, file, subject, obj, noun, templates)


_ROWS = (
    _row(
        "capital",
        "countries/country/capital",
        "capital",
        "the capital of {} is",
        "the capital city of {} is",
        "{} has its capital in",
        "people govern {} from",
    ),
    _row(
        "currency",
        "countries/country/currency",
        "currency",
        "the currency of {} is the",
        "people in {} pay with the",
        "the money used in {} is the",
        "prices in {} are in",
    ),
    _row(
        "language",
        "countries/country/language",
        "language",
        "the language of {} is",
        "people in {} speak",
        "the language spoken in {} is",
        "books in {} are written in",
    ),
    _row(
        "region",
        "countries/country/region",
        "region",
        "the region of {} is",
        "{} lies in the region",
        "the part of the world around {} is",
        "on a map {} is in",
    ),
    _row(
        "continent",
        "countries/country/continent",
        "continent",
        "the continent of {} is",
        "{} belongs to the continent",
        "{} is part of the continent",
        "the land mass with {} is",
    ),
    _row(
        "nationality",
        "countries/country/nationality",
        "nationality",
        "the nationality of someone from {} is",
        "a citizen of {} is called",
        "someone born in {} is",
        "a passport of {} says",
    ),
    _row(
        "capital_of",
        "countries/capital/country",
        "country",
        "{} is the capital of",
        "the country whose capital is {} is",
        "the city {} governs",
        "the government in {} leads",
    ),
    _row(
        "country_of",
        "countries/nationality/country",
        "country",
        "the country whose people are called {} is",
        "the {} people come from",
        "everything {} comes from",
        "the {} flag belongs to",
    ),
    _row(
        "plural",
        "plurals/singular/plural",
        "plural",
        "the plural of {} is",
        "one {} , two",
        "one {} and many",
        "the plural form of {} is",
    ),
    _row(
        "past",
        "past_tenses/verb/past",
        "past tense",
        "the past tense of {} is",
        "today they {} , yesterday they",
        "the past of {} is",
        "now we {} , before we",
    ),
    _row(
        "participle",
        "participles/verb/participle",
        "participle",
        "the participle of {} is",
        "they {} , so they are",
        "the ing form of {} is",
        "you can {} , so keep",
    ),
    _row(
        "third_person",
        "third_persons/verb/third_person",
        "third person",
        "the third person of {} is",
        "they {} , she",
        "we {} and he also",
        "I {} and so she",
    ),
    _row(
        "comparative",
        "comparatives/adjective/comparative",
        "comparative",
        "the comparative of {} is",
        "this one is {} , that one is",
        "it is {} and gets even",
        "not only {} but",
    ),
    _row(
        "superlative",
        "superlatives/adjective/superlative",
        "superlative",
        "the superlative of {} is",
        "of all the {} ones this is the",
        "some are {} , one is the",
        "very {} , perhaps the",
    ),
    _row(
        "antonym",
        "antonyms/word/antonym",
        "opposite",
        "the opposite of {} is",
        "the antonym of {} is",
        "if it is not {} it is",
        "the contrary of {} is",
    ),
    _row(
        "adverb",
        "adverbs/adjective/adverb",
        "adverb",
        "the adverb of {} is",
        "someone {} acts",
        "to be {} is to act",
        "a {} act is done",
    ),
    _row(
        "gender",
        "genders/male/female",
        "female form",
        "the female of {} is",
        "the female form of {} is",
        "he is a {} , she is a",
        "a man is a {} , a woman is a",
    ),
    _row(
        "category",
        "categories/thing/category",
        "category",
        "a {} is a kind of",
        "the category of {} is",
        "a {} is a type of",
        "every {} is some",
    ),
    _row(
        "young",
        "young/animal/young",
        "young",
        "a young {} is a",
        "the young of a {} is a",
        "the {} feeds her",
        "a small {} is called",
    ),
    _row(
        "colour",
        "colours/thing/colour",
        "colour",
        "the colour of {} is",
        "a {} is usually",
        "a ripe {} looks",
        "people paint a {} in",
    ),
    _row(
        "workplace",
        "workplaces/person/workplace",
        "workplace",
        "the {} works at the",
        "you meet the {} at the",
        "the workplace of the {} is the",
        "every day the {} goes to the",
    ),
    _row(
        "product",
        "products/maker/product",
        "product",
        "the {} makes",
        "the {} produces",
        "from the {} you buy",
        "the product of the {} is",
    ),
    _row(
        "sound",
        "sounds/animal/sound",
        "sound",
        "listen , the {}",
        "at night the {}",
        "hear how the {}",
        "in the yard the {}",
    ),
)

RELATIONS: dict[str, Relation] = {row.name: row for row in _ROWS}

_OF_COUNTRY = ("capital", "currency", "language", "region", "continent", "nationality")

BRIDGES: tuple[Bridge, ...] = (
    Bridge("capital_of", "the country whose capital is {}", _OF_COUNTRY[1:]),
    Bridge("country_of", "the country whose people are called {}", _OF_COUNTRY[:-1]),
    Bridge("antonym", "the opposite of {}", ("comparative", "superlative", "adverb")),
    Bridge("young", "the young of a {}", ("plural",)),
)
