"""The model of the GPU's limits: the design's table, published peaks, and how it stands beside times."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from first_contact import models
from first_contact.timing_plan import Planned
from gpu_model import A100, H100, MODEL_H100, gpu_of, loss_limits, published_peak, topk_limits
from throughput_case import OURS
from throughput_report import Row


@pytest.mark.parametrize("d", [64, 128, 256])
def test_model_gives_the_designs_table(d: int) -> None:
    model = loss_limits(H100, 8192, 1_024_000, d, torch.bfloat16, whole_peak=True)
    assert model.predicted == pytest.approx(MODEL_H100[d], rel=0.005)
    assert loss_limits(H100, 8192, 1_024_000, d, torch.bfloat16).predicted < model.predicted


@pytest.mark.parametrize("d", [64, 128, 256])
def test_predictions_on_the_verification_page(d: int) -> None:
    a100, h100, whole = (
        round(loss_limits(gpu, 8192, 1_024_000, d, torch.bfloat16, whole_peak).predicted)
        for gpu, whole_peak in ((A100, False), (H100, False), (H100, True))
    )
    page = (Path(__file__).parents[1] / "docs" / "verification.md").read_text()
    assert f"| {d} | {a100}{' TFLOP/s' if d == 64 else ''} | {h100} | {whole} |" in page


def test_model_knows_what_the_kernels_do_beyond() -> None:
    def model(d: int, dtype: torch.dtype) -> float:
        return loss_limits(A100, 8192, 1_024_000, d, dtype).predicted

    assert model(32, torch.bfloat16) == pytest.approx(
        model(64, torch.bfloat16) / 2, rel=0.01
    )  # padding
    assert model(256, torch.float32) < 312 / 6  # three products of half the speed
    many_users = topk_limits(A100, 10**6, 1_024_000, 64, torch.bfloat16)
    assert many_users.memory < many_users.matrix and many_users.bound == "matrix units"
    assert topk_limits(A100, 16, 1_024_000, 64, torch.bfloat16).bound == "memory"


def test_models_stand_beside_measurements() -> None:
    measured = [
        (planned, Row("loss", "", "", 0, OURS, "bfloat16", gflops=300e3))
        for planned in (
            Planned("loss", 8192, 1_024_000, 64),
            Planned("top-k", 2048, 1_024_000, 64, k=20),
        )
    ]
    cells = models.limits_cells(H100, measured)
    assert cells[1][:3] == ["loss 8192 x 1024000, d 64, bfloat16", "300", "382"]
    assert len(cells) == 3
    assert models.design_cells(H100, measured)[1:] == [[cells[1][0], "300", "450", "0.67", "496"]]
    assert models.design_cells(A100, measured)[1:] == [[cells[1][0], "300", "170", "1.76", ""]]


def test_published_peaks() -> None:
    assert published_peak(H100, torch.bfloat16) == pytest.approx(989.4, rel=0.001)
    assert published_peak(A100, torch.bfloat16) == pytest.approx(312, rel=0.001)
    assert published_peak(A100, torch.float32) == pytest.approx(19.5, rel=0.001)

    class Properties:
        name, multi_processor_count = "NVIDIA H100 80GB HBM3", 132

    assert gpu_of(Properties) is H100
