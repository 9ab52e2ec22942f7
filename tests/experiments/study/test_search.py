"""The search: what is asked, what goes on, what is chosen, and that a kill changes nothing of it."""

from __future__ import annotations

import json
import math
from collections import Counter
from contextlib import suppress

import optuna
import pytest
import yaml
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from sweeps import GROUP, SEARCH, MadeUp, sweep, write

from experiments.study.grid import expand
from experiments.study.search import Tuner, open_storage
from experiments.study.study import Rule, Search, Sizes, Study
from rhm import InvalidInput

RATE = {"model.optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True}}
SPACE = {**RATE, "model.network.bottleneck": [None, "v", "2v"], "model.network.normalise": [False, True]}


def tuner(settings=SPACE, storage=None, rule=None, seeds=(100, 101), **search):
    own = Search(settings, seeds=list(seeds), **{"steps": 180, **search})
    study = Study([rule or Rule("backprop")], [{"L": 3}], Sizes([64, 512]), search=own, test_size=1000)
    return Tuner(expand(study)[0][0], InMemoryStorage() if storage is None else storage)


def whole(own, accuracy, rounds=None):
    """A search with accuracies that are made up, and the runs that it made, by round and rung."""
    made = []
    for number in range(1, (rounds or own.search.rounds) + 1):
        own.begin(number)
        for rung in range(own.search.rungs):
            made.append(own.runs(rung))
            own.hear(rung, lambda run: accuracy(given(run)))
    return made


def given(run):
    pairs = (argument.removeprefix("--").split("=", 1) for argument in run.args)
    return {key: yaml.safe_load(value) for key, value in pairs}


def peak(settings):
    """Best at a rate of 0.01."""
    return [0.9 - 0.1 * abs(math.log10(settings["model.optimizer.lr"] / 0.01))] * 4


def peak_or_file(settings):
    return peak(settings) if "model.optimizer.lr" in settings else [0.5] * 4


# -------------------------------------------------------------------- what is asked


def test_lists_are_drawn_without_repetition_until_all_are_tried():
    lists = {"model.optimizer.lr": [1, 2, 3], "model.clip": [4, None], "model.block": [{"head": 2}, {"head": [1]}]}
    for trials in 5, 12:
        own = tuner(lists, trials=trials)
        own.begin(1)
        shown = [json.dumps(settings) for settings in own.settings.values()]
        assert len(set(shown)) == trials and all(list(json.loads(text)) == list(lists) for text in shown)
        assert {json.dumps(s["model.block"]) for s in own.settings.values()} <= {'{"head": 2}', '{"head": [1]}'}


def test_rules_are_shown_the_same_draws_of_what_they_share_and_a_range_is_drawn_evenly_in_its_logarithm():
    own, other = tuner(trials=60), tuner(trials=60, rule=Rule("dfa", search={"model.feedback_scale": {"low": 0.1, "high": 2}}))
    own.begin(1)
    other.begin(1)
    assert [{**s, "model.feedback_scale": 0} for s in own.settings.values()] == [
        {**s, "model.feedback_scale": 0} for s in other.settings.values()
    ]
    places = sorted(math.log10(s["model.optimizer.lr"]) + 4 for s in own.settings.values())
    assert max(abs(place / 3 - (i + 0.5) / 60) for i, place in enumerate(places)) < 1.63 / 60**0.5  # Kolmogorov, 1 %
    left_out = tuner(trials=2, rule=Rule("gevb", search={"model.network.normalise": None}))
    left_out.begin(1)
    assert all("model.network.normalise" not in settings for settings in left_out.settings.values())


def test_few_draws_of_a_hypercube_cover_each_range_and_list_and_are_those_of_all_rules_that_have_the_setting():
    more = {"model.network.normalise": None, "model.feedback_scale": {"low": 0.1, "high": 2}}
    own, other = (tuner(trials=9, sampler="hypercube", rule=rule) for rule in (None, Rule("dfa", search=more)))
    own.begin(1)
    other.begin(1)
    parts = [math.floor(9 * (math.log10(s["model.optimizer.lr"]) + 4) / 3) for s in own.settings.values()]
    assert sorted(parts) == list(range(9)) != parts
    assert sorted(math.floor(9 * (s["model.feedback_scale"] - 0.1) / 1.9) for s in other.settings.values()) == list(range(9))
    bottlenecks = [s["model.network.bottleneck"] for s in own.settings.values()]
    assert Counter(bottlenecks) == {None: 3, "v": 3, "2v": 3}
    pairs = {(s["model.network.bottleneck"], s["model.network.normalise"]) for s in own.settings.values()}
    assert len(pairs) > 4  # settings are not drawn in one order
    for name in "model.optimizer.lr", "model.network.bottleneck":
        assert [s[name] for s in own.settings.values()] == [s[name] for s in other.settings.values()]


def test_a_hypercube_covers_its_ranges_beside_what_is_tried_first():
    own = tuner(trials=15, sampler="hypercube", first=[{"model.optimizer.lr": 0.05}] * 6)
    own.begin(1)
    parts = [math.floor(9 * (math.log10(s["model.optimizer.lr"]) + 4) / 3) for s in own.settings.values()]
    assert own.settings[1]["model.optimizer.lr"] == 0.05 and sorted(parts[6:]) == list(range(9))


def test_settings_of_a_person_are_tried_first_and_what_they_do_not_say_is_drawn_alike_for_all_rules():
    first = [{"model.optimizer.lr": 0.02, "model.network.bottleneck": "v"}, {"model.feedback_scale": 1}]
    drawn, own = tuner(trials=4), tuner(trials=4, first=first[:1])
    other = tuner(trials=4, rule=Rule("dfa", search={"model.feedback_scale": {"low": 0.1, "high": 2}}), first=first)
    for each in drawn, own, other:
        each.begin(1)
    assert own.settings[0].items() >= first[0].items() and own.settings[0]["model.network.normalise"] in (False, True)
    assert [own.settings[i] for i in (1, 2, 3)] == [drawn.settings[i] for i in (1, 2, 3)]
    assert {**other.settings[0], "model.feedback_scale": 0} == {**own.settings[0], "model.feedback_scale": 0}
    assert other.settings[1]["model.feedback_scale"] == 1 and other.settings[2].items() >= own.settings[2].items()
    again = tuner(trials=4, first=first[:1], storage=own.optuna._storage)
    again.begin(1)
    assert again.settings == own.settings


@pytest.mark.parametrize(
    ("settings", "first", "key", "words"),
    [
        (SPACE, {"model.optimizer.lr": 1.0}, "search.first.model.optimizer.lr", "a number from 0.0001 to 0.1"),
        (SPACE, {"model.optimizer.lr": True}, "search.first.model.optimizer.lr", "a number from 0.0001 to 0.1"),
        (SPACE, {"model.network.bottleneck": "4v"}, "search.first.model.network.bottleneck", "one of [None, 'v', '2v']"),
        (SPACE, {"model.network.normalise": 1}, "search.first.model.network.normalise", "one of [False, True]"),
        (SPACE, {"model.optimiser.lr": 0.01}, "search.first.model.optimiser.lr", "model.optimizer.lr"),
        (
            {"model.optimizer.lr": [0.1, 0.2]},
            {"model.optimizer.lr": 0.1},
            "search.first",
            "none, as settings of backprop are all lists",
        ),
    ],
)
def test_settings_that_cannot_be_tried_first_are_refused(settings, first, key, words):
    with pytest.raises(InvalidInput) as error:
        tuner(settings, trials=2, first=[first])
    assert error.value.key == key and words in error.value.allowed
    with pytest.raises(InvalidInput, match="search.first: got 3 settings, allowed: at most search.trials=2"):
        tuner(trials=2, first=[{}] * 3)


def test_the_last_rung_has_more_grammars_which_no_figure_uses():
    own = tuner(trials=9, rungs=2, more_seeds=[102, 103, 104])
    made = whole(own, peak)
    assert [{run.replicas for run in runs} for runs in made] == [{4}, {10}]
    assert own.budget == 9 * 60 * 4 + 3 * 180 * 10
    assert sum(run.steps * run.replicas for run in own.combination.search_runs()) == own.budget
    for more in [101], [0], [102, 102]:
        with pytest.raises(InvalidInput, match="search.more_seeds"):
            tuner(trials=9, rungs=2, more_seeds=more)


def test_a_model_asks_by_the_results_of_earlier_rounds_and_random_draws_do_not():
    def other(settings):
        return [0.9 - 0.1 * abs(math.log10(settings["model.optimizer.lr"] / 0.0002))] * 4

    for sampler, same in ("tpe", False), ("random", True), ("hypercube", True):
        one, two = (tuner(trials=24, rounds=2, sampler=sampler) for _ in range(2))
        whole(one, peak)
        whole(two, other)
        first = [[own.settings[i] for i in range(12)] for own in (one, two)]
        second = [[own.settings[i] for i in range(12, 24)] for own in (one, two)]
        assert first[0] == first[1] and (second[0] == second[1]) == same
        if sampler == "tpe":
            means = [sum(math.log10(s["model.optimizer.lr"]) for s in settings) / 12 for settings in second]
            assert means[0] > means[1] + 0.5


# -------------------------------------------------------------------- what goes on


def test_the_best_third_goes_on_to_runs_three_times_as_long_and_the_budget_is_counted():
    own = tuner(trials=9, rungs=3)
    rungs = whole(own, peak)
    assert [[run.steps for run in runs] for runs in rungs] == [[20] * 9, [60] * 3, [180]]
    assert all(f"--trainer.max_steps={run.steps}" in run.args for runs in rungs for run in runs)
    assert [len({run.name for run in runs}) for runs in rungs] == [9, 3, 1] and len(
        {r.name for runs in rungs for r in runs}
    ) == 13
    order = sorted(own.settings.values(), key=lambda s: -peak(s)[0])
    by_rung = [[given(run)["model.optimizer.lr"] for run in runs] for runs in rungs]
    assert sorted(by_rung[1]) == sorted(s["model.optimizer.lr"] for s in order[:3])
    found = own.chosen()
    assert found.settings == order[0] and by_rung[2] == [order[0]["model.optimizer.lr"]] and found.accuracy == peak(order[0])[0]
    assert found.run == rungs[2][0].name and found.tried == 9 and found.failed == 0
    assert found.budget == (9 * 20 + 3 * 60 + 180) * 4  # two sizes, two seeds
    assert sum(r.steps * r.replicas for r in own.combination.search_runs()) == found.budget
    trials = own.optuna.get_trials()
    assert [t.state for t in trials].count(TrialState.PRUNED) == 8 and [t.state for t in trials].count(TrialState.COMPLETE) == 1
    assert max(trials, key=lambda t: t.value or 0).intermediate_values.keys() == {20, 60, 180}


def test_what_was_left_behind_is_not_chosen_even_where_short_runs_were_better():
    own = tuner(trials=9, rungs=2)
    whole(own, lambda settings: peak(settings) if settings["trainer.max_steps"] < 180 else [0.2] * 4)
    assert own.chosen().accuracy == 0.2


def test_a_rung_at_chance_tells_nothing_so_that_all_go_on_and_the_search_says_so():
    def late(settings):
        """At chance (1/8, and what one replica in four has by luck) until 60 steps; then as different as they are."""
        return [0.125, 0.125, 0.125, 0.42] if settings["trainer.max_steps"] < 60 else peak(settings)

    own = tuner(trials=9, rungs=3)
    assert [len(runs) for runs in whole(own, late)] == [9, 9, 3]
    assert own.at_chance == ["after 20 steps no setting has learned (best 0.199): all 9 go on"]
    assert own.chosen().settings == max(own.settings.values(), key=lambda s: peak(s)[0])
    assert own.chosen().budget == (9 * 20 + 9 * 60 + 3 * 180) * 4

    own = tuner(trials=9, rungs=3)  # a little more than a tenth of the way from 1/8 to 1 is something
    assert [len(runs) for runs in whole(own, lambda s: [0.22] * 4)] == [9, 3, 1] and own.at_chance == []

    own = tuner(trials=9, rungs=2)
    failing = whole(own, lambda s: None if s["model.optimizer.lr"] > 0.003 else [0.15] * 4)
    lost = sum(s["model.optimizer.lr"] > 0.003 for s in own.settings.values())
    assert lost and [len(runs) for runs in failing] == [9, 9 - lost]
    assert own.at_chance[1:] == ["after 180 steps no setting has learned (best 0.150): the longest that the search has"]


def test_what_a_rules_file_has_takes_part_in_all_rungs_and_is_chosen_where_no_draw_is_better():
    def bad_at_first(settings):
        """The file's is the worst of all until the last rung, and there better than any draw."""
        drawn = "model.optimizer.lr" in settings
        return peak(settings) if drawn else [0.95 if settings["trainer.max_steps"] == 180 else 0.3] * 4

    own = tuner(trials=9, rungs=3, rule=Rule("backprop", settings={"model.clip": 2}), own_file=True)
    rungs = whole(own, bad_at_first)
    assert [len(runs) for runs in rungs] == [10, 4, 2]
    files = [run for runs in rungs for run in runs if "model.optimizer.lr" not in given(run)]
    assert len(files) == len({run.name for run in files}) == 3 and all(given(run)["model.clip"] == 2 for run in files)
    found = own.chosen()
    assert found.settings == {} and found.accuracy == 0.95 and found.at_edge == [] and found.tried == 10
    assert found.run == files[-1].name and found.run.endswith("/search-own-180")
    assert found.budget == sum(r.steps * r.replicas for r in own.combination.search_runs()) == (10 * 20 + 4 * 60 + 2 * 180) * 4
    drawn = tuner(trials=9, rungs=3)
    whole(drawn, peak)
    assert drawn.settings == {n: s for n, s in own.settings.items() if n >= 0}
    more = tuner(trials=9, rungs=3, own_file=True, finalists=3, more_seeds=[102])
    made = whole(more, peak_or_file)
    finals = [more.run(*final, more=True) for final in more.finals()]
    assert [len(runs) for runs in made] == [10, 4, 2] and len(finals) == 8  # the last rung has two
    assert len(more.combination.search_runs()) == 10 + 4 + 2 + 8
    late = tuner(trials=9, rungs=2, own_file=True)  # a file that has learned does not tell the others apart
    assert [len(runs) for runs in whole(late, lambda s: [0.15 if "model.optimizer.lr" in s else 0.9] * 4)] == [10, 10]
    again = tuner(trials=9, rungs=3, own_file=True)
    whole(again, peak_or_file)
    assert again.chosen().settings == drawn.chosen().settings


def test_every_rule_has_the_same_budget_whatever_the_sizes_of_its_grid():
    sizes = Sizes([128])
    study = Study(
        [Rule("backprop"), Rule("dfa", sizes=Sizes([32, 64, 4096]))],
        [{"L": 3}],
        Sizes([64]),
        search=Search(RATE, trials=6, rounds=2, rungs=2, sizes=sizes, steps=90),
    )
    one, two = (c.search_runs() for c in expand(study)[0])
    assert [(r.steps, r.sizes, r.seeds) for r in one] == [(r.steps, r.sizes, r.seeds) for r in two]
    assert [r.steps for r in one] == [30] * 6 + [90] * 2


def test_settings_that_fail_never_go_on_and_where_all_fail_nothing_is_chosen():
    def some(settings):
        return None if settings["model.optimizer.lr"] > 0.003 else peak(settings)

    own = tuner(trials=9, rungs=2)
    rungs = whole(own, some)
    lost = sum(s["model.optimizer.lr"] > 0.003 for s in own.settings.values())
    assert 0 < lost < 6 and len(rungs[1]) == 3
    assert own.chosen().settings["model.optimizer.lr"] <= 0.003 and own.chosen().failed == lost
    assert [t.state for t in own.optuna.get_trials()].count(TrialState.FAIL) == lost
    own = tuner(trials=9, rungs=2)
    assert [len(runs) for runs in whole(own, lambda settings: None)] == [9, 0] and own.chosen() is None


# -------------------------------------------------------------------- what is chosen


def test_a_tie_is_won_by_the_simplest_settings_and_what_is_no_tie_by_the_best():
    lists = {
        "model.optimizer.lr": [0.1, 0.2],
        "model.network.bottleneck": [None, "v"],
        "model.network.normalise": [False, True],
    }

    def chosen(accuracy):
        own = tuner(lists, trials=8)
        whole(own, lambda s: [accuracy(s)] * 4)
        return own.chosen().settings

    def on(settings):
        return (settings["model.network.bottleneck"] is not None) + settings["model.network.normalise"]

    equal = chosen(lambda s: 1.0)
    assert equal["model.network.bottleneck"] is None and equal["model.network.normalise"] is False
    error = math.sqrt(0.8 * 0.2 / 4000)  # 1,000 test strings, four replicas
    for rate in 0.1, 0.2:
        near = chosen(lambda s, r=rate: 0.8 - 0.8 * error * (on(s) == 0) - 0.1 * error * (s["model.optimizer.lr"] != r))
        assert near == {"model.optimizer.lr": rate, "model.network.bottleneck": None, "model.network.normalise": False}
    best = chosen(lambda s: 0.8 - 0.6 * error * (2 - on(s)))
    assert best["model.network.bottleneck"] == "v" or best["model.network.normalise"] is True
    far = chosen(lambda s: 0.8 - 1.1 * error * (2 - on(s)))
    assert far["model.network.bottleneck"] == "v" and far["model.network.normalise"] is True


def test_a_value_at_an_end_of_its_range_is_named():
    own = tuner(trials=40)
    whole(own, lambda settings: [0.9 + 0.1 * math.log10(settings["model.optimizer.lr"])] * 4)
    assert own.chosen().at_edge == ["model.optimizer.lr"]
    own = tuner(trials=40)
    whole(own, peak)
    assert own.chosen().at_edge == []


def test_the_best_of_shorter_runs_may_be_chosen_with_their_steps_by_what_they_do_on_more_grammars():
    """A rule that loses what it had when it is trained on; and the best setting of the first grammars is not that of others."""

    def lost(settings):
        return [x - 0.3 * (settings["trainer.max_steps"] != 20) for x in peak(settings)]

    own = tuner(trials=9, rungs=3, more_seeds=[102, 103, 104], finalists=2)
    rungs = whole(own, lost)
    assert {run.replicas for runs in rungs for run in runs} == {4}
    best, second = sorted(own.settings, key=lambda n: -peak(own.settings[n])[0])[:2]
    finals = own.finals()
    assert finals == [(best, 0), (second, 0), (best, 1), (second, 1), (best, 2)]
    made = [own.run(*final, more=True) for final in finals]
    assert [(run.steps, run.seeds) for run in made] == [(steps, [102, 103, 104]) for steps in (20, 20, 60, 60, 180)]

    def others(run):
        """A little better with the second setting, by less than the first was better before."""
        return [0.5 + 0.05 * (f"search-{second + 1}-" in run.name) - 0.3 * (run.steps != 20)] * 6

    own.hear_finals(others)
    found = own.chosen()
    assert (found.settings, found.steps, found.accuracy) == (own.settings[second], 20, 0.55) and "steps" in found.at_edge
    assert found.run == own.run(second, 0).name
    trial = found.trials[second]
    assert trial.settings == own.settings[second] and trial.finals == {"20": 0.55, "60": 0.25} and len(found.trials) == 9
    assert trial.accuracies == pytest.approx({"20": peak(trial.settings)[0], "60": peak(trial.settings)[0] - 0.3}, abs=1e-5)
    assert found.budget == (9 * 20 + 3 * 60 + 180) * 4 + (2 * 20 + 2 * 60 + 180) * 6
    assert sum(r.steps * r.replicas for r in own.combination.search_runs()) == found.budget


def test_finals_are_the_best_of_all_rounds():
    own = tuner(trials=8, rounds=4, rungs=2, more_seeds=[102], finalists=5)
    whole(own, peak)
    order = sorted(own.settings, key=lambda n: -peak(own.settings[n])[0])
    ended = set(own.found[1])
    assert [n for n, rung in own.finals() if rung == 0] == order[:5] and len(ended) == 4
    assert [n for n, rung in own.finals() if rung == 1] == [n for n in order if n in ended]
    own.hear_finals(lambda run: [0.5] * 2)
    assert own.search.stages == 4 * 2 + 1 and tuner(trials=9, rungs=3).search.stages == 3
    assert sum(r.steps * r.replicas for r in own.combination.search_runs()) == own.budget


def test_of_equal_ends_the_shortest_is_chosen_even_if_a_longer_one_is_a_little_better_and_a_final_that_fails_is_not():
    for failed, steps in ([], 20), ([20], 60), ([20, 60], 180), ([20, 60, 180], None):
        own = tuner(trials=9, rungs=3, more_seeds=[102], finalists=1)
        whole(own, lambda s: [1.0] * 4)
        own.hear_finals(lambda run, failed=failed: None if run.steps in failed else [0.9 + 1e-6 * run.steps] * 2)
        chosen = own.chosen()
        assert chosen is None if steps is None else (chosen.steps == steps and ("steps" in chosen.at_edge) == (steps != 60))
    own = tuner(trials=9, rungs=3)
    whole(own, peak)
    assert own.finals() == [] and own.chosen().steps is None
    own = tuner(trials=9, rungs=2, more_seeds=[102], finalists=1)
    whole(own, peak)
    own.hear_finals(lambda run: peak(given(run)))
    assert own.chosen().steps == 60 and "steps" not in own.chosen().at_edge  # of two lengths each is an end


def test_finalists_without_more_grammars_are_refused():
    with pytest.raises(InvalidInput, match="search.finalists: got 2, allowed: 0 without more_seeds"):
        tuner(trials=9, finalists=2)
    with pytest.raises(InvalidInput, match="search.finalists"):
        tuner(trials=9, finalists=-1)


def test_a_sweep_makes_its_figures_with_the_steps_that_were_chosen(tmp_path, monkeypatch, capsys):
    search = {"trials": 3, "rungs": 2, "more_seeds": [102], "finalists": 1, "steps": 6, "settings": RATE}
    study = write(tmp_path / "s.yaml", search=search, steps={"least": 9, "most": 9}, refine=1)
    runs = MadeUp(monkeypatch)
    for end in "search-1-2-more", "search-2-2-more", "search-3-2-more", "search-3-6-more", "grid":  # of what is made
        runs.interrupts = {end}
        with suppress(SystemExit):
            sweep(study, f"--run_dir={tmp_path / 'a'}")
    runs.interrupts = set()
    sweep(study, f"--run_dir={tmp_path / 'a'}")
    sweep(study, f"--run_dir={tmp_path / 'b'}")
    chosen, again = (json.loads((tmp_path / name / "chosen.json").read_text()) for name in "ab")
    assert chosen == again
    chosen = chosen[SEARCH]
    plan = {run["name"]: run for run in json.loads((tmp_path / "a/runs.json").read_text())["runs"]}
    more = [run for name, run in plan.items() if name.endswith("-more")]
    assert sorted(run["steps"] for run in more) == [2, 6] and chosen["steps"] in (2, 6)
    assert all(run["seeds"] == [102] for run in more)
    figures = [run for run in plan.values() if run["stage"] == "grid" or run["stage"].startswith("refined")]
    assert len(figures) >= 1 and all(run["steps"] == chosen["steps"] for run in figures)
    assert all(f"--trainer.max_steps={chosen['steps']}" in run["args"] for run in figures)
    content = json.loads((tmp_path / "a/chosen.json").read_text())
    content[SEARCH]["steps"] = 8 - chosen["steps"]  # as if another length had been chosen before, and runs been made with it
    (tmp_path / "a/chosen.json").write_text(json.dumps(content))
    sweep(study, f"--run_dir={tmp_path / 'a'}")
    assert json.loads((tmp_path / "a/chosen.json").read_text())[SEARCH]["steps"] == 8 - chosen["steps"]
    assert "runs with the settings chosen before exist: kept" in capsys.readouterr().out


def test_a_sweep_says_which_rungs_were_at_chance_in_the_terminal_and_in_the_notes_of_the_page(tmp_path, monkeypatch, capsys):
    search = {"trials": 2, "rungs": 2, "steps": 6, "settings": {"model.optimizer.lr": [0.1, 0.2]}}
    runs = MadeUp(monkeypatch)
    runs.accuracy = {0.1: 0.25, 0.2: 0.25}
    sweep(write(tmp_path / "s.yaml", search=search, refine=0), f"--run_dir={tmp_path / 'a'}")
    notes = json.loads((tmp_path / "a/runs.json").read_text())["notes"]
    shown = capsys.readouterr().out
    for told in "after 2 steps no setting has learned", "after 6 steps no setting has learned":
        assert any(note.startswith(f"search {SEARCH}: {told}") for note in notes) and told in shown
    assert sum("-search-" in name or "/search-" in name for name in runs.made) == 4


# -------------------------------------------------------------------- kills


@pytest.mark.parametrize("killed", range(5))
def test_a_search_that_was_killed_anywhere_asks_and_chooses_as_one_that_was_not(killed, tmp_path):
    """Five places: before a round's runs, after its first rung, after it, and in the next."""
    undisturbed = tuner(trials=12, rounds=2, rungs=2, sampler="tpe")
    whole(undisturbed, peak)
    own = tuner(storage=open_storage(tmp_path / "j"), trials=12, rounds=2, rungs=2, sampler="tpe")
    steps = [
        lambda: own.begin(1),
        *[lambda rung=rung: own.hear(rung, lambda run: peak(given(run))) for rung in (0, 1)],
        lambda: own.begin(2),
        lambda: own.hear(0, lambda run: peak(given(run))),
    ]
    for step in steps[: killed + 1]:
        step()
    again = tuner(storage=open_storage(tmp_path / "j"), trials=12, rounds=2, rungs=2, sampler="tpe")
    whole(again, peak)
    assert again.settings == undisturbed.settings and again.chosen() == undisturbed.chosen()
    values = [
        [(t.state, t.values, t.intermediate_values, t.params) for t in o.optuna.get_trials()] for o in (undisturbed, again)
    ]
    assert values[0] == values[1]


def test_half_a_line_half_a_trial_and_a_lock_that_a_kill_left_are_given_up(tmp_path):
    undisturbed = tuner(trials=6)
    whole(undisturbed, peak)
    own = tuner(storage=open_storage(tmp_path / "j"), trials=6)
    own.optuna.sampler = own._sampler(0)
    own.optuna.ask({name: own.distributions[name] for name in list(own.distributions)[:2]})
    (tmp_path / "j.lock").symlink_to("j")
    with (tmp_path / "j").open("ab") as file:
        file.write(b'{"op_code": 4, "tri')
    storage = open_storage(tmp_path / "j")
    assert not (tmp_path / "j.lock").is_symlink()  # for which Optuna would wait
    own = tuner(storage=storage, trials=6)
    whole(own, peak)
    assert list(own.settings.values()) == list(undisturbed.settings.values()) and 0 not in own.settings
    assert own.optuna.get_trials()[0].state == TrialState.FAIL
    names = optuna.get_all_study_names(open_storage(tmp_path / "j"))
    assert names == [own.combination.searched_as]


def test_a_sweep_that_is_interrupted_on_a_rung_goes_on_with_the_same_settings(tmp_path, monkeypatch):
    search = {"trials": 6, "rungs": 2, "rounds": 2, "sampler": "tpe", "settings": RATE}
    study = write(tmp_path / "s.yaml", search=search, steps={"least": 6, "most": 6})
    runs = MadeUp(monkeypatch)
    sweep(study, f"--run_dir={tmp_path / 'a'}")
    undisturbed, chosen = sorted(runs.made), json.loads((tmp_path / "a/chosen.json").read_text())
    assert len(undisturbed) == 9 and f"{GROUP}/grid" in undisturbed and chosen[SEARCH]["tried"] == 6
    runs.made = []
    for end in "search-2-2", "search-5-2", "grid":
        runs.interrupts = {end}
        try:
            sweep(study, f"--run_dir={tmp_path / 'b'}")
        except SystemExit as stop:
            assert stop.code == 130
    runs.interrupts = set()
    sweep(study, f"--run_dir={tmp_path / 'b'}")
    assert sorted(runs.made) == undisturbed and json.loads((tmp_path / "b/chosen.json").read_text()) == chosen
