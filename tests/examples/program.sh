# What the tests of the programs share: sourced with the program and a folder of its own as arguments.
set -eu
program=$(realpath "$1")
work=$2
rm -rf "$work"
mkdir -p "$work"

fail() {
  echo "FAILED: $*" >&2
  exit 1
}
