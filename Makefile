# Every target calls something in setup/, where the work is described. `make help` lists them.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo down engine-down stack-up stack-down stack-status proxy backup restore rotate-secrets bundle bundle-load swarm-init swarm-status swarm-leave registry-up images model-test test test-swarm unit lint format lock clean

# Where the server listens: make demo PORT=9000
PORT ?= 8080
export PORT
export ARGS

PYTHON_IN := .venv/bin/python

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## from nothing to a result: engine, images, server on PORT, a real model, a task
	@setup/venv.sh embedded
	@$(PYTHON_IN) -m setup demo

down: ## stop the server; its data and the engine stay
	@setup/stop.sh down

engine-down: ## stop the container engine, if it was started from here
	@setup/stop.sh engine-down

stack-up: ## the full stack on HTTPS_PORT (8443): PostgreSQL, S3, RabbitMQ, TLS; waits until it works
	@setup/venv.sh embedded
	@$(PYTHON_IN) -m setup stack-up

stack-down: ## stop and remove the full stack; its data stays (PURGE=1 deletes it)
	@setup/venv.sh embedded
	@$(PYTHON_IN) -m setup stack-down

stack-status: ## how each service of the full stack is
	@setup/venv.sh embedded
	@$(PYTHON_IN) -m setup stack-status

proxy: ## domains and certificates of the full stack: make proxy ARGS='domains list'
	@setup/venv.sh embedded
	@$(PYTHON_IN) -m setup proxy

backup: ## copy the full stack's database and blobs into a new directory: TO=
	@setup/venv.sh embedded
	@$(PYTHON_IN) -m setup backup

restore: ## bring a backup into an empty stack: FROM=
	@setup/venv.sh embedded
	@$(PYTHON_IN) -m setup restore

rotate-secrets: ## new passwords for the full stack's database, store and broker
	@setup/venv.sh embedded
	@$(PYTHON_IN) -m setup rotate-secrets

bundle: ## one archive of this release for machines without a network: [OUT=dist SINCE=earlier.tar ALSO=images EXAMPLE=1]
	@setup/venv.sh embedded
	@$(PYTHON_IN) -m setup bundle

bundle-load: ## load the images of a bundle on this machine's engine, for a node of a Swarm: BUNDLE=file
	@setup/bundle/load.sh "$(BUNDLE)"

swarm-init: ## the full stack on a Swarm, with this machine as its home: ADVERTISE=address [SWARM_ENCRYPTION=off REGISTRY=]
	@setup/venv.sh embedded
	@$(PYTHON_IN) -m setup swarm-init

swarm-status: ## how the Swarm's machines and services are
	@setup/venv.sh embedded
	@$(PYTHON_IN) -m setup swarm-status

swarm-leave: ## drain this machine, or NODE=name, and leave the Swarm; on the home the stack ends (PURGE=1 deletes data)
	@setup/venv.sh embedded
	@$(PYTHON_IN) -m setup swarm-leave

registry-up: ## an image registry for the Swarm's machines, and the script with which they trust it: [PUSH=images]
	@setup/venv.sh embedded
	@$(PYTHON_IN) -m setup registry-up

images: ## build every image: base, model template, example, the full stack's
	@setup/venv.sh embedded
	@$(PYTHON_IN) -m setup images

model-test: ## try a model as the server would run it: DIR=folder [SAMPLE= CONTENT= TAG= GPU=1 MEMORY= TIME=]
	@setup/venv.sh embedded
	@$(PYTHON_IN) -m setup model-test

test: ## everything from nothing, then all tests (ARGS= goes to pytest)
	@setup/venv.sh dev
	@$(PYTHON_IN) -m setup test

test-swarm: ## several machines in one Swarm, killed, frozen and cut off; as root on Linux (ARGS= goes to pytest)
	@setup/venv.sh dev
	@$(PYTHON_IN) -m setup test-swarm

unit: ## the quick tests only, without an engine
	@setup/venv.sh dev
	@$(PYTHON_IN) -m pytest tests/unit $(ARGS)

lint: ## style, types, import rules, module lengths
	@setup/venv.sh dev
	@setup/lint.sh

format: ## let the formatter have its way
	@setup/venv.sh dev
	@$(PYTHON_IN) -m ruff check --fix --quiet . ; $(PYTHON_IN) -m ruff format .

lock: ## pin the requirements anew, with hashes
	@setup/venv.sh dev
	@setup/lock.sh

clean: ## remove caches and the virtual environment; data, images and engine stay
	@setup/clean.sh
