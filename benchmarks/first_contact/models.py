"""Predictions beside measurements: the table that the kernels were designed by, and the limits of the GPU."""

from __future__ import annotations

import torch
from gpu_model import (
    A100,
    AIM_A100,
    AIM_H100,
    H100,
    MODEL_H100,
    Gpu,
    gpu_of,
    loss_limits,
    topk_limits,
)
from throughput_case import OURS
from throughput_report import Row

from first_contact.context import Context
from first_contact.outcome import ELSEWHERE, MISSING, PASSED, Check, Outcome, Table
from first_contact.timing_plan import Planned, full_plan
from first_contact.timings import Journal


def limits_cells(gpu: Gpu, measured: list[tuple[Planned, Row]]) -> list[list[str]]:
    cells = [["case", "TFLOP/s", "model", "measured / model", "limit", "limited by"]]
    for planned, row in measured:
        limits = loss_limits if planned.operation == "loss" else topk_limits
        model = limits(gpu, planned.n_users, planned.n_items, planned.d, getattr(torch, planned.dtype))
        tflops = row.gflops * 1e-3
        cells.append(
            [
                planned.name, f"{tflops:.0f}", f"{model.predicted:.0f}", f"{tflops / model.predicted:.2f}",
                f"{model.limit:.0f}", model.bound,
            ]
        )  # fmt: skip
    return cells


def design_cells(gpu: Gpu, measured: list[tuple[Planned, Row]]) -> list[list[str]]:
    """The two GPUs that the design's table is of, at 16 bits and d 64, 128, 256."""
    aims = {H100.name: AIM_H100, A100.name: AIM_A100}.get(gpu.name, {})
    models = MODEL_H100 if gpu.name == H100.name else {}
    cells = [["case", "TFLOP/s", "aim", "measured / aim", "model, whole matrix peak"]]
    for planned, row in measured:
        if planned.operation == "loss" and planned.dtype != "float32" and planned.d in aims:
            tflops, aim = row.gflops * 1e-3, aims[planned.d]
            model = str(models.get(planned.d, ""))
            cells.append([planned.name, f"{tflops:.0f}", str(aim), f"{tflops / aim:.2f}", model])
    return cells


def models(context: Context) -> Outcome:
    if not context.hardware:
        return Outcome.only(ELSEWHERE + context.place, "")
    gpu = gpu_of(torch.cuda.get_device_properties(context.device))
    if gpu is None:
        name = torch.cuda.get_device_name(context.device)
        return Outcome.only(PASSED, f"no model for {name} in gpu_model.py: nothing was predicted")
    done = Journal(context.folder).rows()
    measured = [
        (planned, row)
        for planned in full_plan()
        if planned.operation in ("loss", "top-k")
        for row in done.get(planned.name, [])
        if row.contender == OURS and not row.failure
    ]
    if not measured:
        return Outcome.only(MISSING, "no times to set beside the model")
    return Outcome(
        [Check("models", PASSED, f"{len(measured)} shapes beside the model of {gpu.name}")],
        [
            Table(f"Loss and top-k beside the limits of {gpu.name}", limits_cells(gpu, measured)),
            Table("Beside the design's table", design_cells(gpu, measured)),
        ],
    )
