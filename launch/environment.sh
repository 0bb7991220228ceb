# shellcheck shell=bash
# Sourced by the other scripts: goes to the repository's root and makes sure that .venv holds what requirements.txt
# names, so that afterwards .venv/bin/python runs everything. A stamp lets a second call return at once.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

say() { printf '%s\n' "$*" >&2; }

# Prints the first Python on the PATH that the pinned libraries support; where PYTHON is set, that one or none.
find_python() {
  local candidate candidates=(python3 python3.13 python3.12 python3.11)
  [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

prepare_environment() {
  local python stamp
  stamp=$({ pwd; cat requirements.txt pyproject.toml; } | sha256sum)
  if [ -x .venv/bin/python ] && [ "$(cat .venv/stamp 2>/dev/null)" = "$stamp" ]; then
    return
  fi
  if ! python=$(find_python); then
    say "avshare_jax needs Python 3.11, 3.12 or 3.13, and ${PYTHON:-what is on the PATH} is none of these." \
      "On Debian or Ubuntu: apt-get install python3 python3-venv. To use one that is not on the PATH, set PYTHON to it."
    return 1
  fi
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    say "$python cannot make virtual environments. On Debian or Ubuntu: apt-get install python3-venv."
    return 1
  fi
  say "Installing the libraries of requirements.txt into $PWD/.venv (about 3 GB on disk and two minutes; once) ..."
  "$python" -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps \
    --editable .
  echo "$stamp" >.venv/stamp
  say "Installed."
}

prepare_environment

# The libraries' own start-up messages would bury ours.
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3} GRPC_VERBOSITY=${GRPC_VERBOSITY:-ERROR}
