"""Grammars from JSON: what is refused of them. What is taken is in ``test_model.py``."""

from __future__ import annotations

import json

import pytest

from rhm import InvalidInput, RandomHierarchyModel
from rhm.grammar_file import parsed_grammars, read_grammar

GRAMMAR = {
    "v": 3,
    "n": 2,
    "m": 2,
    "s": 2,
    "L": 2,
    "grammars": [
        {
            "seed": 7,
            "data_seed": 8,
            "rules": {
                "level 2": {"0": [[0, 0], [1, 2]], "1": [[2, 2], [2, 1]]},
                "level 1": {"0": [[0, 0], [0, 1]], "1": [[1, 0], [1, 1]], "2": [[2, 0], [0, 2]]},
            },
        }
    ],
}
"""Of three symbols, written by hand."""


def document(change=lambda content: None) -> str:
    content = json.loads(json.dumps(GRAMMAR))
    change(content)
    return json.dumps(content)


def rules(content: dict, level: int) -> dict:
    return content["grammars"][0]["rules"][f"level {level}"]


FAULTS = {
    "a tuple owned twice": (
        lambda c: rules(c, 1)["2"].__setitem__(0, [0, 1]),
        "level 1: got [0, 1], a tuple that is owned twice, by symbols 0 and 2, allowed: distinct tuples",
    ),
    "a symbol outside": (
        lambda c: rules(c, 2)["1"].__setitem__(0, [2, 3]),
        "level 2: got [2, 3] of symbol 1, allowed: symbols in",
    ),
    "a flag": (lambda c: rules(c, 2)["1"].__setitem__(0, [2, True]), "level 2: got [2, true] of symbol 1, allowed: symbols in"),
    "a fraction": (
        lambda c: rules(c, 2)["1"].__setitem__(0, [2, 1.0]),
        "level 2: got [2, 1.0] of symbol 1, allowed: symbols in",
    ),
    "a longer tuple": (lambda c: rules(c, 1)["0"][0].append(1), "level 1: got [0, 0, 1] of symbol 0, allowed: tuples of s=2"),
    "no tuple": (lambda c: rules(c, 1)["0"].__setitem__(1, 5), "level 1: got 5 of symbol 0, allowed: tuples of s=2"),
    "a rule too few": (lambda c: rules(c, 1)["1"].pop(), "level 1: got 1 rules of symbol 1, allowed: m=2 rules of each"),
    "a rule too many": (lambda c: rules(c, 1)["1"].append([2, 2]), "level 1: got 3 rules of symbol 1, allowed: m=2 rules"),
    "no rules": (lambda c: rules(c, 1).__setitem__("1", None), "level 1: got null of symbol 1, allowed: m=2 rules"),
    "a symbol too few": (lambda c: rules(c, 1).pop("2"), "level 1: got symbols 0, 1, allowed: the symbols 0 to 2"),
    "a symbol too many": (
        lambda c: rules(c, 2).__setitem__("2", []),
        "level 2: got symbols 0, 1, 2, allowed: the symbols 0 to 1",
    ),
    "a level too few": (lambda c: c["grammars"][0]["rules"].pop("level 2"), "rules: got level 1, allowed: level 2 to level 1"),
    "another depth": (lambda c: c.__setitem__("L", 3), "rules: got level 2, level 1, allowed: level 3 to level 1"),
    "an impossible task": (lambda c: c.__setitem__("m", 4), "m: got 4, allowed: m*v at most v**s"),
    "no size": (lambda c: c.pop("v"), "keys: got n, m, s, L, grammars, allowed: v, n, m, s, L"),
    "an unknown key": (lambda c: c.__setitem__("w", 1), "keys: got v, n, m, s, L, grammars, w, allowed: v, n, m, s, L"),
    "no grammar": (lambda c: c["grammars"].clear(), "grammars: got [], allowed: a list of one or more"),
    "a grammar that is none": (lambda c: c.__setitem__("grammars", [1]), "grammars: got [1], allowed: a list"),
    "a seed that is none": (lambda c: c["grammars"][0].__setitem__("seed", -1), "seed: got -1, allowed: an integer in"),
    "frequencies that sum to less": (
        lambda c: c.__setitem__("frequencies", {"level 2": [0.5, 0.4]}),
        "frequencies of level 2: got 2 numbers that sum to 0.9, allowed: m=2 numbers",
    ),
    "frequencies of no level": (
        lambda c: c.__setitem__("frequencies", {"level 3": [0.5, 0.5]}),
        "frequencies: got level 3, allowed: some of level 2, level 1",
    ),
    "frequencies of nothing": (
        lambda c: c.__setitem__("frequencies", [0.5]),
        "frequencies: got [0.5], allowed: some of level 2",
    ),
    "no levels": (lambda c: c["grammars"][0].__setitem__("rules", []), "rules: got [], allowed: level 2 to level 1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_a_grammar_is_refused_in_a_line_that_names_it(fault, tmp_path):
    change, line = FAULTS[fault]
    with pytest.raises(InvalidInput) as caught:
        parsed_grammars(document(change))
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)
    path = tmp_path / "g.json"
    path.write_text(document(change), encoding="utf-8")
    with pytest.raises(InvalidInput) as caught:
        read_grammar(str(path))
    assert str(caught.value).startswith(f"grammar: got {path} with {line.partition(', allowed')[0].replace(' got', '')}")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (None, "a file that exists"),
        ("", "a whole JSON file"),
        (document()[:-40], "a whole JSON file"),
        ("[" * 100_000, "a whole JSON file"),
        ("[]", "v, n, m, s, L, grammars"),
        (document(lambda c: c["grammars"].append(c["grammars"][0])), "a file with one, which all replicas have"),
    ],
)
def test_a_file_without_one_whole_grammar_is_refused(text, line, tmp_path):
    path = tmp_path / "g.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput) as caught:
        read_grammar(str(path))
    assert caught.value.key == "grammar" and caught.value.allowed.startswith(line) and "\n" not in str(caught.value)


def test_a_grammar_written_by_hand_is_read_as_it_stands():
    found = parsed_grammars(document(lambda c: [c["grammars"][0].pop(key) for key in ("seed", "data_seed")]))
    assert vars(found.task) == {"v": 3, "n": 2, "m": 2, "s": 2, "L": 2} and found.seeds == found.data_seeds == [0]
    for level, owned in found.rules.items():
        assert owned.tolist() == [[rules(GRAMMAR, level)[symbol] for symbol in sorted(rules(GRAMMAR, level))]]


def test_a_fingerprint_is_of_the_rules_and_their_frequencies_alone():
    found = parsed_grammars(document()).fingerprint
    assert parsed_grammars(document(lambda c: c["grammars"][0].__setitem__("seed", 1))).fingerprint == found
    assert parsed_grammars(json.dumps(json.loads(document()), sort_keys=True, indent=1)).fingerprint == found
    assert parsed_grammars(document(lambda c: rules(c, 2)["0"].reverse())).fingerprint != found
    larger = {"v": 4, "n": 4, "m": 3, "s": 2, "L": 3}
    unequal = [RandomHierarchyModel(**larger, frequencies=of) for of in ({}, {1: (0.5, 0.25, 0.25)}, {2: (0.5, 0.25, 0.25)})]
    assert len({parsed_grammars(model.to_json()).fingerprint for model in unequal}) == 3
