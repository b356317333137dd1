# What cannot work ends with one clear line and a code other than 0, before any training.
. "$(dirname "$0")/../program.sh"

refuses 'does not exist' --quick --data "$work/nowhere"
refuses 'the data set has only' --quick --train-size 50001
echo 'a file' >"$work/file"
refuses 'cannot write into' --quick --out "$work/file/out"
refuses 'a number over 0' --quick --ridge 0
