# What cannot work ends with one clear line and a code other than 0.
. "$(dirname "$0")/../program.sh"

refuses() { # words of the message, then arguments
  words=$1
  shift
  code=0
  "$program" --threads 1 "$@" >"$work/said" 2>"$work/error" || code=$?
  [ "$code" -ne 0 ] || fail "$*: code 0"
  grep -q "$words" "$work/error" || fail "$*: no '$words' in: $(cat "$work/error")"
  [ ! -s "$work/said" ] || fail "$*: it went on to say $(cat "$work/said")"
}

refuses 'name a checkpoint'
refuses 'there is no checkpoint' "$work/none.pt"
echo 'something else' >"$work/foreign.pt"
refuses 'is not a checkpoint of steppe-cifar' "$work/foreign.pt"
refuses 'is not a checkpoint of steppe-cifar' "$work"
refuses 'does not exist' --quick --data "$work/nowhere"
refuses 'cannot write into' --quick --out "$work/foreign.pt/out"
refuses 'must be a number over 0' --quick --rho 0
