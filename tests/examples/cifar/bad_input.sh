# What cannot work ends with one clear line and a code other than 0, before any training.
. "$(dirname "$0")/../program.sh"

cd "$work"
refuses_in_one_line 'does not exist' --quick --data "$work/nowhere"
mkdir -p "$work/cifar-10-batches-bin"
refuses_in_one_line 'cannot open .*data_batch_1.bin' --quick --data "$work"
echo 'no images' >"$work/cifar-10-batches-bin/data_batch_1.bin"
refuses_in_one_line 'data_batch_1.bin has 10 bytes' --quick --data "$work"
head -c 3073 /dev/zero | tr '\000' '\377' >"$work/cifar-10-batches-bin/data_batch_1.bin"
refuses_in_one_line 'the label of image 0 is 255' --quick --data "$work"
echo 'a file' >"$work/file"
refuses_in_one_line 'cannot write into' --quick --out "$work/file/out"
refuses_in_one_line 'is not a checkpoint' --quick --resume "$work/file"
refuses_in_one_line 'the data set has only' --quick --train-size 50001
