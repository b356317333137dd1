# Shared by the tests of the programs: sourced with the program, a folder of its own and steppe-cifar as arguments.
set -eu
program=$(realpath "$1")
cifar=$(realpath "$3")
work=$2
rm -rf "$work"
mkdir -p "$work"

fail() {
  echo "FAILED: $*" >&2
  exit 1
}

# The program ends with a code other than 0 and these words in its error, before it has begun.
refuses() { # words, then arguments
  words=$1
  shift
  code=0
  "$program" --threads 1 "$@" >"$work/said" 2>"$work/error" || code=$?
  [ "$code" -ne 0 ] || fail "$*: code 0"
  grep -q "$words" "$work/error" || fail "$*: no '$words' in: $(cat "$work/error")"
  [ ! -s "$work/said" ] || fail "$*: it went on to say $(cat "$work/said")"
}

# The same with code 1, in one line that names the program.
refuses_in_one_line() {
  refuses "$@"
  [ "$code" -eq 1 ] || fail "$*: code $code"
  [ "$(wc -l <"$work/error")" -eq 1 ] || fail "$*: not one line but: $(cat "$work/error")"
  grep -q "^$(basename "$program"): " "$work/error" || fail "$*: it does not say who speaks: $(cat "$work/error")"
}

# Ctrl-C the given seconds after the file or folder exists: code 130, and a message.
interrupts_at() { # path, seconds, then arguments
  path=$1
  seconds=$2
  shift 2
  "$program" --threads 1 "$@" >"$work/said" 2>&1 &
  process=$!
  while [ ! -e "$path" ]; do
    kill -0 "$process" 2>/dev/null || fail "it ended too early: $(cat "$work/said")"
    sleep 0.02
  done
  sleep "$seconds"
  kill -INT "$process"
  code=0
  wait "$process" || code=$?
  [ "$code" -eq 130 ] || fail "code $code: $(cat "$work/said")"
  grep -q 'Interrupted' "$work/said" || fail "no word of it: $(cat "$work/said")"
}
