# What cannot work ends with one clear line and a code other than 0, before any training.
. "$(dirname "$0")/../program.sh"

refuses() { # words of the message, then arguments
  words=$1
  shift
  code=0
  "$program" --quick "$@" >"$work/said" 2>"$work/error" || code=$?
  [ "$code" -ne 0 ] || fail "$*: code 0"
  grep -q "$words" "$work/error" || fail "$*: no '$words' in: $(cat "$work/error")"
  [ ! -s "$work/said" ] || fail "$*: it went on to say $(cat "$work/said")"
}
in_one_line() {
  refuses "$@"
  [ "$(wc -l <"$work/error")" -eq 1 ] || fail "$*: not one line but: $(cat "$work/error")"
  grep -q '^steppe-tensor-completion: ' "$work/error" || fail "$*: it does not say who speaks: $(cat "$work/error")"
}

cd "$work"
in_one_line "cannot open $work/none.npy" --data "$work/none.npy"
echo 'no tensor' >"$work/foreign.npy"
in_one_line 'is no .npy file' --data "$work/foreign.npy"
in_one_line 'rank of mode 2 must be from 1 to its size 6, not 7' --rank 8,7,8
in_one_line '2 ranks for a tensor of 3 modes' --rank 8,6
in_one_line 'none is left to train on' --masked 0.999999
echo 'a file' >"$work/file"
in_one_line 'cannot write into' --out "$work/file/out"
refuses 'at least 0 and under 1' --masked 1
refuses 'from 1 on' --rank 0,6,8
refuses 'from 1 on' --iterations 0
refuses "'adam' is listed twice" --optimizers adam,sam,adam
refuses 'sgd' --optimizers sgd
refuses '0 or more' --rho -1
