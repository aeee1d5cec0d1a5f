# Sourced by every script: sets ROOT, goes there, and puts .venv with everything in requirements.lock first on PATH.
# When the stamp in .venv names the present lock, pyproject.toml and folder, nothing else is started.

ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P) || exit 1
VENV="$ROOT/.venv"

wanted_stamp() {
  printf '%s ' "$ROOT"
  (CDPATH='' cd -- "$ROOT" && cksum requirements.lock pyproject.toml)
}

find_python() {
  for candidate in "${MINHOS_PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11 python; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      printf '%s\n' "$candidate"
      return 0
    fi
  done
  return 1
}

if [ ! -x "$VENV/bin/python" ] || [ ! -f "$VENV/.minhos-stamp" ] || [ "$(wanted_stamp)" != "$(cat "$VENV/.minhos-stamp")" ]; then
  python=$(find_python) || {
    echo "minhos needs Python 3.11 or later; none of python3, python3.14 ... python3.11, python is." >&2
    echo "Install one, or name it: MINHOS_PYTHON=/path/to/python $0" >&2
    exit 1
  }
  "$python" "$ROOT/scripts/tooling/install.py" "$ROOT" "$(wanted_stamp)" || exit 1
fi

VIRTUAL_ENV="$VENV"
PATH="$VENV/bin:$PATH"
export VIRTUAL_ENV PATH
unset PYTHONHOME
# Where this is set, every process of a mesh would compile all of our code again: a third of its start.
unset PYTHONDONTWRITEBYTECODE
