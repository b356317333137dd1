# Ctrl-C ends with code 130 and the page of the runs that were measured by then.
. "$(dirname "$0")/../program.sh"

"$cifar" --threads 1 --compare sgd,sam --epochs 1 --train-size 64 --test-size 64 --out "$work/cifar" >"$work/said" 2>&1 ||
  fail "code $?: $(cat "$work/said")"
measure="--images 64 --steps 5 --vectors 100 --points 3 --out $work/out $work/cifar/checkpoints"
interrupts_at "$work/out/numbers.csv" 0.2 $measure
grep -q 'Interrupted after 1 of 2 runs' "$work/said" || fail "no word of how far it came: $(cat "$work/said")"
[ "$(wc -l <"$work/out/numbers.csv")" -eq 2 ] || fail "numbers.csv has $(wc -l <"$work/out/numbers.csv") lines"

# Before the first one is measured there is nothing to show.
rm -rf "$work/out"
interrupts_at "$work/out" 0 $measure
grep -q 'Interrupted after 0 of 2 runs' "$work/said" || fail "no word of how far it came: $(cat "$work/said")"
