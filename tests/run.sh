#!/usr/bin/env bash
# Runs the test suite in two processes, file by file, after installing what is missing into .venv.
# Usage: tests/run.sh [pytest arguments]     For example: tests/run.sh -x tests/models, or tests/run.sh -m drill for the drills
# of tests/test_survival.py, which the default leaves out, as it does -m learning.
# Paths are seen from the repository's root. Tests run on the CPU unless JAX_PLATFORMS says otherwise.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../launch/environment.sh"
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
say "Running the tests: pytest $*"
exec .venv/bin/python -m pytest --numprocesses=2 --dist=loadfile "$@"
