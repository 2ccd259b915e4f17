"""Import this before torchvision: PyPI's is built for CUDA, and beside a torch for CPUs its operators are missing."""

import torch

for name in ("nms", "qnms"):
    torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
