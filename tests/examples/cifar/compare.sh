# A short comparison ends with code 0, a table, curves.csv and curves.svg.
. "$(dirname "$0")/../program.sh"

"$program" --threads 1 --quick --compare --seeds 2 --out "$work/out" >"$work/said" 2>&1 || fail "code $?: $(cat "$work/said")"
for words in 'test accuracy' '^zsharp ' 'against sgd' 'curves.csv'; do
  grep -q "$words" "$work/said" || fail "no '$words' in: $(cat "$work/said")"
done
# Four optimizers, two seeds, two epochs, and the names of the columns.
[ "$(wc -l <"$work/out/curves.csv")" -eq 17 ] || fail "curves.csv has $(wc -l <"$work/out/curves.csv") lines"
grep -q '^<svg ' "$work/out/curves.svg" || fail "curves.svg is none"
