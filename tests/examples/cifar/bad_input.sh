# What cannot work ends with one clear line and a code other than 0, before any training.
. "$(dirname "$0")/../program.sh"

refuses() { # words of the message, then arguments
  words=$1
  shift
  code=0
  "$program" --threads 1 --quick "$@" >"$work/said" 2>"$work/error" || code=$?
  [ "$code" -eq 1 ] || fail "$*: code $code"
  [ "$(wc -l <"$work/error")" -eq 1 ] || fail "$*: not one line but: $(cat "$work/error")"
  grep -q "^steppe-cifar: .*$words" "$work/error" || fail "$*: no '$words' in: $(cat "$work/error")"
  [ ! -s "$work/said" ] || fail "$*: it went on to say $(cat "$work/said")"
}

cd "$work"
refuses 'does not exist' --data "$work/nowhere"
mkdir -p "$work/cifar-10-batches-bin"
refuses 'cannot open .*data_batch_1.bin' --data "$work"
echo 'no images' >"$work/cifar-10-batches-bin/data_batch_1.bin"
refuses 'data_batch_1.bin has 10 bytes' --data "$work"
head -c 3073 /dev/zero | tr '\000' '\377' >"$work/cifar-10-batches-bin/data_batch_1.bin"
refuses 'the label of image 0 is 255' --data "$work"
echo 'a file' >"$work/file"
refuses 'cannot write into' --out "$work/file/out"
refuses 'is not a checkpoint' --resume "$work/file"
refuses 'the data set has only' --train-size 50001
