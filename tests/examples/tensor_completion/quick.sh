# A quick run ends with code 0, its tables, and a page with pictures and their numbers.
. "$(dirname "$0")/../program.sh"

"$program" --quick --iterations 40 --sweeps 5 --splits 2 --held-out-iterations 20 --out "$work/out" >"$work/said" 2>&1 ||
  fail "code $?: $(cat "$work/said")"
for words in '70 % of the entries held out' 'rank (8, 6, 8)' '^adam .*0.9482$' '^sam .*0.9485$' '^das .*0.9484$' '^hooi ' \
  'column means' 'was not made in the published setting' 'on held-out entries: R2' 'weight decay 0.003' 'index.html'; do
  grep -q "$words" "$work/said" || fail "no '$words' in: $(cat "$work/said")"
done
for name in fit deviation samples attempts; do
  grep -q '^<svg ' "$work/out/$name.svg" || fail "$name.svg is none"
  [ "$(wc -l <"$work/out/$name.csv")" -gt 60 ] || fail "$name.csv has $(wc -l <"$work/out/$name.csv") lines"
  grep -q "href=\"$name.csv\"" "$work/out/index.html" || fail "$name.csv is not linked"
done
# Four methods on two splits, 438 samples each, and the names of the columns.
[ "$(wc -l <"$work/out/samples.csv")" -eq 3505 ] || fail "samples.csv has $(wc -l <"$work/out/samples.csv") lines"

# The same again, from the same seed; without the attempts their section is left out.
"$program" --quick --iterations 30 --held-out-iterations 0 --optimizers adam,das --out "$work/once" >"$work/first" 2>&1
"$program" --quick --iterations 30 --held-out-iterations 0 --optimizers adam,das --out "$work/again" >"$work/second" 2>&1
cmp "$work/once/fit.csv" "$work/again/fit.csv" || fail "two runs differ"
grep -q 'What helps' "$work/first" && fail "the attempts were made all the same"
[ ! -e "$work/once/attempts.svg" ] || fail "there is a picture of no attempts"
