"""The scores that reports show, in their order."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One column of a report.

    Attributes:
        name: key in the JSON report.
        label: for people.
        better: "higher", "lower" or "" for neither.
        scale: factor of the number that people are shown.
        digits: behind the point.
    """

    name: str
    label: str
    better: str
    scale: float = 1.0
    digits: int = 2


METRICS = (
    Metric("wer", "WER %", "lower", 100, 1),
    Metric("wer_rise", "WER rise, points", "lower", 100, 1),
    Metric("cer", "CER %", "lower", 100, 1),
    Metric("pesq_wb", "PESQ-WB", "higher"),
    Metric("pesq_nb", "PESQ-NB", "higher"),
    Metric("stoi", "STOI", "higher", digits=3),
    Metric("sim", "SIM", "higher", digits=3),
    Metric("sim_other", "SIM to the nearest other speaker", "lower", digits=3),
    Metric("own_nearest", "own speaker nearest %", "higher", 100, 0),
    Metric("mos", "MOS predicted (DistillMOS)", "higher"),
    Metric("dnsmos", "DNSMOS overall", "higher"),
    Metric("dnsmos_p808", "DNSMOS P.808", "higher"),
    Metric("f0_cents", "F0 error, cents", "lower", digits=0),
    Metric("voicing", "voicing error %", "lower", 100, 1),
    Metric("f0_median_cents", "median F0 difference, cents", "lower", digits=0),
    Metric("duration", "duration error %", "lower", 100, 1),
    Metric("no_eos", "no end of speech %", "lower", 100, 1),
    Metric("repetition", "repeated phrase %", "lower", 100, 1),
    Metric("moved", "moved as asked %", "higher", 100, 0),
    Metric("moved_by", "moved by, cents or %", "higher", digits=0),
    Metric("bit_rate", "bit/s", "", digits=0),
    Metric("real_time_factor", "compute / audio time", "lower", digits=3),
    Metric("first_audio_ms", "first audio, ms", "lower", digits=0),
)
BY_NAME = {metric.name: metric for metric in METRICS}
