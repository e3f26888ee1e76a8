#!/usr/bin/env bash
# Makes a virtual environment at $1. Debian and Ubuntu ship Python without the venv module: then it is installed with apt, saying so.
set -euo pipefail
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.x" >&2; exit 2; }
if [ ! -x "$1/bin/python" ] && ! "$python" -m venv "$1" 2>/dev/null; then
  rm -rf "$1"
  echo "This Python has no venv module: installing Debian's package python3-venv with apt-get." >&2
  sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null
  "$python" -m venv "$1"
fi
