# What cannot work ends with one clear line and a code other than 0, before any training.
. "$(dirname "$0")/../program.sh"

refuses() { # words of the message, then arguments
  words=$1
  shift
  code=0
  "$program" --threads 1 --quick "$@" >"$work/said" 2>"$work/error" || code=$?
  [ "$code" -eq 1 ] || fail "$*: code $code"
  [ "$(wc -l <"$work/error")" -eq 1 ] || fail "$*: not one line but: $(cat "$work/error")"
  grep -q "^steppe-statistics: .*$words" "$work/error" || fail "$*: no '$words' in: $(cat "$work/error")"
  [ ! -s "$work/said" ] || fail "$*: it went on to say $(cat "$work/said")"
}

cd "$work"
refuses 'does not exist' --data "$work/nowhere"
refuses 'there is no class 10' --classes 0,10
refuses 'two different ones' --classes 3,3
echo 'a file' >"$work/file"
refuses 'cannot write into' --out "$work/file/out"
code=0
"$program" --eta 2 >"$work/said" 2>"$work/error" || code=$?
[ "$code" -ne 0 ] || fail "--eta 2 was taken"
grep -q 'under 2, where SAM diverges' "$work/error" || fail "$(cat "$work/error")"
