# dsql-outbox: every task of the project. `make` lists them.
# All of it lives in .venv, made with plain `python3 -m venv` and pip; nothing global is needed.
# Another Python: `make clean`, then `make PYTHON=/path/to/python3 demo`.

PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,$(shell $(p) -c 'import sys; print("$(p)" if sys.version_info >= (3, 11) else "")' 2>/dev/null)))
VENV   := .venv
BIN    := $(VENV)/bin
UV     := UV_PROJECT_ENVIRONMENT=$(VENV) UV_PYTHON=$(BIN)/python UV_PYTHON_DOWNLOADS=never $(BIN)/uv
# A process without work takes tests from another. Each has its own servers. Five keep two cores busy:
# of the time of a test the half is a wait, for leases, other processes and deadlines.
XDIST  := -n $(or $(WORKERS),5) --dist worksteal
# COVERAGE=1 measures branches, also in the commands that tests start. The floor is in pyproject.toml.
ALL    := not pooler and not package and not site
PYTEST := $(if $(COVERAGE),$(BIN)/coverage run -m pytest,$(BIN)/pytest) $(XDIST) -m "$(ALL) and not slow"
# ROOM=writer selects the tests of one room. The contract of all sinks belongs to the brokers.
KINDS  := tests/unit tests/integration tests/faults
ROOMS  := $(sort $(filter-out __pycache__,$(notdir $(patsubst %/,%,$(wildcard $(addsuffix /*/,$(KINDS)))))))
TESTS  := $(wildcard $(foreach room,$(ROOM),$(addsuffix /$(room),$(KINDS)))) $(if $(filter brokers,$(ROOM)),tests/contract)
# What is about pages, packages, benchmarks, the repository and the tools of tests has a target of its own.
PROJECT := tests/unit/project tests/integration/project tests/conformance/stand_in tests/faults/testing
LIBRARY := $(addprefix --ignore=,$(PROJECT))
SYNC   := $(UV) sync --quiet --frozen --inexact

# pip and uv keep what they download in the user's cache. A user without a home gets one in .venv.
NO_CACHE := $(shell c="$${XDG_CACHE_HOME:-$${HOME:-/nowhere}/.cache}"; test -w "$$c" || { test ! -e "$$c" && test -w "$${c%/*}"; } || echo yes)
ifneq ($(NO_CACHE),)
export UV_CACHE_DIR  ?= $(CURDIR)/$(VENV)/.cache/uv
export PIP_CACHE_DIR ?= $(CURDIR)/$(VENV)/.cache/pip
endif
# Another environment that happens to be active is not ours.
unexport VIRTUAL_ENV
# Tests start hundreds of processes. Without bytecode each of them compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE

# Options of the nemesis, as in `make nemesis PUBLISHERS=3 EVENTS=200000 SEED=1 OPTIONS="--lease 2"`.
NEMESIS = $(if $(PUBLISHERS),--publishers $(PUBLISHERS)) $(if $(EVENTS),--events $(EVENTS)) \
	$(if $(SUBJECTS),--subjects $(SUBJECTS)) $(if $(SEED),--seed $(SEED)) $(if $(DOWN),--down $(DOWN)) $(if $(DOORBELL),--doorbell) $(if $(OPTIONS),--publish-options="$(OPTIONS)")

# The endpoint that `make conformance` makes, in front of PostgreSQL 16 and of 18.
SERVERS ?= dsql-16 dsql-18

# The checks that take seconds.
QUICK  := check-lint check-layers check-sql check-lock

.DEFAULT_GOAL := help
.PHONY: help cluster-report demo dev asyncapi recordings test test-slow test-project test-plain coverage test-pooler transcripts conformance endpoint repeat faults-writer check check-quick check-all check-format check-basedpyright check-mypy $(QUICK) fmt dist package-check release-check sbom audit test-lowest lock clean bench-peers docs examples fieldtest goals incidents life-kills nemesis nemesis-rolling night page pictures power pressure prose readme-check real-brokers simulate simulate-sql upgrade-pair console-check defects zip

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.run ## write 40 events under conflict, relay them to NATS, check and show what happened
	@$(BIN)/dsql-outbox demo

dev: $(VENV)/.run ## run the demo, and keep database, broker, publisher and console until Ctrl-C
	@$(BIN)/dsql-outbox demo --keep

test: $(VENV)/.dev ## test the library on real PostgreSQL and real NATS (both from wheels), or a ROOM=.. of it
	$(if $(filter-out $(ROOMS),$(ROOM)),$(error no room $(filter-out $(ROOMS),$(ROOM)): ROOM is one of $(ROOMS)))
	$(if $(COVERAGE),$(BIN)/coverage erase)
	$(PYTEST) $(or $(strip $(TESTS)),$(LIBRARY))
	$(if $(COVERAGE),$(BIN)/coverage combine --quiet && $(BIN)/coverage report)

coverage: ## test the library, and fail when too few branches are covered
	$(MAKE) test COVERAGE=1

test-slow: $(VENV)/.dev ## run the tests that `make test` leaves out, since each takes many seconds
	$(BIN)/pytest $(XDIST) -m slow $(LIBRARY)

test-project: $(VENV)/.dev ## test pages, packages, benchmarks, the repository itself and the tools of tests, also what is slow
	$(BIN)/pytest $(XDIST) -m "$(ALL)" $(PROJECT)

transcripts: $(VENV)/.dev ## write anew what commands print (tests/integration/cli/transcripts): read the diff
	-TRANSCRIPTS=write $(BIN)/pytest -q tests/integration/cli/test_transcripts.py
	git diff --stat tests/integration/cli/transcripts

repeat: $(VENV)/.dev ## run the tests N times, with new examples, beside LOAD busy loops, until one fails (PARTS=tests/..)
	@trap 'kill $$busy 2>/dev/null' EXIT; trap 'exit 130' INT TERM; \
	for loop in $$(seq 1 $(or $(LOAD),0)); do (while :; do :; done) & busy="$$busy $$!"; done; \
	for run in $$(seq 1 $(or $(N),10)); do \
		printf '\n+ run %s of %s\n' $$run $(or $(N),10); started=$$(date +%s); \
		FRESH=1 $(PYTEST) $(PARTS) || { printf '\nrun %s failed; seconds of those before it:%s\n' $$run "$${took:- none}"; exit 1; }; \
		took="$$took $$(($$(date +%s) - started))"; \
	done; \
	printf '\nno run failed; seconds of each:%s\n' "$$took"

faults-writer: $(VENV)/.dev ## run N random fault schedules against the writer, from SEED (DRIVERS=all: callers with sessions)
	$(BIN)/python -m benchmarks.writer.faults_writer $(or $(N),1000) $(or $(SEED),1) $(if $(DRIVERS),--drivers $(DRIVERS))

test-plain: $(VENV)/.dev ## run the tests of the writer on the plain form of its writes
	DSQL_OUTBOX_TEST_FORM=plain $(PYTEST) tests/faults/writer tests/integration/writer

test-pooler: $(VENV)/.dev ## run the tests behind a transaction pooler (Debian's package pgbouncer)
	@PATH="$$PATH:/usr/sbin" command -v pgbouncer > /dev/null || { echo "test-pooler needs pgbouncer: apt-get install pgbouncer" >&2; exit 1; }
	$(BIN)/pytest -n 2 -m pooler

conformance: $(VENV)/.dev $(VENV)/.conformance ## run the integration tests on an endpoint shaped like Aurora DSQL (SERVERS=.., ROOM=..)
	@$(BIN)/python -m tests.support.sql.lint
	@for server in $(or $(SERVERS),none); do \
		printf '\n+ %s\n' "$$server"; \
		DSQL_OUTBOX_TEST_SERVER=$$server $(PYTEST) $(or $(filter-out tests/unit/% tests/contract,$(TESTS)),tests/integration tests/faults) || exit; \
	done

endpoint: $(VENV)/.dev $(VENV)/.conformance ## run that endpoint, with outbox tables, until Ctrl-C
	@DSQL_OUTBOX_TEST_SERVER=$(firstword $(SERVERS)) $(BIN)/python -m tests.support.dsql

# Each tool runs, whatever another one says; the slowest begins first. What stops `fmt`, they say, too.
check: $(VENV)/.dev ## format, then lint, types (mypy), layers, SQL, lock file: all remarks of all tools
	-@$(MAKE) --no-print-directory fmt
	@$(MAKE) --no-print-directory -k -j2 check-mypy $(QUICK)

check-quick: $(VENV)/.dev ## the same without the types, in seconds
	-@$(MAKE) --no-print-directory fmt
	@$(MAKE) --no-print-directory -k -j2 $(QUICK)

check-all: $(VENV)/.dev ## what CI checks: the same as `make check` with basedpyright, and it writes no file
	@$(MAKE) --no-print-directory -k -j2 check-basedpyright check-mypy check-format $(QUICK)

check-basedpyright:
	$(BIN)/basedpyright

check-mypy:
	$(BIN)/mypy
	for folder in lambda adopting celery deploy fastapi kafka own_format rabbitmq read_model sqlalchemy webhook; do MYPYPATH=examples/$$folder $(BIN)/mypy examples/$$folder/*.py || red=yes; done; test -z "$$red"

check-format:
	$(BIN)/ruff format --check .

check-lint:
	$(BIN)/ruff check .

check-layers:
	$(BIN)/lint-imports

check-sql:
	$(BIN)/python -m tests.support.sql.lint --quiet

check-lock:
	$(UV) lock --check --offline --quiet

fmt: $(VENV)/.dev ## apply safe fixes, format, write the kept list of public names and tables
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .
	@$(BIN)/python -m tests.support.public_names

console-check: $(VENV)/.dev $(VENV)/.browser ## time each page of the console on ROWS rows, and look at it in Chromium (PICTURES=folder, OPTIONS=--brief)
	$(BIN)/python -m benchmarks.console --rows $(or $(ROWS),1000000) $(if $(PICTURES),--pictures $(PICTURES)) $(OPTIONS)

incidents: $(VENV)/.dev ## stage an incident to practise with, and tell its cause at Enter (ONLY=05; FOLDER=.. writes what each shows)
	@$(BIN)/python -m benchmarks.incidents $(if $(ONLY),--only $(ONLY)) $(if $(FOLDER),--folder $(FOLDER))

zip: $(VENV)/.dev ## make the Lambda example's build/lambda-x86_64.zip and -arm64.zip
	$(BIN)/python examples/lambda/package.py

cluster-report: $(VENV)/.dev ## ask a cluster of Aurora DSQL what no documentation answers (DATABASE=dsql://.. HOUR=1)
	@test -n "$(DATABASE)" || { echo "cluster-report needs DATABASE=URL" >&2; exit 2; }
	@$(BIN)/python -m benchmarks.cluster "$(DATABASE)" $(if $(HOUR),--hour)

bench-peers: $(VENV)/.dev $(VENV)/.peers ## writer and relay beside bare drivers, pgbench and other libraries (ONLY=batch,relay; OPTIONS=--json)
	@$(BIN)/python -m benchmarks.peers $(if $(ONLY),--only $(ONLY)) $(OPTIONS)

fieldtest: $(VENV)/.dev $(VENV)/.peers ## put the relay of each outbox library through six failures: lost, reordered, repeated (ONLY=txoutbox,..; SEEDS=2; OPTIONS="--harms kill --json")
	@$(BIN)/python -m benchmarks.fieldtest $(if $(ONLY),--only "$(ONLY)") $(if $(SEEDS),--seeds $(SEEDS)) $(OPTIONS)

examples: $(VENV)/.dev ## start each example, send it work, kill it in the middle and check the outcome (ONLY=sqlalchemy)
	$(BIN)/pytest tests/examples $(if $(ONLY),-k $(ONLY))

goals: $(VENV)/.dev $(VENV)/.peers ## measure what is promised, and say what holds or misses (ONLY=writer, ONLY=steady,drain; OPTIONS=--full)
	$(BIN)/python -m benchmarks.goals $(if $(ONLY),--only $(ONLY)) $(OPTIONS)

page: $(VENV)/.dev $(VENV)/.peers ## measure a message, a lone write, steady traffic beside peers, the loading of events and an inbox for docs/performance.md (ONLY=message,write,steady,loading,consumer; OPTIONS=--full)
	@$(BIN)/python -m benchmarks.page $(if $(ONLY),--only $(ONLY)) $(OPTIONS)

pressure: $(VENV)/.dev $(VENV)/.peers ## 800 events/s beside analytic queries of 120 s, for 15 minutes, then a peer (OPTIONS="--minutes 2 --rate 400")
	@$(BIN)/python -m benchmarks.pressure $(OPTIONS)

life-kills: $(VENV)/.dev ## kill forget and erase jobs N times each in the middle of work, with SEED; then check all
	@$(BIN)/python -m benchmarks.life_kills $(if $(N),--kills $(N)) $(if $(SEED),--seed $(SEED))

nemesis: $(VENV)/.dev ## kill and stop PUBLISHERS while they relay EVENTS, with SEED; then check all
	$(BIN)/python -m benchmarks.nemesis $(NEMESIS)

night: $(VENV)/.dev ## a publisher and a writer at the defaults for HOURS=8, RATE=50 events/s, each part restarted every EVERY=60 minutes (OPTIONS="--file build/night.json")
	@$(BIN)/python -m benchmarks.night $(if $(HOURS),--hours $(HOURS)) $(if $(RATE),--rate $(RATE)) $(if $(EVERY),--every $(EVERY)) $(OPTIONS)

simulate: $(VENV)/.dev ## run N schedules of faults on the relay in virtual time, from SEED (DEFECT=name plants one, KEEP=name makes a test of the smallest that breaks a rule, LANE=both compares runs with pages and without)
	$(BIN)/python -m benchmarks.simulation $(or $(N),10000) $(or $(SEED),1) $(if $(DEFECT),--defect $(DEFECT)) $(if $(LANE),--lane $(LANE)) $(if $(KEEP),--keep "$(KEEP)")

defects: $(VENV)/.dev ## plant defects in a copy, one at a time: which tests find each (ONLY=inbox,.. by file or name; OPTIONS="--all", "--new", "--show")
	@$(BIN)/python -m benchmarks.defects $(OPTIONS) $(if $(ONLY),--only "$(ONLY)")

simulate-sql: $(VENV)/.dev ## run N schedules of the real statements, of several sessions on a server, from SEED (DEFECT=name plants one)
	$(BIN)/python -m benchmarks.sql_simulation $(or $(N),1000) $(or $(SEED),1) $(if $(DEFECT),--defect $(DEFECT))

nemesis-rolling: $(VENV)/.dev ## restart PUBLISHERS one by one: the longest pause of any subject
	$(BIN)/python -m benchmarks.nemesis --rolling $(NEMESIS)

power: $(VENV)/.dev ## lose what a broker or a database has acknowledged: NATS or Apache Kafka without power, a promoted standby (SEED, ONLY=kafka,..; Linux, root and a loop device, Java for Kafka)
	@$(BIN)/python -m benchmarks.power $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only $(ONLY))

real-brokers: $(VENV)/.dev ## the sinks' contract suite and a nemesis on NATS, Redis, ElasticMQ, RabbitMQ and Apache Kafka (ONLY=kafka,..; EVENTS, SUBJECTS, RATE; MAP=benchmarks.real_brokers.own_keys:own_keys)
	@$(BIN)/python -m benchmarks.real_brokers $(if $(ONLY),--only $(ONLY)) $(if $(SEED),--seed $(SEED)) \
		$(if $(EVENTS),--events $(EVENTS)) $(if $(SUBJECTS),--subjects $(SUBJECTS)) $(if $(RATE),--rate $(RATE)) $(if $(MAP),--map $(MAP))

docs: $(VENV)/.docs ## build the documentation's site in build/site and test its pages (SERVE=1 shows it)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs $(if $(SERVE),serve,build)
	$(if $(SERVE),,$(BIN)/pytest -q -m site tests/site)

pictures: $(VENV)/.dev ## draw the diagrams of the documentation
	$(BIN)/python docs/site/diagrams.py docs/pictures

asyncapi: ## validate docs/message/asyncapi.yaml with AsyncAPI's own parser
	@command -v npm > /dev/null || { echo "asyncapi needs npm and node" >&2; exit 1; }
	npm install --silent --no-fund --no-audit --prefix build/asyncapi @asyncapi/parser@3
	cp docs/site/asyncapi.mjs build/asyncapi
	node build/asyncapi/asyncapi.mjs docs/message/asyncapi.yaml

prose: $(VENV)/.dev ## list sentences that are too long or hard to read
	@$(BIN)/python -m tests.support.prose

readme-check: $(VENV)/.dev ## run each command and each snippet of README as a reader does
	$(BIN)/pytest tests/integration/project/test_readme.py

upgrade-pair: $(VENV)/.dev ## make a wheel of this checkout and a dump of rows in every state, and upgrade from them; a release keeps the pair
	@$(BIN)/python -m tests.support.upgrade.make_pair
	$(BIN)/pytest $(XDIST) tests/integration/schema/upgrade

DIST := dist
# Of the last commit alone, with its time, by the locked setuptools: the same commit gives the same wheel.
dist: $(VENV)/.dev ## build sdist and wheel of the last commit, the same wheel each time
	@work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && rm -rf "$(DIST)" \
		&& git archive HEAD | tar -xp -C "$$work" \
		&& SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(UV) build --quiet --no-build-isolation --out-dir "$(DIST)" "$$work"

package-check: dist ## check what `make dist` built: metadata, page, links, the demo in empty environments
	$(BIN)/pytest -n 2 -m package tests/package

release-check: $(VENV)/.dev ## say what a release of the last commit lacks, then check its packages and its site
	@$(BIN)/python -m tests.support.release; lacks=$$?; \
		$(MAKE) --no-print-directory package-check docs && exit $$lacks

sbom: $(VENV)/.uv ## write dist/sbom.json: what an installation with all extras brings (CycloneDX)
	@mkdir -p $(DIST)
	$(UV) export --quiet --frozen --no-dev --all-extras --format cyclonedx1.5 --output-file $(DIST)/sbom.json > /dev/null

# Two sets: the locked packages, and the oldest that pyproject.toml allows, which users may have.
# With OPTIONAL=1, as in CI, a database out of reach is reported and is no failure.
audit: $(VENV)/audit/uv.lock ## ask the database of OSV about each locked package, and the oldest ones that pyproject.toml allows
	@for set in . $(VENV)/audit; do \
		printf '\n+ audit of %s\n' "$$set/uv.lock"; \
		$(UV) audit --frozen --preview-features audit-command --project $$set; \
		case $$? in 0) ;; 1) found=yes ;; *) unread="$$unread $$set/uv.lock" ;; esac; \
	done; \
	test -z "$$unread" || echo "audit: not checked:$$unread: see the error above; the audit needs https://api.osv.dev" >&2; \
	test -z "$$found$(if $(OPTIONAL),,$$unread)"

# Prometheus is left out, as its exporter wants the newest OpenTelemetry: the oldest one is tested this way.
# So is the simulation: an old anyio does not take its event loop in virtual time for asyncio's.
LOWEST_TESTS := $(filter-out %/project,$(wildcard tests/unit/*)) \
	--ignore=tests/unit/observability/test_dashboards.py --ignore-glob=tests/unit/publisher/test_simulation*.py \
	tests/integration/frameworks tests/integration/outbox tests/integration/writer/test_writer.py \
	tests/integration/publisher/test_publisher.py tests/integration/cli/test_demo.py tests/integration/cli/test_otlp.py \
	tests/integration/console tests/integration/http_server
LOWEST := $(addprefix --extra ,console demo django dsql fastapi kafka lambda otlp sqlalchemy sqs starlette uvloop)
test-lowest: $(VENV)/.dev $(VENV)/lowest.txt ## run the unit tests and some others on the oldest packages that pyproject.toml allows
	$(UV) venv --quiet --clear $(VENV)/lowest
	$(BIN)/uv pip install --quiet --python $(VENV)/lowest/bin/python -r $(VENV)/lowest.txt --group dev --editable .
	$(VENV)/lowest/bin/python -m pytest -n 2 -m "$(ALL) and not slow" $(LOWEST_TESTS)

recordings: $(VENV)/.dev ## record a real run of `demo` as docs/pictures/demo.svg
	$(BIN)/python -m benchmarks.recording

lock: $(VENV)/.uv ## write uv.lock anew after a change of dependencies
	$(UV) lock

clean: ## remove the environment and everything generated
	rm -rf $(VENV) build dist .coverage .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . \( -name __pycache__ -o -name '*.egg-info' \) -prune -exec rm -rf {} +

$(VENV)/.uv:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed and was not found; set PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8'
	@touch $@

# The demo needs no linter, no exporter and no AWS: its extra names what it needs. `make dev` adds the console.
$(VENV)/.run: $(VENV)/.uv pyproject.toml uv.lock
	@$(SYNC) --no-dev --extra demo --extra console
	@touch $@

$(VENV)/.dev: $(VENV)/.uv pyproject.toml uv.lock
	@$(SYNC) --all-extras
	@touch $@ $(VENV)/.run

$(VENV)/lowest.txt: $(VENV)/.uv pyproject.toml
	@rm -f $@
	@$(UV) pip compile --quiet --resolution lowest-direct $(LOWEST) --output-file $@ pyproject.toml

# `uv audit` reads the lock file of a project, so this makes one.
$(VENV)/audit/uv.lock: $(VENV)/lowest.txt
	@rm -rf $(@D)
	@$(UV) init --quiet --bare --no-workspace --name lowest $(@D)
	@$(UV) add --quiet --no-sync --project $(@D) --requirements $<

$(VENV)/.docs: $(VENV)/.dev
	@$(SYNC) --all-extras --group docs
	@touch $@

# Without it, `make console-check` does what needs no browser.
$(VENV)/.browser: $(VENV)/.uv pyproject.toml uv.lock
	@$(SYNC) --all-extras --group browser || echo "console-check: the driver of a browser could not be installed" >&2
	@touch $@

# An environment within: what plays DSQL wants another botocore than we do.
$(VENV)/.conformance: $(VENV)/.uv pyproject.toml uv.lock
	@$(UV:$(VENV)=$(VENV)/conformance) sync --quiet --frozen --only-group conformance
	@touch $@

# The peers of `make bench-peers` and `make fieldtest`, which want other versions than we do. One that
# cannot be installed is tried again by the next run; the others are run meanwhile.
$(VENV)/.peers: $(VENV)/.uv benchmarks/peers/requirements.txt
	@$(BIN)/python -m venv --without-pip $(VENV)/peers
	@failed=; for peer in $$(grep -v '^#' benchmarks/peers/requirements.txt); do \
		$(BIN)/uv pip install --quiet --python $(VENV)/peers/bin/python \
			--constraint benchmarks/peers/requirements.txt "$$peer" \
			|| { failed=yes; echo "peers: $$peer could not be installed" >&2; }; \
	done; test "$$failed" || touch $@
