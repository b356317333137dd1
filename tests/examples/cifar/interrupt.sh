# Ctrl-C in the middle of a comparison saves, and --resume ends with the results of a run without it.
. "$(dirname "$0")/../program.sh"

options="--compare sgd,sam --seed 3 --train-size 128 --test-size 100 --batch-size 32 --augment --epochs 40"
without_seconds() { cut -d, -f1-9,11- "$1"; }

"$program" --threads 1 $options --out "$work/whole" >"$work/said" 2>&1 || fail "code $?: $(cat "$work/said")"

interrupts_at "$work/cut/checkpoints/sam-seed3.pt" 0 $options --out "$work/cut"
grep -q "Interrupted. Continue with the same options and --resume $work/cut/checkpoints" "$work/said" ||
  fail "no word of --resume: $(cat "$work/said")"
[ "$(wc -l <"$work/cut/curves.csv")" -lt 81 ] || fail "it had ended already"

"$program" --threads 1 $options --out "$work/resumed" --resume "$work/cut/checkpoints" >"$work/said" 2>&1 ||
  fail "code $?: $(cat "$work/said")"
without_seconds "$work/whole/curves.csv" >"$work/expected"
without_seconds "$work/resumed/curves.csv" >"$work/found"
cmp "$work/expected" "$work/found" || fail "the results differ: $(diff "$work/expected" "$work/found")"
