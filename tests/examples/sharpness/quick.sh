# Checkpoints of steppe-cifar, or --quick alone, end with code 0 and one page with pictures and their numbers.
. "$(dirname "$0")/../program.sh"

check() { # folder, rows of numbers.csv
  for name in spectrum rise plane; do
    grep -q '^<svg ' "$1/$name.svg" || fail "$name.svg is none"
    [ "$(wc -l <"$1/$name.csv")" -gt 3 ] || fail "$name.csv is too short"
  done
  grep -q 'Products with the Hessian' "$1/index.html" || fail "index.html does not say how products were taken"
  [ "$(wc -l <"$1/numbers.csv")" -eq "$2" ] || fail "numbers.csv has $(wc -l <"$1/numbers.csv") lines"
}

"$program" --quick --threads 1 --images 32 --steps 5 --vectors 2 --points 3 --out "$work/own" >"$work/said" 2>&1 ||
  fail "code $?: $(cat "$work/said")"
check "$work/own" 3
grep -q 'sam against sgd' "$work/said" || fail "no comparison in: $(cat "$work/said")"

"$cifar" --threads 1 --compare sgd,sam --seeds 2 --epochs 1 --train-size 64 --test-size 64 --out "$work/cifar" \
  >"$work/said" 2>&1 || fail "code $?: $(cat "$work/said")"
"$program" --quick --threads 1 --images 32 --steps 5 --vectors 2 --points 3 --out "$work/read" \
  "$work/cifar/checkpoints" >"$work/said" 2>&1 || fail "code $?: $(cat "$work/said")"
check "$work/read" 5
grep -q 'rank correlation' "$work/read/index.html" || fail "four runs have no ranks"
