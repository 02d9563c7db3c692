# Every target calls something in setup/, where the work is described. `make help` lists them.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo down engine-down images test unit lint format lock clean

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

images: ## build the base image, the model template and the example model
	@setup/venv.sh embedded
	@$(PYTHON_IN) -m setup images

test: ## everything from nothing, then all tests (ARGS= goes to pytest)
	@setup/venv.sh dev
	@$(PYTHON_IN) -m setup test

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
