"""The tokenizer and the stream of training batches."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from interp.demo.corpus import Mix, batches, build_tokenizer, encode
from interp.demo.optimisation import SCHEDULE
from interp.tasks import TASKS, is_held_out, load_world

WORLD = load_world()
TOKENIZER = build_tokenizer(WORLD)
MIX = Mix(SCHEDULE[-1].mix.shares)


def test_every_concept_is_one_token_also_inside_a_sentence():
    for word in WORLD.words:
        assert len(TOKENIZER(word, add_special_tokens=False)["input_ids"]) == 1, word
        assert len(TOKENIZER(f"the {word} is", add_special_tokens=False)["input_ids"]) == 3, word


def test_a_longer_name_wins_over_the_name_it_contains():
    assert TOKENIZER.tokenize("Guinea : franc") == ["Guinea", ":", "franc"]
    assert TOKENIZER.tokenize("Guinea-Bissau : franc") == ["Guinea-Bissau", ":", "franc"]
    assert TOKENIZER.tokenize("Papua New Guinea.") == ["Papua New Guinea", "."]


def test_years_are_pairs_of_digits_and_bos_comes_first():
    ids = TOKENIZER("from the year 1741 to the year 17")["input_ids"]
    assert TOKENIZER.convert_ids_to_tokens(ids) == [
        "<bos>",
        *["from", "the", "year", "17", "41", "to", "the", "year", "17"],
    ]


@pytest.mark.parametrize("task", TASKS)
def test_no_generator_leaves_the_vocabulary(task):
    rng = random.Random(0)
    for _ in range(200):
        example = TASKS[task].generate(WORLD, rng, "train")
        row = encode([example], TOKENIZER, rng, Mix({}, capitals=1.0))[0][0]
        assert TOKENIZER.unk_token_id not in row, example.text
    assert TOKENIZER.unk_token_id in TOKENIZER("quokka")["input_ids"]


def test_encoding_in_parts_equals_encoding_the_sentence():
    rng = random.Random(1)
    examples = [TASKS[task].generate(WORLD, rng, "train") for task in TASKS for _ in range(20)]
    for example, (ids, weights) in zip(examples, encode(examples, TOKENIZER, rng, MIX), strict=True):
        whole = TOKENIZER(example.text, add_special_tokens=False)["input_ids"]
        assert ids[1:] == whole[1:]  # the first word may be capitalised
        answers = [TOKENIZER.convert_tokens_to_ids(answer) for _, answer in example.turns]
        assert [i for i, w in zip(ids, weights, strict=True) if w == 1.0] == answers


def test_batches_are_seeded_bounded_and_padded_on_the_right():
    first = list(itertools.islice(batches(WORLD, TOKENIZER, MIX, tokens=512, seed=3, pool=256), 6))
    again = list(itertools.islice(batches(WORLD, TOKENIZER, MIX, tokens=512, seed=3, pool=256), 6))
    other = next(batches(WORLD, TOKENIZER, MIX, tokens=512, seed=4, pool=256))
    assert all(
        torch.equal(a.input_ids, b.input_ids) and torch.equal(a.weights, b.weights)
        for a, b in zip(first, again, strict=True)
    )
    assert not (
        other.input_ids.shape == first[0].input_ids.shape and torch.equal(other.input_ids, first[0].input_ids)
    )
    for batch in first:
        padding = batch.input_ids == TOKENIZER.pad_token_id
        assert batch.n_tokens <= 512 or len(batch.input_ids) == 1
        assert bool((padding.int().diff(dim=1) >= 0).all())
        assert float(batch.weights[padding].sum()) == 0.0
        assert bool((batch.input_ids[:, 0] == TOKENIZER.bos_token_id).all())


def test_held_out_addition_never_reaches_a_batch():
    plus, equals = (TOKENIZER.convert_tokens_to_ids(token) for token in "+=")
    seen = set()
    for batch in itertools.islice(batches(WORLD, TOKENIZER, Mix({"addition": 1.0}), tokens=4096, seed=0), 20):
        for row in batch.input_ids.tolist():
            for a, sign, b, end in zip(row, row[1:], row[2:], row[3:], strict=False):
                if (sign, end) == (plus, equals):
                    seen.add(tuple(sorted(TOKENIZER.convert_ids_to_tokens([a, b]), key=int)))
    assert len(seen) > 300
    assert not any(is_held_out("addition", *pair) for pair in seen)
