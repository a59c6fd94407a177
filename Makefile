# wallet-service: every command a person types. Plain `make` prints them.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

INVENTORY ?= inventories/emulator.py
# Only where a person has named one: a run that is named says itself whose it is.
ifneq ($(origin INVENTORY),file)
export INVENTORY
endif

PYTHON := .venv/bin/python
INSTALLED := .venv/.installed

# macOS has GNU Make 3.81: nothing newer is used, and every recipe is for any sh.
# A variable goes to the shell in quotes, whatever a person has put into it; `option` gives it with
# its name, or nothing where it is empty; `flag` is for a yes.
quoted = '$(subst ','\'',$($(1)))'
option = $(if $($(2)),$(1) $(call quoted,$(2)))
flag = $(if $(filter yes,$($(2))),$(1))
GIVEN_INVENTORY = $(if $(filter file,$(origin INVENTORY)),,$(call option,--inventory,INVENTORY))

.PHONY: help
help: ## Print every target with its description
	@awk 'BEGIN { FS = ":.*## " } \
		/^### / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z][a-z0-9-]*:.*## / { printf "  %-24s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '\nVariables: INVENTORY=%s (one of: %s)\n' $(call quoted,INVENTORY) "$$(echo inventories/*.py)"

# The environment is built from uv.lock and built again when the lock changes.
$(INSTALLED): uv.lock pyproject.toml files/bootstrap.py files/pip_network.py
	@python3 files/bootstrap.py
	@touch $@

### Start here

.PHONY: quickstart
quickstart: $(INSTALLED) ## Deploy, verify, load, audit and report, on the best engine this machine has
	@$(PYTHON) -m cluster quickstart $(GIVEN_INVENTORY)

# tests/infra checks a running cluster (`make verify`); tests/deploy runs it on its own ones.
# Several at once; a file's tests share its clusters, so they stay together, the longest first.
PYTEST := .venv/bin/pytest --ignore=tests/infra --numprocesses=auto --dist=loadfile \
	--no-loadscope-reorder --durations=10 --durations-min=1 $(if $(filter random,$(ORDER)),--random-order)

.PHONY: test
test: $(INSTALLED) ## Run the linters, and a test of every kind of behaviour. ORDER=random shuffles, and prints its seed
	@$(MAKE) --no-print-directory lint & linters=$$!; $(PYTEST) -m 'not long'; tests=$$?; \
	wait $$linters || { echo "the linters have found something: make lint" >&2; exit 1; }; exit $$tests

.PHONY: test-all
test-all: $(INSTALLED) lint ## Run everything this machine can: whole deployments over SSH and rare faults too (two hours)
	@$(PYTEST)

.PHONY: test-long
test-long: $(INSTALLED) ## Run only what `make test` leaves to `make test-all`; BUDGET_S= begins none later than that
	@$(PYTEST) -m long $(call option,--budget-s,BUDGET_S)

### Cluster: INVENTORY= says which

.PHONY: up
up: $(INSTALLED) ## Deploy the cluster and wait until it commits; safe to repeat. BOOTSTRAP=yes makes a new one on servers, or in place of a lost one
	@$(PYTHON) -m cluster run $(call flag,--data bootstrap=yes,BOOTSTRAP)

.PHONY: down
down: $(INSTALLED) ## Stop the cluster; its data stays. AWAY=N without the server of replica N, which cannot be reached
	@$(PYTHON) -m cluster run $(call option,--away,AWAY) tasks.replica.stop

.PHONY: init-env
init-env: $(INSTALLED) ## Write a private env file with a cluster id and token of its own: HOSTS="10.0.0.11 ..." PORT= OUT=
	@$(PYTHON) -m cluster init-env $(call option,--out,OUT) $(call option,--port,PORT) $(HOSTS)

.PHONY: restart
restart: $(INSTALLED) ## Restart one replica after the other, the primary last, while the cluster goes on
	@$(PYTHON) -m cluster run tasks.replica.restart

.PHONY: adopt
adopt: $(INSTALLED) ## Take over replicas that somebody else has started on servers, one after the other; looks first, and asks (CONFIRM=yes)
	@$(PYTHON) -m cluster adopt

.PHONY: upgrade
upgrade: $(INSTALLED) ## Upgrade every replica to release TO=; checks the path, asks first (CONFIRM=yes)
	@$(PYTHON) -m cluster upgrade $(call quoted,TO)

.PHONY: migrate
migrate: $(INSTALLED) ## Move a whole ledger into a new cluster while it serves, and prove both equal: FROM= TO= (inventories). Asks when to stop the services; STOPPED=yes: they are
	@$(PYTHON) -m cluster migrate --from $(call quoted,FROM) --to $(call quoted,TO) $(call flag,--stopped,STOPPED)

.PHONY: migrate-drill
migrate-drill: $(INSTALLED) ## Move 104,001 transfers of three genuine replicas of its own into six (20 GiB of memory, 5 minutes)
	@MIGRATE_DRILL=yes .venv/bin/pytest -s tests/operate/test_scale.py

.PHONY: status
status: $(INSTALLED) ## Show each replica, and whether the cluster commits; WATCH=yes goes on, JSON=yes is for programs
	@$(PYTHON) -m cluster status $(call flag,--watch 2,WATCH) $(call flag,--json,JSON)

.PHONY: logs
logs: $(INSTALLED) ## Print the last log lines; REPLICA=N for one, FOLLOW=yes to go on
	@$(PYTHON) -m cluster logs $(call option,--replica,REPLICA) $(call flag,--follow,FOLLOW)

.PHONY: verify
verify: $(INSTALLED) ## Check what was deployed: processes, sockets, files, logs, a commit
	@.venv/bin/pytest tests/infra --inventory $(call quoted,INVENTORY)

.PHONY: download
download: $(INSTALLED) ## Download the pinned tigerbeetle release and check it against its recorded sum
	@$(PYTHON) -m cluster download

.PHONY: pin
pin: $(INSTALLED) ## Record the checksum of the release on first use; enforced from then on
	@$(PYTHON) -m cluster pin

### Docker: three replicas on this machine

COMPOSE := $(PYTHON) -m cluster compose-tb

.PHONY: compose-tb-init
compose-tb-init: $(INSTALLED) ## Build, format and start a new cluster; asks before it removes data (CONFIRM=yes)
	@$(COMPOSE) init

.PHONY: compose-tb-build
compose-tb-build: $(INSTALLED) ## Build the image, if its inputs have changed
	@$(COMPOSE) build

.PHONY: compose-tb-pin
compose-tb-pin: $(INSTALLED) ## Record the digest of the pulled base image, once; enforced from then on
	@$(COMPOSE) pin

.PHONY: compose-tb-format
compose-tb-format: $(INSTALLED) ## Format the data files of a new cluster; never over existing ones
	@$(COMPOSE) format

.PHONY: compose-tb-up
compose-tb-up: $(INSTALLED) ## Start the cluster and wait until it commits
	@$(COMPOSE) up

.PHONY: compose-tb-down
compose-tb-down: $(INSTALLED) ## Stop the cluster; its data stays
	@$(COMPOSE) down

.PHONY: compose-tb-down-volumes
compose-tb-down-volumes: $(INSTALLED) ## Stop the cluster and remove its data; asks first (CONFIRM=yes)
	@$(COMPOSE) down-volumes

.PHONY: compose-tb-restart
compose-tb-restart: $(INSTALLED) ## Restart one replica after the other, while the cluster goes on
	@$(COMPOSE) restart

.PHONY: compose-tb-status
compose-tb-status: $(INSTALLED) ## Show containers, health checks, roles, and whether the cluster commits
	@$(COMPOSE) status

.PHONY: compose-tb-logs
compose-tb-logs: $(INSTALLED) ## Print the logs; CONTAINER=tigerbeetle-0 for one, FOLLOW=yes to go on
	@$(COMPOSE) logs $(call option,--container,CONTAINER) $(call flag,--follow,FOLLOW)

.PHONY: compose-tb-repl
compose-tb-repl: $(INSTALLED) ## Open TigerBeetle's own prompt in a replica's container
	@$(COMPOSE) repl

.PHONY: doctor
doctor: $(INSTALLED) ## Say what is wrong, why, and what to do: with the cluster of INVENTORY=, else with the one in Docker
	@$(PYTHON) -m cluster doctor $(GIVEN_INVENTORY)

### Backup and repair

.PHONY: backup
backup: $(INSTALLED) ## Back up all data files of one moment: no stop where they can be cloned (XFS). WAY=freeze, WAY=stop forces one. KEEP= (7, or "daily=7 weekly=5 monthly=12") BACKUP_DIR= (backups/)
	@$(PYTHON) -m cluster backup $(call option,--keep,KEEP) $(call option,--way,WAY) $(call flag,--scheduled,SCHEDULED)

.PHONY: backups
backups: $(INSTALLED) ## List the cluster's backups, packed here and in its repository
	@$(PYTHON) -m cluster backups

.PHONY: backup-init
backup-init: $(INSTALLED) ## Make the repository that BACKUP_TO= of the env file names: a directory, SFTP, or S3
	@$(PYTHON) -m cluster backup-init

.PHONY: restic
restic: $(INSTALLED) ## Run restic itself on that repository: RUN="snapshots", RUN=unlock
	@$(PYTHON) -m cluster restic -- $(call quoted,RUN)

.PHONY: backup-verify
backup-verify: $(INSTALLED) ## Prove that a backup restores, in a scratch cluster: FROM= (default: the cluster's newest) RUN= (what it was told before must be in it)
	@$(PYTHON) -m cluster backup-verify $(call option,--from,FROM) $(call option,--run,RUN) $(call flag,--scheduled,SCHEDULED)

.PHONY: restore
restore: $(INSTALLED) ## Put all data files back FROM= a backup, or none; takes back what came after it (CONFIRM=yes). COPY_OF= (for a rehearsal elsewhere: whose backup it is)
	@$(PYTHON) -m cluster restore --from $(call quoted,FROM) $(call option,--copy-of,COPY_OF)

.PHONY: recover
recover: $(INSTALLED) ## Make the lost data file of REPLICA= again, from the others, while the cluster goes on
	@$(PYTHON) -m cluster recover --replica $(call quoted,REPLICA)

### Monitoring: needs LU_CFG_TIGERBEETLE_STATSD

.PHONY: monitor-up
monitor-up: $(INSTALLED) ## Collect the replicas' metrics and alert on them: Prometheus on port 9090 here, or of the monitoring host
	@$(PYTHON) -m cluster run --hosts monitoring/inventory.py tasks.monitoring.start

.PHONY: monitor-down
monitor-down: $(INSTALLED) ## Stop the monitoring; what it has stored stays
	@$(PYTHON) -m cluster run --hosts monitoring/inventory.py tasks.monitoring.stop

.PHONY: monitor-status
monitor-status: $(INSTALLED) ## Show Prometheus' targets, and the alerts that fire
	@$(PYTHON) -m cluster alerts

.PHONY: monitor-drill
monitor-drill: $(INSTALLED) ## Break three genuine replicas of its own in every way, and see each alert fire and end (8 minutes)
	@MONITOR_DRILL=yes .venv/bin/pytest tests/monitoring/test_drill.py

.PHONY: planned-stop
planned-stop: $(INSTALLED) ## Tell the alerts that REPLICA= (default: all) stops on purpose, for an hour at most; END=yes takes it back
	@$(PYTHON) -m cluster planned-stop $(if $(filter yes,$(END)),end,stop) $(call option,--replica,REPLICA)

.PHONY: watch
watch: $(INSTALLED) ## Follow all replicas' logs, with what each line means; ALL=yes shows the normal ones too
	@$(PYTHON) -m cluster watch $(call flag,--all,ALL)

### Load

# What a person sets for a run; anything else goes through LOAD= to locust.
LOAD_OPTIONS = $(call option,--scenario,SCENARIO) $(call option,--arrival-profile,PROFILE) $(call option,--shape,SHAPE) \
	$(call option,--population,POPULATION) $(call option,--users,USERS) $(call option,--rate,RATE) $(call option,--run-time,DURATION) \
	$(call option,--runs,RUNS) $(call option,--gate,GATE) $(call option,--processes,PROCESSES) $(LOAD)

.PHONY: load
load: $(INSTALLED) ## Load the cluster with wallets, audit it, report: USERS= DURATION= (20s, 5m) RATE= SCENARIO= PROFILE= POPULATION= RUNS= GATE=
	@$(PYTHON) -m cluster load $(LOAD_OPTIONS)

.PHONY: load-scenarios
load-scenarios: $(INSTALLED) ## List the scenarios and the arrival profiles, with a line each
	@$(PYTHON) -m cluster load-scenarios

.PHONY: load-ui
load-ui: $(INSTALLED) ## Open locust's web UI with our users on http://127.0.0.1:8089: SCENARIO= fills in its form
	@.venv/bin/locust --locustfile loadtests/locustfile.py --web-host 127.0.0.1 $(call option,--scenario,SCENARIO) $(LOAD)

.PHONY: audit
audit: $(INSTALLED) ## Prove a run's ledger, transfer by transfer: RUN= (default: the cluster's newest)
	@$(PYTHON) -m cluster audit $(call option,--run,RUN)

.PHONY: report
report: $(INSTALLED) ## Write a run's HTML report again: RUN= (default: the cluster's newest)
	@$(PYTHON) -m cluster report $(call option,--run,RUN)

.PHONY: capacity
capacity: $(INSTALLED) ## Find the highest rate within a latency bound: P99_MS= USERS= SCENARIO=
	@$(PYTHON) -m cluster capacity $(call option,--p99-ms,P99_MS) $(call option,--users,USERS) $(call option,--scenario,SCENARIO) $(call option,--processes,PROCESSES) $(LOAD)

.PHONY: workload
workload: $(INSTALLED) ## Act on a few wallets for DURATION= with every operation recorded, then judge the history
	@run=$$($(PYTHON) -m cluster workload $(call option,--run-time,DURATION)) && $(PYTHON) -m cluster check --run "$$run"

.PHONY: load-compare
load-compare: $(INSTALLED) ## Compare two runs, or two groups of runs: A= B=
	@$(PYTHON) -m cluster compare $(call option,,A) $(call option,,B)

.PHONY: load-history
load-history: $(INSTALLED) ## Keep the figures of all loads, and judge the last by earlier ones of its kind: RUN= HISTORY= (a file)
	@$(PYTHON) -m cluster load-history $(call option,--run,RUN) $(call option,--history,HISTORY)

### Faults

# The whole catalogue takes long; FAULT= chooses as pytest -k does: FAULT="kill and primary".
ROUNDS ?= 3

.PHONY: resilience
resilience: $(INSTALLED) ## Break genuine clusters of its own under load, ROUNDS= times each, and prove that nothing is lost: FAULT=
	@RESILIENCE_ROUNDS=$(call quoted,ROUNDS) .venv/bin/pytest tests/resilience $(call option,-k,FAULT)

### Tests: one suite whole, the long tests too

.PHONY: test-unit
test-unit: $(INSTALLED) ## Test the pure core, and programs that need no cluster
	@$(PYTEST) tests/unit

.PHONY: test-emulator
test-emulator: $(INSTALLED) ## Test the emulator; where a genuine server is on PATH, against it
	@$(PYTEST) tests/emulator

.PHONY: test-deploy
test-deploy: $(INSTALLED) ## Test deploys of processes on this machine
	@$(PYTEST) tests/deploy

.PHONY: test-docker
test-docker: $(INSTALLED) ## Test images, Compose and the doctor; needs a Docker engine
	@$(PYTEST) tests/docker

.PHONY: test-remote
test-remote: $(INSTALLED) ## Deploy to servers in containers, every refusal, and an interruption at every step (long)
	@$(PYTEST) tests/remote

.PHONY: test-load
test-load: $(INSTALLED) ## Test load, audit, reports and migration
	@$(PYTEST) tests/load

.PHONY: test-operate
test-operate: $(INSTALLED) ## Test backup, restore and recovery; needs a genuine server
	@$(PYTEST) tests/operate

.PHONY: test-monitoring
test-monitoring: $(INSTALLED) ## Test the collector, the alerts and the status
	@$(PYTEST) tests/monitoring

.PHONY: test-resilience
test-resilience: $(INSTALLED) ## Test the history checker, and faults under load
	@$(PYTEST) tests/resilience

### Development

.PHONY: differential
differential: $(INSTALLED) ## Compare the emulator with a genuine server at random: SEEDS= STEPS=
	@$(PYTHON) -m tests.emulator.differential $(call option,--seeds,SEEDS) $(call option,--steps,STEPS)

.PHONY: bench
bench: $(INSTALLED) ## Measure the emulator and the load generator as ratios to genuine references (20 minutes)
	@mkdir -p runs
	@$(PYTHON) -m benchmarks.emulator --json runs/bench-emulator.json
	@$(PYTHON) -m benchmarks.life --json runs/bench-life.json
	@$(PYTHON) -m benchmarks.queries --json runs/bench-queries.json
	@$(PYTHON) -m benchmarks.load

.PHONY: lint
lint: $(INSTALLED) ## Run the linters and the type checker
	@.venv/bin/ruff check --quiet
	@.venv/bin/ruff format --quiet --check
	@.venv/bin/mypy --no-error-summary
	@.venv/bin/yamllint --strict .
	@files=$$(git ls-files '*.sh' '.ci/*') && .venv/bin/shellcheck $$files
	@files=$$(git ls-files '*Dockerfile') && .venv/bin/hadolint $$files

.PHONY: format
format: $(INSTALLED) ## Rewrite the code in the project's format
	@.venv/bin/ruff check --fix --quiet && .venv/bin/ruff format --quiet

.PHONY: clean
clean: ## Remove what can be built again: caches and the environment, never data
	@rm -rf .venv .uv .mypy_cache .ruff_cache .pytest_cache .hypothesis
