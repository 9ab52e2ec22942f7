# Everything works on a fresh machine: each target first makes the .venv it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: install docs notebook demo digits curves compare equal-footing five-levels bottleneck source-conditions near-the-floor rules-table search results studies studies-quick test test-learning test-chaos test-compiled test-mutations test-oldest test-all lint bench tensorboard clean

install: $(STAMP)

# A Python that is asked for (make install PYTHON=python3.12) takes the place of another one in .venv.
VERSION := -c 'import sys; print(sys.version_info[:2])'
ifneq ($(origin PYTHON),file)
ifneq ($(shell $(PYTHON) $(VERSION)),$(shell $(BIN)/python $(VERSION) 2>/dev/null))
.PHONY: $(STAMP)
endif
endif

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=python3.12, say; $(PYTHON) is another, or none' >&2; exit 1; }
	$(PYTHON) -m venv $$(test "$$($(PYTHON) $(VERSION))" = "$$($(BIN)/python $(VERSION) 2>/dev/null)" || echo --clear) $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/rhm demo

# Handwritten digits as strings of one's own: four rules and a control, fifteen replicas each (docs/own-data.md).
DIGITS := backprop dfa clapp exchange_clustering frozen_below_top
digits: $(STAMP)
	$(BIN)/python examples/digits.py write runs/digits/digits.npz
	for rule in $(DIGITS); do \
	  wide=; test $$rule != clapp || wide=--model.network.bottleneck=4v; \
	  $(BIN)/rhm fit -c examples/digits.yaml -c configs/rules/$$rule.yaml --model.network.width=64 $$wide --tables=false --run_dir=runs/digits/$$rule || exit 1; \
	done
	$(BIN)/rhm curves --run_dirs="[$$(echo $(DIGITS) | sed 's#[^ ]*#runs/digits/&#g; s/ /,/g')]" --out=runs/digits/learning_curves.png
	$(BIN)/python examples/digits.py linear examples/digits.yaml

# The learning curves of docs/first-steps.md: 4,000 steps of fifteen replicas for each of five rules (800 where layers count and have no gradient), about ten minutes on 2 cores.
CURVES := exchange_clustering_label backprop_bottleneck sibling_contrastive class_contrastive dfa
curves: $(STAMP)
	for rule in $(CURVES); do \
	  steps=4000; test $$rule != exchange_clustering_label || steps=800; \
	  $(BIN)/rhm fit -c configs/tasks/curves_L4.yaml -c configs/rules/$$rule.yaml --model.network.width=64 --trainer.max_steps=$$steps --run_dir=runs/curves/$$rule || exit 1; \
	done
	$(BIN)/rhm curves --run_dirs="[$$(echo $(CURVES) | sed 's#[^ ]*#runs/curves/&#g; s/ /,/g')]" --out=runs/curves/learning_curves.png

# Every rule with the same search at L = 3; writes the tables of docs/rules.md. About an hour on 2 idle cores.
compare: $(STAMP)
	$(BIN)/rhm sweep -c configs/comparisons/all_rules.yaml --run_dir=runs/all_rules && $(BIN)/rhm report runs/all_rules --tables=docs/rules.md

# The rules that decide the paper's claims, searched alike at L = 4 and L = 3; writes the tables of docs/equal-footing.md. About two hours on 2 idle cores.
equal-footing: $(STAMP)
	$(BIN)/rhm sweep -c configs/comparisons/equal_footing.yaml --run_dir=runs/equal_footing && $(BIN)/rhm report runs/equal_footing --tables=docs/equal-footing.md
	cp runs/equal_footing/report/learning_curves.png docs/images/equal_footing.png

# A study's file, the folder for its run, options: with the searches whose choices lie beside its page already, unless SEARCH is set; then the page.
PAGE = page() { name=$$(basename $$1 .yaml); chosen=docs/results/$$name/chosen.json; \
	  $(BIN)/rhm sweep -c $$1 --run_dir=$$2/$$name $$3 $$(test -n "$(SEARCH)" || test ! -f $$chosen || echo --chosen=$$chosen) && \
	  $(BIN)/rhm report $$2/$$name --out=docs/results/$$name --linked=true; }; page

# The rival and the two layerwise rules at L = 5, searched alike; writes the page docs/results/equal_footing_L5. About an hour on 2 idle cores.
five-levels: $(STAMP)
	$(PAGE) configs/comparisons/equal_footing_L5.yaml runs$(if $(SEARCH),/search)

# The same rules with a bottleneck of v, and without; writes the page docs/results/bottleneck. About half an hour on 2 idle cores.
bottleneck: $(STAMP)
	$(PAGE) configs/comparisons/bottleneck.yaml runs$(if $(SEARCH),/search)

# The source group's own pairs under the conditions of its public code, in small; writes the page docs/results/source_conditions. About half an hour on 2 idle cores.
source-conditions: $(STAMP)
	$(PAGE) configs/comparisons/source_conditions.yaml runs$(if $(SEARCH),/search) --quick

# Rules that count, on ten grammars each; writes the tables of docs/near-the-floor.md. About fifty minutes on 2 idle cores.
near-the-floor: $(STAMP)
	$(BIN)/rhm sweep -c configs/comparisons/near_the_floor.yaml --run_dir=runs/near_the_floor && $(BIN)/rhm report runs/near_the_floor --tables=docs/near-the-floor.md
	cp runs/near_the_floor/report/sample_complexity.png docs/images/near_the_floor.png

# Rules with the settings of their own files at L = 3, twelve replicas a run; writes the table of docs/rules-at-their-best.md.
rules-table: $(STAMP)
	$(BIN)/rhm sweep -c configs/comparisons/at_their_best.yaml --run_dir=runs/at_their_best && $(BIN)/rhm report runs/at_their_best --tables=docs/rules-at-their-best.md

# Rules without negatives, twenty settings each, and the best of each on five other seeds.
search: $(STAMP)
	$(BIN)/rhm sweep -c configs/comparisons/without_negatives.yaml --run_dir=runs/without_negatives && $(BIN)/rhm report runs/without_negatives

# All tables and pages of docs/: about ten hours on 2 idle cores; what is finished is not made again.
results: compare rules-table equal-footing five-levels bottleneck source-conditions near-the-floor studies-quick

# The six studies of the paper's claims, that of statistics, and their pages. Quick: about an hour together on 2 idle cores, with what their
# searches have chosen before; SEARCH=again makes these, too, in a folder of its own: two and a half hours. Full: one GPU.
STUDIES := data_efficiency depth direct_feedback masking negative_control labels statistics
QUICK := runs/studies-$(if $(SEARCH),search,quick)
studies-quick: $(STAMP)
	for study in $(STUDIES); do $(PAGE) configs/studies/$$study.yaml $(QUICK) --quick || exit 1; done

studies: $(STAMP)
	for study in $(STUDIES); do \
	  $(BIN)/rhm sweep -c configs/studies/$$study.yaml --run_dir=runs/studies/$$study --jobs=4 && \
	  $(BIN)/rhm report runs/studies/$$study || exit 1; \
	done

test: lint
	$(BIN)/pytest -n 2 --dist worksteal -m "not learning and not chaos and not compiled" --durations=10

# Everything, the slow ones too.
test-all: test test-learning test-chaos test-compiled

test-learning: $(STAMP)
	$(BIN)/pytest -n 2 -m learning

# Runs on one and two ranks by each launcher, killed by SIGKILL ten times each, and other slow tests of processes.
test-chaos: $(STAMP)
	$(BIN)/pytest -n 2 -m chaos

# Each rule's step compiled, against the step as it is, about half a minute a rule.
test-compiled: $(STAMP)
	$(BIN)/pytest -n 2 -m compiled

# Each rule's update broken one term at a time, in memory: its equation must notice. Writes the table of docs/testing.md.
test-mutations: $(STAMP)
	$(BIN)/python tests/mutations.py --out=docs/testing.md

# The tests of `make test` with the oldest versions that pyproject.toml allows, in an environment of its own (3 GB: torch 2.6 comes with CUDA).
test-oldest:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/pip install --quiet --disable-pip-version-check -c constraints-oldest.txt -e '.[dev]'
	.venv-oldest/bin/pytest -n 2 --dist worksteal -m "not learning and not chaos and not compiled"

# The pages of docs/ and of all docstrings as a site, site/index.html. A warning is an error: a link that leads nowhere is one.
docs: $(VENV)/docs
	rm -rf site
	$(BIN)/sphinx-build -q -E -W -c docs -d build/doctrees . site

$(VENV)/docs: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

# Runs the cells of examples/first_curve.ipynb and writes what they print and draw into it: about two minutes on 2 cores.
notebook: $(STAMP)
	$(BIN)/python tests/helpers/notebook.py examples/first_curve.ipynb

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python -m benchmarks

tensorboard: $(STAMP)
	$(BIN)/tensorboard --logdir runs

clean:
	rm -rf $(VENV) build site docs/api *.egg-info .pytest_cache .mypy_cache .ruff_cache
