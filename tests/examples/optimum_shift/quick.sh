# --quick ends with code 0 and one page with pictures and their numbers.
. "$(dirname "$0")/../program.sh"

"$program" --quick --threads 1 --train-size 64 --test-size 32 --epochs 2 --every 1 --images 32 --vectors 2 --points 3 \
  --out "$work/out" >"$work/said" 2>&1 || fail "code $?: $(cat "$work/said")"
for name in slices planes shifts; do
  grep -q '^<svg ' "$work/out/$name.svg" || fail "$name.svg is none"
  [ "$(wc -l <"$work/out/$name.csv")" -gt 3 ] || fail "$name.csv is too short"
done
# Two optimizers, ten ways each, and the names of the columns.
[ "$(wc -l <"$work/out/numbers.csv")" -eq 21 ] || fail "numbers.csv has $(wc -l <"$work/out/numbers.csv") lines"
grep -q 'against the same run as trained' "$work/out/index.html" || fail "no conclusions"
