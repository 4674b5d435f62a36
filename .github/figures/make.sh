#!/usr/bin/env bash
# Makes the pictures of README.md from real runs: .github/figures/make.sh CIFAR10_FOLDER
# CIFAR10_FOLDER holds train/<class>/* and test/<class>/*; about half an hour on two CPU cores.
set -euo pipefail
cd "$(dirname "$0")/../.."
photos=$1
here=.github/figures
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
cifar=(--data ImageFolderDataModule --data.root "$photos" --data.augment crop_flip --log_dir "$logs")

cnn-lightning show --config configs/cifar10_lenet_relu.yaml "${cifar[@]:0:6}" --output "$logs/show"
cp "$logs/show/samples.png" "$here/show.png"

cnn-lightning convolve --kernel sobel_y --output "$logs/convolve"
cp "$logs"/convolve/*.png "$here/convolve.png"

cnn-lightning fit --config configs/quickstart.yaml --log_dir "$logs"
run=$logs/quickstart/version_0
cp "$run/figures/feature_maps/backbone.conv1/epoch_010.png" "$here/feature_maps.png"
cnn-lightning test --run quickstart --ckpt_path best --log_dir "$logs"
cp "$run/figures/test_worst_mistakes.png" "$here/mistakes.png"

for activation in relu tanh; do
  cnn-lightning fit --config "configs/cifar10_lenet_$activation.yaml" "${cifar[@]}"
done
cnn-lightning compare cifar10_lenet_relu cifar10_lenet_tanh --log_dir "$logs" --output "$here/compare.png"
rm -f "$here"/compare.csv "$here"/compare.md
cnn-lightning test --run cifar10_lenet_relu --ckpt_path best --log_dir "$logs"
cp "$logs/cifar10_lenet_relu/version_0/figures/test_confusion_matrix.png" "$here/confusion.png"

cnn-lightning fit --config configs/shapes_resnet18.yaml --log_dir "$logs"
cnn-lightning inspect best --run shapes_resnet18 --mirrors both --log_dir "$logs" --output "$logs/inspect"
cp "$logs/inspect/overlays.png" "$here/inspect.png"
