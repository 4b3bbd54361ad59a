#!/bin/sh
# Prints the path of a Python that pairdistill runs on (3.11 to 3.14), or says what to do.
# Usage: find_python.sh [PYTHON [OURS]]
#   PYTHON  a name or a path to use instead of searching; empty: search
#   OURS    the Python of a virtual environment made before; if it still runs, it is the answer
#
# A name on PATH proves nothing (a version manager puts shims there that fail when run), so each
# candidate is run, and answers with the path of its real interpreter.

ask='import sys; print(sys.executable if (3, 11) <= sys.version_info[:2] <= (3, 14) else "")'

answer() {
    # -I: neither PYTHONPATH nor a module beside us may change the answer.
    "$1" -I -c "$ask" 2>/dev/null </dev/null
}

if [ -n "$1" ]; then
    found="$(answer "$1")"
    if [ -n "$found" ]; then echo "$found"; exit 0; fi
    echo "error: PYTHON=$1 is not a Python 3.11 to 3.14 that runs; name one that is" >&2
    exit 2
fi

for name in "$2" python3.11 python3.12 python3.13 python3.14 python3 python \
    "$HOME"/.pyenv/versions/3.1[1234].*/bin/python3 /opt/python*/bin/python3.1[1234]; do
    found="$(answer "$name")"
    if [ -n "$found" ]; then echo "$found"; exit 0; fi
done

cat >&2 <<'END'
error: no Python 3.11 to 3.14 found; install one, then run make again:
  Debian 12      apt-get install python3.11 python3.11-venv python3.11-dev
  Debian 13      apt-get install python3.13 python3.13-venv python3.13-dev
  Ubuntu 24.04   apt-get install python3.12 python3.12-venv python3.12-dev
  Ubuntu 26.04   apt-get install python3.14 python3.14-venv python3.14-dev
  conda          conda create -n pairdistill python=3.11 && conda activate pairdistill
or name it: make setup PYTHON=/path/to/python3.11
END
exit 2
